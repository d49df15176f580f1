//! Aggregate functions of a program's own: over the engine's traits, or row by row with a state that serde knows.

use super::{FunctionError, UserFunctions, Value, check_types, coerced, column_of, for_each_row};
use crate::types::sql_name;
use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, BooleanArray};
use arrow::datatypes::DataType;
use datafusion_common::Result as PlanResult;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use tidemill_engine::aggregate::{Accumulator, AggregateFunction};
use tidemill_engine::{Error, Result};

type Factory = dyn Fn() -> Arc<dyn AggregateFunction> + Send + Sync;

/// A registered aggregate function.
pub(crate) struct UserAggregate {
    /// What it is registered as.
    name: String,
    arguments: Vec<DataType>,
    returns: DataType,
    factory: Box<Factory>,
}

impl UserAggregate {
    /// Returns the declared types of the arguments.
    pub(crate) fn arguments(&self) -> &[DataType] {
        &self.arguments
    }

    /// Returns the type of the result.
    pub(crate) fn returns(&self) -> &DataType {
        &self.returns
    }

    /// Returns the types that a call's arguments are cast to.
    pub(crate) fn coerced(&self, arguments: &[DataType]) -> PlanResult<Vec<DataType>> {
        coerced(&self.name, arguments, &self.arguments)
    }

    /// Says what is computed: other types are another function.
    pub(crate) fn word(&self) -> String {
        let types: Vec<String> = self.arguments.iter().map(sql_name).collect();
        format!(
            "rust {:?} ({}) {}",
            self.name,
            types.join(", "),
            sql_name(&self.returns)
        )
    }

    /// Makes the engine's function for the types of its columns.
    pub(crate) fn function(&self, arguments: &[DataType]) -> std::result::Result<Arc<dyn AggregateFunction>, String> {
        if arguments != self.arguments {
            return Err(format!("the arguments of {} are not of the declared types", self.name));
        }
        Ok((self.factory)())
    }
}

impl fmt::Debug for UserAggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl PartialEq for UserAggregate {
    fn eq(&self, other: &Self) -> bool {
        self.word() == other.word()
    }
}

impl Eq for UserAggregate {}

impl Hash for UserAggregate {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

/// An aggregate function that takes one row at a time.
///
/// ```
/// use arrow::datatypes::DataType;
/// use tidemill_sql::{FunctionError, RowAggregate, UserFunctions, Value};
///
/// /// How far the values of a group are apart.
/// struct Spread;
///
/// impl RowAggregate for Spread {
///     type State = Option<(i64, i64)>;
///
///     fn accumulate(&self, state: &mut Self::State, values: &[Value]) -> Result<(), FunctionError> {
///         if let [Value::Integer(value)] = values {
///             let (low, high) = state.unwrap_or((*value, *value));
///             *state = Some((low.min(*value), high.max(*value)));
///         }
///         Ok(())
///     }
///
///     fn merge(&self, state: &mut Self::State, other: Self::State) -> Result<(), FunctionError> {
///         *state = match (*state, other) {
///             (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
///             (one, other) => one.or(other),
///         };
///         Ok(())
///     }
///
///     fn result(&self, state: &Self::State) -> Result<Value, FunctionError> {
///         Ok(state.map_or(Value::Null, |(low, high)| Value::Integer(high - low)))
///     }
/// }
///
/// let functions = UserFunctions::new().row_aggregate("spread", &[DataType::Int64], &DataType::Int64, Spread);
/// # drop(functions);
/// // CREATE FUNCTION spread AS 'spread' LANGUAGE RUST;
/// ```
pub trait RowAggregate: Send + Sync + 'static {
    /// What is held of a group. It is written into checkpoints, as JSON: a later program must be able to read it, and a float
    /// that is no number does not come back.
    type State: Default + Serialize + DeserializeOwned;

    /// Adds a row: the values of its arguments. Nulls arrive as [`Value::Null`].
    ///
    /// # Errors
    /// Any error fails the job, with the function's name.
    fn accumulate(&self, state: &mut Self::State, values: &[Value]) -> std::result::Result<(), FunctionError>;

    /// Adds what another part of the group's rows has given; those came later.
    ///
    /// # Errors
    /// Any error fails the job, with the function's name.
    fn merge(&self, state: &mut Self::State, other: Self::State) -> std::result::Result<(), FunctionError>;

    /// Gives the result of a group; that of the default state when no row counted.
    ///
    /// # Errors
    /// Any error fails the job, with the function's name.
    fn result(&self, state: &Self::State) -> std::result::Result<Value, FunctionError>;

    /// Says whether the result depends on the order of the rows. Then they are not aggregated before the exchange, where those
    /// of several workers have none.
    fn needs_order(&self) -> bool {
        false
    }
}

impl UserFunctions {
    /// Registers an aggregate function over the engine's traits. `factory` gives the function for the declared types; the
    /// state that it names must not change while there are checkpoints of it. A name that is registered again is replaced.
    ///
    /// # Panics
    /// When the function's result is not of the declared type.
    #[must_use]
    pub fn aggregate_function<F>(mut self, name: &str, arguments: &[DataType], returns: &DataType, factory: F) -> Self
    where
        F: Fn() -> Arc<dyn AggregateFunction> + Send + Sync + 'static,
    {
        let gives = factory().return_type();
        assert!(gives == *returns, "{name} gives {gives} where {returns} is declared");
        let registered = UserAggregate {
            name: name.to_owned(),
            arguments: arguments.to_vec(),
            returns: returns.clone(),
            factory: Box::new(factory),
        };
        self.scalars.remove(name);
        self.aggregates.insert(name.to_owned(), Arc::new(registered));
        self
    }

    /// Registers an aggregate function that takes one row at a time.
    ///
    /// # Panics
    /// When a type has no [`Value`]: use [`UserFunctions::aggregate_function`] for others.
    #[must_use]
    pub fn row_aggregate<A>(self, name: &str, arguments: &[DataType], returns: &DataType, aggregate: A) -> Self
    where
        A: RowAggregate,
    {
        check_types(name, arguments.iter().chain([returns]));
        let function: Arc<dyn AggregateFunction> = Arc::new(Rows(Arc::new(Shared {
            name: name.to_owned(),
            returns: returns.clone(),
            aggregate,
        })));
        self.aggregate_function(name, arguments, returns, move || Arc::clone(&function))
    }

    /// Returns a registered aggregate function.
    pub(crate) fn aggregate(&self, registered: &str) -> Option<Arc<UserAggregate>> {
        self.aggregates.get(registered).cloned()
    }
}

/// What the accumulators of a function share.
struct Shared<A> {
    name: String,
    returns: DataType,
    aggregate: A,
}

impl<A> Shared<A> {
    fn said(&self, error: impl fmt::Display) -> Error {
        Error::operator(format!("the function {} failed: {error}", self.name))
    }
}

struct Rows<A>(Arc<Shared<A>>);

impl<A> fmt::Debug for Rows<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.name)
    }
}

impl<A: RowAggregate> AggregateFunction for Rows<A> {
    fn name(&self) -> &str {
        &self.0.name
    }

    fn return_type(&self) -> DataType {
        self.0.returns.clone()
    }

    fn state_types(&self) -> Vec<DataType> {
        vec![DataType::Binary]
    }

    fn accumulator(&self) -> Box<dyn Accumulator> {
        Box::new(States {
            shared: Arc::clone(&self.0),
            states: Vec::new(),
        })
    }

    fn needs_order(&self) -> bool {
        self.0.aggregate.needs_order()
    }
}

/// A state per group; none where no row counted.
struct States<A: RowAggregate> {
    shared: Arc<Shared<A>>,
    states: Vec<Option<A::State>>,
}

impl<A: RowAggregate> Accumulator for States<A> {
    fn resize(&mut self, groups: usize) {
        self.states.resize_with(groups, || None);
    }

    fn update(&mut self, arguments: &[ArrayRef], groups: &[u32], filter: Option<&BooleanArray>) -> Result<()> {
        let (shared, states) = (&self.shared, &mut self.states);
        let mut row = 0;
        let done = for_each_row(arguments, groups.len(), |values| {
            row += 1;
            let counts = filter.is_none_or(|filter| filter.is_valid(row - 1) && filter.value(row - 1));
            if !counts {
                return Ok(());
            }
            let state = &mut states[groups[row - 1] as usize];
            shared.aggregate.accumulate(state.get_or_insert_default(), values)
        });
        done.map_err(|error| shared.said(error))
    }

    fn merge(&mut self, state: &[ArrayRef], groups: &[u32]) -> Result<()> {
        let [column] = state else {
            return Err(Error::Internal(format!(
                "the state of {} is one column",
                self.shared.name
            )));
        };
        let wrong = || Error::Checkpoint(format!("the state of {} is not of bytes", self.shared.name));
        let column = column.as_binary_opt::<i32>().ok_or_else(wrong)?;
        for (bytes, &group) in column.iter().zip(groups) {
            let Some(bytes) = bytes else { continue };
            let other: A::State = serde_json::from_slice(bytes).map_err(|error| {
                let name = &self.shared.name;
                Error::Checkpoint(format!(
                    "the state of {name} cannot be read: {error}; restore with the program that wrote it, or without this state"
                ))
            })?;
            let slot = &mut self.states[group as usize];
            match slot {
                Some(known) => {
                    let merged = self.shared.aggregate.merge(known, other);
                    merged.map_err(|error| self.shared.said(error))?;
                }
                None => *slot = Some(other),
            }
        }
        Ok(())
    }

    fn state(&self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        let mut encoded = Vec::with_capacity(groups.len());
        for &group in groups {
            let state = self.states[group as usize].as_ref().map(serde_json::to_vec);
            encoded.push(state.transpose().map_err(|error| self.shared.said(error))?);
        }
        Ok(vec![Arc::new(BinaryArray::from_iter(encoded))])
    }

    fn evaluate(&self, groups: &[u32]) -> Result<ArrayRef> {
        let (shared, none) = (&self.shared, A::State::default());
        let result = |group: &u32| {
            shared
                .aggregate
                .result(self.states[*group as usize].as_ref().unwrap_or(&none))
        };
        let results = groups.iter().map(result).collect::<std::result::Result<Vec<_>, _>>();
        let column = results.and_then(|values| column_of(values, &shared.returns));
        column.map_err(|error| shared.said(error))
    }

    fn size(&self) -> usize {
        self.states.capacity() * size_of::<Option<A::State>>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, StringArray};
    use serde::Deserialize;
    use std::collections::BTreeMap;

    /// The text that is there most often, the first of several.
    struct Mode;

    #[derive(Default, Serialize, Deserialize)]
    struct Counts(BTreeMap<String, u64>);

    impl RowAggregate for Mode {
        type State = Counts;

        fn accumulate(&self, state: &mut Counts, values: &[Value]) -> std::result::Result<(), FunctionError> {
            match values {
                [Value::Text(text), Value::Integer(times)] if *times >= 0 => {
                    *state.0.entry(text.clone()).or_default() += *times as u64;
                    Ok(())
                }
                [_, Value::Integer(times)] if *times < 0 => Err("less than no times".into()),
                _ => Ok(()),
            }
        }

        fn merge(&self, state: &mut Counts, other: Counts) -> std::result::Result<(), FunctionError> {
            for (text, times) in other.0 {
                *state.0.entry(text).or_default() += times;
            }
            Ok(())
        }

        fn result(&self, state: &Counts) -> std::result::Result<Value, FunctionError> {
            let most = state.0.iter().rev().max_by_key(|(_, times)| **times);
            Ok(most.map_or(Value::Null, |(text, _)| Value::Text(text.clone())))
        }
    }

    fn mode() -> Arc<dyn AggregateFunction> {
        let arguments = [DataType::Utf8, DataType::Int64];
        let functions = UserFunctions::new().row_aggregate("mode", &arguments, &DataType::Utf8, Mode);
        functions.aggregate("mode").unwrap().function(&arguments).unwrap()
    }

    fn columns(rows: &[(Option<&str>, i64)]) -> [ArrayRef; 2] {
        [
            Arc::new(rows.iter().map(|row| row.0).collect::<StringArray>()),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.1))),
        ]
    }

    #[test]
    fn states_of_rows_merge_and_survive_a_checkpoint() {
        let function = mode();
        let mut one = function.accumulator();
        one.resize(3);
        let filter = BooleanArray::from(vec![true, true, true, false, true]);
        let rows = [
            (Some("a"), 1),
            (Some("b"), 2),
            (None, 9),
            (Some("a"), 9),
            (Some("c"), 1),
        ];
        one.update(&columns(&rows), &[0, 0, 0, 0, 1], Some(&filter)).unwrap();
        let found = |states: &dyn Accumulator, groups: &[u32]| -> Vec<Option<String>> {
            let found = states.evaluate(groups).unwrap();
            found
                .as_string::<i32>()
                .iter()
                .map(|text| text.map(str::to_owned))
                .collect()
        };
        assert_eq!(
            found(one.as_ref(), &[0, 1, 2]),
            [Some("b".into()), Some("c".into()), None]
        );

        // Two states of one group, in another order, and rows behind them.
        let mut other = function.accumulator();
        other.resize(2);
        other.decode(&one.encode(&[1, 0]).unwrap(), &[0, 1]).unwrap();
        other.decode(&one.encode(&[2, 0]).unwrap(), &[0, 1]).unwrap();
        other.update(&columns(&[(Some("a"), 3)]), &[1], None).unwrap();
        assert_eq!(found(other.as_ref(), &[1, 0]), [Some("a".into()), Some("c".into())]);
        let merged = other.state(&[1]).unwrap();
        let state: Counts = serde_json::from_slice(merged[0].as_binary::<i32>().value(0)).unwrap();
        assert_eq!(state.0, BTreeMap::from([("a".to_owned(), 5), ("b".to_owned(), 4)]));
    }

    #[test]
    fn errors_name_the_function() {
        let mut states = mode().accumulator();
        states.resize(1);
        let error = states.update(&columns(&[(None, -1)]), &[0], None).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("the function mode failed: less than no times"),
            "{error}"
        );
        let foreign: ArrayRef = Arc::new(BinaryArray::from_iter_values([b"[3]"]));
        let error = states.merge(&[foreign], &[0]).unwrap_err();
        assert!(
            error.to_string().contains("the state of mode cannot be read"),
            "{error}"
        );
    }

    #[test]
    #[should_panic(expected = "gives Utf8 where Int64 is declared")]
    fn result_of_another_type_is_refused_at_once() {
        let function = mode();
        let _ = UserFunctions::new().aggregate_function("mode", &[], &DataType::Int64, move || Arc::clone(&function));
    }
}
