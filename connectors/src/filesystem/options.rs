//! The options of a `filesystem` table: the names of Flink's connector.

use super::encoder::{FileFormat, ParquetOptions};
use crate::environment::ConnectorEnvironment;
use crate::error::ConnectorError;
use crate::formats::{FILE_FORMATS, RecordFormat};
use crate::options::Options;
use crate::table::TableDefinition;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tidemill_engine::sink::DeliveryGuarantee;

/// Flink's default.
const FILE_SIZE_DEFAULT: u64 = 128 << 20;

/// What a `filesystem` table's options say.
#[derive(Clone, Debug)]
pub(super) struct FileOptions {
    /// A file, a folder or a pattern.
    pub(super) path: PathBuf,
    pub(super) format: FileFormat,
    /// How often to look for new files; `None` reads what is there and ends.
    pub(super) monitor_interval: Option<Duration>,
    /// A file is closed at this size.
    pub(super) roll_bytes: u64,
    /// A file is closed when it was open for so long.
    pub(super) roll_interval: Option<Duration>,
    /// The folder's name for a partition of NULL.
    pub(super) partition_default: String,
}

impl FileOptions {
    /// Reads all options of a table, also those of the side that is not used.
    ///
    /// # Errors
    /// When one is not valid or has no effect here.
    pub(super) fn parse(table: &TableDefinition) -> Result<Self, ConnectorError> {
        let options = Options::new(&table.name, &table.options);
        let path = path(options.required("path")?)?;
        let format = match RecordFormat::parse(&options, &FILE_FORMATS)? {
            Some(format) => FileFormat::Records(format),
            None => FileFormat::Parquet(ParquetOptions::parse(&options)?),
        };
        let monitor_interval = options.duration("source.monitor-interval")?;
        if monitor_interval.is_some_and(|interval| interval < Duration::from_millis(10)) {
            return Err(options.out_of_range("source.monitor-interval", "at least 10 ms, such as '1 s'"));
        }
        let roll_bytes = options
            .memory_size("sink.rolling-policy.file-size")?
            .unwrap_or(FILE_SIZE_DEFAULT);
        if roll_bytes == 0 {
            return Err(options.out_of_range("sink.rolling-policy.file-size", "above 0, such as '128 mb'"));
        }
        let roll_interval = options.duration("sink.rolling-policy.rollover-interval")?;
        let partition_default = options
            .text("partition.default-name")
            .unwrap_or("__DEFAULT_PARTITION__")
            .to_owned();
        if partition_default.is_empty() {
            return Err(ConnectorError::option("partition.default-name", "must not be empty"));
        }
        if crate::sinks::delivery_guarantee(&options)? == Some(DeliveryGuarantee::AtLeastOnce) {
            let message = "files appear with their checkpoint, which is exactly-once; leave the option out";
            return Err(ConnectorError::option("sink.delivery-guarantee", message));
        }
        refuse_foreign(&options)?;
        options.finish()?;
        Ok(Self {
            path,
            format,
            monitor_interval,
            roll_bytes,
            roll_interval,
            partition_default,
        })
    }

    /// Returns the path, a relative one within the data directory if there is one.
    pub(super) fn resolve(&self, env: &ConnectorEnvironment) -> PathBuf {
        match env.data_directory() {
            Some(directory) => directory.join(&self.path),
            None => self.path.clone(),
        }
    }
}

/// Refuses options of Flink's connector that are not supported, with what to do instead.
fn refuse_foreign(options: &Options<'_>) -> Result<(), ConnectorError> {
    options.refuse(
        "source.path.regex-pattern",
        "not supported; write a pattern into the path, such as /in/*.json",
    )?;
    options.refuse("source.report-statistics", "not supported; leave it out")?;
    for name in [
        "sink.rolling-policy.inactivity-interval",
        "sink.rolling-policy.check-interval",
    ] {
        options.refuse(
            name,
            "has no effect here: every checkpoint closes all files; leave it out",
        )?;
    }
    options.refuse_prefix(
        "sink.partition-commit.",
        "not supported: a partition's files are complete when they appear",
    )?;
    options.refuse_prefix("partition.time-extractor.", "not supported; leave it out")?;
    options.refuse(
        "auto-compaction",
        "not supported; take checkpoints less often to get larger files",
    )?;
    options.refuse_prefix(
        "compaction.",
        "not supported; take checkpoints less often to get larger files",
    )?;
    options.refuse("sink.shuffle-by-partition.enable", "not supported; leave it out")?;
    options.refuse(
        "sink.parallelism",
        "a sink runs on every worker of its job; leave the option out",
    )
}

fn path(text: &str) -> Result<PathBuf, ConnectorError> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return Ok(PathBuf::from(text));
    };
    let error = |message: String| Err(ConnectorError::option("path", message));
    match scheme {
        "file" if rest.starts_with('/') => Ok(Path::new(rest).to_path_buf()),
        "file" => error(format!("'{text}' must have three slashes, as in file:///data/in")),
        "s3" | "s3a" | "gs" | "az" | "abfs" | "hdfs" | "http" | "https" => {
            error(format!("'{scheme}' is not supported yet; use a path of this machine"))
        }
        _ => error(format!(
            "there is no file system '{scheme}'; use a path of this machine"
        )),
    }
}
