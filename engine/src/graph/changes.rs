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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expr::column;
    use crate::graph::{Calc, SinkNode, SourceNode, WindowAssigner};
    use crate::sink::{CommitterContext, DeliveryGuarantee, Sink, SinkCommitter, SinkContext, SinkWriter};
    use crate::testing::{MemorySink, MemorySource};
    use arrow::datatypes::TimeUnit;

    struct OnlyAddedTo;

    impl Sink for OnlyAddedTo {
        fn guarantee(&self) -> DeliveryGuarantee {
            DeliveryGuarantee::AtLeastOnce
        }

        fn writer(&self, _: SinkContext) -> Result<Box<dyn SinkWriter>> {
            unreachable!("it is never run")
        }

        fn committer(&self, _: CommitterContext) -> Result<Option<Arc<dyn SinkCommitter>>> {
            Ok(None)
        }
    }

    #[test]
    fn what_does_not_know_the_weight_is_refused() {
        let time = Field::new("t", DataType::Timestamp(TimeUnit::Millisecond, None), false);
        let rows = Arc::new(Schema::new(vec![time, Field::new("k", DataType::Int64, true)]));
        let mut graph = JobGraph::new();
        let source = SourceNode {
            table: "t".into(),
            physical_schema: Arc::clone(&rows),
            source: Arc::new(MemorySource::bounded(Vec::new())),
            computed: None,
            event_time: None,
        };
        let added = graph.source(source).unwrap();
        let keep = |index: usize| (rows.field(index).clone(), column(index));
        let weighted = Calc {
            predicate: None,
            outputs: vec![keep(0), keep(1), (weight_field(), weight_of_inserts())],
        };
        let changing = graph.calc("weights", added, weighted).unwrap();
        assert_eq!((graph.weight(added), graph.weight(changing)), (None, Some(2)));

        let without = Calc {
            predicate: None,
            outputs: vec![keep(1)],
        };
        let window = WindowAssigner::Hop {
            time: 0,
            size_ms: 2,
            slide_ms: 1,
            offset_ms: 0,
        };
        let node = |sink: Arc<dyn Sink>| SinkNode { name: "s".into(), sink };
        for (refused, about) in [
            (graph.calc("lost", changing, without).map(|_| ()), "keep their __weight"),
            (
                graph.union("mixed", vec![added, changing]).map(|_| ()),
                "another does not",
            ),
            (
                graph.window_rows("hop", changing, window, ("s", "e")).map(|_| ()),
                "over a result that changes",
            ),
            (
                graph.sink("out", changing, node(Arc::new(OnlyAddedTo))),
                "can only be added",
            ),
            (graph.consolidate("by-key", added, vec![1]).map(|_| ()), "only changes"),
        ] {
            let error = refused.unwrap_err().to_string();
            assert!(error.contains(about), "{error}");
        }
        let by_key = graph.consolidate("by-key", changing, vec![1]).unwrap();
        let sink = MemorySink::new(DeliveryGuarantee::AtLeastOnce);
        graph.sink("kept", by_key, node(Arc::new(sink))).unwrap();
        assert!(
            graph
                .explain()
                .contains("#2 changes by key <- #1 (t Timestamp(ms), k Int64) changes")
        );
    }
}
