//! A disk in memory that records every operation, so that a test can cut the power after each of them.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use super::{Disk, DiskFile, Entropy, SeededEntropy};

/// Sector in which a write is torn.
const SECTOR: usize = 512;

/// What becomes of the operations that were not synced when the power was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// All of them are lost.
    Dropped,
    /// All of them made it.
    Kept,
    /// Of every unsynced write each sector survives or not, by a coin with this seed: torn and reordered.
    Torn(u64),
}

#[derive(Debug, Clone)]
enum Operation {
    Create { name: String, file: usize },
    Rename { from: String, to: String },
    Remove { name: String },
    SyncDir,
    Write { file: usize, offset: u64, bytes: Arc<[u8]> },
    SyncData { file: usize },
}

#[derive(Debug, Default)]
struct State {
    names: BTreeMap<String, usize>,
    files: Vec<Vec<u8>>,
    journal: Vec<Operation>,
    /// Operations that still succeed; writes and syncs fail afterwards.
    budget: Option<usize>,
    /// Bytes that the disk can hold.
    capacity: Option<usize>,
    /// Writes that were refused for lack of room.
    refused: usize,
}

impl State {
    fn bytes(&self) -> usize {
        self.names.values().map(|&file| self.files[file].len()).sum()
    }

    fn spend(&mut self) -> io::Result<()> {
        match &mut self.budget {
            Some(0) => Err(io::Error::other("injected fault")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// A disk in memory. Clones share their files.
#[derive(Debug, Clone, Default)]
pub struct SimDisk(Arc<Mutex<State>>);

impl SimDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics while it holds the lock")
    }

    /// Number of operations recorded so far.
    pub fn operations(&self) -> usize {
        self.state().journal.len()
    }

    /// Lets `count` more writing operations succeed and fails all others.
    pub fn fail_after(&self, count: usize) {
        self.state().budget = Some(count);
    }

    /// Fails writes that make the files longer than `bytes` together; `None` lifts the limit.
    pub fn set_capacity(&self, bytes: Option<usize>) {
        self.state().capacity = bytes;
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> usize {
        self.state().bytes()
    }

    /// Number of writes that were refused for lack of room.
    pub fn refused(&self) -> usize {
        self.state().refused
    }

    /// The disk as it may be found after a power cut behind the first `count` operations.
    pub fn after_crash(&self, count: usize, crash: Crash) -> SimDisk {
        let state = self.state();
        let journal = &state.journal[..count.min(state.journal.len())];
        let synced_dir = journal
            .iter()
            .rposition(|operation| matches!(operation, Operation::SyncDir));
        let coin = SeededEntropy::new(if let Crash::Torn(seed) = crash { seed } else { 0 });
        let keep = || {
            let mut byte = [0];
            match crash {
                Crash::Dropped => false,
                Crash::Kept => true,
                Crash::Torn(_) => coin.fill(&mut byte).is_ok() && byte[0] & 1 == 1,
            }
        };
        let mut after = State {
            files: vec![Vec::new(); state.files.len()],
            ..State::default()
        };
        for (at, operation) in journal.iter().enumerate() {
            match operation {
                Operation::Create { name, file } => {
                    if synced_dir.is_some_and(|synced| at < synced) || keep() {
                        after.names.insert(name.clone(), *file);
                    }
                }
                Operation::Rename { from, to } => {
                    if (synced_dir.is_some_and(|synced| at < synced) || keep())
                        && let Some(file) = after.names.remove(from)
                    {
                        after.names.insert(to.clone(), file);
                    }
                }
                Operation::Remove { name } => {
                    if synced_dir.is_some_and(|synced| at < synced) || keep() {
                        after.names.remove(name);
                    }
                }
                Operation::SyncDir | Operation::SyncData { .. } => {}
                Operation::Write { file, offset, bytes } => {
                    let synced = journal[at..]
                        .iter()
                        .any(|later| matches!(later, Operation::SyncData { file: synced } if synced == file));
                    let contents = &mut after.files[*file];
                    for (sector, chunk) in bytes.chunks(SECTOR).enumerate() {
                        if synced || keep() {
                            put(contents, *offset as usize + sector * SECTOR, chunk);
                        }
                    }
                }
            }
        }
        SimDisk(Arc::new(Mutex::new(after)))
    }

    /// A copy that shares nothing, with an empty journal.
    pub fn copy(&self) -> SimDisk {
        let state = self.state();
        SimDisk(Arc::new(Mutex::new(State {
            names: state.names.clone(),
            files: state.files.clone(),
            ..State::default()
        })))
    }

    /// The contents of a file.
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        state.names.get(name).map(|file| state.files[*file].clone())
    }

    /// Replaces the contents of a file, behind the store's back.
    pub fn overwrite(&self, name: &str, contents: Vec<u8>) {
        let mut state = self.state();
        let file = state.files.len();
        state.files.push(contents);
        state.names.insert(name.to_owned(), file);
    }

    /// Removes a file, behind the store's back.
    pub fn remove(&self, name: &str) {
        self.state().names.remove(name);
    }
}

fn put(contents: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if contents.len() < offset + bytes.len() {
        contents.resize(offset + bytes.len(), 0);
    }
    contents[offset..offset + bytes.len()].copy_from_slice(bytes);
}

impl Disk for SimDisk {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.spend()?;
        let file = state.files.len();
        state.files.push(Vec::new());
        state.names.insert(name.to_owned(), file);
        state.journal.push(Operation::Create {
            name: name.to_owned(),
            file,
        });
        Ok(Arc::new(SimFile {
            disk: self.clone(),
            file,
        }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = *self.state().names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(SimFile {
            disk: self.clone(),
            file,
        }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.spend()?;
        let file = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), file);
        state.journal.push(Operation::Rename {
            from: from.to_owned(),
            to: to.to_owned(),
        });
        Ok(())
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.spend()?;
        state.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        state.journal.push(Operation::Remove { name: name.to_owned() });
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state().names.keys().cloned().collect())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.state();
        state.spend()?;
        state.journal.push(Operation::SyncDir);
        Ok(())
    }

    fn describe(&self) -> String {
        "a disk in memory".to_owned()
    }
}

struct SimFile {
    disk: SimDisk,
    file: usize,
}

impl DiskFile for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.state();
        let contents = state.files[self.file].get(offset as usize..).unwrap_or_default();
        let length = contents.len().min(buf.len());
        buf[..length].copy_from_slice(&contents[..length]);
        Ok(length)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.spend()?;
        let growth = (offset as usize + bytes.len()).saturating_sub(state.files[self.file].len());
        // A full disk still takes what needs no more room, also when others have filled it beyond a limit set later.
        if let Some(capacity) = state.capacity
            && growth > 0
            && state.bytes() + growth > capacity
        {
            state.refused += 1;
            return Err(io::ErrorKind::StorageFull.into());
        }
        put(&mut state.files[self.file], offset as usize, bytes);
        state.journal.push(Operation::Write {
            file: self.file,
            offset,
            bytes: bytes.into(),
        });
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        state.spend()?;
        state.journal.push(Operation::SyncData { file: self.file });
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.state().files[self.file].len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_disk_takes_what_needs_no_more_room() {
        let disk = SimDisk::new();
        let file = disk.create("a").unwrap();
        file.write_at(b"0000", 0).unwrap();
        disk.set_capacity(Some(2));
        file.write_at(b"one", 0).unwrap();
        assert!(file.write_at(b"two", 2).is_err());
        assert_eq!((disk.contents("a").unwrap(), disk.refused()), (b"one0".to_vec(), 1));
    }

    #[test]
    fn power_cut_loses_what_was_not_synced() {
        let disk = SimDisk::new();
        let file = disk.create("a").unwrap();
        disk.sync_dir().unwrap();
        file.write_at(b"one", 0).unwrap();
        file.sync_data().unwrap();
        file.write_at(b"two", 3).unwrap();
        disk.create("b").unwrap();
        let all = disk.operations();
        assert_eq!(disk.after_crash(all, Crash::Dropped).contents("a").unwrap(), b"one");
        assert_eq!(disk.after_crash(all, Crash::Dropped).contents("b"), None);
        assert_eq!(disk.after_crash(all, Crash::Kept).contents("a").unwrap(), b"onetwo");
        assert_eq!(disk.after_crash(all, Crash::Kept).contents("b").unwrap(), b"");
        assert_eq!(disk.after_crash(0, Crash::Kept).contents("a"), None);
    }
}
