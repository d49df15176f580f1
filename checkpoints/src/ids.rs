//! The ids of the protocol, each a type of its own so that they cannot be mixed up.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Defines a number that counts from 1 and prints as the number.
macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The first one there is.
            pub const FIRST: Self = Self(1);

            /// Returns the one after this.
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

counter! {
    /// Counts the claims of a job by a coordinator, from 1. The highest claimed one owns the job.
    Generation
}
counter! {
    /// Counts a job's checkpoints, from 1 and without a gap.
    CheckpointId
}
counter! {
    /// Counts the attempts at checkpoints within one run of a coordinator, from 1. Never used again in it.
    AttemptId
}

/// Defines a name that is safe as one component of an object name.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        ///
        /// 1 to 128 characters of `A-Z a-z 0-9 _ . -`, but not `.` or `..`.
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks and takes over a name.
            ///
            /// # Errors
            /// [`Error::InvalidName`] says what is wrong with it.
            pub fn new(name: impl Into<String>) -> Result<Self> {
                let name = name.into();
                match check_component(&name) {
                    Ok(()) => Ok(Self(name)),
                    Err(reason) => Err(Error::InvalidName { what: $what, value: name, reason }),
                }
            }

            /// Returns the name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(name: String) -> Result<Self> {
                Self::new(name)
            }
        }

        impl std::str::FromStr for $name {
            type Err = Error;
            fn from_str(name: &str) -> Result<Self> {
                Self::new(name)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// Identifies a job for ever: all its objects lie under this name.
    JobUid, "job uid"
}
name! {
    /// Names a savepoint within its job.
    SavepointName, "savepoint name"
}
name! {
    /// Identifies a user's request to restore from a chosen place, so that a restarted process does not rewind again.
    RequestId, "restore request id"
}

fn check_component(name: &str) -> Result<(), &'static str> {
    match name {
        "" => Err("it is empty; use 1 to 128 of the characters A-Z a-z 0-9 _ . -"),
        "." | ".." => Err("it is the name of a directory; use letters or digits"),
        _ if name.len() > 128 => Err("it is longer than 128 characters"),
        _ if !name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-')) =>
        {
            Err("only the characters A-Z a-z 0-9 _ . - are allowed")
        }
        _ => Ok(()),
    }
}

/// 128 random bits that a coordinator draws when its process starts; they tell its own objects from another's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Nonce([u8; 16]);

impl Nonce {
    /// Draws a nonce from the operating system.
    ///
    /// # Panics
    /// When the operating system has no random numbers.
    pub fn random() -> Self {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("the operating system gives random numbers");
        Self(bytes)
    }

    /// Makes a chosen nonce, for tests that must repeat.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Returns its 128 bits.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Nonce({self})")
    }
}

impl From<Nonce> for String {
    fn from(nonce: Nonce) -> String {
        nonce.to_string()
    }
}

impl TryFrom<String> for Nonce {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect();
        match digits {
            Some(digits) if digits.len() == 32 => {
                let mut bytes = [0; 16];
                for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
                    *byte = pair[0] << 4 | pair[1];
                }
                Ok(Self(bytes))
            }
            _ => Err(Error::InvalidName {
                what: "nonce",
                value: text,
                reason: "it must be 32 hexadecimal digits",
            }),
        }
    }
}

/// Names a row of checkpoint numbers: within a lineage, checkpoint C has one content for ever, so publishing it again is a replay.
///
/// It is begun by the coordinator that starts to count, or that goes back to what a user chose, and named by its nonce. Every later
/// claim and checkpoint carries it on. Two runs of a job under one name, with the checkpoints deleted in between, have two lineages.
/// (Spark calls the like the id of a query, PostgreSQL a timeline.)
///
/// The default is the lineage of what was written before lineages were.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lineage(Nonce);

impl Lineage {
    /// Returns the lineage that the coordinator with this nonce begins.
    pub const fn begun_by(nonce: Nonce) -> Self {
        Self(nonce)
    }

    /// Returns its 128 bits.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_bytes()
    }

    /// Returns the first eight of its hexadecimal digits, for names of files.
    pub fn short(self) -> String {
        let mut text = self.to_string();
        text.truncate(8);
        text
    }
}

impl Default for Lineage {
    fn default() -> Self {
        Self(Nonce([0; 16]))
    }
}

impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lineage({self})")
    }
}

/// Identifies an operator over changes of the program and the query: a hash that the planner computes (DESIGN.md, section 4).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OperatorUid(pub String);

impl fmt::Display for OperatorUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for OperatorUid {
    fn from(uid: &str) -> Self {
        Self(uid.to_owned())
    }
}

/// One of the fixed number of groups that all keys of a job are hashed into; the unit of rescaling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyGroup(pub u16);

impl fmt::Display for KeyGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A run of key groups, both ends included; never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyGroupRange {
    /// The first key group of the range.
    pub first: KeyGroup,
    /// The last key group of the range.
    pub last: KeyGroup,
}

impl KeyGroupRange {
    /// Makes the range from `first` to `last`, both included.
    ///
    /// # Panics
    /// When `last` is before `first`.
    pub fn new(first: KeyGroup, last: KeyGroup) -> Self {
        assert!(first <= last, "key group range {first}..={last} is empty");
        Self { first, last }
    }

    /// Returns whether the two ranges share a key group.
    pub fn intersects(&self, other: &KeyGroupRange) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// Returns whether the key group lies in the range.
    pub fn contains(&self, group: KeyGroup) -> bool {
        self.first <= group && group <= self.last
    }

    /// Returns the range that worker `worker` of `workers` owns when `key_groups` groups are dealt out as evenly as contiguous
    /// ranges allow, or none when there are more workers than groups and this one is left without.
    ///
    /// # Panics
    /// When `worker` is not below `workers`.
    ///
    /// # Examples
    /// ```
    /// use tidemill_checkpoints::{KeyGroup, KeyGroupRange};
    /// assert_eq!(KeyGroupRange::of_worker(1, 3, 256), Some(KeyGroupRange::new(KeyGroup(85), KeyGroup(169))));
    /// assert_eq!(KeyGroupRange::of_worker(0, 2, 1), None);
    /// ```
    pub fn of_worker(worker: u32, workers: u32, key_groups: u16) -> Option<Self> {
        assert!(worker < workers, "worker {worker} of {workers}");
        let bound = |w: u32| (u64::from(w) * u64::from(key_groups) / u64::from(workers)) as u16;
        let (start, end) = (bound(worker), bound(worker + 1));
        (start < end).then(|| Self::new(KeyGroup(start), KeyGroup(end - 1)))
    }

    /// Returns which worker of `workers` owns the key group: the inverse of [`KeyGroupRange::of_worker`].
    ///
    /// # Panics
    /// When `group` is not below `key_groups`, or there are no workers.
    pub fn worker_of(group: KeyGroup, workers: u32, key_groups: u16) -> u32 {
        assert!(group.0 < key_groups && workers > 0, "key group {group} of {key_groups}");
        // The largest w with floor(w * key_groups / workers) <= group.
        (((u64::from(group.0) + 1) * u64::from(workers) - 1) / u64::from(key_groups)) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_the_job_directory_are_refused() {
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "a\\b",
            "a b",
            "ü",
            "a#1",
            "a\0",
            "a%2f",
            &"x".repeat(129),
        ] {
            let error = SavepointName::new(bad).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::User, "{bad:?}: {error}");
        }
        for good in ["a", "...", "job-1_2.3", &"x".repeat(128)] {
            assert_eq!(JobUid::new(good).unwrap().as_str(), good);
        }
        assert!(serde_json::from_str::<JobUid>("\"../x\"").is_err());
    }

    #[test]
    fn nonce_round_trips_as_hexadecimal() {
        let nonce = Nonce::from_bytes([0xAB; 16]);
        let text = serde_json::to_string(&nonce).unwrap();
        assert_eq!(text, format!("\"{}\"", "ab".repeat(16)));
        assert_eq!(serde_json::from_str::<Nonce>(&text).unwrap(), nonce);
        assert!(serde_json::from_str::<Nonce>("\"zz\"").is_err());
        assert_ne!(Nonce::random(), Nonce::random());
    }

    #[test]
    fn every_key_group_has_exactly_one_owner() {
        for key_groups in [1u16, 2, 7, 128, 256, u16::MAX] {
            for workers in [1u32, 2, 3, 5, 16, 300] {
                let mut next = 0u32;
                for worker in 0..workers {
                    let Some(range) = KeyGroupRange::of_worker(worker, workers, key_groups) else {
                        continue;
                    };
                    assert_eq!(u32::from(range.first.0), next);
                    next = u32::from(range.last.0) + 1;
                    for group in [range.first, range.last] {
                        assert_eq!(KeyGroupRange::worker_of(group, workers, key_groups), worker);
                    }
                }
                assert_eq!(next, u32::from(key_groups));
            }
        }
    }
}
