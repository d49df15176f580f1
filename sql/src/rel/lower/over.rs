//! Lowers `OVER`: numbers of rows, and what is computed of the rows before each row.

use super::{Columns, Lowering, column_name};
use crate::error::{Position, Result, SqlError};
use crate::functions::over::{OverFunction, OverKind};
use crate::functions::window::WindowSide;
use crate::rel::changes::check_append_only;
use crate::rel::prepare::{Prepared, place, prepare};
use crate::rel::rank::{Frame, OrderColumn, Over, OverCall, Rank, RankOutput, Ties};
use crate::rel::{Rel, RelColumn, RelId, Role};
use crate::types::sql_name;
use datafusion_common::{DFSchema, ScalarValue};
use datafusion_expr::expr::{AggregateFunction, AggregateFunctionParams, Sort, WindowFunction, WindowFunctionParams};
use datafusion_expr::{Expr, Window, WindowFrame, WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition};
use tidemill_engine::graph::TimeDomain;
use tidemill_engine::key::supports_key_type;

/// The greatest number of rows that are kept of each key, and the greatest distance in rows.
const ROWS_MAX: u64 = 1_000_000;

/// What the functions of one `OVER` share.
struct Shared {
    partition: Vec<usize>,
    order: Vec<OrderColumn>,
}

impl Lowering<'_> {
    /// Lowers the functions of `OVER`: the columns of the input, then one for each function.
    pub(super) fn window_functions(&mut self, window: &Window) -> Result<RelId> {
        let mut input = self.lower(&window.input)?;
        let width = self.rels.get(input).columns.len();
        let names = window.input.schema();
        let at = window.window_expr.iter().find_map(place);
        let at = at.or_else(|| self.script.find_word(self.at, &["OVER"]));
        check_append_only(self.rels, input, "OVER", at)?;
        let functions = window.window_expr.iter().map(function_of).collect::<Result<Vec<_>>>()?;
        let ranks = functions
            .iter()
            .any(|function| kind_of(function).is_some_and(OverKind::is_ranking));
        if ranks && let [function] = functions.as_slice() {
            return self.row_number(input, function, names, at);
        }
        if functions.iter().any(|function| function.params.order_by.is_empty()) {
            return Err(without_order(at));
        }
        // Functions of one frame are computed together; each frame adds its results behind the columns so far.
        let mut frames: Vec<(Frame, Vec<usize>)> = Vec::new();
        for (index, function) in functions.iter().enumerate() {
            let frame = frame_of(function, at)?;
            match frames.iter_mut().find(|(known, _)| *known == frame) {
                Some((_, indexes)) => indexes.push(index),
                None => frames.push((frame, vec![index])),
            }
        }
        // Where the result of each function is.
        let mut places = vec![0; functions.len()];
        for (frame, indexes) in frames {
            let first = self.rels.get(input).columns.len();
            let of: Vec<&WindowFunction> = indexes.iter().map(|index| functions[*index]).collect();
            input = self.calls(input, &of, frame, names, at)?;
            for (offset, index) in indexes.into_iter().enumerate() {
                places[index] = first + offset;
            }
        }
        if places.iter().enumerate().all(|(index, place)| *place == width + index) {
            return Ok(input);
        }
        let rel = self.rels.get(input);
        let columns = (0..width).chain(places).map(|place| &rel.columns[place]);
        let outputs = columns.map(|column| (column.name.clone(), Prepared::column(column)));
        let outputs = outputs.collect();
        Ok(self.rels.calc(input, None, outputs))
    }

    /// Numbers rows. A filter of the number makes a top-N of it; without one, only the order of event time has numbers that
    /// stay.
    fn row_number(
        &mut self,
        input: RelId,
        function: &WindowFunction,
        names: &DFSchema,
        at: Option<Position>,
    ) -> Result<RelId> {
        match kind_of(function) {
            Some(OverKind::RowNumber) => {}
            other => {
                let name = other.map_or("this function", OverKind::name).to_uppercase();
                return Err(SqlError::at(at, format!("{name} is not supported yet"))
                    .hint("use ROW_NUMBER, which numbers equal rows in the order in which they come"));
            }
        }
        let width = self.rels.get(input).columns.len();
        let mut columns = self.all_columns(input);
        let shared = self.shared(function, input, names, &mut columns, at)?;
        let input = self.rels.calc(input, None, columns.0);
        let rel = self.rels.get(input);
        let by_time = match shared.order.as_slice() {
            [order] => time_of(&rel.columns[order.column]).map(|domain| (*order, domain)),
            _ => None,
        };
        let window_end = window_end(rel, &shared.partition);
        if let Some((order, domain)) = by_time.filter(|(order, _)| !order.descending) {
            return self.rels.over(Over {
                input,
                partition: shared.partition,
                time: order.column,
                domain,
                frame: Frame::Rows(None),
                passed: (0..width).collect(),
                calls: vec![OverCall::RowNumber],
                at,
            });
        }
        let outputs = (0..width).map(RankOutput::Column).chain([RankOutput::Number]);
        Ok(self.rels.rank(Rank {
            input,
            partition: shared.partition,
            order: match by_time {
                // The order in which rows come.
                Some((_, TimeDomain::ProcessingTime)) => Vec::new(),
                _ => shared.order,
            },
            // The last row by time is the one that came last, as in Flink's deduplication.
            ties: if by_time.is_some() { Ties::Last } else { Ties::First },
            window_end,
            range: None,
            outputs: outputs.collect(),
            at,
        }))
    }

    /// Lowers functions of one frame; their results stand behind the input's columns.
    fn calls(
        &mut self,
        input: RelId,
        functions: &[&WindowFunction],
        frame: Frame,
        names: &DFSchema,
        at: Option<Position>,
    ) -> Result<RelId> {
        let width = self.rels.get(input).columns.len();
        let mut columns = self.all_columns(input);
        let mut shared = None;
        let mut calls = Vec::with_capacity(functions.len());
        for function in functions {
            shared = Some(self.shared(function, input, names, &mut columns, at)?);
            calls.push(self.over_call(function, input, names, &mut columns, at)?);
        }
        let Some(shared) = shared else {
            return Err(SqlError::internal("OVER without a function"));
        };
        let input = self.rels.calc(input, None, columns.0);
        let rel = self.rels.get(input);
        let (time, domain) = match shared.order.as_slice() {
            [order] if order.descending => {
                return Err(SqlError::at(at, "OVER in the order of falling time is not supported")
                    .hint("rows are computed as time goes on: write ORDER BY ts ASC"));
            }
            [order] => match time_of(&rel.columns[order.column]) {
                Some(domain) => (order.column, domain),
                None => return Err(not_by_time(&rel.columns[order.column], at)),
            },
            _ => {
                return Err(SqlError::at(at, "OVER needs the order of one time column")
                    .hint("write OVER (PARTITION BY k ORDER BY ts), where ts is the table's event time"));
            }
        };
        let over = Over {
            input,
            partition: shared.partition,
            time,
            domain,
            frame,
            passed: (0..width).collect(),
            calls,
            at,
        };
        self.rels.over(over).map_err(|error| error.or_at(at))
    }

    fn all_columns(&self, input: RelId) -> Columns {
        let columns = &self.rels.get(input).columns;
        Columns(
            columns
                .iter()
                .map(|column| (column.name.clone(), Prepared::column(column)))
                .collect(),
        )
    }

    /// Lowers the partition and the order.
    fn shared(
        &self,
        function: &WindowFunction,
        input: RelId,
        names: &DFSchema,
        columns: &mut Columns,
        at: Option<Position>,
    ) -> Result<Shared> {
        let rel = self.rels.get(input);
        let WindowFunctionParams {
            partition_by, order_by, ..
        } = &function.params;
        let mut partition = Vec::with_capacity(partition_by.len());
        for key in partition_by {
            let at = place(key).or(at);
            let prepared = prepare(key, names, rel).map_err(|error| error.or_at(at))?;
            if !supports_key_type(&prepared.data_type) {
                let message = format!("rows cannot be partitioned by {}", sql_name(&prepared.data_type));
                return Err(SqlError::at(at, message).hint("partition by a scalar of it"));
            }
            let column = columns.add(column_name(&prepared), prepared);
            if !partition.contains(&column) {
                partition.push(column);
            }
        }
        let mut order: Vec<OrderColumn> = Vec::with_capacity(order_by.len());
        for Sort { expr, asc, nulls_first } in order_by {
            let at = place(expr).or(at);
            let prepared = prepare(expr, names, rel).map_err(|error| error.or_at(at))?;
            if prepared.data_type.is_nested() {
                let message = format!("{} has no order", sql_name(&prepared.data_type));
                return Err(SqlError::at(at, message).hint("order by a scalar of it"));
            }
            let column = columns.add(column_name(&prepared), prepared);
            if !order.iter().any(|known| known.column == column) {
                order.push(OrderColumn {
                    column,
                    descending: !asc,
                    nulls_first: *nulls_first,
                });
            }
        }
        if order.is_empty() {
            return Err(without_order(at));
        }
        Ok(Shared { partition, order })
    }

    fn over_call(
        &self,
        function: &WindowFunction,
        input: RelId,
        names: &DFSchema,
        columns: &mut Columns,
        at: Option<Position>,
    ) -> Result<OverCall> {
        let rel = self.rels.get(input);
        let WindowFunctionParams {
            args,
            filter,
            null_treatment,
            distinct,
            ..
        } = &function.params;
        let udaf = match &function.fun {
            WindowFunctionDefinition::AggregateUDF(udaf) => {
                let call = Expr::AggregateFunction(AggregateFunction {
                    func: std::sync::Arc::clone(udaf),
                    params: AggregateFunctionParams {
                        args: args.clone(),
                        distinct: *distinct,
                        filter: filter.clone(),
                        order_by: Vec::new(),
                        null_treatment: *null_treatment,
                    },
                });
                let call = self.call(&call, names, input, columns, at)?;
                if call.kind.is_list() {
                    let message = format!("{} with OVER is not supported yet", call.kind.name().to_uppercase());
                    return Err(SqlError::at(at, message).hint("use it with GROUP BY, or LAG and LAST_VALUE with OVER"));
                }
                return Ok(OverCall::Aggregate(call));
            }
            WindowFunctionDefinition::WindowUDF(_) => kind_of(function),
        };
        let kind = udaf.ok_or_else(|| SqlError::internal("a function of OVER that is not ours"))?;
        if filter.is_some() || *distinct {
            let message = format!("{} takes no FILTER and no DISTINCT", kind.name().to_uppercase());
            return Err(SqlError::at(at, message).hint("filter in the query below"));
        }
        let mut argument = |index: usize| -> Result<usize> {
            let argument = args.get(index);
            let argument = argument.ok_or_else(|| SqlError::internal("an argument was lost"))?;
            let prepared = prepare(argument, names, rel).map_err(|error| error.or_at(at))?;
            Ok(columns.add(column_name(&prepared), prepared))
        };
        Ok(match kind {
            OverKind::RowNumber => OverCall::RowNumber,
            OverKind::FirstValue => OverCall::FirstValue(argument(0)?),
            OverKind::LastValue => OverCall::LastValue(argument(0)?),
            OverKind::Lag => {
                let value = argument(0)?;
                let offset = match args.get(1) {
                    None => 1,
                    Some(expr) => offset_of(expr).ok_or_else(|| {
                        SqlError::at(at, "the offset of LAG is a number of rows, from 1 to 1,000,000")
                            .hint("write LAG(x, 2)")
                    })?,
                };
                let default = (args.len() > 2).then(|| argument(2)).transpose()?;
                if let Some(default) = default {
                    let types = [value, default].map(|column| columns.0[column].1.data_type.clone());
                    if types[0] != types[1] {
                        let [value, default] = types.map(|data_type| sql_name(&data_type));
                        let message = format!("the default of LAG is {default} and its value {value}");
                        return Err(SqlError::at(at, message).hint(format!("write CAST(... AS {value})")));
                    }
                }
                OverCall::Lag { value, offset, default }
            }
            OverKind::Rank | OverKind::DenseRank => {
                let message = format!("{} is not supported yet", kind.name().to_uppercase());
                return Err(SqlError::at(at, message).hint("use ROW_NUMBER"));
            }
        })
    }
}

/// Returns the column of a window's end, where the partition names both sides of one window.
pub(super) fn window_end(rel: &Rel, partition: &[usize]) -> Option<usize> {
    let is = |key: usize, wanted: WindowSide| {
        let window = rel.columns[key].role.as_window();
        window.is_some_and(|(_, side, _)| side == wanted)
    };
    let window = |key: usize| rel.columns[key].role.which_window();
    let mut keys = partition.iter().copied();
    keys.find(|end| {
        let is_start = |start: &usize| is(*start, WindowSide::Start) && window(*start) == window(*end);
        is(*end, WindowSide::End) && partition.iter().any(is_start)
    })
}

/// Returns the clock of a column by which rows can be taken in order.
fn time_of(column: &RelColumn) -> Option<TimeDomain> {
    match column.role {
        Role::ProcessingTime => Some(TimeDomain::ProcessingTime),
        role => role.is_event_time().then_some(TimeDomain::EventTime),
    }
}

fn function_of(expr: &Expr) -> Result<&WindowFunction> {
    match expr {
        Expr::Alias(alias) => function_of(&alias.expr),
        Expr::WindowFunction(function) => Ok(function),
        other => Err(SqlError::internal(format!("{other} is no function of OVER"))),
    }
}

fn kind_of(function: &WindowFunction) -> Option<OverKind> {
    match &function.fun {
        WindowFunctionDefinition::WindowUDF(udwf) => udwf
            .inner()
            .downcast_ref::<OverFunction>()
            .map(|function| function.kind),
        WindowFunctionDefinition::AggregateUDF(_) => None,
    }
}

fn frame_of(function: &WindowFunction, at: Option<Position>) -> Result<Frame> {
    if let Some(OverKind::RowNumber | OverKind::Lag) = kind_of(function) {
        // Their place does not depend on a frame.
        return Ok(Frame::Rows(None));
    }
    let WindowFrame {
        units,
        start_bound,
        end_bound,
        ..
    } = &function.params.window_frame;
    let refusal = || {
        let hint = "write ROWS BETWEEN 10 PRECEDING AND CURRENT ROW, or RANGE BETWEEN INTERVAL '10' SECOND PRECEDING AND \
                    CURRENT ROW";
        SqlError::at(at, "this frame is not supported").hint(hint)
    };
    if *end_bound != WindowFrameBound::CurrentRow {
        return Err(refusal());
    }
    match (units, start_bound) {
        (WindowFrameUnits::Rows, WindowFrameBound::CurrentRow) => Ok(Frame::Rows(Some(0))),
        (WindowFrameUnits::Range, WindowFrameBound::CurrentRow) => Ok(Frame::Range(Some(0))),
        (WindowFrameUnits::Rows, bound) if bound.is_unbounded() => Ok(Frame::Rows(None)),
        (WindowFrameUnits::Range, bound) if bound.is_unbounded() => Ok(Frame::Range(None)),
        (WindowFrameUnits::Rows, WindowFrameBound::Preceding(ScalarValue::UInt64(Some(rows)))) => {
            if *rows > ROWS_MAX {
                let message = format!("a frame of {rows} rows is too long");
                return Err(SqlError::at(at, message).hint(format!("at most {ROWS_MAX} rows")));
            }
            Ok(Frame::Rows(Some(*rows)))
        }
        (WindowFrameUnits::Range, WindowFrameBound::Preceding(ScalarValue::Utf8(Some(text)))) => {
            let ms = crate::window_function::written_interval_ms(text).filter(|ms| *ms >= 0);
            ms.map(|ms| Frame::Range(Some(ms))).ok_or_else(refusal)
        }
        _ => Err(refusal()),
    }
}

fn offset_of(expr: &Expr) -> Option<u64> {
    let Expr::Literal(value, _) = expr else { return None };
    let number = match value {
        ScalarValue::Int64(Some(number)) => u64::try_from(*number).ok()?,
        ScalarValue::UInt64(Some(number)) => *number,
        _ => return None,
    };
    (1..=ROWS_MAX).contains(&number).then_some(number)
}

fn without_order(at: Option<Position>) -> SqlError {
    SqlError::at(at, "OVER without an order is not supported").hint("write OVER (PARTITION BY k ORDER BY ts)")
}

fn not_by_time(column: &RelColumn, at: Option<Position>) -> SqlError {
    SqlError::at(at, format!("{} is not the event time of its rows, so OVER cannot follow it", column.name)).hint(
        "ORDER BY the column of the table's WATERMARK FOR, or window_time of an earlier window, carried through every query \
         unchanged",
    )
}
