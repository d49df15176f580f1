//! Puts rows together into aggregated records, when a table asks for it.
//!
//! Rows of the same partition key share a record, never rows of several: see [`Aggregator`]. Where any key will do, the
//! rows of a record get the same one. The rows of a key keep their order.

use super::aggregation::Aggregator;
use super::options::sink::AggregationOptions;
use super::options::{KinesisOptions, PartitionerKind};
use bytes::Bytes;
use std::collections::HashMap;
use tidemill_shards::PutEntry;

/// Rows that wait for others of their key.
pub(super) struct Grouping {
    options: AggregationOptions,
    /// Rows may have any key.
    any_key: bool,
    /// In the order in which they were begun, so that the output does not depend on the map's order.
    groups: Vec<Group>,
    by_key: HashMap<String, usize>,
}

struct Group {
    partition_key: String,
    record: Aggregator,
    /// The only row, which goes alone when no other comes.
    first: Bytes,
}

impl Group {
    fn new(partition_key: String) -> Self {
        Self {
            record: Aggregator::new(&partition_key),
            partition_key,
            first: Bytes::new(),
        }
    }

    fn entry(self) -> PutEntry {
        PutEntry {
            data: if self.record.records() == 1 {
                self.first
            } else {
                self.record.finish()
            },
            partition_key: self.partition_key,
            explicit_hash_key: None,
        }
    }
}

impl Grouping {
    /// Makes it for a table that asks for it.
    pub(super) fn new(options: &KinesisOptions) -> Option<Self> {
        Some(Self {
            options: options.aggregation?,
            any_key: !options.has_partition_columns && options.partitioner != Some(PartitionerKind::Fixed),
            groups: Vec::new(),
            by_key: HashMap::new(),
        })
    }

    /// Adds a row. Records that are full go to `out`.
    pub(super) fn add(&mut self, partition_key: String, data: Bytes, out: &mut Vec<PutEntry>) {
        let at = match self.find(&partition_key) {
            Some(at) if self.has_room(&self.groups[at], data.len()) => at,
            Some(at) => {
                let partition_key = if self.any_key {
                    partition_key
                } else {
                    self.groups[at].partition_key.clone()
                };
                let full = std::mem::replace(&mut self.groups[at], Group::new(partition_key));
                out.push(full.entry());
                at
            }
            None => {
                self.by_key.insert(partition_key.clone(), self.groups.len());
                self.groups.push(Group::new(partition_key));
                self.groups.len() - 1
            }
        };
        let group = &mut self.groups[at];
        group.record.push(&data);
        if group.record.records() == 1 {
            group.first = data;
        }
    }

    fn find(&self, partition_key: &str) -> Option<usize> {
        if self.any_key {
            return self.groups.len().checked_sub(1);
        }
        self.by_key.get(partition_key).copied()
    }

    fn has_room(&self, group: &Group, data_bytes: usize) -> bool {
        let bytes = group.partition_key.len() + group.record.size_with(data_bytes);
        group.record.records() < self.options.records_max && bytes <= self.options.bytes_max
    }

    /// Moves everything to `out`.
    pub(super) fn finish(&mut self, out: &mut Vec<PutEntry>) {
        self.by_key.clear();
        out.extend(self.groups.drain(..).map(Group::entry));
    }
}

#[cfg(test)]
mod tests {
    use super::super::aggregation::UserRecords;
    use super::*;

    fn grouping(any_key: bool, records_max: usize, bytes_max: usize) -> Grouping {
        Grouping {
            options: AggregationOptions { records_max, bytes_max },
            any_key,
            groups: Vec::new(),
            by_key: HashMap::new(),
        }
    }

    fn rows(entries: &[PutEntry]) -> Vec<(String, Vec<String>)> {
        let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        let row = |entry: &PutEntry| {
            let rows = match UserRecords::open(&entry.data, None) {
                Some(records) => records
                    .map(|record| {
                        assert_eq!(record.partition_key, entry.partition_key.as_bytes());
                        text(&record.data)
                    })
                    .collect(),
                None => vec![text(&entry.data)],
            };
            (entry.partition_key.clone(), rows)
        };
        entries.iter().map(row).collect()
    }

    #[test]
    fn rows_of_a_key_share_a_record_in_their_order() {
        let (mut grouping, mut out) = (grouping(false, 3, 1 << 20), Vec::new());
        for (row, key) in ["a", "b", "a", "a", "a", "c"].into_iter().enumerate() {
            grouping.add(key.to_owned(), row.to_string().into(), &mut out);
        }
        assert_eq!(rows(&out), [("a".to_owned(), vec!["0".into(), "2".into(), "3".into()])]);
        grouping.finish(&mut out);
        let row = |key: &str, row: &str| (key.to_owned(), vec![row.to_owned()]);
        assert_eq!(rows(&out)[1..], [row("a", "4"), row("b", "1"), row("c", "5")]);
        // A row that is alone is written as it is.
        assert_eq!(out[3].data, "5");
        out.clear();
        grouping.finish(&mut out);
        assert!(out.is_empty());
    }

    #[test]
    fn a_record_is_never_larger_than_asked_for() {
        let (mut grouping, mut out) = (grouping(true, usize::MAX, 1_024), Vec::new());
        for row in 0..100u32 {
            grouping.add(format!("key-{row}"), vec![b'x'; 90].into(), &mut out);
        }
        grouping.add("long".to_owned(), vec![b'y'; 5_000].into(), &mut out);
        grouping.finish(&mut out);
        assert_eq!(rows(&out).iter().map(|(_, rows)| rows.len()).sum::<usize>(), 101);
        assert!(out.len() <= 12, "{} records", out.len());
        let (last, others) = out.split_last().unwrap();
        assert_eq!(last.data.len(), 5_000);
        assert!(
            others
                .iter()
                .all(|entry| entry.data.len() + entry.partition_key.len() <= 1_024)
        );
    }
}
