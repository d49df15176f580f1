//! The best rows of many keys, each a short list in one array.

use super::order::OrderKey;
use crate::rows::RowRef;

/// A row in the list of its key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<K> {
    pub(super) key: K,
    pub(super) row: RowRef,
}

/// Where a list is: room for `1 << class` entries from `start` on, of which `len` are used.
#[derive(Clone, Copy, Default)]
struct Span {
    start: u32,
    len: u32,
    class: u8,
    has_room: bool,
}

/// Lists of entries by group number, each in the order of its keys. Room is given in powers of two and used again.
pub(super) struct Lists<K> {
    spans: Vec<Span>,
    slots: Vec<Entry<K>>,
    /// Starts of rooms that are free, by class.
    free: Vec<Vec<u32>>,
}

impl<K: OrderKey> Lists<K> {
    pub(super) fn new() -> Self {
        Self {
            spans: Vec::new(),
            slots: Vec::new(),
            free: Vec::new(),
        }
    }

    /// Makes lists for so many groups; new ones are empty.
    pub(super) fn resize(&mut self, groups: usize) {
        self.spans.resize(groups, Span::default());
    }

    #[inline]
    pub(super) fn get(&self, group: u32) -> &[Entry<K>] {
        let span = self.spans[group as usize];
        &self.slots[span.start as usize..(span.start + span.len) as usize]
    }

    #[inline]
    pub(super) fn get_mut(&mut self, group: u32) -> &mut [Entry<K>] {
        let span = self.spans[group as usize];
        &mut self.slots[span.start as usize..(span.start + span.len) as usize]
    }

    /// Puts an entry at a place. A list of `len_max` entries loses its last one, which is returned.
    pub(super) fn insert(&mut self, group: u32, at: usize, entry: Entry<K>, len_max: usize) -> Option<Entry<K>> {
        let span = self.spans[group as usize];
        let len = span.len as usize;
        if len == len_max {
            let list = self.get_mut(group);
            list[at..].rotate_right(1);
            return Some(std::mem::replace(&mut list[at], entry));
        }
        if !span.has_room || len == 1 << span.class {
            self.grow(group);
        }
        let span = &mut self.spans[group as usize];
        span.len += 1;
        let list = &mut self.slots[span.start as usize..(span.start + span.len) as usize];
        list[at..].rotate_right(1);
        list[at] = entry;
        None
    }

    /// Moves a list to twice as much room.
    fn grow(&mut self, group: u32) {
        let old = self.spans[group as usize];
        let class = if old.has_room { old.class + 1 } else { 0 };
        if self.free.len() <= class as usize {
            self.free.resize_with(class as usize + 1, Vec::new);
        }
        let start = self.free[class as usize].pop().unwrap_or_else(|| {
            let start = self.slots.len() as u32;
            let entry = || Entry {
                key: K::default(),
                row: RowRef::FIRST,
            };
            self.slots.resize_with(self.slots.len() + (1 << class), entry);
            start
        });
        for index in 0..old.len {
            self.slots.swap((old.start + index) as usize, (start + index) as usize);
        }
        if old.has_room {
            self.free[old.class as usize].push(old.start);
        }
        self.spans[group as usize] = Span {
            start,
            len: old.len,
            class,
            has_room: true,
        };
    }

    /// Empties a list.
    pub(super) fn clear(&mut self, group: u32) {
        let span = std::mem::take(&mut self.spans[group as usize]);
        if span.has_room {
            self.free[span.class as usize].push(span.start);
        }
    }

    /// Returns the lists of some groups under new numbers: `kept[i]` becomes i. The others must be empty.
    pub(super) fn renumbered(&mut self, kept: &[u32]) {
        self.spans = kept.iter().map(|&group| self.spans[group as usize]).collect();
    }

    /// Returns about how many bytes the lists take.
    pub(super) fn size(&self) -> usize {
        let keys: usize = self.slots.iter().map(|entry| entry.key.size()).sum();
        keys + self.spans.capacity() * size_of::<Span>() + self.slots.capacity() * size_of::<Entry<K>>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_keep_their_order_and_lose_their_last() {
        let mut lists: Lists<[u64; 2]> = Lists::new();
        lists.resize(3);
        let row = |number: u32| RowRef { chunk: 0, row: number };
        let mut expected = vec![Vec::<u64>::new(); 3];
        for number in 0..200u32 {
            let (group, key) = (number % 3, u64::from(number.wrapping_mul(2_654_435_761) >> 20));
            let at = lists.get(group).partition_point(|entry| entry.key[0] <= key);
            let list = &mut expected[group as usize];
            list.insert(at, key);
            let lost = (list.len() > 20).then(|| list.pop().unwrap());
            if at < 20 {
                let entry = Entry {
                    key: [key, 0],
                    row: row(number),
                };
                assert_eq!(lists.insert(group, at, entry, 20).map(|entry| entry.key[0]), lost);
            }
        }
        for (group, expected) in expected.iter().enumerate() {
            let found: Vec<u64> = lists.get(group as u32).iter().map(|entry| entry.key[0]).collect();
            assert_eq!(&found, expected);
        }
        let slots = lists.slots.len();
        lists.clear(1);
        lists.renumbered(&[0, 2]);
        lists.resize(3);
        assert_eq!(lists.get(1)[0].key[0], expected[2][0]);
        for number in 0..20 {
            let entry = Entry {
                key: [number, 0],
                row: row(0),
            };
            lists.insert(2, number as usize, entry, 20);
        }
        assert_eq!(lists.slots.len(), slots, "room is used again");
    }
}
