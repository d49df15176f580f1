//! Retention: which records are gone, and which segment files nobody needs any more. Decisions without any I/O.
//!
//! ```text
//!   trusted clock ─▶ trim horizon of a stream ─▶ floor of each shard ─▶ index entries leave memory
//!                                                                                      │
//!        ledger: what refers to each segment ◀─────────────────────────────────────────┘
//!           │ nothing does
//!           ▼
//!        control frame "removed" ─▶ durable ─▶ unlink; at the next start what a crash left behind
//! ```
//!
//! Invariants
//! - A record is gone once its arrival is older than its stream's retention; until then it is never dropped.
//! - A file is removed only after a durable frame says so, and only such files are.
//! - A jump of the clock expires nothing before it was confirmed over some time ([`TrustedClock`]).
//!
//! | file | |
//! |---|---|
//! | `clock.rs` | the time that expiry trusts |
//! | `ledger.rs` | what refers to each segment |
//! | `segment_set.rs` | numbers of removed segments, as ranges |
//! | `options.rs` | options and what was done |

mod clock;
mod ledger;
mod options;
mod segment_set;

pub(crate) use clock::TrustedClock;
pub(crate) use ledger::{Ledger, Pin, StagedGroup, StagedGroups};
pub(crate) use options::Usage;
pub use options::{RetentionOptions, StoreUsage, WhenFull};
pub(crate) use segment_set::SegmentSet;
