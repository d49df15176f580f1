//! Values of any type as bytes of their own, for accumulators that hold single values.

use crate::error::{Error, Result};
use arrow::array::{Array, ArrayRef, AsArray, StringBuilder, new_null_array};
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, SortField};
use std::sync::Arc;

/// The most bytes of values in one column: an array of text holds less than 2 GiB.
const COLUMN_BYTES_MAX: usize = 1 << 30;

/// Turns values of a type into bytes and back.
pub(super) struct Values {
    data_type: DataType,
    /// For text there is none: its bytes are the value's.
    rows: Option<(RowConverter, Box<[u8]>)>,
}

impl Values {
    /// Says whether values of a type can be held.
    pub(super) fn supports(data_type: &DataType) -> bool {
        RowConverter::supports_fields(&[SortField::new(data_type.clone())])
    }

    /// Makes the codec of a type that is [supported](Self::supports).
    pub(super) fn new(data_type: &DataType) -> Result<Self> {
        let rows = match data_type {
            DataType::Utf8 => None,
            other => {
                let converter = RowConverter::new(vec![SortField::new(other.clone())])?;
                let null = converter.convert_columns(&[new_null_array(other, 1)])?;
                let null = null.row(0).as_ref().into();
                Some((converter, null))
            }
        };
        Ok(Self {
            data_type: data_type.clone(),
            rows,
        })
    }

    /// Calls `visit` with the place and the bytes of each value, in order; nulls have none.
    pub(super) fn encode(
        &self,
        values: &ArrayRef,
        mut visit: impl FnMut(usize, Option<&[u8]>) -> Result<()>,
    ) -> Result<()> {
        if values.data_type() != &self.data_type {
            let message = format!("values of {} came for {}", values.data_type(), self.data_type);
            return Err(Error::Internal(message));
        }
        let Some((converter, _)) = &self.rows else {
            for (place, text) in values.as_string::<i32>().iter().enumerate() {
                visit(place, text.map(str::as_bytes))?;
            }
            return Ok(());
        };
        let nulls = values.logical_nulls();
        let rows = converter.convert_columns(std::slice::from_ref(values))?;
        for (place, row) in rows.iter().enumerate() {
            let valid = nulls.as_ref().is_none_or(|nulls| nulls.is_valid(place));
            visit(place, valid.then(|| row.as_ref()))?;
        }
        Ok(())
    }

    /// Makes a column of values.
    ///
    /// # Errors
    /// When it is too large for one array.
    pub(super) fn decode<'a>(&self, values: impl Iterator<Item = Option<&'a [u8]>>) -> Result<ArrayRef> {
        let mut bytes = 0;
        let mut checked = |value: Option<&'a [u8]>| -> Result<Option<&'a [u8]>> {
            bytes += value.map_or(0, <[u8]>::len);
            match bytes > COLUMN_BYTES_MAX {
                true => Err(Error::operator(
                    "the values of one batch of groups take more than 1 GiB; aggregate shorter ones",
                )),
                false => Ok(value),
            }
        };
        let Some((converter, null)) = &self.rows else {
            let mut builder = StringBuilder::new();
            for value in values {
                let text = checked(value)?.map(std::str::from_utf8).transpose();
                builder.append_option(text.map_err(|_| Error::Internal("a held text is none".into()))?);
            }
            return Ok(Arc::new(builder.finish()));
        };
        let parser = converter.parser();
        let mut rows = Vec::new();
        for value in values {
            rows.push(parser.parse(checked(value)?.unwrap_or(null)));
        }
        let column = converter.convert_rows(rows)?.pop();
        let column = column.ok_or_else(|| Error::Internal("a column of values was lost".into()))?;
        match column.data_type() == &self.data_type {
            true => Ok(column),
            false => Ok(arrow::compute::cast(&column, &self.data_type)?),
        }
    }
}
