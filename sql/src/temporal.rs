//! `FOR SYSTEM_TIME AS OF`, said so that DataFusion's planner cannot lose it.
//!
//! | written | planned |
//! |---|---|
//! | `a JOIN b FOR SYSTEM_TIME AS OF a.t ON a.k = b.k` | `a JOIN b ON (a.k = b.k) AND $system_time_as_of(a.t)` |
//!
//! DataFusion's planner drops the version of a table without a word, which would make an ordinary join of it. Here it becomes
//! a part of the join's condition: the planner finds the columns that it names as it does those of the condition, and
//! whoever lowers the join finds it there with [`as_of_time`]. A plan in which nobody looks for it cannot run, for nothing
//! evaluates the function.
//!
//! The whitelist has let the clause through in joins only; [`rewrite`] makes sure that none is left.

use crate::error::{Result, SqlError};
use crate::script::start_of;
use arrow::datatypes::DataType;
use datafusion_expr::utils::split_conjunction;
use datafusion_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use sqlparser::ast::{
    BinaryOperator, Expr as SqlAst, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments,
    Ident, Join, JoinConstraint, JoinOperator, ObjectName, Query, SetExpr, Spanned, TableFactor, TableVersion,
    TableWithJoins, Visit, VisitMut, Visitor, VisitorMut,
};
use std::ops::ControlFlow;
use std::sync::Arc;

/// The function's name; no query can write it, for the whitelist knows no such function.
pub(crate) const AS_OF: &str = "$system_time_as_of";

/// Moves the times of all tables that are joined as of a time into the joins' conditions.
///
/// # Errors
/// When one stands where it cannot be moved from.
pub(crate) fn rewrite(query: &mut Query) -> Result<()> {
    struct Move;
    impl VisitorMut for Move {
        type Break = ();

        fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
            rewrite_body(&mut query.body);
            ControlFlow::Continue(())
        }
    }
    let _ = VisitMut::visit(query, &mut Move);
    struct Left(Option<SqlError>);
    impl Visitor for Left {
        type Break = ();

        fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
            if let TableFactor::Table { version: Some(_), .. } = factor {
                let at = start_of(factor.span());
                let error = SqlError::at(at, "FOR SYSTEM_TIME AS OF is not supported here");
                self.0 = Some(error.hint("write stream JOIN table FOR SYSTEM_TIME AS OF stream.time ON ..."));
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        }
    }
    let mut left = Left(None);
    let _ = Visit::visit(query, &mut left);
    left.0.map_or(Ok(()), Err)
}

/// Rewrites the joins of one query; the queries in it are visited for themselves.
fn rewrite_body(body: &mut SetExpr) {
    match body {
        SetExpr::Select(select) => select.from.iter_mut().for_each(rewrite_from),
        SetExpr::SetOperation { left, right, .. } => {
            rewrite_body(left);
            rewrite_body(right);
        }
        _ => {}
    }
}

fn rewrite_from(from: &mut TableWithJoins) {
    let joined = from.joins.iter_mut().map(|join| &mut join.relation);
    for factor in std::iter::once(&mut from.relation).chain(joined) {
        if let TableFactor::NestedJoin { table_with_joins, .. } = factor {
            rewrite_from(table_with_joins);
        }
    }
    from.joins.iter_mut().for_each(rewrite_join);
}

fn rewrite_join(join: &mut Join) {
    let Join {
        relation: TableFactor::Table { version, .. },
        join_operator:
            JoinOperator::Join(JoinConstraint::On(condition))
            | JoinOperator::Inner(JoinConstraint::On(condition))
            | JoinOperator::Left(JoinConstraint::On(condition))
            | JoinOperator::LeftOuter(JoinConstraint::On(condition)),
        ..
    } = join
    else {
        return;
    };
    if let Some(TableVersion::ForSystemTimeAsOf(time)) =
        version.take_if(|v| matches!(v, TableVersion::ForSystemTimeAsOf(_)))
    {
        let written = std::mem::replace(condition, SqlAst::value(sqlparser::ast::Value::Boolean(true)));
        *condition = SqlAst::BinaryOp {
            left: Box::new(SqlAst::Nested(Box::new(written))),
            op: BinaryOperator::And,
            right: Box::new(call(time)),
        };
    }
}

fn call(time: SqlAst) -> SqlAst {
    SqlAst::Function(Function {
        name: ObjectName::from(vec![Ident::with_quote('"', AS_OF)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: vec![FunctionArg::Unnamed(FunctionArgExpr::Expr(time))],
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

/// Takes a join's condition apart: its parts that must all be true, and the time as of which its table is joined, if it is.
pub(crate) fn as_of_time(condition: Option<&Expr>) -> (Vec<&Expr>, Option<&Expr>) {
    let mut time = None;
    let mut parts = condition.map(split_conjunction).unwrap_or_default();
    parts.retain(|part| match part {
        Expr::ScalarFunction(call) if call.func.inner().downcast_ref::<AsOf>().is_some() => {
            time = call.args.first();
            false
        }
        _ => true,
    });
    (parts, time)
}

/// Returns the function, for DataFusion's planner.
pub(crate) fn function() -> Arc<ScalarUDF> {
    // Volatile, so that nobody takes it out of the condition.
    let signature = Signature::any(1, Volatility::Volatile);
    Arc::new(ScalarUDF::new_from_impl(AsOf { signature }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct AsOf {
    signature: Signature,
}

impl ScalarUDFImpl for AsOf {
    fn name(&self) -> &str {
        AS_OF
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> datafusion_common::Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, _arguments: ScalarFunctionArgs) -> datafusion_common::Result<ColumnarValue> {
        crate::functions::never_evaluated(AS_OF)
    }
}
