//! Where tiered objects are kept.

use std::ops::Range;

use bytes::Bytes;

/// Why an object cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TierError {
    /// It is not there.
    #[error("the object is not there")]
    NotFound,
    /// The store does not answer, or refuses.
    #[error("{0}")]
    Unavailable(String),
}

/// A place for objects. Calls block; they may come from any thread, also one that runs async tasks.
pub trait ObjectTier: Send + Sync + 'static {
    /// Stores an object that is not there yet. One that is there already is left as it is, and is no error.
    ///
    /// # Errors
    /// When it may not be stored; it may be stored all the same.
    fn create(&self, name: &str, bytes: Bytes) -> Result<(), TierError>;

    /// Reads a range of an object; fewer bytes only when it is shorter.
    ///
    /// # Errors
    /// [`TierError::NotFound`], [`TierError::Unavailable`].
    fn read(&self, name: &str, range: Range<u64>) -> Result<Bytes, TierError>;

    /// Deletes an object; one that is not there is no error.
    ///
    /// # Errors
    /// [`TierError::Unavailable`].
    fn delete(&self, name: &str) -> Result<(), TierError>;

    /// Names the place for messages, without secrets.
    fn describe(&self) -> String;
}
