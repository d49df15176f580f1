//! Helpers of the end-to-end tests: the real binary in a directory of its own, its clients, and its processes.
//!
//! The binary is the `tidemill` beside the test's own executable, or the one that `TIDEMILL_BINARY` names; build it first
//! with `cargo build -p tidemill`. Nothing here asserts times; waiting has a limit so that a test that hangs fails.
//!
//! File map: [`server`] starts, kills and asks a server, [`kinesis`] speaks the Kinesis API, [`process`] looks at processes.

#![allow(clippy::disallowed_methods, reason = "tests set their stage with files")]

pub mod kinesis;
pub mod process;
pub mod server;

pub use kinesis::Kinesis;
pub use server::{Answer, Server};

use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long anything is waited for: what takes a few seconds, on a machine that is many times slower.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Returns the binary under test.
///
/// # Panics
/// When it was not built.
#[must_use]
pub fn binary() -> PathBuf {
    let found = std::env::var_os("TIDEMILL_BINARY")
        .map(PathBuf::from)
        .unwrap_or_else(|| beside_the_test("tidemill"));
    assert!(
        found.is_file(),
        "{} is missing; run: cargo build -p tidemill",
        found.display()
    );
    found
}

/// Returns a program of the same build as this test.
#[must_use]
pub fn beside_the_test(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap_or_default();
    let directory = test
        .parent()
        .and_then(|deps| deps.parent())
        .map(PathBuf::from)
        .unwrap_or_default();
    directory.join(name)
}

/// Waits until `look` finds something.
///
/// # Panics
/// When it does not within [`PATIENCE`]; `what` says what was waited for.
pub async fn eventually<T, F>(what: &str, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let start = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
