//! The functions that need `OVER`, as DataFusion's planner sees them: names and types only. Aggregates may have an `OVER`,
//! too; they are in [`super::aggregates`].

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion_common::{DataFusionError, Result};
use datafusion_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion_expr::{PartitionEvaluator, Signature, Volatility, WindowUDF, WindowUDFImpl};
use std::sync::Arc;

/// A function of the rows around a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum OverKind {
    /// `ROW_NUMBER`: the row's place in its partition.
    RowNumber,
    /// `RANK`: equal rows share a place, and leave a gap behind.
    Rank,
    /// `DENSE_RANK`: equal rows share a place.
    DenseRank,
    /// `LAG`: a value of an earlier row.
    Lag,
    /// `FIRST_VALUE` of the frame.
    FirstValue,
    /// `LAST_VALUE` of the frame.
    LastValue,
}

impl OverKind {
    const ALL: [Self; 6] = [
        Self::RowNumber,
        Self::Rank,
        Self::DenseRank,
        Self::Lag,
        Self::FirstValue,
        Self::LastValue,
    ];

    /// Returns the function's name in small letters.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::RowNumber => "row_number",
            Self::Rank => "rank",
            Self::DenseRank => "dense_rank",
            Self::Lag => "lag",
            Self::FirstValue => "first_value",
            Self::LastValue => "last_value",
        }
    }

    /// Says whether the function gives rows a number by their order alone.
    pub(crate) fn is_ranking(self) -> bool {
        matches!(self, Self::RowNumber | Self::Rank | Self::DenseRank)
    }
}

/// A function for DataFusion's planner.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct OverFunction {
    /// Which one.
    pub(crate) kind: OverKind,
    signature: Signature,
}

/// Returns all functions.
pub(crate) fn functions() -> Vec<Arc<WindowUDF>> {
    let function = |kind: OverKind| {
        let signature = match kind {
            _ if kind.is_ranking() => Signature::nullary(Volatility::Immutable),
            OverKind::Lag => Signature::user_defined(Volatility::Immutable),
            _ => Signature::any(1, Volatility::Immutable),
        };
        Arc::new(WindowUDF::new_from_impl(OverFunction { kind, signature }))
    };
    OverKind::ALL.into_iter().map(function).collect()
}

impl WindowUDFImpl for OverFunction {
    fn name(&self) -> &str {
        self.kind.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        match arguments {
            [_] | [_, _] => Ok(arguments.to_vec()),
            [value, offset, _] => Ok(vec![value.clone(), offset.clone(), value.clone()]),
            _ => Err(DataFusionError::Plan(format!(
                "{} takes a value, and maybe an offset and a default",
                self.name()
            ))),
        }
    }

    fn field(&self, arguments: WindowUDFFieldArgs) -> Result<FieldRef> {
        let data_type = match arguments.get_input_field(0) {
            Some(value) if !self.kind.is_ranking() => value.data_type().clone(),
            _ => DataType::Int64,
        };
        Ok(Arc::new(Field::new(arguments.name(), data_type, true)))
    }

    fn partition_evaluator(&self, _arguments: PartitionEvaluatorArgs) -> Result<Box<dyn PartitionEvaluator>> {
        super::never_evaluated(self.name())
    }
}
