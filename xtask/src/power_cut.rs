//! Power cuts on a real file system, under a loaded server: opt-in, because they need root and loop devices.
//!
//! The test itself stands with the other tests that kill servers, `tests/tests/kill/power_cut.rs`.

use crate::step::{cargo, run as command, step};
use anyhow::Result;
use std::process::Command;

/// How many power cuts there are unless somebody asks for another number.
pub(crate) const CYCLES_DEFAULT: u32 = 40;

const TEST: &str = "kill::power_cut::acknowledged_records_survive_power_cuts_once_and_in_order";

/// Looks for what is needed, builds the binary, and runs the test; where something is missing, says what.
pub(crate) fn run(cycles: u32) -> Result<()> {
    if let Some(reason) = missing() {
        println!("skipped: {reason}");
        return Ok(());
    }
    step("power cuts: build", || {
        command(cargo().args(["build", "--locked", "--package", "tidemill"]))
    })?;
    step("power cuts", || {
        command(
            cargo()
                .args([
                    "test",
                    "--locked",
                    "--package",
                    "tidemill-tests",
                    "--test",
                    "kill",
                    "--",
                ])
                .args(["--ignored", "--exact", TEST, "--nocapture"])
                .env("TIDEMILL_POWER_CUTS", cycles.to_string()),
        )
    })
}

/// Whatever else is missing, the test finds out by trying.
fn missing() -> Option<String> {
    let user = Command::new("id").arg("-u").output();
    if !user.is_ok_and(|output| output.stdout == b"0\n") {
        return Some("mounting needs root; run it as root, for example in a container of its own".to_owned());
    }
    let is_there = |program: &&str| {
        Command::new("sh")
            .args(["-c", &format!("command -v {program} >/dev/null")])
            .status()
            .is_ok_and(|status| status.success())
    };
    ["mkfs.ext4", "mount", "umount", "python3"]
        .into_iter()
        .find(|program| !is_there(program))
        .map(|program| format!("there is no {program}"))
}
