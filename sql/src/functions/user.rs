//! Functions of a job's own, written in Rust: registered by the job's program, named by `CREATE FUNCTION`.
//!
//! A function is over whole columns (Arrow arrays), or over values row by row, which is simpler and slower. It must depend
//! on nothing but its arguments: the planner may call it to fold literals, and a job that is restored calls it again. A table
//! function gives each row an array of rows, which `LATERAL TABLE(f(x))` joins to it. Aggregate functions are in `aggregate`.

mod aggregate;

pub use aggregate::RowAggregate;
pub(crate) use aggregate::UserAggregate;

use crate::types::sql_name;
use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Float64Array, Int64Array, ListArray, StringArray, StructArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Fields, Float64Type, Int64Type};
use datafusion_common::{DataFusionError, Result, plan_err};
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Any error of a function's own code: it fails the job, with the function's name.
pub type FunctionError = Box<dyn std::error::Error + Send + Sync>;

type OverColumns = dyn Fn(&[ArrayRef], usize) -> std::result::Result<ArrayRef, FunctionError> + Send + Sync;

/// A value of a row, as functions over rows take and give it.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// No value, of any type.
    Null,
    /// `BOOLEAN`.
    Boolean(bool),
    /// `TINYINT` to `BIGINT`.
    Integer(i64),
    /// `FLOAT`, `DOUBLE`.
    Double(f64),
    /// `STRING`.
    Text(String),
    /// `BYTES`.
    Bytes(Vec<u8>),
}

#[derive(Clone)]
struct Registered {
    arguments: Vec<DataType>,
    returns: DataType,
    function: Arc<OverColumns>,
}

/// The functions that a program brings to its SQL text.
///
/// ```
/// use arrow::datatypes::DataType;
/// use tidemill_sql::{UserFunctions, Value};
///
/// let functions = UserFunctions::new().row_function(
///     "shout",
///     &[DataType::Utf8],
///     &DataType::Utf8,
///     |values| match values {
///         [Value::Text(text)] => Ok(Value::Text(format!("{text}!"))),
///         _ => Ok(Value::Null),
///     },
/// );
/// # drop(functions);
/// // CREATE FUNCTION shout AS 'shout' LANGUAGE RUST;
/// ```
#[derive(Clone, Default)]
pub struct UserFunctions {
    scalars: BTreeMap<String, Registered>,
    aggregates: BTreeMap<String, Arc<UserAggregate>>,
}

impl UserFunctions {
    /// Makes an empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a function over whole columns: it takes an array for each argument, of the declared types, and the number
    /// of rows, and gives an array of as many rows of the declared type. A name that is registered again is replaced.
    #[must_use]
    pub fn function<F>(mut self, name: &str, arguments: &[DataType], returns: &DataType, function: F) -> Self
    where
        F: Fn(&[ArrayRef], usize) -> std::result::Result<ArrayRef, FunctionError> + Send + Sync + 'static,
    {
        let registered = Registered {
            arguments: arguments.to_vec(),
            returns: returns.clone(),
            function: Arc::new(function),
        };
        self.aggregates.remove(name);
        self.scalars.insert(name.to_owned(), registered);
        self
    }

    /// Registers a function that is called once per row. Nulls arrive as [`Value::Null`].
    ///
    /// # Panics
    /// When a type has no [`Value`]: use [`UserFunctions::function`] for others.
    #[must_use]
    pub fn row_function<F>(self, name: &str, arguments: &[DataType], returns: &DataType, function: F) -> Self
    where
        F: Fn(&[Value]) -> std::result::Result<Value, FunctionError> + Send + Sync + 'static,
    {
        check_types(name, arguments.iter().chain([returns]));
        let gives = returns.clone();
        self.function(name, arguments, returns, move |columns, rows| {
            let mut values = Vec::with_capacity(rows);
            for_each_row(columns, rows, |row| {
                values.push(function(row)?);
                Ok(())
            })?;
            column_of(values, &gives)
        })
    }

    /// Registers a table function: called once per row, it gives rows of the declared columns.
    ///
    /// # Panics
    /// When a type has no [`Value`], or there is no column.
    #[must_use]
    pub fn table_function<F>(
        self,
        name: &str,
        arguments: &[DataType],
        columns: &[(&str, DataType)],
        function: F,
    ) -> Self
    where
        F: Fn(&[Value]) -> std::result::Result<Vec<Vec<Value>>, FunctionError> + Send + Sync + 'static,
    {
        assert!(!columns.is_empty(), "the table function {name} has no columns");
        check_types(
            name,
            arguments.iter().chain(columns.iter().map(|(_, data_type)| data_type)),
        );
        let fields: Fields = columns
            .iter()
            .map(|(name, data_type)| Field::new(*name, data_type.clone(), true))
            .collect();
        let returns = crate::types::array_of(DataType::Struct(fields.clone()));
        self.function(name, arguments, &returns, move |arguments, rows| {
            let mut columns: Vec<Vec<Value>> = vec![Vec::new(); fields.len()];
            let mut lengths = Vec::with_capacity(rows);
            for_each_row(arguments, rows, |row| {
                let found = function(row)?;
                lengths.push(found.len());
                for values in found {
                    if values.len() != columns.len() {
                        let message = format!("a row of {} values, not {}", values.len(), columns.len());
                        return Err(message.into());
                    }
                    columns
                        .iter_mut()
                        .zip(values)
                        .for_each(|(column, value)| column.push(value));
                }
                Ok(())
            })?;
            let columns = columns.into_iter().zip(&fields);
            let columns = columns.map(|(values, field)| column_of(values, field.data_type()));
            let columns = columns.collect::<std::result::Result<Vec<_>, _>>()?;
            let rows = StructArray::try_new(fields.clone(), columns, None)?;
            let item = Arc::new(Field::new_list_field(rows.data_type().clone(), true));
            let none: Option<NullBuffer> = None;
            let lists = ListArray::try_new(item, OffsetBuffer::from_lengths(lengths), Arc::new(rows), none)?;
            Ok(Arc::new(lists))
        })
    }

    /// Returns the names of the functions.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.scalars.keys().chain(self.aggregates.keys()).map(String::as_str)
    }

    /// Makes the planner's function of a registered one, under the name that SQL calls it by.
    pub(crate) fn udf(&self, registered: &str, name: &str) -> Option<Arc<ScalarUDF>> {
        let found = self.scalars.get(registered)?.clone();
        Some(Arc::new(ScalarUDF::new_from_impl(UserFunction {
            name: name.to_owned(),
            signature: Signature::user_defined(Volatility::Immutable),
            registered: found,
        })))
    }
}

impl fmt::Debug for UserFunctions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

fn check_types<'a>(name: &str, types: impl Iterator<Item = &'a DataType>) {
    for data_type in types {
        let has_value = matches!(data_type, DataType::Boolean | DataType::Utf8 | DataType::Binary)
            || data_type.is_integer()
            || matches!(data_type, DataType::Float32 | DataType::Float64);
        assert!(
            has_value,
            "a value of {data_type} cannot be given to the row function {name}"
        );
    }
}

/// Calls a function with the values of each row.
fn for_each_row(
    columns: &[ArrayRef],
    rows: usize,
    mut of: impl FnMut(&[Value]) -> std::result::Result<(), FunctionError>,
) -> std::result::Result<(), FunctionError> {
    let mut wide: Vec<ArrayRef> = Vec::with_capacity(columns.len());
    for column in columns {
        wide.push(match column.data_type() {
            found if found.is_integer() => cast(column, &DataType::Int64)?,
            DataType::Float32 => cast(column, &DataType::Float64)?,
            _ => Arc::clone(column),
        });
    }
    let mut row_values = Vec::with_capacity(columns.len());
    for row in 0..rows {
        row_values.clear();
        for column in &wide {
            row_values.push(match column.data_type() {
                _ if column.is_null(row) => Value::Null,
                DataType::Boolean => Value::Boolean(column.as_boolean().value(row)),
                DataType::Int64 => Value::Integer(column.as_primitive::<Int64Type>().value(row)),
                DataType::Float64 => Value::Double(column.as_primitive::<Float64Type>().value(row)),
                DataType::Utf8 => Value::Text(column.as_string::<i32>().value(row).to_owned()),
                DataType::Binary => Value::Bytes(column.as_binary::<i32>().value(row).to_owned()),
                other => return Err(format!("a value of {other} cannot be given to it").into()),
            });
        }
        of(&row_values)?;
    }
    Ok(())
}

/// Makes a column of values.
fn column_of(values: Vec<Value>, data_type: &DataType) -> std::result::Result<ArrayRef, FunctionError> {
    let wrong =
        |value: &Value| -> FunctionError { format!("{value:?} where {} is declared", sql_name(data_type)).into() };
    macro_rules! take {
        ($array:ty, $variant:ident) => {{
            let mut taken = Vec::with_capacity(values.len());
            for value in values {
                taken.push(match value {
                    Value::Null => None,
                    Value::$variant(value) => Some(value),
                    other => return Err(wrong(&other)),
                });
            }
            Arc::new(<$array>::from_iter(taken)) as ArrayRef
        }};
    }
    let column = match data_type {
        DataType::Boolean => take!(BooleanArray, Boolean),
        DataType::Utf8 => take!(StringArray, Text),
        DataType::Binary => take!(BinaryArray, Bytes),
        DataType::Float32 | DataType::Float64 => take!(Float64Array, Double),
        _ => take!(Int64Array, Integer),
    };
    if column.data_type() == data_type {
        return Ok(column);
    }
    // A number that does not fit is an error, not null.
    let options = arrow::compute::CastOptions {
        safe: false,
        ..Default::default()
    };
    Ok(arrow::compute::cast_with_options(&column, data_type, &options)?)
}

/// Returns the types that a call's arguments are cast to: the declared ones.
fn coerced(name: &str, arguments: &[DataType], wanted: &[DataType]) -> Result<Vec<DataType>> {
    if arguments.len() != wanted.len() {
        return plan_err!("{name} takes {} arguments, not {}", wanted.len(), arguments.len());
    }
    for (index, (found, wanted)) in arguments.iter().zip(wanted).enumerate() {
        let widens = found == wanted
            || found.is_null()
            || (found.is_string() && wanted.is_string())
            || (found.is_integer() && wanted.is_integer())
            || (found.is_numeric() && wanted.is_floating())
            || matches!((found, wanted), (DataType::Timestamp(..), DataType::Timestamp(..)));
        if !widens {
            let (found, wanted) = (sql_name(found), sql_name(wanted));
            return plan_err!("argument {} of {name} must be {wanted}, not {found}", index + 1);
        }
    }
    Ok(wanted.to_vec())
}

struct UserFunction {
    name: String,
    signature: Signature,
    registered: Registered,
}

impl fmt::Debug for UserFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl PartialEq for UserFunction {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for UserFunction {}

impl Hash for UserFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for UserFunction {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        coerced(&self.name, arguments, &self.registered.arguments)
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.registered.returns.clone())
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = arguments.number_rows;
        let columns = ColumnarValue::values_to_arrays(&arguments.args)?;
        let columns = columns
            .into_iter()
            .map(|column| match column.len() {
                1 if rows != 1 => {
                    let first = arrow::array::UInt32Array::from_value(0, rows);
                    Ok(arrow::compute::take(&column, &first, None)?)
                }
                _ => Ok(column),
            })
            .collect::<Result<Vec<ArrayRef>>>()?;
        let name = &self.name;
        let said = |error: FunctionError| DataFusionError::Execution(format!("the function {name} failed: {error}"));
        let found = (self.registered.function)(&columns, rows).map_err(said)?;
        if found.len() != rows || *found.data_type() != self.registered.returns {
            let (length, data_type) = (found.len(), sql_name(found.data_type()));
            let declared = sql_name(&self.registered.returns);
            let message = format!("it gave {length} rows of {data_type} for {rows} rows of {declared}");
            return Err(said(message.into()));
        }
        Ok(ColumnarValue::Array(found))
    }
}
