//! Streams that change: what a row does to the result it belongs to.
//!
//! A stream is append-only, or it is a changelog: then its last column is [`WEIGHT`], +1 for a row that is added to the
//! result and -1 for one that is taken out of it, and no other number. An update is both in one tick, the old row first. The rows that a
//! changelog has added and not taken out are a multiset, and at the close of each tick it is the stream's result.
//!
//! Who reads a changelog says so by reading the weight. Everything else refuses it when the graph is built, for to take
//! a removal for a row would be wrong without anybody noticing.

use super::{CustomOperator, Distribution, JobGraph, StreamId};
use crate::error::{Error, Result};
use crate::expr::{Expr, from_fn};
use crate::operators::consolidate::ConsolidateOperator;
use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::{DataType, Field, Schema};
use std::sync::Arc;

/// The name of the column that makes a stream a changelog; it is the last one. No other column may have it.
pub const WEIGHT: &str = "__weight";

/// Returns the field of the weight.
#[must_use]
pub fn weight_field() -> Field {
    Field::new(WEIGHT, DataType::Int64, false)
}

/// Returns the index of the weight in rows of a schema; `None` when the rows are append-only.
#[must_use]
pub fn weight_of(schema: &Schema) -> Option<usize> {
    let last = schema.fields().len().checked_sub(1)?;
    (schema.field(last).name() == WEIGHT).then_some(last)
}

/// Returns the weight of rows that are only added: the number 1.
#[must_use]
pub fn weight_of_inserts() -> Expr {
    from_fn("+1", DataType::Int64, |batch, _| {
        Ok(Arc::new(Int64Array::from_value(1, batch.num_rows())) as ArrayRef)
    })
}

impl JobGraph {
    /// Returns the index of the weight in a stream's rows; `None` when the stream is append-only.
    #[must_use]
    pub fn weight(&self, stream: StreamId) -> Option<usize> {
        weight_of(self.schema(stream))
    }

    /// Brings the changes of each key together: rows go to the worker that owns their key, and at the close of a tick
    /// what the tick did to each key goes on once. A row that came and went is not there, and of a key's rows those that
    /// are taken out come first.
    ///
    /// This is what a sink with a primary key stands behind.
    ///
    /// # Errors
    /// When the stream is append-only, there is no key, or a column cannot be a key.
    pub fn consolidate(&mut self, uid: impl Into<String>, input: StreamId, key: Vec<usize>) -> Result<StreamId> {
        if self.weight(input).is_none() || key.is_empty() {
            return Err(Error::Graph("only changes by a key can be brought together".into()));
        }
        let schema = Arc::clone(self.schema(input));
        let (of_worker, keys) = (Arc::clone(&schema), key.clone());
        let custom = CustomOperator {
            name: "changes by key".into(),
            distributions: vec![Distribution::Hash(key)],
            schema,
            factory: Arc::new(move |_| {
                let operator = ConsolidateOperator::new(keys.clone(), Arc::clone(&of_worker))?;
                Ok(Box::new(operator))
            }),
            watermark_delay_ms: 0,
        };
        self.operator(uid, vec![input], custom)
    }

    /// Refuses a changelog where only rows that stay are understood.
    pub(super) fn check_append_only(&self, stream: StreamId, what: &str) -> Result<()> {
        match self.weight(stream) {
            None => Ok(()),
            Some(_) => Err(Error::Graph(format!(
                "{what} over a result that changes is not supported yet; give it rows that are only added"
            ))),
        }
    }

    /// Refuses to lose the weight of rows on the way.
    pub(super) fn check_weight_kept(&self, input: StreamId, output: &Schema) -> Result<()> {
        let misplaced = |schema: &Schema| {
            let inner = schema.fields().len().saturating_sub(1);
            schema.fields()[..inner].iter().any(|field| field.name() == WEIGHT)
        };
        if misplaced(output) || (self.weight(input).is_some() && weight_of(output).is_none()) {
            return Err(Error::Graph(format!(
                "the rows of a result that changes keep their {WEIGHT} as the last column"
            )));
        }
        if let Some(weight) = weight_of(output) {
            let field = output.field(weight);
            if field.data_type() != &DataType::Int64 || field.is_nullable() {
                return Err(Error::Graph(format!("{WEIGHT} is a column of Int64 and never null")));
            }
        }
        Ok(())
    }
}
