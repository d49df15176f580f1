//! Reads a Parquet file: batches are decoded on the I/O runtime, one ahead.
//!
//! Columns are found by name and cast to the table's types; one that the file lacks is NULL.

use super::lines::check_size;
use super::partition::Constants;
use super::position::{At, FilePosition};
use super::source_error;
use crate::formats::assembler::Layout;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StructArray, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tidemill_engine::source::{ReadOutcome, SplitContext, SplitReader};
use tidemill_engine::{Error, Result};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

/// Rows that are decoded at once.
const BATCH_ROWS: usize = 8_192;

/// What comes back from the I/O runtime: the next batch, or none at the end, and the file to go on with.
type Decoded = Result<(Option<RecordBatch>, Box<ParquetRecordBatchReader>), String>;

/// Reads one file.
pub(super) struct ParquetReader {
    table: String,
    path: PathBuf,
    /// The next row.
    row: u64,
    size: u64,
    layout: Arc<Layout>,
    constants: Constants,
    pending: Option<oneshot::Receiver<Decoded>>,
    /// Rows that were decoded and not given yet.
    current: Option<RecordBatch>,
    started: bool,
    ended: bool,
    failed: Option<Error>,
    context: SplitContext,
}

impl ParquetReader {
    /// Opens a file at a position; nothing is read until somebody asks.
    pub(super) fn open(
        path: PathBuf,
        position: FilePosition,
        layout: Arc<Layout>,
        constants: Constants,
        context: SplitContext,
    ) -> Self {
        let (row, failed) = match position.at {
            At::Row(row) => (row, None),
            At::Line { .. } => {
                let message = format!("the position {position} is of a file of lines: the table's format was changed");
                (0, Some(source_error(&context.table, message)))
            }
        };
        Self {
            table: context.table.clone(),
            path,
            row,
            size: position.size,
            layout,
            constants,
            pending: None,
            current: None,
            started: false,
            ended: false,
            failed,
            context,
        }
    }

    /// Lets the I/O runtime decode the next batch, with the file where it is open already.
    fn request(&mut self, reader: Option<Box<ParquetRecordBatchReader>>) {
        let (reply, pending) = oneshot::channel();
        self.pending = Some(pending);
        let (path, size, row) = (self.path.clone(), self.size, self.row);
        let (layout, wake) = (Arc::clone(&self.layout), Arc::clone(&self.context.waker));
        self.context.runtime.spawn_blocking(move || {
            let schema = layout.record().projected();
            let _ = reply.send(decode(&path, size, row, schema, reader));
            wake();
        });
    }

    fn receive(&mut self) {
        if self.failed.is_some() || self.ended || self.current.is_some() {
            return;
        }
        let Some(pending) = &mut self.pending else { return };
        let received = match pending.try_recv() {
            Ok(received) => received,
            Err(TryRecvError::Empty) => return,
            Err(TryRecvError::Closed) => Err("the reading ended by itself".to_owned()),
        };
        self.pending = None;
        match received {
            Ok((Some(batch), reader)) => {
                self.context.metrics.bytes_in.add(batch.get_array_memory_size() as u64);
                self.current = Some(batch);
                self.request(Some(reader));
            }
            Ok((None, _)) => self.ended = true,
            Err(message) => {
                let message = format!("{}: {message}", self.path.display());
                self.failed = Some(source_error(&self.table, message));
            }
        }
    }
}

impl SplitReader for ParquetReader {
    fn read(&mut self, rows_max: usize, _bytes_max: usize) -> Result<ReadOutcome> {
        if !self.started && self.failed.is_none() {
            self.started = true;
            self.request(None);
        }
        self.receive();
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let Some(batch) = self.current.take() else {
            return Ok(if self.ended {
                ReadOutcome::Ended
            } else {
                ReadOutcome::Pending
            });
        };
        let rows = rows_max.clamp(1, batch.num_rows());
        if rows < batch.num_rows() {
            self.current = Some(batch.slice(rows, batch.num_rows() - rows));
        }
        self.row += rows as u64;
        let columns: Vec<ArrayRef> = batch.columns().iter().map(|column| column.slice(0, rows)).collect();
        let constants = &self.constants;
        let batch = self
            .layout
            .assemble(rows, &columns, |origin, field| constants.column(origin, field, rows))?;
        Ok(ReadOutcome::Rows(batch))
    }

    fn position(&self) -> String {
        FilePosition {
            at: At::Row(self.row),
            size: self.size,
        }
        .to_string()
    }

    fn is_ready(&mut self) -> bool {
        self.receive();
        !self.started || self.failed.is_some() || self.ended || self.current.is_some()
    }
}

/// Decodes the next batch with rows, opening the file at `row` if it is not open.
fn decode(
    path: &Path,
    size: u64,
    row: u64,
    schema: &SchemaRef,
    reader: Option<Box<ParquetRecordBatchReader>>,
) -> Decoded {
    let mut reader = match reader {
        Some(reader) => reader,
        None => Box::new(open(path, size, row, schema)?),
    };
    loop {
        match reader.next() {
            None => return Ok((None, reader)),
            Some(Err(error)) => return Err(error.to_string()),
            Some(Ok(batch)) if batch.num_rows() == 0 => {}
            Some(Ok(batch)) => return Ok((Some(fit(&batch, schema)?), reader)),
        }
    }
}

fn open(path: &Path, size: u64, row: u64, schema: &SchemaRef) -> Result<ParquetRecordBatchReader, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    check_size(path, &file, size)?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| error.to_string())?;
    let wanted = |index: &usize| schema.column_with_name(builder.schema().field(*index).name()).is_some();
    let roots: Vec<usize> = (0..builder.schema().fields().len()).filter(wanted).collect();
    let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
    let row = usize::try_from(row).map_err(|error| error.to_string())?;
    builder
        .with_projection(mask)
        .with_offset(row)
        .with_batch_size(BATCH_ROWS)
        .build()
        .map_err(|error| error.to_string())
}

/// Brings a batch of the file into the table's columns.
fn fit(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, String> {
    let rows = batch.num_rows();
    let mut columns = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let name = field.name();
        let column = match batch.column_by_name(name) {
            Some(column) if column.data_type() == field.data_type() => Arc::clone(column),
            Some(column) => adapt(column, field.data_type()).map_err(|error| format!("column {name}: {error}"))?,
            None if field.is_nullable() => new_null_array(field.data_type(), rows),
            None => return Err(format!("the file has no column {name}, which is NOT NULL")),
        };
        if !field.is_nullable() && column.null_count() > 0 {
            return Err(format!(
                "column {name} has NULLs in the file, and is NOT NULL in the table"
            ));
        }
        columns.push(column);
    }
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options).map_err(|error| error.to_string())
}

/// Brings values into a type; the fields of rows are found by name, as columns are.
fn adapt(values: &ArrayRef, wanted: &DataType) -> Result<ArrayRef, String> {
    let (DataType::Struct(fields), Some(rows)) = (wanted, values.as_struct_opt()) else {
        return cast(values, wanted).map_err(|error| error.to_string());
    };
    let field = |field: &FieldRef| match rows.column_by_name(field.name()) {
        Some(column) => adapt(column, field.data_type()).map_err(|error| format!("field {}: {error}", field.name())),
        None => Ok(new_null_array(field.data_type(), rows.len())),
    };
    let columns = fields.iter().map(field).collect::<Result<Vec<_>, _>>()?;
    let rows = StructArray::try_new_with_length(fields.clone(), columns, rows.nulls().cloned(), rows.len());
    rows.map(|rows| Arc::new(rows) as ArrayRef)
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Int32Array;
    use arrow::datatypes::{Field, Int64Type};

    #[test]
    fn fields_of_rows_are_found_by_name() {
        let field = |name: &str, data_type: DataType| Arc::new(Field::new(name, data_type, true));
        let number: ArrayRef = Arc::new(Int32Array::from(vec![1, 2]));
        let file = StructArray::from(vec![
            (field("a", DataType::Int32), Arc::clone(&number)),
            (field("b", DataType::Int32), number),
        ]);
        let wanted = DataType::Struct(
            [field("c", DataType::Utf8), field("b", DataType::Int64)]
                .into_iter()
                .collect(),
        );
        let adapted = adapt(&(Arc::new(file) as ArrayRef), &wanted).unwrap();
        let rows = adapted.as_struct();
        assert_eq!(rows.column(0).null_count(), 2);
        assert_eq!(rows.column(1).as_primitive::<Int64Type>().values(), &[1, 2]);
    }
}
