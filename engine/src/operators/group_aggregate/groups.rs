//! The numbers of groups, and which of them have a result.

use crate::key::{EncodedKeys, key_hash};
use crate::operators::group_table::{GroupKeys, GroupTable};

/// All groups, by number.
pub(super) struct Groups {
    table: GroupTable,
    /// Whether the group has a row in the result, as of the last close.
    live: Vec<bool>,
    live_count: usize,
    /// How many rows each group has; `None` where rows are only added: then every group has some.
    rows: Option<Vec<i64>>,
    /// The tick that last touched each group.
    touched: Vec<u32>,
    tick: u32,
}

impl Groups {
    /// Makes an empty set of groups; with `counts_rows` for rows that are taken back, too.
    pub(super) fn new(counts_rows: bool) -> Self {
        Self {
            table: GroupTable::default(),
            live: Vec::new(),
            live_count: 0,
            rows: counts_rows.then(Vec::new),
            touched: Vec::new(),
            tick: 1,
        }
    }

    /// Finds the group of each key, making new ones. `hashes` are those of the keys, where they are known.
    pub(super) fn number(&mut self, keys: &EncodedKeys, hashes: Option<&[u64]>, groups: &mut Vec<u32>) {
        groups.clear();
        groups.reserve(keys.len());
        let mut last: (&[u8], u32) = (&[], 0);
        for row in 0..keys.len() {
            let key = keys.key(row);
            // Rows of one key often follow one another: of a day, of a channel.
            if row == 0 || key != last.0 {
                let hash = hashes.map_or_else(|| key_hash(key), |hashes| hashes[row]);
                last = (key, self.table.group(hash, key));
            }
            groups.push(last.1);
        }
        self.resize();
    }

    fn resize(&mut self) {
        let count = self.table.len();
        self.live.resize(count, false);
        self.touched.resize(count, 0);
        if let Some(rows) = &mut self.rows {
            rows.resize(count, 0);
        }
    }

    /// Makes a group that has a result, and so many rows; returns its number.
    pub(super) fn restore(&mut self, hash: u64, key: &[u8], rows: i64) -> u32 {
        let group = self.table.group(hash, key);
        self.resize();
        self.live_count += usize::from(!self.live[group as usize]);
        self.live[group as usize] = true;
        if let Some(known) = &mut self.rows {
            known[group as usize] = rows;
        }
        group
    }

    /// Appends the groups that the tick has not touched yet, each once.
    pub(super) fn touch(&mut self, groups: &[u32], first: &mut Vec<u32>) {
        for &group in groups {
            let touched = &mut self.touched[group as usize];
            if *touched != self.tick {
                *touched = self.tick;
                first.push(group);
            }
        }
    }

    /// Begins the next tick.
    pub(super) fn next_tick(&mut self) {
        self.tick = self.tick.wrapping_add(1);
        if self.tick == 0 {
            self.touched.fill(0);
            self.tick = 1;
        }
    }

    /// Adds rows to groups, or takes them away.
    pub(super) fn add_rows(&mut self, groups: &[u32], weights: &[i64]) {
        if let Some(rows) = &mut self.rows {
            for (&group, &weight) in groups.iter().zip(weights) {
                rows[group as usize] += weight;
            }
        }
    }

    /// Says whether a group had a row in the result at the last close.
    pub(super) fn is_live(&self, group: u32) -> bool {
        self.live[group as usize]
    }

    /// Says whether a group has rows now.
    pub(super) fn has_rows(&self, group: u32) -> bool {
        self.rows.as_ref().is_none_or(|rows| rows[group as usize] > 0)
    }

    /// Returns how many rows a group has; 1 where they are not counted.
    pub(super) fn rows(&self, group: u32) -> i64 {
        self.rows.as_ref().map_or(1, |rows| rows[group as usize])
    }

    /// Closes the tick for a group; returns whether it has ended.
    pub(super) fn settle(&mut self, group: u32) -> bool {
        let has_rows = self.has_rows(group);
        let live = &mut self.live[group as usize];
        if has_rows && !*live {
            *live = true;
            self.live_count += 1;
        }
        !has_rows
    }

    /// Lets a group end.
    pub(super) fn remove(&mut self, group: u32) {
        self.live_count -= usize::from(self.live[group as usize]);
        self.live[group as usize] = false;
        self.table.remove(group);
    }

    /// Returns the groups that have a result, in order.
    pub(super) fn live(&self) -> Vec<u32> {
        let numbers = self.live.iter().zip(0..).filter(|(live, _)| **live);
        numbers.map(|(_, group)| group).collect()
    }

    pub(super) fn live_count(&self) -> usize {
        self.live_count
    }

    /// Returns some groups, numbered from 0 on.
    pub(super) fn kept(&self, groups: &[u32]) -> Self {
        let mut kept = Self::new(self.rows.is_some());
        for &group in groups {
            let key = self.key(group);
            kept.restore(key_hash(key), key, self.rows(group));
        }
        kept
    }

    /// Returns how many numbers are taken.
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn key(&self, group: u32) -> &[u8] {
        self.table.key(group)
    }

    /// Returns the bytes of all keys.
    pub(super) fn keys(&self) -> &GroupKeys {
        self.table.keys()
    }

    pub(super) fn size(&self) -> usize {
        self.table.size() + self.live.capacity() * 5 + self.rows.as_ref().map_or(0, |rows| rows.capacity() * 8)
    }
}
