//! The table `t$late`: the rows of `t` that came behind its watermark.

use super::Lowering;
use crate::error::{Result, SqlError};
use crate::functions::late::is_late;
use crate::rel::prepare::{Prepared, prepare_over};
use crate::rel::{RelId, Role};
use datafusion_common::Column;
use datafusion_expr::Expr;

impl Lowering<'_> {
    /// Lowers the late rows of the table `name`.
    pub(super) fn late_rows(&mut self, name: &str) -> Result<RelId> {
        let found = self.catalog.scanned(name).and_then(|(_, table)| table.watermark);
        let watermark = found.ok_or_else(|| SqlError::internal(format!("no late rows of {name}")))?;
        let table = self.table(name)?;
        let rel = self.rels.get(table);
        let time = Expr::Column(Column::new_unqualified(&rel.columns[watermark.column].name));
        let predicate = prepare_over(is_late(time), rel)?;
        let outputs = rel.columns.iter().map(|column| {
            let mut output = Prepared::column(column);
            if output.role == Role::EventTime {
                // They are all behind the watermark: no window over it could take one in.
                output.role = Role::Plain;
            }
            (column.name.clone(), output)
        });
        let outputs = outputs.collect();
        Ok(self.rels.calc(table, Some(predicate), outputs))
    }
}
