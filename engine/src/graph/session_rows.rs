//! Rows with their session, as a node of the graph.

use super::window::check_window;
use super::{CustomOperator, Distribution, JobGraph, StreamId, TimeDomain, WindowAssigner};
use crate::error::Result;
use crate::operators::window_aggregate::SessionRowsOperator;
use arrow::datatypes::{Field, Schema};
use std::sync::Arc;

/// Which sessions rows are in: those of a key without a pause of more than a gap.
///
/// A row goes on when its session has ended, with the session's start and end behind its columns; it is kept until then. So
/// its own time is behind the watermark when it goes on, and the session's end is not. Rows of a session that had ended before
/// they came are dropped and counted as late.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRows {
    /// The input columns that make the key; may be empty.
    pub keys: Vec<usize>,
    /// The timestamp column.
    pub time: usize,
    /// The pause that ends a session, in milliseconds, above 0.
    pub gap_ms: i64,
    /// The clock that ends sessions.
    pub domain: TimeDomain,
}

impl JobGraph {
    /// Adds what gives rows their session; `names` are those of the columns of its start and its end. The input's columns
    /// have names of their own.
    ///
    /// # Errors
    /// When a column does not exist or is no key or no time, or the input changes.
    pub fn session_rows(
        &mut self,
        uid: impl Into<String>,
        input: StreamId,
        spec: SessionRows,
        names: (&str, &str),
    ) -> Result<StreamId> {
        self.check_append_only(input, "a window")?;
        let schema = Arc::clone(self.schema(input));
        let (time, gap_ms) = (spec.time, spec.gap_ms);
        let window_type = check_window(&schema, &WindowAssigner::Session { time, gap_ms })?;
        let mut fields: Vec<Field> = schema.fields().iter().map(|field| field.as_ref().clone()).collect();
        for name in [names.0, names.1] {
            fields.push(Field::new(name, window_type.clone(), false));
        }
        let output = Arc::new(Schema::new(fields));
        let of_worker = Arc::clone(&output);
        let custom = CustomOperator {
            name: "sessions of rows".into(),
            distributions: vec![Distribution::Hash(spec.keys.clone())],
            schema: output,
            factory: Arc::new(move |context| {
                let (input, output) = (Arc::clone(&schema), Arc::clone(&of_worker));
                let operator = SessionRowsOperator::new(spec.clone(), input, output, context.clone());
                Ok(Box::new(operator))
            }),
            watermark_delay_ms: 0,
        };
        self.operator(uid, vec![input], custom)
    }
}
