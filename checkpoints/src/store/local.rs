//! What is particular to a store in a local directory. The only place of this crate that touches the file system directly.
#![allow(clippy::disallowed_methods, reason = "this module is the edge to the local disk")]

use crate::{Generation, JobUid};
use object_store::local::LocalFileSystem;
use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Opens a directory as an object store that syncs what it writes; creates it if it is not there.
pub(super) fn open(directory: &Path) -> io::Result<LocalFileSystem> {
    create_durably(directory)?;
    let objects = LocalFileSystem::new_with_prefix(directory).map_err(io::Error::other)?;
    Ok(objects.with_fsync(true).with_automatic_cleanup(true))
}

/// Creates a directory and what is missing above it, so that a power cut does not undo it.
fn create_durably(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    if let Some(parent) = directory.parent() {
        create_durably(parent)?;
    }
    match fs::create_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => {}
        other => other?,
    }
    directory
        .parent()
        .map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

/// Removes the half-written files that killed processes left in the state directories of generations before `before`.
///
/// The store writes an object beside its final name, as `name#N`, and links it; it hides such files from listings, so nobody else
/// can find them. Whoever may still write there has been fenced and loses nothing but its attempt.
pub(super) fn sweep_half_written(directory: &Path, job: &JobUid, before: Generation) -> io::Result<u64> {
    let mut removed = 0;
    for generation in read_dir(&directory.join(job.as_str()).join("state"))? {
        let number = generation.file_name().to_string_lossy().parse().ok().map(Generation);
        if number.is_some_and(|number| number < before) {
            removed += sweep(&generation.path())?;
        }
    }
    Ok(removed)
}

fn sweep(path: &Path) -> io::Result<u64> {
    let mut removed = 0;
    for entry in read_dir(path)? {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            removed += sweep(&entry.path())?;
        } else if is_half_written(&entry.file_name().to_string_lossy()) {
            match fs::remove_file(entry.path()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Err(_) => {}
                Ok(()) => removed += 1,
            }
        }
    }
    // Succeeds only when nothing is left in it.
    let _ = fs::remove_dir(path);
    Ok(removed)
}

fn is_half_written(name: &str) -> bool {
    let suffix = name.split_once('#').map_or("", |(_, suffix)| suffix);
    !suffix.is_empty() && suffix.bytes().all(|byte| byte.is_ascii_digit())
}

/// Reads a directory that may go away meanwhile.
fn read_dir(path: &Path) -> io::Result<Vec<fs::DirEntry>> {
    match fs::read_dir(path) {
        Ok(entries) => entries.collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_half_written_files_of_older_generations_are_swept() {
        let temp = tempfile::tempdir().unwrap();
        let files = [
            "j/state/1/5/1/0#1",
            "j/state/1/5/1/1",
            "j/state/1/6/2/0#12",
            "j/state/2/6/1/0#1",
            "k/state/1/1/1/0#1",
        ];
        for file in files {
            let path = temp.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        let job = JobUid::new("j").unwrap();
        assert_eq!(sweep_half_written(temp.path(), &job, Generation(2)).unwrap(), 2);
        let left: Vec<bool> = files.iter().map(|file| temp.path().join(file).exists()).collect();
        assert_eq!(left, [false, true, false, true, true]);
        assert!(!temp.path().join("j/state/1/6").exists());
        assert_eq!(
            sweep_half_written(temp.path(), &JobUid::new("none").unwrap(), Generation(2)).unwrap(),
            0
        );
    }
}
