//! The window of a row, as functions over its time column.

use crate::error::Position;
use crate::window_function::{WindowFunction, WindowSpec};
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use datafusion_common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion_common::{DataFusionError, Result, exec_err};
use datafusion_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use tidemill_engine::graph::TimeDomain;

/// Which side of the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum WindowSide {
    /// Its first moment.
    Start,
    /// The first moment after it.
    End,
    /// Its last millisecond.
    Time,
}

/// A side of a row's window. Only a tumbling window is found row by row; the others are known where rows are aggregated, which
/// takes the function's arguments: the time column, then the columns that sessions are kept apart by.
#[derive(Debug, Clone)]
pub(crate) struct WindowSideFunction {
    pub(crate) side: WindowSide,
    pub(crate) spec: WindowSpec,
    /// Where the window function's time column stands, for messages.
    pub(crate) at: Option<Position>,
    /// The clock that the query says the time column is of.
    pub(crate) clock: Option<TimeDomain>,
    signature: Signature,
}

impl PartialEq for WindowSideFunction {
    fn eq(&self, other: &Self) -> bool {
        self.side == other.side && self.spec == other.spec
    }
}

impl Eq for WindowSideFunction {}

impl Hash for WindowSideFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.side, self.spec).hash(state);
    }
}

/// Returns the expression of a side of the window of a row: of its time and the columns that keep sessions apart.
pub(crate) fn window_side(side: WindowSide, window: &WindowFunction, of: Vec<Expr>) -> Expr {
    let signature = Signature::any(of.len(), Volatility::Immutable);
    ScalarUDF::new_from_impl(WindowSideFunction {
        side,
        spec: window.spec,
        at: window.time.at,
        clock: window.clock,
        signature,
    })
    .call(of)
}

/// Returns the expression of a side of the session of a row: of its time and the columns that keep sessions apart.
pub(crate) fn session_side(side: WindowSide, gap_ms: i64, of: Vec<Expr>) -> Expr {
    ScalarUDF::new_from_impl(WindowSideFunction {
        side,
        spec: WindowSpec::Session { gap_ms },
        at: None,
        clock: None,
        signature: Signature::any(of.len(), Volatility::Immutable),
    })
    .call(of)
}

/// Returns the expression of a window's last millisecond, from its end.
pub(crate) fn last_ms(end: Expr) -> Expr {
    ScalarUDF::new_from_impl(LastMs {
        signature: Signature::any(1, Volatility::Immutable),
    })
    .call(vec![end])
}

/// Returns the side of a window that a function computes, if it is one of these.
pub(crate) fn window_side_of(function: &ScalarUDF) -> Option<&WindowSideFunction> {
    function.inner().downcast_ref::<WindowSideFunction>()
}

/// Windows that are not found row by row, as an expression names them.
pub(crate) struct RowWindows {
    pub(crate) spec: WindowSpec,
    /// Where the window function's time column stands.
    pub(crate) at: Option<Position>,
    time: Option<Expr>,
    partition: Vec<Expr>,
}

impl RowWindows {
    /// Returns the names of the columns that keep sessions apart.
    pub(crate) fn partition(&self) -> Vec<&str> {
        let names = self.partition.iter().filter_map(|expr| match expr {
            Expr::Column(column) => Some(column.name.as_str()),
            _ => None,
        });
        names.collect()
    }

    /// Returns the name of the time column.
    pub(crate) fn time(&self) -> Option<&str> {
        match &self.time {
            Some(Expr::Column(column)) => Some(&column.name),
            _ => None,
        }
    }
}

/// Returns the first window in an expression that is not found row by row.
pub(crate) fn row_windows(expr: &Expr) -> Option<RowWindows> {
    let mut found = None;
    let _ = expr.apply(|expr| {
        if let Expr::ScalarFunction(call) = expr
            && let Some(window) = window_side_of(&call.func).filter(|window| !window.spec.is_one_per_row())
        {
            found = Some(RowWindows {
                spec: window.spec,
                at: window.at,
                time: call.args.first().cloned(),
                partition: call.args.iter().skip(1).cloned().collect(),
            });
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    found
}

impl ScalarUDFImpl for WindowSideFunction {
    fn name(&self) -> &str {
        match (self.spec, self.side) {
            (WindowSpec::Tumble { .. }, WindowSide::Start) => "$tumble_start",
            (WindowSpec::Tumble { .. }, WindowSide::End) => "$tumble_end",
            (WindowSpec::Tumble { .. }, WindowSide::Time) => "$tumble_time",
            (WindowSpec::Hop { .. }, WindowSide::Start) => "$hop_start",
            (WindowSpec::Hop { .. }, WindowSide::End) => "$hop_end",
            (WindowSpec::Hop { .. }, WindowSide::Time) => "$hop_time",
            (WindowSpec::Cumulate { .. }, WindowSide::Start) => "$cumulate_start",
            (WindowSpec::Cumulate { .. }, WindowSide::End) => "$cumulate_end",
            (WindowSpec::Cumulate { .. }, WindowSide::Time) => "$cumulate_time",
            (WindowSpec::Session { .. }, WindowSide::Start) => "$session_start",
            (WindowSpec::Session { .. }, WindowSide::End) => "$session_end",
            (WindowSpec::Session { .. }, WindowSide::Time) => "$session_time",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        timestamp_type(arguments.get(..1).unwrap_or_default())
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let WindowSpec::Tumble { size_ms, offset_ms } = self.spec else {
            return exec_err!("{} is known only where rows are aggregated", self.name());
        };
        map_timestamps(arguments, |time, per_ms| {
            let (size, offset) = (size_ms.checked_mul(per_ms)?, offset_ms.checked_mul(per_ms)?);
            let start = time.checked_sub(time.checked_sub(offset)?.rem_euclid(size))?;
            match self.side {
                WindowSide::Start => Some(start),
                WindowSide::End => start.checked_add(size),
                WindowSide::Time => start.checked_add(size)?.checked_sub(per_ms),
            }
        })
    }
}

/// A window's last millisecond, from its end.
#[derive(Debug, PartialEq, Eq, Hash)]
struct LastMs {
    signature: Signature,
}

impl ScalarUDFImpl for LastMs {
    fn name(&self) -> &str {
        "$window_time"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        timestamp_type(arguments)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        map_timestamps(arguments, |end, per_ms| end.checked_sub(per_ms))
    }
}

fn timestamp_type(arguments: &[DataType]) -> Result<DataType> {
    match arguments {
        [found @ DataType::Timestamp(TimeUnit::Millisecond | TimeUnit::Microsecond | TimeUnit::Nanosecond, _)] => {
            Ok(found.clone())
        }
        _ => Err(DataFusionError::Plan(
            "a window's time column must be a TIMESTAMP".into(),
        )),
    }
}

/// Maps timestamps; the function also gets the units per millisecond.
fn map_timestamps(arguments: ScalarFunctionArgs, map: impl Fn(i64, i64) -> Option<i64>) -> Result<ColumnarValue> {
    let rows = arguments.number_rows;
    let [argument] = arguments.args.as_slice() else {
        return exec_err!("a window function takes one time column");
    };
    let times = argument.to_array(rows)?;
    let data_type = times.data_type().clone();
    let per_ms = match &data_type {
        DataType::Timestamp(TimeUnit::Millisecond, _) => 1,
        DataType::Timestamp(TimeUnit::Microsecond, _) => 1_000,
        DataType::Timestamp(TimeUnit::Nanosecond, _) => 1_000_000,
        other => return exec_err!("a window's time column must be a TIMESTAMP, and it is {other}"),
    };
    if times.null_count() > 0 {
        return exec_err!(
            "the time column of a window is null in {} of {} rows; filter them out with WHERE ... IS NOT NULL",
            times.null_count(),
            times.len()
        );
    }
    let times = cast(&times, &DataType::Int64)?;
    let mapped = times
        .as_primitive::<Int64Type>()
        .try_unary::<_, Int64Type, DataFusionError>(|time| {
            map(time, per_ms)
                .ok_or_else(|| DataFusionError::Execution(format!("the window of time {time} is out of range")))
        })?;
    let mapped: ArrayRef = Arc::new(mapped);
    Ok(ColumnarValue::Array(cast(&mapped, &data_type)?))
}
