//! Turns batches into the bytes of a file.

use super::enumerator::FileKind;
use crate::error::ConnectorError;
use crate::formats::{RecordFormat, RowEncoder};
use crate::options::Options;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use std::sync::Arc;

/// Bytes of a row group, before it is written: what a Parquet file that is being written holds in memory.
const ROW_GROUP_BYTES: usize = 32 << 20;
const ROW_GROUP_ROWS: usize = 1 << 20;

/// The format of a file.
#[derive(Clone, Debug)]
pub(super) enum FileFormat {
    /// Records, one a line.
    Records(RecordFormat),
    Parquet(ParquetOptions),
}

/// The options `parquet.*`.
#[derive(Clone, Copy, Debug)]
pub(super) struct ParquetOptions {
    compression: Compression,
}

impl ParquetOptions {
    /// Reads the options.
    ///
    /// # Errors
    /// When one is not valid.
    pub(super) fn parse(options: &Options<'_>) -> Result<Self, ConnectorError> {
        let compressions = [
            ("snappy", Compression::SNAPPY),
            ("zstd", Compression::ZSTD(ZstdLevel::default())),
            ("gzip", Compression::GZIP(parquet::basic::GzipLevel::default())),
            ("uncompressed", Compression::UNCOMPRESSED),
        ];
        Ok(Self {
            compression: options
                .choice("parquet.compression", &compressions)?
                .unwrap_or(Compression::SNAPPY),
        })
    }

    fn properties(self) -> WriterProperties {
        WriterProperties::builder()
            .set_compression(self.compression)
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
            .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
            .set_created_by(format!("tidemill {}", env!("CARGO_PKG_VERSION")))
            .build()
    }
}

impl FileFormat {
    /// Says how places in files of this format are counted.
    pub(super) fn kind(&self) -> FileKind {
        match self {
            FileFormat::Records(_) => FileKind::Lines,
            FileFormat::Parquet(_) => FileKind::Parquet,
        }
    }

    /// Returns the ending of files' names.
    pub(super) fn extension(&self) -> &'static str {
        match self {
            FileFormat::Records(RecordFormat::Json(_) | RecordFormat::DebeziumJson(_)) => "json",
            FileFormat::Records(RecordFormat::Csv(_)) => "csv",
            FileFormat::Records(RecordFormat::Raw(_)) => "txt",
            FileFormat::Parquet(_) => "parquet",
        }
    }

    /// Checks that rows of a schema can be written.
    ///
    /// # Errors
    /// When a column's type cannot.
    pub(super) fn check_writable(&self, schema: &SchemaRef) -> Result<(), ConnectorError> {
        self.file_encoders(schema).map(|_| ())
    }

    /// Makes what makes the encoders of files.
    ///
    /// # Errors
    /// When a column's type cannot be written.
    pub(super) fn file_encoders(&self, schema: &SchemaRef) -> Result<FileEncoders, ConnectorError> {
        let encoders = match self {
            FileFormat::Records(format) => FileEncoders::Records(format.encoder(schema)?),
            FileFormat::Parquet(options) => FileEncoders::Parquet(Arc::clone(schema), *options),
        };
        encoders
            .start()
            .map_err(|error| ConnectorError::new(format!("the columns cannot be written: {error}")))?;
        Ok(encoders)
    }
}

/// Makes the encoders of files.
pub(super) enum FileEncoders {
    Records(Arc<dyn RowEncoder>),
    Parquet(SchemaRef, ParquetOptions),
}

impl FileEncoders {
    /// Begins a file.
    ///
    /// # Errors
    /// When the columns cannot be written.
    pub(super) fn start(&self) -> Result<FileEncoder, String> {
        Ok(match self {
            Self::Records(encoder) => FileEncoder::Records(Arc::clone(encoder)),
            Self::Parquet(schema, options) => {
                let writer = ArrowWriter::try_new(Vec::new(), Arc::clone(schema), Some(options.properties()));
                FileEncoder::Parquet(Box::new(writer.map_err(|error| error.to_string())?))
            }
        })
    }
}

/// Encodes one file; what it gives is to be appended.
pub(super) enum FileEncoder {
    Records(Arc<dyn RowEncoder>),
    Parquet(Box<ArrowWriter<Vec<u8>>>),
}

impl FileEncoder {
    /// Encodes a batch; the bytes may come later.
    ///
    /// # Errors
    /// When a value cannot be encoded.
    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<Vec<u8>, String> {
        match self {
            Self::Records(encoder) => {
                let mut out = Vec::new();
                let encoded = encoder.encode(batch, &mut out, &mut |out| out.push(b'\n'));
                encoded.map_err(|error| error.to_string())?;
                Ok(out)
            }
            Self::Parquet(writer) => {
                writer.write(batch).map_err(|error| error.to_string())?;
                // The writer counts its own bytes, so what it has written can be taken away.
                Ok(std::mem::take(writer.inner_mut()))
            }
        }
    }

    /// Returns the bytes that wait in memory for their row group.
    pub(super) fn buffered(&self) -> u64 {
        match self {
            Self::Records(_) => 0,
            Self::Parquet(writer) => writer.in_progress_size() as u64,
        }
    }

    /// Ends the file.
    ///
    /// # Errors
    /// When what was left cannot be encoded.
    pub(super) fn finish(self) -> Result<Vec<u8>, String> {
        match self {
            Self::Records(_) => Ok(Vec::new()),
            Self::Parquet(writer) => writer.into_inner().map_err(|error| error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::sink::{rows, schema};
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    #[test]
    fn row_groups_that_were_taken_away_make_a_whole_file() {
        let properties = WriterProperties::builder()
            .set_max_row_group_row_count(Some(1_000))
            .build();
        let writer = ArrowWriter::try_new(Vec::new(), schema(), Some(properties)).unwrap();
        let mut encoder = FileEncoder::Parquet(Box::new(writer));
        let (mut file, mut pieces) = (Vec::new(), 0);
        for from in 0..20 {
            let bytes = encoder.write(&rows(from * 700..(from + 1) * 700)).unwrap();
            pieces += usize::from(!bytes.is_empty());
            file.extend(bytes);
        }
        assert!(pieces > 2, "row groups leave while the file is written");
        file.extend(encoder.finish().unwrap());
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(file)).unwrap();
        assert_eq!(reader.metadata().num_row_groups(), 14);
        let batches: Vec<RecordBatch> = reader.build().unwrap().map(Result::unwrap).collect();
        let read = arrow::compute::concat_batches(&schema(), &batches).unwrap();
        assert_eq!(read, rows(0..14_000));
    }
}
