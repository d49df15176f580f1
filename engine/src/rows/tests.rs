//! The store and the index against vectors and maps, under random appends, removals, compactions and restores.

use super::{CHUNK_ROWS, ProbeFrom, RowIndex, RowKeys, RowRef, RowStore};
use crate::key::KeyGroupRange;
use crate::operator::StateSection;
use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("text", DataType::Utf8View, true),
    ]))
}

fn batch(ids: &[i64]) -> RecordBatch {
    let text = |id: &i64| (id % 7 != 0).then(|| format!("the text of the row with number {id}"));
    let ids_column: ArrayRef = Arc::new(Int64Array::from(ids.to_vec()));
    let texts: ArrayRef = Arc::new(ids.iter().map(text).collect::<StringViewArray>());
    RecordBatch::try_new(schema(), vec![ids_column, texts]).unwrap()
}

/// Spreads few keys over all key groups.
fn hash_of_key(key: u64) -> u64 {
    key.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

fn all_groups() -> KeyGroupRange {
    KeyGroupRange::of_worker(0, 1, 256)
}

#[derive(Clone, Debug, PartialEq)]
struct Known {
    id: i64,
    hash: u64,
    due_ms: i64,
    is_marked: bool,
}

/// What is tested, and what it should be.
struct Pair {
    store: RowStore,
    index: RowIndex,
    model: BTreeMap<RowRef, Known>,
    next_id: i64,
}

impl Pair {
    fn new() -> Self {
        Self {
            store: RowStore::new(schema()).with_due(),
            index: RowIndex::default(),
            model: BTreeMap::new(),
            next_id: 0,
        }
    }

    fn append(&mut self, rows: usize, keys: u64) {
        let ids: Vec<i64> = (self.next_id..).take(rows).collect();
        self.next_id += rows as i64;
        let hashes: Vec<u64> = ids.iter().map(|id| hash_of_key(*id as u64 * 31 % keys)).collect();
        let due: Vec<i64> = ids.iter().map(|id| id * 37 % 1000).collect();
        // A slice, as of a batch that is larger.
        let larger = batch(&[&[-1], ids.as_slice(), &[-2]].concat());
        let keys = RowKeys {
            hashes: &hashes,
            due: Some(&due),
        };
        let first = self.store.append(&larger.slice(1, rows), keys).unwrap();
        for (row, &id) in ids.iter().enumerate() {
            let place = first.plus(row);
            if let Some((last, _)) = self.model.last_key_value() {
                assert!(*last < place);
            }
            self.index.insert(hashes[row], place);
            let known = Known {
                id,
                hash: hashes[row],
                due_ms: due[row],
                is_marked: false,
            };
            self.model.insert(place, known);
        }
    }

    fn remove(&mut self, rows: Vec<RowRef>) {
        let mut removed = Vec::new();
        for row in rows {
            let known = self.model.remove(&row);
            assert_eq!(self.store.hash_of(row), known.as_ref().map(|known| known.hash));
            assert_eq!(self.store.remove(row), known.is_some());
            removed.extend(known.map(|known| (known.hash, row)));
        }
        self.index.remove(&mut removed);
    }

    fn compact(&mut self) {
        let mut moves = self.store.compact(self.store.end()).unwrap();
        for (hash, old, new) in &moves {
            assert_eq!(self.model[old].hash, *hash);
            assert!(new < old);
        }
        let by_old: HashMap<RowRef, RowRef> = moves.iter().map(|(_, old, new)| (*old, *new)).collect();
        let model = std::mem::take(&mut self.model);
        let ids: Vec<i64> = model.values().map(|known| known.id).collect();
        for (old, known) in model {
            let new = by_old.get(&old).copied().unwrap_or(old);
            assert_eq!(self.model.insert(new, known), None);
        }
        assert!(self.model.values().map(|known| known.id).eq(ids), "the order stays");
        self.index.moved(&mut moves);
    }

    /// Restores the state of `old` workers at `new` ones, and gathers it again.
    fn restore(&mut self, old: usize, new: usize) {
        let parts: Vec<_> = (0..old)
            .map(|worker| {
                let range = KeyGroupRange::of_worker(worker, old, 256);
                let mut part = RowStore::new(schema()).with_due();
                part.restore(&captured(&self.store, all_groups()), "rows", range)
                    .unwrap();
                captured(&part, range)
            })
            .collect();
        let parts = parts.concat();
        let mut store = RowStore::new(schema()).with_due();
        let mut rows = 0;
        for worker in 0..new {
            let range = KeyGroupRange::of_worker(worker, new, 256);
            let mut part = RowStore::new(schema()).with_due();
            part.restore(&parts, "rows", range).unwrap();
            part.restore(&parts, "other", range).unwrap();
            rows += part.len();
            store.restore(&captured(&part, range), "rows", all_groups()).unwrap();
        }
        assert_eq!(rows, self.model.len());
        // In the order of the workers now, but those of one hash as they were.
        let mut by_id: HashMap<i64, Known> = self.model.values().map(|known| (known.id, known.clone())).collect();
        self.model.clear();
        self.index = RowIndex::default();
        self.store = store;
        let refs: Vec<RowRef> = self
            .store
            .hashes_from(RowRef::FIRST)
            .flat_map(|(first, hashes)| (0..hashes.len()).map(move |row| first.plus(row)))
            .collect();
        let ids = self.store.gather(&refs, &[0]).unwrap();
        for (row, id) in refs.iter().zip(ids[0].as_primitive::<Int64Type>().values()) {
            let known = by_id.remove(id).unwrap();
            self.index.insert(known.hash, *row);
            self.model.insert(*row, known);
        }
        assert!(by_id.is_empty());
    }

    fn check(&self, pairs_max: usize) {
        assert_eq!(self.store.len(), self.model.len());
        // Rows in an odd order, some of them twice.
        let mut refs: Vec<RowRef> = self.model.keys().copied().collect();
        refs.reverse();
        refs.extend_from_within(..refs.len() / 3);
        let ids: Vec<i64> = refs.iter().map(|row| self.model[row].id).collect();
        let expected = batch(&ids);
        let gathered = self.store.gather(&refs, &[1, 0]).unwrap();
        assert_eq!(&gathered[0], expected.column(1));
        assert_eq!(&gathered[1], expected.column(0));
        for (row, known) in &self.model {
            assert!(self.store.contains(*row));
            assert_eq!(self.store.is_marked(*row), known.is_marked);
        }
        let mut by_hash: BTreeMap<u64, Vec<(i64, RowRef)>> = BTreeMap::new();
        for (row, known) in &self.model {
            by_hash.entry(known.hash).or_default().push((known.id, *row));
        }
        let probed: Vec<u64> = (0..40).map(hash_of_key).collect();
        let (mut rows, mut found) = (Vec::new(), Vec::new());
        let mut from = Some(ProbeFrom::default());
        while let Some(next) = from {
            let before = rows.len();
            from = self.index.candidates(&probed, next, pairs_max, &mut rows, &mut found);
            assert!(rows.len() - before <= pairs_max);
        }
        let mut expected = Vec::new();
        for (row, hash) in probed.iter().enumerate() {
            let mut of_hash = by_hash.get(hash).cloned().unwrap_or_default();
            of_hash.sort_unstable();
            assert!(self.index.rows_of(*hash).eq(of_hash.iter().map(|(_, place)| *place)));
            expected.extend(of_hash.into_iter().map(|(_, place)| (row as u32, place)));
        }
        let pairs: Vec<(u32, RowRef)> = rows.into_iter().zip(found).collect();
        assert_eq!(pairs, expected);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append {
        rows: usize,
        keys: u64,
    },
    /// Removes the rows whose number modulo `of` is not 0.
    Remove {
        of: i64,
    },
    RemoveDue {
        until_ms: i64,
    },
    Mark {
        of: i64,
    },
    Compact,
    Restore {
        old: usize,
        new: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let keys = prop_oneof![Just(1u64), Just(5), Just(37), Just(10_000)];
    prop_oneof![
        4 => (prop_oneof![1usize..40, 3_000usize..9_000], keys).prop_map(|(rows, keys)| Step::Append { rows, keys }),
        2 => (2i64..9).prop_map(|of| Step::Remove { of }),
        1 => (0i64..1000).prop_map(|until_ms| Step::RemoveDue { until_ms }),
        1 => (2i64..5).prop_map(|of| Step::Mark { of }),
        2 => Just(Step::Compact),
        1 => (1usize..4, 1usize..4).prop_map(|(old, new)| Step::Restore { old, new }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn rows_are_what_a_map_would_hold(steps in prop::collection::vec(step(), 1..14), pairs_max in 1usize..5000) {
        let mut pair = Pair::new();
        for step in steps {
            match step {
                Step::Append { rows, keys } => pair.append(rows, keys),
                Step::Remove { of } => {
                    let gone = pair.model.iter().filter(|(_, known)| known.id % of != 0).map(|(row, _)| *row).collect();
                    pair.remove(gone);
                }
                Step::RemoveDue { until_ms } => {
                    let mut due = Vec::new();
                    pair.store.take_due(until_ms, &mut due);
                    let expected: Vec<RowRef> =
                        pair.model.iter().filter(|(_, known)| known.due_ms <= until_ms).map(|(row, _)| *row).collect();
                    prop_assert_eq!(&due, &expected);
                    pair.remove(due);
                    let mut again = Vec::new();
                    pair.store.take_due(until_ms, &mut again);
                    prop_assert!(again.is_empty());
                }
                Step::Mark { of } => {
                    for (row, known) in &mut pair.model {
                        if known.id % of == 0 {
                            prop_assert_eq!(pair.store.mark(*row), !known.is_marked);
                            known.is_marked = true;
                        }
                    }
                }
                Step::Compact => pair.compact(),
                Step::Restore { old, new } => pair.restore(old, new),
            }
            pair.check(pairs_max);
        }
    }
}

#[test]
fn sparse_chunks_are_put_together() {
    let mut pair = Pair::new();
    for _ in 0..8 {
        pair.append(CHUNK_ROWS, 1000);
    }
    let full = pair.store.size();
    let gone = pair
        .model
        .iter()
        .filter(|(_, known)| known.id % 20 != 0)
        .map(|(row, _)| *row);
    let gone = gone.collect();
    pair.remove(gone);
    pair.compact();
    pair.check(100);
    assert!(pair.store.size() < full / 8, "{} of {full}", pair.store.size());
    let last = pair.model.keys().next_back().copied();
    pair.append(5, 10);
    assert!(pair.model.keys().next_back() > last.as_ref());
}

fn captured(store: &RowStore, key_groups: KeyGroupRange) -> Vec<StateSection> {
    let sections = store.capture("rows", key_groups).into_iter();
    sections.map(|section| section.encode().unwrap()).collect()
}

#[test]
fn many_chunks_are_several_sections() {
    let mut store = RowStore::new(schema());
    let rows = super::CHUNK_ROWS * 10;
    let hashes: Vec<u64> = (0..rows as u64).collect();
    for start in (0..rows).step_by(super::CHUNK_ROWS) {
        let ids: Vec<i64> = (start..start + super::CHUNK_ROWS).map(|id| id as i64).collect();
        let keys = RowKeys {
            hashes: &hashes[start..start + super::CHUNK_ROWS],
            due: None,
        };
        store.append(&batch(&ids), keys).unwrap();
    }
    let sections = store.capture("rows", all_groups());
    assert_eq!(sections.len(), 2);
    // What happens to the store behind the capture is not in it.
    let place = store.hashes_from(RowRef::FIRST).next().unwrap().0;
    assert!(store.remove(place));
    let sections: Vec<_> = sections.into_iter().map(|section| section.encode().unwrap()).collect();
    let mut restored = RowStore::new(schema());
    restored.restore(&sections, "rows", all_groups()).unwrap();
    assert_eq!((store.len(), restored.len()), (rows - 1, rows));
}

#[test]
fn kept_text_shares_no_buffer_with_large_batches() {
    let mut store = RowStore::new(schema());
    let large = batch(&(1..20_000).collect::<Vec<_>>());
    for row in 0..2_000 {
        let keys = RowKeys {
            hashes: &[1],
            due: None,
        };
        store.append(&large.slice(row, 1), keys).unwrap();
    }
    let whole = large.get_array_memory_size();
    // At most seven pieces of each size are not put together, and those hold what they came with.
    assert!(store.size() < whole * 8, "{} of {whole}", store.size());
    let state: usize = captured(&store, all_groups())
        .iter()
        .map(|section| section.bytes.len())
        .sum();
    assert!(state < whole / 4, "{state} of {whole}");
}

#[test]
fn rows_of_another_schema_are_refused_on_restore() {
    let mut store = RowStore::new(schema());
    let keys = RowKeys {
        hashes: &[1, 2],
        due: None,
    };
    store.append(&batch(&[1, 2]), keys).unwrap();
    let state = captured(&store, all_groups());
    let other = Arc::new(Schema::new(vec![Field::new("price", DataType::Int64, true)]));
    let error = RowStore::new(other).restore(&state, "rows", all_groups());
    assert!(error.unwrap_err().to_string().contains("no column price"));
    let with_due = RowStore::new(schema()).with_due().restore(&state, "rows", all_groups());
    assert!(with_due.unwrap_err().to_string().contains("__due"));
}

#[test]
fn rows_that_come_and_go_behind_one_that_stays_take_few_chunks() {
    let mut store = RowStore::new(schema());
    let ids: Vec<i64> = (0..CHUNK_ROWS as i64).collect();
    let hashes: Vec<u64> = vec![1; CHUNK_ROWS];
    let keys = |rows: usize| RowKeys {
        hashes: &hashes[..rows],
        due: None,
    };
    let first = store.append(&batch(&ids), keys(CHUNK_ROWS)).unwrap();
    (1..CHUNK_ROWS).for_each(|row| assert!(store.remove(first.plus(row))));
    let ten = batch(&ids[..10]);
    let mut last = first;
    for _ in 0..4_000 {
        let place = store.append(&ten, keys(10)).unwrap();
        assert!(place > last, "no place is given twice");
        last = place;
        (0..10).for_each(|row| assert!(store.remove(place.plus(row))));
    }
    assert_eq!(store.len(), 1);
    assert!(store.chunks.len() <= 4, "{} chunks", store.chunks.len());
    let mut restored = RowStore::new(schema());
    let sections = captured(&store, all_groups());
    restored.restore(&sections, "rows", all_groups()).unwrap();
    assert_eq!(restored.len(), 1);
}
