//! The order in which records of several shards are printed: by arrival, and in each shard as they lie.
//!
//! A shard that is known to have more holds the others back until its next records are there. One that is at its tip does
//! not, for nobody knows when something comes.

use super::Record;
use std::collections::{BTreeMap, VecDeque};

/// Bytes of records that wait; beyond it nobody is waited for and nothing more is read.
const WAITING_BYTES_MAX: usize = 128 << 20;

#[derive(Debug, Default)]
struct Lane {
    waiting: VecDeque<Record>,
    /// There is more, or it has not been looked at yet.
    is_behind: bool,
    /// Nothing comes behind what waits.
    is_ended: bool,
}

/// Records of all shards that are being read.
#[derive(Debug, Default)]
pub(super) struct Merge {
    lanes: BTreeMap<String, Lane>,
    bytes: usize,
}

fn bytes(record: &Record) -> usize {
    record.data.len() + record.key.len() + 256
}

impl Merge {
    /// Takes a shard in, of which nothing is known yet.
    pub(super) fn add(&mut self, shard: &str) {
        let lane = Lane {
            is_behind: true,
            ..Lane::default()
        };
        self.lanes.insert(shard.to_owned(), lane);
    }

    /// Takes the next records of a shard.
    pub(super) fn fill(&mut self, shard: &str, records: Vec<Record>, is_behind: bool) {
        self.bytes += records.iter().map(bytes).sum::<usize>();
        if let Some(lane) = self.lanes.get_mut(shard) {
            lane.waiting.extend(records);
            lane.is_behind = is_behind;
        }
    }

    /// Takes the last records of a shard.
    pub(super) fn end(&mut self, shard: &str, records: Vec<Record>) {
        self.fill(shard, records, false);
        if let Some(lane) = self.lanes.get_mut(shard) {
            lane.is_ended = true;
        }
    }

    /// Lets the others go on without a shard that cannot be read now.
    pub(super) fn leave_out(&mut self, shard: &str) {
        if let Some(lane) = self.lanes.get_mut(shard) {
            lane.is_behind = false;
        }
    }

    /// The next record to print; `None` when a shard has to be looked at first.
    pub(super) fn next(&mut self) -> Option<Record> {
        let is_waited_for = |lane: &Lane| lane.waiting.is_empty() && lane.is_behind;
        if !self.is_full() && self.lanes.values().any(is_waited_for) {
            return None;
        }
        let (_, lane) = self
            .lanes
            .iter_mut()
            .filter_map(|(_, lane)| Some((lane.waiting.front()?.arrival_ms, lane)))
            .min_by_key(|(arrival_ms, _)| *arrival_ms)?;
        let record = lane.waiting.pop_front()?;
        self.bytes -= bytes(&record);
        Some(record)
    }

    /// Removes and names the shards that have ended and are printed.
    pub(super) fn take_ended(&mut self) -> Vec<String> {
        let is_over = |lane: &Lane| lane.is_ended && lane.waiting.is_empty();
        let over: Vec<String> = self
            .lanes
            .iter()
            .filter(|(_, lane)| is_over(lane))
            .map(|(shard, _)| shard.clone())
            .collect();
        for shard in &over {
            self.lanes.remove(shard);
        }
        over
    }

    /// Says whether a shard should be looked at.
    pub(super) fn wants(&self, shard: &str) -> bool {
        self.lanes
            .get(shard)
            .is_some_and(|lane| lane.waiting.is_empty() && !lane.is_ended)
    }

    /// Says whether no shard is left.
    pub(super) fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// Says whether everything there is has been printed.
    pub(super) fn is_at_tip(&self) -> bool {
        self.lanes
            .values()
            .all(|lane| lane.waiting.is_empty() && !lane.is_behind)
    }

    /// Says whether too much waits.
    pub(super) fn is_full(&self) -> bool {
        self.bytes > WAITING_BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(shard: &str, arrival_ms: i64, bytes: usize) -> Record {
        Record {
            shard: shard.into(),
            sequence: arrival_ms.to_string(),
            arrival_ms: Some(arrival_ms),
            key: String::new(),
            data: vec![0; bytes],
        }
    }

    fn records(shard: &str, arrivals: &[i64]) -> Vec<Record> {
        arrivals.iter().map(|&at| record(shard, at, 1)).collect()
    }

    fn drain(merge: &mut Merge) -> Vec<(String, i64)> {
        std::iter::from_fn(|| merge.next())
            .map(|record| (record.shard, record.arrival_ms.unwrap()))
            .collect()
    }

    #[test]
    fn a_shard_that_has_more_holds_the_others_back_until_it_is_read() {
        let mut merge = Merge::default();
        merge.add("a");
        merge.add("b");
        merge.fill("a", records("a", &[1, 5, 9]), false);
        assert_eq!(drain(&mut merge), [], "b has not been looked at");
        merge.fill("b", records("b", &[2, 3]), true);
        let expected = [("a", 1), ("b", 2), ("b", 3)].map(|(shard, at)| (shard.to_owned(), at));
        assert_eq!(drain(&mut merge), expected, "b has more, which may come before 5");
        assert!(merge.wants("b") && !merge.wants("a") && !merge.is_at_tip());
        merge.fill("b", records("b", &[7]), false);
        let expected = [("a", 5), ("b", 7), ("a", 9)].map(|(shard, at)| (shard.to_owned(), at));
        assert_eq!(drain(&mut merge), expected);
        assert!(merge.is_at_tip());
        assert_eq!(merge.bytes, 0);
    }

    #[test]
    fn a_shard_at_its_tip_or_in_trouble_holds_nobody_back() {
        let mut merge = Merge::default();
        merge.add("a");
        merge.add("b");
        merge.fill("a", records("a", &[1]), false);
        merge.leave_out("b");
        assert_eq!(drain(&mut merge).len(), 1);
        merge.fill("a", records("a", &[2]), false);
        assert_eq!(drain(&mut merge).len(), 1);
    }

    #[test]
    fn an_ended_shard_goes_when_it_is_printed() {
        let mut merge = Merge::default();
        merge.add("a");
        merge.end("a", records("a", &[1]));
        assert!(merge.take_ended().is_empty());
        assert_eq!(drain(&mut merge).len(), 1);
        assert_eq!(merge.take_ended(), ["a"]);
        assert!(merge.is_empty());
    }

    #[test]
    fn order_in_a_shard_stays_although_arrivals_are_equal_or_unknown() {
        let mut merge = Merge::default();
        merge.add("a");
        let mut unknown = records("a", &[3, 3, 1]);
        unknown[1].arrival_ms = None;
        merge.fill("a", unknown.clone(), false);
        let printed: Vec<Record> = std::iter::from_fn(|| merge.next()).collect();
        assert_eq!(printed, unknown);
    }

    #[test]
    fn when_too_much_waits_nobody_is_waited_for() {
        let mut merge = Merge::default();
        merge.add("a");
        merge.add("b");
        merge.fill("a", vec![record("a", 1, WAITING_BYTES_MAX), record("a", 2, 1)], false);
        assert!(merge.is_full());
        assert_eq!(merge.next().unwrap().arrival_ms, Some(1));
        assert!(merge.next().is_none() && !merge.is_full());
    }
}
