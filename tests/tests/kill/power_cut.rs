//! The power cut under a loaded server, on a real file system with a journal: a loop device with ext4, shut down without
//! writing its journal, as if the machine had lost power, and mounted again.
//!
//! Needs root, loop devices and `python3`; run by `cargo xtask power-cut`, which says so when they are missing. The order
//! of each cycle matters: the server is killed first, and what it acknowledged is known then; only after that the power is
//! cut. The other way round a sync that is under way can come back without an error although it had no effect: that
//! would be a fault of the simulation.

use super::client::Clients;
use super::random::Random;
use super::shard_store::{PRODUCERS, SHARDS, STREAM, Told, check, produce};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use tidemill_tests::{Server, eventually};
use tokio::task::JoinSet;

/// How many cycles to run; without it the test does nothing but say so.
const CYCLES: &str = "TIDEMILL_POWER_CUTS";
/// A kill comes at most that long after the first acknowledgement of a cycle.
const LIFE_MS: u64 = 600;
/// The stream is made anew after so many cycles, so that there is little to read and the image need not be large.
const CYCLES_PER_DISK: usize = 10;
const DISK_MIB: u64 = 1_024;

/// Shuts an ext4 file system down without flushing its journal: `EXT4_IOC_SHUTDOWN` with `EXT4_GOING_FLAGS_NOLOGFLUSH`.
const SHUTDOWN: &str = "\
import fcntl, os, struct, sys
mount = os.open(sys.argv[1], os.O_RDONLY)
fcntl.ioctl(mount, 0x8004587D, struct.pack('I', 2))
";

/// A file system in a file, mounted.
struct Disk {
    image: PathBuf,
    mount: PathBuf,
    mounted: bool,
}

impl Disk {
    /// Makes and mounts one in a directory.
    fn make(directory: &Path) -> Result<Self, String> {
        let (image, mount) = (directory.join("disk"), directory.join("mount"));
        let file = std::fs::File::create(&image).map_err(|error| error.to_string())?;
        file.set_len(DISK_MIB << 20).map_err(|error| error.to_string())?;
        std::fs::create_dir_all(&mount).map_err(|error| error.to_string())?;
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))?;
        let mut disk = Self {
            image,
            mount,
            mounted: false,
        };
        disk.mount()?;
        Ok(disk)
    }

    fn mount(&mut self) -> Result<(), String> {
        run(Command::new("mount")
            .args(["-o", "loop"])
            .arg(&self.image)
            .arg(&self.mount))?;
        self.mounted = true;
        Ok(())
    }

    fn unmount(&mut self) -> Result<(), String> {
        run(Command::new("umount").arg(&self.mount))?;
        self.mounted = false;
        Ok(())
    }

    /// Loses what was not synced, and comes back.
    fn cut_power(&mut self) -> Result<(), String> {
        run(Command::new("python3").args(["-c", SHUTDOWN]).arg(&self.mount))?;
        self.unmount()?;
        self.mount()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            let _ = self.unmount();
        }
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command
        .output()
        .map_err(|error| format!("{command:?} cannot be started: {error}"))?;
    if output.status.success() {
        Ok(())
    } else {
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("{command:?} ended with {}: {}", output.status, said.trim()))
    }
}

/// Whether unsynced bytes are lost here: a simulation that loses nothing would prove nothing.
fn probe() -> Result<(), String> {
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let mut disk = Disk::make(directory.path())?;
    let (synced, unsynced) = (disk.mount.join("synced"), disk.mount.join("unsynced"));
    std::fs::write(&synced, b"kept").map_err(|error| error.to_string())?;
    std::fs::File::open(&synced)
        .and_then(|file| file.sync_all())
        .and_then(|()| std::fs::File::open(&disk.mount)?.sync_all())
        .map_err(|error| error.to_string())?;
    std::fs::write(&unsynced, b"lost").map_err(|error| error.to_string())?;
    disk.cut_power()?;
    if std::fs::read(&synced).ok().as_deref() != Some(b"kept") {
        return Err("a file that was synced is gone after a power cut: the simulation is wrong".to_owned());
    }
    if std::fs::read(&unsynced).ok().as_deref() == Some(b"lost") {
        return Err("a file that was not synced survives a power cut: the simulation is wrong".to_owned());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root and loop devices: cargo xtask power-cut"]
async fn acknowledged_records_survive_power_cuts_once_and_in_order() {
    let cycles = std::env::var(CYCLES).expect("TIDEMILL_POWER_CUTS says how many cycles to run");
    let cycles: usize = cycles.parse().expect("TIDEMILL_POWER_CUTS is a number");
    if let Err(reason) = probe() {
        eprintln!("skipped: {reason}");
        return;
    }
    let mut random = Random::from_environment("power cuts");
    let (mut done, mut acknowledged_in_all) = (0, 0);
    while done < cycles {
        let directory = tempfile::tempdir().unwrap();
        let mut disk = Disk::make(directory.path()).unwrap();
        let data = disk.mount.join("data");
        let mut server = Server::start(&data);
        server.kinesis().create_stream(STREAM, SHARDS).await;
        let clients = Clients::new(server.url());
        let told = Arc::new(Told::default());
        let acknowledged = || told.acknowledged().iter().map(Vec::len).sum::<usize>();
        for _ in 0..CYCLES_PER_DISK.min(cycles - done) {
            let before = acknowledged();
            let mut producers = JoinSet::new();
            for producer in 0..PRODUCERS {
                producers.spawn(produce(clients.now(), producer, Arc::clone(&told)));
            }
            eventually("an acknowledgement", || async {
                (acknowledged() > before).then_some(())
            })
            .await;
            random.moment(LIFE_MS).await;
            server.kill();
            while let Some(producer) = producers.join_next().await {
                producer.expect("a producer");
            }
            disk.cut_power().unwrap();
            server = Server::start(&data);
            clients.moved_to(server.url());
            let stored = clients.read_all(STREAM).await;
            check(&stored, &told);
            done += 1;
            let stored: usize = stored.iter().map(|(_, records)| records.len()).sum();
            eprintln!(
                "cycle {done} of {cycles}: {} acknowledged, {stored} stored",
                acknowledged()
            );
        }
        acknowledged_in_all += acknowledged();
        server.kill();
        drop(server);
        disk.unmount().unwrap();
    }
    eprintln!("{done} power cuts: all of {acknowledged_in_all} acknowledged records were there, once and in order");
}
