//! Tidemill: durable shard streams and checkpointed stream-processing jobs in SQL or Rust, in one self-hosted program.
//!
//! This library is what a Rust job links; the `tidemill` command is built from it as well.
//!
//! ```no_run
//! use std::process::ExitCode;
//! use tidemill::engine::graph::JobGraph;
//!
//! fn main() -> ExitCode {
//!     tidemill::run_job(|environment| {
//!         let mut graph = JobGraph::new();
//!         let _ = (&mut graph, environment.connectors()); // sources, operators and sinks go in here
//!         Ok(graph)
//!     })
//! }
//! ```
//! The binary then runs its job alone (`my-job --data-dir DIR`), or under a server, which starts it as a worker
//! (`POST /v1/jobs` with `"executable"`): see [`run_job`].
//!
//! Features: `sql` brings the SQL planner and with it DataFusion; `server` brings the server, its HTTP APIs and the
//! command, which runs SQL jobs. A Rust job needs neither:
//! `tidemill = { version = "...", default-features = false }`.
//!
//! File map: [`JobEnvironment`] is what a job is given, [`run_job`] runs it, `run_sql_job` a SQL text with functions of a program's own; `data_directory`, `settings`, `planning` and
//! `running` are what both ways of running share; `standalone` runs one job with everything embedded, `worker` runs one
//! for a server; `jobs` supervises them, `server` speaks HTTP, `cli` is the command, `demo` its demonstration, `bench` its load.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests set their stage with files"))]

pub use tidemill_connectors as connectors;
pub use tidemill_engine as engine;
pub use tidemill_shards as shards;
#[cfg(feature = "sql")]
pub use tidemill_sql as sql;

mod data_directory;
mod environment;
mod jobs;
mod logging;
mod planning;
mod process;
mod running;
mod rust_job;
mod settings;
#[cfg(feature = "sql")]
mod sql_job;
mod standalone;
mod worker;

#[cfg(feature = "server")]
mod bench;
#[cfg(feature = "server")]
pub mod cli;
#[cfg(feature = "server")]
mod demo;
#[cfg(feature = "server")]
mod object_tier;
#[cfg(feature = "server")]
mod server;
#[cfg(feature = "server")]
mod timestamp;

pub use environment::JobEnvironment;
pub use rust_job::{BoxError, run_job};
#[cfg(feature = "sql")]
pub use sql_job::run_sql_job;
