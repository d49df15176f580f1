//! `OVER (PARTITION BY ... ORDER BY ... ROWS | RANGE ...)`.

use super::Whitelist;
use super::expr::{self, Place};
use crate::error::{Position, Result, SqlError};
use crate::script::start_of;
use sqlparser::ast::{
    Expr, NamedWindowDefinition, NamedWindowExpr, OrderByExpr, OrderByOptions, Value, WindowFrame, WindowFrameBound,
    WindowFrameUnits, WindowSpec, WindowType,
};

/// Checks what stands behind `OVER`.
pub(super) fn check(list: &Whitelist<'_>, over: &WindowType, at: Option<Position>) -> Result<()> {
    match over {
        WindowType::WindowSpec(spec) => check_spec(list, spec, at),
        // Where it is defined is checked; one that is not defined is the planner's refusal.
        WindowType::NamedWindow(_) => Ok(()),
    }
}

/// Checks `WINDOW w AS (...)`.
pub(super) fn check_named(list: &Whitelist<'_>, named: &NamedWindowDefinition) -> Result<()> {
    let NamedWindowDefinition(name, definition) = named;
    let at = start_of(name.span);
    match definition {
        NamedWindowExpr::WindowSpec(spec) => check_spec(list, spec, at),
        NamedWindowExpr::NamedWindow(_) => Err(list.unknown(at, &[], "a window that is another one's name", SPEC)),
    }
}

const SPEC: &str = "write OVER (PARTITION BY k ORDER BY ts ...)";

fn check_spec(list: &Whitelist<'_>, spec: &WindowSpec, at: Option<Position>) -> Result<()> {
    let WindowSpec {
        window_name,
        partition_by,
        order_by,
        window_frame,
    } = spec;
    if let Some(name) = window_name {
        return Err(list.unknown(start_of(name.span), &[], "a window made of another one", SPEC));
    }
    for key in partition_by {
        expr::check(list, key, Place::Aggregate)?;
    }
    for OrderByExpr {
        expr: key,
        options: OrderByOptions { asc: _, nulls_first: _ },
        with_fill,
    } in order_by
    {
        if with_fill.is_some() {
            return Err(list.unknown(at, &["FILL"], "WITH FILL", "remove it"));
        }
        expr::check(list, key, Place::Aggregate)?;
    }
    window_frame
        .as_ref()
        .map_or(Ok(()), |frame| check_frame(list, frame, at))
}

fn check_frame(list: &Whitelist<'_>, frame: &WindowFrame, at: Option<Position>) -> Result<()> {
    let WindowFrame {
        units,
        start_bound,
        end_bound,
    } = frame;
    if *units == WindowFrameUnits::Groups {
        return Err(list.not_yet(at, &["GROUPS"], "a frame of GROUPS", "use ROWS or RANGE"));
    }
    for bound in [Some(start_bound), end_bound.as_ref()].into_iter().flatten() {
        let offset = match bound {
            WindowFrameBound::Following(_) => {
                let hint = "a stream's next rows are not known: end the frame with CURRENT ROW";
                return Err(list.unknown(at, &["FOLLOWING"], "FOLLOWING in a frame", hint));
            }
            WindowFrameBound::CurrentRow | WindowFrameBound::Preceding(None) => continue,
            WindowFrameBound::Preceding(Some(offset)) => offset.as_ref(),
        };
        let is_number = matches!(offset, Expr::Value(value) if matches!(value.value, Value::Number(..)));
        let fits = match units {
            WindowFrameUnits::Rows => is_number,
            _ => matches!(offset, Expr::Interval(_)),
        };
        if !fits {
            let hint = "write ROWS BETWEEN 10 PRECEDING AND CURRENT ROW, or RANGE BETWEEN INTERVAL '10' SECOND PRECEDING \
                        AND CURRENT ROW";
            return Err(SqlError::at(super::expr_start(offset).or(at), "this frame is not supported").hint(hint));
        }
        expr::check(list, offset, Place::Row)?;
    }
    Ok(())
}
