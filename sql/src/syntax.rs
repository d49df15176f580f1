//! Flink's forms of expressions that DataFusion's planner does not know, written as calls.
//!
//! | written | called |
//! |---|---|
//! | `FLOOR(x TO HOUR)`, `CEIL(x TO HOUR)` | `floor_to(x, 'HOUR')`, `ceil_to(x, 'HOUR')` |
//! | `TIMESTAMPADD(HOUR, n, x)`, `TIMESTAMPDIFF(HOUR, x, y)` | the unit as text |
//! | JSON functions with clauses | see [`crate::json_syntax`] |

use sqlparser::ast::{
    AccessExpr, CeilFloorKind, DateTimeField, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList,
    FunctionArguments, Ident, ObjectName, ObjectNamePart, Query, Value, VisitMut, VisitorMut,
};
use sqlparser::tokenizer::Span;
use std::ops::ControlFlow;

/// Rewrites a query.
pub(crate) fn rewrite_query(query: &mut Query) {
    let _ = VisitMut::visit(query, &mut Rewrite);
}

/// Rewrites an expression.
pub(crate) fn rewrite_expr(expr: &mut Expr) {
    let _ = VisitMut::visit(expr, &mut Rewrite);
}

/// Makes a call.
pub(crate) fn call(name: &str, span: Span, args: Vec<Expr>) -> Expr {
    let unnamed = |expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(expr));
    Expr::Function(Function {
        name: ObjectName(vec![ObjectNamePart::Identifier(Ident::with_span(span, name))]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: args.into_iter().map(unnamed).collect(),
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

/// Makes a text literal.
pub(crate) fn text(value: impl Into<String>) -> Expr {
    Expr::Value(Value::SingleQuotedString(value.into()).into())
}

struct Rewrite;

impl VisitorMut for Rewrite {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let span = sqlparser::ast::Spanned::span(expr);
        match expr {
            Expr::Floor {
                expr: inner,
                field: CeilFloorKind::DateTimeField(unit),
            } if *unit != DateTimeField::NoDateTime => {
                *expr = call("floor_to", span, vec![inner.as_ref().clone(), text(unit.to_string())]);
            }
            Expr::Ceil {
                expr: inner,
                field: CeilFloorKind::DateTimeField(unit),
            } if *unit != DateTimeField::NoDateTime => {
                *expr = call("ceil_to", span, vec![inner.as_ref().clone(), text(unit.to_string())]);
            }
            // The planner takes the name of a field as text.
            Expr::CompoundFieldAccess { access_chain, .. } => {
                for access in access_chain {
                    if let AccessExpr::Dot(Expr::Identifier(field)) = access {
                        *access = AccessExpr::Dot(text(field.value.clone()));
                    }
                }
            }
            Expr::Function(function) => {
                if let Some(call) = crate::json_syntax::rewritten(function) {
                    *expr = call;
                    return ControlFlow::Continue(());
                }
                let name = function.name.to_string().to_ascii_lowercase();
                let FunctionArguments::List(list) = &mut function.args else {
                    return ControlFlow::Continue(());
                };
                match name.as_str() {
                    "timestampadd" | "timestampdiff" => {
                        if let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(unit))) = list.args.first_mut()
                            && let Expr::Identifier(word) = unit
                        {
                            *unit = text(word.value.clone());
                        }
                    }
                    _ => {}
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}
