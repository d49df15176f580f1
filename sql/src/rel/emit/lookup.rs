//! Emits joins with a table that is looked up.

use super::super::lookup::Lookup;
use super::{Emitter, Rel, engine_refusal, seed_of, sql_expr};
use crate::error::{Result, SqlError};
use arrow::datatypes::{Field, Schema};
use std::sync::Arc;
use tidemill_engine::graph::StreamId;
use tidemill_engine::lookup::LookupJoin;

impl Emitter<'_> {
    /// Adds a lookup join; the stream may have more columns than the relation it is of.
    pub(super) fn lookup_join(&mut self, rel: &Rel, input: StreamId, lookup: &Lookup) -> Result<StreamId> {
        let catalog = self.catalog;
        let table = catalog.table_at(lookup.table);
        let (definition, places) = table.source_definition();
        let in_definition = |column: &usize| {
            let found = places.iter().position(|place| place == column);
            found.ok_or_else(|| SqlError::internal("a column that the connector does not give is looked up"))
        };
        let projection = lookup.columns.iter().map(in_definition).collect::<Result<Vec<_>>>()?;
        let keys: Vec<usize> = lookup.keys.iter().map(|(_, of_table)| projection[*of_table]).collect();
        let made = self
            .connectors
            .create_lookup(&definition, &projection, &keys)
            .map_err(|error| table.connector_error(&error))?;
        let schema = definition.schema.project(&projection).map_err(SqlError::internal)?;

        let stream = Arc::clone(self.graph.schema(input));
        let (width, wide) = (lookup.width(), stream.fields().len());
        let place = |column: usize| match column < width {
            true => column,
            false => wide + (column - width),
        };
        let nullable = schema
            .fields()
            .iter()
            .map(|field| field.as_ref().clone().with_nullable(true));
        let both: Vec<Field> = stream
            .fields()
            .iter()
            .map(|field| field.as_ref().clone())
            .chain(nullable)
            .collect();
        let uid = self.uid(format!("lookup-join-{}", rel.rows.short()));
        let residual = match &lookup.residual {
            Some(residual) => {
                let mut named: Vec<Field> = Vec::with_capacity(both.len());
                for (index, field) in both.iter().enumerate() {
                    let column = match index {
                        _ if index < width => Some(index),
                        _ => index.checked_sub(wide).map(|of_table| width + of_table),
                    };
                    let name = column.map_or_else(|| format!("$unread_{index}"), |column| lookup.names[column].clone());
                    named.push(field.clone().with_name(name).with_nullable(true));
                }
                Some(sql_expr(&residual.expr, &Schema::new(named), seed_of(&uid))?)
            }
            None => None,
        };
        let outputs = lookup.outputs.iter().zip(&rel.columns).map(|(output, column)| {
            let place = place(*output);
            (both[place].clone().with_name(&column.name), place)
        });
        let join = LookupJoin {
            table: table.name.value.clone(),
            source: made.source,
            schema: Arc::new(schema),
            keys: lookup.keys.clone(),
            kind: lookup.kind,
            residual,
            outputs: outputs.collect(),
            options: made.options,
        };
        let read = self.reads.entry(table.name.value.clone()).or_default();
        for column in join.schema.fields() {
            if !read.contains(column.name()) {
                read.push(column.name().clone());
            }
        }
        self.graph.lookup_join(uid, input, join).map_err(engine_refusal)
    }
}
