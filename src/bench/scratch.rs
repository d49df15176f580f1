//! The directory that a benchmark writes in.

#![allow(clippy::disallowed_methods, reason = "it removes only what it made itself")]

use anyhow::Context as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// A directory of a name of its own; dropping it removes it and everything in it.
#[derive(Debug)]
pub(super) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes it in `parent`, or in the system's temporary directory.
    pub(super) fn make(parent: Option<&Path>) -> anyhow::Result<Self> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
        let random = getrandom::u32().map_err(|error| anyhow::anyhow!("no entropy: {error}"))?;
        let path = parent.join(format!("tidemill-bench-{random:08x}"));
        let made = std::fs::DirBuilder::new().mode(0o700).create(&path);
        made.with_context(|| format!("cannot make {}; name an existing directory with --dir", path.display()))?;
        Ok(Self {
            path: path.canonicalize()?,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A directory in it that is removed when it is dropped.
    pub(super) fn directory(&self, name: &str) -> anyhow::Result<Self> {
        let path = self.path.join(name);
        let made = std::fs::DirBuilder::new().mode(0o700).create(&path);
        made.with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self { path })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the benchmark's directory");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_behind() {
        let parent = tempfile::tempdir().unwrap();
        let scratch = Scratch::make(Some(parent.path())).unwrap();
        let inner = scratch.directory("a").unwrap();
        std::fs::write(inner.path().join("file"), b"x").unwrap();
        drop(inner);
        assert!(!scratch.path().join("a").exists());
        drop(scratch);
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0);
        assert!(
            Scratch::make(Some(Path::new("/nowhere/at/all")))
                .unwrap_err()
                .to_string()
                .contains("--dir")
        );
    }
}
