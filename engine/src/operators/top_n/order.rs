//! Keys that compare as the columns of an order do.

use crate::error::Result;
use crate::graph::TopN;
use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Schema};
use arrow::row::{RowConverter, SortField};

/// How long the encoded order of a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OrderWidth {
    Bytes16,
    Bytes24,
    Any,
}

/// Returns how long an encoded order gets.
pub(super) fn width_of(spec: &TopN, input: &Schema) -> OrderWidth {
    let width = |data_type: &DataType| match data_type {
        DataType::Boolean => Some(2),
        other => other.primitive_width().map(|width| width + 1),
    };
    let widths = spec
        .order
        .iter()
        .map(|order| width(input.field(order.column).data_type()));
    match widths.sum::<Option<usize>>() {
        Some(0..=16) => OrderWidth::Bytes16,
        Some(17..=24) => OrderWidth::Bytes24,
        _ => OrderWidth::Any,
    }
}

/// A key that compares as the order does.
pub(super) trait OrderKey: Ord + Clone + Default + 'static {
    /// Makes a key of its encoded bytes.
    fn of(bytes: &[u8]) -> Self;

    /// Returns the bytes that the key holds elsewhere.
    fn size(&self) -> usize {
        0
    }
}

impl<const WORDS: usize> OrderKey for [u64; WORDS]
where
    [u64; WORDS]: Default,
{
    #[inline]
    fn of(bytes: &[u8]) -> Self {
        let mut words = [0u64; WORDS];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks(8)) {
            let mut padded = [0u8; 8];
            padded[..chunk.len()].copy_from_slice(chunk);
            *word = u64::from_be_bytes(padded);
        }
        words
    }
}

impl OrderKey for Box<[u8]> {
    fn of(bytes: &[u8]) -> Self {
        bytes.into()
    }

    fn size(&self) -> usize {
        self.len()
    }
}

/// Encodes the order's columns.
pub(super) struct OrderEncoder {
    converter: Option<RowConverter>,
}

impl OrderEncoder {
    /// Makes the encoder of an order.
    ///
    /// # Errors
    /// When a column has no comparable form.
    pub(super) fn new(spec: &TopN, input: &Schema) -> Result<Self> {
        let field = |order: &crate::graph::TopNOrder| {
            SortField::new_with_options(input.field(order.column).data_type().clone(), order.options)
        };
        let fields: Vec<SortField> = spec.order.iter().map(field).collect();
        let converter = (!fields.is_empty()).then(|| RowConverter::new(fields)).transpose()?;
        Ok(Self { converter })
    }

    /// Encodes rows, replacing what was in `keys`.
    ///
    /// # Errors
    /// When the columns are not those of the order.
    pub(super) fn encode<K: OrderKey>(&mut self, columns: &[ArrayRef], rows: usize, keys: &mut Vec<K>) -> Result<()> {
        keys.clear();
        match &self.converter {
            Some(converter) => {
                let encoded = converter.convert_columns(columns)?;
                keys.extend(encoded.iter().map(|row| K::of(row.as_ref())));
            }
            None => keys.resize(rows, K::default()),
        }
        Ok(())
    }
}
