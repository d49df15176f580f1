//! From keys to dense group numbers.

use hashbrown::HashTable;

/// The keys seen so far, numbered 0, 1, 2, ... in the order they came. Holds a copy of every key's bytes.
#[derive(Default)]
pub(super) struct GroupTable {
    table: HashTable<u32>,
    hashes: Vec<u64>,
    bytes: Vec<u8>,
    /// `ends[i]` is where key i ends in `bytes`; it begins where key i - 1 ends.
    ends: Vec<usize>,
}

impl GroupTable {
    /// Returns the number of groups.
    pub(super) fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Returns the number of the key's group, a new one if the key is new.
    #[inline]
    pub(super) fn group(&mut self, hash: u64, key: &[u8]) -> u32 {
        let (hashes, bytes, ends) = (&self.hashes, &self.bytes, &self.ends);
        let same = |&group: &u32| hashes[group as usize] == hash && key_at(bytes, ends, group) == key;
        // The high bits choose the key group, so on one worker they differ little: hashbrown takes its tag from the
        // highest seven, which would all be alike. Rotated, tag and slot come from low bits.
        if let Some(&group) = self.table.find(spread(hash), same) {
            return group;
        }
        let group = self.hashes.len() as u32;
        self.table
            .insert_unique(spread(hash), group, |&group| spread(hashes[group as usize]));
        self.hashes.push(hash);
        self.bytes.extend_from_slice(key);
        self.ends.push(self.bytes.len());
        group
    }

    /// Returns the bytes of a group's key.
    pub(super) fn key(&self, group: u32) -> &[u8] {
        key_at(&self.bytes, &self.ends, group)
    }

    /// Returns the hash of a group's key.
    pub(super) fn hash(&self, group: u32) -> u64 {
        self.hashes[group as usize]
    }

    /// Returns about how many bytes the table takes.
    pub(super) fn size(&self) -> usize {
        self.bytes.capacity() + self.ends.capacity() * 8 + self.hashes.capacity() * 8 + self.table.capacity() * 5
    }
}

#[inline]
fn spread(hash: u64) -> u64 {
    hash.rotate_left(20)
}

#[inline]
fn key_at<'a>(bytes: &'a [u8], ends: &[usize], group: u32) -> &'a [u8] {
    let group = group as usize;
    let start = if group == 0 { 0 } else { ends[group - 1] };
    &bytes[start..ends[group]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_one_hash_stay_apart() {
        let mut table = GroupTable::default();
        assert_eq!(table.group(7, b"a"), 0);
        assert_eq!(table.group(7, b"b"), 1);
        assert_eq!(table.group(7, b""), 2);
        assert_eq!(table.group(7, b"b"), 1);
        assert_eq!((table.key(1), table.key(2), table.len()), (&b"b"[..], &b""[..], 3));
    }
}
