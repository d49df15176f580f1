//! A directory of the file system.

#![allow(clippy::disallowed_methods, reason = "this module is the edge to the local disk")]

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{Flock, FlockArg};

use super::{Disk, DiskFile};
use crate::error::StoreError;

const LOCK_FILE: &str = "store.lock";

/// A directory of the file system. The owner holds an exclusive `flock` on it; readers need none.
pub struct RealDisk {
    directory: PathBuf,
    /// Held, never read: the kernel frees it with the last handle, also after SIGKILL.
    _lock: Option<Flock<File>>,
}

impl RealDisk {
    /// Opens `directory` for its one owner and creates it when it is missing.
    ///
    /// # Errors
    /// [`StoreError::Locked`] when another process, or another store of this one, has it open.
    pub fn open_exclusive(directory: &Path) -> Result<Self, StoreError> {
        let io_error = |action: &str, error: io::Error| StoreError::io(action, directory.display(), &error);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|error| io_error("create the data directory", error))?;
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(directory.join(LOCK_FILE))
            .map_err(|error| io_error("open the lock file in", error))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
            if errno == nix::errno::Errno::EWOULDBLOCK {
                StoreError::Locked {
                    directory: directory.display().to_string(),
                }
            } else {
                io_error("lock the data directory", io::Error::from(errno))
            }
        })?;
        // The directory itself must survive a power cut before anything in it is acknowledged.
        if let Some(parent) = directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            File::open(parent)
                .and_then(|parent| parent.sync_all())
                .map_err(|error| io_error("sync the parent of the data directory", error))?;
        }
        Ok(Self {
            directory: directory.to_owned(),
            _lock: Some(lock),
        })
    }

    /// Opens `directory` for reading beside its owner.
    ///
    /// # Errors
    /// When it is not a directory that can be read.
    pub fn open_shared(directory: &Path) -> Result<Self, StoreError> {
        std::fs::read_dir(directory)
            .map_err(|error| StoreError::io("read the log directory", directory.display(), &error))?;
        Ok(Self {
            directory: directory.to_owned(),
            _lock: None,
        })
    }
}

impl Disk for RealDisk {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(self.directory.join(name))?;
        Ok(Arc::new(RealFile(file)))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let writable = self._lock.is_some();
        let file = OpenOptions::new()
            .read(true)
            .write(writable)
            .open(self.directory.join(name))?;
        Ok(Arc::new(RealFile(file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.directory.join(from), self.directory.join(to))
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.directory.join(name))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.directory)? {
            if let Ok(name) = entry?.file_name().into_string()
                && name != LOCK_FILE
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.directory)?.sync_all()
    }

    fn describe(&self) -> String {
        self.directory.display().to_string()
    }

    fn path(&self) -> Option<PathBuf> {
        Some(self.directory.clone())
    }
}

struct RealFile(File);

impl DiskFile for RealFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match self.0.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_owner_is_told_the_directory_and_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let first = RealDisk::open_exclusive(directory.path()).unwrap();
        let error = RealDisk::open_exclusive(directory.path()).err().unwrap().to_string();
        assert!(error.contains(&directory.path().display().to_string()), "{error}");
        assert!(error.contains("stop it"), "{error}");
        drop(first);
        RealDisk::open_exclusive(directory.path()).unwrap();
    }
}
