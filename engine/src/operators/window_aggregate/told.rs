//! What was told of each group of a window, as bytes: compared to find out whether there is news, and decoded to take it
//! back.
//!
//! The durable form is the section `told`, an Arrow IPC stream with one row per group of a window, in the order of the windows'
//! ends and within a window in the order in which groups came; of sessions in the order in which these came.
//!
//! | column | |
//! |---|---|
//! | `__window_start`, `__window_end` | i64, milliseconds |
//! | `key.<i>.<column>` | as in the section `groups` ([`super::snapshot`]) |
//! | `told.<aggregate>` | the result that was told |

use super::Window;
use super::snapshot::{CHUNK_GROUPS, key_name, named};
use crate::error::{Error, Result};
use crate::key::{EncodedKeys, KeyDecoder, KeyGroupRange, encode_keys, key_hash};
use crate::operator::StateSection;
use crate::operators::group_table::GroupTable;
use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, Schema};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use arrow::row::{RowConverter, SortField};
use bytes::Bytes;
use std::sync::Arc;

const SECTION: &str = "told";

/// What was told of one window.
#[derive(Default)]
pub(super) struct Told {
    groups: GroupTable,
    /// By group; none for one that was numbered and not told yet.
    rows: Vec<Option<Box<[u8]>>>,
    bytes: usize,
}

impl Told {
    /// Returns the number of a key's group.
    pub(super) fn group(&mut self, hash: u64, key: &[u8]) -> u32 {
        let group = self.groups.group(hash, key);
        if group as usize == self.rows.len() {
            self.rows.push(None);
        }
        group
    }

    pub(super) fn key(&self, group: u32) -> &[u8] {
        self.groups.key(group)
    }

    /// Notes what is told of a group.
    pub(super) fn tell(&mut self, group: u32, row: &[u8]) -> News {
        let known = &mut self.rows[group as usize];
        if known.as_ref().is_some_and(|known| known.as_ref() == row) {
            return News::None;
        }
        self.bytes += row.len();
        match known.replace(row.into()) {
            Some(before) => {
                self.bytes -= before.len();
                News::InsteadOf(before)
            }
            None => News::First,
        }
    }

    /// Returns what was told: keys and rows.
    pub(super) fn rows(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let rows = self.rows.iter().enumerate();
        rows.filter_map(|(group, row)| Some((self.groups.key(group as u32), row.as_deref()?)))
    }

    pub(super) fn size(&self) -> usize {
        self.groups.size() + self.rows.capacity() * size_of::<Option<Box<[u8]>>>() + self.bytes
    }
}

/// What a result says.
pub(super) enum News {
    /// What was told before.
    None,
    /// Something of a group of which nothing was told.
    First,
    /// Something else than this.
    InsteadOf(Box<[u8]>),
}

/// Turns results into bytes and back.
pub(super) struct ToldRows {
    converter: RowConverter,
    fields: Vec<FieldRef>,
}

impl ToldRows {
    /// Makes it for results of these fields.
    pub(super) fn new(fields: &[FieldRef]) -> Result<Self> {
        let sorts = fields.iter().map(|field| SortField::new(field.data_type().clone()));
        Ok(Self {
            converter: RowConverter::new(sorts.collect())?,
            fields: fields.to_vec(),
        })
    }

    /// Returns the bytes of each row.
    pub(super) fn encode(&self, results: &[ArrayRef], rows: usize) -> Result<Vec<Box<[u8]>>> {
        if results.is_empty() {
            return Ok(vec![Box::default(); rows]);
        }
        let encoded = self.converter.convert_columns(results)?;
        Ok(encoded.iter().map(|row| row.as_ref().into()).collect())
    }

    /// Returns the columns of rows.
    pub(super) fn decode<'a>(&self, rows: impl Iterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>> {
        if self.fields.is_empty() {
            return Ok(Vec::new());
        }
        let parser = self.converter.parser();
        Ok(self.converter.convert_rows(rows.map(|row| parser.parse(row)))?)
    }

    /// Encodes what was told: windows, encoded keys and encoded rows.
    pub(super) fn capture<'a>(
        &self,
        told: impl Iterator<Item = (Window, &'a [u8], &'a [u8])>,
        key_fields: &[Field],
        decoder: &KeyDecoder,
        key_groups: KeyGroupRange,
    ) -> Result<StateSection> {
        let mut fields = vec![
            Field::new("__window_start", DataType::Int64, false),
            Field::new("__window_end", DataType::Int64, false),
        ];
        let keys = key_fields.iter().enumerate();
        fields.extend(keys.map(|(index, field)| Field::new(key_name(index, field), field.data_type().clone(), true)));
        let told_field = |field: &FieldRef| Field::new(told_name(field), field.data_type().clone(), true);
        fields.extend(self.fields.iter().map(told_field));
        let schema = Arc::new(Schema::new(fields));
        let mut writer = StreamWriter::try_new(Vec::new(), &schema)?;
        let mut told = told.peekable();
        while told.peek().is_some() {
            let chunk: Vec<_> = told.by_ref().take(CHUNK_GROUPS).collect();
            let bounds = |bound: fn(&Window) -> i64| Int64Array::from_iter_values(chunk.iter().map(|(w, ..)| bound(w)));
            let mut columns: Vec<ArrayRef> = vec![
                Arc::new(bounds(|window| window.start_ms)),
                Arc::new(bounds(|window| window.end_ms)),
            ];
            columns.extend(decoder.decode(chunk.iter().map(|(_, key, _)| *key))?);
            columns.extend(self.decode(chunk.iter().map(|(.., row)| *row))?);
            writer.write(&RecordBatch::try_new(Arc::clone(&schema), columns)?)?;
        }
        Ok(StateSection {
            name: SECTION.to_owned(),
            key_groups: Some(key_groups),
            bytes: Bytes::from(writer.into_inner()?),
        })
    }

    /// Gives what was told of the groups that belong to these key groups: window, hash and key, row.
    pub(super) fn restore(
        &self,
        sections: &[StateSection],
        key_fields: &[Field],
        key_groups: KeyGroupRange,
        told: &mut dyn FnMut(Window, (u64, &[u8]), &[u8]) -> Result<()>,
    ) -> Result<()> {
        for section in sections.iter().filter(|section| section.name == SECTION) {
            for batch in StreamReader::try_new(section.bytes.as_ref(), None)? {
                let batch = batch?;
                let column = |name: &str| named(&batch, name).cloned();
                let bound = |name: &str| -> Result<Vec<i64>> {
                    let column = column(name)?;
                    let values = column.as_primitive_opt::<Int64Type>();
                    let wrong = || Error::Checkpoint(format!("the column {name} of what was told has a wrong type"));
                    Ok(values.ok_or_else(wrong)?.values().to_vec())
                };
                let (starts, ends) = (bound("__window_start")?, bound("__window_end")?);
                let keys = key_fields.iter().enumerate();
                let keys = keys.map(|(index, field)| column(&key_name(index, field)));
                let keys = keys.collect::<Result<Vec<_>>>()?;
                let results = self.fields.iter().map(|field| column(&told_name(field)));
                let results = results.collect::<Result<Vec<_>>>()?;
                let rows = self.encode(&results, batch.num_rows())?;
                let mut encoded = EncodedKeys::default();
                encode_keys(&keys, batch.num_rows(), &mut encoded)?;
                for (row, bytes) in rows.iter().enumerate() {
                    let hash = key_hash(encoded.key(row));
                    if key_groups.contains_hash(hash) {
                        let (start_ms, end_ms) = (starts[row], ends[row]);
                        told(Window { end_ms, start_ms }, (hash, encoded.key(row)), bytes)?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn told_name(field: &Field) -> String {
    format!("told.{}", field.name())
}
