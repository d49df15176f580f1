//! A table as its `CREATE TABLE` says it.

use crate::error::ConnectorError;
use arrow::datatypes::{Field, Schema, SchemaRef};
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemill_engine::graph::weight_of;

/// A column that the connector fills from what it knows about a record, and not from the record's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataColumn {
    /// The column's name; it is a column of the table's schema.
    pub column: String,
    /// What to fill it with: a key of the connector, such as `sequence-number`.
    pub key: String,
}

/// A table's physical side: its columns and the options of its connector.
#[derive(Clone, Debug)]
pub struct TableDefinition {
    /// The table's name, for messages.
    pub name: String,
    /// The physical columns in order; computed columns are the planner's. For a sink that is to take the changes of a
    /// result, [`tidemill_engine::graph::WEIGHT`] is behind them.
    pub schema: SchemaRef,
    /// Those of the columns that the connector fills.
    pub metadata_columns: Vec<MetadataColumn>,
    /// The `WITH` options, `connector` and `format` included.
    pub options: BTreeMap<String, String>,
    /// The columns of `PARTITIONED BY`, in order.
    pub partition_keys: Vec<String>,
    /// The columns of `PRIMARY KEY`, in order.
    pub primary_key: Vec<String>,
}

impl TableDefinition {
    /// Returns the index of the weight in the rows that the table is written with; `None` when rows are only added.
    #[must_use]
    pub fn weight(&self) -> Option<usize> {
        weight_of(&self.schema)
    }

    /// Returns the schema of some of the columns, in the order given.
    ///
    /// # Errors
    /// When an index is beyond the schema.
    pub(crate) fn project(&self, projection: &[usize]) -> Result<SchemaRef, ConnectorError> {
        let schema = self.schema.project(projection);
        let schema = schema.map_err(|e| ConnectorError::new(format!("the projection of table {}: {e}", self.name)))?;
        Ok(Arc::new(schema))
    }

    /// Returns the metadata key of a column, if the connector fills it.
    pub(crate) fn metadata_key(&self, column: &str) -> Option<&str> {
        self.metadata_columns
            .iter()
            .find(|m| m.column == column)
            .map(|m| m.key.as_str())
    }

    /// Returns the columns that are in a record's bytes: neither metadata nor, with `without_partitions`, partition
    /// keys.
    pub(crate) fn record_schema(&self, partitions: PartitionColumns) -> SchemaRef {
        let in_record = |field: &&Arc<Field>| {
            self.metadata_key(field.name()).is_none()
                && (partitions == PartitionColumns::InRecord || !self.partition_keys.contains(field.name()))
        };
        Arc::new(Schema::new(
            self.schema
                .fields()
                .iter()
                .filter(in_record)
                .cloned()
                .collect::<Vec<_>>(),
        ))
    }

    /// Checks what every connector needs: metadata columns and keys that exist, and are named once.
    ///
    /// # Errors
    /// When a name is not a column.
    pub(crate) fn check_columns(&self) -> Result<(), ConnectorError> {
        let missing = |name: &str| self.schema.column_with_name(name).is_none();
        for metadata in &self.metadata_columns {
            if missing(&metadata.column) {
                return Err(ConnectorError::new(format!(
                    "the metadata column {} is not a column",
                    metadata.column
                )));
            }
        }
        for (what, names) in [
            ("PARTITIONED BY", &self.partition_keys),
            ("PRIMARY KEY", &self.primary_key),
        ] {
            for (i, name) in names.iter().enumerate() {
                if missing(name) {
                    return Err(ConnectorError::new(format!(
                        "the {what} column {name} is not a column of the table"
                    )));
                }
                if names[..i].contains(name) {
                    return Err(ConnectorError::new(format!("the {what} column {name} is named twice")));
                }
            }
        }
        Ok(())
    }
}

/// Where the columns of `PARTITIONED BY` are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PartitionColumns {
    /// In the record, like every other column.
    InRecord,
    /// In the file's path, as `key=value`.
    InPath,
}
