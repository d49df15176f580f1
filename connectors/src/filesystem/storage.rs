//! What the sink does to the disk, each so that it is durable or can be repeated.
#![allow(clippy::disallowed_methods, reason = "this module is the edge to the local disk")]

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Creates a file, with its folder. It must not exist.
pub(super) fn create(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        create_folder(folder)?;
    }
    OpenOptions::new().write(true).create_new(true).open(path)
}

/// Creates a folder with those above it, durably.
fn create_folder(folder: &Path) -> io::Result<()> {
    if folder.as_os_str().is_empty() || folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent() {
        create_folder(parent)?;
    }
    match fs::create_dir(folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    sync_folder(folder)
}

/// Makes the name of a file or folder durable in the folder that holds it.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

/// Removes a file.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    fs::remove_file(path)
}

/// Puts a file in the place of another, durably: it is there as a whole, or the old one is.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        create_folder(folder)?;
    }
    let draft = path.with_extension("draft");
    let mut file = File::create(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    sync_folder(path)
}

/// Gives a file its final name; does nothing if it has it. The caller syncs the folder.
pub(super) fn publish_file(staged: &Path, target: &Path) -> Result<(), String> {
    if let Some(folder) = target.parent() {
        create_folder(folder).map_err(|error| told("created", folder, &error))?;
    }
    match fs::hard_link(staged, target) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return if target.exists() {
                Ok(())
            } else {
                Err(format!(
                    "{} is gone, and {} is not there: output was removed",
                    staged.display(),
                    target.display()
                ))
            };
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => match same_file(staged, target) {
            Ok(true) => {}
            Ok(false) => return Err(format!("{} is there already, and it is another file", target.display())),
            Err(error) => return Err(told("read", target, &error)),
        },
        // A file system without hard links: the only committer of this sink may look first.
        Err(_) if target.exists() => return Err(format!("{} is there already", target.display())),
        Err(_) => return fs::rename(staged, target).map_err(|error| told("renamed", staged, &error)),
    }
    fs::remove_file(staged).map_err(|error| told("removed", staged, &error))
}

fn same_file(a: &Path, b: &Path) -> io::Result<bool> {
    let (a, b) = (fs::metadata(a)?, fs::metadata(b)?);
    Ok((a.dev(), a.ino()) == (b.dev(), b.ino()))
}

/// Says what could not be done to a file.
pub(super) fn told(what: &str, path: &Path, error: &io::Error) -> String {
    format!("{} cannot be {what}: {error}", path.display())
}
