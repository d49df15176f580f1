//! Gives rows their session.

use super::{Emitter, ROW_WINDOW_END, ROW_WINDOW_START, engine_refusal};
use crate::error::{Result, SqlError};
use crate::functions::window::RowWindows;
use crate::rel::Rel;
use crate::rel::identity::Identity;
use datafusion_expr::Expr;
use std::sync::Arc;
use tidemill_engine::expr::column;
use tidemill_engine::graph::{Calc, SessionRows, StreamId};

impl Emitter<'_> {
    /// Gives rows their session, by columns of the input. They are kept until it ends, so they are first cut down to the columns
    /// that are read; returns what they are then.
    pub(super) fn session_rows<'a>(
        &mut self,
        rel: &Rel,
        (input, input_rel): (StreamId, &Rel),
        gap_ms: i64,
        window: &RowWindows,
        read: impl Iterator<Item = &'a Expr>,
    ) -> Result<(StreamId, Rel)> {
        let names: Vec<&str> = read
            .flat_map(|expr| expr.column_refs())
            .map(|c| c.name.as_str())
            .collect();
        let places =
            (0..input_rel.columns.len()).filter(|place| names.contains(&input_rel.columns[*place].name.as_str()));
        let places: Vec<usize> = places.collect();
        let narrowed = Rel {
            columns: places.iter().map(|place| input_rel.columns[*place].clone()).collect(),
            ..input_rel.clone()
        };
        let place = |name: &str| {
            let found = narrowed.columns.iter().position(|column| column.name == name);
            found.ok_or_else(|| SqlError::internal("sessions of rows without their columns"))
        };
        let time = window
            .time()
            .ok_or_else(|| SqlError::internal("sessions of rows without a time column"))?;
        let time = place(time)?;
        let keys = window.partition().into_iter().map(place).collect::<Result<Vec<_>>>()?;
        let domain = narrowed.columns[time].role.time();
        let domain = domain.ok_or_else(|| SqlError::internal("sessions of rows without a time attribute"))?;

        // The state holds the columns by name.
        let mut words = vec![
            "sessions".to_owned(),
            input_rel.rows.text().to_owned(),
            gap_ms.to_string(),
        ];
        for (index, column) in narrowed.columns.iter().enumerate() {
            let use_of = match index {
                _ if index == time => "time",
                _ if keys.contains(&index) => "key",
                _ => "column",
            };
            words.push(format!("{use_of} {} {}", column.name, column.identity.text()));
        }
        let identity = Identity::of(&words.iter().map(String::as_str).collect::<Vec<_>>());
        let schema = Arc::clone(self.graph.schema(input));
        let is_narrow = places.len() == schema.fields().len()
            && std::iter::zip(schema.fields(), &narrowed.columns).all(|(field, column)| *field.name() == column.name);
        let input = match is_narrow {
            true => input,
            false => {
                let output = |(place, known): (&usize, &crate::rel::RelColumn)| {
                    (schema.field(*place).clone().with_name(&known.name), column(*place))
                };
                let outputs = places.iter().zip(&narrowed.columns).map(output).collect();
                let uid = self.uid(format!("calc-sessions-{}", identity.short()));
                let calc = Calc {
                    predicate: None,
                    outputs,
                };
                self.graph.calc(uid, input, calc).map_err(engine_refusal)?
            }
        };
        let spec = SessionRows {
            keys,
            time,
            gap_ms,
            domain,
        };
        let uid = self.uid_among(format!("sessions-{}", identity.short()), rel);
        let names = (ROW_WINDOW_START, ROW_WINDOW_END);
        let rows = self
            .graph
            .session_rows(uid, input, spec, names)
            .map_err(engine_refusal)?;
        Ok((rows, narrowed))
    }
}
