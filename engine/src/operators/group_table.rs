//! From keys to dense group numbers.

use crate::key::key_hash;
use hashbrown::HashTable;

/// The keys seen so far, numbered 0, 1, 2, ... in the order they came. Holds a copy of every key's bytes.
#[derive(Default)]
pub(super) struct GroupTable {
    /// The hash stands in the table itself, so that most probes touch nothing else.
    table: HashTable<(u64, u32)>,
    keys: GroupKeys,
}

/// The bytes of all keys; keys of one length need no offsets.
#[derive(Clone)]
pub(super) enum GroupKeys {
    Fixed {
        width: usize,
        bytes: Vec<u8>,
        count: usize,
    },
    /// `ends[i]` is where key i ends in `bytes`; it begins where key i - 1 ends.
    Variable {
        bytes: Vec<u8>,
        ends: Vec<usize>,
    },
}

impl Default for GroupKeys {
    fn default() -> Self {
        GroupKeys::Fixed {
            width: 0,
            bytes: Vec::new(),
            count: 0,
        }
    }
}

impl GroupKeys {
    /// Returns the bytes of a group's key.
    #[inline]
    pub(super) fn get(&self, group: u32) -> &[u8] {
        let group = group as usize;
        match self {
            GroupKeys::Fixed { width, bytes, .. } => &bytes[group * width..(group + 1) * width],
            GroupKeys::Variable { bytes, ends } => {
                let start = if group == 0 { 0 } else { ends[group - 1] };
                &bytes[start..ends[group]]
            }
        }
    }

    fn push(&mut self, key: &[u8]) {
        if let GroupKeys::Fixed { width, bytes, count } = self {
            if *count == 0 {
                *width = key.len();
            }
            if *width == key.len() {
                bytes.extend_from_slice(key);
                *count += 1;
                return;
            }
            let ends = (1..=*count).map(|key| key * *width).collect();
            *self = GroupKeys::Variable {
                bytes: std::mem::take(bytes),
                ends,
            };
        }
        if let GroupKeys::Variable { bytes, ends } = self {
            bytes.extend_from_slice(key);
            ends.push(bytes.len());
        }
    }

    /// Forgets all keys, and keeps the memory.
    fn clear(&mut self) {
        match self {
            GroupKeys::Fixed { bytes, count, .. } => {
                bytes.clear();
                *count = 0;
            }
            GroupKeys::Variable { bytes, ends } => {
                bytes.clear();
                ends.clear();
            }
        }
    }

    fn len(&self) -> usize {
        match self {
            GroupKeys::Fixed { count, .. } => *count,
            GroupKeys::Variable { ends, .. } => ends.len(),
        }
    }

    fn size(&self) -> usize {
        match self {
            GroupKeys::Fixed { bytes, .. } => bytes.capacity(),
            GroupKeys::Variable { bytes, ends } => bytes.capacity() + ends.capacity() * 8,
        }
    }
}

impl GroupTable {
    /// Returns the number of groups.
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Returns the number of the key's group, a new one if the key is new.
    #[inline]
    pub(super) fn group(&mut self, hash: u64, key: &[u8]) -> u32 {
        let keys = &self.keys;
        let same = |&(other, group): &(u64, u32)| other == hash && keys.get(group) == key;
        if let Some(&(_, group)) = self.table.find(spread(hash), same) {
            return group;
        }
        let group = self.keys.len() as u32;
        self.table
            .insert_unique(spread(hash), (hash, group), |&(hash, _)| spread(hash));
        self.keys.push(key);
        group
    }

    /// Returns the groups whose keys have a hash: one, but for collisions.
    pub(super) fn groups_of(&self, hash: u64) -> Vec<u32> {
        let same = self.table.iter_hash(spread(hash)).filter(|(other, _)| *other == hash);
        same.map(|&(_, group)| group).collect()
    }

    /// Makes the table of some of the groups: `kept[i]` becomes i.
    pub(super) fn only(&self, kept: &[u32]) -> Self {
        let mut table = Self::default();
        for &group in kept {
            let key = self.key(group);
            table.group(key_hash(key), key);
        }
        table
    }

    /// Returns the number of the key's group, if the key is known.
    #[inline]
    pub(super) fn find(&self, hash: u64, key: &[u8]) -> Option<u32> {
        let same = |&(other, group): &(u64, u32)| other == hash && self.keys.get(group) == key;
        self.table.find(spread(hash), same).map(|&(_, group)| group)
    }

    /// Forgets a group's key: when it comes again, it gets a new number. The number and the bytes stay taken.
    pub(super) fn remove(&mut self, group: u32) {
        let hash = key_hash(self.keys.get(group));
        if let Ok(entry) = self.table.find_entry(spread(hash), |&(_, known)| known == group) {
            entry.remove();
        }
    }

    /// Forgets all groups, and keeps the memory.
    pub(super) fn clear(&mut self) {
        self.table.clear();
        self.keys.clear();
    }

    /// Returns the bytes of a group's key.
    pub(super) fn key(&self, group: u32) -> &[u8] {
        self.keys.get(group)
    }

    /// Returns the bytes of all keys, by group.
    pub(super) fn keys(&self) -> &GroupKeys {
        &self.keys
    }

    /// Returns about how many bytes the table takes.
    pub(super) fn size(&self) -> usize {
        self.keys.size() + self.table.capacity() * (size_of::<(u64, u32)>() + 1)
    }
}

/// Prepares a hash for the table. The high bits choose the key group, so on one worker they differ little, and the
/// table takes its tag from the highest seven: rotated, tag and slot both come from bits that differ.
#[inline]
fn spread(hash: u64) -> u64 {
    hash.rotate_left(20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_one_hash_stay_apart() {
        let mut table = GroupTable::default();
        assert_eq!(table.group(7, b"a"), 0);
        assert_eq!(table.group(7, b"b"), 1);
        assert_eq!(table.group(7, b""), 2, "a key of another length");
        assert_eq!(table.group(7, b"b"), 1);
        assert_eq!(table.group(7, b"ccc"), 3);
        assert_eq!(
            (table.key(0), table.key(1), table.key(2), table.len()),
            (&b"a"[..], &b"b"[..], &b""[..], 4)
        );
    }

    #[test]
    fn key_that_was_removed_gets_a_new_number() {
        let mut table = GroupTable::default();
        for key in [&b"a"[..], b"b"] {
            table.group(key_hash(key), key);
        }
        table.remove(0);
        assert_eq!(table.group(key_hash(b"b"), b"b"), 1);
        assert_eq!(table.group(key_hash(b"a"), b"a"), 2);
    }

    #[test]
    fn table_that_was_cleared_numbers_anew() {
        let mut table = GroupTable::default();
        for keys in [[&b"a"[..], b"b"], [b"ccc", b"a"], [b"a", b"dd"]] {
            table.clear();
            for (key, number) in keys.into_iter().zip(0..) {
                assert_eq!(table.group(key_hash(key), key), number);
                assert_eq!(table.key(number), key);
            }
            assert_eq!(table.len(), 2);
        }
    }

    #[test]
    fn empty_key_is_one_group() {
        let mut table = GroupTable::default();
        assert_eq!((table.group(1, b""), table.group(1, b""), table.len()), (0, 0, 1));
    }
}
