//! The durable form of open windows: Arrow IPC streams, columns by name.
//!
//! | section | columns, one row per group or member |
//! |---|---|
//! | `groups` | `__window_start`, `__window_end` (i64 ms), `key.<i>.<column>`, `<aggregate>.<i>` for each state column |
//! | `set.<aggregate>` | `__group` (u32, a row of `groups`), `value`: for functions whose state is a set; where a value may be there more than once, `count` (i64) |
//!
//! The schema of `groups` has the metadata `fired_end_ms`: windows that end there or before have fired. Panes of windows that
//! overlap stand in the place of windows.
//!
//! Both sections of a worker carry the same key-group range, by which a restore matches them. Groups are written window
//! by window in the order of their ends, and within a window in the order they came.

use super::Window;
use super::state::WindowState;
use crate::aggregate::{Accumulator, AggregateCall, EncodedState};
use crate::error::{Error, Result};
use crate::key::{EncodedKeys, KeyDecoder, KeyGroupRange, encode_keys, key_hash};
use crate::operator::StateSection;
use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, UInt32Type};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Groups per batch: a batch's text must stay far below the 2 GiB that one array can hold.
pub(super) const CHUNK_GROUPS: usize = 1 << 16;

/// The key of the schema's metadata; absent in states of before there were panes, which do not need it.
const FIRED_END: &str = "fired_end_ms";

/// The columns of a set behind the owner.
const SET_COLUMNS: [&str; 2] = ["value", "count"];

pub(super) fn key_name(index: usize, field: &Field) -> String {
    format!("key.{index}.{}", field.name())
}

fn set_name(call: &AggregateCall) -> String {
    format!("set.{}", call.name)
}

fn state_name(call: &AggregateCall, index: usize) -> String {
    format!("{}.{index}", call.name)
}

/// Some groups to encode.
pub(super) struct Chunk<'a> {
    /// The window of each.
    pub(super) windows: Vec<Window>,
    /// The key of each.
    pub(super) keys: Vec<&'a [u8]>,
    pub(super) accumulators: &'a [Box<dyn Accumulator>],
    /// Their numbers in the accumulators.
    pub(super) groups: Vec<u32>,
}

/// Where restored groups go.
pub(super) trait Restored {
    /// Makes a group; returns a name of the accumulators it is in and its number there.
    fn place(&mut self, window: Window, hash: u64, key: &[u8]) -> (Window, u32);

    /// Returns accumulators by their name.
    fn accumulators(&mut self, name: Window) -> Option<&mut [Box<dyn Accumulator>]>;
}

/// Returns the chunks of open windows.
pub(super) fn chunks_of<'a>(open: impl Iterator<Item = (Window, &'a WindowState)>) -> impl Iterator<Item = Chunk<'a>> {
    open.flat_map(|(window, state)| {
        (0..state.len()).step_by(CHUNK_GROUPS).map(move |start| {
            let groups: Vec<u32> = (start as u32..(start + CHUNK_GROUPS).min(state.len()) as u32).collect();
            Chunk {
                windows: vec![window; groups.len()],
                keys: groups.iter().map(|&group| state.key(group)).collect(),
                accumulators: state.accumulators(),
                groups,
            }
        })
    })
}

/// Encodes all open windows.
pub(super) fn capture<'a>(
    fired_end_ms: i64,
    chunks: impl Iterator<Item = Chunk<'a>>,
    key_fields: &[Field],
    decoder: &KeyDecoder,
    aggregates: &[AggregateCall],
    key_groups: KeyGroupRange,
) -> Result<Vec<StateSection>> {
    let mut fields = vec![
        Field::new("__window_start", DataType::Int64, false),
        Field::new("__window_end", DataType::Int64, false),
    ];
    for (index, field) in key_fields.iter().enumerate() {
        fields.push(Field::new(key_name(index, field), field.data_type().clone(), true));
    }
    for call in aggregates {
        for (index, state) in call.function.state_types().into_iter().enumerate() {
            fields.push(Field::new(state_name(call, index), state, true));
        }
    }
    let fired = HashMap::from([(FIRED_END.to_owned(), fired_end_ms.to_string())]);
    let schema = Arc::new(Schema::new(fields).with_metadata(fired));
    let mut groups_out = StreamWriter::try_new(Vec::new(), &schema)?;
    let mut sets: Vec<Option<StreamWriter<Vec<u8>>>> = aggregates.iter().map(|_| None).collect();
    let mut first_row = 0u32;
    for chunk in chunks {
        let bounds = |bound: fn(&Window) -> i64| Int64Array::from_iter_values(chunk.windows.iter().map(bound));
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(bounds(|window| window.start_ms)),
            Arc::new(bounds(|window| window.end_ms)),
        ];
        columns.extend(decoder.decode(chunk.keys.iter().copied())?);
        for (function, (call, set)) in aggregates.iter().zip(&mut sets).enumerate() {
            for encoded in chunk.accumulators[function].encode_pieces(&chunk.groups)? {
                let Some(owners) = encoded.owners else {
                    columns.extend(encoded.columns);
                    continue;
                };
                if encoded.columns.is_empty() || encoded.columns.len() > SET_COLUMNS.len() {
                    return Err(Error::Internal(format!(
                        "the values of {} have counts or none",
                        call.name
                    )));
                }
                let mut fields = vec![Field::new("__group", DataType::UInt32, false)];
                let named = SET_COLUMNS.into_iter().zip(&encoded.columns);
                fields.extend(named.map(|(name, column)| Field::new(name, column.data_type().clone(), true)));
                let set_schema = Arc::new(Schema::new(fields));
                let owners = UInt32Array::from_iter_values(owners.into_iter().map(|owner| first_row + owner));
                let mut columns: Vec<ArrayRef> = vec![Arc::new(owners)];
                columns.extend(encoded.columns);
                let batch = RecordBatch::try_new(Arc::clone(&set_schema), columns)?;
                if set.is_none() {
                    *set = Some(StreamWriter::try_new(Vec::new(), &set_schema)?);
                }
                if let Some(writer) = set {
                    writer.write(&batch)?;
                }
            }
        }
        groups_out.write(&RecordBatch::try_new(Arc::clone(&schema), columns)?)?;
        first_row += chunk.groups.len() as u32;
    }
    let section = |name: String, writer: StreamWriter<Vec<u8>>| -> Result<StateSection> {
        Ok(StateSection {
            name,
            key_groups: Some(key_groups),
            bytes: Bytes::from(writer.into_inner()?),
        })
    };
    let mut sections = vec![section("groups".to_owned(), groups_out)?];
    for (call, set) in aggregates.iter().zip(sets) {
        if let Some(writer) = set {
            sections.push(section(set_name(call), writer)?);
        }
    }
    Ok(sections)
}

/// Adds the groups of the sections that belong to these key groups; returns the end up to which windows have fired.
pub(super) fn restore(
    sections: &[StateSection],
    open: &mut dyn Restored,
    key_fields: &[Field],
    aggregates: &[AggregateCall],
    key_groups: KeyGroupRange,
) -> Result<i64> {
    let mut fired_end_ms = i64::MIN;
    for groups_section in sections.iter().filter(|section| section.name == "groups") {
        // Where each group of the section went: its window and its group there; none if it is another worker's.
        let mut placed: Vec<Option<(Window, u32)>> = Vec::new();
        let reader = StreamReader::try_new(groups_section.bytes.as_ref(), None)?;
        if let Some(text) = reader.schema().metadata().get(FIRED_END) {
            let known = text.parse::<i64>();
            let known =
                known.map_err(|_| Error::Checkpoint(format!("the window aggregation fired up to {text:?}?")))?;
            fired_end_ms = fired_end_ms.max(known);
        }
        for batch in reader {
            restore_groups(&batch?, open, key_fields, aggregates, key_groups, &mut placed)?;
        }
        for (function, call) in aggregates.iter().enumerate() {
            if !call.function.state_types().is_empty() {
                continue;
            }
            let same = |s: &&StateSection| s.name == set_name(call) && s.key_groups == groups_section.key_groups;
            for section in sections.iter().filter(same) {
                for batch in StreamReader::try_new(section.bytes.as_ref(), None)? {
                    restore_set(&batch?, open, function, &placed)?;
                }
            }
        }
    }
    Ok(fired_end_ms)
}

pub(super) fn named<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef> {
    batch.column_by_name(name).ok_or_else(|| {
        Error::Checkpoint(format!(
            "the window aggregation's state has no column {name}: the query has changed; start without this state \
             (allow_non_restored_state) or restore the query"
        ))
        .permanent()
    })
}

fn restore_groups(
    batch: &RecordBatch,
    open: &mut dyn Restored,
    key_fields: &[Field],
    aggregates: &[AggregateCall],
    key_groups: KeyGroupRange,
    placed: &mut Vec<Option<(Window, u32)>>,
) -> Result<()> {
    let wrong =
        |name: &str| Error::Checkpoint(format!("the window aggregation's state column {name} has a wrong type"));
    let keys = key_fields
        .iter()
        .enumerate()
        .map(|(index, field)| named(batch, &key_name(index, field)).cloned())
        .collect::<Result<Vec<_>>>()?;
    let start = named(batch, "__window_start")?;
    let end = named(batch, "__window_end")?;
    let start = start
        .as_primitive_opt::<Int64Type>()
        .ok_or_else(|| wrong("__window_start"))?;
    let end = end
        .as_primitive_opt::<Int64Type>()
        .ok_or_else(|| wrong("__window_end"))?;
    let mut encoded = EncodedKeys::default();
    encode_keys(&keys, batch.num_rows(), &mut encoded)?;
    let first = placed.len();
    // A batch holds groups of one window.
    let mut rows = Vec::new();
    let mut groups = Vec::new();
    let mut window = None;
    for row in 0..batch.num_rows() {
        let hash = key_hash(encoded.key(row));
        if !key_groups.contains_hash(hash) {
            placed.push(None);
            continue;
        }
        let of_row = Window {
            end_ms: end.value(row),
            start_ms: start.value(row),
        };
        let (name, group) = open.place(of_row, hash, encoded.key(row));
        if *window.get_or_insert(name) != name {
            return Err(Error::Checkpoint(
                "the window aggregation's state mixes windows in one batch".into(),
            ));
        }
        placed.push(Some((name, group)));
        rows.push((placed.len() - 1 - first) as u32);
        groups.push(group);
    }
    let Some(state) = window.and_then(|window| open.accumulators(window)) else {
        return Ok(());
    };
    let rows = UInt32Array::from(rows);
    for (function, call) in aggregates.iter().enumerate() {
        let states = call.function.state_types().len();
        if states == 0 {
            continue;
        }
        let mut columns = Vec::with_capacity(states);
        for index in 0..states {
            columns.push(arrow::compute::take(
                named(batch, &state_name(call, index))?,
                &rows,
                None,
            )?);
        }
        state[function].decode(&EncodedState { owners: None, columns }, &groups)?;
    }
    Ok(())
}

fn restore_set(
    batch: &RecordBatch,
    open: &mut dyn Restored,
    function: usize,
    placed: &[Option<(Window, u32)>],
) -> Result<()> {
    let owners = named(batch, "__group")?
        .as_primitive_opt::<UInt32Type>()
        .ok_or_else(|| Error::Checkpoint("the window aggregation's set has a wrong owner column".into()))?;
    let mut values = vec![named(batch, SET_COLUMNS[0])?];
    values.extend(batch.column_by_name(SET_COLUMNS[1]));
    let mut by_window: BTreeMap<Window, (Vec<u32>, Vec<u32>)> = BTreeMap::new();
    for row in 0..owners.len() {
        match placed.get(owners.value(row) as usize) {
            Some(Some((window, group))) => {
                let (rows, groups) = by_window.entry(*window).or_default();
                rows.push(row as u32);
                groups.push(*group);
            }
            Some(None) => {}
            None => return Err(Error::Checkpoint("a member of a set belongs to no group".into())),
        }
    }
    for (window, (rows, groups)) in by_window {
        let rows = UInt32Array::from(rows);
        let columns = values.iter().map(|values| arrow::compute::take(values, &rows, None));
        let columns = columns.collect::<std::result::Result<Vec<_>, _>>()?;
        let owners = (0..groups.len() as u32).collect();
        if let Some(state) = open.accumulators(window) {
            state[function].decode(
                &EncodedState {
                    owners: Some(owners),
                    columns,
                },
                &groups,
            )?;
        }
    }
    Ok(())
}
