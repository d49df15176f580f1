//! The metadata columns of a `kinesis` table: what the stream knows of a record.

use super::access::StreamRecord;
use crate::error::ConnectorError;
use crate::formats::assembler::{Layout, Origin};
use crate::table::TableDefinition;
use arrow::array::{Array, ArrayRef, Int64Builder, StringBuilder, TimestampMillisecondBuilder, make_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef};
use arrow::error::ArrowError;
use std::sync::Arc;

/// What a metadata column can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Metadata {
    Timestamp,
    ShardId,
    SequenceNumber,
    SubSequenceNumber,
    PartitionKey,
}

/// Flink's keys first; then ours, and the names that the Kinesis API has for the same.
const KEYS: [(&str, Metadata); 6] = [
    ("timestamp", Metadata::Timestamp),
    ("shard-id", Metadata::ShardId),
    ("sequence-number", Metadata::SequenceNumber),
    ("sub-sequence-number", Metadata::SubSequenceNumber),
    ("partition-key", Metadata::PartitionKey),
    ("approximate-arrival-timestamp", Metadata::Timestamp),
];

impl Metadata {
    /// Finds what a key means. `_` may stand for `-`, so that a column's name can be the key.
    fn of(key: &str) -> Option<Self> {
        let key = key.replace('_', "-");
        KEYS.iter()
            .find(|(name, _)| *name == key)
            .map(|(_, metadata)| *metadata)
    }

    /// Returns the SQL type.
    fn type_name(self) -> &'static str {
        match self {
            Self::Timestamp => "TIMESTAMP_LTZ(3)",
            Self::SubSequenceNumber => "BIGINT",
            _ => "STRING",
        }
    }

    fn fits(self, data_type: &DataType) -> bool {
        match self {
            Self::Timestamp => matches!(data_type, DataType::Timestamp(..)),
            Self::SubSequenceNumber => matches!(data_type, DataType::Int64),
            _ => matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View),
        }
    }
}

/// Checks the metadata columns of a table.
///
/// # Errors
/// When a key is not known, or a column has another type.
pub(super) fn check(table: &TableDefinition) -> Result<(), ConnectorError> {
    for column in &table.metadata_columns {
        let Ok(field) = table.schema.field_with_name(&column.column) else {
            continue;
        };
        let Some(metadata) = Metadata::of(&column.key) else {
            let message = format!("column {}: there is no metadata '{}'", column.column, column.key);
            let names = || KEYS.iter().map(|(name, _)| *name);
            return Err(match crate::options::closest(&column.key, names()) {
                Some(near) => ConnectorError::new(message).with_hint(format!("did you mean '{near}'?")),
                None => {
                    let names: Vec<&str> = names().collect();
                    ConnectorError::new(message).with_hint(format!("there are {}", names.join(", ")))
                }
            });
        };
        if !metadata.fits(field.data_type()) {
            return Err(ConnectorError::new(format!(
                "column {}: the metadata '{}' is {}",
                column.column,
                column.key,
                metadata.type_name()
            )));
        }
    }
    Ok(())
}

/// Builds the metadata columns that are wanted.
pub(super) struct MetadataBuilders {
    shard: String,
    timestamps: Option<TimestampMillisecondBuilder>,
    shard_ids: Option<StringBuilder>,
    sequence_numbers: Option<StringBuilder>,
    sub_sequence_numbers: Option<Int64Builder>,
    partition_keys: Option<StringBuilder>,
}

impl MetadataBuilders {
    pub(super) fn new(layout: &Layout, shard: &str) -> Self {
        let wanted: Vec<Metadata> = layout.metadata().filter_map(|(key, _)| Metadata::of(key)).collect();
        let text = |metadata| wanted.contains(&metadata).then(StringBuilder::new);
        Self {
            shard: shard.to_owned(),
            timestamps: wanted
                .contains(&Metadata::Timestamp)
                .then(TimestampMillisecondBuilder::new),
            shard_ids: text(Metadata::ShardId),
            sequence_numbers: text(Metadata::SequenceNumber),
            sub_sequence_numbers: wanted.contains(&Metadata::SubSequenceNumber).then(Int64Builder::new),
            partition_keys: text(Metadata::PartitionKey),
        }
    }

    /// Appends a row.
    #[inline]
    pub(super) fn append(&mut self, record: &StreamRecord, partition_key: &[u8], sub_sequence: u64) {
        if let Some(builder) = &mut self.timestamps {
            builder.append_value(i64::try_from(record.arrival_ms).unwrap_or(i64::MAX));
        }
        if let Some(builder) = &mut self.shard_ids {
            builder.append_value(&self.shard);
        }
        if let Some(builder) = &mut self.sequence_numbers {
            builder.append_value(record.sequence.to_string());
        }
        if let Some(builder) = &mut self.sub_sequence_numbers {
            builder.append_value(i64::try_from(sub_sequence).unwrap_or(i64::MAX));
        }
        if let Some(builder) = &mut self.partition_keys {
            // Whoever fetched or de-aggregated it has checked it.
            builder.append_value(std::str::from_utf8(partition_key).unwrap_or_default());
        }
    }

    /// Takes the rows out.
    pub(super) fn finish(&mut self) -> MetadataColumns {
        fn array(builder: Option<&mut StringBuilder>) -> Option<ArrayRef> {
            builder.map(|builder| Arc::new(builder.finish()) as ArrayRef)
        }
        MetadataColumns {
            timestamps: self.timestamps.as_mut().map(|b| Arc::new(b.finish()) as ArrayRef),
            shard_ids: array(self.shard_ids.as_mut()),
            sequence_numbers: array(self.sequence_numbers.as_mut()),
            sub_sequence_numbers: self
                .sub_sequence_numbers
                .as_mut()
                .map(|b| Arc::new(b.finish()) as ArrayRef),
            partition_keys: array(self.partition_keys.as_mut()),
        }
    }
}

/// The metadata columns of a batch.
pub(super) struct MetadataColumns {
    timestamps: Option<ArrayRef>,
    shard_ids: Option<ArrayRef>,
    sequence_numbers: Option<ArrayRef>,
    sub_sequence_numbers: Option<ArrayRef>,
    partition_keys: Option<ArrayRef>,
}

impl MetadataColumns {
    /// Returns a column in the type that the table has for it.
    ///
    /// # Errors
    /// When it was not asked for.
    pub(super) fn column(&self, origin: &Origin, field: &FieldRef) -> Result<ArrayRef, ArrowError> {
        let metadata = match origin {
            Origin::Metadata(key) => Metadata::of(key),
            _ => None,
        };
        let array = match metadata {
            Some(Metadata::Timestamp) => &self.timestamps,
            Some(Metadata::ShardId) => &self.shard_ids,
            Some(Metadata::SequenceNumber) => &self.sequence_numbers,
            Some(Metadata::SubSequenceNumber) => &self.sub_sequence_numbers,
            Some(Metadata::PartitionKey) => &self.partition_keys,
            None => &None,
        };
        let Some(array) = array else {
            return Err(ArrowError::SchemaError(format!(
                "column {} has no origin",
                field.name()
            )));
        };
        match field.data_type() {
            // A moment is the same number in every zone, so the zone is only put on: Arrow's cast would look its name up.
            DataType::Timestamp(unit, Some(_)) => {
                let plain = cast(array, &DataType::Timestamp(*unit, None))?;
                Ok(make_array(
                    plain
                        .to_data()
                        .into_builder()
                        .data_type(field.data_type().clone())
                        .build()?,
                ))
            }
            data_type => cast(array, data_type),
        }
    }
}
