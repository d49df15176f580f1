//! End-to-end tests of the `tidemill` binary. One binary for all, because each links a lot.

#![allow(clippy::disallowed_methods, reason = "tests set their stage with files")]

mod e2e {
    mod bad_input;
    mod bench;
    mod commands;
    mod descriptors;
    mod endpoint;
    mod happy_path;
    mod nexmark;
    mod processes;
    mod resharding;
    mod rows;
    mod run_again;
    mod rust_job;
    mod sql;
    mod stops;
    mod stream;
    mod stream_lost_answers;
    mod stream_refusals;
    mod subscribe;
    mod tiering;
}
