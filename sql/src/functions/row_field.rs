//! A field of a row: `bid.price`, where `bid` is a column of the type `ROW`.
//!
//! The planner writes it as a call with the field's name as a literal. Where it stands over a column, what evaluates it
//! takes the field's values as they are; where the row is null its field is, too.

use arrow::array::{Array, ArrayRef, AsArray, StructArray, make_array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion_common::{Column, DataFusionError, Result, ScalarValue, TableReference, exec_err, plan_err};
use datafusion_expr::planner::{ExprPlanner, PlannerResult};
use datafusion_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit,
};
use std::sync::{Arc, LazyLock};

static ROW_FIELD: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
    Arc::new(ScalarUDF::new_from_impl(RowField {
        signature: Signature::any(2, Volatility::Immutable),
    }))
});

/// How the refusal of an unknown field begins.
pub(crate) const NO_FIELD: &str = "there is no field ";

/// Returns the field of a row.
pub(crate) fn row_field(row: Expr, name: &str) -> Expr {
    ROW_FIELD.call(vec![row, lit(name)])
}

/// Returns the row and the field's name when an expression is a field of a row.
pub(crate) fn as_row_field(expr: &Expr) -> Option<(&Expr, &str)> {
    let Expr::ScalarFunction(call) = expr else { return None };
    call.func.inner().downcast_ref::<RowField>()?;
    match call.args.as_slice() {
        [row, Expr::Literal(ScalarValue::Utf8(Some(name)), _)] => Some((row, name)),
        _ => None,
    }
}

/// Returns the column and the names from it inwards when an expression is a field of a column's row, or of a row in it.
pub(crate) fn as_path(expr: &Expr) -> Option<(&Column, Vec<&str>)> {
    let (row, name) = as_row_field(expr)?;
    let (column, mut path) = match row {
        Expr::Column(column) => (column, Vec::new()),
        inner => as_path(inner)?,
    };
    path.push(name);
    Some((column, path))
}

/// Takes a field out of the rows of an array.
///
/// # Errors
/// When the array does not hold rows.
pub(crate) fn take_field(rows: &ArrayRef, index: usize) -> std::result::Result<ArrayRef, String> {
    let rows: &StructArray = rows
        .as_struct_opt()
        .filter(|rows| index < rows.num_columns())
        .ok_or_else(|| format!("{} has no field {index}", rows.data_type()))?;
    let values = rows.column(index);
    let Some(null_rows) = rows.nulls().filter(|nulls| nulls.null_count() > 0) else {
        return Ok(Arc::clone(values));
    };
    if values
        .nulls()
        .is_some_and(|nulls| nulls.buffer().ptr_eq(null_rows.buffer()) && nulls.offset() == null_rows.offset())
    {
        return Ok(Arc::clone(values));
    }
    let nulls = NullBuffer::union(Some(null_rows), values.nulls());
    let data = values.to_data().into_builder().nulls(nulls).build();
    data.map(make_array).map_err(|error| error.to_string())
}

/// Plans `column.field` and `table.column.field`.
#[derive(Debug)]
pub(crate) struct RowFieldPlanner;

impl ExprPlanner for RowFieldPlanner {
    fn plan_compound_identifier(
        &self,
        field: &Field,
        qualifier: Option<&TableReference>,
        nested_names: &[String],
    ) -> Result<PlannerResult<Vec<Expr>>> {
        let column = Expr::Column(Column::from((qualifier, field)));
        let expr = nested_names.iter().fold(column, |row, name| row_field(row, name));
        Ok(PlannerResult::Planned(expr))
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct RowField {
    signature: Signature,
}

/// Finds a field by its name.
pub(crate) fn find_field<'a>(row: &'a DataType, name: &str) -> Result<(usize, &'a FieldRef)> {
    let DataType::Struct(fields) = row else {
        let found = crate::types::sql_name(row);
        return plan_err!("{NO_FIELD}{name}: what stands before it is {found} and no ROW");
    };
    match fields.find(name) {
        Some(found) => Ok(found),
        None => {
            let names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
            plan_err!("{NO_FIELD}{name} in the row of {}", names.join(", "))
        }
    }
}

impl ScalarUDFImpl for RowField {
    fn name(&self) -> &str {
        "row_field"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Err(DataFusionError::Internal(
            "the type of a field depends on its name".into(),
        ))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        match (args.arg_fields, args.scalar_arguments) {
            ([row, _], [_, Some(ScalarValue::Utf8(Some(name)))]) => {
                let (_, field) = find_field(row.data_type(), name)?;
                Ok(Arc::new(Field::new(name, field.data_type().clone(), true)))
            }
            _ => super::never_evaluated(self.name()),
        }
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [rows, ColumnarValue::Scalar(ScalarValue::Utf8(Some(name)))] = arguments.args.as_slice() else {
            return super::never_evaluated(self.name());
        };
        let rows = rows.to_array(arguments.number_rows)?;
        let (index, _) = find_field(rows.data_type(), name)?;
        match take_field(&rows, index) {
            Ok(values) => Ok(ColumnarValue::Array(values)),
            Err(message) => exec_err!("{message}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Int64Array;
    use arrow::datatypes::Int64Type;

    #[test]
    fn field_of_a_null_row_is_null() {
        let values: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), Some(2), None, Some(4)]));
        let fields = vec![Field::new("a", DataType::Int64, true)].into();
        let nulls = NullBuffer::from(vec![true, false, true, true]);
        let rows: ArrayRef = Arc::new(StructArray::new(fields, vec![values], Some(nulls)));
        let taken = take_field(&rows, 0).unwrap();
        let expected = Int64Array::from(vec![Some(1), None, None, Some(4)]);
        assert_eq!(taken.as_primitive::<Int64Type>(), &expected);
        let sliced = take_field(&rows.slice(1, 2), 0).unwrap();
        assert_eq!(sliced.null_count(), 2);
        assert!(take_field(&rows, 1).is_err());
        assert!(take_field(&taken, 0).is_err());
    }

    #[test]
    fn paths_lead_from_the_column_inwards() {
        let expr = row_field(row_field(Expr::Column(Column::from_name("t")), "a"), "b");
        let (column, path) = as_path(&expr).unwrap();
        assert_eq!((column.name.as_str(), path), ("t", vec!["a", "b"]));
        assert!(as_path(&row_field(lit(1), "a")).is_none());
    }
}
