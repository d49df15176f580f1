//! The aggregation per key over everything that has come.

use super::{JobGraph, NodeKind, StreamId, field_at, weight_field};
use crate::aggregate::AggregateCall;
use crate::error::{Error, Result};
use arrow::datatypes::{Field, Schema};
use std::sync::Arc;

/// An aggregation per key whose results change with every row: `GROUP BY` without a window.
///
/// Output columns: the keys, one column per aggregate, and the weight. At the close of a tick each key that the tick
/// touched gives its old result with -1 and its new one with +1, if they differ; a key without rows has no result.
/// Without aggregates, over rows that are only added, the keys are only added, too: then there is no weight.
#[derive(Clone, Debug)]
pub struct GroupAggregate {
    /// The input columns that make the key; empty: all rows are one group.
    pub keys: Vec<usize>,
    /// The aggregates.
    pub aggregates: Vec<AggregateCall>,
    /// A key to which nothing comes for about so long (in wall time, milliseconds, above 0) is forgotten without a word;
    /// `None`: never.
    pub ttl_ms: Option<i64>,
}

impl JobGraph {
    /// Adds an aggregation per key. The input may be a changelog.
    ///
    /// # Errors
    /// When a column does not exist or has the wrong type, or an aggregate cannot take rows back and must.
    pub fn group_aggregate(
        &mut self,
        uid: impl Into<String>,
        input: StreamId,
        spec: GroupAggregate,
    ) -> Result<StreamId> {
        let schema = Arc::clone(self.schema(input));
        let weight = self.weight(input);
        if spec.ttl_ms.is_some_and(|ttl_ms| ttl_ms <= 0) {
            return Err(Error::Graph("the time to live of state is at least 1 ms".into()));
        }
        let mut fields: Vec<Field> = Vec::new();
        for &key in &spec.keys {
            let field = field_at(&schema, key)?;
            if !crate::key::supports_key_type(field.data_type()) || Some(key) == weight {
                let found = field.data_type();
                return Err(Error::Graph(format!(
                    "column {} of {found} cannot be a grouping key",
                    field.name()
                )));
            }
            fields.push(field.clone());
        }
        for (index, call) in spec.aggregates.iter().enumerate() {
            // State is stored under the aggregates' names.
            if spec.aggregates[..index].iter().any(|other| other.name == call.name) {
                return Err(Error::Graph(format!(
                    "two aggregates are named {}; give each its own name",
                    call.name
                )));
            }
            for &argument in call.arguments.iter().chain(&call.filter) {
                field_at(&schema, argument)?;
            }
            if weight.is_some() && call.function.distinct_values().is_none() {
                call.function.changing_accumulator()?;
            }
            fields.push(Field::new(&call.name, call.function.return_type(), true));
        }
        if weight.is_some() || !spec.aggregates.is_empty() {
            fields.push(weight_field());
        }
        let watermark = self.watermark(input).clone();
        let output = Arc::new(Schema::new(fields));
        self.push(
            uid.into(),
            NodeKind::GroupAggregate(spec),
            vec![input],
            output,
            watermark,
        )
    }
}
