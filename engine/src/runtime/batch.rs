//! What travels along the edges of the dataflow.

use arrow::array::RecordBatch;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use timely::bytes::arc::Bytes;
use timely::container::Accountable;
use timely::dataflow::channels::ContainerBytes;

/// Rows of one tick, with the tick's wall time. Timely calls it a container.
#[derive(Clone, Debug, Default)]
pub(crate) struct Batch {
    pub(crate) rows: Option<RecordBatch>,
    pub(crate) wall_time_ms: i64,
}

impl Batch {
    pub(crate) fn new(rows: RecordBatch, wall_time_ms: i64) -> Self {
        Self {
            rows: Some(rows),
            wall_time_ms,
        }
    }
}

impl Accountable for Batch {
    fn record_count(&self) -> i64 {
        self.rows.as_ref().map_or(0, |rows| rows.num_rows() as i64)
    }
}

/// Between processes a batch is its wall time, its length and an Arrow IPC stream, padded to eight bytes:
///
/// | bytes | content |
/// |---|---|
/// | 0..8 | wall time in milliseconds, i64 little-endian |
/// | 8..16 | length of the stream, u64 little-endian; 0 for no rows |
/// | 16.. | the stream, then zeros up to a multiple of 8 |
impl ContainerBytes for Batch {
    fn from_bytes(bytes: Bytes) -> Self {
        // The other end is a worker of the same job and program: a broken frame is a bug, and timely expects a panic.
        let word = |at: usize| <[u8; 8]>::try_from(&bytes[at..at + 8]).expect("a batch frame has a header");
        let length = u64::from_le_bytes(word(8)) as usize;
        let rows = (length > 0).then(|| {
            let mut reader = StreamReader::try_new(&bytes[16..16 + length], None).expect("a batch frame is Arrow IPC");
            reader
                .next()
                .expect("a batch frame holds a batch")
                .expect("a batch frame is Arrow IPC")
        });
        Self {
            rows,
            wall_time_ms: i64::from_le_bytes(word(0)),
        }
    }

    fn length_in_bytes(&self) -> usize {
        16 + self.stream().len().next_multiple_of(8)
    }

    fn into_bytes<W: std::io::Write>(&self, writer: &mut W) {
        let stream = self.stream();
        let padding = stream.len().next_multiple_of(8) - stream.len();
        let parts: [&[u8]; 4] = [
            &self.wall_time_ms.to_le_bytes(),
            &(stream.len() as u64).to_le_bytes(),
            &stream,
            &[0u8; 8][..padding],
        ];
        for part in parts {
            writer
                .write_all(part)
                .expect("timely's buffers take what they were sized for");
        }
    }
}

impl Batch {
    fn stream(&self) -> Vec<u8> {
        let Some(rows) = &self.rows else { return Vec::new() };
        let mut writer = StreamWriter::try_new(Vec::new(), rows.schema_ref()).expect("a vector can be written");
        writer.write(rows).expect("a vector can be written");
        writer.into_inner().expect("a vector can be written")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, StringViewArray};
    use arrow::datatypes::{DataType, Field, Schema};
    use std::sync::Arc;

    #[test]
    fn batches_survive_the_way_between_processes() {
        let schema = Schema::new(vec![
            Field::new("a", DataType::Int64, true),
            Field::new("b", DataType::Utf8View, false),
        ]);
        let columns: Vec<arrow::array::ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![Some(1), None])),
            Arc::new(StringViewArray::from(vec!["x", "yy"])),
        ];
        let rows = RecordBatch::try_new(Arc::new(schema), columns).unwrap();
        for batch in [
            Batch::new(rows, -7),
            Batch {
                rows: None,
                wall_time_ms: 3,
            },
        ] {
            let mut bytes = Vec::new();
            batch.into_bytes(&mut bytes);
            assert_eq!(bytes.len(), batch.length_in_bytes());
            let mut sealed = timely::bytes::arc::BytesMut::from(bytes);
            let length = sealed.len();
            let read = Batch::from_bytes(sealed.extract_to(length));
            assert_eq!((read.rows, read.wall_time_ms), (batch.rows, batch.wall_time_ms));
        }
    }
}
