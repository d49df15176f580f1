//! Finds the files of a path: a file, a folder with all folders in it, or a pattern.
//!
//! What begins with `.` or `_` is skipped below the path, files and folders: that is where writers, ours too, put what
//! is not finished.

use std::path::{Path, PathBuf};

/// A file that was found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) size: u64,
}

/// Says whether a path is a pattern.
pub(super) fn is_glob(path: &Path) -> bool {
    path.to_string_lossy().contains(['*', '?', '['])
}

/// Checks that a path is there; a pattern may have no match yet. Blocks for the disk.
///
/// # Errors
/// Says what to do when it is not. That it cannot be looked at is no such error: that may be over soon.
pub(super) fn check(path: &Path) -> Result<(), String> {
    match path.try_exists() {
        Ok(false) if !is_glob(path) => Err(format!(
            "{} does not exist: make it before the job starts, or correct the option 'path'",
            path.display()
        )),
        _ => Ok(()),
    }
}

/// Lists the files of a path, sorted. Blocks for the disk.
///
/// # Errors
/// When the path is not there or a folder cannot be read.
pub(super) fn list(path: &Path) -> Result<Vec<Found>, String> {
    let mut found = Vec::new();
    if is_glob(path) && !path.exists() {
        let pattern = path
            .to_str()
            .ok_or_else(|| format!("{} is not UTF-8", path.display()))?;
        let matches = glob::glob(pattern).map_err(|error| format!("the pattern {pattern} is not valid: {error}"))?;
        for entry in matches {
            let entry = entry.map_err(|error| error.to_string())?;
            let below = entry.strip_prefix(fixed_part(path)).unwrap_or(&entry);
            if !below.components().any(|part| is_hidden(part.as_os_str())) {
                walk(&entry, &mut found)?;
            }
        }
    } else {
        walk(path, &mut found)?;
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// Returns the folders of a pattern that are written out.
fn fixed_part(pattern: &Path) -> PathBuf {
    pattern.iter().take_while(|part| !is_glob(Path::new(part))).collect()
}

fn is_hidden(name: &std::ffi::OsStr) -> bool {
    matches!(name.as_encoded_bytes().first(), Some(b'.' | b'_'))
}

fn walk(path: &Path, found: &mut Vec<Found>) -> Result<(), String> {
    let error = |error: std::io::Error| format!("{} cannot be read: {error}", path.display());
    let metadata = std::fs::metadata(path).map_err(error)?;
    if metadata.is_file() {
        found.push(Found {
            path: path.to_path_buf(),
            size: metadata.len(),
        });
        return Ok(());
    }
    if !metadata.is_dir() {
        return Err(format!("{} is neither a file nor a folder", path.display()));
    }
    for entry in std::fs::read_dir(path).map_err(error)? {
        let entry = entry.map_err(error)?;
        if is_hidden(&entry.file_name()) {
            continue;
        }
        match walk(&entry.path(), found) {
            // A file may go while the folder is read.
            Err(_) if !entry.path().exists() => {}
            walked => walked?,
        }
    }
    Ok(())
}
