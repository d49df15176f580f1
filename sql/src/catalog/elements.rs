//! Plans joins with the elements of a row's arrays: see [`crate::unnest`].

use crate::error::SqlError;
use crate::expr::describe;
use crate::functions::elements::{Part, element};
use crate::functions::row_field::row_field;
use crate::script::start_of;
use crate::types::sql_name;
use crate::unnest;
use arrow::datatypes::DataType;
use datafusion_common::{DataFusionError, Result, TableReference};
use datafusion_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion_expr::{Expr, ExprSchemable, LogicalPlanBuilder};
use sqlparser::ast::{Spanned, TableFactor};
use std::sync::{Arc, Mutex, PoisonError};

/// The planner.
#[derive(Debug)]
pub(super) struct Elements {
    pub(super) refusal: Arc<Mutex<Option<SqlError>>>,
}

impl RelationPlanner for Elements {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let refuse = |error: SqlError| {
            let message = error.message.clone();
            *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            DataFusionError::Plan(message)
        };
        let TableFactor::NestedJoin {
            table_with_joins,
            alias: None,
        } = &relation
        else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let [join] = table_with_joins.joins.as_slice() else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let Some(found) = unnest::of_join(join).map_err(refuse)? else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let at = start_of(found.of.span()).or(unnest::place(join));
        let input = context.plan(table_with_joins.relation.clone())?;
        let schema = Arc::clone(input.schema());
        let of = context.sql_to_expr(found.of, &schema)?;
        // What a function of Flink's gives is known once it is written with others.
        let of = crate::rewrite::rewrite(of).map_err(refuse)?;
        let data_type = of.get_type(&schema)?;
        let value = element(Part::Value, found.childless, of.clone());
        let (DataType::List(item) | DataType::Map(item, _)) = &data_type else {
            let message = format!(
                "UNNEST and LATERAL TABLE take an ARRAY or a MAP, not {}",
                sql_name(&data_type)
            );
            let hint = "name a column of such a type, or a function that gives one";
            return Err(refuse(SqlError::at(at, message).hint(hint)));
        };
        let mut columns: Vec<(String, Expr)> = match item.data_type() {
            DataType::Struct(fields) => {
                let column = |name: &String| (name.clone(), row_field(value.clone(), name));
                fields.iter().map(|field| column(field.name())).collect()
            }
            _ => vec![("f0".to_owned(), value)],
        };
        if found.with_ordinality {
            columns.push(("ORDINALITY".to_owned(), element(Part::Ordinality, found.childless, of)));
        }
        let mut qualifier = None;
        if let Some(alias) = found.alias {
            if !alias.columns.is_empty() && alias.columns.len() != columns.len() {
                let (named, given) = (alias.columns.len(), columns.len());
                let message = format!("{} names {named} columns and there are {given}", alias.name.value);
                let names: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
                let hint = format!("name one for each of: {}", names.join(", "));
                return Err(refuse(SqlError::at(start_of(alias.name.span), message).hint(hint)));
            }
            for ((name, _), given) in columns.iter_mut().zip(&alias.columns) {
                name.clone_from(&given.name.value);
            }
            qualifier = Some(TableReference::bare(alias.name.value));
        }
        let mut exprs: Vec<Expr> = schema.columns().into_iter().map(Expr::Column).collect();
        for (name, expr) in columns {
            exprs.push(expr.alias_qualified(qualifier.clone(), name));
        }
        let plan = LogicalPlanBuilder::from(input)
            .project(exprs)
            .and_then(LogicalPlanBuilder::build)
            .map_err(|error| refuse(SqlError::at(at, describe(&error)).hint("give the columns other names")))?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation {
            plan,
            alias: None,
        })))
    }
}
