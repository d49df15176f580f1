//! `GROUPING(a)` and `GROUPING_ID(a, b)`: which columns a row is grouped by. They look like aggregates to DataFusion's planner, and
//! become functions of the row's grouping ([`crate::rel::lower`]).

use arrow::datatypes::DataType;
use datafusion_common::{DataFusionError, Result};
use datafusion_expr::function::AccumulatorArgs;
use datafusion_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Expr, Signature, Volatility};
use std::sync::Arc;

/// Returns both.
pub(crate) fn functions() -> Vec<Arc<AggregateUDF>> {
    let function = |name| {
        let signature = Signature::variadic_any(Volatility::Immutable);
        Arc::new(AggregateUDF::new_from_impl(Grouping { name, signature }))
    };
    vec![function("grouping"), function("grouping_id")]
}

/// Returns the arguments if an expression is one of these.
pub(crate) fn as_grouping(expr: &Expr) -> Option<&[Expr]> {
    match expr {
        Expr::Alias(alias) => as_grouping(&alias.expr),
        Expr::AggregateFunction(call) if call.func.inner().is::<Grouping>() => Some(&call.params.args),
        _ => None,
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Grouping {
    name: &'static str,
    signature: Signature,
}

impl AggregateUDFImpl for Grouping {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn accumulator(&self, _arguments: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let message = format!("{} is replaced at planning and was evaluated", self.name);
        Err(DataFusionError::Internal(message))
    }
}
