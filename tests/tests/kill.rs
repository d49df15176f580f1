//! Processes killed with SIGKILL at random moments while a producer writes through the AWS SDK: no result is missing, none is
//! there twice, and no acknowledged record is lost.
//!
//! Every test prints its seed; `TIDEMILL_TEST_SEED` repeats it, as far as the machine's timing allows.
//!
//! | module | |
//! |---|---|
//! | `job_process` | a job's process killed, and the job rescaled in between |
//! | `server_process` | the server killed under a running job |
//! | `shard_store` | the shard store killed under load |
//! | `power_cut` | the same, and the power of its disk cut: opt-in, `cargo xtask power-cut` |
//! | `producers` | numbered requests, repeated until they are answered, are stored once |
//! | `foreground` | `tidemill run` killed and started again |
//! | `golden` | SQL jobs of `tests/golden` with output written by hand: whole, killed, restored with more workers |
//! | `failpoints` | a job's process aborted at each named step of a checkpoint |
//! | `job` | the job that all of them run |
//! | `clicks` | its input: made, put, and counted in plain Rust |
//! | `results` | its output: read, and compared |
//! | `reader` | follows the output stream while the tests run |
//! | `client` | the AWS SDK against our server |
//! | `random` | seeds |
#![allow(clippy::disallowed_methods, reason = "tests set their stage with files")]

mod kill {
    mod clicks;
    mod client;
    mod failpoints;
    mod foreground;
    mod golden;
    mod job;
    mod job_process;
    mod power_cut;
    mod producers;
    mod random;
    mod reader;
    mod results;
    mod server_process;
    mod shard_store;
}
