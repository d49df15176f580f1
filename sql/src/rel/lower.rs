//! Lowers DataFusion's logical plan of a query into relations.
//!
//! File map: `group` lowers aggregations without a window, `grouping` grouping sets, `join` joins, `late` the late rows of a
//! table, `lookup` joins with a table that is looked up, `over` lowers `OVER`, `rank` finds the filters that make a top-N of
//! numbered rows, `temporal` joins with a versioned table.

mod group;
mod grouping;
mod join;
mod late;
mod lookup;
mod over;
mod rank;
mod temporal;

use super::changes::check_append_only;
use super::identity;
use super::prepare::{Prepared, place, prepare, prepare_over};
use super::{AggregateCall, Rel, RelId, RelKind, Rels, Role, Windowing};
use crate::catalog::{Catalog, of_late_rows};
use crate::error::{Position, Result, SqlError};
use crate::functions::aggregates::{Aggregate as AggregateFunction, AggregateKind, star};
use crate::functions::ambient::draws_numbers;
use crate::functions::elements::row_elements;
use crate::functions::grouping::as_grouping;
use crate::functions::window::{WindowSide, last_ms, row_windows, session_side, window_side_of};
use crate::script::Script;
use crate::settings::EmitSettings;
use crate::types::sql_name;
use crate::window_function::WindowSpec;
use arrow::datatypes::DataType;
use datafusion_common::{Column, DFSchema};
use datafusion_expr::expr::AggregateFunctionParams;
use datafusion_expr::type_coercion::binary::type_union_resolution;
use datafusion_expr::{Aggregate, Distinct, Expr, LogicalPlan, cast};
use grouping::Groupings;
use tidemill_engine::graph::Updates;

/// Lowers queries of one statement.
pub(crate) struct Lowering<'a> {
    pub(crate) script: &'a Script<'a>,
    pub(crate) catalog: &'a Catalog,
    pub(crate) rels: &'a mut Rels,
    /// Where the statement begins: where errors without a place of their own are shown.
    pub(crate) at: Option<Position>,
    /// When windows are told.
    pub(crate) emit: EmitSettings,
}

impl Lowering<'_> {
    /// Lowers a plan; the relation's columns are those of the plan's schema, in order.
    ///
    /// # Errors
    /// On what is not supported yet.
    pub(crate) fn lower(&mut self, plan: &LogicalPlan) -> Result<RelId> {
        match plan {
            LogicalPlan::TableScan(scan) => {
                let name = scan.table_name.table();
                match of_late_rows(name) {
                    Some(of) => self.late_rows(of),
                    None => self.table(name),
                }
            }
            LogicalPlan::SubqueryAlias(alias) => self.lower(&alias.input),
            LogicalPlan::Projection(projection) => {
                let input = self.lower(&projection.input)?;
                let outputs = self.outputs(&projection.expr, projection.input.schema(), input, plan.schema())?;
                let elements = outputs.iter().find_map(|(_, output)| row_elements(&output.expr));
                if elements.is_some() && self.rels.get(input).changes {
                    let at = self.script.find_word(self.at, &["UNNEST", "LATERAL"]);
                    return Err(elements_of_changes(at));
                }
                Ok(self.rels.calc(input, None, outputs))
            }
            LogicalPlan::Join(join) => self.join(join, Vec::new()),
            LogicalPlan::Filter(filter) => {
                if let Some(joined) = self.filtered_join(filter)? {
                    return Ok(joined);
                }
                let input = self.lower(&filter.input)?;
                let predicate = self.predicate(&filter.predicate, filter.input.schema(), input)?;
                if let Some(ranked) = self.bounded_rank(input, &predicate)? {
                    return Ok(ranked);
                }
                let rel = self.rels.get(input);
                let outputs = rel
                    .columns
                    .iter()
                    .map(|column| (column.name.clone(), Prepared::column(column)))
                    .collect();
                Ok(self.rels.calc(input, Some(predicate), outputs))
            }
            LogicalPlan::Union(union) => {
                let inputs = union
                    .inputs
                    .iter()
                    .map(|input| self.lower(input))
                    .collect::<Result<Vec<_>>>()?;
                self.union(inputs)
            }
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate),
            LogicalPlan::Window(window) => self.window_functions(window),
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let input = self.lower(input)?;
                self.distinct(input)
            }
            LogicalPlan::EmptyRelation(_) => {
                Err(SqlError::at(self.at, "a query without FROM reads no stream").hint("add FROM table"))
            }
            other => {
                let name = other.display().to_string();
                let name = name.split(':').next().unwrap_or_default().to_owned();
                Err(SqlError::at(self.at, format!("{name} is not supported yet")).hint("docs/SQL.md lists what is"))
            }
        }
    }

    fn table(&mut self, name: &str) -> Result<RelId> {
        let found = self.catalog.scanned(name);
        let (index, table) = found.ok_or_else(|| SqlError::internal(format!("no table {name}")))?;
        Ok(self.rels.table(index, name, table.rel_columns()))
    }

    fn outputs(
        &self,
        exprs: &[Expr],
        names: &DFSchema,
        input: RelId,
        schema: &DFSchema,
    ) -> Result<Vec<(String, Prepared)>> {
        let rel = self.rels.get(input);
        exprs
            .iter()
            .zip(schema.fields())
            .map(|(expr, field)| {
                Ok((
                    field.name().clone(),
                    prepare(expr, names, rel).map_err(|e| e.or_at(self.at))?,
                ))
            })
            .collect()
    }

    fn predicate(&self, expr: &Expr, names: &DFSchema, input: RelId) -> Result<Prepared> {
        let prepared = prepare(expr, names, self.rels.get(input)).map_err(|error| error.or_at(self.at))?;
        match prepared.data_type {
            DataType::Boolean => Ok(prepared),
            DataType::Null => {
                let expr = cast(prepared.expr.clone(), DataType::Boolean);
                Ok(Prepared {
                    expr,
                    data_type: DataType::Boolean,
                    ..prepared
                })
            }
            ref other => {
                let message = format!("a condition must be BOOLEAN, and this one is {}", sql_name(other));
                Err(SqlError::at(place(expr).or(self.at), message).hint("compare it with something"))
            }
        }
    }

    /// Puts relations together, casting their columns to common types.
    fn union(&mut self, inputs: Vec<RelId>) -> Result<RelId> {
        let Some(&first) = inputs.first() else {
            return Err(SqlError::internal("a union of nothing"));
        };
        let width = self.rels.get(first).columns.len();
        let mut types = Vec::with_capacity(width);
        for index in 0..width {
            let found: Vec<DataType> = inputs
                .iter()
                .filter_map(|input| self.rels.get(*input).columns.get(index))
                .map(|column| column.data_type.clone())
                .collect();
            let common = type_union_resolution(&found).filter(|_| found.len() == inputs.len());
            let Some(common) = common else {
                let names: Vec<String> = found.iter().map(sql_name).collect();
                return Err(SqlError::at(
                    self.at,
                    format!(
                        "column {} of the UNION has types without a common one: {}",
                        index + 1,
                        names.join(", ")
                    ),
                )
                .hint("cast it in one of the queries"));
            };
            types.push(common);
        }
        let mut cast_inputs = Vec::with_capacity(inputs.len());
        for input in inputs {
            let rel = self.rels.get(input);
            let same = rel
                .columns
                .iter()
                .zip(&types)
                .all(|(column, common)| &column.data_type == common);
            cast_inputs.push(if same {
                input
            } else {
                let mut outputs = Vec::with_capacity(width);
                for (column, common) in rel.columns.iter().zip(&types) {
                    let name = Expr::Column(Column::new_unqualified(&column.name));
                    let expr = if &column.data_type == common {
                        name
                    } else {
                        cast(name, common.clone())
                    };
                    outputs.push((
                        column.name.clone(),
                        prepare_over(expr, rel).map_err(|e| e.or_at(self.at))?,
                    ));
                }
                self.rels.calc(input, None, outputs)
            });
        }
        Ok(self.rels.union(cast_inputs))
    }

    /// Lowers `GROUP BY`: a projection of what is needed, the aggregation, and a projection in the query's order.
    fn aggregate(&mut self, aggregate: &Aggregate) -> Result<RelId> {
        let input = self.lower(&aggregate.input)?;
        match self.aggregate_by(aggregate, input, Windowed::ByAggregation)? {
            Some(aggregated) => Ok(aggregated),
            None => {
                if let Some(aggregated) = self.aggregate_by(aggregate, input, Windowed::WithSessions)? {
                    return Ok(aggregated);
                }
                let aggregated = self.aggregate_by(aggregate, input, Windowed::Before)?;
                aggregated.ok_or_else(|| SqlError::internal("an aggregation lost its windows"))
            }
        }
    }

    /// Lowers an aggregation of an input; `None` when it reads windows that it is to find itself.
    fn aggregate_by(&mut self, aggregate: &Aggregate, input: RelId, windowed: Windowed) -> Result<Option<RelId>> {
        let Aggregate {
            input: source,
            group_expr,
            aggr_expr,
            ..
        } = aggregate;
        let names = source.schema();
        let at = group_expr.iter().chain(aggr_expr).find_map(place);
        let at = at.or_else(|| self.script.find_word(self.at, &["GROUP"]));

        // What is grouped by: sides of the window, and keys.
        let groupings = Groupings::of(aggregate)?;
        let mut groups = Vec::new();
        for &expr in &groupings.exprs {
            groups.push(prepare(expr, names, self.rels.get(input)).map_err(|error| error.or_at(at))?);
        }
        if !group::names_window(&groups) {
            return self
                .group_aggregate(aggregate, &groupings, input, &groups, at)
                .map(Some);
        }
        let (start, end, spec) = self.window_of(&groups, at)?;
        let window = groups[start].role.which_window();
        let is_side = |group: &Prepared| group.role.which_window() == window;
        let mut sides = groups.iter().enumerate().filter(|(_, group)| is_side(group));
        if sides.any(|(side, _)| !groupings.is_in_all(side)) {
            return Err(
                SqlError::at(at, "a grouping does not name the window, and another does")
                    .hint("write GROUP BY window_start, window_end, GROUPING SETS ((a), (b), ...)"),
            );
        }
        check_append_only(self.rels, input, "an aggregation by windows", at)?;
        let is_with_sessions = matches!(windowed, Windowed::WithSessions);
        let windowed = match windowed {
            Windowed::ByAggregation | Windowed::WithSessions => self.carry_time(input, &groups[start])?,
            Windowed::Before => None,
        };
        if is_with_sessions && (windowed.is_none() || !matches!(spec, WindowSpec::Session { .. })) {
            return Ok(None);
        }
        let windowed = match (spec, windowed) {
            (WindowSpec::Session { gap_ms }, Some((rel, of)))
                if is_with_sessions || groupings.is_several() || !self.is_partition(rel, &of[1..], &groups) =>
            {
                WindowedRows::Before(self.with_sessions(rel, &of, gap_ms, input, &groups[start])?)
            }
            (_, Some((rel, of))) => WindowedRows::By { rel, time: of[0] },
            (_, None) => WindowedRows::Before(input),
        };

        // The columns that the aggregation reads.
        let mut columns = Columns::default();
        let (keys, windowing) = {
            let mut keys = Vec::new();
            for (index, group) in groups.iter().enumerate() {
                if !is_side(group) {
                    let name = key_name(groupings.exprs[index], group);
                    let key = columns.add(name, group.clone());
                    group::check_key(&group.data_type, place(groupings.exprs[index]).or(at))?;
                    if !keys.contains(&key) {
                        keys.push(key);
                    }
                }
            }
            let windowing = match windowed {
                WindowedRows::By { rel, time } => {
                    let time = &self.rels.get(rel).columns[time];
                    Windowing::Time {
                        time: columns.add(time.name.clone(), Prepared::column(time)),
                        spec,
                    }
                }
                WindowedRows::Before(_) => Windowing::Attached {
                    start: columns.add("window_start".into(), groups[start].clone()),
                    end: columns.add("window_end".into(), groups[end].clone()),
                },
            };
            (keys, windowing)
        };
        let mut calls = Vec::new();
        for expr in aggr_expr.iter().filter(|expr| as_grouping(expr).is_none()) {
            let call = self.call(expr, names, input, &mut columns, at)?;
            calls.push(call);
        }
        let grouped: Vec<Option<usize>> = groups
            .iter()
            .map(|group| {
                let column = columns.find(group)?;
                keys.iter().position(|key| *key == column)
            })
            .collect();
        let (WindowedRows::By { rel: read, .. } | WindowedRows::Before(read)) = windowed;
        let lost = columns
            .0
            .iter()
            .find(|(_, column)| !can_read(&column.expr, self.rels.get(read)));
        if lost.is_some() {
            return Ok(None);
        }
        let projected = self.rels.calc(read, None, columns.0);
        let (projected, keys, grouped) = match groupings.is_several() {
            true => {
                let columns: Vec<_> = grouped.iter().map(|key| key.map(|key| keys[key])).collect();
                let expanded = self.expand(projected, &groupings, &columns)?;
                (expanded.rows, expanded.keys, expanded.grouped)
            }
            false => (projected, keys, grouped),
        };
        let updates = self.updates_of(&groups[start])?;
        if let (Some(_), WindowSpec::Session { .. }, Windowing::Attached { .. }) = (updates, spec, windowing) {
            return Err(sessions_known_before(at));
        }
        let aggregated = self
            .rels
            .window_aggregate(projected, keys.clone(), windowing, spec, calls, updates)
            .map_err(|error| error.or_at(at))?;

        // The query's order: groups, then aggregates.
        let rel = self.rels.get(aggregated);
        let schema = aggregate.schema.fields();
        let mut outputs = Vec::new();
        for (index, group) in groups.iter().enumerate() {
            let output = match (group.role.as_window(), grouped[index]) {
                (Some((_, side, _)), _) if is_side(group) => window_column(rel, keys.len(), side)?,
                (_, Some(key)) => Prepared::column(&rel.columns[key]),
                (_, None) => return Err(SqlError::internal("a grouping key was lost")),
            };
            outputs.push((schema[index].name().clone(), output));
        }
        let results = Results {
            first: keys.len() + 2,
            number: groupings.is_several().then(|| keys.len() - 1),
            rel: aggregated,
        };
        outputs.extend(self.results(aggregate, &groupings, &groups, input, &results, at)?);
        Ok(Some(self.rels.calc(aggregated, None, outputs)))
    }

    /// Returns the outputs behind the groups: the grouping's number, if there are several, and the aggregates.
    fn results(
        &self,
        aggregate: &Aggregate,
        groupings: &Groupings<'_>,
        groups: &[Prepared],
        input: RelId,
        results: &Results,
        at: Option<Position>,
    ) -> Result<Vec<(String, Prepared)>> {
        let rel = self.rels.get(results.rel);
        let mut names = aggregate
            .schema
            .fields()
            .iter()
            .skip(groups.len())
            .map(|field| field.name().clone());
        let mut name = || names.next().ok_or_else(|| SqlError::internal("an aggregate was lost"));
        let mut outputs = Vec::new();
        if let Some(number) = results.number {
            outputs.push((name()?, Prepared::column(&rel.columns[number])));
        }
        let number = results.number.map(|number| rel.columns[number].name.as_str());
        let mut next = results.first;
        for expr in &aggregate.aggr_expr {
            let output = match as_grouping(expr) {
                Some(arguments) => {
                    let input = (aggregate.input.schema().as_ref(), input);
                    self.grouping_call(arguments, groupings, groups, input, (rel, number), at)?
                }
                None => {
                    next += 1;
                    Prepared::column(&rel.columns[next - 1])
                }
            };
            outputs.push((name()?, output));
        }
        Ok(outputs)
    }

    /// Says when windows are told besides when they end; `start` is their start.
    fn updates_of(&self, start: &Prepared) -> Result<Option<Updates>> {
        let Some((time, ..)) = start.role.as_window() else {
            return Ok(None);
        };
        self.emit.updates(time).map_err(|error| error.or_at(self.at))
    }

    /// Finds the window among the grouping keys.
    fn window_of(&self, groups: &[Prepared], at: Option<Position>) -> Result<(usize, usize, WindowSpec)> {
        let sides = |side: WindowSide| {
            groups
                .iter()
                .enumerate()
                .filter_map(move |(index, group)| match group.role.as_window() {
                    Some((_, found, _)) if found == side => Some((index, group.role.which_window()?)),
                    _ => None,
                })
        };
        // Of several windows, the first one with both sides: the others are keys.
        let found = sides(WindowSide::Start).find_map(|(start, window)| {
            let mut ends = sides(WindowSide::End);
            let (end, (_, spec, _)) = ends.find(|(_, other)| *other == window)?;
            Some((start, end, spec))
        });
        if let Some(found) = found {
            return Ok(found);
        }
        match (sides(WindowSide::Start).next(), sides(WindowSide::End).next()) {
            (Some(_), Some(_)) => Err(SqlError::at(at, "window_start and window_end are of different windows")
                .hint("group by both columns of one window function")),
            (Some(_), None) => Err(SqlError::at(at, "GROUP BY names window_start without window_end")
                .hint("write GROUP BY window_start, window_end, ...")),
            (None, Some(_)) => Err(SqlError::at(at, "GROUP BY names window_end without window_start")
                .hint("write GROUP BY window_start, window_end, ...")),
            (None, None) => Err(SqlError::internal("an aggregation lost its window")),
        }
    }

    /// Says whether an aggregation of sessions has the keys that the sessions are kept apart by: those and no others.
    fn is_partition(&self, rel: RelId, of: &[usize], groups: &[Prepared]) -> bool {
        let partition: Vec<_> = of.iter().map(|index| &self.rels.get(rel).columns[*index]).collect();
        let is_session = |group: &Prepared| matches!(group.role.as_window(), Some((.., WindowSpec::Session { .. })));
        let keys = || groups.iter().filter(|group| !is_session(group));
        let mut missing = partition
            .iter()
            .filter(|column| keys().all(|key| key.identity != column.identity));
        let mut others = keys().filter(|key| partition.iter().all(|column| key.identity != column.identity));
        missing.next().is_none() && others.next().is_none()
    }

    /// Gives rows their sessions, under the names that these have in `input`: by the column of the time and those that keep
    /// sessions apart.
    fn with_sessions(
        &mut self,
        rel: RelId,
        of: &[usize],
        gap_ms: i64,
        input: RelId,
        start: &Prepared,
    ) -> Result<RelId> {
        let source = self.rels.get(rel);
        let args = of.iter().map(|index| Prepared::column(&source.columns[*index]).expr);
        let args: Vec<Expr> = args.collect();
        let mut outputs: Vec<_> = source
            .columns
            .iter()
            .map(|column| (column.name.clone(), Prepared::column(column)))
            .collect();
        for column in &self.rels.get(input).columns {
            let is_known = source.columns.iter().any(|known| known.name == column.name);
            if let Some((_, side, _)) = column.role.as_window()
                && column.role.which_window() == start.role.which_window()
                && !is_known
            {
                let side = prepare_over(session_side(side, gap_ms, args.clone()), source)?;
                outputs.push((column.name.clone(), side));
            }
        }
        Ok(self.rels.calc(rel, None, outputs))
    }

    /// Finds the columns from which a window's start is computed (the time, and what sessions are kept apart by), and
    /// carries them along to `input`. `None` when the rows come with their windows, from an earlier aggregation or a
    /// union.
    fn carry_time(&mut self, input: RelId, start: &Prepared) -> Result<Option<(RelId, Vec<usize>)>> {
        let Expr::Column(column) = &start.expr else {
            return Ok(None);
        };
        let columns = &self.rels.get(input).columns;
        match columns.iter().position(|known| known.name == column.name) {
            Some(index) => self.carry(input, index),
            None => Ok(None),
        }
    }

    fn carry(&mut self, id: RelId, index: usize) -> Result<Option<(RelId, Vec<usize>)>> {
        let rel = self.rels.get(id).clone();
        let RelKind::Calc {
            input,
            predicate,
            outputs,
        } = &rel.kind
        else {
            return Ok(None);
        };
        let position = |rels: &Rels, name: &str| rels.get(*input).columns.iter().position(|known| known.name == name);
        let found = match &outputs[index] {
            Expr::Column(column) => match position(self.rels, &column.name) {
                Some(index) => self.carry(*input, index)?,
                None => None,
            },
            Expr::ScalarFunction(call) if window_side_of(&call.func).is_some() => {
                let place = |expr: &Expr| match expr {
                    Expr::Column(column) => position(self.rels, &column.name),
                    _ => None,
                };
                let of = call.args.iter().map(place).collect::<Option<Vec<usize>>>();
                of.map(|of| (*input, of))
            }
            _ => None,
        };
        let Some((new_input, of)) = found else { return Ok(None) };
        // The columns of the new input have the names they had in the old one, so all expressions stay as they are. Only
        // where a row has a window of its own are the window's columns still there.
        let kept = |expr: &Expr| can_read(expr, self.rels.get(new_input)) && row_windows(expr).is_none();
        if let (Some(_), Some(predicate)) = (rel.columns[index].role.as_window(), predicate)
            && !kept(&predicate.expr)
        {
            return Ok(None);
        }
        let outputs: Vec<_> = rel.columns.iter().zip(outputs).filter(|(_, expr)| kept(expr)).collect();
        let kept_all = outputs.len() == rel.columns.len();
        let prepared = |(column, expr): (&super::RelColumn, &Expr)| {
            let super::RelColumn {
                name,
                data_type,
                identity,
                role,
            } = column.clone();
            (
                name,
                Prepared {
                    expr: expr.clone(),
                    identity,
                    data_type,
                    role,
                },
            )
        };
        let mut carried: Vec<(String, Prepared)> = outputs.iter().copied().map(prepared).collect();
        let mut places = Vec::with_capacity(of.len());
        for index in of {
            let wanted = self.rels.get(new_input).columns[index].clone();
            let known = outputs.iter().position(|(_, output)| {
                matches!(output, Expr::Column(column) if column.name == wanted.name) && new_input == *input
            });
            places.push(known.unwrap_or(carried.len()));
            match known {
                // Behind sessions it is no time attribute.
                Some(known) => carried[known].1.role = wanted.role,
                None => {
                    // Not under the name that another column has here: what reads that one would read this one.
                    let mut name = wanted.name.clone();
                    while rel
                        .columns
                        .iter()
                        .any(|column| column.name == name && column.identity != wanted.identity)
                    {
                        name.push('_');
                    }
                    carried.push((name, Prepared::column(&wanted)));
                }
            }
        }
        if kept_all && carried.len() == rel.columns.len() {
            return Ok(Some((id, places)));
        }
        Ok(Some((self.rels.calc(new_input, predicate.clone(), carried), places)))
    }

    /// Lowers a call of an aggregate.
    fn call(
        &self,
        expr: &Expr,
        names: &DFSchema,
        input: RelId,
        columns: &mut Columns,
        at: Option<Position>,
    ) -> Result<AggregateCall> {
        let rel = self.rels.get(input);
        let mut inner = expr;
        while let Expr::Alias(alias) = inner {
            inner = &alias.expr;
        }
        let Expr::AggregateFunction(call) = inner else {
            return Err(SqlError::internal(format!("{inner} is no aggregate")));
        };
        let AggregateFunctionParams {
            args,
            distinct,
            filter,
            order_by,
            null_treatment,
        } = &call.params;
        let Some(function) = call.func.inner().downcast_ref::<AggregateFunction>() else {
            return Err(SqlError::internal(format!("{} is not our aggregate", call.func.name())));
        };
        if !order_by.is_empty() || null_treatment.is_some() {
            return Err(
                SqlError::at(at, format!("this form of {} is not supported", call.func.name()))
                    .hint("write function(column)"),
            );
        }
        let place = place(expr).or(at);
        let (kind, args) = function.kind.of(args).map_err(|message| SqlError::at(place, message))?;
        let mut arguments = Vec::new();
        let is_star = kind == AggregateKind::Count && !*distinct && args == [star()];
        if !is_star {
            let prepare = |argument: &Expr| prepare(argument, names, rel).map_err(|error| error.or_at(place));
            let mut prepared = args.iter().map(prepare).collect::<Result<Vec<_>>>()?;
            let types: Vec<_> = prepared.iter().map(|prepared| prepared.data_type.clone()).collect();
            let types = kind.declared(&types).map_err(|message| SqlError::at(place, message))?;
            for ((found, argument), wanted) in prepared.iter_mut().zip(args).zip(&types) {
                if *wanted != found.data_type {
                    *found = prepare(&datafusion_expr::cast(argument.clone(), wanted.clone()))?;
                }
            }
            kind.function(&types, *distinct)
                .map_err(|message| SqlError::at(place, message).hint("cast the argument"))?;
            for prepared in prepared {
                arguments.push(columns.add(column_name(&prepared), prepared));
            }
        }
        let filter = match filter {
            Some(filter) => {
                let prepared = self.predicate(filter, names, input)?;
                Some(columns.add(column_name(&prepared), prepared))
            }
            None => None,
        };
        Ok(AggregateCall {
            kind,
            distinct: *distinct,
            arguments,
            filter,
        })
    }
}

/// Refuses joins with the elements of rows that are taken back.
pub(super) fn elements_of_changes(at: Option<Position>) -> SqlError {
    SqlError::at(
        at,
        "UNNEST and LATERAL TABLE over a result that changes are not supported yet",
    )
    .hint("join with the elements first, and aggregate what comes of it")
}

/// Says whether all columns of an expression are there.
fn can_read(expr: &Expr, rel: &Rel) -> bool {
    let known = |column: &&Column| rel.columns.iter().any(|known| known.name == column.name);
    expr.column_refs().iter().all(known)
}

/// Refuses to tell sessions more than once whose rows must be known to be of them.
fn sessions_known_before(at: Option<Position>) -> SqlError {
    SqlError::at(
        at,
        "SESSION that is told before or after its end ('table.exec.emit.*') is grouped by what PARTITION BY names, in one \
         grouping, and its window columns are read by GROUP BY, SELECT and HAVING alone",
    )
    .hint("write GROUP BY window_start, window_end and the columns of PARTITION BY, or remove the settings")
}

/// The result of an aggregation.
struct Results {
    rel: RelId,
    /// The column of the first aggregate.
    first: usize,
    /// The column of the grouping's number.
    number: Option<usize>,
}

/// The rows of an aggregation.
#[derive(Clone, Copy)]
enum WindowedRows {
    /// The aggregation finds their windows by this column.
    By { rel: RelId, time: usize },
    /// They have their windows.
    Before(RelId),
}

/// Where rows get their windows.
#[derive(Clone, Copy)]
enum Windowed {
    /// In the aggregation, by the time: a row is aggregated once, however many windows it is in.
    ByAggregation,
    /// As sessions of the rows that the aggregation's own `WHERE` has left, because something reads their windows.
    WithSessions,
    /// Before it, because something reads the windows: a row is there once per window.
    Before,
}

/// The columns that an aggregation reads, each once.
#[derive(Default)]
struct Columns(Vec<(String, Prepared)>);

impl Columns {
    fn find(&self, prepared: &Prepared) -> Option<usize> {
        self.0
            .iter()
            .position(|(_, known)| known.identity == prepared.identity && !draws_numbers(&known.expr))
    }

    fn add(&mut self, name: String, prepared: Prepared) -> usize {
        if let Some(known) = self.find(&prepared) {
            return known;
        }
        // Names are part of the state's format, so they are made unique here, in order.
        let mut unique = name.clone();
        let mut number = 0;
        while self.0.iter().any(|(known, _)| *known == unique) {
            unique = format!("{name}_{number}");
            number += 1;
        }
        self.0.push((unique, prepared));
        self.0.len() - 1
    }
}

fn column_name(prepared: &Prepared) -> String {
    identity::write(&prepared.expr, &|column| column.name.clone())
}

fn key_name(expr: &Expr, prepared: &Prepared) -> String {
    match expr {
        Expr::Alias(alias) => alias.name.clone(),
        _ => column_name(prepared),
    }
}

/// Returns a side of the window of an aggregation with so many keys.
fn window_column(rel: &Rel, keys: usize, side: WindowSide) -> Result<Prepared> {
    match side {
        WindowSide::Start => Ok(Prepared::column(&rel.columns[keys])),
        WindowSide::End => Ok(Prepared::column(&rel.columns[keys + 1])),
        WindowSide::Time => {
            let end = &rel.columns[keys + 1];
            let Some((time, spec, of)) = end.role.which_window() else {
                return Err(SqlError::internal("a window without its role"));
            };
            let prepared = prepare_over(last_ms(Expr::Column(Column::new_unqualified(&end.name))), rel)?;
            Ok(Prepared {
                role: Role::window(time, WindowSide::Time, spec, of),
                ..prepared
            })
        }
    }
}
