//! What runs a job graph: clock, sources, adapters, exchange, and the coordinator of checkpoints.
//!
//! ```text
//!  job thread      restores, starts the workers, waits for their end
//!  worker 0..W     step the dataflow; capture state at a hold                (one thread each)
//!    worker 0      also turns the clock: observe reports -> decide -> send commands
//!  I/O runtime     coordinator: upload, decide, publish; discovery of splits; readers and writers of connectors
//! ```
//! File map: `clock` decides (pure), `worker` builds the dataflow and performs, `sources` and `adapter` are the two
//! kinds of dataflow operators, `exchange` routes by key hash, `batch` and `message` are what travels, `board` is what
//! operators of one worker share, `coordinator` the checkpoints, `discovery` the splits, `shared` what the job's handle
//! sees.

mod adapter;
mod batch;
mod board;
mod clock;
mod coordinator;
mod discovery;
mod exchange;
mod launch;
mod message;
mod shared;
mod sources;
mod worker;

pub(crate) use launch::launch;
pub(crate) use shared::{JobShared, Request, panic_message};
