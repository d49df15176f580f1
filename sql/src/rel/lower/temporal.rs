//! Lowers joins with a versioned table as of an event time: a table with a primary key and a watermark, of which the row
//! with the key counts that was the latest at the stream's time.

use super::Lowering;
use super::join::{Joined, Side, with_columns};
use crate::error::{Position, Result, SqlError};
use crate::rel::changes::check_append_only;
use crate::rel::join::NewJoin;
use crate::rel::prepare::place;
use crate::rel::{RelId, Role};
use crate::types::sql_name;
use arrow::datatypes::DataType;
use datafusion_expr::utils::conjunction;
use datafusion_expr::{Expr, Join, JoinType, LogicalPlan};
use tidemill_engine::graph::{JoinInput, JoinKind};

const HINT: &str = "write stream JOIN table FOR SYSTEM_TIME AS OF stream.ts ON stream.key = table.key, where ts is the stream's \
                    event time, and the table has a WATERMARK and key as PRIMARY KEY (key) NOT ENFORCED; or, to look the table \
                    up as it is, AS OF a column p AS PROCTIME() of the stream";

impl Lowering<'_> {
    /// Lowers a join of the stream `left` as of a `time`, with the other parts of its condition, and conditions that are
    /// asked `behind` it.
    pub(super) fn temporal_join(
        &mut self,
        join: &Join,
        left: RelId,
        conditions: &[&Expr],
        time: &Expr,
        behind: Vec<Expr>,
    ) -> Result<RelId> {
        let at = place(time)
            .or_else(|| self.script.find_word(self.at, &["JOIN"]))
            .or(self.at);
        let kind = match join.join_type {
            JoinType::Inner => JoinKind::Inner,
            JoinType::Left => JoinKind::Left,
            other => return Err(SqlError::at(at, format!("a {other} join as of a time is not supported")).hint(HINT)),
        };
        let names = join.schema.as_ref();
        let (right, key) = self.versioned(&join.right, at)?;
        for input in [left, right] {
            check_append_only(self.rels, input, "a join as of an event time", at)?;
        }
        let joined = Joined::new(self.rels.get(left), self.rels.get(right));
        let resolve = |expr: &Expr| {
            with_columns(expr, |column| {
                let place = names.index_of_column(column).ok()?;
                Some(joined.rel.columns.get(place)?.name.clone())
            })
        };
        let left_time = match resolve(time)? {
            Expr::Column(column) => joined
                .place(&column.name)
                .filter(|(input, _)| *input == JoinInput::Left),
            _ => None,
        };
        let Some((_, left_time)) = left_time else {
            return Err(SqlError::at(at, "FOR SYSTEM_TIME AS OF takes a time column of the stream").hint(HINT));
        };
        let time_of = |id: RelId, column: usize| self.rels.get(id).columns[column].clone();
        if !time_of(left, left_time).role.is_event_time() {
            let message = format!("{} is not the event time of its rows", time_of(left, left_time).name);
            return Err(SqlError::at(at, message).hint(HINT));
        }
        let right_time = self
            .rels
            .get(right)
            .columns
            .iter()
            .position(|column| column.role == Role::EventTime);
        let Some(right_time) = right_time else {
            return Err(SqlError::at(
                at,
                "the table has no WATERMARK, so it is not known when a row became valid",
            )
            .hint(HINT));
        };
        let types = [time_of(left, left_time).data_type, time_of(right, right_time).data_type];
        if let [DataType::Timestamp(of_left, _), DataType::Timestamp(of_right, _)] = &types
            && of_left != of_right
        {
            let message = format!(
                "the stream's time is {} and the table's is {}",
                sql_name(&types[0]),
                sql_name(&types[1])
            );
            return Err(SqlError::at(at, message).hint("declare both with the same precision"));
        }

        let widths = [left, right].map(|id| self.rels.get(id).columns.len());
        let mut sides = [left, right].map(|id| Side::new(self.rels.get(id)));
        let (mut keys, mut rest) = (Vec::new(), Vec::new());
        for condition in conditions {
            let condition = resolve(condition)?;
            let pair = self.key(&condition, &joined, [left, right])?;
            let of_key = pair.filter(|[_, of_right]| {
                let known = |column: &usize| self.rels.get(right).columns[*column].identity == of_right.identity;
                key.iter().any(known)
            });
            match of_key {
                Some([of_left, of_right]) => keys.push((sides[0].place(of_left), sides[1].place(of_right))),
                None => rest.push(condition),
            }
        }
        if let Some(missing) = key
            .iter()
            .find(|column| keys.iter().all(|(_, of_right)| of_right != *column))
        {
            let name = &self.rels.get(right).columns[*missing].name;
            let message = format!("the join has no equality with {name}, which is of the table's primary key");
            return Err(SqlError::at(at, message).hint(format!("add ON stream.x = table.{name}, both of one type")));
        }
        let condition = match conjunction(rest) {
            Some(expr) => Some(self.over_joined(&joined.rel, expr).map_err(|error| error.or_at(at))?),
            None => None,
        };
        let reads = joined.reads(condition.as_ref())?;
        let [of_left, of_right] = sides;
        let left = of_left.finish(self, left);
        let right = of_right.finish(self, right);
        let new = NewJoin {
            kind,
            keys,
            condition,
            reads,
            bounds: Vec::new(),
            widths,
            as_of: Some([left_time, right_time]),
        };
        let result = self.rels.join(left, right, new).map_err(|error| error.or_at(at))?;
        self.keep(result, behind, |lowering, predicate| {
            lowering.predicate(&predicate, names, result)
        })
    }

    /// Lowers the table that the right side of a join is; returns it and the columns of its primary key.
    fn versioned(&mut self, plan: &LogicalPlan, at: Option<Position>) -> Result<(RelId, Vec<usize>)> {
        let mut inner = plan;
        while let LogicalPlan::SubqueryAlias(alias) = inner {
            inner = &alias.input;
        }
        let table = match inner {
            LogicalPlan::TableScan(scan) => self.catalog.scanned(scan.table_name.table()),
            _ => None,
        };
        let Some((_, table)) = table else {
            return Err(
                SqlError::at(at, "only a table can be joined as of a time, and this is a query")
                    .hint("join the table itself, and filter it with conditions in ON"),
            );
        };
        let place = |name: &String| table.columns.iter().position(|column| column.name == *name);
        let key: Vec<usize> = table.primary_key().iter().filter_map(place).collect();
        if key.is_empty() {
            let message = format!(
                "table {} has no PRIMARY KEY, so it has no versions of a row",
                table.name.value
            );
            return Err(SqlError::at(at, message).hint(HINT));
        }
        Ok((self.lower(plan)?, key))
    }
}
