//! The file operations that the log needs.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// One directory of files. Names are formatted by the log (`log/names.rs`) and never come from a user.
pub trait Disk: Send + Sync + 'static {
    /// Creates an empty file, readable by its owner only; an existing one of that name is emptied.
    ///
    /// # Errors
    /// As the file system says.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens an existing file.
    ///
    /// # Errors
    /// As the file system says; `NotFound` when there is none.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Renames a file, replacing the target.
    ///
    /// # Errors
    /// As the file system says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file. Whoever has it open can still read it.
    ///
    /// # Errors
    /// As the file system says; `NotFound` when there is none.
    fn unlink(&self, name: &str) -> io::Result<()>;

    /// Lists the names of all files, sorted.
    ///
    /// # Errors
    /// As the file system says.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes creations, renames and removals durable.
    ///
    /// # Errors
    /// As the file system says.
    fn sync_dir(&self) -> io::Result<()>;

    /// Names the place for error messages.
    fn describe(&self) -> String;

    /// The directory, when it is a real one that another process could open.
    fn path(&self) -> Option<PathBuf> {
        None
    }
}

/// An open file.
pub trait DiskFile: Send + Sync + 'static {
    /// Reads up to `buf.len()` bytes at `offset`; fewer only at the end of the file.
    ///
    /// # Errors
    /// As the file system says.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// As the file system says; part of the bytes may be written then.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes the contents durable (`fdatasync`).
    ///
    /// # Errors
    /// As the file system says. After an error nothing is known about what is durable.
    fn sync_data(&self) -> io::Result<()>;

    /// The length in bytes.
    ///
    /// # Errors
    /// As the file system says.
    fn length(&self) -> io::Result<u64>;
}
