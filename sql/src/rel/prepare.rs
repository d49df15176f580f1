//! Turns a query's expression into one over the columns of a [`Rel`], ready to evaluate.

use super::identity::{self, Identity};
use super::{Rel, RelColumn, Role, WindowOf};
use crate::error::{Position, Result, SqlError};
use crate::expr::refusal;
use crate::functions::ambient::is_proctime;
use crate::functions::window::window_side_of;
use crate::rewrite::rewrite;
use crate::types::sql_name;
use arrow::datatypes::DataType;
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{Column, DFSchema, DataFusionError};
use datafusion_expr::simplify::SimplifyContext;
use datafusion_expr::{Expr, ExprSchemable};
use datafusion_optimizer::simplify_expressions::ExprSimplifier;
use std::sync::Arc;
use tidemill_engine::graph::TimeDomain;

/// An expression over the names of a relation's columns.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    pub(crate) expr: Expr,
    pub(crate) identity: Identity,
    pub(crate) data_type: DataType,
    pub(crate) role: Role,
}

impl Prepared {
    /// Makes the expression that is just a column.
    pub(crate) fn column(column: &RelColumn) -> Self {
        Self {
            expr: Expr::Column(Column::new_unqualified(&column.name)),
            identity: column.identity.clone(),
            data_type: column.data_type.clone(),
            role: column.role,
        }
    }
}

/// Prepares an expression whose columns are those of `names`, a schema with the columns of `rel` in their order.
///
/// # Errors
/// When a column does not exist, or the types do not fit.
pub(crate) fn prepare(expr: &Expr, names: &DFSchema, rel: &Rel) -> Result<Prepared> {
    let at = place(expr);
    let resolved = resolve(expr, names, rel)?;
    prepare_over(resolved, rel).map_err(|error| error.or_at(at))
}

/// Prepares one of many expressions over a relation, of which `schema` is the schema.
///
/// # Errors
/// As [`prepare`].
pub(crate) fn prepare_with(expr: &Expr, names: &DFSchema, rel: &Rel, schema: &Arc<DFSchema>) -> Result<Prepared> {
    let at = place(expr);
    let resolved = resolve(expr, names, rel)?;
    over(resolved, rel, || Ok(Arc::clone(schema))).map_err(|error| error.or_at(at))
}

/// Gives the columns of an expression the names that they have in the relation.
fn resolve(expr: &Expr, names: &DFSchema, rel: &Rel) -> Result<Expr> {
    let at = place(expr);
    let resolved = expr.clone().transform_up(|expr| match &expr {
        Expr::Column(column) => {
            let index = names.index_of_column(column)?;
            let name = rel.columns.get(index).map(|column| column.name.as_str());
            let name = name.ok_or_else(|| DataFusionError::Internal(format!("column {index} is beyond the row")))?;
            Ok(Transformed::yes(Expr::Column(Column::new_unqualified(name))))
        }
        _ => Ok(Transformed::no(expr)),
    });
    Ok(resolved.map_err(|error| refusal(&error).or_at(at))?.data)
}

/// Prepares an expression over the names of the relation's columns.
///
/// # Errors
/// When the types do not fit.
pub(crate) fn prepare_over(expr: Expr, rel: &Rel) -> Result<Prepared> {
    over(expr, rel, || rel.df_schema().map(Arc::new))
}

fn over(expr: Expr, rel: &Rel, schema: impl FnOnce() -> Result<Arc<DFSchema>>) -> Result<Prepared> {
    let expr = rewrite(expr)?;
    let find = |column: &Column| rel.columns.iter().find(|known| known.name == column.name);
    if let Expr::Column(column) = &expr {
        let column = find(column).ok_or_else(|| SqlError::internal(format!("no column {}", column.name)))?;
        return Ok(Prepared::column(column));
    }
    check_windows(&expr, rel)?;
    let schema = schema()?;
    check_rows(&expr, rel, &schema)?;
    let text = identity::write(&expr, &|column| {
        find(column).map_or_else(|| column.name.clone(), |column| format!("#{}", column.identity.text()))
    });
    let identity = Identity::of(&["expression", &text]);
    let role = match &expr {
        Expr::ScalarFunction(call) if is_proctime(&call.func) => Role::ProcessingTime,
        Expr::ScalarFunction(call) => match (window_side_of(&call.func), call.args.first()) {
            (Some(window), Some(Expr::Column(time))) => {
                let clock = find(time).and_then(|column| column.role.time());
                let of = call.args.iter().filter_map(|argument| match argument {
                    Expr::Column(column) => find(column),
                    _ => None,
                });
                let of: Vec<&Identity> = of.map(|column| &column.identity).collect();
                let of = match of.as_slice() {
                    [time] => WindowOf::of(time),
                    of => WindowOf::of(&Identity::of(&of.iter().map(|part| part.text()).collect::<Vec<_>>())),
                };
                Role::window(clock.unwrap_or_default(), window.side, window.spec, of)
            }
            _ => Role::Plain,
        },
        _ => Role::Plain,
    };
    // No start time: nothing that depends on the moment may be folded into a literal.
    let simplifier = ExprSimplifier::new(SimplifyContext::builder().with_schema(Arc::clone(&schema)).build());
    let expr = simplifier.coerce(expr, &schema).map_err(|error| refusal(&error))?;
    let before = expr.get_type(&schema).map_err(|error| refusal(&error))?;
    let simpler = simplifier.simplify(expr.clone()).map_err(|error| refusal(&error))?;
    let after = simpler.get_type(&schema).map_err(|error| refusal(&error))?;
    let expr = if after == before { simpler } else { expr };
    Ok(Prepared {
        expr,
        identity,
        data_type: before,
        role,
    })
}

/// Checks that windows stand over time attributes.
fn check_windows(expr: &Expr, rel: &Rel) -> Result<()> {
    let mut found = Ok(());
    let walked = expr.apply(|expr| {
        let Expr::ScalarFunction(call) = expr else {
            return Ok(TreeNodeRecursion::Continue);
        };
        let (Some(window), Some(Expr::Column(time))) = (window_side_of(&call.func), call.args.first()) else {
            return Ok(TreeNodeRecursion::Continue);
        };
        let column = rel.columns.iter().find(|column| column.name == time.name);
        if let Some(column) = column.filter(|column| column.role.time().is_none()) {
            found = Err(not_a_time_attribute(&column.name, &column.data_type, window.at));
        }
        if let Some((column, clock)) = column.zip(window.clock)
            && column.role.time().is_some_and(|time| time != clock)
        {
            found = Err(other_clock(&column.name, clock, window.at));
        }
        Ok(TreeNodeRecursion::Continue)
    });
    walked.map_err(SqlError::internal)?;
    found
}

/// Checks that whole rows are not compared: nothing that follows could.
fn check_rows(expr: &Expr, rel: &Rel, schema: &DFSchema) -> Result<()> {
    if !rel.columns.iter().any(|column| column.data_type.is_nested()) {
        return Ok(());
    }
    let mut found = Ok(());
    let walked = expr.apply(|expr| {
        let compared = match expr {
            Expr::BinaryExpr(binary) => vec![binary.left.as_ref(), binary.right.as_ref()],
            Expr::InList(list) => vec![list.expr.as_ref()],
            Expr::Between(between) => vec![between.expr.as_ref()],
            Expr::Case(case) => case.expr.iter().map(AsRef::as_ref).collect(),
            _ => Vec::new(),
        };
        for side in compared {
            if let Ok(whole) = side.get_type(schema)
                && whole.is_nested()
            {
                let error = SqlError::new(format!("a whole {} cannot be compared", sql_name(&whole)));
                found = Err(error.hint(match whole {
                    DataType::Struct(_) => "compare its fields: column.field",
                    _ => "compare its elements: column[1], column['key']",
                }));
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    });
    walked.map_err(SqlError::internal)?;
    found
}

/// Refuses the functions of the older form that name the other clock.
fn other_clock(name: &str, named: TimeDomain, at: Option<Position>) -> SqlError {
    let (is, use_it) = match named {
        TimeDomain::EventTime => ("a processing time, and the window is read with _ROWTIME", "_PROCTIME"),
        TimeDomain::ProcessingTime => ("an event time, and the window is read with _PROCTIME", "_ROWTIME"),
    };
    SqlError::at(at, format!("{name} is {is}")).hint(format!("use {use_it}"))
}

fn not_a_time_attribute(name: &str, data_type: &DataType, at: Option<Position>) -> SqlError {
    SqlError::at(
        at,
        format!("{name} is not the event time of its rows, so a window over it could never be complete"),
    )
    .hint(match data_type {
        DataType::Timestamp(..) => {
            "the column must be the one of the table's WATERMARK FOR, PROCTIME(), or window_time of an earlier window, \
                 carried through every query unchanged"
                .to_owned()
        }
        other => format!(
            "the column is {}: a time attribute is a TIMESTAMP with a WATERMARK",
            sql_name(other)
        ),
    })
}

/// Returns where an expression's first column stands.
pub(crate) fn place(expr: &Expr) -> Option<Position> {
    let mut found = None;
    let _ = expr.apply(|expr| {
        if let Expr::Column(column) = expr
            && let Some(span) = column.spans.first()
        {
            found = crate::script::position(sqlparser::tokenizer::Location::new(span.start.line, span.start.column));
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    found
}
