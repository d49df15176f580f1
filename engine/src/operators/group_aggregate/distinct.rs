//! The sets of `COUNT(DISTINCT x)`, those of several filters over one `x` together.
//!
//! One hash table of (group, value) holds a bit per filter, so that a value that passes three filters is looked for once.
//! Values that are whole numbers of 4 or 8 bytes stand in the table itself; of others it holds the number under which they
//! are known. Over what changes, an entry leads to how often the value is there for each filter.

mod stored;

pub(super) use stored::FrozenSets;

use super::NO_ROW;
use super::members::Listed;
use super::values::Values;
use crate::error::Result;
use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::DataType;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use std::sync::Arc;

/// The most filters of one table.
pub(super) const FILTERS_MAX: usize = 16;

/// Fewer values than this are not worth making everything anew.
const VALUES_GONE_MIN: usize = 1024;

/// A value that is in a set of a group.
#[derive(Clone, Copy)]
struct Member {
    value: i64,
    group: u32,
    /// The filters it passed.
    filters: u16,
}

/// A member over what changes: where its counts are.
#[derive(Clone, Copy)]
struct Counted {
    value: i64,
    group: u32,
    place: u32,
}

/// How many members are looked for before the table, a power of two.
const RECENT: usize = 2048;

/// No group has this number.
const NO_MEMBER: Member = Member {
    value: 0,
    group: u32::MAX,
    filters: 0,
};

enum Members {
    Added {
        table: HashTable<Member>,
        /// Members as they are in the table, by their hash: values often come again soon, and these lie in the processor's cache.
        recent: Box<[Member]>,
    },
    Changing {
        table: HashTable<Counted>,
        /// How often each is there for each filter.
        times: Vec<i64>,
        /// Places in `times` that are free.
        free: Vec<u32>,
    },
}

/// The sets of all groups for some filters over one argument.
pub(super) struct DistinctSets {
    filters: usize,
    members: Members,
    values: Values,
    /// How many members each group has for each filter.
    counts: Vec<i64>,
    /// How many entries each group has.
    entries: Vec<u32>,
}

fn hash_of(group: u32, value: i64) -> u64 {
    let mixed = (value as u64) ^ u64::from(group).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
    let product = u128::from(mixed ^ 0xA076_1D64_78BD_642F) * u128::from(0xE703_7ED1_A0B4_28DBu64);
    (product as u64) ^ (product >> 64) as u64
}

impl DistinctSets {
    /// Makes empty sets of values of a type, at most [`FILTERS_MAX`] per group.
    pub(super) fn new(data_type: &DataType, filters: usize, changes: bool) -> Self {
        let members = match changes {
            true => Members::Changing {
                table: HashTable::new(),
                times: Vec::new(),
                free: Vec::new(),
            },
            false => Members::Added {
                table: HashTable::new(),
                recent: vec![NO_MEMBER; RECENT].into(),
            },
        };
        Self {
            filters,
            members,
            values: Values::new(data_type),
            counts: Vec::new(),
            entries: Vec::new(),
        }
    }

    pub(super) fn resize(&mut self, groups: usize) {
        self.counts.resize(groups * self.filters, 0);
        self.entries.resize(groups, 0);
    }

    /// Adds rows, or takes them back by their weights; `passed` are the filters that each row passes.
    pub(super) fn update(
        &mut self,
        argument: &ArrayRef,
        passed: &[u16],
        groups: &[u32],
        weights: Option<&[i64]>,
    ) -> Result<()> {
        let counts = |row: usize| passed[row] != 0 && weights.is_none_or(|weights| weights[row] != 0);
        let values = self.values.numbers(argument, counts)?;
        match weights {
            None => {
                for ((&group, &passed), &value) in groups.iter().zip(passed).zip(&values) {
                    if passed != 0 {
                        self.add(group, value, passed);
                    }
                }
            }
            Some(weights) => {
                let mut change = vec![0; self.filters];
                for (row, &group) in groups.iter().enumerate() {
                    if passed[row] != 0 && weights[row] != 0 {
                        for (bit, change) in change.iter_mut().enumerate() {
                            *change = weights[row] * i64::from(passed[row] >> bit & 1);
                        }
                        self.change(group, values[row], &change);
                    }
                }
                self.forget_values();
            }
        }
        Ok(())
    }

    /// Adds what a stage before the exchange gave.
    pub(super) fn merge(&mut self, listed: &Listed<'_>, groups: &[u32]) -> Result<()> {
        let values = self.values.numbers(listed.values, |_| true)?;
        let mut change = vec![0; self.filters];
        for (row, &group) in groups.iter().enumerate() {
            for place in listed.of_row(row) {
                let (value, passed) = (values[place], listed.filters[place]);
                let Some(rows) = listed.rows else {
                    self.add(group, value, passed);
                    continue;
                };
                for (bit, change) in change.iter_mut().enumerate() {
                    *change = rows[place] * i64::from(passed >> bit & 1);
                }
                self.change(group, value, &change);
            }
        }
        if listed.rows.is_some() {
            self.forget_values();
        }
        Ok(())
    }

    /// Makes everything anew when most values are in no set any more. Costs about as much as these did to come.
    fn forget_values(&mut self) {
        if self.values.len() > VALUES_GONE_MIN.max(self.len() * 2) {
            let groups = self.entries.len();
            let places: Vec<u32> = (0..groups as u32).collect();
            *self = self.kept(&places, groups);
        }
    }

    fn add(&mut self, group: u32, value: i64, passed: u16) {
        let Members::Added { table, recent } = &mut self.members else {
            let change: Vec<i64> = (0..self.filters).map(|bit| i64::from(passed >> bit & 1)).collect();
            return self.change(group, value, &change);
        };
        let same = |member: &Member| member.value == value && member.group == group;
        let hash = hash_of(group, value);
        let recent = &mut recent[hash as usize >> 20 & (RECENT - 1)];
        if same(recent) && passed & !recent.filters == 0 {
            return;
        }
        let entry = table.entry(hash, same, |member| hash_of(member.group, member.value));
        let new = match entry {
            Entry::Occupied(mut entry) => {
                let member = entry.get_mut();
                let new = passed & !member.filters;
                member.filters |= passed;
                *recent = *member;
                new
            }
            Entry::Vacant(entry) => {
                *recent = Member {
                    value,
                    group,
                    filters: passed,
                };
                entry.insert(*recent);
                self.entries[group as usize] += 1;
                passed
            }
        };
        let counts = &mut self.counts[group as usize * self.filters..];
        let mut left = new;
        while left != 0 {
            counts[left.trailing_zeros() as usize] += 1;
            left &= left - 1;
        }
    }

    /// Changes how often a value is there for each filter.
    fn change(&mut self, group: u32, value: i64, change: &[i64]) {
        let Members::Changing { table, times, free } = &mut self.members else {
            return;
        };
        let filters = self.filters;
        let same = |member: &Counted| member.value == value && member.group == group;
        let entry = table.entry(hash_of(group, value), same, |member| {
            hash_of(member.group, member.value)
        });
        let entry = match entry {
            Entry::Occupied(entry) => entry,
            Entry::Vacant(entry) => {
                let place = free.pop().unwrap_or_else(|| {
                    times.resize(times.len() + filters, 0);
                    (times.len() / filters - 1) as u32
                });
                self.entries[group as usize] += 1;
                entry.insert(Counted { value, group, place })
            }
        };
        let place = entry.get().place;
        let times = &mut times[place as usize * filters..(place as usize + 1) * filters];
        let counts = &mut self.counts[group as usize * filters..];
        for ((times, count), change) in times.iter_mut().zip(counts).zip(change) {
            let before = *times > 0;
            *times += change;
            *count += i64::from(*times > 0) - i64::from(before);
        }
        if times.iter().all(|times| *times == 0) {
            entry.remove();
            free.push(place);
            self.entries[group as usize] -= 1;
        }
    }

    /// Returns how many members groups have for a filter.
    pub(super) fn counts(&self, groups: &[u32], filter: usize) -> ArrayRef {
        let counts = groups
            .iter()
            .map(|&group| self.counts[group as usize * self.filters + filter]);
        Arc::new(Int64Array::from_iter_values(counts))
    }

    /// Returns how many entries a group has.
    pub(super) fn entries(&self, group: u32) -> usize {
        self.entries[group as usize] as usize
    }

    pub(super) fn len(&self) -> usize {
        match &self.members {
            Members::Added { table, .. } => table.len(),
            Members::Changing { table, .. } => table.len(),
        }
    }

    /// Calls `visit` with every member and how often it is there for each filter.
    fn visit(&self, mut visit: impl FnMut(u32, i64, &[i64])) {
        match &self.members {
            Members::Added { table, .. } => {
                let mut counts = vec![0; self.filters];
                for member in table {
                    for (bit, count) in counts.iter_mut().enumerate() {
                        *count = i64::from(member.filters >> bit & 1);
                    }
                    visit(member.group, member.value, &counts);
                }
            }
            Members::Changing { table, times, .. } => {
                for member in table {
                    let first = member.place as usize * self.filters;
                    visit(member.group, member.value, &times[first..first + self.filters]);
                }
            }
        }
    }

    fn insert(&mut self, group: u32, value: i64, counts: &[i64]) {
        match &self.members {
            Members::Added { .. } => {
                let bits = counts.iter().enumerate().filter(|(_, count)| **count > 0);
                let passed = bits.fold(0u16, |passed, (bit, _)| passed | 1 << bit);
                self.add(group, value, passed);
            }
            Members::Changing { .. } => self.change(group, value, counts),
        }
    }

    /// Returns the sets of the groups that have a place, under it.
    pub(super) fn kept(&self, places: &[u32], groups: usize) -> Self {
        let mut kept = Self::new(
            self.values.data_type(),
            self.filters,
            matches!(self.members, Members::Changing { .. }),
        );
        kept.resize(groups);
        self.visit(|group, value, counts| {
            let place = places[group as usize];
            if place != NO_ROW {
                let value = kept.values.number_of(&self.values, value);
                kept.insert(place, value, counts);
            }
        });
        kept
    }

    pub(super) fn size(&self) -> usize {
        let members = match &self.members {
            Members::Added { table, .. } => (table.capacity() + RECENT) * (size_of::<Member>() + 1),
            Members::Changing { table, times, free } => {
                table.capacity() * (size_of::<Counted>() + 1) + times.capacity() * 8 + free.capacity() * 4
            }
        };
        members + self.values.size() + self.counts.capacity() * 8 + self.entries.capacity() * 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{AsArray, StringArray};
    use arrow::datatypes::Int64Type;

    fn texts(from: i64, count: i64) -> ArrayRef {
        let texts = (from..from + count).map(|number| format!("the text {number}"));
        Arc::new(StringArray::from_iter_values(texts))
    }

    #[test]
    fn values_that_are_in_no_set_are_not_held() {
        let mut sets = DistinctSets::new(&DataType::Utf8, 1, true);
        sets.resize(1);
        let groups = [0; 1000];
        // Those that no filter lets pass, and those that count nothing.
        let (none, all) = ([0; 1000], [1; 1000]);
        sets.update(&texts(0, 1000), &none, &groups, Some(&[1; 1000])).unwrap();
        sets.update(&texts(0, 1000), &all, &groups, Some(&[0; 1000])).unwrap();
        assert_eq!(sets.values.len(), 0);
        // Those that were taken back.
        for round in 0..40 {
            sets.update(&texts(round * 1000, 1000), &all, &groups, Some(&[1; 1000]))
                .unwrap();
            let gone = [-1; 990];
            sets.update(&texts(round * 1000, 990), &all[..990], &groups[..990], Some(&gone))
                .unwrap();
        }
        assert_eq!(sets.counts(&[0], 0).as_primitive::<Int64Type>().value(0), 400);
        assert!(sets.values.len() < 4000, "{} values", sets.values.len());
        let mut pieces = Vec::new();
        for part in sets.freeze() {
            let keep = |piece: stored::EncodedMembers| {
                pieces.push(piece.values);
                Ok(())
            };
            part.encode(&[0], keep).unwrap();
        }
        let mut found: Vec<&str> = pieces[0].as_string::<i32>().iter().flatten().collect();
        found.sort_unstable();
        let all: Vec<ArrayRef> = (0..40).map(|round| texts(round * 1000 + 990, 10)).collect();
        let mut expected: Vec<&str> = all
            .iter()
            .flat_map(|texts| texts.as_string::<i32>().iter().flatten())
            .collect();
        expected.sort_unstable();
        assert_eq!(found, expected);
        // A checkpoint's members of other workers.
        let mut restored = DistinctSets::new(&DataType::Utf8, 1, true);
        restored.resize(1);
        let counts: ArrayRef = Arc::new(Int64Array::from(vec![1; 3]));
        restored.decode(&texts(0, 3), &[counts], &[NO_ROW, 0, NO_ROW]).unwrap();
        assert_eq!(restored.values.len(), 1);
    }
    #[test]
    fn counts_of_rows_that_are_only_added_are_read_as_filters() {
        let mut sets = DistinctSets::new(&DataType::Int64, 2, false);
        sets.resize(1);
        let values: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
        let counts = |counts: [i64; 3]| Arc::new(Int64Array::from(counts.to_vec())) as ArrayRef;
        sets.decode(&values, &[counts([1, 1, 1]), counts([0, 1, 0])], &[0, 0, 0])
            .unwrap();
        let count = |filter| sets.counts(&[0], filter).as_primitive::<Int64Type>().value(0);
        assert_eq!((count(0), count(1)), (3, 1));
    }
}
