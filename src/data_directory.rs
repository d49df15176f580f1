//! The directory in which a server, or a job that runs alone, keeps everything.
//!
//! ```text
//!   DIR/lock           held by the process that owns the directory
//!   DIR/store/         the shard store's log
//!   DIR/checkpoints/   checkpoints and savepoints, unless they go elsewhere
//!   DIR/jobs/          definitions of a server's jobs
//!   DIR/logs/          what a server's jobs print
//! ```

#![allow(clippy::disallowed_methods, reason = "this module is the edge to the local disk")]

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataDirectoryError {
    /// Another process owns it.
    #[error(
        "the data directory {} is in use by another process{}; stop that one, or choose another directory with --data-dir",
        path.display(),
        owner.as_ref().map(|pid| format!(" ({pid})")).unwrap_or_default()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The owner's process id, as it wrote it down.
        owner: Option<String>,
    },
    /// It cannot be made or written.
    #[error(
        "the data directory {} cannot be used: {source}; make it writable for this user, or choose another directory with \
         --data-dir",
        path.display()
    )]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A data directory that this process owns until the value is dropped.
#[derive(Debug)]
pub(crate) struct DataDirectory {
    path: PathBuf,
    _lock: File,
}

impl DataDirectory {
    /// Makes the directory if there is none, and takes possession of it.
    ///
    /// # Errors
    /// When another process has it, or it cannot be written.
    pub(crate) fn open(path: &Path) -> Result<Self, DataDirectoryError> {
        let io = |source| DataDirectoryError::Io {
            path: path.to_owned(),
            source,
        };
        fs::create_dir_all(path).map_err(io)?;
        let path = path.canonicalize().map_err(io)?;
        let io = |source| DataDirectoryError::Io {
            path: path.clone(),
            source,
        };
        let mut lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path.join("lock"))
            .map_err(io)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                let read = lock.read_to_string(&mut owner);
                let owner = Some(owner.trim().to_owned()).filter(|pid| read.is_ok() && !pid.is_empty());
                return Err(DataDirectoryError::InUse { path, owner });
            }
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        // For people and for the message above; the lock itself is what counts.
        lock.set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "process {}", std::process::id()))
            .map_err(io)?;
        for part in ["store", "checkpoints", "jobs", "logs"] {
            let path = path.join(part);
            fs::create_dir_all(&path).map_err(|source| DataDirectoryError::Io { path, source })?;
        }
        Ok(Self { path, _lock: lock })
    }

    /// Returns the directory itself.
    #[cfg(feature = "server")]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the shard store's directory.
    pub(crate) fn store(&self) -> PathBuf {
        self.path.join("store")
    }

    /// Returns the URL of the directory's own checkpoints.
    pub(crate) fn checkpoint_url(&self) -> String {
        let path = self.path.join("checkpoints");
        url::Url::from_file_path(&path).map_or_else(|()| format!("file://{}", path.display()), String::from)
    }

    /// Returns the directory of job definitions.
    #[cfg(feature = "server")]
    pub(crate) fn jobs(&self) -> PathBuf {
        self.path.join("jobs")
    }

    /// Returns the directory of what jobs print.
    #[cfg(feature = "server")]
    pub(crate) fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_owner_is_refused_and_told_who_the_first_is() {
        let directory = tempfile::tempdir().unwrap();
        let first = DataDirectory::open(directory.path()).unwrap();
        let error = DataDirectory::open(directory.path()).unwrap_err().to_string();
        assert!(
            error.contains(&format!("process {}", std::process::id())) && error.contains("--data-dir"),
            "{error}"
        );
        drop(first);
        DataDirectory::open(directory.path()).unwrap();
    }

    #[test]
    fn a_file_in_its_place_is_refused_with_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, b"").unwrap();
        let error = DataDirectory::open(&path).unwrap_err().to_string();
        assert!(
            error.contains("cannot be used") && error.contains("--data-dir"),
            "{error}"
        );
    }

    #[test]
    fn a_path_with_spaces_makes_a_valid_url() {
        let directory = tempfile::tempdir().unwrap();
        let data = DataDirectory::open(&directory.path().join("a b")).unwrap();
        assert!(data.checkpoint_url().starts_with("file:///") && data.checkpoint_url().contains("a%20b"));
    }
}
