//! The first rows of each key in an order: top-N and deduplication.
//!
//! ```text
//!  rows ─▶ Ranked: key ─▶ its best rows ─▶ at the close of a tick: what has changed        (ChangingTopN)
//!                                       └▶ when the watermark passes the window: the rows  (WindowTopN)
//! ```
//! A row that is not among the best of its key is dropped by one comparison of columns, before anything is copied.
//!
//! File map: `order` makes comparable keys of the order's columns, `lists` holds the best rows of each key, `ranked` is the state
//! of one table of keys, `changing` and `window` are the two operators.

mod changing;
mod lists;
mod order;
mod ranked;
#[cfg(test)]
mod tests;
mod window;

use crate::error::Result;
use crate::graph::{TopN, TopNColumn};
use crate::operator::{Operator, OperatorContext};
use crate::rows::{RowRef, RowStore};
use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef};
use changing::ChangingTopN;
use order::{OrderWidth, width_of};
use std::sync::Arc;
use window::WindowTopN;

/// Rows per emitted batch.
const BATCH_ROWS: usize = 8192;

/// Makes the operator.
///
/// # Errors
/// When a column of the order has no comparable form.
pub(crate) fn top_n(
    spec: &TopN,
    input: &Schema,
    output: SchemaRef,
    context: OperatorContext,
) -> Result<Box<dyn Operator>> {
    let plan = Plan::new(spec, input, output, context)?;
    macro_rules! with_key {
        ($key:ty) => {
            match spec.window_end {
                Some(end) => Box::new(WindowTopN::<$key>::new(plan, end)?) as Box<dyn Operator>,
                None => Box::new(ChangingTopN::<$key>::new(plan)?),
            }
        };
    }
    Ok(match width_of(spec, input) {
        OrderWidth::Bytes16 => with_key!([u64; 2]),
        OrderWidth::Bytes24 => with_key!([u64; 3]),
        OrderWidth::Any => with_key!(Box<[u8]>),
    })
}

/// What both operators know.
struct Plan {
    spec: TopN,
    /// The input columns that are kept: of the key, of the order, and of the output.
    kept: Vec<usize>,
    kept_schema: SchemaRef,
    /// Where the columns of the key and of the order are among those that are kept.
    keys: Vec<usize>,
    order: Vec<usize>,
    output: SchemaRef,
    context: OperatorContext,
}

impl Plan {
    fn new(spec: &TopN, input: &Schema, output: SchemaRef, context: OperatorContext) -> Result<Self> {
        let mut kept: Vec<usize> = spec.keys.clone();
        kept.extend(spec.order.iter().map(|order| order.column));
        kept.extend(spec.outputs.iter().filter_map(|output| match output {
            TopNColumn::Input(column) => Some(*column),
            TopNColumn::Number(_) => None,
        }));
        kept.sort_unstable();
        kept.dedup();
        if kept.is_empty() {
            // A row without columns could not be kept.
            kept.push(0);
        }
        let place = |column: usize| kept.partition_point(|known| *known < column);
        Ok(Self {
            spec: spec.clone(),
            kept_schema: Arc::new(input.project(&kept)?),
            keys: spec.keys.iter().map(|&key| place(key)).collect(),
            order: spec.order.iter().map(|order| place(order.column)).collect(),
            kept,
            output,
            context,
        })
    }

    /// Makes a batch of the output.
    fn batch(&self, rows: &RowStore, emitted: &Emitted) -> Result<RecordBatch> {
        let columns: Vec<usize> = self
            .spec
            .outputs
            .iter()
            .filter_map(|output| self.kept_place(output))
            .collect();
        let mut gathered = rows.gather(&emitted.rows, &columns)?.into_iter();
        let number = || -> ArrayRef { Arc::new(Int64Array::from(emitted.numbers.clone())) };
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.output.fields().len());
        for output in &self.spec.outputs {
            columns.extend(match output {
                TopNColumn::Input(_) => gathered.next(),
                TopNColumn::Number(_) => Some(number()),
            });
        }
        if self.spec.changes() {
            columns.push(Arc::new(Int64Array::from(emitted.weights.clone())));
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.output), columns)?)
    }

    fn kept_place(&self, output: &TopNColumn) -> Option<usize> {
        match output {
            TopNColumn::Input(column) => Some(self.kept.partition_point(|known| known < column)),
            TopNColumn::Number(_) => None,
        }
    }

    /// Says whether the output has the number.
    fn has_number(&self) -> bool {
        self.spec
            .outputs
            .iter()
            .any(|output| matches!(output, TopNColumn::Number(_)))
    }
}

/// Rows to emit.
#[derive(Default)]
struct Emitted {
    rows: Vec<RowRef>,
    numbers: Vec<i64>,
    weights: Vec<i64>,
}

impl Emitted {
    fn push(&mut self, row: RowRef, position: usize, weight: i64) {
        self.rows.push(row);
        self.numbers.push(position as i64 + 1);
        self.weights.push(weight);
    }
}
