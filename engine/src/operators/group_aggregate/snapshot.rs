//! The durable form of groups: Arrow IPC streams, columns by name.
//!
//! | section | columns, one row per group or member |
//! |---|---|
//! | `groups` | `key.<i>.<column>`, `__rows` (i64, how many rows the group has; 1 where they are not counted), `__written_ms` (i64, when it was last touched; 0 where nothing is forgotten), `<aggregate>.<i>` for each state column |
//! | `set.<aggregate>` | `__group` (u32, a row of `groups`), `value`, and for each call over the set `passed.<aggregate>` (boolean, whether its filter let the value pass), or over what changes `count.<aggregate>` (i64): sets of `COUNT(DISTINCT ...)`, named by the first of their calls |
//! | `multiset.<aggregate>` | `__group` (u32, a row of `groups`), `value`, `count` (i64): `MIN` and `MAX` over what changes, and other functions that hold values; without `count` where each row counts once |
//!
//! What is captured while the stream stands still is columns and copies; they are encoded later.
//!
//! All sections of a worker carry the same key-group range, by which a restore matches them. Groups are written in the order
//! they came. A section is there also when it has no rows, and sets may have several of one name.

use super::distinct::FrozenSets;
use super::slots::Slot;
use super::{GroupAggregateOperator, NO_ROW, Slots, not_restorable};
use crate::aggregate::{AggregateCall, EncodedState};
use crate::error::{Error, Result};
use crate::key::{EncodedKeys, KeyDecoder, encode_keys, key_hash};
use crate::operator::{CapturedSection, StateSection};
use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, UInt32Type};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use bytes::Bytes;
use std::sync::Arc;

/// Groups per batch: a batch's text must stay far below the 2 GiB that one array can hold.
const CHUNK_GROUPS: usize = 1 << 16;

const GROUPS: &str = "groups";
const ROWS: &str = "__rows";
const WRITTEN: &str = "__written_ms";
const OWNER: &str = "__group";
const VALUE: &str = "value";
const COUNT: &str = "count";
const PASSED: &str = "passed";

fn key_name(index: usize, field: &Field) -> String {
    format!("key.{index}.{}", field.name())
}

fn state_name(call: &AggregateCall, index: usize) -> String {
    format!("{}.{index}", call.name)
}

fn set_name(call: &AggregateCall) -> String {
    format!("set.{}", call.name)
}

fn multiset_name(call: &AggregateCall) -> String {
    format!("multiset.{}", call.name)
}

/// A section's columns, by name.
type Columns = Vec<(String, ArrayRef)>;

/// A section being written; its schema is that of the first batch.
#[derive(Default)]
struct Section {
    writer: Option<StreamWriter<Vec<u8>>>,
}

impl Section {
    fn write(&mut self, columns: Columns) -> Result<()> {
        let fields = columns.iter();
        let fields = fields.map(|(name, column)| Field::new(name, column.data_type().clone(), true));
        let schema: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let columns = columns.into_iter().map(|(_, column)| column).collect();
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns)?;
        if self.writer.is_none() {
            self.writer = Some(StreamWriter::try_new(Vec::new(), &schema)?);
        }
        match &mut self.writer {
            Some(writer) => Ok(writer.write(&batch)?),
            None => Ok(()),
        }
    }

    fn finish(self) -> Result<Bytes> {
        Ok(match self.writer {
            Some(writer) => Bytes::from(writer.into_inner()?),
            None => Bytes::new(),
        })
    }
}

/// Captures all groups that live.
pub(super) fn capture(operator: &GroupAggregateOperator) -> Result<Vec<CapturedSection>> {
    let GroupAggregateOperator { groups, slots, ttl, .. } = operator;
    let live = groups.live();
    let mut of_groups: Vec<(Vec<u32>, Columns)> = Vec::new();
    let mut multisets: Vec<(usize, Vec<Columns>)> = Vec::new();
    let pieces = match live.is_empty() {
        true => vec![&live[..]],
        false => live.chunks(CHUNK_GROUPS).collect(),
    };
    for (piece, part) in pieces.into_iter().enumerate() {
        let first = (piece * CHUNK_GROUPS) as u32;
        let numbers = |number: &dyn Fn(u32) -> i64| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values(part.iter().map(|&group| number(group))))
        };
        let written = |group| ttl.as_ref().map_or(0, |ttl| ttl.written_ms(group));
        let mut columns = vec![
            (ROWS.to_owned(), numbers(&|group| groups.rows(group))),
            (WRITTEN.to_owned(), numbers(&written)),
        ];
        for (place, slot) in slots.slots.iter().enumerate() {
            let Slot::Single { call, accumulator } = slot else {
                continue;
            };
            let call = &slots.calls[*call];
            for EncodedState {
                owners,
                columns: states,
            } in accumulator.encode_pieces(part)?
            {
                let Some(owners) = owners else {
                    let states = states.into_iter().enumerate();
                    columns.extend(states.map(|(index, state)| (state_name(call, index), state)));
                    continue;
                };
                if states.is_empty() || states.len() > 2 {
                    return Err(Error::Internal(format!(
                        "the values of {} have counts or none",
                        call.name
                    )));
                }
                let owners = UInt32Array::from_iter_values(owners.into_iter().map(|owner| first + owner));
                if !multisets.iter().any(|(known, _)| *known == place) {
                    multisets.push((place, Vec::new()));
                }
                if let Some((_, pieces)) = multisets.iter_mut().find(|(known, _)| *known == place) {
                    let mut columns: Columns = vec![(OWNER.to_owned(), Arc::new(owners))];
                    let names = [VALUE, COUNT].map(str::to_owned);
                    columns.extend(names.into_iter().zip(states));
                    pieces.push(columns);
                }
            }
        }
        of_groups.push((part.to_vec(), columns));
    }
    let later = |name: String, encode: Box<dyn FnOnce() -> Result<Bytes> + Send>| {
        CapturedSection::later(name, Some(operator.context.key_groups), encode)
    };
    let mut sections = vec![later(GROUPS.to_owned(), encode_groups(operator, of_groups))];
    let mut places = vec![NO_ROW; groups.len()];
    for (place, &group) in live.iter().enumerate() {
        places[group as usize] = place as u32;
    }
    let places = Arc::new(places);
    for slot in &slots.slots {
        let Slot::Distinct { calls, sets } = slot else { continue };
        let of_set = calls.iter().map(|&call| slots.calls[call].name.clone());
        let of_set: Arc<Vec<String>> = Arc::new(of_set.collect());
        for part in sets.freeze() {
            let (places, of_set) = (Arc::clone(&places), Arc::clone(&of_set));
            let encode = move || encode_sets(&part, &places, &of_set);
            sections.push(later(set_name(&slots.calls[calls[0]]), Box::new(encode)));
        }
    }
    for (place, pieces) in multisets {
        if let Slot::Single { call, .. } = &slots.slots[place] {
            let encode = move || {
                let mut section = Section::default();
                pieces.into_iter().try_for_each(|columns| section.write(columns))?;
                section.finish()
            };
            sections.push(later(multiset_name(&slots.calls[*call]), Box::new(encode)));
        }
    }
    Ok(sections)
}

/// Returns what encodes groups: their numbers, and their columns but for the keys.
fn encode_groups(
    operator: &GroupAggregateOperator,
    pieces: Vec<(Vec<u32>, Columns)>,
) -> Box<dyn FnOnce() -> Result<Bytes> + Send> {
    let (keys, fields) = (operator.groups.keys().clone(), operator.key_fields.clone());
    Box::new(move || {
        let decoder = KeyDecoder::new(fields.iter().map(|field| field.data_type().clone()).collect());
        let mut section = Section::default();
        for (groups, others) in pieces {
            let of_groups = decoder.decode(groups.iter().map(|&group| keys.get(group)))?;
            let of_groups = fields.iter().zip(of_groups).enumerate();
            let columns = of_groups.map(|(index, (field, key))| (key_name(index, field), key));
            section.write(columns.chain(others).collect())?;
        }
        section.finish()
    })
}

fn encode_sets(sets: &FrozenSets, places: &[u32], calls: &[String]) -> Result<Bytes> {
    let mut section = Section::default();
    sets.encode(places, |members| {
        let mut columns: Columns = vec![
            (OWNER.to_owned(), Arc::new(UInt32Array::from(members.owners))),
            (VALUE.to_owned(), members.values),
        ];
        let passed = calls.iter().zip(members.passed);
        columns.extend(passed.map(|(call, passed)| match passed.data_type() {
            DataType::Boolean => (format!("{PASSED}.{call}"), passed),
            _ => (format!("{COUNT}.{call}"), passed),
        }));
        section.write(columns)
    })?;
    section.finish()
}

/// Returns what is stored of a call's filter.
fn passed_of(batch: &RecordBatch, call: &AggregateCall) -> Result<ArrayRef> {
    let passed = batch.column_by_name(&format!("{PASSED}.{}", call.name));
    match passed {
        Some(passed) => Ok(Arc::clone(passed)),
        None => named(batch, &format!("{COUNT}.{}", call.name)).cloned(),
    }
}

/// Adds the groups of the sections that belong to this worker.
pub(super) fn restore(operator: &mut GroupAggregateOperator, sections: &[StateSection]) -> Result<()> {
    for section in sections.iter().filter(|section| section.name == GROUPS) {
        // The number here of each group of the section; none if it is another worker's.
        let mut placed: Vec<u32> = Vec::new();
        for batch in StreamReader::try_new(section.bytes.as_ref(), None)? {
            restore_groups(operator, &batch?, &mut placed)?;
        }
        for place in 0..operator.slots.slots.len() {
            let Slots { calls, slots, .. } = &mut operator.slots;
            let name = match &slots[place] {
                Slot::Single { call, accumulator } if accumulator.encode(&[])?.owners.is_some() => {
                    multiset_name(&calls[*call])
                }
                Slot::Single { .. } => continue,
                Slot::Distinct { calls: of_set, .. } => set_name(&calls[of_set[0]]),
            };
            let same = |other: &&StateSection| other.name == name && other.key_groups == section.key_groups;
            let mut found = sections.iter().filter(same).peekable();
            if found.peek().is_none() {
                return Err(not_restorable(&name));
            }
            for section in found {
                for batch in StreamReader::try_new(section.bytes.as_ref(), None)? {
                    restore_members(calls, &mut slots[place], &batch?, &placed)?;
                }
            }
        }
    }
    Ok(())
}

fn named<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef> {
    let column = batch.column_by_name(name);
    column.ok_or_else(|| not_restorable(&format!("column {name}")))
}

fn numbers<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a Int64Array> {
    let wrong = || Error::Checkpoint(format!("the aggregation's state column {name} has a wrong type"));
    named(batch, name)?.as_primitive_opt::<Int64Type>().ok_or_else(wrong)
}

fn restore_groups(operator: &mut GroupAggregateOperator, batch: &RecordBatch, placed: &mut Vec<u32>) -> Result<()> {
    let fields = operator.key_fields.iter().enumerate();
    let keys = fields.map(|(index, field)| named(batch, &key_name(index, field)).cloned());
    let keys = keys.collect::<Result<Vec<_>>>()?;
    let mut encoded = EncodedKeys::default();
    encode_keys(&keys, batch.num_rows(), &mut encoded)?;
    let (counts, written) = (numbers(batch, ROWS)?, numbers(batch, WRITTEN)?);
    let (mut rows, mut here, mut times) = (Vec::new(), Vec::new(), Vec::new());
    for row in 0..batch.num_rows() {
        let hash = key_hash(encoded.key(row));
        if !operator.context.key_groups.contains_hash(hash) {
            placed.push(NO_ROW);
            continue;
        }
        let group = operator.groups.restore(hash, encoded.key(row), counts.value(row));
        placed.push(group);
        rows.push(row as u32);
        here.push(group);
        times.push((group, written.value(row)));
    }
    operator.slots.resize(operator.groups.len());
    if let Some(ttl) = &mut operator.ttl {
        ttl.resize(operator.groups.len());
        ttl.restore(times.into_iter());
    }
    let rows = UInt32Array::from(rows);
    let Slots { calls, slots, .. } = &mut operator.slots;
    for slot in slots {
        let Slot::Single { call, accumulator } = slot else {
            continue;
        };
        if accumulator.encode(&[])?.owners.is_some() {
            continue;
        }
        let call = &calls[*call];
        let mut columns = Vec::new();
        for index in 0..call.function.state_types().len() {
            columns.push(take(named(batch, &state_name(call, index))?, &rows, None)?);
        }
        accumulator.decode(&EncodedState { owners: None, columns }, &here)?;
    }
    Ok(())
}

fn restore_members(calls: &[AggregateCall], slot: &mut Slot, batch: &RecordBatch, placed: &[u32]) -> Result<()> {
    let wrong = || Error::Checkpoint("a member of a set belongs to no group".into());
    let owners = named(batch, OWNER)?
        .as_primitive_opt::<UInt32Type>()
        .ok_or_else(wrong)?;
    let places = owners.values().iter();
    let groups = places.map(|&owner| placed.get(owner as usize).copied().ok_or_else(wrong));
    let groups = groups.collect::<Result<Vec<u32>>>()?;
    let values = named(batch, VALUE)?;
    match slot {
        Slot::Distinct { calls: of_set, sets } => {
            let passed = of_set.iter().map(|&call| passed_of(batch, &calls[call]));
            sets.decode(values, &passed.collect::<Result<Vec<_>>>()?, &groups)
        }
        Slot::Single { accumulator, .. } => {
            let rows = groups.iter().zip(0u32..).filter(|(group, _)| **group != NO_ROW);
            let (here, rows): (Vec<u32>, Vec<u32>) = rows.map(|(group, row)| (*group, row)).unzip();
            let rows = UInt32Array::from(rows);
            let mut columns = vec![take(values, &rows, None)?];
            if let Some(counts) = batch.column_by_name(COUNT) {
                columns.push(take(counts, &rows, None)?);
            }
            let state = EncodedState {
                owners: Some((0..here.len() as u32).collect()),
                columns,
            };
            accumulator.decode(&state, &here)
        }
    }
}
