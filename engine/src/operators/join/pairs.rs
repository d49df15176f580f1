//! Makes columns of candidate pairs, and keeps those that match.

use crate::error::{Error, Result};
use crate::expr::{EvalContext, Expr};
use crate::graph::{Join, JoinInput, condition_schema};
use crate::key::equal_keys;
use crate::rows::{RowRef, RowStore};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{and, filter, prep_null_mask_filter, take};
use arrow::datatypes::SchemaRef;
use std::sync::Arc;

/// Says of each pair of a row of a batch and a kept one whether their keys are equal; nulls are not.
pub(in crate::operators) fn are_equal(
    rows: &RecordBatch,
    keys: &[usize],
    probing: &[u32],
    store: &RowStore,
    kept_keys: &[usize],
    found: &[RowRef],
) -> Result<Vec<bool>> {
    let gathered = store.gather(found, kept_keys)?;
    let indices = UInt32Array::from(probing.to_vec());
    let mut are_equal = vec![true; found.len()];
    for (&key, theirs) in keys.iter().zip(gathered) {
        let equal = equal_keys(&take(rows.column(key), &indices, None)?, &theirs)?;
        for (row, are_equal) in are_equal.iter_mut().enumerate() {
            *are_equal &= equal.is_valid(row) && equal.value(row);
        }
    }
    Ok(are_equal)
}

/// Decides which candidates match. Columns are given by their places among the kept ones of their side.
pub(in crate::operators) struct Matcher {
    keys: [Vec<usize>; 2],
    condition: Option<Condition>,
}

struct Condition {
    columns: Vec<(JoinInput, usize)>,
    schema: SchemaRef,
    expr: Expr,
}

/// Pairs that match.
pub(in crate::operators) struct Pairs {
    /// The places of the rows that probe.
    pub(in crate::operators) probing: Vec<u32>,
    /// The kept rows.
    pub(in crate::operators) found: Vec<RowRef>,
    /// The columns that were wanted.
    pub(in crate::operators) columns: Vec<ArrayRef>,
}

/// The candidates as columns, each made when it is asked for.
struct Candidates<'a> {
    input: JoinInput,
    rows: &'a RecordBatch,
    probing: Vec<u32>,
    found: Vec<RowRef>,
    indices: UInt32Array,
    /// Whether each probing row is there once, in order.
    is_whole: bool,
    /// Columns of kept rows that were gathered, by place.
    gathered: Vec<(usize, ArrayRef)>,
}

impl<'a> Candidates<'a> {
    fn new(input: JoinInput, rows: &'a RecordBatch, probing: Vec<u32>, found: Vec<RowRef>) -> Self {
        let is_whole = probing.len() == rows.num_rows() && probing.iter().enumerate().all(|(a, b)| a == *b as usize);
        Self {
            input,
            rows,
            indices: UInt32Array::from(probing.clone()),
            probing,
            found,
            is_whole,
            gathered: Vec::new(),
        }
    }

    /// Gathers columns of kept rows that are not there yet.
    fn gather(&mut self, store: &RowStore, places: impl Iterator<Item = usize>) -> Result<()> {
        let mut missing: Vec<usize> = places.filter(|place| self.find(*place).is_none()).collect();
        missing.sort_unstable();
        missing.dedup();
        if !missing.is_empty() {
            let columns = store.gather(&self.found, &missing)?;
            self.gathered.extend(missing.into_iter().zip(columns));
        }
        Ok(())
    }

    fn find(&self, place: usize) -> Option<&ArrayRef> {
        let known = self.gathered.iter().find(|(known, _)| *known == place);
        known.map(|(_, column)| column)
    }

    fn column(&self, input: JoinInput, place: usize) -> Result<ArrayRef> {
        if input != self.input {
            let found = self.find(place).cloned();
            return found.ok_or_else(|| Error::Internal("a column of a join was not gathered".into()));
        }
        let column = self.rows.column(place);
        if self.is_whole {
            return Ok(Arc::clone(column));
        }
        Ok(take(column, &self.indices, None)?)
    }

    /// Keeps the candidates for which the mask is true; null counts as false.
    fn keep(&mut self, mask: &BooleanArray) -> Result<()> {
        let mask = if mask.null_count() > 0 {
            &prep_null_mask_filter(mask)
        } else {
            mask
        };
        if mask.true_count() == mask.len() {
            return Ok(());
        }
        let kept: Vec<usize> = mask.values().set_indices().collect();
        self.probing = kept.iter().map(|&pair| self.probing[pair]).collect();
        self.found = kept.iter().map(|&pair| self.found[pair]).collect();
        self.indices = UInt32Array::from(self.probing.clone());
        self.is_whole = false;
        for (_, column) in &mut self.gathered {
            *column = filter(column, mask)?;
        }
        Ok(())
    }
}

impl Matcher {
    pub(in crate::operators) fn new(
        join: &Join,
        schemas: &[SchemaRef; 2],
        keys: [Vec<usize>; 2],
        place: impl Fn(JoinInput, usize) -> Result<usize>,
    ) -> Result<Self> {
        let condition = match &join.condition {
            None => None,
            Some(condition) => {
                let columns = condition.columns.iter();
                let columns = columns.map(|(input, column, _)| Ok((*input, place(*input, *column)?)));
                Some(Condition {
                    columns: columns.collect::<Result<Vec<_>>>()?,
                    schema: Arc::new(condition_schema(condition, schemas)?),
                    expr: Arc::clone(&condition.expr),
                })
            }
        };
        Ok(Self { keys, condition })
    }

    /// Says whether more is asked than equal keys.
    pub(in crate::operators) fn has_condition(&self) -> bool {
        self.condition.is_some()
    }

    /// Returns the candidates that match, with the columns `wanted` of them: rows of a batch of `input`, and kept ones of
    /// the other side that have the same hash.
    ///
    /// # Errors
    /// When the condition cannot be evaluated.
    pub(in crate::operators) fn matches(
        &self,
        input: JoinInput,
        rows: &RecordBatch,
        store: &RowStore,
        probing: Vec<u32>,
        found: Vec<RowRef>,
        wanted: &[(JoinInput, usize)],
        context: &EvalContext,
    ) -> Result<Pairs> {
        let other = input.other();
        let mut candidates = Candidates::new(input, rows, probing, found);
        let of_other = |columns: &[(JoinInput, usize)]| {
            let of_other = columns.iter().filter(|(of, _)| *of == other).map(|(_, place)| *place);
            of_other.collect::<Vec<usize>>()
        };
        // Without a condition nearly all candidates match: gather everything at once.
        let read = match &self.condition {
            Some(condition) => of_other(&condition.columns),
            None => of_other(wanted),
        };
        let keys = &self.keys[other as usize];
        candidates.gather(store, keys.iter().copied().chain(read))?;
        let mut equal: Option<BooleanArray> = None;
        for (&mine, &theirs) in self.keys[input as usize].iter().zip(keys) {
            let next = equal_keys(&candidates.column(input, mine)?, &candidates.column(other, theirs)?)?;
            equal = Some(match equal {
                Some(equal) => and(&equal, &next)?,
                None => next,
            });
        }
        if let Some(equal) = &equal {
            candidates.keep(equal)?;
        }
        if let Some(condition) = &self.condition
            && !candidates.probing.is_empty()
        {
            let columns = condition
                .columns
                .iter()
                .map(|&(of, place)| candidates.column(of, place));
            let options = RecordBatchOptions::new().with_row_count(Some(candidates.probing.len()));
            let schema = Arc::clone(&condition.schema);
            let joined = RecordBatch::try_new_with_options(schema, columns.collect::<Result<_>>()?, &options)?;
            let mask = condition.expr.evaluate(&joined, context)?;
            let mask = mask
                .as_boolean_opt()
                .ok_or_else(|| Error::Internal(format!("the condition of a join gave {}", mask.data_type())))?;
            candidates.keep(mask)?;
        }
        candidates.gather(store, of_other(wanted).into_iter())?;
        let columns = wanted.iter().map(|&(of, place)| candidates.column(of, place));
        Ok(Pairs {
            columns: columns.collect::<Result<_>>()?,
            probing: candidates.probing,
            found: candidates.found,
        })
    }
}
