//! What is sent next: requests within the service's limits, with the order of every key kept.

use std::collections::{HashSet, VecDeque};
use std::fmt;

/// Records of one PutRecords.
pub(super) const PUT_RECORDS_MAX: usize = 500;
/// Bytes of one PutRecords, data and keys: what all servers take. A single record may be larger.
const PUT_BYTES_MAX: usize = 5 << 20;
/// Records that wait, among which those of a request are looked for.
const WAITING_MAX: usize = 4_096;
/// Their bytes.
const WAITING_BYTES_MAX: usize = 16 << 20;

/// Where in the input a record was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A line, from 1.
    Line(u64),
    /// All of it.
    Whole,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(number) => write!(f, "line {number}"),
            Self::Whole => f.write_str("standard input"),
        }
    }
}

/// A record to put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Where it was.
    pub(super) place: Place,
    /// Its partition key.
    pub(super) key: String,
    /// Its data.
    pub(super) data: Vec<u8>,
}

impl Entry {
    fn bytes(&self) -> usize {
        self.key.len() + self.data.len()
    }
}

/// What is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// The order of records of a key, also when some are refused: a request has one of each key.
    Key,
    /// None, when some are refused.
    None,
}

/// The records of a request.
#[derive(Debug)]
pub(super) struct Batch {
    /// In the order of the input.
    pub(super) entries: Vec<Entry>,
    /// It has fewer records than it could, because of keys that are in it already.
    pub(super) is_held: bool,
}

/// Records that wait, in the order of the input.
#[derive(Debug)]
pub(super) struct Queue {
    order: Order,
    waiting: VecDeque<Entry>,
    bytes: usize,
}

impl Queue {
    pub(super) fn new(order: Order) -> Self {
        Self {
            order,
            waiting: VecDeque::new(),
            bytes: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Says whether more should be read.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < WAITING_MAX && self.bytes < WAITING_BYTES_MAX
    }

    /// Adds records behind all others.
    pub(super) fn extend(&mut self, entries: Vec<Entry>) {
        self.bytes += entries.iter().map(Entry::bytes).sum::<usize>();
        self.waiting.extend(entries);
    }

    /// Puts records back that were refused, before all others. They were taken before those of the same key that wait.
    pub(super) fn put_back(&mut self, refused: Vec<Entry>) {
        for entry in refused.into_iter().rev() {
            self.bytes += entry.bytes();
            self.waiting.push_front(entry);
        }
    }

    /// Takes the records of the next request, up to `room` of them and at least one.
    pub(super) fn next(&mut self, room: usize) -> Batch {
        let room = room.clamp(1, PUT_RECORDS_MAX);
        let (mut entries, mut left, mut bytes) = (Vec::new(), VecDeque::new(), 0);
        // Keys that are in the request already, or of which a record stays behind.
        let mut keys = HashSet::new();
        let mut is_held = false;
        while let Some(entry) = self.waiting.pop_front() {
            if entries.len() == room {
                left.push_back(entry);
                break;
            }
            let is_repeated = self.order == Order::Key && keys.contains(&entry.key);
            let is_too_much = !entries.is_empty() && bytes + entry.bytes() > PUT_BYTES_MAX;
            if self.order == Order::Key && !is_repeated {
                keys.insert(entry.key.clone());
            }
            if is_too_much && !is_repeated && self.order == Order::None {
                left.push_back(entry);
                break;
            }
            if is_repeated || is_too_much {
                is_held |= is_repeated;
                left.push_back(entry);
                continue;
            }
            bytes += entry.bytes();
            entries.push(entry);
        }
        is_held &= entries.len() < room;
        left.append(&mut self.waiting);
        self.waiting = left;
        self.bytes -= bytes;
        Batch { entries, is_held }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(line: u64, key: &str, bytes: usize) -> Entry {
        Entry {
            place: Place::Line(line),
            key: key.into(),
            data: vec![b'x'; bytes],
        }
    }

    fn lines(batch: &Batch) -> Vec<u64> {
        batch
            .entries
            .iter()
            .map(|entry| match entry.place {
                Place::Line(line) => line,
                Place::Whole => 0,
            })
            .collect()
    }

    #[test]
    fn a_request_has_one_record_of_a_key_and_the_others_follow_in_their_order() {
        let mut queue = Queue::new(Order::Key);
        queue.extend(vec![
            entry(1, "a", 1),
            entry(2, "a", 1),
            entry(3, "b", 1),
            entry(4, "a", 1),
        ]);
        let first = queue.next(500);
        assert_eq!((lines(&first), first.is_held), (vec![1, 3], true));
        assert_eq!(lines(&queue.next(500)), [2]);
        let last = queue.next(500);
        assert_eq!((lines(&last), last.is_held), (vec![4], false));
        assert!(queue.is_empty());
        assert_eq!(queue.bytes, 0);
    }

    #[test]
    fn what_is_refused_goes_before_later_records_of_its_key() {
        let mut queue = Queue::new(Order::Key);
        queue.extend(vec![entry(1, "a", 1), entry(2, "b", 1), entry(3, "a", 1)]);
        let batch = queue.next(500);
        queue.put_back(batch.entries);
        let again = queue.next(500);
        assert_eq!(lines(&again), [1, 2]);
        assert_eq!(lines(&queue.next(500)), [3]);
    }

    #[test]
    fn without_order_requests_are_full() {
        let mut queue = Queue::new(Order::None);
        queue.extend((0..1_200).map(|line| entry(line, "a", 1)).collect());
        assert_eq!(lines(&queue.next(500)), (0..500).collect::<Vec<_>>());
        assert_eq!(queue.next(500).entries.len(), 500);
        assert_eq!(queue.next(500).entries.len(), 200);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_request_keeps_within_the_bytes_and_one_large_record_goes_alone() {
        for order in [Order::Key, Order::None] {
            let mut queue = Queue::new(order);
            queue.extend(vec![
                entry(1, "a", 9 << 20),
                entry(2, "b", 3 << 20),
                entry(3, "c", 3 << 20),
            ]);
            assert_eq!(lines(&queue.next(500)), [1]);
            assert_eq!(lines(&queue.next(500)), [2]);
            assert_eq!(lines(&queue.next(500)), [3]);
            assert!(queue.is_empty());
        }
    }

    #[test]
    fn a_record_that_does_not_fit_holds_back_those_of_its_key() {
        let mut queue = Queue::new(Order::Key);
        queue.extend(vec![
            entry(1, "a", 4 << 20),
            entry(2, "b", 2 << 20),
            entry(3, "b", 1),
            entry(4, "c", 1),
        ]);
        assert_eq!(lines(&queue.next(500)), [1, 4]);
        assert_eq!(lines(&queue.next(500)), [2]);
        assert_eq!(lines(&queue.next(500)), [3]);
    }

    #[test]
    fn every_order_of_refusals_keeps_the_order_of_each_key() {
        let mut queue = Queue::new(Order::Key);
        queue.extend((0..300).map(|line| entry(line, &format!("k{}", line % 7), 1)).collect());
        let mut stored: Vec<(String, u64)> = Vec::new();
        let mut turn = 0u64;
        while !queue.is_empty() {
            let batch = queue.next(5);
            let (mut refused, mut kept) = (Vec::new(), Vec::new());
            for entry in batch.entries {
                turn = turn
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                if turn >> 63 == 0 {
                    refused.push(entry)
                } else {
                    kept.push(entry)
                }
            }
            stored.extend(kept.iter().map(|entry| match entry.place {
                Place::Line(line) => (entry.key.clone(), line),
                Place::Whole => unreachable!("all are lines"),
            }));
            queue.put_back(refused);
        }
        assert_eq!(stored.len(), 300);
        for key in 0..7 {
            let of_key: Vec<u64> = stored
                .iter()
                .filter(|(k, _)| *k == format!("k{key}"))
                .map(|(_, line)| *line)
                .collect();
            assert!(of_key.is_sorted(), "k{key}: {of_key:?}");
        }
    }
}
