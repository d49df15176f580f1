//! Whether a row is late: the condition that makes the table `t$late` of `t`. It depends on the watermark, so it is an
//! operator's to find out ([`crate::rel::emit`]) and never evaluated row by row.

use arrow::datatypes::DataType;
use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

/// Returns the condition that a row with this event time is late.
pub(crate) fn is_late(time: Expr) -> Expr {
    // Not of its argument alone, so that nobody finds it out at planning.
    let signature = Signature::any(1, Volatility::Stable);
    ScalarUDF::new_from_impl(IsLate { signature }).call(vec![time])
}

/// Returns the name of the event time if an expression is this condition.
pub(crate) fn as_is_late(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::ScalarFunction(call) if call.func.inner().is::<IsLate>() => match call.args.as_slice() {
            [Expr::Column(time)] => Some(&time.name),
            _ => None,
        },
        _ => None,
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct IsLate {
    signature: Signature,
}

impl ScalarUDFImpl for IsLate {
    fn name(&self) -> &str {
        "$is_late"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, _arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        super::never_evaluated(self.name())
    }
}
