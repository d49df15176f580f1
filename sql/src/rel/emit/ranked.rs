//! Emits the relations of `OVER`.

use super::{Emitter, engine_call, engine_refusal, stream};
use crate::error::{Result, SqlError};
use crate::rel::rank::{Frame, Over, OverCall, Rank, RankOutput, Ties, operator_identity};
use crate::rel::{Rel, RelKind};
use arrow::compute::SortOptions;
use tidemill_engine::graph::{
    OverAggregate, OverFrame, OverFunction, StreamId, TOP_N_MAX, TimeDomain, TopN, TopNColumn, TopNOrder, TopNTies,
};

/// Refuses rows that are numbered and not filtered by the number.
pub(super) fn check(rel: &Rel) -> Result<()> {
    match &rel.kind {
        RelKind::Rank(rank) if rank.range.is_none() => Err(SqlError::at(
            rank.at,
            "ROW_NUMBER that no filter bounds is not supported: a new row could change the number of every other row",
        )
        .hint("filter in the query around it: WHERE row_num <= 10; or number the rows in the order of event time")),
        _ => Ok(()),
    }
}

impl Emitter<'_> {
    /// Adds a top-N.
    pub(super) fn rank(
        &mut self,
        rel: &Rel,
        rank: &Rank,
        rels: &[Rel],
        streams: &[Option<StreamId>],
    ) -> Result<StreamId> {
        let (first, last) = rank.range.ok_or_else(|| SqlError::internal("ranks without a bound"))?;
        if last > TOP_N_MAX {
            let message = format!("a top-N keeps at most {TOP_N_MAX} rows of each key, and this one asks for {last}");
            let hint = format!("ask for ROW_NUMBER <= {TOP_N_MAX}, or partition by more columns");
            return Err(SqlError::at(rank.at, message).hint(hint));
        }
        let order = rank.order.iter().map(|order| TopNOrder {
            column: order.column,
            options: SortOptions::new(order.descending, order.nulls_first),
        });
        let outputs = rank
            .outputs
            .iter()
            .zip(&rel.columns)
            .map(|(output, column)| match output {
                RankOutput::Column(index) => TopNColumn::Input(*index),
                RankOutput::Number => TopNColumn::Number(column.name.clone()),
            });
        let spec = TopN {
            keys: rank.partition.clone(),
            order: order.collect(),
            ties: match rank.ties {
                Ties::First => TopNTies::First,
                Ties::Last => TopNTies::Last,
            },
            first,
            last,
            window_end: rank.window_end,
            time: rank
                .window_end
                .and_then(|end| rels[rank.input.0].columns[end].role.as_window())
                .map_or(TimeDomain::EventTime, |(time, ..)| time),
            outputs: outputs.collect(),
            ttl_ms: self.state_ttl_ms,
        };
        let uid = self.uid(format!("top-n-{}", operator_identity(rel, rels).short()));
        self.graph
            .top_n(uid, stream(streams, rank.input)?, spec)
            .map_err(engine_refusal)
    }

    /// Adds an aggregation over the rows before each row.
    pub(super) fn over(
        &mut self,
        rel: &Rel,
        over: &Over,
        rels: &[Rel],
        streams: &[Option<StreamId>],
    ) -> Result<StreamId> {
        let input = &rels[over.input.0];
        let results = &rel.columns[over.passed.len()..];
        let calls = over.calls.iter().zip(results).map(|(call, column)| {
            let function = match call {
                OverCall::Aggregate(call) => OverFunction::Aggregate(engine_call(call, input, &column.name)?),
                OverCall::RowNumber => OverFunction::RowNumber,
                OverCall::Lag { value, offset, default } => OverFunction::Lag {
                    value: *value,
                    offset: *offset,
                    default: *default,
                },
                OverCall::FirstValue(value) => OverFunction::FirstValue(*value),
                OverCall::LastValue(value) => OverFunction::LastValue(*value),
            };
            Ok((column.name.clone(), function))
        });
        let spec = OverAggregate {
            keys: over.partition.clone(),
            time: over.time,
            domain: over.domain,
            frame: match over.frame {
                Frame::Rows(preceding) => OverFrame::Rows(preceding),
                Frame::Range(preceding_ms) => OverFrame::Range(preceding_ms),
            },
            passed: over.passed.clone(),
            functions: calls.collect::<Result<_>>()?,
            ttl_ms: self.state_ttl_ms,
        };
        let uid = self.uid(format!("over-{}", operator_identity(rel, rels).short()));
        self.graph
            .over_aggregate(uid, stream(streams, over.input)?, spec)
            .map_err(engine_refusal)
    }
}
