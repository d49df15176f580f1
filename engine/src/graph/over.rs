//! Rows with what is computed of the rows before them, as a node of the graph.

use super::{CustomOperator, Distribution, JobGraph, StreamId, check_timestamp, field_at};
use crate::aggregate::AggregateCall;
use crate::error::{Error, Result};
use crate::operators::over;
use arrow::datatypes::{DataType, Field, Schema};
use std::sync::Arc;

/// Which rows before a row are in its frame; the row itself always is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverFrame {
    /// At most so many rows before it; `None`: all.
    Rows(Option<u64>),
    /// Rows at most so many milliseconds earlier, and all rows of the same time; `None`: all earlier ones.
    Range(Option<i64>),
}

/// What is computed for a row.
#[derive(Clone, Debug)]
pub enum OverFunction {
    /// An aggregate of the frame; its name does not count.
    Aggregate(AggregateCall),
    /// The number of the row among the rows of its key, from 1, in the order of time.
    RowNumber,
    /// The value of the row `offset` rows before, whatever the frame; where there is none, that of a column of the row itself, or
    /// null.
    Lag {
        /// The column of the value.
        value: usize,
        /// How many rows before, at least 1.
        offset: u64,
        /// The column of the value that stands in.
        default: Option<usize>,
    },
    /// The value of a column in the frame's first row.
    FirstValue(usize),
    /// The value of a column in the frame's last row.
    LastValue(usize),
}

/// Rows with what is computed of the rows of their key before them, in the order of event time.
///
/// A row waits until the watermark passes its time, and is then emitted with its results; rows of one time are in the order in which
/// they came. A row that is late is dropped and counted. Of each key the rows of the newest frame are kept, or, where a frame
/// has no beginning, the state of its aggregates.
///
/// Output columns: those passed on, then one per function. A new row costs a step of each aggregate; aggregates that cannot take
/// back a row (minimum, maximum, sums of floating point) look at the whole frame again, where it has a beginning.
#[derive(Clone, Debug)]
pub struct OverAggregate {
    /// The input columns that make the key; may be empty.
    pub keys: Vec<usize>,
    /// The event time of the rows.
    pub time: usize,
    /// The frame of all functions.
    pub frame: OverFrame,
    /// The input columns that go on.
    pub passed: Vec<usize>,
    /// The functions, with the names of their columns.
    pub functions: Vec<(String, OverFunction)>,
    /// State of a key that no watermark bounds is forgotten so long (wall time, milliseconds) after it was written last; `None`:
    /// never.
    pub ttl_ms: Option<i64>,
}

impl JobGraph {
    /// Adds an aggregation over the rows before each row.
    ///
    /// # Errors
    /// When a column does not exist or has the wrong type, or a number is out of range.
    pub fn over_aggregate(&mut self, uid: impl Into<String>, input: StreamId, spec: OverAggregate) -> Result<StreamId> {
        self.check_append_only(input, "OVER")?;
        let schema = Arc::clone(self.schema(input));
        check_timestamp(&schema, spec.time, "the time of OVER")?;
        if let OverFrame::Range(Some(preceding_ms)) = spec.frame
            && preceding_ms < 0
        {
            return Err(Error::Graph(format!("a frame of {preceding_ms} ms cannot be")));
        }
        let mut fields = Vec::with_capacity(spec.passed.len() + spec.functions.len());
        for &column in &spec.passed {
            fields.push(field_at(&schema, column)?.clone());
        }
        for (name, function) in &spec.functions {
            let data_type = match function {
                OverFunction::Aggregate(call) => {
                    for &column in call.arguments.iter().chain(&call.filter) {
                        field_at(&schema, column)?;
                    }
                    call.function.return_type()
                }
                OverFunction::RowNumber => DataType::Int64,
                OverFunction::Lag { value, offset, default } => {
                    let found = field_at(&schema, *value)?.data_type().clone();
                    if *offset == 0 {
                        return Err(Error::Graph(
                            "a lag of no rows is the row itself; make it at least 1".into(),
                        ));
                    }
                    if let Some(default) = default
                        && field_at(&schema, *default)?.data_type() != &found
                    {
                        return Err(Error::Graph(format!(
                            "the default of a lag of {found} has another type"
                        )));
                    }
                    found
                }
                OverFunction::FirstValue(value) | OverFunction::LastValue(value) => {
                    field_at(&schema, *value)?.data_type().clone()
                }
            };
            fields.push(Field::new(name, data_type, true));
        }
        let output = Arc::new(Schema::new(fields));
        let of_worker = Arc::clone(&output);
        let custom = CustomOperator {
            name: "over".into(),
            distributions: vec![Distribution::Hash(spec.keys.clone())],
            schema: output,
            factory: Arc::new(move |context| {
                let operator = over::OverOperator::new(&spec, &schema, Arc::clone(&of_worker), context.clone())?;
                Ok(Box::new(operator))
            }),
            watermark_delay_ms: 0,
        };
        self.operator(uid, vec![input], custom)
    }
}
