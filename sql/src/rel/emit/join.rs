//! Emits a join.

use super::{Emitter, engine_refusal, seed_of, sql_expr};
use crate::error::Result;
use crate::rel::Rel;
use crate::rel::identity::Identity;
use crate::rel::join::{JoinSpec, Shifted};
use arrow::datatypes::{Field, Schema};
use std::fmt::Write as _;
use std::time::Duration;
use tidemill_engine::graph::{
    Join, JoinCondition, JoinInput, JoinKind, JoinSide, KeepRows, ShiftedTime, StreamId, TemporalJoin,
};

impl Emitter<'_> {
    pub(super) fn join(
        &mut self,
        rel: &Rel,
        spec: &JoinSpec,
        inputs: [&Rel; 2],
        streams: [StreamId; 2],
        identity: &Identity,
    ) -> Result<StreamId> {
        let uid = self.uid(format!("join-{}", identity.short()));
        let shifted = |time: &Shifted| ShiftedTime {
            column: time.column,
            offset_ms: time.offset_ms,
        };
        let side = |input: JoinInput| {
            let until = &spec.until[input as usize];
            let key = |&(left, right): &(usize, usize)| if input == JoinInput::Left { left } else { right };
            JoinSide {
                keys: spec.keys.iter().map(key).collect(),
                time: spec.times[input as usize].as_ref().map(shifted),
                keep: match self.state_ttl_ms {
                    _ if !until.is_empty() => KeepRows::Until(until.iter().map(shifted).collect()),
                    Some(ms) => KeepRows::For(Duration::from_millis(ms.unsigned_abs())),
                    None => KeepRows::Forever,
                },
                watermark_delay_ms: spec.delays_ms[input as usize],
            }
        };
        let sides = [side(JoinInput::Left), side(JoinInput::Right)];
        let condition = match &spec.condition {
            None => None,
            Some(condition) => {
                let fields = spec.reads.iter().map(|(name, input, column)| {
                    let schema = self.graph.schema(streams[*input as usize]);
                    schema.field(*column).clone().with_name(name)
                });
                let schema = Schema::new(fields.collect::<Vec<Field>>());
                Some(JoinCondition {
                    columns: spec
                        .reads
                        .iter()
                        .map(|(name, input, column)| (*input, *column, name.clone()))
                        .collect(),
                    expr: sql_expr(&condition.expr, &schema, seed_of(&uid))?,
                })
            }
        };
        let outputs = spec.outputs.iter().zip(&rel.columns);
        let outputs = outputs.map(|((input, column), known)| (*input, *column, known.name.clone()));
        if let Some(times) = spec.as_of {
            let join = TemporalJoin {
                keeps_unmatched: spec.kind == JoinKind::Left,
                keys: spec.keys.clone(),
                times,
                condition,
                outputs: outputs.collect(),
            };
            let stream = self.graph.temporal_join(uid, streams[0], streams[1], &join);
            let stream = stream.map_err(engine_refusal)?;
            self.graph.note(stream, explained_as_of(spec, inputs, times));
            return Ok(stream);
        }
        let join = Join {
            kind: spec.kind,
            condition,
            outputs: outputs.collect(),
            sides,
        };
        let note = explained(&join, spec, inputs);
        let stream = self.graph.join(uid, streams[0], streams[1], join);
        let stream = stream.map_err(engine_refusal)?;
        self.graph.note(stream, note);
        Ok(stream)
    }
}

/// Says in words what is joined with which versions, and how long they are kept.
fn explained_as_of(spec: &JoinSpec, inputs: [&Rel; 2], times: [usize; 2]) -> String {
    let name = |input: usize, column: usize| inputs[input].columns[column].name.as_str();
    let keys = spec
        .keys
        .iter()
        .map(|&(left, right)| format!("left.{} = right.{}", name(0, left), name(1, right)));
    let keys = keys.collect::<Vec<_>>().join(", ");
    let [time, version] = [name(0, times[0]), name(1, times[1])];
    format!(
        "on {keys}, the latest version with {version} at or before {time}; left rows are kept until the right watermark \
         ({version}) reaches {time}; right rows until both watermarks have passed a later version"
    )
}

/// Says in words what is joined, and why rows are kept as long as they are.
fn explained(join: &Join, spec: &JoinSpec, inputs: [&Rel; 2]) -> String {
    let name = |input: JoinInput, column: usize| inputs[input as usize].columns[column].name.as_str();
    let keys = spec.keys.iter().map(|&(left, right)| {
        let (left, right) = (name(JoinInput::Left, left), name(JoinInput::Right, right));
        format!("left.{left} = right.{right}")
    });
    let mut text = format!("on {}", keys.collect::<Vec<_>>().join(", "));
    if let Some(condition) = &join.condition {
        let _ = write!(text, " and {:?}", condition.expr);
    }
    for input in JoinInput::BOTH {
        let (side, other) = match input {
            JoinInput::Left => ("left", "right"),
            JoinInput::Right => ("right", "left"),
        };
        let _ = write!(text, "; {side} rows are kept ");
        match &join.side(input).keep {
            KeepRows::Forever => text.push_str("for ever (no bound on time, and no table.exec.state.ttl)"),
            KeepRows::For(time) => {
                let _ = write!(text, "for {time:?} (table.exec.state.ttl)");
            }
            KeepRows::Until(times) => {
                let times = times.iter().map(|time| match time.offset_ms {
                    0 => name(input, time.column).to_owned(),
                    offset_ms => format!("{} {offset_ms:+} ms", name(input, time.column)),
                });
                let times = times.collect::<Vec<_>>().join(" or ");
                let by = spec.times[input.other() as usize].map_or("", |time| name(input.other(), time.column));
                let _ = write!(text, "until the {other} watermark ({by}) reaches {times}");
            }
        }
    }
    for input in JoinInput::BOTH {
        let delay_ms = join.side(input).watermark_delay_ms;
        if delay_ms > 0 {
            let _ = write!(text, "; watermark of input {} held back {delay_ms} ms", input as usize);
        }
    }
    text
}
