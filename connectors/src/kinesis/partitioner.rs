//! The partition keys of written records: `PARTITIONED BY` columns, else those of the primary key, or one key per worker, or
//! any.

use super::options::{KinesisOptions, PartitionerKind};
use crate::error::ConnectorError;
use crate::formats::time_text::TimestampStandard;
use crate::formats::values::{Shape, TextColumn};
use crate::table::TableDefinition;
use arrow::array::RecordBatch;
use tidemill_engine::sink::SinkContext;
use tidemill_engine::{Error, Result};
use tidemill_shards::limits::PARTITION_KEY_CHARS_MAX;

/// Makes partition keys.
pub(super) enum Partitioner {
    /// The values of columns, joined.
    Columns { indexes: Vec<usize>, delimiter: String },
    /// The same key for all records of the worker.
    Fixed(String),
    /// Another key for every record: a counter, mixed, so that keys spread over the shards.
    Random { next: u64 },
}

impl Partitioner {
    /// Checks that the partition columns can be written as text.
    ///
    /// # Errors
    /// When one cannot.
    pub(super) fn check(table: &TableDefinition, options: &KinesisOptions) -> Result<(), ConnectorError> {
        for name in columns(table, options) {
            let Ok(field) = table.schema.field_with_name(name) else {
                continue;
            };
            let empty = arrow::array::new_empty_array(field.data_type());
            if !TextColumn::new(&empty).is_ok_and(|column| column.shape() != Shape::Container) {
                let message = format!(
                    "the column {name} of the partition key has the type {}",
                    field.data_type()
                );
                return Err(ConnectorError::new(message).with_hint("partition by a column with a single value"));
            }
        }
        Ok(())
    }

    pub(super) fn new(table: &TableDefinition, options: &KinesisOptions, context: &SinkContext) -> Self {
        let columns = columns(table, options);
        if !columns.is_empty() {
            let index = |name: &String| table.schema.index_of(name).ok();
            let indexes = columns.iter().filter_map(index).collect();
            return Self::Columns {
                indexes,
                delimiter: options.partition_delimiter.clone(),
            };
        }
        match options.partitioner {
            Some(PartitionerKind::Fixed) => Self::Fixed(format!("worker-{}", context.worker)),
            Some(PartitionerKind::Random) | None => {
                // Another row of keys for each start and each worker.
                let start = context
                    .generation
                    .wrapping_mul(1 << 40)
                    .wrapping_add((context.worker as u64) << 32);
                Self::Random { next: start }
            }
        }
    }

    /// Returns the key of each row of a batch.
    ///
    /// # Errors
    /// When a key is empty or longer than a partition key can be.
    pub(super) fn keys(&mut self, batch: &RecordBatch) -> Result<Vec<String>> {
        let rows = batch.num_rows();
        match self {
            Self::Fixed(key) => Ok(vec![key.clone(); rows]),
            Self::Random { next } => {
                let keys = (0..rows as u64)
                    .map(|i| format!("{:016x}", spread(next.wrapping_add(i))))
                    .collect();
                *next = next.wrapping_add(rows as u64);
                Ok(keys)
            }
            Self::Columns { indexes, delimiter } => {
                let columns = indexes
                    .iter()
                    .map(|&i| TextColumn::new(batch.column(i)))
                    .collect::<Result<Vec<_>>>()?;
                let mut keys = Vec::with_capacity(rows);
                let mut key = Vec::new();
                for row in 0..rows {
                    key.clear();
                    for (i, column) in columns.iter().enumerate() {
                        if i > 0 {
                            key.extend_from_slice(delimiter.as_bytes());
                        }
                        if column.is_null(row) {
                            key.extend_from_slice(b"null");
                        } else {
                            column.write(row, TimestampStandard::Sql, &mut key);
                        }
                    }
                    let text = String::from_utf8_lossy(&key).into_owned();
                    let length = text.chars().count();
                    if !(1..=PARTITION_KEY_CHARS_MAX).contains(&length) {
                        return Err(Error::operator(format!(
                            "a partition key of the columns of PARTITIONED BY or PRIMARY KEY has {length} characters; it must have 1 to \
                             {PARTITION_KEY_CHARS_MAX}"
                        )));
                    }
                    keys.push(text);
                }
                Ok(keys)
            }
        }
    }
}

/// Returns the columns that make the partition key; none when something else does.
pub(super) fn columns<'a>(table: &'a TableDefinition, options: &KinesisOptions) -> &'a [String] {
    match options.partitioner {
        _ if !table.partition_keys.is_empty() => &table.partition_keys,
        None => &table.primary_key,
        Some(_) => &[],
    }
}

/// Mixes a counter so that neighbours have nothing in common: a bijection, so that keys do not repeat.
fn spread(counter: u64) -> u64 {
    let mut z = counter.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z ^ (z >> 31)
}
