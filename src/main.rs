//! The `tidemill` command.

use std::process::ExitCode;

/// Many small batches live and die on different threads; the system's allocator is slow at that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The allocator's option `purge_delay`, in both of its versions that may be built.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// How long freed memory is kept for the next batch before it goes back to the system, in milliseconds. The allocator's own
/// 10 ms is about a tick: then memory goes back and forth, and to get it zeroed again costs some queries half of their time.
const PURGE_DELAY_MS: std::ffi::c_long = 1_000;

fn main() -> ExitCode {
    keep_freed_memory();
    tidemill::cli::main()
}

/// Sets the delay, unless the environment says another one (`MIMALLOC_PURGE_DELAY`).
#[allow(unsafe_code, reason = "the allocator's options have no safe interface")]
fn keep_freed_memory() {
    // SAFETY: sets a number in the allocator, before there is another thread; options out of range are ignored.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, PURGE_DELAY_MS) }
}
