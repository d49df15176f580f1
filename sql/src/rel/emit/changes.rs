//! Emits what streams that change need: weights where there are none, and sinks that see one change per key.

use super::super::prune::calc_identity;
use super::{AggregateCall, Emitter, Rel, engine_call, engine_refusal};
use crate::error::{Result, SqlError};
use tidemill_connectors::TableDefinition;
use tidemill_engine::expr::column;
use tidemill_engine::graph::{Calc, GroupAggregate, StreamId, weight_field, weight_of_inserts};

impl Emitter<'_> {
    /// Emits an aggregation without a window.
    pub(super) fn group_aggregate(
        &mut self,
        rel: &Rel,
        input: StreamId,
        input_rel: &Rel,
        keys: &[usize],
        calls: &[AggregateCall],
    ) -> Result<StreamId> {
        let results = calls.iter().zip(&rel.columns[keys.len()..]);
        let aggregates = results.map(|(call, column)| engine_call(call, input_rel, &column.name));
        let spec = GroupAggregate {
            keys: keys.to_vec(),
            aggregates: aggregates.collect::<Result<_>>()?,
            ttl_ms: self.state_ttl_ms,
        };
        let uid = self.uid_among(format!("aggregate-{}", rel.rows.short()), rel);
        let stream = self.graph.group_aggregate(uid, input, spec).map_err(engine_refusal)?;
        // Where nobody reads the results, nothing is left that changes.
        if rel.changes {
            self.changes_of(rel, stream)
        } else {
            Ok(stream)
        }
    }

    /// Makes the stream of a relation a changelog with no other columns than the relation's and the weight, for a union.
    pub(super) fn changes_of(&mut self, rel: &Rel, stream: StreamId) -> Result<StreamId> {
        let schema = self.graph.schema(stream);
        let weight = self.graph.weight(stream);
        if weight == Some(rel.columns.len()) {
            return Ok(stream);
        }
        let mut outputs: Vec<_> = (0..rel.columns.len())
            .map(|index| (schema.field(index).clone(), column(index)))
            .collect();
        outputs.push((weight_field(), weight.map_or_else(weight_of_inserts, column)));
        let uid = self.uid(format!("changes-{}", calc_identity(rel).short()));
        let calc = Calc {
            predicate: None,
            outputs,
        };
        self.graph.calc(uid, stream, calc).map_err(engine_refusal)
    }

    /// Brings the changes of each row of a table together, if it has a primary key.
    pub(super) fn by_primary_key(&mut self, stream: StreamId, table: &TableDefinition) -> Result<StreamId> {
        if table.primary_key.is_empty() {
            return Ok(stream);
        }
        let place = |name: &String| table.schema.index_of(name).map_err(SqlError::internal);
        let key = table.primary_key.iter().map(place).collect::<Result<Vec<_>>>()?;
        let uid = self.uid(format!("changes:{}", table.name));
        self.graph.consolidate(uid, stream, key).map_err(engine_refusal)
    }
}
