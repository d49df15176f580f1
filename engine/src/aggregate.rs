//! Aggregate functions over columns: many groups at once, in arrays.
//!
//! An [`Accumulator`] holds one function's state for all groups of an operator, indexed by dense group number. Unlike
//! DataFusion's `GroupsAccumulator` its state can be read without being consumed, group by group, which is what
//! checkpoints, early results and retraction need.
//!
//! Over a result that changes, rows are taken back ([`Accumulator::update_changes`]). `count`, `sum` and `avg` subtract them;
//! `min` and `max` then hold all values, so that the next one is known when the greatest goes.
//!
//! File map: `count`, `sum`, `min_max`, `avg`, `variance` and `distinct` hold one function each, `distinct_numbers` sums and
//! averages of different numbers, `collect` how often each value is there, `edge` first and last values, `list` all values in order; `numbers` is what sums share,
//! `multiset` is `min` and `max` over what changes, `integers` reads columns as whole numbers, `values` as bytes.

mod avg;
mod collect;
mod count;
mod distinct;
mod distinct_numbers;
mod edge;
pub(crate) mod integers;
mod list;
mod min_max;
mod multiset;
mod numbers;
mod sum;
mod values;
mod variance;

pub use avg::Avg;
pub use collect::{Collect, JsonObjectAgg, Percentile};
pub use count::Count;
pub use distinct::CountDistinct;
pub use distinct_numbers::{AvgDistinct, SumDistinct};
pub use edge::{FirstValue, LastValue};
pub use list::{ArrayAgg, JsonArrayAgg, ListAgg};
pub use min_max::{Max, Min};
pub use sum::Sum;
pub use variance::{Spread, Variance};

use crate::error::Result;
use numbers::{Number, Numbers};

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::datatypes::DataType;
use std::fmt;
use std::sync::Arc;

/// An aggregate function for given argument types.
pub trait AggregateFunction: Send + Sync + fmt::Debug {
    /// Returns the function's name, for plans and messages.
    fn name(&self) -> &str;

    /// Returns the type of the result.
    fn return_type(&self) -> DataType;

    /// Returns the types of the state's columns; [`Accumulator::state`] gives them and [`Accumulator::merge`] takes
    /// them. They are stored in checkpoints, so they are durable. Empty when the state is not made of one value per
    /// group and column (a set).
    fn state_types(&self) -> Vec<DataType>;

    /// Returns the types of the columns in which states go from a stage before the exchange to the one behind it:
    /// [`Accumulator::partial`] gives them and [`Accumulator::merge`] takes them. Those of the state, unless told otherwise;
    /// empty when there is no stage before the exchange.
    fn partial_types(&self) -> Vec<DataType> {
        self.state_types()
    }

    /// Makes an accumulator without groups.
    fn accumulator(&self) -> Box<dyn Accumulator>;

    /// Makes an accumulator without groups that takes rows back: one with [`Accumulator::update_changes`].
    ///
    /// # Errors
    /// When the function knows no way.
    fn changing_accumulator(&self) -> Result<Box<dyn Accumulator>> {
        Err(crate::error::Error::Graph(format!(
            "{} over a result that changes is not supported yet",
            self.name()
        )))
    }

    /// Says whether rows that are taken back are a state, too: one that cancels what the rows had added when it is merged.
    /// Then changes can be aggregated before the exchange.
    fn has_signed_state(&self) -> bool {
        false
    }

    /// Says whether the result depends on the order in which the rows of a group come. Such a function is not aggregated
    /// before the exchange, where rows of several workers are put together in any order.
    fn needs_order(&self) -> bool {
        false
    }

    /// Returns the type of the values when the function counts different ones; then the sets of several filters over one
    /// argument can be held together.
    fn distinct_values(&self) -> Option<&DataType> {
        None
    }
}

/// One function's state for all groups of an operator.
///
/// `groups[i]` is the dense group number of row `i`; every number is below the last [`Accumulator::resize`].
pub trait Accumulator {
    /// Grows to `groups` groups; new ones are empty.
    fn resize(&mut self, groups: usize);

    /// Adds rows. Rows where `filter` is false or null are left out; null arguments are treated as SQL says.
    ///
    /// # Errors
    /// On overflow and on argument types other than those the function was made for.
    fn update(&mut self, arguments: &[ArrayRef], groups: &[u32], filter: Option<&BooleanArray>) -> Result<()>;

    /// Adds rows of a changelog: row `i` counts `weights[i]` times, and a negative weight takes rows back. Within a tick
    /// they may be taken back before they come.
    ///
    /// # Errors
    /// As [`Accumulator::update`], and when the accumulator is not a
    /// [`changing_accumulator`](AggregateFunction::changing_accumulator).
    fn update_changes(
        &mut self,
        _arguments: &[ArrayRef],
        _groups: &[u32],
        _filter: Option<&BooleanArray>,
        _weights: &[i64],
    ) -> Result<()> {
        Err(crate::error::Error::Internal(
            "this accumulator does not take rows back".into(),
        ))
    }

    /// Adds states, as [`Accumulator::state`] or [`Accumulator::partial`] gives them, one per row.
    ///
    /// # Errors
    /// On overflow and on states of another function.
    fn merge(&mut self, state: &[ArrayRef], groups: &[u32]) -> Result<()>;

    /// Reads the states of some groups, without consuming them: one array per state column, one row per group.
    ///
    /// # Errors
    /// When the state has no columns: use [`Accumulator::encode`].
    fn state(&self, groups: &[u32]) -> Result<Vec<ArrayRef>>;

    /// Reads the states of some groups for the stage behind the exchange, without consuming them: one array per column of
    /// [`AggregateFunction::partial_types`], one row per group.
    ///
    /// # Errors
    /// As [`Accumulator::state`].
    fn partial(&self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        self.state(groups)
    }

    /// Reads the results of some groups, without consuming them.
    ///
    /// # Errors
    /// When a result does not fit its type.
    fn evaluate(&self, groups: &[u32]) -> Result<ArrayRef>;

    /// Encodes the states of some groups for a checkpoint: columns as in [`Accumulator::state`], or for a set one row
    /// per member with the position within `groups` it belongs to.
    ///
    /// # Errors
    /// When the state cannot be encoded.
    fn encode(&self, groups: &[u32]) -> Result<EncodedState> {
        Ok(EncodedState {
            owners: None,
            columns: self.state(groups)?,
        })
    }

    /// Encodes the states of some groups as [`Accumulator::encode`] does, in one piece or several; each is small enough for
    /// arrays of text. There is at least one, and only sets have more.
    ///
    /// # Errors
    /// When the state cannot be encoded.
    fn encode_pieces(&self, groups: &[u32]) -> Result<Vec<EncodedState>> {
        Ok(vec![self.encode(groups)?])
    }

    /// Adds what [`Accumulator::encode`] gave; `groups[i]` is the group that position `i` stands for.
    ///
    /// # Errors
    /// When the state is not of this function.
    fn decode(&mut self, state: &EncodedState, groups: &[u32]) -> Result<()> {
        self.merge(&state.columns, groups)
    }

    /// Says whether [`Accumulator::retract`] takes back exactly what was added.
    fn can_retract(&self) -> bool {
        false
    }

    /// Takes back what [`Accumulator::decode`] added: the same state, for the same groups.
    ///
    /// # Errors
    /// When the function cannot ([`Accumulator::can_retract`]), or the state was not added before.
    fn retract(&mut self, _state: &EncodedState, _groups: &[u32]) -> Result<()> {
        Err(crate::error::Error::Internal(
            "this aggregate cannot take back what it added".into(),
        ))
    }

    /// Returns how many values are held for a group besides a fixed state.
    fn members(&self, _group: u32) -> usize {
        0
    }

    /// Returns how many values are held for all groups besides a fixed state.
    fn members_count(&self) -> usize {
        0
    }

    /// Returns about how many bytes the state takes.
    fn size(&self) -> usize;
}

/// An accumulator's state of some groups, for a checkpoint.
#[derive(Clone, Debug)]
pub struct EncodedState {
    /// For sets, the position within the encoded groups that each row belongs to; `None` when row `i` is group `i`.
    pub owners: Option<Vec<u32>>,
    /// The state's columns.
    pub columns: Vec<ArrayRef>,
}

/// A function applied to columns of an operator's input.
#[derive(Clone, Debug)]
pub struct AggregateCall {
    /// The function.
    pub function: Arc<dyn AggregateFunction>,
    /// The input columns that are its arguments.
    pub arguments: Vec<usize>,
    /// A boolean input column: only rows where it is true count.
    pub filter: Option<usize>,
    /// The name of the result column.
    pub name: String,
}

/// Says whether a row passes a filter: null counts as false.
#[inline]
fn passes(filter: Option<&BooleanArray>, row: usize) -> bool {
    filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row))
}
