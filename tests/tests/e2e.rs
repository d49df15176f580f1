//! End-to-end tests of the `tidemill` binary. One binary for all, because each links a lot.

mod e2e {
    mod bad_input;
    mod happy_path;
    mod processes;
    mod sql;
}
