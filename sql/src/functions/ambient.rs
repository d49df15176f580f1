//! Functions that read more than their arguments: the clock and chance.
//!
//! DataFusion would fold `now()` into a literal when the job is planned. Ours read the wall time of the rows' tick, so
//! that all rows of a tick, on all workers and in all branches, see the same moment. They are never evaluated by
//! DataFusion: [`crate::expr`] puts their values into hidden columns of the batch.

use arrow::array::{ArrayRef, Date32Array, Float64Array, StringArray, Time32SecondArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, TimeUnit};
use datafusion_common::Result;
use datafusion_common::tree_node::TreeNode;
use datafusion_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use std::sync::Arc;

/// What such a function gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Ambient {
    /// The instant: `NOW()`, `CURRENT_TIMESTAMP`, `CURRENT_ROW_TIMESTAMP()`, `PROCTIME()`.
    Now,
    /// The instant without time zone, in UTC: `LOCALTIMESTAMP`.
    LocalTimestamp,
    /// The day in UTC: `CURRENT_DATE`.
    Date,
    /// The time of day in UTC: `CURRENT_TIME`, `LOCALTIME`.
    Time,
    /// A number from 0 to below 1: `RANDOM()`, `RAND()`.
    Random,
    /// A UUID of version 4: `UUID()`.
    Uuid,
}

const MS_PER_DAY: i64 = 86_400_000;

impl Ambient {
    /// Returns the type of the values.
    pub(crate) fn data_type(self) -> DataType {
        match self {
            Self::Now => DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
            Self::LocalTimestamp => DataType::Timestamp(TimeUnit::Millisecond, None),
            Self::Date => DataType::Date32,
            Self::Time => DataType::Time32(TimeUnit::Second),
            Self::Random => DataType::Float64,
            Self::Uuid => DataType::Utf8,
        }
    }

    /// Says whether every call is to give values of its own.
    pub(crate) fn is_chance(self) -> bool {
        matches!(self, Self::Random | Self::Uuid)
    }

    /// Returns the values for `rows` rows of a tick; `seed` is used by chance only.
    pub(crate) fn values(self, wall_time_ms: i64, seed: u64, rows: usize) -> ArrayRef {
        match self {
            Self::Now => Arc::new(TimestampMillisecondArray::from_value(wall_time_ms, rows).with_timezone("UTC")),
            Self::LocalTimestamp => Arc::new(TimestampMillisecondArray::from_value(wall_time_ms, rows)),
            Self::Date => {
                let day = i32::try_from(wall_time_ms.div_euclid(MS_PER_DAY)).unwrap_or(i32::MAX);
                Arc::new(Date32Array::from_value(day, rows))
            }
            Self::Time => {
                // Below 86,400, so it fits.
                let second = (wall_time_ms.rem_euclid(MS_PER_DAY) / 1_000) as i32;
                Arc::new(Time32SecondArray::from_value(second, rows))
            }
            Self::Random => {
                let value = |row: u64| (mix(seed.wrapping_add(mix(row))) >> 11) as f64 / (1u64 << 53) as f64;
                Arc::new(Float64Array::from_iter_values((0..rows as u64).map(value)))
            }
            Self::Uuid => Arc::new(StringArray::from_iter_values(
                (0..rows as u64).map(|row| uuid(seed, row)),
            )),
        }
    }
}

/// Returns all such functions by name.
pub(crate) fn functions() -> Vec<(String, Arc<ScalarUDF>)> {
    [
        ("now", Ambient::Now),
        ("current_timestamp", Ambient::Now),
        ("current_row_timestamp", Ambient::Now),
        ("proctime", Ambient::Now),
        ("localtimestamp", Ambient::LocalTimestamp),
        ("current_date", Ambient::Date),
        ("current_time", Ambient::Time),
        ("localtime", Ambient::Time),
        ("random", Ambient::Random),
        ("rand", Ambient::Random),
        ("uuid", Ambient::Uuid),
    ]
    .into_iter()
    .map(|(name, ambient)| {
        let signature = Signature::nullary(Volatility::Volatile);
        (
            name.to_owned(),
            Arc::new(ScalarUDF::new_from_impl(AmbientFunction {
                name,
                ambient,
                signature,
            })),
        )
    })
    .collect()
}

/// Returns what a function reads, if it is one of these.
pub(crate) fn ambient_of(function: &ScalarUDF) -> Option<Ambient> {
    function
        .inner()
        .downcast_ref::<AmbientFunction>()
        .map(|function| function.ambient)
}

/// Says whether every use of an expression is to give values of its own: the clock gives all of a tick the same.
pub(crate) fn draws_numbers(expr: &Expr) -> bool {
    let found = expr.exists(|expr| {
        Ok(match expr {
            Expr::ScalarFunction(call) => ambient_of(&call.func).is_some_and(Ambient::is_chance),
            _ => false,
        })
    });
    found.unwrap_or(true)
}

/// Says whether a function is `PROCTIME()`, whose value is a time attribute.
pub(crate) fn is_proctime(function: &ScalarUDF) -> bool {
    let ambient = function.inner().downcast_ref::<AmbientFunction>();
    ambient.is_some_and(|function| function.name == "proctime")
}

/// Such a function, for DataFusion's planner.
#[derive(Debug, PartialEq, Eq, Hash)]
struct AmbientFunction {
    name: &'static str,
    ambient: Ambient,
    signature: Signature,
}

impl ScalarUDFImpl for AmbientFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(self.ambient.data_type())
    }

    fn invoke_with_args(&self, _arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        super::never_evaluated(self.name)
    }
}

/// Spreads the bits of a number (the finaliser of SplitMix64).
pub(crate) fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn uuid(seed: u64, row: u64) -> String {
    let row = mix(row);
    let high = (mix(seed.wrapping_add(row)) & !0xf000) | 0x4000;
    let low = (mix(seed.rotate_left(32).wrapping_add(row)) >> 2) | (1 << 63);
    let (a, b, c) = (high >> 32, (high >> 16) & 0xffff, high & 0xffff);
    format!(
        "{a:08x}-{b:04x}-{c:04x}-{:04x}-{:012x}",
        low >> 48,
        low & 0xffff_ffff_ffff
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::AsArray;
    use arrow::datatypes::Float64Type;
    use std::collections::HashSet;

    #[test]
    fn chance_is_the_same_for_the_same_seed_and_differs_between_rows() {
        let uuids = Ambient::Uuid.values(0, 7, 1000);
        let distinct: HashSet<&str> = uuids.as_string::<i32>().iter().flatten().collect();
        assert_eq!(distinct.len(), 1000);
        assert_eq!(&uuids, &Ambient::Uuid.values(5, 7, 1000));
        assert_ne!(&uuids, &Ambient::Uuid.values(0, 8, 1000));
    }

    #[test]
    fn uuid_is_of_version_4() {
        let value = uuid(3, 4);
        assert_eq!(value.len(), 36);
        assert_eq!(value.as_bytes()[14], b'4');
        assert!(matches!(value.as_bytes()[19], b'8' | b'9' | b'a' | b'b'), "{value}");
    }

    #[test]
    fn random_fills_the_unit_interval() {
        let values = Ambient::Random.values(0, 1, 10_000);
        let values = values.as_primitive::<Float64Type>().values();
        assert!(values.iter().all(|v| (0.0..1.0).contains(v)));
        let mean = values.iter().sum::<f64>() / 10_000.0;
        assert!((0.45..0.55).contains(&mean), "{mean}");
    }

    #[test]
    fn day_and_time_before_the_epoch() {
        assert_eq!(
            Ambient::Date
                .values(-1, 0, 1)
                .as_primitive::<arrow::datatypes::Date32Type>()
                .value(0),
            -1
        );
        let time = Ambient::Time.values(-1, 0, 1);
        assert_eq!(
            time.as_primitive::<arrow::datatypes::Time32SecondType>().value(0),
            86_399
        );
    }
}
