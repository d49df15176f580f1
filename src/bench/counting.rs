//! How large the log's writes are: a disk that counts what goes through it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tidemill_shards::env::{Disk, DiskFile};

/// Group commits: one write and one sync each.
#[derive(Debug, Default)]
pub(super) struct Commits {
    count: AtomicU64,
    bytes: AtomicU64,
}

impl Commits {
    /// How many there were.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Bytes that they wrote, frames and all.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// A disk that counts the commits of the log on it.
pub(super) struct CountingDisk<D> {
    disk: D,
    commits: Arc<Commits>,
}

impl<D: Disk> CountingDisk<D> {
    pub(super) fn new(disk: D) -> Self {
        Self {
            disk,
            commits: Arc::default(),
        }
    }

    /// What is counted, while the disk is in use.
    pub(super) fn commits(&self) -> Arc<Commits> {
        Arc::clone(&self.commits)
    }

    fn counted(&self, name: &str, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(CountingFile {
            file,
            is_index: name.contains(".index"),
            writes: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            commits: Arc::clone(&self.commits),
        })
    }
}

impl<D: Disk> Disk for CountingDisk<D> {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.counted(name, self.disk.create(name)?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.counted(name, self.disk.open(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        self.disk.unlink(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()
    }

    fn describe(&self) -> String {
        self.disk.describe()
    }

    fn path(&self) -> Option<PathBuf> {
        self.disk.path()
    }
}

struct CountingFile {
    file: Arc<dyn DiskFile>,
    is_index: bool,
    /// Since the last sync.
    writes: AtomicU64,
    /// Since the last sync.
    bytes: AtomicU64,
    commits: Arc<Commits>,
}

impl DiskFile for CountingFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.file.write_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()?;
        let (writes, bytes) = (
            self.writes.swap(0, Ordering::Relaxed),
            self.bytes.swap(0, Ordering::Relaxed),
        );
        // A segment is prepared with many writes before its sync.
        if writes == 1 && !self.is_index {
            self.commits.count.fetch_add(1, Ordering::Relaxed);
            self.commits.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_shards::env::RealDisk;

    #[test]
    fn a_commit_is_one_write_and_its_sync() {
        let directory = tempfile::tempdir().unwrap();
        let disk = CountingDisk::new(RealDisk::open_exclusive(directory.path()).unwrap());
        let commits = disk.commits();
        let log = disk.create("1.log").unwrap();
        log.write_at(&[0; 10], 0).unwrap();
        log.write_at(&[0; 10], 10).unwrap();
        log.sync_data().unwrap();
        assert_eq!(commits.count(), 0, "the segment is being prepared");
        log.write_at(&[1; 7], 0).unwrap();
        log.sync_data().unwrap();
        let index = disk.create("1.index").unwrap();
        index.write_at(&[1; 7], 0).unwrap();
        index.sync_data().unwrap();
        assert_eq!((commits.count(), commits.bytes()), (1, 7));
    }
}
