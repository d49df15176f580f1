//! The durable form of kept rows: one section, an Arrow IPC stream in the order of the rows.
//!
//! | column | type | what |
//! |---|---|---|
//! | `__hash` | u64 | the hash of the row's key, which decides its key group |
//! | `__due` | i64 | when the row is due, in milliseconds; only in stores that know this |
//! | `__marked` | boolean | the row's mark |
//! | the others | | the row's columns, by name |
//!
//! A batch holds the rows of one chunk.

use super::chunk::concat_owned;
use super::{RowKeys, RowStore};
use crate::error::{Error, Result};
use crate::key::KeyGroupRange;
use crate::operator::StateSection;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, UInt64Array};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, UInt64Type};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use bytes::Bytes;
use std::sync::Arc;

const HASH: &str = "__hash";
const DUE: &str = "__due";
const MARKED: &str = "__marked";

impl RowStore {
    /// Encodes all rows as the section `name`.
    ///
    /// # Errors
    /// When arrow fails.
    pub(crate) fn capture(&self, name: &str, key_groups: KeyGroupRange) -> Result<StateSection> {
        let mut fields = vec![Arc::new(Field::new(HASH, DataType::UInt64, false))];
        if self.has_due {
            fields.push(Arc::new(Field::new(DUE, DataType::Int64, false)));
        }
        fields.push(Arc::new(Field::new(MARKED, DataType::Boolean, false)));
        let nullable = |field: &Arc<Field>| Arc::new(field.as_ref().clone().with_nullable(true));
        fields.extend(self.schema.fields().iter().map(nullable));
        let schema = Arc::new(Schema::new(fields));
        let mut writer = StreamWriter::try_new(Vec::new(), &schema)?;
        for (_, chunk) in self.live_chunks() {
            let (pieces, kept) = chunk.kept(|_| true)?;
            if kept.is_empty() {
                continue;
            }
            let hashes = kept.iter().map(|&row| chunk.hashes()[row]);
            let mut columns: Vec<ArrayRef> = vec![Arc::new(UInt64Array::from_iter_values(hashes))];
            if self.has_due {
                let due = kept.iter().map(|&row| chunk.due()[row]);
                columns.push(Arc::new(Int64Array::from_iter_values(due)));
            }
            let marked: Vec<bool> = kept.iter().map(|&row| chunk.is_marked(row)).collect();
            columns.push(Arc::new(BooleanArray::from(marked)));
            match pieces.as_slice() {
                [whole] if chunk.is_sealed() && kept.len() == chunk.rows() => columns.extend(whole.iter().cloned()),
                pieces => columns.extend(concat_owned(&pieces.iter().map(Vec::as_slice).collect::<Vec<_>>())?),
            }
            writer.write(&RecordBatch::try_new(Arc::clone(&schema), columns)?)?;
        }
        Ok(StateSection {
            name: name.to_owned(),
            key_groups: Some(key_groups),
            bytes: Bytes::from(writer.into_inner()?),
        })
    }

    /// Adds the rows of the sections `name` that belong to these key groups.
    ///
    /// # Errors
    /// When a section does not hold rows of this store.
    pub(crate) fn restore(&mut self, sections: &[StateSection], name: &str, key_groups: KeyGroupRange) -> Result<()> {
        for section in sections.iter().filter(|section| section.name == name) {
            for batch in StreamReader::try_new(section.bytes.as_ref(), None)? {
                self.restore_batch(&batch?, name, key_groups)?;
            }
        }
        Ok(())
    }

    fn restore_batch(&mut self, batch: &RecordBatch, name: &str, key_groups: KeyGroupRange) -> Result<()> {
        let changed = |column: &str| {
            Error::Checkpoint(format!(
                "the rows in state {name} have no column {column} of the type that the operator needs: the query has \
                 changed; start without this state (allow_non_restored_state) or restore the query"
            ))
            .permanent()
        };
        let hashes = batch
            .column_by_name(HASH)
            .and_then(|c| c.as_primitive_opt::<UInt64Type>());
        let hashes = hashes.ok_or_else(|| changed(HASH))?;
        let mine: BooleanArray = hashes
            .values()
            .iter()
            .map(|hash| Some(key_groups.contains_hash(*hash)))
            .collect();
        let batch = filter_record_batch(batch, &mine)?;
        let named = |column: &str| batch.column_by_name(column).ok_or_else(|| changed(column));
        let hashes = named(HASH)?.as_primitive::<UInt64Type>();
        let due = match self.has_due {
            true => Some(
                named(DUE)?
                    .as_primitive_opt::<Int64Type>()
                    .ok_or_else(|| changed(DUE))?,
            ),
            false => None,
        };
        let marked = named(MARKED)?.as_boolean_opt().ok_or_else(|| changed(MARKED))?;
        let mut columns = Vec::with_capacity(self.schema.fields().len());
        for field in self.schema.fields() {
            let column = named(field.name())?;
            if column.data_type() != field.data_type() {
                return Err(changed(field.name()));
            }
            columns.push(Arc::clone(column));
        }
        // What is stored may be null; the operator's own rows decide.
        let fields = self
            .schema
            .fields()
            .iter()
            .map(|f| f.as_ref().clone().with_nullable(true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let rows = RecordBatch::try_new(schema, columns)?;
        let keys = RowKeys {
            hashes: hashes.values(),
            due: due.map(|due| due.values().as_ref()),
        };
        let first = self.append(&rows, keys)?;
        for row in (0..marked.len()).filter(|&row| marked.value(row)) {
            self.mark(first.plus(row));
        }
        Ok(())
    }
}
