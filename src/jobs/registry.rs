//! The definitions of a server's jobs, on disk: one JSON file per job in `jobs/`, replaced by rename.
//!
//! A file is written beside its place, synced, renamed and the directory synced: after a crash there is the old definition
//! or the new one. What does not read as a definition keeps the server from starting, so that no job is lost in silence.

#![allow(clippy::disallowed_methods, reason = "this module is the edge to the local disk")]

use super::definition::{DEFINITION_FORMAT, JobDefinition};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Why the registry could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegistryError {
    /// The disk failed.
    #[error("cannot {action} {path}: {source}; make the data directory writable and see that the disk is not full")]
    Io {
        /// What was to be done.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A file is no definition.
    #[error("{path} is not a job definition: {message}; repair it, or move it away to start without this job")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
}

/// The directory of job definitions.
#[derive(Clone, Debug)]
pub(crate) struct Registry {
    directory: PathBuf,
}

impl Registry {
    /// Opens the directory, and makes it if there is none.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) fn open(directory: impl Into<PathBuf>) -> Result<Self, RegistryError> {
        let directory = directory.into();
        fs::create_dir_all(&directory).map_err(io_error("make", &directory))?;
        Ok(Self { directory })
    }

    /// Reads all definitions, ordered by uid.
    ///
    /// # Errors
    /// When one cannot be read; the message says which.
    pub(crate) fn load(&self) -> Result<Vec<JobDefinition>, RegistryError> {
        let mut definitions = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(io_error("read", &self.directory))? {
            let path = entry.map_err(io_error("read", &self.directory))?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue; // a file that a crash left half written, or somebody's notes
            }
            let bytes = fs::read(&path).map_err(io_error("read", &path))?;
            let malformed = |message: String| RegistryError::Malformed {
                path: path.clone(),
                message,
            };
            let definition: JobDefinition = serde_json::from_slice(&bytes).map_err(|e| malformed(e.to_string()))?;
            if definition.format != DEFINITION_FORMAT {
                return Err(malformed(format!(
                    "its format is {}, and {DEFINITION_FORMAT} is known",
                    definition.format
                )));
            }
            if path != self.path(&definition.uid) {
                return Err(malformed(format!(
                    "it defines {}, which belongs in another file",
                    definition.uid
                )));
            }
            definitions.push(definition);
        }
        definitions.sort_by(|a, b| a.uid.cmp(&b.uid));
        Ok(definitions)
    }

    /// Writes a definition; when this returns it is durable.
    ///
    /// # Errors
    /// When the disk fails; the old definition is still there.
    pub(crate) fn save(&self, definition: &JobDefinition) -> Result<(), RegistryError> {
        let path = self.path(&definition.uid);
        let half = path.with_extension("json.new");
        let malformed = |e: serde_json::Error| RegistryError::Malformed {
            path: path.clone(),
            message: e.to_string(),
        };
        let mut bytes = serde_json::to_vec_pretty(definition).map_err(malformed)?;
        bytes.push(b'\n');
        let mut file = File::create(&half).map_err(io_error("write", &half))?;
        file.write_all(&bytes)
            .and_then(|()| file.sync_all())
            .map_err(io_error("write", &half))?;
        fs::rename(&half, &path).map_err(io_error("write", &path))?;
        sync_directory(&self.directory)
    }

    /// Removes a definition; when this returns that is durable.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn remove(&self, uid: &str) -> Result<(), RegistryError> {
        let path = self.path(uid);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", &path)(error)),
            _ => sync_directory(&self.directory),
        }
    }

    fn path(&self, uid: &str) -> PathBuf {
        self.directory.join(format!("{uid}.json"))
    }
}

fn sync_directory(directory: &Path) -> Result<(), RegistryError> {
    File::open(directory)
        .and_then(|handle| handle.sync_all())
        .map_err(io_error("sync", directory))
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RegistryError {
    let path = path.to_owned();
    move |source| RegistryError::Io { action, path, source }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::jobs::definition::{Desired, JobName, Program};
    use crate::jobs::protocol::message::IntervalWish;

    pub(crate) fn definition(uid: &str) -> JobDefinition {
        JobDefinition {
            format: DEFINITION_FORMAT,
            uid: uid.into(),
            name: JobName::new("a").unwrap(),
            program: Program::Sql("SELECT 1".into()),
            parallelism: Some(2),
            checkpoint_interval: IntervalWish::EveryMs(10_000),
            restart_attempts: 10,
            allow_non_restored_state: false,
            restore: None,
            client_token: None,
            created_ms: 5,
            desired: Desired::Running,
            outcome: None,
            last_error: None,
        }
    }

    #[test]
    fn definitions_survive_and_removed_ones_do_not() {
        let directory = tempfile::tempdir().unwrap();
        let registry = Registry::open(directory.path().join("jobs")).unwrap();
        let mut first = definition("a-1");
        registry.save(&first).unwrap();
        registry.save(&definition("a-2")).unwrap();
        first.desired = Desired::Stopped;
        registry.save(&first).unwrap();
        assert_eq!(registry.load().unwrap(), [first.clone(), definition("a-2")]);
        registry.remove("a-2").unwrap();
        registry.remove("a-2").unwrap();
        assert_eq!(registry.load().unwrap(), [first]);
    }

    #[test]
    fn a_damaged_definition_is_named_and_not_skipped() {
        let directory = tempfile::tempdir().unwrap();
        let registry = Registry::open(directory.path()).unwrap();
        std::fs::write(directory.path().join("a-1.json"), b"{\"format\": 1").unwrap();
        let error = registry.load().unwrap_err().to_string();
        assert!(
            error.contains("a-1.json") && error.contains("not a job definition"),
            "{error}"
        );
    }

    #[test]
    fn a_definition_of_a_later_format_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let registry = Registry::open(directory.path()).unwrap();
        registry
            .save(&JobDefinition {
                format: 2,
                ..definition("a-1")
            })
            .unwrap();
        assert!(registry.load().unwrap_err().to_string().contains("its format is 2"));
    }

    #[test]
    fn a_half_written_file_is_no_job() {
        let directory = tempfile::tempdir().unwrap();
        let registry = Registry::open(directory.path()).unwrap();
        std::fs::write(directory.path().join("a-1.json.new"), b"{").unwrap();
        assert_eq!(registry.load().unwrap(), []);
    }
}
