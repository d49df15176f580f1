//! `INSERT INTO`: fits the columns of a query to those of a table.

use crate::catalog::Table;
use crate::error::{Position, Result, SqlError};
use crate::functions::checks::{Promise, guarded};
use crate::functions::nearest;
use crate::rel::prepare::{Prepared, prepare_over};
use crate::rel::{RelId, Rels};
use crate::script::start_of;
use crate::statement::Insert;
use crate::types::sql_name;
use arrow::datatypes::{DataType, TimeUnit};
use datafusion_common::{Column, ScalarValue};
use datafusion_expr::{Expr, cast};
use sqlparser::ast::{Query, SelectItem, SetExpr, Spanned};

/// Adds the projection that turns the rows of `query` into rows of the table.
///
/// # Errors
/// When the columns do not fit, at the query's column.
pub(crate) fn fit(rels: &mut Rels, query: RelId, table: &Table, insert: &Insert) -> Result<RelId> {
    let (_, places) = table.sink_definition();
    let named = named_columns(table, &places, insert)?;
    let rel = rels.get(query);
    let position_of = |index: usize| item_position(&insert.query, index).or(insert.table.at);
    let name = &insert.table.value;
    if rel.columns.len() != named.len() {
        let expected: Vec<&str> = named.iter().map(|place| table.columns[*place].name.as_str()).collect();
        let (found, wanted) = (rel.columns.len(), named.len());
        let at = if found > wanted {
            position_of(wanted)
        } else {
            item_position(&insert.query, 0).or(insert.table.at)
        };
        return Err(SqlError::at(
            at,
            format!("the query gives {found} columns and table {name} takes {wanted}"),
        )
        .hint(format!("select in this order: {}", expected.join(", "))));
    }
    let mut outputs = Vec::with_capacity(places.len());
    for place in &places {
        let target = &table.columns[*place];
        let wanted = &target.sql_type.data_type;
        let mut value = match named.iter().position(|named| named == place) {
            Some(index) => {
                let source = &rel.columns[index];
                let value = Expr::Column(Column::new_unqualified(&source.name));
                match fits(&source.data_type, wanted) {
                    Fit::Same => value,
                    Fit::Cast => cast(value, wanted.clone()),
                    Fit::No => {
                        let (found, wanted) = (sql_name(&source.data_type), sql_name(wanted));
                        let message = format!(
                            "column {} of the query is {found} and column {} of table {name} is {wanted}",
                            index + 1,
                            target.name
                        );
                        return Err(SqlError::at(position_of(index), message)
                            .hint(format!("write CAST(... AS {wanted}), or declare the column {found}")));
                    }
                }
            }
            None if target.nullable => cast(Expr::Literal(ScalarValue::Null, None), wanted.clone()),
            None => {
                let message = format!("column {} of table {name} is NOT NULL and gets no value", target.name);
                return Err(SqlError::at(insert.table.at, message).hint("add it to the column list and to the query"));
            }
        };
        if !target.nullable {
            value = guarded(value, Promise::NotNull, name, &target.name);
        }
        if let Some(length) = target.sql_type.length {
            value = guarded(value, Promise::Length(length), name, &target.name);
        }
        let prepared = prepare_over(value, rel)?;
        if &prepared.data_type != wanted {
            return Err(SqlError::internal(format!(
                "column {} became {}",
                target.name, prepared.data_type
            )));
        }
        outputs.push((target.name.clone(), Prepared { ..prepared }));
    }
    Ok(rels.calc(query, None, outputs))
}

/// Returns the table's columns that the query fills, in the query's order.
fn named_columns(table: &Table, written: &[usize], insert: &Insert) -> Result<Vec<usize>> {
    if insert.columns.is_empty() {
        return Ok(written.to_vec());
    }
    let mut named = Vec::with_capacity(insert.columns.len());
    for column in &insert.columns {
        let Some(place) = table.columns.iter().position(|known| known.name == column.value) else {
            let error = SqlError::at(
                column.at,
                format!("table {} has no column {}", table.name.value, column.value),
            );
            let names = written.iter().map(|place| table.columns[*place].name.as_str());
            return Err(match nearest(&column.value, names) {
                Some(nearest) => error.hint(format!("did you mean {nearest}? names are case-sensitive")),
                None => error,
            });
        };
        if !written.contains(&place) {
            let message = format!("column {} is computed or virtual and cannot be written", column.value);
            return Err(SqlError::at(column.at, message).hint("leave it out"));
        }
        if named.contains(&place) {
            return Err(SqlError::at(
                column.at,
                format!("column {} is named twice", column.value),
            ));
        }
        named.push(place);
    }
    Ok(named)
}

/// Returns where the column at `index` of a query is written; `None` behind a `*`.
fn item_position(query: &Query, index: usize) -> Option<Position> {
    let mut body = query.body.as_ref();
    let select = loop {
        match body {
            SetExpr::Select(select) => break select,
            SetExpr::Query(inner) => body = inner.body.as_ref(),
            SetExpr::SetOperation { left, .. } => body = left,
            _ => return None,
        }
    };
    let is_star = |item: &SelectItem| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..));
    let star = select.projection.iter().position(is_star).unwrap_or(usize::MAX);
    let item = select.projection.get(index.min(star))?;
    start_of(item.span())
}

/// Whether values of a type can be written into a column of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    Same,
    Cast,
    No,
}

/// Says what Flink casts by itself.
fn fits(from: &DataType, to: &DataType) -> Fit {
    use DataType as T;
    if from == to {
        return Fit::Same;
    }
    let bits = |data_type: &DataType| match data_type {
        T::Int8 => Some((8, 3)),
        T::Int16 => Some((16, 5)),
        T::Int32 => Some((32, 10)),
        T::Int64 => Some((64, 19)),
        _ => None,
    };
    let cast = match (from, to) {
        (T::Null, _) => true,
        (T::Float32, T::Float64) => true,
        (T::Decimal128(..), T::Float32 | T::Float64) => true,
        // More digits than the column has fail the job; digits behind the point are not dropped silently.
        (T::Decimal128(_, from), T::Decimal128(_, to)) => to >= from,
        (T::LargeUtf8 | T::Utf8View, T::Utf8) => true,
        (T::LargeBinary | T::BinaryView, T::Binary) => true,
        (T::Date32, T::Timestamp(..)) => true,
        (T::Timestamp(..), T::Timestamp(..)) => true,
        (T::Time32(TimeUnit::Second), T::Time32(TimeUnit::Millisecond)) => true,
        _ => match (bits(from), bits(to), to) {
            (Some((from, _)), Some((to, _)), _) => from < to,
            (Some(_), None, T::Float32 | T::Float64) => true,
            (Some((_, digits)), None, T::Decimal128(precision, scale)) => {
                i32::from(*precision) - i32::from(*scale) >= digits
            }
            _ => false,
        },
    };
    if cast { Fit::Cast } else { Fit::No }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn casts_widen_and_never_narrow() {
        assert_eq!(fits(&DataType::Int32, &DataType::Int64), Fit::Cast);
        assert_eq!(fits(&DataType::Int64, &DataType::Int32), Fit::No);
        assert_eq!(fits(&DataType::Int64, &DataType::Utf8), Fit::No);
        assert_eq!(fits(&DataType::Int32, &DataType::Decimal128(12, 2)), Fit::Cast);
        assert_eq!(fits(&DataType::Int32, &DataType::Decimal128(11, 2)), Fit::No);
        assert_eq!(
            fits(&DataType::Decimal128(38, 2), &DataType::Decimal128(10, 2)),
            Fit::Cast
        );
        assert_eq!(
            fits(&DataType::Decimal128(38, 6), &DataType::Decimal128(10, 2)),
            Fit::No
        );
        assert_eq!(fits(&DataType::Float64, &DataType::Float32), Fit::No);
    }
}
