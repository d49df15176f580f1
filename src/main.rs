//! The `tidemill` command.

use std::process::ExitCode;

/// Many small batches live and die on different threads; the system's allocator is slow at that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tidemill::cli::main()
}
