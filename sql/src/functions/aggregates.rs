//! The engine's aggregates, as DataFusion's planner sees them: names and types only.
//!
//! The types come from the engine's own constructors, so that plan and execution cannot disagree.

use super::UserAggregate;
use super::foreign::{self, ForeignAggregate};
use arrow::datatypes::DataType;
use datafusion_common::{DataFusionError, Result, ScalarValue};
use datafusion_expr::expr::{AggregateFunction as Call, NullTreatment};
use datafusion_expr::function::AccumulatorArgs;
use datafusion_expr::planner::{ExprPlanner, PlannerResult, RawAggregateExpr, RawWindowExpr};
use datafusion_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Expr, Signature, Volatility};
use std::sync::Arc;
use tidemill_engine::aggregate::{
    AggregateFunction, ArrayAgg, Avg, AvgDistinct, Collect, Count, CountDistinct, FirstValue, JsonArrayAgg,
    JsonObjectAgg, LastValue, ListAgg, Max, Min, Percentile, Spread, Sum, SumDistinct, Variance,
};

/// The share of numbers that lie below a percentile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Share {
    /// A half, which is not written.
    Median,
    /// What is written, as the bits of a double.
    Of(u64),
}

impl Share {
    fn value(self) -> f64 {
        match self {
            Self::Median => 0.5,
            Self::Of(bits) => f64::from_bits(bits),
        }
    }
}

/// An aggregate of the engine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum AggregateKind {
    /// `COUNT`.
    Count,
    /// `SUM`.
    Sum,
    /// `MIN`.
    Min,
    /// `MAX`.
    Max,
    /// `AVG`.
    Avg,
    /// `VAR_POP`, `STDDEV_SAMP` and the like.
    Variance(Spread),
    /// `FIRST_VALUE`, without `OVER`.
    FirstValue,
    /// `LAST_VALUE`, without `OVER`.
    LastValue,
    /// `LISTAGG`, with what stands between the texts.
    ListAgg(String),
    /// `ARRAY_AGG`.
    ArrayAgg,
    /// `COLLECT`: a multiset.
    Collect,
    /// `MEDIAN`, `PERCENTILE`.
    Percentile(Share),
    /// `JSON_ARRAYAGG`, of the elements' JSON.
    JsonArrayAgg,
    /// `JSON_OBJECTAGG`, of the entries' JSON.
    JsonObjectAgg,
    /// One of DataFusion's.
    Foreign(ForeignAggregate),
    /// One of the program's own, with the name that the text gives it.
    User(String, Arc<UserAggregate>),
}

impl AggregateKind {
    /// Returns the function's name.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Count => "count",
            Self::Sum => "sum",
            Self::Min => "min",
            Self::Max => "max",
            Self::Avg => "avg",
            Self::Variance(Spread::VariancePopulation) => "var_pop",
            Self::Variance(Spread::VarianceSample) => "var_samp",
            Self::Variance(Spread::DeviationPopulation) => "stddev_pop",
            Self::Variance(Spread::DeviationSample) => "stddev_samp",
            Self::FirstValue => "first_value",
            Self::LastValue => "last_value",
            Self::ListAgg(_) => "listagg",
            Self::ArrayAgg => "array_agg",
            Self::Collect => "collect",
            Self::Percentile(Share::Median) => "median",
            Self::Percentile(_) => "percentile",
            Self::JsonArrayAgg => "json_arrayagg",
            Self::JsonObjectAgg => "json_objectagg",
            Self::Foreign(function) => function.name(),
            Self::User(name, _) => name,
        }
    }

    /// Says what is computed, with all that is not a column.
    pub(crate) fn word(&self) -> String {
        match self {
            Self::ListAgg(separator) => format!("listagg {separator:?}"),
            Self::Percentile(share) => format!("percentile {:?}", share.value()),
            Self::Foreign(function) => function.word(),
            Self::User(_, function) => function.word(),
            other => other.name().to_owned(),
        }
    }

    /// Returns the types that arguments of these types are cast to, where a function has types of its own: the planner has
    /// checked that what is there can be cast, and casts only the arguments of scalar functions.
    ///
    /// # Errors
    /// When the function does not take the arguments.
    pub(crate) fn declared(&self, found: &[DataType]) -> Result<Vec<DataType>, String> {
        match self {
            Self::User(_, function) => Ok(function.arguments().to_vec()),
            Self::Percentile(_) => match found {
                [number] if number.is_numeric() => Ok(vec![DataType::Float64]),
                _ => Err(format!("{} is of numbers", self.name())),
            },
            Self::Foreign(function) => {
                let mut types = function.coerced(found, &function.literal_types())?;
                types.truncate(found.len());
                Ok(types)
            }
            _ => Ok(found.to_vec()),
        }
    }

    /// Says whether the result holds all values of a group.
    pub(crate) fn is_list(&self) -> bool {
        matches!(
            self,
            Self::ListAgg(_) | Self::ArrayAgg | Self::Collect | Self::JsonArrayAgg | Self::JsonObjectAgg
        )
    }

    /// Returns the function of a call, and those of its arguments that are columns.
    ///
    /// # Errors
    /// When an argument that must be a literal is none.
    pub(crate) fn of<'a>(&self, arguments: &'a [Expr]) -> Result<(Self, &'a [Expr]), String> {
        match (self, arguments) {
            (Self::ListAgg(_), [_, separator]) => match separator {
                Expr::Literal(ScalarValue::Utf8(Some(separator)), _) => {
                    Ok((Self::ListAgg(separator.clone()), &arguments[..1]))
                }
                _ => Err("the separator of LISTAGG is a text literal".to_owned()),
            },
            (Self::Percentile(Share::Of(_)), [_, share]) => {
                let share = literal_number(share).filter(|share| (0.0..=1.0).contains(share));
                let share = share.ok_or("argument 2 of PERCENTILE is a literal number from 0 to 1")?;
                Ok((Self::Percentile(Share::Of(share.to_bits())), &arguments[..1]))
            }
            (Self::Foreign(function), _) => {
                let (function, columns) = function.of(arguments)?;
                Ok((Self::Foreign(function), columns))
            }
            _ => Ok((self.clone(), arguments)),
        }
    }

    /// Makes the engine's function for the types of its columns; none for `COUNT(*)`.
    ///
    /// # Errors
    /// When the function does not take the types, or does not exist with DISTINCT.
    pub(crate) fn function(
        &self,
        arguments: &[DataType],
        distinct: bool,
    ) -> Result<Arc<dyn AggregateFunction>, String> {
        let describe = |error: tidemill_engine::Error| match error {
            tidemill_engine::Error::Graph(message) => message,
            other => other.to_string(),
        };
        if let Self::User(name, function) = self {
            return match distinct {
                true => Err(format!(
                    "{name}(DISTINCT ...) is not supported: it is a function of the program's own"
                )),
                false => function.function(arguments),
            };
        }
        if let Self::Foreign(function) = self {
            return match distinct {
                true => Err(not_distinct(self.name())),
                false => function.function(arguments),
            };
        }
        let Some(argument) = arguments.first() else {
            return match (self, distinct) {
                (Self::Count, false) => Ok(Arc::new(Count::new())),
                _ => Err(format!("{} needs an argument", self.name())),
            };
        };
        let made: Result<Arc<dyn AggregateFunction>, tidemill_engine::Error> = match (self, distinct) {
            (Self::Count, false) => Ok(Arc::new(Count::new())),
            (Self::Count, true) => CountDistinct::try_new(argument).map(|made| Arc::new(made) as _),
            // DISTINCT changes nothing for MIN and MAX.
            (Self::Min, _) => Min::try_new(argument).map(|made| Arc::new(made) as _),
            (Self::Max, _) => Max::try_new(argument).map(|made| Arc::new(made) as _),
            (Self::Sum, false) => Sum::try_new(argument).map(|made| Arc::new(made) as _),
            (Self::Sum, true) => SumDistinct::try_new(argument).map(|made| Arc::new(made) as _),
            (Self::Avg, false) => Avg::try_new(argument).map(|made| Arc::new(made) as _),
            (Self::Avg, true) => AvgDistinct::try_new(argument).map(|made| Arc::new(made) as _),
            (Self::Variance(spread), false) => Variance::try_new(*spread, argument).map(|made| Arc::new(made) as _),
            (Self::FirstValue, false) => FirstValue::try_new(argument).map(|made| Arc::new(made) as _),
            (Self::LastValue, false) => LastValue::try_new(argument).map(|made| Arc::new(made) as _),
            (Self::ListAgg(separator), false) => ListAgg::try_new(argument, separator).map(|made| Arc::new(made) as _),
            (Self::ArrayAgg, false) => ArrayAgg::try_new(argument).map(|made| Arc::new(made) as _),
            (Self::Collect, distinct) => Collect::try_new(argument, distinct).map(|made| Arc::new(made) as _),
            (Self::Percentile(share), false) => {
                Percentile::try_new(argument, share.value()).map(|made| Arc::new(made) as _)
            }
            (Self::JsonArrayAgg, false) => JsonArrayAgg::try_new(argument).map(|made| Arc::new(made) as _),
            (Self::JsonObjectAgg, false) => JsonObjectAgg::try_new(argument).map(|made| Arc::new(made) as _),
            (_, true) | (Self::User(..) | Self::Foreign(_), _) => return Err(not_distinct(self.name())),
        };
        made.map_err(describe)
    }
}

/// Returns the number that an expression is, if it is a literal.
fn literal_number(expr: &Expr) -> Option<f64> {
    let Expr::Literal(value, _) = expr else { return None };
    match value.cast_to(&DataType::Float64) {
        Ok(ScalarValue::Float64(number)) if value.data_type().is_numeric() => number,
        _ => None,
    }
}

fn not_distinct(name: &str) -> String {
    format!("{name}(DISTINCT ...) is not supported yet; COUNT, SUM, AVG, MIN, MAX and COLLECT take DISTINCT")
}

/// An aggregate for DataFusion's planner.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Aggregate {
    /// Which one.
    pub(crate) kind: AggregateKind,
    signature: Signature,
}

/// Returns all aggregates.
pub(crate) fn functions() -> Vec<Arc<AggregateUDF>> {
    use AggregateKind as Kind;
    let variances = [
        Spread::VariancePopulation,
        Spread::VarianceSample,
        Spread::DeviationPopulation,
        Spread::DeviationSample,
    ];
    let plain = [Kind::Count, Kind::Sum, Kind::Min, Kind::Max, Kind::Avg];
    let ordered = [
        Kind::FirstValue,
        Kind::LastValue,
        Kind::ListAgg(",".to_owned()),
        Kind::ArrayAgg,
        Kind::Collect,
        Kind::JsonArrayAgg,
        Kind::JsonObjectAgg,
        Kind::Percentile(Share::Median),
        Kind::Percentile(Share::Of(0)),
    ];
    let kinds = plain.into_iter().chain(variances.map(Kind::Variance)).chain(ordered);
    let kinds = kinds.chain(foreign::all().into_iter().map(Kind::Foreign));
    kinds.map(function).collect()
}

/// Makes the planner's function.
pub(crate) fn function(kind: AggregateKind) -> Arc<AggregateUDF> {
    let signature = Signature::user_defined(Volatility::Immutable);
    Arc::new(AggregateUDF::new_from_impl(Aggregate { kind, signature }))
}

impl AggregateUDFImpl for Aggregate {
    fn name(&self) -> &str {
        self.kind.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        if let AggregateKind::User(_, function) = &self.kind {
            return Ok(function.returns().clone());
        }
        if let AggregateKind::Foreign(function) = &self.kind {
            return function.return_type(arguments).map_err(DataFusionError::Plan);
        }
        if let AggregateKind::Percentile(_) = &self.kind {
            return Ok(DataType::Float64);
        }
        match self.kind.function(arguments, false) {
            Ok(function) => Ok(function.return_type()),
            Err(message) => Err(DataFusionError::Plan(message)),
        }
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        match (arguments, &self.kind) {
            (_, AggregateKind::User(_, function)) => function.coerced(arguments),
            (_, AggregateKind::Foreign(function)) => {
                let coerced = function.coerced(arguments, &[]);
                coerced.map_err(DataFusionError::Plan)
            }
            ([_, _], AggregateKind::Percentile(Share::Of(_))) => Ok(arguments.to_vec()),
            (_, AggregateKind::Percentile(Share::Of(_))) => Err(DataFusionError::Plan(
                "PERCENTILE takes a number and a share from 0 to 1".to_owned(),
            )),
            ([_], _) => Ok(arguments.to_vec()),
            ([_, _], AggregateKind::ListAgg(_)) => Ok(arguments.to_vec()),
            (_, AggregateKind::ListAgg(_)) => Err(DataFusionError::Plan(
                "listagg takes a text, and maybe a separator".to_owned(),
            )),
            _ => Err(DataFusionError::Plan(format!("{} takes one argument", self.name()))),
        }
    }

    fn accumulator(&self, _arguments: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        super::never_evaluated(self.name())
    }
}

/// The argument that stands for the `*` of `COUNT(*)`.
pub(crate) fn star() -> Expr {
    Expr::Literal(ScalarValue::Int64(Some(1)), None)
}

/// Plans `COUNT(*)` and `COUNT()`.
#[derive(Debug)]
pub(crate) struct CountStar;

impl ExprPlanner for CountStar {
    fn plan_aggregate(&self, raw: RawAggregateExpr) -> Result<PlannerResult<RawAggregateExpr>> {
        #[allow(deprecated)] // that is how the parser's `*` arrives
        let is_star = matches!(raw.args.as_slice(), [] | [Expr::Wildcard { .. }]);
        if raw.func.name() != "count" || !is_star {
            return Ok(PlannerResult::Original(raw));
        }
        if raw.distinct {
            return Err(DataFusionError::Plan(
                "COUNT(DISTINCT *) is not supported; name a column".into(),
            ));
        }
        let RawAggregateExpr {
            func,
            args: _,
            distinct,
            filter,
            order_by,
            null_treatment,
        } = raw;
        let null_treatment: Option<NullTreatment> = null_treatment;
        let call = Call::new_udf(func, vec![star()], distinct, filter, order_by, null_treatment);
        Ok(PlannerResult::Planned(Expr::AggregateFunction(call).alias("count(*)")))
    }

    fn plan_window(&self, mut raw: RawWindowExpr) -> Result<PlannerResult<RawWindowExpr>> {
        #[allow(deprecated)] // as above
        let is_star = matches!(raw.args.as_slice(), [] | [Expr::Wildcard { .. }]);
        if raw.func_def.name() == "count" && is_star {
            raw.args = vec![star()];
        }
        Ok(PlannerResult::Original(raw))
    }
}
