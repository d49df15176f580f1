//! Rows with the elements of an array or a map, as a node of the graph.

use super::{CustomOperator, Distribution, JobGraph, StreamId};
use crate::error::{Error, Result};
use crate::expr::Expr;
use crate::operators::elements::{Childless, ElementsOperator, element_type};
use arrow::datatypes::{DataType, Field, Schema};
use std::sync::Arc;

impl JobGraph {
    /// Gives rows each of the elements of an array, or entries of a map: a row goes on once per element, with `names` (the
    /// element, its place from 1) behind its columns.
    ///
    /// # Errors
    /// When the uid is taken, the names are not new, or the expression gives no array and no map.
    pub fn elements(
        &mut self,
        uid: impl Into<String>,
        input: StreamId,
        of: Expr,
        childless: Childless,
        names: (&str, &str),
    ) -> Result<StreamId> {
        self.check_append_only(input, "a join with elements")?;
        let schema = Arc::clone(self.schema(input));
        let element = element_type(&of.data_type(&schema)?)?;
        let mut fields: Vec<Field> = schema.fields().iter().map(|field| field.as_ref().clone()).collect();
        for (name, data_type) in [(names.0, element), (names.1, DataType::Int32)] {
            if fields.iter().any(|field| field.name() == name) {
                return Err(Error::Graph(format!("there is a column {name} already")));
            }
            fields.push(Field::new(name, data_type, true));
        }
        let output = Arc::new(Schema::new(fields));
        let of_worker = Arc::clone(&output);
        let custom = CustomOperator {
            name: "elements of rows".into(),
            distributions: vec![Distribution::Local],
            schema: output,
            factory: Arc::new(move |_| {
                let operator = ElementsOperator::new(Arc::clone(&of), childless, Arc::clone(&of_worker));
                Ok(Box::new(operator))
            }),
            watermark_delay_ms: 0,
        };
        self.operator(uid, vec![input], custom)
    }
}
