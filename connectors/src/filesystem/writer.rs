//! Writes a worker's rows into files that nobody sees until their checkpoint is complete.
//!
//! Each checkpoint closes all files: what it covers and what comes after never share one. In between a file is closed
//! when it is large or old enough, or when too many partitions are open.

use super::disk::Disk;
use super::encoder::{FileEncoder, FileEncoders};
use super::names::{SinkName, StagedName};
use super::options::FileOptions;
use super::partition::Folders;
use super::sink_error;
use crate::table::{PartitionColumns, TableDefinition};
use arrow::array::RecordBatch;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use tidemill_engine::operator::{Progress, TickClose};
use tidemill_engine::sink::{PreCommit, PreCommitId, SinkContext, SinkWriter};
use tidemill_engine::{Error, Result};

/// Files that a worker has open at once; beyond, the one written to longest ago is closed.
const OPEN_FILES_MAX: usize = 64;
/// Bytes that all open Parquet files of a worker hold in memory; beyond, the one that holds most is closed.
const BUFFERED_BYTES_MAX: u64 = 128 << 20;

/// What a checkpoint holds of a worker's files: version 1, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Committable {
    pub(super) version: u32,
    pub(super) files: Vec<StagedFile>,
}

/// The version of committables.
pub(super) const COMMITTABLE_VERSION: u32 = 1;

/// A file that waits for its checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StagedFile {
    /// Its name in the staging folder.
    pub(super) staged: String,
    /// Its final name within the table's path.
    pub(super) target: String,
    pub(super) bytes: u64,
    pub(super) rows: u64,
}

/// Writes a worker's rows.
pub(super) struct FileWriter {
    table: Arc<TableDefinition>,
    options: Arc<FileOptions>,
    folders: Folders,
    encoders: FileEncoders,
    sink: SinkName,
    staging: PathBuf,
    disk: Disk,
    open: BTreeMap<String, OpenFile>,
    closed: Vec<ClosedFile>,
    files: u64,
    writes: u64,
    context: SinkContext,
}

struct OpenFile {
    name: StagedName,
    encoder: FileEncoder,
    bytes: u64,
    rows: u64,
    opened_ms: i64,
    /// The number of the last write.
    used: u64,
}

struct ClosedFile {
    partition: String,
    name: StagedName,
    bytes: u64,
    rows: u64,
}

impl FileWriter {
    pub(super) fn new(
        table: Arc<TableDefinition>,
        options: Arc<FileOptions>,
        root: PathBuf,
        context: SinkContext,
    ) -> Result<Self> {
        let schema = table.record_schema(PartitionColumns::InPath);
        let encoders = options
            .format
            .file_encoders(&schema)
            .map_err(|error| sink_error(&table.name, error))?;
        let sink = SinkName::new(&context.job, &context.uid);
        Ok(Self {
            folders: Folders::new(&table, &options),
            encoders,
            staging: sink.staging(&root),
            sink,
            disk: Disk::start(&context.runtime, Arc::clone(&context.waker)),
            open: BTreeMap::new(),
            closed: Vec::new(),
            files: 0,
            writes: 0,
            table,
            options,
            context,
        })
    }

    fn error(&self, message: impl std::fmt::Display) -> Error {
        sink_error(&self.table.name, message)
    }

    fn check(&self) -> Result<()> {
        self.disk.failure().map_or(Ok(()), |message| Err(self.error(message)))
    }

    fn append(&mut self, partition: &str, batch: &RecordBatch, wall_time_ms: i64) -> Result<()> {
        if !self.open.contains_key(partition) {
            self.make_room()?;
            self.begin(partition, wall_time_ms)?;
        }
        self.writes += 1;
        let Some(file) = self.open.get_mut(partition) else {
            return Err(Error::Internal("a file that was opened is not open".to_owned()));
        };
        let bytes = file
            .encoder
            .write(batch)
            .map_err(|message| sink_error(&self.table.name, message))?;
        file.bytes += bytes.len() as u64;
        file.rows += batch.num_rows() as u64;
        file.used = self.writes;
        let size = file.bytes + file.encoder.buffered();
        self.disk.append(file.name.number, bytes);
        if size >= self.options.roll_bytes {
            return self.close(partition);
        }
        let buffered = |file: &OpenFile| file.encoder.buffered();
        if self.open.values().map(buffered).sum::<u64>() > BUFFERED_BYTES_MAX {
            let largest = self
                .open
                .iter()
                .max_by_key(|(_, file)| buffered(file))
                .map(|(partition, _)| partition.clone());
            return largest.map_or(Ok(()), |partition| self.close(&partition));
        }
        Ok(())
    }

    fn begin(&mut self, partition: &str, wall_time_ms: i64) -> Result<()> {
        let name = StagedName {
            lineage: self.context.lineage.short(),
            generation: self.context.generation,
            worker: self.context.worker,
            number: self.files,
            extension: self.options.format.extension().to_owned(),
        };
        self.files += 1;
        let encoder = self.encoders.start().map_err(|message| self.error(message))?;
        self.disk.create(name.number, self.staging.join(name.to_string()));
        let file = OpenFile {
            name,
            encoder,
            bytes: 0,
            rows: 0,
            opened_ms: wall_time_ms,
            used: self.writes,
        };
        self.open.insert(partition.to_owned(), file);
        Ok(())
    }

    /// Closes the file that was written to longest ago, if another would be too many.
    fn make_room(&mut self) -> Result<()> {
        if self.open.len() < OPEN_FILES_MAX {
            return Ok(());
        }
        let oldest = self
            .open
            .iter()
            .min_by_key(|(_, file)| file.used)
            .map(|(partition, _)| partition.clone());
        oldest.map_or(Ok(()), |partition| self.close(&partition))
    }

    fn close(&mut self, partition: &str) -> Result<()> {
        let Some(file) = self.open.remove(partition) else {
            return Ok(());
        };
        let rest = file.encoder.finish().map_err(|message| self.error(message))?;
        let bytes = file.bytes + rest.len() as u64;
        self.disk.append(file.name.number, rest);
        self.disk.close(file.name.number);
        let (partition, name, rows) = (partition.to_owned(), file.name, file.rows);
        self.closed.push(ClosedFile {
            partition,
            name,
            bytes,
            rows,
        });
        Ok(())
    }

    fn close_all(&mut self, mut which: impl FnMut(&OpenFile) -> bool) -> Result<()> {
        let chosen: Vec<String> = self
            .open
            .iter()
            .filter(|(_, file)| which(file))
            .map(|(p, _)| p.clone())
            .collect();
        chosen.iter().try_for_each(|partition| self.close(partition))
    }
}

impl SinkWriter for FileWriter {
    fn write(&mut self, batch: &RecordBatch, wall_time_ms: i64) -> Result<()> {
        self.check()?;
        for (partition, rows) in self.folders.split(batch)? {
            self.append(&partition, &rows, wall_time_ms)?;
        }
        Ok(())
    }

    fn tick_closed(&mut self, close: &TickClose) -> Result<Progress> {
        self.check()?;
        if let Some(interval) = self.options.roll_interval {
            let interval_ms = i64::try_from(interval.as_millis()).unwrap_or(i64::MAX);
            self.close_all(|file| close.wall_time_ms.saturating_sub(file.opened_ms) >= interval_ms)?;
        }
        Ok(if self.disk.is_full() {
            Progress::More
        } else {
            Progress::Done
        })
    }

    fn pre_commit(&mut self, id: PreCommitId) -> Result<PreCommit> {
        self.check()?;
        self.close_all(|_| true)?;
        let sink = &self.sink;
        let file = |closed: ClosedFile| StagedFile {
            target: sink.target(&closed.partition, &closed.name, id.checkpoint),
            staged: closed.name.to_string(),
            bytes: closed.bytes,
            rows: closed.rows,
        };
        let files: Vec<StagedFile> = self.closed.drain(..).map(file).collect();
        let name = self.table.name.clone();
        let flushed = self.disk.flush();
        Ok(Box::pin(async move {
            match flushed.await {
                Ok(flushed) => flushed.map_err(|message| sink_error(&name, message))?,
                Err(_) => return Err(sink_error(&name, "the task that writes files is gone")),
            }
            if files.is_empty() {
                return Ok(None);
            }
            let committable = serde_json::to_vec(&Committable {
                version: COMMITTABLE_VERSION,
                files,
            });
            committable
                .map(Some)
                .map_err(|error| Error::Internal(format!("a committable cannot be written: {error}")))
        }))
    }
}
