//! The engine's aggregates, as DataFusion's planner sees them: names and types only.
//!
//! The types come from the engine's own constructors, so that plan and execution cannot disagree.

use arrow::datatypes::DataType;
use datafusion_common::{DataFusionError, Result, ScalarValue};
use datafusion_expr::expr::{AggregateFunction as Call, NullTreatment};
use datafusion_expr::function::AccumulatorArgs;
use datafusion_expr::planner::{ExprPlanner, PlannerResult, RawAggregateExpr, RawWindowExpr};
use datafusion_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Expr, Signature, Volatility};
use std::sync::Arc;
use tidemill_engine::aggregate::{AggregateFunction, Avg, Count, CountDistinct, Max, Min, Spread, Sum, Variance};

/// An aggregate of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
}

impl AggregateKind {
    /// Returns the function's name.
    pub(crate) fn name(self) -> &'static str {
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
        }
    }

    /// Makes the engine's function for an argument type; `None` for no argument.
    ///
    /// # Errors
    /// When the function does not take the type, or does not exist with DISTINCT.
    pub(crate) fn function(
        self,
        argument: Option<&DataType>,
        distinct: bool,
    ) -> Result<Arc<dyn AggregateFunction>, String> {
        let describe = |error: tidemill_engine::Error| match error {
            tidemill_engine::Error::Graph(message) => message,
            other => other.to_string(),
        };
        let made = |function| Ok(function);
        match (self, argument, distinct) {
            (Self::Count, _, false) => made(Arc::new(Count::new()) as Arc<dyn AggregateFunction>),
            (Self::Count, Some(argument), true) => made(Arc::new(CountDistinct::try_new(argument).map_err(describe)?)),
            // DISTINCT changes nothing for MIN and MAX.
            (Self::Min, Some(argument), _) => made(Arc::new(Min::try_new(argument).map_err(describe)?)),
            (Self::Max, Some(argument), _) => made(Arc::new(Max::try_new(argument).map_err(describe)?)),
            (Self::Sum, Some(argument), false) => made(Arc::new(Sum::try_new(argument).map_err(describe)?)),
            (Self::Avg, Some(argument), false) => made(Arc::new(Avg::try_new(argument).map_err(describe)?)),
            (Self::Variance(spread), Some(argument), false) => {
                made(Arc::new(Variance::try_new(spread, argument).map_err(describe)?))
            }
            (Self::Sum | Self::Avg | Self::Variance(_), Some(_), true) => Err(format!(
                "{}(DISTINCT ...) is not supported yet; only COUNT takes DISTINCT",
                self.name()
            )),
            (_, None, _) => Err(format!("{} needs an argument", self.name())),
        }
    }
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
    [Kind::Count, Kind::Sum, Kind::Min, Kind::Max, Kind::Avg]
        .into_iter()
        .chain(variances.map(Kind::Variance))
        .map(|kind| {
            let signature = Signature::user_defined(Volatility::Immutable);
            Arc::new(AggregateUDF::new_from_impl(Aggregate { kind, signature }))
        })
        .collect()
}

impl AggregateUDFImpl for Aggregate {
    fn name(&self) -> &str {
        self.kind.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        match self.kind.function(arguments.first(), false) {
            Ok(function) => Ok(function.return_type()),
            Err(message) => Err(DataFusionError::Plan(message)),
        }
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        match arguments {
            [_] => Ok(arguments.to_vec()),
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
