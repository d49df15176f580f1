//! The elements of a row's array, as functions of the array: what a join with `UNNEST` gives.
//!
//! They make several rows of one, so they are never evaluated: the job graph has an operator in their place.

use arrow::datatypes::DataType;
use datafusion_common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion_common::{Result, plan_err};
use datafusion_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use tidemill_engine::graph::Childless;

/// What of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Part {
    /// Its value; of a map, a row of key and value.
    Value,
    /// Its place, from 1.
    Ordinality,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ElementFunction {
    part: Part,
    childless: Childless,
    signature: Signature,
}

/// Returns the expression of a part of the elements of an array.
pub(crate) fn element(part: Part, childless: Childless, of: Expr) -> Expr {
    ScalarUDF::new_from_impl(ElementFunction {
        part,
        childless,
        signature: Signature::any(1, Volatility::Immutable),
    })
    .call(vec![of])
}

/// Returns the part of an element that an expression is, if it is one.
pub(crate) fn part_of(expr: &Expr) -> Option<Part> {
    let Expr::ScalarFunction(call) = expr else { return None };
    let function = call.func.inner().downcast_ref::<ElementFunction>()?;
    Some(function.part)
}

/// Returns the array whose elements an expression names, and what becomes of rows without elements.
pub(crate) fn row_elements(expr: &Expr) -> Option<(Expr, Childless)> {
    let mut found = None;
    let _ = expr.apply(|expr| {
        if let Expr::ScalarFunction(call) = expr
            && let Some(function) = call.func.inner().downcast_ref::<ElementFunction>()
            && let Some(of) = call.args.first()
        {
            found = Some((of.clone(), function.childless));
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    found
}

impl ScalarUDFImpl for ElementFunction {
    fn name(&self) -> &str {
        match (self.part, self.childless) {
            (Part::Value, Childless::Dropped) => "$element",
            (Part::Value, Childless::Kept) => "$element_or_null",
            (Part::Ordinality, Childless::Dropped) => "$element_place",
            (Part::Ordinality, Childless::Kept) => "$element_place_or_null",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        match (self.part, arguments.first()) {
            (Part::Ordinality, _) => Ok(DataType::Int32),
            (Part::Value, Some(DataType::List(item) | DataType::Map(item, _))) => Ok(item.data_type().clone()),
            (_, other) => {
                let found = other.map_or_else(|| "nothing".to_owned(), crate::types::sql_name);
                plan_err!("UNNEST and LATERAL TABLE take an ARRAY or a MAP, not {found}")
            }
        }
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        super::never_evaluated(self.name())
    }
}
