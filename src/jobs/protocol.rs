//! What a server and the process of one of its jobs say to each other, over one Unix socket.
//!
//! ```text
//!   server                                                         job process
//!     │  ◀────────────────────── Hello ──────────────────────────────  │
//!     │  ── Start (program, restore, ...) ───────────────────────────▶ │  plans
//!     │  ◀────────────── Planned, or Rejected with the position ─────  │
//!     │  ── Run, once the job is on disk ────────────────────────────▶ │  runs
//!     │  ◀────────────────────── Status, every half second ──────────  │  (the heartbeat)
//!     │  ── Call: checkpoint, savepoint · Stop ──────────────────────▶ │
//!     │  ◀────────────────────── Store: every call of the job ───────  │  (reads segments itself)
//!     │  ── StoreReply · Durable: positions of subscribed shards ────▶ │
//!     │  ◀────────────────────── Ended ──────────────────────────────  │
//! ```
//! The socket is the job process's standard input, an unnamed pair: it has no path that another process could open,
//! and it closes with the server. Many requests are in flight at once; each has an id that its reply repeats.
//!
//! Every frame is one value of [`tidemill_checkpoints::codec`], whose header carries magic, version, length and
//! checksum. The first frame of the job process names the protocol's version in a shape that never changes, so that a
//! job binary built against another version is refused by name and not by garbage.
//!
//! File map: [`frame`] reads and writes frames, [`message`] are the messages, [`store`] those about shards.

pub(crate) mod frame;
pub(crate) mod message;
pub(crate) mod store;
