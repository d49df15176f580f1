//! Joins with a versioned table as of an event time, as the graph describes them.

use super::join::output_schema;
use super::{
    CustomOperator, Distribution, JobGraph, Join, JoinCondition, JoinInput, JoinKind, JoinSide, KeepRows, NodeKind,
    ShiftedTime, StreamId, WatermarkExpr, check_timestamp,
};
use crate::error::{Error, Result};
use crate::operators::temporal_join::TemporalJoinOperator;
use std::sync::Arc;

/// A join of rows with the version of their key that is valid at their event time: of the right rows with the key, the one
/// with the greatest time that is not after the left row's; of equal times the one that came last.
///
/// A left row comes out when the right watermark reaches its time.
#[derive(Clone, Debug)]
pub struct TemporalJoin {
    /// True: a left row for which there is no version comes out with nulls; false: it is dropped.
    pub keeps_unmatched: bool,
    /// The columns that must be equal, left and right.
    pub keys: Vec<(usize, usize)>,
    /// The event times, left and right, timestamps of the same unit.
    pub times: [usize; 2],
    /// What else must be true of the version; it does not make an older one valid.
    pub condition: Option<JoinCondition>,
    /// The columns that come out, with their names.
    pub outputs: Vec<(JoinInput, usize, String)>,
}

impl TemporalJoin {
    /// Returns what a join without times would do.
    fn as_join(&self) -> Join {
        let side = |input: JoinInput| {
            let key = |&(left, right): &(usize, usize)| if input == JoinInput::Left { left } else { right };
            let time = ShiftedTime {
                column: self.times[input as usize],
                offset_ms: 0,
            };
            JoinSide {
                keys: self.keys.iter().map(key).collect(),
                time: Some(time),
                keep: KeepRows::Until(vec![time]),
                watermark_delay_ms: 0,
            }
        };
        Join {
            kind: if self.keeps_unmatched {
                JoinKind::Left
            } else {
                JoinKind::Inner
            },
            sides: [side(JoinInput::Left), side(JoinInput::Right)],
            condition: self.condition.clone(),
            outputs: self.outputs.clone(),
        }
    }
}

impl JobGraph {
    /// Joins a stream with the versions of a table's rows.
    ///
    /// # Errors
    /// When a column does not exist or has a wrong type, or there is no key.
    pub fn temporal_join(
        &mut self,
        uid: impl Into<String>,
        left: StreamId,
        right: StreamId,
        join: &TemporalJoin,
    ) -> Result<StreamId> {
        let schemas = [Arc::clone(self.schema(left)), Arc::clone(self.schema(right))];
        for input in [left, right] {
            self.check_append_only(input, "a join as of an event time")?;
        }
        let plain = join.as_join();
        super::join::check(&plain, &schemas)?;
        let units = [0, 1].map(|side| check_timestamp(&schemas[side], join.times[side], "the time of a version"));
        let [left_time, right_time] = units;
        if crate::time::unit_of(&left_time?) != crate::time::unit_of(&right_time?) {
            return Err(Error::Graph(
                "the times of a join as of an event time have different units".into(),
            ));
        }
        let output = output_schema(&plain, &schemas)?;
        let mut watermark = WatermarkExpr::default();
        let mut distributions = Vec::new();
        for (input, side) in [left, right].into_iter().zip(&plain.sides) {
            watermark.merge(self.watermark(input), 0);
            distributions.push(Distribution::Hash(side.keys.clone()));
        }
        let schema = Arc::clone(&output);
        let custom = CustomOperator {
            name: "temporal join".into(),
            distributions,
            schema: Arc::clone(&output),
            factory: Arc::new(move |context| {
                let operator = TemporalJoinOperator::new(&plain, &schemas, Arc::clone(&output), context.clone())?;
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
