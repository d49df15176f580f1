//! Tidemill's engine: dataflow jobs over record batches in which everything happens in ticks.
//!
//! ```text
//!                  Open{t, wall_time, hold, split assignments}        Close{t}
//!   clock (worker 0) ──────────┬──────────────────────────────────────────────────────────────────┐
//!    ▲   ▲                     ▼                                                                  │
//!    │   └── reports ─── sources (every worker) ── rows of tick t ─▶ exchange ─▶ operators ─▶ sinks ─▶ probe
//!    │                                                                 ▲                          │
//!    │                                     TickClosed{t, watermarks} ──┘ (broadcast)              │
//!    └───────────────────────────────── frontier of worker 0's probe ─────────────────────────────┘
//! ```
//!
//! Who uses it: `sql` plans into its [`graph`], `connectors` implement its [`source`] and [`sink`] traits, Rust jobs
//! build a [`graph::JobGraph`] by hand, and [`job::start`] runs one.
//!
//! Invariants:
//! - a tick is a consistent cut of all sources, and operators see ticks strictly one after the other;
//! - what is emitted when a tick closes is a function of all input up to that tick;
//! - a watermark, once told, never goes back, not over a restore either;
//! - nothing is published because of a frontier alone: only a checkpoint that exists is.
//!
//! File map: [`graph`] describes a job, [`job`] runs it, [`operator`], [`source`] and [`sink`] are what runs,
//! `operators` are the engine's own, [`aggregate`] and [`expr`] what they compute with, [`key`] how rows find their
//! worker, `rows` what operators keep of them, `runtime` the clock, the adapters and the checkpoint coordinator.

pub mod aggregate;
pub mod error;
pub mod expr;
pub mod graph;
pub mod job;
pub mod key;
pub mod metrics;
pub mod operator;
mod operators;
#[allow(dead_code, reason = "operators that keep rows are being added")]
mod rows;
mod runtime;
pub mod sink;
pub mod source;
pub mod status;
pub mod testing;
pub mod time;

pub use error::{Error, Result};
