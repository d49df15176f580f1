//! The engine's expression trait, implemented with DataFusion's vectorised expressions.
//!
//! Functions that read the tick's wall time or draw numbers become columns: their values are put behind the columns of
//! the batch before DataFusion sees it, so that evaluation needs no state of a thread. Fields of rows become columns
//! likewise: taking them out costs nothing, and what then filters a batch does not carry whole rows along.

use crate::error::{Result, SqlError};
use crate::functions::ambient::{Ambient, ambient_of, mix};
use crate::functions::row_field::{as_path, find_field, take_field};
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{Column, DFSchema, DataFusionError};
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_expr::{Expr, expr::ScalarFunction};
use datafusion_physical_expr::expressions::BinaryExpr;
use datafusion_physical_expr::{PhysicalExpr, create_physical_expr};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use tidemill_engine::expr::{EvalContext, ScalarExpr};
use tidemill_engine::key::{EncodedKeys, hash_columns, supports_key_type};

/// Ticks whose batches are remembered to tell equal ones apart: more than can be in flight.
const TICKS_REMEMBERED: usize = 64;

/// An expression over the columns of a batch.
pub(crate) struct SqlExpr {
    physical: Arc<dyn PhysicalExpr>,
    /// The columns of the batch and then the hidden ones.
    schema: SchemaRef,
    columns: usize,
    leaves: Vec<Leaf>,
    hidden: Vec<Hidden>,
    data_type: DataType,
    text: String,
}

/// A field of a column's rows: the column, and the places of the fields from it inwards.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Leaf {
    column: usize,
    path: Vec<usize>,
}

impl Leaf {
    fn take(&self, batch: &RecordBatch) -> tidemill_engine::Result<ArrayRef> {
        let column = Arc::clone(batch.column(self.column));
        self.path
            .iter()
            .try_fold(column, |rows, index| take_field(&rows, *index))
            .map_err(tidemill_engine::Error::operator)
    }
}

/// A hidden column.
struct Hidden {
    ambient: Ambient,
    /// Tells calls of one expression apart.
    seed: u64,
    seen: Seen,
}

/// How often a batch of the same rows was seen in a tick: such batches must draw different numbers. Which of them draws
/// which does not matter, for they are equal; so the result does not depend on how workers take turns.
#[derive(Default)]
struct Seen(Mutex<VecDeque<(i64, BTreeMap<u64, u64>)>>);

impl Seen {
    fn next(&self, wall_time_ms: i64, rows: u64) -> u64 {
        let mut ticks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !ticks.iter().any(|(time, _)| *time == wall_time_ms) {
            ticks.push_back((wall_time_ms, BTreeMap::new()));
            if ticks.len() > TICKS_REMEMBERED {
                ticks.pop_front();
            }
        }
        let Some((_, seen)) = ticks.iter_mut().find(|(time, _)| *time == wall_time_ms) else {
            return 0;
        };
        let count = seen.entry(rows).or_insert(0);
        *count += 1;
        *count
    }
}

impl SqlExpr {
    /// Prepares an expression for batches of `input`, whose columns have unique names.
    ///
    /// # Errors
    /// When DataFusion cannot evaluate it.
    pub(crate) fn new(expr: &Expr, input: &Schema, text: String, seed: u64) -> Result<Self> {
        let mut ambients: Vec<(Ambient, u64)> = Vec::new();
        let replaced = expr.clone().transform_up(|expr| {
            let Expr::ScalarFunction(ScalarFunction { func, .. }) = &expr else {
                return Ok(Transformed::no(expr));
            };
            let Some(ambient) = ambient_of(func) else {
                return Ok(Transformed::no(expr));
            };
            let call = if ambient.is_chance() { ambients.len() as u64 } else { 0 };
            let index = ambients
                .iter()
                .position(|known| *known == (ambient, call))
                .unwrap_or_else(|| {
                    ambients.push((ambient, call));
                    ambients.len() - 1
                });
            Ok(Transformed::yes(Expr::Column(Column::new_unqualified(hidden_name(
                index,
            )))))
        });
        let replaced = replaced.map_err(|error| refusal(&error))?.data;
        let mut fields: Vec<Field> = input.fields().iter().map(|field| field.as_ref().clone()).collect();
        let columns = fields.len();
        let mut leaves: Vec<Leaf> = Vec::new();
        let replaced = replaced.transform_down(|expr| {
            let Some((column, names)) = as_path(&expr) else {
                return Ok(Transformed::no(expr));
            };
            let column = input.index_of(&column.name)?;
            let (mut path, mut data_type) = (Vec::with_capacity(names.len()), input.field(column).data_type());
            for name in names {
                let (index, field) = find_field(data_type, name)?;
                path.push(index);
                data_type = field.data_type();
            }
            let leaf = Leaf { column, path };
            let known = leaves.iter().position(|known| *known == leaf);
            let index = known.unwrap_or_else(|| {
                fields.push(Field::new(leaf_name(leaves.len()), data_type.clone(), true));
                leaves.push(leaf);
                leaves.len() - 1
            });
            let column = Expr::Column(Column::new_unqualified(leaf_name(index)));
            Ok(Transformed::new(column, true, TreeNodeRecursion::Jump))
        });
        let replaced = replaced.map_err(|error| refusal(&error))?.data;
        for (index, (ambient, _)) in ambients.iter().enumerate() {
            fields.push(Field::new(hidden_name(index), ambient.data_type(), false));
        }
        let schema = Arc::new(Schema::new(fields));
        let df_schema = DFSchema::try_from(schema.as_ref().clone()).map_err(|error| refusal(&error))?;
        let context = PhysicalPlanningContext::default();
        let physical = create_physical_expr(&replaced, &df_schema, &ExecutionProps::new(), &context)
            .and_then(checked_arithmetic)
            .map_err(|error| refusal(&error))?;
        let data_type = physical.data_type(&schema).map_err(|error| refusal(&error))?;
        let hidden = ambients
            .into_iter()
            .map(|(ambient, call)| Hidden {
                ambient,
                seed: mix(seed ^ mix(call)),
                seen: Seen::default(),
            })
            .collect();
        Ok(Self {
            physical,
            schema,
            columns,
            leaves,
            hidden,
            data_type,
            text,
        })
    }

    fn with_hidden(&self, batch: &RecordBatch, context: &EvalContext) -> tidemill_engine::Result<RecordBatch> {
        let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
        for leaf in &self.leaves {
            columns.push(leaf.take(batch)?);
        }
        let mut rows_hash = None;
        for hidden in &self.hidden {
            let seed = if hidden.ambient.is_chance() {
                let rows = match rows_hash {
                    Some(rows) => rows,
                    None => *rows_hash.insert(hash_rows(batch)),
                };
                let occurrence = hidden.seen.next(context.wall_time_ms, rows);
                mix(hidden.seed ^ mix(rows ^ mix(occurrence ^ mix(context.wall_time_ms as u64))))
            } else {
                0
            };
            columns.push(hidden.ambient.values(context.wall_time_ms, seed, batch.num_rows()));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(
            Arc::clone(&self.schema),
            columns,
            &options,
        )?)
    }
}

fn leaf_name(index: usize) -> String {
    format!("$field_{index}")
}

fn hidden_name(index: usize) -> String {
    format!("$ambient_{index}")
}

/// Hashes the contents of a batch; of columns that cannot be keys only their number.
fn hash_rows(batch: &RecordBatch) -> u64 {
    let usable = |column: &&ArrayRef| supports_key_type(column.data_type());
    let columns: Vec<ArrayRef> = batch.columns().iter().filter(usable).cloned().collect();
    let (mut keys, mut hashes) = (EncodedKeys::default(), Vec::new());
    let seed = mix(batch.num_rows() as u64);
    match hash_columns(&columns, batch.num_rows(), &mut keys, &mut hashes) {
        Ok(()) => hashes.into_iter().fold(seed, |hash, row| mix(hash ^ row)),
        Err(_) => seed,
    }
}

/// Makes additions, subtractions and multiplications of integers fail instead of wrapping around.
fn checked_arithmetic(expr: Arc<dyn PhysicalExpr>) -> datafusion_common::Result<Arc<dyn PhysicalExpr>> {
    let checked = expr.transform_up(|expr| {
        Ok(match expr.downcast_ref::<BinaryExpr>() {
            Some(binary) => {
                let checked = BinaryExpr::new(Arc::clone(binary.left()), *binary.op(), Arc::clone(binary.right()));
                Transformed::yes(Arc::new(checked.with_fail_on_overflow(true)) as Arc<dyn PhysicalExpr>)
            }
            None => Transformed::no(expr),
        })
    })?;
    Ok(checked.data)
}

impl fmt::Debug for SqlExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl ScalarExpr for SqlExpr {
    fn data_type(&self, input: &Schema) -> tidemill_engine::Result<DataType> {
        let expected = self
            .schema
            .fields()
            .iter()
            .take(self.columns)
            .map(|field| field.data_type());
        if !expected.eq(input.fields().iter().map(|field| field.data_type())) {
            return Err(tidemill_engine::Error::Graph(format!(
                "the expression {} is for other columns",
                self.text
            )));
        }
        Ok(self.data_type.clone())
    }

    fn evaluate(&self, batch: &RecordBatch, context: &EvalContext) -> tidemill_engine::Result<ArrayRef> {
        let value = if self.hidden.is_empty() && self.leaves.is_empty() {
            self.physical.evaluate(batch)
        } else {
            self.physical.evaluate(&self.with_hidden(batch, context)?)
        };
        let array = value.and_then(|value| value.into_array(batch.num_rows()));
        let array = array.map_err(|error| {
            tidemill_engine::Error::operator(format!("{} in expression {}", describe(&error), self.text))
        })?;
        if array.data_type() != &self.data_type {
            let (found, text, expected) = (array.data_type(), &self.text, &self.data_type);
            let message = format!("expression {text} gave {found} where {expected} was planned");
            return Err(tidemill_engine::Error::Internal(message));
        }
        Ok(array)
    }
}

/// Turns DataFusion's error into a refusal.
pub(crate) fn refusal(error: &DataFusionError) -> SqlError {
    SqlError::new(describe(error))
}

/// Writes DataFusion's error without its prefixes and back trace.
pub(crate) fn describe(error: &DataFusionError) -> String {
    let text = error.find_root().strip_backtrace();
    let mut text = text.as_str();
    for prefix in [
        "Error during planning: ",
        "Execution error: ",
        "Schema error: ",
        "SQL error: ",
        "Arrow error: ",
        "Cast error: ",
        "Compute error: ",
        "This feature is not implemented: ",
        "Invalid argument error: ",
    ] {
        text = text.strip_prefix(prefix).unwrap_or(text);
    }
    // Arguments that fit none of several signatures come as an internal error of DataFusion's, with an invitation to
    // report it; they are the writer's mistake.
    if let Some(mismatch) = text.strip_prefix("Internal error: ")
        && mismatch.contains("failed to match any signature")
        && let Some((mismatch, _)) = mismatch.split_once(".\nThis issue was likely caused")
    {
        return mismatch
            .replace(", errors: Error during planning: ", ": ")
            .replace(",Error during planning: ", "; ")
            .trim_end_matches('.')
            .replacen("Function", "function", 1);
    }
    // What a function of ours says of its arguments comes with all the forms of all functions around it.
    if let Some((_, said)) = text.split_once("user-defined coercion failed with: Error during planning: ") {
        text = said.split(". No function matches").next().unwrap_or(said);
    }
    let mut characters = text.chars();
    match characters.next() {
        // Keep what begins like an acronym.
        Some(first) if !characters.as_str().starts_with(char::is_uppercase) => first
            .to_lowercase()
            .chain(characters)
            .collect::<String>()
            .trim_end_matches('.')
            .to_owned(),
        _ => text.to_owned(),
    }
}
