//! Columns whose values stand in a file's path: `PARTITIONED BY` columns as `key=value` folders, and file metadata.

use super::options::FileOptions;
use crate::error::ConnectorError;
use crate::formats::assembler::{Origin, repeat};
use crate::formats::columns::{ColumnBuilder, TextOptions};
use crate::formats::time_text::TimestampStandard;
use crate::formats::values::{Shape, TextColumn};
use crate::table::TableDefinition;
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, UInt32Array};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::FieldRef;
use arrow::error::ArrowError;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use tidemill_engine::Result;

/// The values that all rows of a file have in common, by column.
#[derive(Clone, Debug)]
pub(super) struct Constants(HashMap<String, ArrayRef>);

impl Constants {
    /// Checks that the partition columns can stand in a path.
    ///
    /// # Errors
    /// When one cannot.
    pub(super) fn check(table: &TableDefinition) -> Result<(), ConnectorError> {
        for name in &table.partition_keys {
            let Ok(field) = table.schema.field_with_name(name) else {
                continue;
            };
            let message = format!("the PARTITIONED BY column {name} has the type {}", field.data_type());
            ColumnBuilder::new(&Arc::new(field.clone()), TextOptions::default())?;
            let empty = arrow::array::new_empty_array(field.data_type());
            if !TextColumn::new(&empty).is_ok_and(|column| column.shape() != Shape::Container) {
                return Err(ConnectorError::new(message).with_hint("partition by a column with a single value"));
            }
        }
        if table.partition_keys.len() == table.schema.fields().len() {
            return Err(ConnectorError::new(
                "all columns are in PARTITIONED BY; nothing is left for the files",
            ));
        }
        Ok(())
    }

    /// Takes the values from a file's path.
    pub(super) fn of_file(
        table: &TableDefinition,
        options: &FileOptions,
        path: &Path,
        size: u64,
    ) -> Result<Self, String> {
        let mut values = HashMap::new();
        for name in &table.partition_keys {
            let field = table.schema.field_with_name(name).map_err(|error| error.to_string())?;
            let key = format!("{}=", escape(name));
            let folder = |part: &std::ffi::OsStr| Some(part.to_str()?.strip_prefix(&key)?.to_owned());
            let text = path.iter().rev().find_map(folder);
            let text =
                text.ok_or_else(|| format!("{} is in no folder {name}=..., a partition column", path.display()))?;
            let mut column =
                ColumnBuilder::new(&Arc::new(field.clone()), TextOptions::default()).map_err(|e| e.to_string())?;
            let appended = if text == options.partition_default {
                column.append_null()
            } else {
                column.append_text(&unescape(&text))
            };
            appended.map_err(|error| format!("{}: folder {name}={text}: {error}", path.display()))?;
            values.insert(name.clone(), column.finish().map_err(|error| error.to_string())?);
        }
        for metadata in &table.metadata_columns {
            let field = table
                .schema
                .field_with_name(&metadata.column)
                .map_err(|error| error.to_string())?;
            let text = |value: &str| Arc::new(StringArray::from(vec![value])) as ArrayRef;
            let array = match metadata.key.as_str() {
                "file.size" => Arc::new(Int64Array::from(vec![i64::try_from(size).unwrap_or(i64::MAX)])),
                "file.name" => text(&path.file_name().unwrap_or_default().to_string_lossy()),
                _ => text(&path.to_string_lossy()),
            };
            values.insert(
                metadata.column.clone(),
                cast(&array, field.data_type()).map_err(|error| error.to_string())?,
            );
        }
        Ok(Self(values))
    }

    /// Returns a column of `rows` rows.
    pub(super) fn column(&self, _origin: &Origin, field: &FieldRef, rows: usize) -> Result<ArrayRef, ArrowError> {
        let value = self.0.get(field.name());
        let value = value.ok_or_else(|| ArrowError::SchemaError(format!("column {} has no origin", field.name())))?;
        repeat(value, rows)
    }
}

/// Sorts the rows of a batch into folders.
pub(super) struct Folders {
    /// The names and indexes of the partition columns.
    keys: Vec<(String, usize)>,
    /// The indexes of the others.
    rest: Vec<usize>,
    default: String,
}

impl Folders {
    pub(super) fn new(table: &TableDefinition, options: &FileOptions) -> Self {
        let index = |name: &String| Some((name.clone(), table.schema.index_of(name).ok()?));
        let keys: Vec<_> = table.partition_keys.iter().filter_map(index).collect();
        let is_key = |i: &usize| keys.iter().any(|(_, key)| key == i);
        let rest = (0..table.schema.fields().len()).filter(|i| !is_key(i)).collect();
        Self {
            keys,
            rest,
            default: options.partition_default.clone(),
        }
    }

    /// Returns the rows of each folder, with the columns that stand in files. The folder is empty, or ends with `/`.
    pub(super) fn split(&self, batch: &RecordBatch) -> Result<Vec<(String, RecordBatch)>> {
        if self.keys.is_empty() {
            return Ok(vec![(String::new(), batch.clone())]);
        }
        let columns = self
            .keys
            .iter()
            .map(|(_, i)| TextColumn::new(batch.column(*i)))
            .collect::<Result<Vec<_>>>()?;
        let mut rows: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        let mut value = Vec::new();
        for row in 0..batch.num_rows() {
            let mut folder = String::new();
            for ((name, _), column) in self.keys.iter().zip(&columns) {
                value.clear();
                if !column.is_null(row) {
                    column.write(row, TimestampStandard::Sql, &mut value);
                }
                let text = String::from_utf8_lossy(&value);
                // An empty text has no folder's name either.
                let text = if value.is_empty() {
                    self.default.clone()
                } else {
                    escape(&text)
                };
                let _ = write!(folder, "{}={text}/", escape(name));
            }
            rows.entry(folder)
                .or_default()
                .push(u32::try_from(row).unwrap_or(u32::MAX));
        }
        let rest = batch.project(&self.rest)?;
        let part =
            |(folder, rows): (String, Vec<u32>)| Ok((folder, take_record_batch(&rest, &UInt32Array::from(rows))?));
        rows.into_iter().map(part).collect()
    }
}

/// Writes what cannot stand in a folder's name as `%` and two hexadecimal digits, as Hive and Flink do.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let plain = !c.is_ascii_control() && !"\"#%'*/:=?\\{}[]^".contains(c);
        // A folder `.` or `..` would lead elsewhere, and one that begins with a dot would not be read.
        if plain && !(c == '.' && out.is_empty()) {
            out.push(c);
        } else {
            let _ = write!(out, "%{:02X}", u32::from(c));
        }
    }
    out
}

fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        match rest
            .get(at + 1..at + 3)
            .and_then(|digits| u8::from_str_radix(digits, 16).ok())
        {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[at + 3..];
            }
            None => {
                bytes.push(b'%');
                rest = &rest[at + 1..];
            }
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn escaped_names_are_harmless_and_come_back(text: String) {
            let escaped = escape(&text);
            prop_assert!(!escaped.contains('/') && !escaped.contains('\0') && !escaped.starts_with('.'));
            prop_assert_eq!(unescape(&escaped), text);
        }
    }
}
