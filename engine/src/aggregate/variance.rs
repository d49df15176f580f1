//! `var_pop(x)`, `var_samp(x)` and their roots, `stddev_pop(x)` and `stddev_samp(x)`.

use super::{Accumulator, AggregateFunction, passes};
use crate::error::{Error, Result};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use std::sync::Arc;

/// Which measure of spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Spread {
    /// Over all of a population; 0 for one value.
    VariancePopulation,
    /// From a sample of it; null for one value.
    VarianceSample,
    /// The root of [`Spread::VariancePopulation`].
    DeviationPopulation,
    /// The root of [`Spread::VarianceSample`].
    DeviationSample,
}

/// Measures how far numbers are spread around their mean, as a double; null when a group has too few.
///
/// The state is the count, the mean and the sum of squared distances from it, which do not lose digits to a large mean
/// (Welford 1962; merged as in Chan, Golub and LeVeque 1979).
#[derive(Clone, Debug)]
pub struct Variance(Spread);

impl Variance {
    /// Makes the function for arguments of a type.
    ///
    /// # Errors
    /// When the type is not a number.
    pub fn try_new(spread: Spread, argument: &DataType) -> Result<Self> {
        let function = Self(spread);
        if argument.is_numeric() {
            return Ok(function);
        }
        Err(Error::Graph(format!(
            "{} needs a number, and its argument is {argument}",
            function.name()
        )))
    }
}

impl AggregateFunction for Variance {
    fn name(&self) -> &str {
        match self.0 {
            Spread::VariancePopulation => "var_pop",
            Spread::VarianceSample => "var_samp",
            Spread::DeviationPopulation => "stddev_pop",
            Spread::DeviationSample => "stddev_samp",
        }
    }

    fn return_type(&self) -> DataType {
        DataType::Float64
    }

    fn state_types(&self) -> Vec<DataType> {
        vec![DataType::Int64, DataType::Float64, DataType::Float64]
    }

    fn accumulator(&self) -> Box<dyn Accumulator> {
        Box::new(Moments {
            spread: self.0,
            groups: Vec::new(),
        })
    }
}

/// A group's count, mean and sum of squared distances from it.
#[derive(Clone, Copy, Debug, Default)]
struct Moment {
    count: i64,
    mean: f64,
    squares: f64,
}

impl Moment {
    fn add(&mut self, value: f64) {
        self.count += 1;
        let distance = value - self.mean;
        self.mean += distance / self.count as f64;
        self.squares += distance * (value - self.mean);
    }

    fn merge(&mut self, other: Self) {
        if other.count == 0 {
            return;
        }
        if self.count == 0 {
            *self = other;
            return;
        }
        let count = self.count + other.count;
        let distance = other.mean - self.mean;
        let share = other.count as f64 / count as f64;
        self.mean += distance * share;
        self.squares += other.squares + distance * distance * self.count as f64 * share;
        self.count = count;
    }

    fn result(self, spread: Spread) -> Option<f64> {
        let among = match spread {
            Spread::VariancePopulation | Spread::DeviationPopulation => self.count,
            Spread::VarianceSample | Spread::DeviationSample => self.count - 1,
        };
        let variance = (among > 0).then(|| self.squares / among as f64)?;
        Some(match spread {
            Spread::VariancePopulation | Spread::VarianceSample => variance,
            Spread::DeviationPopulation | Spread::DeviationSample => variance.sqrt(),
        })
    }
}

struct Moments {
    spread: Spread,
    groups: Vec<Moment>,
}

impl Accumulator for Moments {
    fn resize(&mut self, groups: usize) {
        self.groups.resize(groups, Moment::default());
    }

    fn update(&mut self, arguments: &[ArrayRef], groups: &[u32], filter: Option<&BooleanArray>) -> Result<()> {
        let [argument] = arguments else {
            return Err(Error::Internal("a variance has one argument".into()));
        };
        let values = cast(argument, &DataType::Float64)?;
        let values = values.as_primitive::<Float64Type>();
        for (row, (&group, &value)) in groups.iter().zip(values.values()).enumerate() {
            if values.is_valid(row) && passes(filter, row) {
                self.groups[group as usize].add(value);
            }
        }
        Ok(())
    }

    fn merge(&mut self, state: &[ArrayRef], groups: &[u32]) -> Result<()> {
        let foreign = || Error::Internal("the state is not that of a variance".into());
        let [counts, means, squares] = state else {
            return Err(foreign());
        };
        let counts = counts.as_primitive_opt::<Int64Type>().ok_or_else(foreign)?;
        let means = means.as_primitive_opt::<Float64Type>().ok_or_else(foreign)?;
        let squares = squares.as_primitive_opt::<Float64Type>().ok_or_else(foreign)?;
        for (row, &group) in groups.iter().enumerate() {
            self.groups[group as usize].merge(Moment {
                count: counts.value(row),
                mean: means.value(row),
                squares: squares.value(row),
            });
        }
        Ok(())
    }

    fn state(&self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        let of = || groups.iter().map(|group| self.groups[*group as usize]);
        Ok(vec![
            Arc::new(Int64Array::from_iter_values(of().map(|moment| moment.count))),
            Arc::new(Float64Array::from_iter_values(of().map(|moment| moment.mean))),
            Arc::new(Float64Array::from_iter_values(of().map(|moment| moment.squares))),
        ])
    }

    fn evaluate(&self, groups: &[u32]) -> Result<ArrayRef> {
        let results = groups
            .iter()
            .map(|group| self.groups[*group as usize].result(self.spread));
        Ok(Arc::new(Float64Array::from_iter(results)))
    }

    fn size(&self) -> usize {
        self.groups.capacity() * size_of::<Moment>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spread(values: &[f64], spread: Spread) -> Option<f64> {
        let (count, mean) = (values.len() as f64, values.iter().sum::<f64>() / values.len() as f64);
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let sample = matches!(spread, Spread::VarianceSample | Spread::DeviationSample);
        let among = if sample { count - 1.0 } else { count };
        let variance = (among > 0.0).then(|| squares / among)?;
        let root = matches!(spread, Spread::DeviationPopulation | Spread::DeviationSample);
        Some(if root { variance.sqrt() } else { variance })
    }

    proptest! {
        /// Values far from zero, in parts of which each is added, read as a state, and merged.
        #[test]
        fn parts_merge_to_what_two_passes_find(
            parts in prop::collection::vec(prop::collection::vec(-1_000i64..1_000, 0..20), 0..6),
        ) {
            for kind in [
                Spread::VariancePopulation,
                Spread::VarianceSample,
                Spread::DeviationPopulation,
                Spread::DeviationSample,
            ] {
                let function = Variance::try_new(kind, &DataType::Int64).unwrap();
                let mut whole = function.accumulator();
                whole.resize(1);
                for part in &parts {
                    let mut of_part = function.accumulator();
                    of_part.resize(2);
                    let values: ArrayRef = Arc::new(Int64Array::from_iter(
                        part.iter().map(|value| Some(value + 1_000_000)).chain([None]),
                    ));
                    of_part.update(&[values], &vec![1; part.len() + 1], None).unwrap();
                    whole.merge(&of_part.state(&[1]).unwrap(), &[0]).unwrap();
                    whole.merge(&of_part.state(&[0]).unwrap(), &[0]).unwrap();
                }
                let all: Vec<f64> = parts.iter().flatten().map(|value| (value + 1_000_000) as f64).collect();
                let found = whole.evaluate(&[0]).unwrap();
                let found = found.as_primitive::<Float64Type>();
                match spread(&all, kind) {
                    Some(expected) => {
                        let distance = (found.value(0) - expected).abs();
                        prop_assert!(distance <= 1e-6 * expected.max(1.0), "{} {expected}", found.value(0));
                    }
                    None => prop_assert!(found.is_null(0)),
                }
            }
        }
    }

    #[test]
    fn a_filter_leaves_rows_out() {
        let mut moments = Variance::try_new(Spread::VariancePopulation, &DataType::Float64)
            .unwrap()
            .accumulator();
        moments.resize(1);
        let values: ArrayRef = Arc::new(Float64Array::from(vec![1.0, 3.0, 99.0]));
        let filter = BooleanArray::from(vec![Some(true), Some(true), None]);
        moments.update(&[values], &[0, 0, 0], Some(&filter)).unwrap();
        assert_eq!(
            moments.evaluate(&[0]).unwrap().as_primitive::<Float64Type>().value(0),
            1.0
        );
        assert!(Variance::try_new(Spread::VariancePopulation, &DataType::Utf8).is_err());
    }
}
