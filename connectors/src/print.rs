//! The connectors `print`: a sink that writes rows to the standard output, one line each, as Flink does.
//!
//! A line is `identifier:worker> +I[1, text, null]`; the identifier is the option `print-identifier`, and the worker
//! stands there when the job has several. Rows of a result that changes begin with `+I`, `-D`, and when the table has a
//! primary key `-U` and `+U` for the old and the new row of an update. The lines of a batch are written in one piece, whole lines each.

use crate::changes::{ChangeKind, Changes};
use crate::error::ConnectorError;
use crate::formats::time_text::TimestampStandard;
use crate::formats::values::{Parts, Shape, TextColumn, check_writable};
use crate::options::{Flag, Options};
use crate::table::TableDefinition;
use arrow::array::RecordBatch;
use std::io::Write;
use std::sync::Arc;
use tidemill_engine::operator::{Progress, TickClose};
use tidemill_engine::sink::{
    CommitterContext, DeliveryGuarantee, PreCommit, PreCommitId, Sink, SinkCommitter, SinkContext, SinkWriter,
};
use tidemill_engine::{Error, Result};

/// Where the lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Stdout,
    Stderr,
}

/// The sink.
pub(crate) struct PrintSink {
    table: String,
    identifier: String,
    target: Target,
    /// The primary key's columns.
    key: Vec<usize>,
}

impl PrintSink {
    /// Makes the sink of a table.
    ///
    /// # Errors
    /// When an option is not valid or a column cannot be printed.
    pub(crate) fn new(table: &TableDefinition) -> Result<Self, ConnectorError> {
        let options = Options::new(&table.name, &table.options);
        let identifier = options.text("print-identifier").unwrap_or("").to_owned();
        let standard_error = options.boolean("standard-error", Flag::Off)?;
        options.refuse(
            "sink.parallelism",
            "a sink runs on every worker of its job; leave the option out",
        )?;
        crate::sinks::at_least_once_only(&options)?;
        options.finish()?;
        let columns = table.weight().unwrap_or(table.schema.fields().len());
        for field in &table.schema.fields()[..columns] {
            check_writable(field.name(), field.data_type())?;
        }
        let key = table
            .primary_key
            .iter()
            .filter_map(|name| table.schema.index_of(name).ok());
        let target = if standard_error.is_on() {
            Target::Stderr
        } else {
            Target::Stdout
        };
        Ok(Self {
            table: table.name.clone(),
            identifier,
            target,
            key: key.collect(),
        })
    }
}

impl Sink for PrintSink {
    fn guarantee(&self) -> DeliveryGuarantee {
        DeliveryGuarantee::AtLeastOnce
    }

    fn writer(&self, context: SinkContext) -> Result<Box<dyn SinkWriter>> {
        let prefix = prefix(&self.identifier, context.worker, context.workers);
        Ok(Box::new(PrintWriter {
            table: self.table.clone(),
            prefix,
            target: self.target,
            key: self.key.clone(),
        }))
    }

    fn committer(&self, _context: CommitterContext) -> Result<Option<Arc<dyn SinkCommitter>>> {
        Ok(None)
    }
}

/// Returns what stands before each row; workers are counted from 1, as Flink counts its subtasks.
fn prefix(identifier: &str, worker: usize, workers: usize) -> String {
    match (identifier, workers) {
        ("", 1) => String::new(),
        ("", _) => format!("{}> ", worker + 1),
        (identifier, 1) => format!("{identifier}> "),
        (identifier, _) => format!("{identifier}:{}> ", worker + 1),
    }
}

struct PrintWriter {
    table: String,
    prefix: String,
    target: Target,
    key: Vec<usize>,
}

impl SinkWriter for PrintWriter {
    fn write(&mut self, batch: &RecordBatch, _wall_time_ms: i64) -> Result<()> {
        let mut lines = Vec::new();
        format_rows(&self.prefix, &self.key, batch, &mut lines)?;
        let written = match self.target {
            Target::Stdout => write_all(&mut std::io::stdout().lock(), &lines),
            Target::Stderr => write_all(&mut std::io::stderr().lock(), &lines),
        };
        written.map_err(|error| Error::Sink {
            sink: self.table.clone(),
            message: format!("the output cannot be written: {error}"),
        })
    }

    fn tick_closed(&mut self, _close: &TickClose) -> Result<Progress> {
        Ok(Progress::Done)
    }

    fn pre_commit(&mut self, _id: PreCommitId) -> Result<PreCommit> {
        Ok(Box::pin(std::future::ready(Ok(None))))
    }
}

fn write_all(out: &mut dyn Write, lines: &[u8]) -> std::io::Result<()> {
    out.write_all(lines)?;
    out.flush()
}

/// Writes each row of a batch as a line.
fn format_rows(prefix: &str, key: &[usize], batch: &RecordBatch, out: &mut Vec<u8>) -> Result<()> {
    let changes = Changes::of(batch, key)?;
    let columns = batch.columns()[..changes.columns()]
        .iter()
        .map(TextColumn::new)
        .collect::<Result<Vec<_>>>()?;
    for row in 0..batch.num_rows() {
        out.extend_from_slice(prefix.as_bytes());
        out.extend_from_slice(match changes.kind(row) {
            ChangeKind::Insert => b"+I[",
            ChangeKind::UpdateBefore => b"-U[",
            ChangeKind::UpdateAfter => b"+U[",
            ChangeKind::Delete => b"-D[",
        });
        for (i, column) in columns.iter().enumerate() {
            if i > 0 {
                out.extend_from_slice(b", ");
            }
            format_value(column, row, out);
        }
        out.extend_from_slice(b"]\n");
    }
    Ok(())
}

fn format_value(column: &TextColumn<'_>, row: usize, out: &mut Vec<u8>) {
    if column.is_null(row) {
        out.extend_from_slice(b"null");
        return;
    }
    match column.shape() {
        // A line end within a text would make two lines of a row.
        Shape::Text => {
            for c in column.text(row).chars() {
                match c {
                    '\n' => out.extend_from_slice(b"\\n"),
                    '\r' => out.extend_from_slice(b"\\r"),
                    c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
                }
            }
        }
        Shape::Container => format_container(column, row, out),
        _ => column.write(row, TimestampStandard::Iso8601, out),
    }
}

fn format_container(column: &TextColumn<'_>, row: usize, out: &mut Vec<u8>) {
    let separate = |i: usize, out: &mut Vec<u8>| {
        if i > 0 {
            out.extend_from_slice(b", ");
        }
    };
    match column.parts(row) {
        None => {}
        Some(Parts::List(items, range)) => {
            out.push(b'[');
            for (i, row) in range.enumerate() {
                separate(i, out);
                format_value(items, row, out);
            }
            out.push(b']');
        }
        Some(Parts::Struct(fields)) => {
            out.extend_from_slice(b"+I[");
            for (i, (_, field)) in fields.iter().enumerate() {
                separate(i, out);
                format_value(field, row, out);
            }
            out.push(b']');
        }
        Some(Parts::Map(keys, values, range)) => {
            out.push(b'{');
            for (i, row) in range.enumerate() {
                separate(i, out);
                format_value(keys, row, out);
                out.push(b'=');
                format_value(values, row, out);
            }
            out.push(b'}');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array, StringArray, TimestampMillisecondArray};

    #[test]
    fn rows_look_as_flink_prints_them() {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("a", Arc::new(Int64Array::from(vec![Some(1), None]))),
            ("b", Arc::new(StringArray::from(vec!["x", "two\nlines"]))),
            ("t", Arc::new(TimestampMillisecondArray::from(vec![0, 1500]))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let mut out = Vec::new();
        format_rows("p:2> ", &[], &batch, &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "p:2> +I[1, x, 1970-01-01T00:00:00]\np:2> +I[null, two\\nlines, 1970-01-01T00:00:01.5]\n"
        );
    }

    #[test]
    fn update_of_a_key_is_told_from_a_removal_and_an_addition() {
        let columns: Vec<(&str, ArrayRef)> = vec![
            (
                "k",
                Arc::new(Int64Array::from(vec![Some(1), Some(1), Some(2), Some(3), None, None])),
            ),
            ("v", Arc::new(StringArray::from(vec!["a", "b", "c", "d", "e", "f"]))),
            ("__weight", Arc::new(Int64Array::from(vec![-1, 1, -1, 1, -1, 1]))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let printed = |key: &[usize]| {
            let mut out = Vec::new();
            format_rows("", key, &batch, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            printed(&[0]),
            "-U[1, a]\n+U[1, b]\n-D[2, c]\n+I[3, d]\n-U[null, e]\n+U[null, f]\n"
        );
        assert_eq!(
            printed(&[]),
            "-D[1, a]\n+I[1, b]\n-D[2, c]\n+I[3, d]\n-D[null, e]\n+I[null, f]\n"
        );
    }

    #[test]
    fn the_worker_is_named_when_there_are_several() {
        assert_eq!(prefix("", 0, 1), "");
        assert_eq!(prefix("", 0, 2), "1> ");
        assert_eq!(prefix("out", 1, 2), "out:2> ");
        assert_eq!(prefix("out", 0, 1), "out> ");
    }
}
