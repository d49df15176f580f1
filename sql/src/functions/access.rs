//! `ARRAY[...]`, `MAP[...]`, `value[...]` and `SUBSTRING ... FROM`, planned with functions of ours.

use arrow::datatypes::DataType;
use datafusion_common::{DFSchema, Result, plan_err};
use datafusion_expr::planner::{ExprPlanner, PlannerResult, RawFieldAccessExpr};
use datafusion_expr::{Expr, ExprSchemable, GetFieldAccess, ScalarUDF, lit};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Plans them.
#[derive(Debug)]
pub(super) struct AccessPlanner {
    item: Option<Arc<ScalarUDF>>,
    substr: Option<Arc<ScalarUDF>>,
    make_array: Option<Arc<ScalarUDF>>,
}

impl AccessPlanner {
    pub(super) fn new(functions: &BTreeMap<String, Arc<ScalarUDF>>) -> Self {
        let find = |name: &str| functions.get(name).cloned();
        Self {
            item: find("item"),
            substr: find("substr"),
            make_array: find("make_array"),
        }
    }
}

impl ExprPlanner for AccessPlanner {
    fn plan_array_literal(&self, exprs: Vec<Expr>, _: &DFSchema) -> Result<PlannerResult<Vec<Expr>>> {
        if exprs.is_empty() {
            return plan_err!("an ARRAY without elements has no type; write CAST(NULL AS ARRAY<INT>) for none");
        }
        match &self.make_array {
            Some(function) => Ok(PlannerResult::Planned(function.call(exprs))),
            None => Ok(PlannerResult::Original(exprs)),
        }
    }

    fn plan_substring(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        match &self.substr {
            Some(function) => Ok(PlannerResult::Planned(function.call(args))),
            None => Ok(PlannerResult::Original(args)),
        }
    }

    fn plan_field_access(
        &self,
        access: RawFieldAccessExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawFieldAccessExpr>> {
        let RawFieldAccessExpr { expr, field_access } = access;
        let found = expr.get_type(schema)?;
        let name = crate::types::sql_name(&found);
        let key = match (&found, field_access) {
            (DataType::Struct(_), GetFieldAccess::NamedStructField { name }) => {
                let Some(name) = name.try_as_str().flatten().map(str::to_owned) else {
                    return plan_err!("a field has a name");
                };
                return Ok(PlannerResult::Planned(super::row_field::row_field(expr, &name)));
            }
            (DataType::List(_), GetFieldAccess::ListIndex { key }) => *key,
            (DataType::Map(..), GetFieldAccess::ListIndex { key }) => *key,
            (DataType::Map(..), GetFieldAccess::NamedStructField { name }) => lit(name),
            (_, GetFieldAccess::ListRange { .. }) => {
                return plan_err!("value[from:to] is not supported; use ARRAY_SLICE(value, from, to)");
            }
            _ => return plan_err!("an index stands behind an ARRAY or a MAP, and this is {name}"),
        };
        match &self.item {
            Some(function) => Ok(PlannerResult::Planned(function.call(vec![expr, key]))),
            None => plan_err!("value[...] is not supported"),
        }
    }
}
