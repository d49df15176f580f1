//! DataFusion's aggregate functions, computed by its own accumulators: one per group.
//!
//! The engine's accumulators hold all groups in arrays and are faster; this is for functions that the engine does not have.
//! None of them takes rows back, so they are refused over results that change. All of them can be read without losing what they
//! hold; DataFusion's `median` and `percentile_cont` cannot, and are the engine's.
//!
//! Their states are those of DataFusion's accumulators, and stand in checkpoints: a DataFusion whose states are others needs
//! another [`STATES`], so that no state of the old ones is read.

use arrow::array::{Array, ArrayRef, BooleanArray, UInt32Array, new_empty_array};
use arrow::compute::{cast, concat, take};
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion_common::{DataFusionError, ScalarValue};
use datafusion_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion_expr::type_coercion::functions::fields_with_udf;
use datafusion_expr::{Accumulator as Foreign, AggregateUDF, Expr};
use datafusion_functions_aggregate as functions;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::{Column, Literal};
use std::cell::RefCell;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use tidemill_engine::aggregate::{Accumulator, AggregateFunction};
use tidemill_engine::{Error, Result};

/// The most centroids that an approximate percentile keeps of a group, and the default is 100.
const CENTROIDS_MAX: i64 = 10_000;

/// What the states are those of: part of what operators are named by.
const STATES: &str = "datafusion 55";

/// A function of DataFusion's, with those of its arguments that are literals.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ForeignAggregate {
    name: &'static str,
    function: Arc<AggregateUDF>,
    /// How many arguments are columns; those behind them are literals.
    columns: usize,
    /// Whether numbers are turned into `DOUBLE`.
    doubles: bool,
    literals: Vec<ScalarValue>,
}

/// Returns all of them.
pub(super) fn all() -> Vec<ForeignAggregate> {
    let one = |name: &'static str, function: Arc<AggregateUDF>, columns: usize| ForeignAggregate {
        name,
        function,
        columns,
        doubles: false,
        literals: Vec::new(),
    };
    let of_doubles = |name: &'static str, function: Arc<AggregateUDF>, columns: usize| ForeignAggregate {
        doubles: true,
        ..one(name, function, columns)
    };
    let distinct = functions::approx_distinct::approx_distinct_udaf;
    let approximate = functions::approx_percentile_cont::approx_percentile_cont_udaf();
    let weighted = functions::approx_percentile_cont_with_weight::approx_percentile_cont_with_weight_udaf();
    vec![
        one("approx_count_distinct", distinct(), 1),
        one("approx_distinct", distinct(), 1),
        of_doubles("approx_median", functions::approx_median::approx_median_udaf(), 1),
        of_doubles("approx_percentile_cont", approximate, 1),
        of_doubles("approx_percentile_cont_with_weight", weighted, 2),
        one("bit_and", functions::bit_and_or_xor::bit_and_udaf(), 1),
        one("bit_or", functions::bit_and_or_xor::bit_or_udaf(), 1),
        one("bit_xor", functions::bit_and_or_xor::bit_xor_udaf(), 1),
        one("bool_and", functions::bool_and_or::bool_and_udaf(), 1),
        one("bool_or", functions::bool_and_or::bool_or_udaf(), 1),
        one("corr", functions::correlation::corr_udaf(), 2),
        one("covar_pop", functions::covariance::covar_pop_udaf(), 2),
        one("covar_samp", functions::covariance::covar_samp_udaf(), 2),
        one("regr_avgx", functions::regr::regr_avgx_udaf(), 2),
        one("regr_avgy", functions::regr::regr_avgy_udaf(), 2),
        one("regr_count", functions::regr::regr_count_udaf(), 2),
        one("regr_intercept", functions::regr::regr_intercept_udaf(), 2),
        one("regr_r2", functions::regr::regr_r2_udaf(), 2),
        one("regr_slope", functions::regr::regr_slope_udaf(), 2),
        one("regr_sxx", functions::regr::regr_sxx_udaf(), 2),
        one("regr_sxy", functions::regr::regr_sxy_udaf(), 2),
        one("regr_syy", functions::regr::regr_syy_udaf(), 2),
    ]
}

impl ForeignAggregate {
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Says what is computed.
    pub(crate) fn word(&self) -> String {
        let literals: Vec<String> = self.literals.iter().map(ToString::to_string).collect();
        format!("{STATES} {} ({})", self.function.name(), literals.join(", "))
    }

    /// Takes the literals among a call's arguments.
    ///
    /// # Errors
    /// When one is no literal.
    pub(super) fn of<'a>(&self, arguments: &'a [Expr]) -> Result<(Self, &'a [Expr]), String> {
        let (columns, literals) = arguments.split_at(self.columns.min(arguments.len()));
        let mut taken = Vec::with_capacity(literals.len());
        for (index, literal) in literals.iter().enumerate() {
            let Expr::Literal(value, _) = literal else {
                let place = self.columns + index + 1;
                return Err(format!("argument {place} of {} is a literal number", self.upper()));
            };
            taken.push(value.clone());
        }
        if taken.is_empty() {
            return Ok((self.clone(), columns));
        }
        let types: Vec<DataType> = taken.iter().map(ScalarValue::data_type).collect();
        let wanted = self.coerced(&vec![DataType::Float64; self.columns], &types)?;
        for (value, wanted) in taken.iter_mut().zip(&wanted[self.columns..]) {
            *value = value.cast_to(wanted).map_err(|error| crate::expr::describe(&error))?;
            // Room for all of them is taken at once, for each group.
            if matches!(value, ScalarValue::Int64(Some(count)) if !(1..=CENTROIDS_MAX).contains(count)) {
                return Err(format!("{} keeps from 1 to {CENTROIDS_MAX} centroids", self.upper()));
            }
        }
        let found = Self {
            literals: taken,
            ..self.clone()
        };
        Ok((found, columns))
    }

    /// Returns the types of the literals.
    pub(super) fn literal_types(&self) -> Vec<DataType> {
        self.literals.iter().map(ScalarValue::data_type).collect()
    }

    /// Returns the type of the result for arguments of these types, literals among them.
    pub(super) fn return_type(&self, arguments: &[DataType]) -> Result<DataType, String> {
        let fields: Vec<FieldRef> = self.coerced(arguments, &[])?.into_iter().map(field).collect();
        let returns = self.function.return_field(&fields);
        let returns = returns.map_err(|error| crate::expr::describe(&error))?;
        Ok(signed(returns.data_type()))
    }

    fn upper(&self) -> String {
        self.name.to_uppercase()
    }

    /// Returns the types that arguments, columns and literals, are cast to.
    pub(super) fn coerced(&self, columns: &[DataType], literals: &[DataType]) -> Result<Vec<DataType>, String> {
        let numeric = |found: &DataType| found.is_numeric() || found.is_null();
        let as_doubles =
            |(index, found): (usize, &DataType)| match self.doubles && index < self.columns && numeric(found) {
                true => DataType::Float64,
                false => found.clone(),
            };
        let types = columns.iter().chain(literals).enumerate().map(as_doubles);
        let fields: Vec<FieldRef> = types.map(field).collect();
        let coerced = fields_with_udf(&fields, self.function.as_ref());
        let coerced = coerced.map_err(|_| {
            let found: Vec<String> = fields
                .iter()
                .map(|field| crate::types::sql_name(field.data_type()))
                .collect();
            format!("{} does not take ({})", self.upper(), found.join(", "))
        })?;
        Ok(coerced.iter().map(|field| field.data_type().clone()).collect())
    }

    /// Makes the engine's function for columns of these types, to which they have been cast.
    ///
    /// # Errors
    /// When the function does not take them.
    pub(super) fn function(&self, columns: &[DataType]) -> Result<Arc<dyn AggregateFunction>, String> {
        if columns.len() != self.columns {
            return Err(format!(
                "{} takes {} columns, not {}",
                self.upper(),
                self.columns,
                columns.len()
            ));
        }
        let coerced = self.coerced(columns, &self.literal_types())?;
        if coerced[..self.columns] != *columns {
            return Err(format!("the arguments of {} were not cast", self.upper()));
        }
        let describe = |error: DataFusionError| crate::expr::describe(&error);
        let fields: Vec<FieldRef> = coerced.into_iter().map(field).collect();
        let returns = self.function.return_field(&fields).map_err(describe)?;
        let states = self.function.state_fields(StateFieldsArgs {
            name: self.name,
            input_fields: &fields,
            return_field: Arc::clone(&returns),
            ordering_fields: &[],
            is_distinct: false,
        });
        let states = states.map_err(describe)?;
        let columns = (0..self.columns).map(|index| Arc::new(Column::new("f", index)) as Arc<dyn PhysicalExpr>);
        let literals = self.literals.iter().cloned();
        let literals = literals.map(|value| Arc::new(Literal::new(value)) as Arc<dyn PhysicalExpr>);
        let shared = Shared {
            aggregate: self.clone(),
            exprs: columns.chain(literals).collect(),
            schema: Schema::new(fields.iter().take(self.columns).cloned().collect::<Vec<_>>()),
            fields,
            returns,
            states: states.iter().map(|field| field.data_type().clone()).collect(),
        };
        // What the function thinks of its literals is said here, not when the job runs.
        shared.accumulator().map_err(describe)?;
        Ok(Arc::new(ForeignFunction(Arc::new(shared))))
    }
}

/// Returns the type of a result: there are no unsigned numbers in SQL.
fn signed(data_type: &DataType) -> DataType {
    match data_type {
        DataType::UInt64 => DataType::Int64,
        other => other.clone(),
    }
}

fn field(data_type: DataType) -> FieldRef {
    Arc::new(Field::new("f", data_type, true))
}

/// What the accumulators of a function share.
struct Shared {
    aggregate: ForeignAggregate,
    exprs: Vec<Arc<dyn PhysicalExpr>>,
    schema: Schema,
    fields: Vec<FieldRef>,
    returns: FieldRef,
    states: Vec<DataType>,
}

impl Shared {
    fn accumulator(&self) -> datafusion_common::Result<Box<dyn Foreign>> {
        self.aggregate.function.accumulator(AccumulatorArgs {
            return_field: Arc::clone(&self.returns),
            schema: &self.schema,
            ignore_nulls: false,
            order_bys: &[],
            is_reversed: false,
            name: self.aggregate.name,
            is_distinct: false,
            exprs: &self.exprs,
            expr_fields: &self.fields,
        })
    }

    fn said(&self, error: &DataFusionError) -> Error {
        let said = crate::expr::describe(error);
        Error::operator(format!("{} failed: {said}", self.aggregate.upper()))
    }
}

struct ForeignFunction(Arc<Shared>);

impl fmt::Debug for ForeignFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.aggregate.name)
    }
}

impl AggregateFunction for ForeignFunction {
    fn name(&self) -> &str {
        self.0.aggregate.name
    }

    fn return_type(&self) -> DataType {
        signed(self.0.returns.data_type())
    }

    fn state_types(&self) -> Vec<DataType> {
        self.0.states.clone()
    }

    fn accumulator(&self) -> Box<dyn Accumulator> {
        Box::new(Groups {
            shared: Arc::clone(&self.0),
            held: RefCell::new(Vec::new()),
        })
    }
}

/// An accumulator per group; none where no row has come.
struct Groups {
    shared: Arc<Shared>,
    /// DataFusion's accumulators change when they are read.
    held: RefCell<Vec<Option<Box<dyn Foreign>>>>,
}

impl Groups {
    /// Gives the rows of each group to its accumulator.
    fn give(
        &self,
        columns: &[ArrayRef],
        mut rows: Vec<u32>,
        groups: &[u32],
        to: impl Fn(&mut dyn Foreign, &[ArrayRef]) -> datafusion_common::Result<()>,
    ) -> Result<()> {
        let mut held = self.held.borrow_mut();
        let in_order = rows
            .windows(2)
            .all(|pair| groups[pair[0] as usize] <= groups[pair[1] as usize]);
        // Rows of a group keep their order.
        if !in_order {
            rows.sort_by_key(|row| groups[*row as usize]);
        }
        let is_all = in_order && rows.len() == groups.len();
        let picked = UInt32Array::from(rows);
        let columns = columns.iter().map(|column| match is_all {
            true => Ok(Arc::clone(column)),
            false => take(column, &picked, None),
        });
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let rows = picked.values();
        let mut first = 0;
        while first < rows.len() {
            let group = groups[rows[first] as usize];
            let length = rows[first..]
                .iter()
                .take_while(|row| groups[**row as usize] == group)
                .count();
            let of_group: Range<usize> = first..first + length;
            first = of_group.end;
            let slices: Vec<ArrayRef> = columns
                .iter()
                .map(|column| column.slice(of_group.start, of_group.len()))
                .collect();
            let slot = &mut held[group as usize];
            let accumulator = match slot {
                Some(known) => known,
                None => slot.insert(self.shared.accumulator().map_err(|error| self.shared.said(&error))?),
            };
            to(accumulator.as_mut(), &slices).map_err(|error| self.shared.said(&error))?;
        }
        Ok(())
    }

    /// Reads a group's state, one value per column.
    fn state_of(&self, group: u32) -> datafusion_common::Result<Vec<ScalarValue>> {
        let mut held = self.held.borrow_mut();
        let Some(accumulator) = &mut held[group as usize] else {
            return self.shared.accumulator()?.state();
        };
        accumulator.state()
    }
}

impl Accumulator for Groups {
    fn resize(&mut self, groups: usize) {
        self.held.get_mut().resize_with(groups, || None);
    }

    fn update(&mut self, arguments: &[ArrayRef], groups: &[u32], filter: Option<&BooleanArray>) -> Result<()> {
        let counts =
            |row: &u32| filter.is_none_or(|filter| filter.is_valid(*row as usize) && filter.value(*row as usize));
        let rows = (0..groups.len() as u32).filter(counts).collect();
        self.give(arguments, rows, groups, |accumulator, rows| {
            accumulator.update_batch(rows)
        })
    }

    fn merge(&mut self, state: &[ArrayRef], groups: &[u32]) -> Result<()> {
        let found: Vec<&DataType> = state.iter().map(|column| column.data_type()).collect();
        if !found.iter().copied().eq(self.shared.states.iter()) {
            let name = self.shared.aggregate.upper();
            return Err(Error::Checkpoint(format!("a state of {found:?} is none of {name}")));
        }
        let rows = (0..groups.len() as u32).collect();
        self.give(state, rows, groups, |accumulator, states| {
            accumulator.merge_batch(states)
        })
    }

    fn state(&self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        let mut columns: Vec<Vec<ArrayRef>> = vec![Vec::with_capacity(groups.len()); self.shared.states.len()];
        for &group in groups {
            let state = self.state_of(group).map_err(|error| self.shared.said(&error))?;
            for (column, value) in columns.iter_mut().zip(state) {
                let value = value.to_array().map_err(|error| self.shared.said(&error))?;
                column.push(value);
            }
        }
        let types = self.shared.states.iter();
        let columns = columns.iter().zip(types).map(|(values, data_type)| {
            let values: Vec<&dyn Array> = values.iter().map(AsRef::as_ref).collect();
            match values.is_empty() {
                true => Ok(new_empty_array(data_type)),
                false => concat(&values).and_then(|column| match column.data_type() == data_type {
                    true => Ok(column),
                    false => cast(&column, data_type),
                }),
            }
        });
        Ok(columns.collect::<Result<_, _>>()?)
    }

    fn evaluate(&self, groups: &[u32]) -> Result<ArrayRef> {
        let mut held = self.held.borrow_mut();
        let mut results = Vec::with_capacity(groups.len());
        for &group in groups {
            let result = match &mut held[group as usize] {
                Some(accumulator) => accumulator.evaluate(),
                None => self.shared.accumulator().and_then(|mut empty| empty.evaluate()),
            };
            results.push(result.map_err(|error| self.shared.said(&error))?);
        }
        let column = match results.is_empty() {
            true => new_empty_array(self.shared.returns.data_type()),
            false => ScalarValue::iter_to_array(results).map_err(|error| self.shared.said(&error))?,
        };
        Ok(cast(&column, &signed(self.shared.returns.data_type()))?)
    }

    fn size(&self) -> usize {
        let held = self.held.borrow();
        let inside: usize = held.iter().flatten().map(|accumulator| accumulator.size()).sum();
        inside + held.capacity() * size_of::<Option<Box<dyn Foreign>>>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{BooleanArray, Float64Array, Int64Array};
    use proptest::prelude::*;

    /// Rows of a group, a filter that some pass, and values.
    type Row = (u32, bool, Option<i64>, Option<i64>);

    fn columns(aggregate: &ForeignAggregate, rows: &[Row]) -> Vec<ArrayRef> {
        let types = aggregate
            .coerced(&types_of(aggregate), &literals_of(aggregate))
            .unwrap();
        let column = |index: usize| -> ArrayRef {
            let numbers = rows.iter().map(|row| if index == 0 { row.2 } else { row.3 });
            match types[index] {
                DataType::Boolean => Arc::new(BooleanArray::from_iter(numbers.map(|n| n.map(|n| n > 0)))),
                ref other => cast(&(Arc::new(Int64Array::from_iter(numbers)) as ArrayRef), other).unwrap(),
            }
        };
        (0..aggregate.columns).map(column).collect()
    }

    fn types_of(aggregate: &ForeignAggregate) -> Vec<DataType> {
        let of_one = match aggregate.name.starts_with("bool") {
            true => DataType::Boolean,
            false => DataType::Int64,
        };
        vec![of_one; aggregate.columns]
    }

    fn literals_of(aggregate: &ForeignAggregate) -> Vec<DataType> {
        match aggregate.name.contains("percentile") {
            true => vec![DataType::Float64],
            false => Vec::new(),
        }
    }

    fn made(aggregate: &ForeignAggregate) -> Arc<dyn AggregateFunction> {
        let mut aggregate = aggregate.clone();
        aggregate.literals = literals_of(&aggregate)
            .iter()
            .map(|_| ScalarValue::Float64(Some(0.25)))
            .collect();
        let types = aggregate
            .coerced(&types_of(&aggregate), &literals_of(&aggregate))
            .unwrap();
        aggregate.function(&types[..aggregate.columns]).unwrap()
    }

    fn same(left: &ArrayRef, right: &ArrayRef) -> bool {
        let [left, right] = [left, right].map(|column| cast(column, &DataType::Float64).unwrap());
        let [left, right] =
            [&left, &right].map(|column| column.as_any().downcast_ref::<Float64Array>().unwrap().clone());
        left.iter().zip(right.iter()).all(|pair| match pair {
            (Some(left), Some(right)) => {
                (left.is_nan() && right.is_nan()) || (left - right).abs() <= 1e-6 * right.abs().max(1.0)
            }
            (left, right) => left.is_none() && right.is_none(),
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// All functions: rows of several groups in batches, read and restored between, against one group at a time.
        #[test]
        fn groups_are_what_each_is_by_itself(
            batches in prop::collection::vec(
                prop::collection::vec((0u32..3, any::<bool>(), prop::option::of(-5i64..6), prop::option::of(1i64..6)), 0..12),
                1..5,
            ),
            weights_differ in any::<bool>(),
        ) {
            for aggregate in all() {
                // A digest says something else when its rows come in other batches.
                let approximates = aggregate.name.starts_with("approx_") && !aggregate.name.contains("distinct");
                if approximates && weights_differ {
                    continue;
                }
                let function = made(&aggregate);
                let mut held = function.accumulator();
                held.resize(4);
                for batch in &batches {
                    let groups: Vec<u32> = batch.iter().map(|row| row.0).collect();
                    let filter = BooleanArray::from_iter(batch.iter().map(|row| Some(row.1)));
                    held.update(&columns(&aggregate, batch), &groups, Some(&filter)).unwrap();
                    // To read changes nothing.
                    let read = held.evaluate(&[0, 1, 2, 3]).unwrap();
                    let state = held.state(&[3, 2, 1, 0]).unwrap();
                    prop_assert!(same(&held.evaluate(&[0, 1, 2, 3]).unwrap(), &read), "{}", aggregate.name);
                    let found: Vec<DataType> = state.iter().map(|column| column.data_type().clone()).collect();
                    prop_assert_eq!(&found, &function.state_types(), "{}", aggregate.name);
                    let mut restored = function.accumulator();
                    restored.resize(4);
                    restored.merge(&state, &[3, 2, 1, 0]).unwrap();
                    if !approximates {
                        prop_assert!(same(&restored.evaluate(&[0, 1, 2, 3]).unwrap(), &read), "{}", aggregate.name);
                        held = restored;
                    }
                }
                let found = held.evaluate(&[0, 1, 2, 3]).unwrap();
                prop_assert_eq!(found.data_type(), &function.return_type());
                for group in 0..4u32 {
                    let mut alone = function.accumulator();
                    alone.resize(1);
                    for batch in &batches {
                        let rows: Vec<Row> = batch.iter().copied().filter(|row| row.0 == group && row.1).collect();
                        alone.update(&columns(&aggregate, &rows), &vec![0; rows.len()], None).unwrap();
                    }
                    let expected = alone.evaluate(&[0]).unwrap();
                    prop_assert!(
                        same(&found.slice(group as usize, 1), &expected),
                        "{} of group {group}: {found:?} is not {expected:?}",
                        aggregate.name
                    );
                }
            }
        }
    }

    #[test]
    fn arguments_that_do_not_fit_are_refused_in_planning() {
        let named = |name: &str| all().into_iter().find(|aggregate| aggregate.name == name).unwrap();
        let text = [DataType::Utf8];
        assert_eq!(
            named("bit_and").coerced(&text, &[]).unwrap_err(),
            "BIT_AND does not take (STRING)"
        );
        let mut percentile = named("approx_percentile_cont");
        percentile.literals = vec![ScalarValue::Float64(Some(1.5))];
        let refusal = percentile.function(&[DataType::Float64]).unwrap_err();
        assert!(refusal.contains("between 0.0 and 1.0"), "{refusal}");
        let column = [datafusion_expr::col("x"), datafusion_expr::col("y")];
        let refusal = named("approx_percentile_cont").of(&column).unwrap_err();
        assert_eq!(refusal, "argument 2 of APPROX_PERCENTILE_CONT is a literal number");
    }
}
