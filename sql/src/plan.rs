//! Plans a text: the steps of this crate, one after the other.
//!
//! File map: `definitions` is about what a text declares beyond plain tables and views, and drops.

mod definitions;

use crate::answers;
use crate::catalog::{Catalog, NO_TABLE, Provider, Table, View};
use crate::connectors::{Connectors, ForExplain};
use crate::error::{Position, Result, SqlError};
use crate::expr::{describe, refusal};
use crate::functions::regexp_extract;
use crate::functions::row_field::NO_FIELD;
use crate::functions::{Functions, UserFunctions};
use crate::group_window;
use crate::guard::{self, Limits, ReferenceCounter};
use crate::hints::Hints;
use crate::insert;
use crate::naming::name_columns;
use crate::rel::emit::{Output, emit};
use crate::rel::lower::Lowering;
use crate::rel::prepare::prepare_with;
use crate::rel::{RelId, Rels};
use crate::script::{Script, position};
use crate::settings::Settings;
use crate::statement::{self, CreateTable, CreateView, Explained, Insert, SetOption, Statement};
use crate::syntax;
use crate::temporal;
use crate::unnest;
use crate::whitelist::Whitelist;
use datafusion_common::{DFSchema, DataFusionError, SchemaError, TableReference};
use datafusion_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion_sql::planner::{NullOrdering, ParserOptions, PlannerContext, SqlToRel};
use serde::{Deserialize, Serialize};
use sqlparser::ast::{Query, Spanned, Statement as SqlStatement};
use sqlparser::tokenizer::Location;
use std::fmt::Write as _;
use std::sync::Arc;
use tidemill_connectors::ConnectorEnvironment;
use tidemill_engine::graph::JobGraph;

/// The stack of the thread that plans: the planner recurses as deep as an expression is long.
const STACK_BYTES: usize = 128 * 1024 * 1024;

/// What to plan with.
#[derive(Clone, Debug, Default)]
pub struct PlanOptions {
    /// The limits on the text.
    pub limits: Limits,
    /// The functions that `CREATE FUNCTION` may name.
    pub functions: UserFunctions,
}

/// A planned text.
pub enum Plan {
    /// A job to run.
    Job(Box<JobPlan>),
    /// What `EXPLAIN`, `SHOW` and `DESCRIBE` answer.
    Explain(String),
}

/// A job.
pub struct JobPlan {
    /// The job's dataflow.
    pub graph: JobGraph,
    /// A hash that is the same for texts that plan to the same operators.
    pub plan_hash: String,
    /// What the text sets.
    pub settings: Settings,
    /// The tables that the job touches.
    pub tables: Vec<TableSummary>,
    /// What the user is to be told, although the job runs: a hint that has no effect, with its place.
    pub notes: Vec<String>,
}

/// A table that a job touches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSummary {
    /// Its name.
    pub name: String,
    /// Its connector.
    pub connector: String,
    /// The columns that the job reads of it; empty when it only writes it.
    pub columns_read: Vec<String>,
    /// True when the job writes it.
    pub is_written: bool,
}

/// Plans the statements of a text into one job.
///
/// Runs on a thread of its own with a large stack. It may allocate as much as the limits allow; a server plans in the
/// job's process.
///
/// # Errors
/// On everything that is not understood or not valid, with its place in the text.
pub fn plan(sql: &str, env: &ConnectorEnvironment, options: &PlanOptions) -> Result<Plan, SqlError> {
    plan_with(sql, env, options)
}

/// Plans with connectors of the caller's own.
///
/// # Errors
/// As [`plan`].
pub fn plan_with(sql: &str, connectors: &dyn Connectors, options: &PlanOptions) -> Result<Plan, SqlError> {
    guard::check_text(sql, &options.limits)?;
    std::thread::scope(|scope| {
        let planning = std::thread::Builder::new()
            .name("sql-planner".into())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, || plan_here(sql, connectors, options))
            .map_err(|error| SqlError::new(format!("cannot start a thread to plan on: {error}")))?;
        planning
            .join()
            .unwrap_or_else(|_| Err(SqlError::internal("the planner panicked")))
    })
}

fn plan_here(sql: &str, connectors: &dyn Connectors, options: &PlanOptions) -> Result<Plan> {
    let script = Script::new(sql)?;
    let planned = guard::check_tokens(&script, &options.limits)
        .and_then(|()| Ok((statement::parse(&script, &options.limits)?, Hints::find(&script)?)))
        .and_then(|(statements, hints)| {
            let mut planner = Planner {
                script: &script,
                limits: &options.limits,
                functions: Functions::new(),
                user_functions: &options.functions,
                connectors,
                catalog: Catalog::default(),
                hints,
                settings: Settings::default(),
                set_options: Vec::new(),
                rels: Rels::default(),
                outputs: Vec::new(),
                explained: Vec::new(),
                answers: Vec::new(),
            };
            for (at, statement) in statements {
                planner.statement(at, statement).map_err(|error| error.or_at(at))?;
            }
            planner.finish()
        });
    planned.map_err(|error| script.locate(error))
}

struct Planner<'a> {
    script: &'a Script<'a>,
    limits: &'a Limits,
    functions: Functions,
    user_functions: &'a UserFunctions,
    connectors: &'a dyn Connectors,
    catalog: Catalog,
    hints: Hints,
    settings: Settings,
    /// What was set, for `RESET`.
    set_options: Vec<SetOption>,
    rels: Rels,
    outputs: Vec<Output>,
    /// What is explained: the logical plan's text and the outputs to show.
    explained: Vec<(String, Output)>,
    /// What `SHOW` and `DESCRIBE` say.
    answers: Vec<String>,
}

impl Planner<'_> {
    fn statement(&mut self, at: Option<Position>, mut statement: Statement) -> Result<()> {
        self.apply_hints(&mut statement)?;
        let answers = matches!(statement, Statement::Explain(_) | Statement::Show(_));
        let runs = matches!(&statement, Statement::Insert(_))
            || matches!(&statement, Statement::CreateTable(create) if create.query.is_some());
        let answered = !self.explained.is_empty() || !self.answers.is_empty();
        if (answers && !self.outputs.is_empty()) || (runs && answered) {
            return Err(SqlError::at(at, "a text either explains or runs").hint(
                "write EXPLAIN in front of every INSERT, or of none; SHOW and DESCRIBE stand in texts that run nothing",
            ));
        }
        match statement {
            Statement::CreateTable(create) if create.query.is_some() => self.create_table_as(at, *create),
            Statement::CreateTable(create) => self.create_table(&create),
            Statement::CreateView(create) => self.create_view(at, &create),
            Statement::CreateFunction(create) => self.create_function(&create),
            Statement::Drop(drop) => self.drop(&drop),
            Statement::Insert(insert) => self.run(at, &insert),
            Statement::Explain(Explained::Insert(insert)) => {
                let (plan, rel, table) = self.insert(at, &insert)?;
                self.explained.push((
                    plan,
                    Output {
                        rel,
                        table: Some(table),
                    },
                ));
                Ok(())
            }
            Statement::Explain(Explained::Query(query)) => {
                let plan = self.query(&query)?;
                let rel = self.lower(at, &plan)?;
                self.explained
                    .push((plan.display_indent().to_string(), Output { rel, table: None }));
                Ok(())
            }
            Statement::Show(show) => {
                self.answers
                    .push(answers::answer(&show, &self.catalog, &self.functions)?);
                Ok(())
            }
            Statement::Set(_) | Statement::Reset(_) if !self.outputs.is_empty() || !self.explained.is_empty() => Err(
                SqlError::at(at, "SET behind a statement that it could not change any more")
                    .hint("settings are the whole job's: write them first"),
            ),
            Statement::Set(option) => {
                self.settings.set(&option)?;
                self.set_options.push(option);
                Ok(())
            }
            Statement::Reset(key) => self.reset(key),
        }
    }

    fn run(&mut self, at: Option<Position>, insert: &Insert) -> Result<()> {
        let (_, rel, table) = self.insert(at, insert)?;
        self.outputs.push(Output {
            rel,
            table: Some(table),
        });
        Ok(())
    }

    fn create_table(&mut self, create: &CreateTable) -> Result<()> {
        if create.if_not_exists && self.catalog.is_taken(&create.name.value) {
            return Ok(());
        }
        self.check_free(&create.name)?;
        let table = self.table(create)?;
        self.catalog.add_table(table)
    }

    /// Makes a table of its statement.
    fn table(&self, create: &CreateTable) -> Result<Table> {
        let merged = self.like(create)?;
        let create = merged.as_ref().unwrap_or(create);
        guard::check_columns(
            self.catalog.columns() + create.columns.len(),
            create.name.at,
            self.limits,
        )?;
        let mut table = Table::new(create)?;
        let physical = table.physical_rel();
        let schema = Arc::new(physical.df_schema()?);
        let names =
            DFSchema::try_from_qualified_schema(TableReference::bare(create.name.value.as_str()), &physical.schema())
                .map_err(SqlError::internal)?;
        for index in 0..table.columns.len() {
            let crate::catalog::Origin::Computed { expr, at } = table.columns[index].origin.clone() else {
                continue;
            };
            self.whitelist().row_expr(&expr)?;
            let planned = self.row_expr(&expr, &names).map_err(|error| error.or_at(at))?;
            let prepared = prepare_with(&planned, &names, &physical, &schema).map_err(|error| error.or_at(at))?;
            table.columns[index].sql_type = prepared.data_type.clone().into();
            table.computed.insert(index, prepared);
        }
        table.set_watermark(create)?;
        Ok(table)
    }

    fn create_view(&mut self, at: Option<Position>, create: &CreateView) -> Result<()> {
        let name = &create.name;
        if create.if_not_exists && self.catalog.is_taken(&name.value) {
            return Ok(());
        }
        self.check_free(name)?;
        let weight = self.weigh(&create.query)?;
        let plan = self.query(&create.query)?;
        // A view that nothing reads is checked, too.
        let rel = self.lower(at, &plan)?;
        let found = self.rels.get(rel).columns.len();
        let mut builder = LogicalPlanBuilder::from(plan);
        if !create.columns.is_empty() {
            if create.columns.len() != found {
                let message = format!(
                    "view {} names {} columns and its query gives {found}",
                    name.value,
                    create.columns.len()
                );
                return Err(SqlError::at(name.at, message).hint("name each column of the query"));
            }
            let columns = builder.schema().columns();
            let renamed = columns.into_iter().zip(&create.columns);
            let renamed = renamed.map(|(column, name)| Expr::Column(column).alias(name.value.as_str()));
            builder = builder
                .project(renamed.collect::<Vec<_>>())
                .map_err(|error| refusal(&error).or_at(name.at))?;
        }
        let plan = builder.build().map_err(|error| refusal(&error).or_at(name.at))?;
        let plan = Arc::new(plan);
        let definition = create.clone();
        self.catalog
            .add_view(name.value.clone(), View { plan, definition }, weight);
        Ok(())
    }

    /// Plans an INSERT; returns the logical plan's text, the rows, and the table.
    fn insert(&mut self, at: Option<Position>, insert: &Insert) -> Result<(String, RelId, usize)> {
        let name = &insert.table;
        if self.catalog.view(&name.value).is_some() {
            return Err(
                SqlError::at(name.at, format!("{} is a view and cannot be written", name.value))
                    .hint("write into a table"),
            );
        }
        let found = self.catalog.table(&name.value);
        let Some((index, _)) = found else {
            return Err(self.catalog.no_such_table(&name.value, name.at));
        };
        let plan = self.query(&insert.query)?;
        let rel = self.lower(at, &plan)?;
        let table = self.catalog.table_at(index);
        let rel = insert::fit(&mut self.rels, rel, table, insert).map_err(|error| error.or_at(at))?;
        let definition = if self.rels.get(rel).changes {
            table.changes_definition()
        } else {
            table.sink_definition().0
        };
        self.connectors
            .check_sink(&definition)
            .map_err(|error| table.connector_error(&error))?;
        Ok((plan.display_indent().to_string(), rel, index))
    }

    fn weigh(&self, query: &Query) -> Result<u64> {
        ReferenceCounter {
            views: &self.catalog.weights,
            limits: self.limits,
        }
        .count(query)
    }

    /// Checks a query and plans it with DataFusion.
    fn query(&self, query: &Query) -> Result<LogicalPlan> {
        self.weigh(query)?;
        let mut query = query.clone();
        group_window::rewrite(&mut query)?;
        unnest::fold(&mut query);
        self.whitelist().query(&query)?;
        temporal::rewrite(&mut query)?;
        let provider = Provider::new(&self.catalog, &self.functions);
        let planner = SqlToRel::new_with_options(&provider, parser_options());
        syntax::rewrite_query(&mut query);
        let at = position(query.span().start);
        name_columns(&mut query);
        let statement = SqlStatement::Query(Box::new(query));
        planner.sql_statement_to_plan(statement).map_err(|error| {
            let error = provider.take_refusal().unwrap_or_else(|| self.planning_error(&error));
            self.in_our_words(error, at).or_at(at)
        })
    }

    fn row_expr(&self, expr: &sqlparser::ast::Expr, names: &DFSchema) -> Result<Expr> {
        let provider = Provider::new(&self.catalog, &self.functions);
        let planner = SqlToRel::new_with_options(&provider, parser_options());
        let mut expr = expr.clone();
        syntax::rewrite_expr(&mut expr);
        planner
            .sql_to_expr(expr, names, &mut PlannerContext::new())
            .map_err(|error| self.planning_error(&error))
    }

    fn lower(&mut self, at: Option<Position>, plan: &LogicalPlan) -> Result<RelId> {
        Lowering {
            script: self.script,
            catalog: &self.catalog,
            rels: &mut self.rels,
            at,
            emit: self.settings.emit,
        }
        .lower(plan)
    }

    /// Says again, in our words and with a hint, what DataFusion says of things that we know more about.
    fn in_our_words(&self, error: SqlError, query_at: Option<Position>) -> SqlError {
        if error.hint.is_some() {
            return error;
        }
        if let Some(name) = error.message.strip_prefix(NO_TABLE) {
            return self.catalog.no_such_table(name, error.position);
        }
        if error.message.contains("non-boolean predicate") {
            let at = error
                .position
                .or_else(|| self.script.find_word(query_at, &["WHERE", "HAVING"]));
            return SqlError::at(at, "a condition must be BOOLEAN").hint("compare the value with something");
        }
        if let Some(name) = error.message.strip_prefix(NO_FIELD) {
            let name: String = name.chars().take_while(|c| !c.is_whitespace() && *c != ':').collect();
            let at = error.position.or_else(|| self.script.find_word(query_at, &[&name]));
            return SqlError { position: at, ..error }.hint("write column.field; names are case-sensitive");
        }
        if error.message.starts_with(regexp_extract::PATTERN) {
            let at = error
                .position
                .or_else(|| self.script.find_word(query_at, &[regexp_extract::NAME]));
            return SqlError { position: at, ..error }.hint("write REGEXP_EXTRACT(text, 'a(b*)c', 1)");
        }
        if error.message.contains("an index stands behind") || error.message.contains("a MAP is made of keys") {
            return error.hint("write list[1], which counts from 1, map['key'] or row.field");
        }
        if error.message.contains("unique expression names") {
            return error.hint("give one of the columns another name with AS");
        }
        if error.message.contains("must be part of the GROUP BY")
            || error.message.contains("could not be resolved from")
        {
            return error.hint("group by the column too, or aggregate it");
        }
        error
    }

    fn whitelist(&self) -> Whitelist<'_> {
        Whitelist {
            script: self.script,
            functions: &self.functions,
        }
    }

    /// Turns DataFusion's error into ours: with its place, if DataFusion knows it, and our words for common ones.
    fn planning_error(&self, error: &DataFusionError) -> SqlError {
        let at = place_of(error);
        match error.find_root() {
            DataFusionError::SchemaError(schema, _) => match schema.as_ref() {
                SchemaError::FieldNotFound { field, valid_fields } => {
                    let refusal = SqlError::at(at, format!("there is no column {}", field.flat_name()));
                    let names: Vec<&str> = valid_fields.iter().map(|field| field.name.as_str()).collect();
                    match crate::functions::nearest(&field.name, names.iter().copied()) {
                        Some(nearest) => refusal.hint(format!("did you mean {nearest}? names are case-sensitive")),
                        None => refusal.hint(format!("columns are {}", names.join(", "))),
                    }
                }
                SchemaError::AmbiguousReference { field } => {
                    SqlError::at(at, format!("the column {} is ambiguous", field.name)).hint("write table.column")
                }
                _ => SqlError::at(at, describe(error)),
            },
            _ => SqlError::at(at, describe(error)),
        }
    }

    fn finish(self) -> Result<Plan> {
        let notes = self.hints.leftover()?;
        if self.explained.is_empty() && self.outputs.is_empty() && !self.answers.is_empty() {
            return Ok(Plan::Explain(self.answers.join("\n")));
        }
        if self.explained.is_empty() && self.outputs.is_empty() {
            return Err(SqlError::new("the text writes no table")
                .hint("add INSERT INTO table SELECT ...; a table WITH ('connector' = 'print') shows rows"));
        }
        if !self.explained.is_empty() {
            let mut text: String = self.answers.iter().map(|answer| format!("{answer}\n")).collect();
            for note in notes {
                let _ = writeln!(text, "note: {note}\n");
            }
            let (plans, outputs): (Vec<String>, Vec<Output>) = self.explained.into_iter().unzip();
            for plan in plans {
                let _ = writeln!(text, "== logical plan ==\n{plan}\n");
            }
            let connectors = ForExplain(self.connectors);
            let emitted = emit(&self.rels, &outputs, &self.catalog, &connectors, &self.settings)?;
            let _ = write!(text, "== job graph ==\n{}", emitted.graph.explain());
            return Ok(Plan::Explain(text));
        }
        let emitted = emit(
            &self.rels,
            &self.outputs,
            &self.catalog,
            self.connectors,
            &self.settings,
        )?;
        emitted.graph.validate().map_err(SqlError::internal)?;
        let mut tables: Vec<TableSummary> = Vec::new();
        let summary = |name: &str, columns_read: Vec<String>, is_written: bool| TableSummary {
            name: self
                .catalog
                .scanned(name)
                .map_or(name, |(_, table)| table.shown_name())
                .to_owned(),
            connector: self
                .catalog
                .scanned(name)
                .map(|(_, table)| table.connector().to_owned())
                .unwrap_or_default(),
            columns_read,
            is_written,
        };
        for (name, columns) in &emitted.reads {
            tables.push(summary(name, columns.clone(), false));
        }
        for output in &self.outputs {
            let Some(name) = output.table.map(|table| &self.catalog.table_at(table).name.value) else {
                continue;
            };
            match tables.iter_mut().find(|table| &table.name == name) {
                Some(table) => table.is_written = true,
                None => tables.push(summary(name, Vec::new(), true)),
            }
        }
        let (graph, plan_hash) = (emitted.graph, emitted.plan_hash);
        Ok(Plan::Job(Box::new(JobPlan {
            graph,
            plan_hash,
            settings: self.settings,
            tables,
            notes,
        })))
    }
}

fn parser_options() -> ParserOptions {
    ParserOptions::new()
        .with_enable_ident_normalization(false)
        .with_parse_float_as_decimal(true)
        .with_support_varchar_with_length(true)
        .with_map_string_types_to_utf8view(false)
        .with_collect_spans(true)
        // As in Flink: null is less than all values.
        .with_default_null_ordering(NullOrdering::NullsMin)
}

/// Returns the place that an error of DataFusion names.
fn place_of(error: &DataFusionError) -> Option<Position> {
    let from_diagnostic = error.diagnostic().and_then(|diagnostic| diagnostic.span);
    let span = from_diagnostic.or_else(|| match error.find_root() {
        DataFusionError::SchemaError(schema, _) => match schema.as_ref() {
            SchemaError::FieldNotFound { field, .. } | SchemaError::AmbiguousReference { field } => field.spans.first(),
            _ => None,
        },
        _ => None,
    })?;
    position(Location::new(span.start.line, span.start.column))
}
