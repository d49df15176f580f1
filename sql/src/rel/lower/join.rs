//! Lowers joins: finds keys, bounds on time and what is left to check of each pair, and filters as early as it can.

use super::Lowering;
use crate::error::{Result, SqlError};
use crate::rel::changes::check_append_only;
use crate::rel::identity::Identity;
use crate::rel::join::{NewJoin, TimeBound};
use crate::rel::prepare::{Prepared, place, prepare_over};
use crate::rel::{Names, Rel, RelColumn, RelId};
use crate::temporal::as_of_time;
use crate::types::sql_name;
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{Column, DFSchema, JoinConstraint, JoinType, ScalarValue};
use datafusion_expr::expr::{Exists, InSubquery};
use datafusion_expr::type_coercion::binary::comparison_coercion;
use datafusion_expr::utils::{conjunction, split_conjunction_owned};
use datafusion_expr::{BinaryExpr, Expr, Filter, Join, LogicalPlan, Operator, Subquery, cast};
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use tidemill_engine::graph::{JoinInput, JoinKind};

/// The rows of both sides side by side: the columns' names there, and where each is.
pub(super) struct Joined {
    pub(super) rel: Rel,
    left_width: usize,
}

impl Joined {
    pub(super) fn new(left: &Rel, right: &Rel) -> Self {
        let mut names = Names::default();
        let identities = |rel: &Rel| -> HashSet<Identity> {
            let columns = rel.columns.iter();
            columns.map(|column| column.identity.clone()).collect()
        };
        let (known_left, known_right) = (identities(left), identities(right));
        let of_left = left.columns.iter().map(|column| ("left", column));
        let of_right = right.columns.iter().map(|column| ("right", column));
        let columns = of_left.chain(of_right).map(|(side, column)| {
            // Where a relation is joined with itself, a condition must say which side's column it reads.
            let is_of_both = known_left.contains(&column.identity) && known_right.contains(&column.identity);
            RelColumn {
                name: names.unique(&column.name),
                identity: match is_of_both {
                    true => Identity::of(&[side, column.identity.text()]),
                    false => column.identity.clone(),
                },
                ..column.clone()
            }
        });
        Self {
            rel: Rel {
                columns: columns.collect(),
                ..left.clone()
            },
            left_width: left.columns.len(),
        }
    }

    fn name(&self, input: JoinInput, column: usize) -> Option<&str> {
        let place = if input == JoinInput::Left {
            column
        } else {
            self.left_width + column
        };
        Some(self.rel.columns.get(place)?.name.as_str())
    }

    pub(super) fn place(&self, name: &str) -> Option<(JoinInput, usize)> {
        let place = self.rel.columns.iter().position(|column| column.name == name)?;
        Some(match place.checked_sub(self.left_width) {
            Some(right) => (JoinInput::Right, right),
            None => (JoinInput::Left, place),
        })
    }

    /// Returns the sides that an expression reads.
    fn sides(&self, expr: &Expr) -> BTreeSet<JoinInput> {
        let refs = expr.column_refs();
        refs.iter()
            .filter_map(|column| self.place(&column.name))
            .map(|(input, _)| input)
            .collect()
    }

    /// Returns the columns that a condition reads: name, side, place.
    pub(super) fn reads(&self, condition: Option<&Prepared>) -> Result<Vec<(String, JoinInput, usize)>> {
        let names: BTreeSet<String> = condition
            .iter()
            .flat_map(|condition| condition.expr.column_refs())
            .map(|column| column.name.clone())
            .collect();
        let read = names.into_iter().map(|name| match self.place(&name) {
            Some((input, place)) => Ok((name, input, place)),
            None => Err(SqlError::internal(format!("the column {name} was lost"))),
        });
        read.collect()
    }

    /// Returns an expression of one side with the names of that side.
    fn of_side(&self, expr: &Expr, rel: &Rel) -> Result<Expr> {
        with_columns(expr, |column| {
            let (_, place) = self.place(&column.name)?;
            Some(rel.columns.get(place)?.name.clone())
        })
    }
}

/// Replaces columns by columns of other names.
pub(super) fn with_columns(expr: &Expr, name: impl Fn(&Column) -> Option<String>) -> Result<Expr> {
    let mut lost = None;
    let replaced = expr.clone().transform_up(|expr| match &expr {
        Expr::Column(column) => match name(column) {
            Some(name) => {
                let mut renamed = Column::new_unqualified(name);
                renamed.spans = column.spans.clone();
                Ok(Transformed::yes(Expr::Column(renamed)))
            }
            None => {
                lost = Some(column.name.clone());
                Ok(Transformed::no(expr))
            }
        },
        _ => Ok(Transformed::no(expr)),
    });
    match lost {
        Some(lost) => Err(SqlError::internal(format!("the column {lost} was lost"))),
        None => Ok(replaced.map_err(SqlError::internal)?.data),
    }
}

fn split(expr: &Expr) -> Vec<Expr> {
    split_conjunction_owned(expr.clone())
}

impl Lowering<'_> {
    /// Lowers WHERE over a join, or with queries in it; `None` when it is an ordinary one.
    pub(super) fn filtered_join(&mut self, filter: &Filter) -> Result<Option<RelId>> {
        let conjuncts = split(&filter.predicate);
        let (queries, plain): (Vec<Expr>, Vec<Expr>) = conjuncts.into_iter().partition(has_query);
        if queries.is_empty() && !matches!(filter.input.as_ref(), LogicalPlan::Join(_)) {
            return Ok(None);
        }
        let mut input = self.lower_filtered(&filter.input, plain)?;
        for query in queries {
            input = self.semi_join(input, filter.input.schema(), &query)?;
        }
        Ok(Some(input))
    }

    /// Lowers a plan with conditions on its rows.
    pub(super) fn lower_filtered(&mut self, plan: &LogicalPlan, conjuncts: Vec<Expr>) -> Result<RelId> {
        if let LogicalPlan::Join(join) = plan {
            return self.join(join, conjuncts);
        }
        let input = self.lower(plan)?;
        self.keep(input, conjuncts, |lowering, predicate| {
            lowering.predicate(&predicate, plan.schema(), input)
        })
    }

    /// Filters a relation.
    pub(super) fn keep(
        &mut self,
        input: RelId,
        conjuncts: Vec<Expr>,
        prepared: impl FnOnce(&Self, Expr) -> Result<Prepared>,
    ) -> Result<RelId> {
        let Some(predicate) = conjunction(conjuncts) else {
            return Ok(input);
        };
        let predicate = prepared(self, predicate)?;
        let columns = &self.rels.get(input).columns;
        let outputs = columns
            .iter()
            .map(|column| (column.name.clone(), Prepared::column(column)));
        let outputs = outputs.collect();
        Ok(self.rels.calc(input, Some(predicate), outputs))
    }

    /// Lowers a join, with conditions on its rows that stand above it.
    pub(super) fn join(&mut self, join: &Join, above: Vec<Expr>) -> Result<RelId> {
        if let (conditions, Some(time)) = as_of_time(join.filter.as_ref()) {
            return self.join_as_of(join, &conditions, time, above);
        }
        let kind = match join.join_type {
            JoinType::Inner => JoinKind::Inner,
            JoinType::Left => JoinKind::Left,
            JoinType::Right => JoinKind::Right,
            JoinType::Full => JoinKind::Full,
            other => {
                let error = SqlError::at(self.at, format!("{other} JOIN is not supported"));
                return Err(error.hint("write WHERE EXISTS (SELECT ...) or WHERE x IN (SELECT ...)"));
            }
        };
        if join.join_constraint == JoinConstraint::Using && matches!(kind, JoinKind::Right | JoinKind::Full) {
            let at = self.script.find_word(self.at, &["USING"]);
            let error = SqlError::at(at, "USING in a RIGHT or FULL join is not supported yet");
            return Err(error.hint("write ON l.x = r.x, and COALESCE(l.x, r.x) for the value of either side"));
        }
        let mut on: Vec<Expr> = join
            .on
            .iter()
            .map(|(left, right)| datafusion_expr::binary_expr(left.clone(), Operator::Eq, right.clone()))
            .collect();
        on.extend(join.filter.iter().flat_map(split));
        let left_width = join.left.schema().fields().len();
        let names = join.schema.as_ref();
        let sides = |expr: &Expr| -> Result<BTreeSet<JoinInput>> {
            let of = |column: &&Column| {
                let place = names
                    .index_of_column(column)
                    .map_err(|error| crate::expr::refusal(&error))?;
                Ok(if place < left_width {
                    JoinInput::Left
                } else {
                    JoinInput::Right
                })
            };
            expr.column_refs().iter().map(of).collect()
        };
        let is_only = |sides: &BTreeSet<JoinInput>, input| sides.len() == 1 && sides.contains(&input);
        // What speaks of one side is asked before the join where that gives the same rows.
        let (mut of_left, mut of_right, mut of_pairs, mut behind) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for expr in above {
            let sides = sides(&expr)?;
            match () {
                () if expr.is_volatile() => behind.push(expr),
                () if is_only(&sides, JoinInput::Left) && !kind.pads(JoinInput::Left) => of_left.push(expr),
                () if is_only(&sides, JoinInput::Right) && !kind.pads(JoinInput::Right) => of_right.push(expr),
                () if kind == JoinKind::Inner && sides.len() == 2 => of_pairs.push(expr),
                () => behind.push(expr),
            }
        }
        for expr in on {
            let sides = sides(&expr)?;
            match () {
                () if expr.is_volatile() => of_pairs.push(expr),
                () if is_only(&sides, JoinInput::Left) && !kind.preserves(JoinInput::Left) => of_left.push(expr),
                () if is_only(&sides, JoinInput::Right) && !kind.preserves(JoinInput::Right) => of_right.push(expr),
                () => of_pairs.push(expr),
            }
        }
        let left = self.lower_filtered(&join.left, of_left)?;
        let right = self.lower_filtered(&join.right, of_right)?;
        let joined = Joined::new(self.rels.get(left), self.rels.get(right));
        let mut conjuncts = Vec::with_capacity(of_pairs.len());
        for expr in &of_pairs {
            conjuncts.push(with_columns(expr, |column| {
                let place = names.index_of_column(column).ok()?;
                Some(joined.rel.columns.get(place)?.name.clone())
            })?);
        }
        let result = self.join_rels(kind, left, right, &joined, conjuncts)?;
        self.keep(result, behind, |lowering, predicate| {
            lowering.predicate(&predicate, names, result)
        })
    }

    /// Joins relations on conditions over their joined row.
    fn join_rels(
        &mut self,
        kind: JoinKind,
        left: RelId,
        right: RelId,
        joined: &Joined,
        conjuncts: Vec<Expr>,
    ) -> Result<RelId> {
        let at = conjuncts.iter().find_map(place);
        let at = at
            .or_else(|| self.script.find_word(self.at, &["JOIN", "IN", "EXISTS"]))
            .or(self.at);
        for input in [left, right] {
            check_append_only(self.rels, input, "a join", at)?;
        }
        let widths = [left, right].map(|id| self.rels.get(id).columns.len());
        let mut sides = [left, right].map(|id| Side::new(self.rels.get(id)));
        let (mut keys, mut bounds, mut rest) = (Vec::new(), Vec::new(), Vec::new());
        for expr in conjuncts {
            bounds_of(&expr, joined, &mut bounds);
            match self.key(&expr, joined, [left, right])? {
                Some([of_left, of_right]) => keys.push((sides[0].place(of_left), sides[1].place(of_right))),
                None => rest.push(expr),
            }
        }
        if keys.is_empty() {
            return Err(
                SqlError::at(at, "a join without an equality between its sides is not supported yet")
                    .hint("write ON l.x = r.x; for one key for all rows give both sides a column with a constant"),
            );
        }
        let condition = match conjunction(rest) {
            Some(expr) => Some(self.over_joined(&joined.rel, expr).map_err(|error| error.or_at(at))?),
            None => None,
        };
        let reads = joined.reads(condition.as_ref())?;
        let [of_left, of_right] = sides;
        let left = of_left.finish(self, left);
        let right = of_right.finish(self, right);
        let join = NewJoin {
            kind,
            keys,
            condition,
            reads,
            bounds,
            widths,
            as_of: None,
        };
        self.rels.join(left, right, join).map_err(|error| error.or_at(at))
    }

    /// Prepares a condition over a relation that need not be among those of the job.
    pub(super) fn over_joined(&self, rel: &Rel, expr: Expr) -> Result<Prepared> {
        let prepared = prepare_over(expr, rel)?;
        match prepared.data_type {
            arrow::datatypes::DataType::Boolean => Ok(prepared),
            ref other => {
                let message = format!("a condition must be BOOLEAN, and this one is {}", sql_name(other));
                Err(SqlError::new(message).hint("compare it with something"))
            }
        }
    }

    /// Returns both sides of an equality between the two relations.
    pub(super) fn key(&self, expr: &Expr, joined: &Joined, rels: [RelId; 2]) -> Result<Option<[Prepared; 2]>> {
        let Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::Eq,
            right,
        }) = expr
        else {
            return Ok(None);
        };
        let only = |expr: &Expr| {
            let sides = joined.sides(expr);
            (sides.len() == 1 && !expr.is_volatile())
                .then(|| sides.first().copied())
                .flatten()
        };
        let (of_left, of_right) = match (only(left), only(right)) {
            (Some(JoinInput::Left), Some(JoinInput::Right)) => (left, right),
            (Some(JoinInput::Right), Some(JoinInput::Left)) => (right, left),
            _ => return Ok(None),
        };
        let at = place(expr).or(self.at);
        let prepared = |expr: &Expr, id: RelId| {
            let rel = self.rels.get(id);
            prepare_over(joined.of_side(expr, rel)?, rel).map_err(|error| error.or_at(at))
        };
        let mut keys = [prepared(of_left, rels[0])?, prepared(of_right, rels[1])?];
        let types = keys.clone().map(|key| key.data_type);
        let names = || format!("{} and {}", sql_name(&types[0]), sql_name(&types[1]));
        let common = comparison_coercion(&types[0], &types[1]);
        let common = common
            .ok_or_else(|| SqlError::at(at, format!("{} cannot be compared", names())).hint("cast one of them"))?;
        if !tidemill_engine::key::supports_key_type(&common) {
            let error = SqlError::at(at, format!("a join by {} is not supported", names()));
            return Err(error.hint("compare their fields, or cast them to STRING"));
        }
        for (key, id) in keys.iter_mut().zip(rels) {
            if key.data_type != common {
                *key = prepare_over(cast(key.expr.clone(), common.clone()), self.rels.get(id))?;
            }
        }
        Ok(Some(keys))
    }

    /// Lowers `x IN (query)`, `EXISTS (query)` and `NOT EXISTS (query)` over a relation.
    fn semi_join(&mut self, left: RelId, names: &DFSchema, expr: &Expr) -> Result<RelId> {
        let mut expr = expr;
        let mut is_negated = false;
        while let Expr::Not(inner) = expr {
            (expr, is_negated) = (inner, !is_negated);
        }
        let at = place(expr)
            .or_else(|| self.script.find_word(self.at, &["EXISTS", "IN"]))
            .or(self.at);
        let (value, query, negated) = match expr {
            Expr::InSubquery(InSubquery {
                expr,
                subquery,
                negated,
            }) => (Some(expr.as_ref()), subquery, is_negated != *negated),
            Expr::Exists(Exists { subquery, negated }) => (None, subquery, is_negated != *negated),
            _ => {
                let error = SqlError::at(at, "a query at this place of a condition is not supported yet");
                return Err(error.hint("write WHERE x IN (SELECT ...) AND ..., or WHERE EXISTS (SELECT ...) AND ..."));
            }
        };
        if negated && value.is_some() {
            let error = SqlError::at(
                at,
                "NOT IN over a query is not supported yet: one NULL in it would mean no rows",
            );
            return Err(error.hint("write NOT EXISTS (SELECT 1 FROM t WHERE t.x = x AND ...)"));
        }
        let kind = if negated { JoinKind::Anti } else { JoinKind::Semi };
        let correlated = Correlated::of(query, value.is_some()).map_err(|error| error.or_at(at))?;
        let right = self.lower(correlated.base)?;
        let joined = Joined::new(self.rels.get(left), self.rels.get(right));
        let inner = correlated.base.schema();
        let resolve = |expr: &Expr| -> Result<Expr> {
            let of_right = with_columns(expr, |column| {
                let place = inner.index_of_column(column).ok()?;
                Some(joined.name(JoinInput::Right, place)?.to_owned())
            })?;
            let mut lost = false;
            let resolved = of_right.transform_up(|expr| match &expr {
                Expr::OuterReferenceColumn(_, column) => {
                    let name = names.index_of_column(column).ok();
                    let name = name.and_then(|place| joined.name(JoinInput::Left, place));
                    lost |= name.is_none();
                    let name = name.unwrap_or_default();
                    Ok(Transformed::yes(Expr::Column(Column::new_unqualified(name))))
                }
                _ => Ok(Transformed::no(expr)),
            });
            match lost {
                true => Err(SqlError::at(
                    at,
                    "a query inside a condition can name columns of the query around it only",
                )),
                false => Ok(resolved.map_err(SqlError::internal)?.data),
            }
        };
        let mut conjuncts = correlated.conjuncts.iter().map(resolve).collect::<Result<Vec<_>>>()?;
        if let (Some(value), Some(of_query)) = (value, &correlated.value) {
            let of_left = with_columns(value, |column| {
                let place = names.index_of_column(column).ok()?;
                Some(joined.name(JoinInput::Left, place)?.to_owned())
            })?;
            conjuncts.push(datafusion_expr::binary_expr(of_left, Operator::Eq, resolve(of_query)?));
        }
        // What speaks of the query alone is asked in it.
        let (of_right, of_pairs): (Vec<Expr>, Vec<Expr>) = conjuncts
            .into_iter()
            .partition(|expr| joined.sides(expr).iter().eq([&JoinInput::Right]) && !expr.is_volatile());
        let right_rel = self.rels.get(right).clone();
        let of_right = of_right.iter().map(|expr| joined.of_side(expr, &right_rel));
        let of_right = of_right.collect::<Result<Vec<_>>>()?;
        let right = self.keep(right, of_right, |lowering, predicate| {
            lowering.over_joined(&right_rel, predicate)
        })?;
        self.join_rels(kind, left, right, &joined, of_pairs)
    }
}

/// A query of a condition, taken apart.
struct Correlated<'a> {
    /// What it reads, without what refers to the query around it.
    base: &'a LogicalPlan,
    /// The conditions, with references to the query around it.
    conjuncts: Vec<Expr>,
    /// What IN compares with.
    value: Option<Expr>,
}

impl<'a> Correlated<'a> {
    fn of(query: &'a Subquery, is_in: bool) -> Result<Self> {
        let plan: &'a Arc<LogicalPlan> = &query.subquery;
        let refers = |plan: &LogicalPlan| !plan.all_out_ref_exprs().is_empty();
        let column = |plan: &LogicalPlan| plan.schema().columns().into_iter().next().map(Expr::Column);
        if !refers(plan) {
            return Ok(Self {
                base: plan,
                conjuncts: Vec::new(),
                value: is_in.then(|| column(plan)).flatten(),
            });
        }
        if let LogicalPlan::Projection(projection) = plan.as_ref()
            && let LogicalPlan::Filter(filter) = projection.input.as_ref()
            && !refers(&filter.input)
        {
            let mut value = projection.expr.first().filter(|_| is_in).cloned();
            while let Some(Expr::Alias(alias)) = value {
                value = Some(*alias.expr);
            }
            let is_plain = value.iter().all(|value| !refers_outside(value));
            if is_plain {
                return Ok(Self {
                    base: &filter.input,
                    conjuncts: split(&filter.predicate),
                    value,
                });
            }
        }
        Err(
            SqlError::new("a query inside a condition can refer to the query around it only in its own WHERE")
                .hint("write EXISTS (SELECT 1 FROM t WHERE t.x = outer.x AND ...), with views for what is more"),
        )
    }
}

fn refers_outside(expr: &Expr) -> bool {
    expr.exists(|expr| Ok(matches!(expr, Expr::OuterReferenceColumn(..))))
        .unwrap_or(true)
}

/// Says whether an expression has a query in it.
fn has_query(expr: &Expr) -> bool {
    let is_query = |expr: &Expr| {
        Ok(matches!(
            expr,
            Expr::InSubquery(_) | Expr::Exists(_) | Expr::ScalarSubquery(_) | Expr::SetComparison(_)
        ))
    };
    expr.exists(is_query).unwrap_or(true)
}

/// A side of a join with the columns that its keys need.
pub(super) struct Side {
    columns: Vec<(String, Prepared)>,
    width: usize,
}

impl Side {
    pub(super) fn new(rel: &Rel) -> Self {
        let columns = rel
            .columns
            .iter()
            .map(|column| (column.name.clone(), Prepared::column(column)));
        let columns: Vec<_> = columns.collect();
        Self {
            width: columns.len(),
            columns,
        }
    }

    /// Returns the place of a key, which is computed before the join if it is no column.
    pub(super) fn place(&mut self, key: Prepared) -> usize {
        let known = self
            .columns
            .iter()
            .position(|(_, column)| column.identity == key.identity);
        known.unwrap_or_else(|| {
            self.columns.push((format!("$key_{}", self.columns.len()), key));
            self.columns.len() - 1
        })
    }

    pub(super) fn finish(self, lowering: &mut Lowering<'_>, rel: RelId) -> RelId {
        if self.columns.len() == self.width {
            return rel;
        }
        lowering.rels.calc(rel, None, self.columns)
    }
}

/// Finds what a condition says of the order of two timestamps, one of each side.
fn bounds_of(expr: &Expr, joined: &Joined, bounds: &mut Vec<TimeBound>) {
    match expr {
        Expr::Between(between) if !between.negated => {
            bound(&between.low, &between.expr, false, joined, bounds);
            bound(&between.expr, &between.high, false, joined, bounds);
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match op {
            Operator::LtEq => bound(left, right, false, joined, bounds),
            Operator::Lt => bound(left, right, true, joined, bounds),
            Operator::GtEq => bound(right, left, false, joined, bounds),
            Operator::Gt => bound(right, left, true, joined, bounds),
            Operator::Eq => {
                bound(left, right, false, joined, bounds);
                bound(right, left, false, joined, bounds);
            }
            _ => {}
        },
        _ => {}
    }
}

fn bound(earlier: &Expr, later: &Expr, is_strict: bool, joined: &Joined, bounds: &mut Vec<TimeBound>) {
    let (Some(earlier), Some(later)) = (Term::of(earlier, joined), Term::of(later, joined)) else {
        return;
    };
    if earlier.column.0 == later.column.0 {
        return;
    }
    let offset_ns = later.offset_ns.saturating_sub(earlier.offset_ns);
    // Rounded up: rows are kept rather too long than too short.
    let mut offset_ms = offset_ns.div_euclid(1_000_000) + i128::from(offset_ns.rem_euclid(1_000_000) != 0);
    if is_strict && earlier.is_in_ms && later.is_in_ms && offset_ns % 1_000_000 == 0 {
        offset_ms -= 1;
    }
    let Ok(offset_ms) = i64::try_from(offset_ms) else {
        return;
    };
    bounds.push(TimeBound {
        earlier: earlier.column,
        later: later.column,
        offset_ms,
    });
}

/// A timestamp column plus a constant.
struct Term {
    column: (JoinInput, usize),
    offset_ns: i128,
    /// Whether the column has whole milliseconds.
    is_in_ms: bool,
}

impl Term {
    fn of(expr: &Expr, joined: &Joined) -> Option<Self> {
        use arrow::datatypes::{DataType, TimeUnit};
        match expr {
            Expr::Alias(alias) => Self::of(&alias.expr, joined),
            Expr::Column(column) => {
                let found = joined.rel.columns.iter().find(|known| known.name == column.name)?;
                let DataType::Timestamp(unit, _) = &found.data_type else {
                    return None;
                };
                Some(Self {
                    column: joined.place(&column.name)?,
                    offset_ns: 0,
                    is_in_ms: matches!(unit, TimeUnit::Millisecond | TimeUnit::Second),
                })
            }
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                let (mut term, by, sign) = match op {
                    Operator::Plus => match Self::of(left, joined) {
                        Some(term) => (term, right, 1),
                        None => (Self::of(right, joined)?, left, 1),
                    },
                    Operator::Minus => (Self::of(left, joined)?, right, -1),
                    _ => return None,
                };
                term.offset_ns = term.offset_ns.checked_add(sign * nanoseconds(by)?)?;
                Some(term)
            }
            _ => None,
        }
    }
}

/// Returns the length of an interval that is always the same.
fn nanoseconds(expr: &Expr) -> Option<i128> {
    const DAY: i128 = 86_400_000_000_000;
    match expr {
        Expr::Alias(alias) => nanoseconds(&alias.expr),
        Expr::Negative(inner) => Some(-nanoseconds(inner)?),
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _) if interval.months == 0 => {
            Some(i128::from(interval.days) * DAY + i128::from(interval.nanoseconds))
        }
        Expr::Literal(ScalarValue::IntervalDayTime(Some(interval)), _) => {
            Some(i128::from(interval.days) * DAY + i128::from(interval.milliseconds) * 1_000_000)
        }
        _ => None,
    }
}
