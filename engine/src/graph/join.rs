//! Joins of two streams, as the graph describes them.

use super::{CustomOperator, Distribution, JobGraph, NodeKind, StreamId, WatermarkExpr, check_timestamp, field_at};
use crate::error::{Error, Result};
use crate::expr::Expr;
use crate::operators::join::JoinOperator;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use std::sync::Arc;
use std::time::Duration;

/// A side of a join.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum JoinInput {
    /// The first input.
    Left,
    /// The second input.
    Right,
}

impl JoinInput {
    /// Both, in order.
    pub const BOTH: [JoinInput; 2] = [JoinInput::Left, JoinInput::Right];

    /// Returns the other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Left => Self::Right,
            Self::Right => Self::Left,
        }
    }
}

/// What a join emits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JoinKind {
    /// Every pair that matches.
    Inner,
    /// Every pair, and left rows without a match with nulls in place of the right one.
    Left,
    /// Every pair, and right rows without a match with nulls in place of the left one.
    Right,
    /// Every pair, and the rows of both sides without a match.
    Full,
    /// Every left row that has a match, once.
    Semi,
    /// Every left row that has no match.
    Anti,
}

impl JoinKind {
    /// Says whether rows of a side are emitted because they have no match.
    #[must_use]
    pub fn preserves(self, input: JoinInput) -> bool {
        match self {
            Self::Inner | Self::Semi => false,
            Self::Left | Self::Anti => input == JoinInput::Left,
            Self::Right => input == JoinInput::Right,
            Self::Full => true,
        }
    }

    /// Says whether a side's columns may be null because there was no match.
    #[must_use]
    pub fn pads(self, input: JoinInput) -> bool {
        self != Self::Anti && self.preserves(input.other())
    }

    /// Says whether only left rows come out.
    #[must_use]
    pub fn is_of_left_rows(self) -> bool {
        matches!(self, Self::Semi | Self::Anti)
    }
}

/// A timestamp column and what is added to it, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShiftedTime {
    /// The column.
    pub column: usize,
    /// What is added, in milliseconds.
    pub offset_ms: i64,
}

/// How long a join keeps the rows of a side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeepRows {
    /// For ever.
    Forever,
    /// For a time after their arrival, in the wall time of ticks. Only for sides whose rows need no match to be emitted.
    For(Duration),
    /// Until the watermark of the other side reaches the least of these times, never none. It must follow from the condition
    /// that no row of the other side with a later event time can match.
    Until(Vec<ShiftedTime>),
}

/// A side of a join.
#[derive(Clone, Debug)]
pub struct JoinSide {
    /// The columns that must equal those of the other side, in order. Rows with a null among them match nothing.
    pub keys: Vec<usize>,
    /// The event time; rows at or before the watermark are late: dropped and counted. None: no row is late.
    pub time: Option<ShiftedTime>,
    /// How long rows are kept.
    pub keep: KeepRows,
    /// How far the side's watermark is held back for rows that come out: added to its delay, in milliseconds.
    pub watermark_delay_ms: i64,
}

/// What must be true of a pair besides equal keys.
#[derive(Clone, Debug)]
pub struct JoinCondition {
    /// The columns that the expression reads, in its order, by the names it knows.
    pub columns: Vec<(JoinInput, usize, String)>,
    /// The condition; null counts as false.
    pub expr: Expr,
}

/// A join of two streams.
///
/// Every pair of rows is looked at once: when the later one arrives. A row without a match is emitted when the watermark
/// says that none can come. Rows in state are dropped by [`KeepRows`].
#[derive(Clone, Debug)]
pub struct Join {
    /// What it emits.
    pub kind: JoinKind,
    /// Left and right.
    pub sides: [JoinSide; 2],
    /// The condition besides the keys.
    pub condition: Option<JoinCondition>,
    /// The columns that come out, with their names. Of a semi or anti join only left ones.
    pub outputs: Vec<(JoinInput, usize, String)>,
}

impl Join {
    /// Returns a side.
    #[must_use]
    pub fn side(&self, input: JoinInput) -> &JoinSide {
        &self.sides[input as usize]
    }

    /// Returns a word for the kind of join.
    fn name(&self) -> String {
        let kind = match self.kind {
            JoinKind::Inner => "inner",
            JoinKind::Left => "left",
            JoinKind::Right => "right",
            JoinKind::Full => "full",
            JoinKind::Semi => "semi",
            JoinKind::Anti => "anti",
        };
        format!("{kind} join")
    }
}

impl JobGraph {
    /// Joins two streams; they may be the same one.
    ///
    /// # Errors
    /// When a column does not exist or has a wrong type, there is no key, or a side whose rows are emitted without a match is
    /// not dropped by the watermark.
    pub fn join(&mut self, uid: impl Into<String>, left: StreamId, right: StreamId, join: Join) -> Result<StreamId> {
        let schemas = [Arc::clone(self.schema(left)), Arc::clone(self.schema(right))];
        for input in [left, right] {
            self.check_append_only(input, "a join")?;
        }
        check(&join, &schemas)?;
        let output = output_schema(&join, &schemas)?;
        let mut watermark = WatermarkExpr::default();
        let mut distributions = Vec::new();
        for (input, side) in [left, right].into_iter().zip(&join.sides) {
            watermark.merge(self.watermark(input), side.watermark_delay_ms);
            distributions.push(Distribution::Hash(side.keys.clone()));
        }
        let schema = Arc::clone(&output);
        let custom = CustomOperator {
            name: join.name(),
            distributions,
            schema: Arc::clone(&output),
            factory: Arc::new(move |context| {
                let operator = JoinOperator::new(&join, &schemas, Arc::clone(&output), context.clone())?;
                Ok(Box::new(operator))
            }),
            watermark_delay_ms: 0,
        };
        self.push(
            uid.into(),
            NodeKind::Custom(custom),
            vec![left, right],
            schema,
            watermark,
        )
    }
}

fn check(join: &Join, schemas: &[SchemaRef; 2]) -> Result<()> {
    let [left, right] = &join.sides;
    if left.keys.is_empty() || left.keys.len() != right.keys.len() {
        return Err(Error::Graph(
            "a join needs columns that must be equal, as many on each side".into(),
        ));
    }
    for (&of_left, &of_right) in left.keys.iter().zip(&right.keys) {
        let (of_left, of_right) = (field_at(&schemas[0], of_left)?, field_at(&schemas[1], of_right)?);
        if of_left.data_type() != of_right.data_type() || !crate::key::supports_key_type(of_left.data_type()) {
            return Err(Error::Graph(format!(
                "columns {} of {} and {} of {} cannot be the key of a join",
                of_left.name(),
                of_left.data_type(),
                of_right.name(),
                of_right.data_type()
            )));
        }
    }
    for input in JoinInput::BOTH {
        let (side, schema) = (join.side(input), &schemas[input as usize]);
        if side.watermark_delay_ms < 0 {
            return Err(Error::Graph("the watermark delay of a join is negative".into()));
        }
        if let Some(time) = side.time {
            check_timestamp(schema, time.column, "the event time of a join's side")?;
        }
        match &side.keep {
            KeepRows::Until(times) if times.is_empty() => {
                return Err(Error::Graph("a join's side is kept until no time".into()));
            }
            KeepRows::Until(times) => {
                for time in times {
                    check_timestamp(schema, time.column, "the time until which a row is kept")?;
                }
            }
            _ if join.kind.preserves(input) => {
                return Err(Error::Graph(
                    "rows of an outer join must be dropped by the watermark: nothing else says that no match can come"
                        .into(),
                ));
            }
            _ => {}
        }
    }
    if let Some(condition) = &join.condition {
        let found = condition.expr.data_type(&condition_schema(condition, schemas)?)?;
        if found != DataType::Boolean {
            return Err(Error::Graph(format!(
                "the condition of a join must be a boolean, and this one is {found}"
            )));
        }
    }
    Ok(())
}

/// Returns the schema of the rows that the condition is evaluated over.
pub(crate) fn condition_schema(condition: &JoinCondition, schemas: &[SchemaRef; 2]) -> Result<Schema> {
    let fields = condition.columns.iter().map(|(input, column, name)| {
        let field = field_at(&schemas[*input as usize], *column)?;
        Ok(field.clone().with_name(name))
    });
    Ok(Schema::new(fields.collect::<Result<Vec<Field>>>()?))
}

fn output_schema(join: &Join, schemas: &[SchemaRef; 2]) -> Result<SchemaRef> {
    let fields = join.outputs.iter().map(|(input, column, name)| {
        if join.kind.is_of_left_rows() && *input == JoinInput::Right {
            return Err(Error::Graph("a semi join emits columns of its left side only".into()));
        }
        let field = field_at(&schemas[*input as usize], *column)?;
        let is_nullable = field.is_nullable() || join.kind.pads(*input);
        Ok(field.clone().with_name(name).with_nullable(is_nullable))
    });
    Ok(Arc::new(Schema::new(fields.collect::<Result<Vec<Field>>>()?)))
}
