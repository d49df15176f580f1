//! Emits the operator that gives rows each of their elements.

use super::{Emitter, engine_refusal, sql_expr};
use crate::error::{Result, SqlError};
use crate::functions::elements::{Part, part_of};
use crate::rel::Rel;
use crate::rel::identity::{Identity, write};
use crate::rel::lower::elements_of_changes;
use arrow::datatypes::Schema;
use datafusion_common::Column;
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_expr::Expr;
use tidemill_engine::graph::{Childless, StreamId};

/// The columns in which rows have an element of theirs.
const ELEMENT: &str = "$element";
const PLACE: &str = "$element_place";

impl Emitter<'_> {
    /// Gives rows each of the elements of an array.
    pub(super) fn elements(
        &mut self,
        rel: &Rel,
        input: StreamId,
        input_rel: &Rel,
        of: &Expr,
        childless: Childless,
    ) -> Result<StreamId> {
        if input_rel.changes {
            return Err(elements_of_changes(None));
        }
        let names = input_rel.columns.iter().map(|column| Some(column.name.as_str()));
        let names = names.chain(std::iter::repeat(None));
        let fields = self.graph.schema(input).fields().iter().zip(names);
        let renamed = fields.map(|(field, name)| match name {
            Some(name) => field.as_ref().clone().with_name(name),
            None => field.as_ref().clone(),
        });
        let schema = Schema::new(renamed.collect::<Vec<_>>());
        let word = match childless {
            Childless::Dropped => "elements",
            Childless::Kept => "elements or null",
        };
        let text = write(of, &|column| {
            let known = input_rel.columns.iter().find(|known| known.name == column.name);
            known.map_or_else(|| column.name.clone(), |known| known.identity.text().to_owned())
        });
        let identity = Identity::of(&[word, rel.rows.text(), &text]);
        let seed = u64::from_str_radix(identity.short(), 16).unwrap_or(0);
        let of = sql_expr(of, &schema, seed)?;
        let uid = self.uid(format!("elements-{}", identity.short()));
        self.graph
            .elements(uid, input, of, childless, (ELEMENT, PLACE))
            .map_err(engine_refusal)
    }
}

/// Replaces the parts of an element by the columns that hold them.
pub(super) fn with_columns(expr: &Expr) -> Result<Expr> {
    let replaced = expr.clone().transform_down(|expr| {
        let name = match part_of(&expr) {
            Some(Part::Value) => ELEMENT,
            Some(Part::Ordinality) => PLACE,
            None => return Ok(Transformed::no(expr)),
        };
        let column = Expr::Column(Column::new_unqualified(name));
        Ok(Transformed::new(column, true, TreeNodeRecursion::Jump))
    });
    replaced.map(|replaced| replaced.data).map_err(SqlError::internal)
}
