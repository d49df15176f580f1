//! Shows the catalog and the functions to DataFusion's planner.

use super::{Catalog, query_schema};
use crate::error::SqlError;
use crate::expr::describe;
use crate::functions::Functions;
use crate::functions::window::{WindowSide, window_side};
use crate::script::start_of;
use crate::statement::Name;
use crate::types;
use crate::window_function::{WindowFunction, call_of};
use arrow::datatypes::{DataType, Field, FieldRef, SchemaRef};
use datafusion_common::config::ConfigOptions;
use datafusion_common::{Column, DataFusionError, Result, TableReference};
use datafusion_expr::planner::{
    ContextProvider, ExprPlanner, PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
    TypePlanner,
};
use datafusion_expr::{
    AggregateUDF, Expr, HigherOrderUDF, LogicalPlan, LogicalPlanBuilder, ScalarUDF, TableSource, WindowUDF,
};
use sqlparser::ast::{FunctionArg, ObjectName, Spanned, TableAlias, TableFactor};
use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};

/// What DataFusion's planner may ask.
pub(crate) struct Provider<'a> {
    catalog: &'a Catalog,
    functions: &'a Functions,
    options: ConfigOptions,
    relations: Vec<Arc<dyn RelationPlanner>>,
    refusal: Arc<Mutex<Option<SqlError>>>,
}

impl<'a> Provider<'a> {
    /// Shows a catalog.
    pub(crate) fn new(catalog: &'a Catalog, functions: &'a Functions) -> Self {
        let refusal = Arc::new(Mutex::new(None));
        let elements = super::elements::Elements {
            refusal: Arc::clone(&refusal),
        };
        let windows = Windows {
            refusal: Arc::clone(&refusal),
        };
        let relations: Vec<Arc<dyn RelationPlanner>> = vec![Arc::new(elements), Arc::new(windows)];
        Self {
            catalog,
            functions,
            options: ConfigOptions::default(),
            relations,
            refusal,
        }
    }

    /// Returns the refusal of our own that made DataFusion's planner fail, if it was one.
    pub(crate) fn take_refusal(&self) -> Option<SqlError> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ContextProvider for Provider<'_> {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        let name = name.table();
        if let Some(view) = self.catalog.view(name) {
            let schema = Arc::new(view.plan.schema().as_arrow().clone());
            return Ok(Arc::new(Relation {
                schema,
                plan: Some(Arc::clone(&view.plan)),
            }));
        }
        if let Some(late) = self.catalog.late_rows_of(name) {
            let table = late.map_err(|error| {
                let message = error.message.clone();
                *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                DataFusionError::Plan(message)
            })?;
            return Ok(Arc::new(Relation {
                schema: Arc::new(query_schema(table)),
                plan: None,
            }));
        }
        match self.catalog.table(name) {
            Some((_, table)) => Ok(Arc::new(Relation {
                schema: Arc::new(query_schema(table)),
                plan: None,
            })),
            // The planner asks for WITH queries, too: an error here is no refusal yet.
            None => Err(DataFusionError::Plan(self.catalog.no_such_table(name, None).message)),
        }
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        self.functions.planners()
    }

    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        &self.relations
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::new(Types))
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.functions.scalar(name)
    }

    fn get_higher_order_meta(&self, _name: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.functions.aggregate(name)
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.functions.over(name)
    }

    fn get_variable_type(&self, _names: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        &self.options
    }

    fn udf_names(&self) -> Vec<String> {
        self.functions.scalar_names()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udaf_names(&self) -> Vec<String> {
        self.functions.aggregate_names()
    }

    fn udwf_names(&self) -> Vec<String> {
        self.functions.over_names()
    }
}

/// A table or view, for DataFusion's planner.
struct Relation {
    schema: SchemaRef,
    plan: Option<Arc<LogicalPlan>>,
}

impl TableSource for Relation {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn get_logical_plan(&'_ self) -> Option<Cow<'_, LogicalPlan>> {
        self.plan.as_deref().map(Cow::Borrowed)
    }
}

/// Flink's types in `CAST`.
#[derive(Debug)]
struct Types;

impl TypePlanner for Types {
    fn plan_type_field(&self, sql_type: &sqlparser::ast::DataType) -> Result<Option<FieldRef>> {
        match types::from_ast(sql_type) {
            Ok(found) => Ok(Some(Arc::new(Field::new("", found.data_type, true)))),
            Err(error) => Err(DataFusionError::Plan(error.message)),
        }
    }
}

/// Plans `TABLE(TUMBLE(...))` and the like as a projection that appends the window.
#[derive(Debug)]
struct Windows {
    refusal: Arc<Mutex<Option<SqlError>>>,
}

impl RelationPlanner for Windows {
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
        let (name, args, alias): (ObjectName, Vec<FunctionArg>, Option<TableAlias>) = match &relation {
            TableFactor::TableFunction {
                expr: sqlparser::ast::Expr::Function(function),
                alias,
            } => (
                function.name.clone(),
                call_of(function).map_err(refuse)?.to_vec(),
                alias.clone(),
            ),
            TableFactor::Table {
                name,
                args: Some(args),
                alias,
                ..
            } => (name.clone(), args.args.clone(), alias.clone()),
            _ => return Ok(RelationPlanning::Original(Box::new(relation))),
        };
        let call = WindowFunction::parse(&name, &args).map_err(refuse)?;
        let table_at = start_of(call.table.span());
        let input = context.plan(TableFactor::Table {
            name: call.table.clone(),
            alias: None,
            args: None,
            with_hints: Vec::new(),
            version: None,
            with_ordinality: false,
            partitions: Vec::new(),
            json_path: None,
            sample: None,
            index_hints: Vec::new(),
        });
        let input = input.map_err(|error| refuse(SqlError::at(table_at, describe(&error))))?;
        let schema = Arc::clone(input.schema());
        let find = |name: &Name| match schema.qualified_field_with_unqualified_name(&name.value) {
            Ok((qualifier, field)) => Ok((Expr::Column(Column::new(qualifier.cloned(), field.name())), field)),
            Err(_) => {
                let names = schema.fields().iter().map(|field| field.name().as_str());
                let error = SqlError::at(name.at, format!("there is no column {}", name.value));
                Err(refuse(match crate::functions::nearest(&name.value, names) {
                    Some(nearest) => error.hint(format!("did you mean {nearest}?")),
                    None => error.hint("DESCRIPTOR and PARTITION BY name columns of the table"),
                }))
            }
        };
        let (time, field) = find(&call.time)?;
        if !matches!(field.data_type(), DataType::Timestamp(..)) {
            let message = format!(
                "{} is {} and no event time",
                call.time.value,
                types::sql_name(field.data_type())
            );
            let hint = "the column must be a TIMESTAMP with WATERMARK FOR in CREATE TABLE";
            return Err(refuse(SqlError::at(call.time.at, message).hint(hint)));
        }
        let mut of = vec![time];
        for name in &call.partition {
            of.push(find(name)?.0);
        }
        let mut exprs: Vec<Expr> = schema.columns().into_iter().map(Expr::Column).collect();
        for (name, side) in [
            ("window_start", WindowSide::Start),
            ("window_end", WindowSide::End),
            ("window_time", WindowSide::Time),
        ] {
            if schema.fields().iter().any(|field| field.name() == name) {
                let message = format!("the table has a column {name} already");
                let hint = "select the columns that are needed in an inner query, under other names";
                return Err(refuse(SqlError::at(table_at, message).hint(hint)));
            }
            exprs.push(window_side(side, &call, of.clone()).alias(name));
        }
        let plan = LogicalPlanBuilder::from(input).project(exprs)?.build()?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation { plan, alias })))
    }
}
