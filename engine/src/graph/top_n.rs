//! The first rows of each partition, as a node of the graph.

use super::{CustomOperator, Distribution, JobGraph, StreamId, check_timestamp, field_at, weight_field};
use crate::error::{Error, Result};
use crate::operators::top_n;
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, Schema};
use std::sync::Arc;

/// The most rows that are kept of each key.
pub const TOP_N_MAX: u64 = 100_000;

/// A column of the order in which rows are numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopNOrder {
    /// The input column.
    pub column: usize,
    /// Whether its values fall, and where null is.
    pub options: SortOptions,
}

/// Which of rows that are equal in the order is before the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopNTies {
    /// The one that came first.
    First,
    /// The one that came last.
    Last,
}

/// A column of the output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopNColumn {
    /// A column of the input.
    Input(usize),
    /// The row's number in its partition, from 1, under this name.
    Number(String),
}

/// The rows of each key whose number, in an order, lies between two others: top-N, and with N = 1 deduplication.
///
/// Without windows the output is a changelog, which has at most one change per key and number in a tick (without the number,
/// only rows that enter and rows that leave). By the order in which rows come, and ties to the first, no row ever leaves, and the
/// output is append-only. With windows it is append-only, too: the rows of a window are emitted when the watermark passes its
/// end. Only the first `last` rows of each key are kept.
///
/// Rows that are equal in the order are numbered as they came; in which order those came that arrive on several workers in one
/// tick is not defined.
#[derive(Clone, Debug)]
pub struct TopN {
    /// The input columns that make the key; may be empty.
    pub keys: Vec<usize>,
    /// The order; empty for the order in which rows come.
    pub order: Vec<TopNOrder>,
    /// Which of equal rows is before the other.
    pub ties: TopNTies,
    /// The first number that is emitted, at least 1.
    pub first: u64,
    /// The last number that is emitted, at most [`TOP_N_MAX`]; below `first` nothing is.
    pub last: u64,
    /// The column of the end (exclusive) of the row's window, if rows have one; it is among the keys.
    pub window_end: Option<usize>,
    /// The columns of the output.
    pub outputs: Vec<TopNColumn>,
    /// State of a key is forgotten so long (wall time, milliseconds) after it was written last, without a change; `None`: never.
    /// Does not count with windows.
    pub ttl_ms: Option<i64>,
}

impl TopN {
    /// Says whether the output is a changelog.
    #[must_use]
    pub fn changes(&self) -> bool {
        self.window_end.is_none() && !(self.order.is_empty() && self.ties == TopNTies::First)
    }
}

impl JobGraph {
    /// Adds a top-N.
    ///
    /// # Errors
    /// When a column does not exist or has a type without key or order, or the numbers are out of range.
    pub fn top_n(&mut self, uid: impl Into<String>, input: StreamId, spec: TopN) -> Result<StreamId> {
        self.check_append_only(input, "a top-N")?;
        let schema = Arc::clone(self.schema(input));
        if spec.first == 0 || spec.last > TOP_N_MAX {
            return Err(Error::Graph(format!(
                "a top-N of the rows {} to {} cannot be; number rows from 1 to at most {TOP_N_MAX}",
                spec.first, spec.last
            )));
        }
        for order in &spec.order {
            let field = field_at(&schema, order.column)?;
            if field.data_type().is_nested() {
                let found = field.data_type();
                return Err(Error::Graph(format!("column {} of {found} has no order", field.name())));
            }
        }
        if let Some(end) = spec.window_end {
            check_timestamp(&schema, end, "the window's end")?;
            if !spec.keys.contains(&end) {
                return Err(Error::Graph("the window's end is part of a top-N's key".into()));
            }
        }
        let mut fields = Vec::with_capacity(spec.outputs.len() + 1);
        for output in &spec.outputs {
            fields.push(match output {
                TopNColumn::Input(column) => field_at(&schema, *column)?.clone(),
                TopNColumn::Number(name) => Field::new(name, DataType::Int64, false),
            });
        }
        if spec.changes() {
            fields.push(weight_field());
        }
        let output = Arc::new(Schema::new(fields));
        let keys = spec.keys.clone();
        let of_worker = Arc::clone(&output);
        let custom = CustomOperator {
            name: if spec.window_end.is_some() {
                "window top-n"
            } else {
                "top-n"
            }
            .into(),
            distributions: vec![Distribution::Hash(keys)],
            schema: output,
            factory: Arc::new(move |context| top_n::top_n(&spec, &schema, Arc::clone(&of_worker), context.clone())),
            watermark_delay_ms: 0,
        };
        self.operator(uid, vec![input], custom)
    }
}
