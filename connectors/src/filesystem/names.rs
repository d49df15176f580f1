//! Every name of a file or folder that the sink makes.
//!
//! ```text
//! <path>/.tidemill/<sink>/<lineage>-g<generation>-w<worker>-<n>.<ext>     being written, or waiting for its checkpoint
//! <path>/.tidemill/<sink>/published                                       the newest checkpoint that was published
//! <path>/<partition>/part-<sink>-<lineage>-<generation>-<checkpoint>-<worker>-<n>.<ext>
//! ```
//! `<sink>` is 16 hexadecimal digits of a hash of the job's and the sink's identity, `<lineage>` the first 8 of the checkpoints'
//! lineage: a job whose checkpoints were deleted counts from the beginning again, in another one. A file's final name is decided at
//! the pre-commit and stands in the committable, so publishing again gives the same name. The forms are durable.

use std::path::{Path, PathBuf};

/// The folder of what is not published yet; readers skip it for its dot.
const STAGING: &str = ".tidemill";

/// The identity of a sink within a folder that several may write to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SinkName(String);

impl SinkName {
    /// Makes the name of a job's sink.
    pub(super) fn new(job: &str, uid: &str) -> Self {
        // FNV-1a, with a byte between the two that neither can contain.
        let hash = job
            .bytes()
            .chain([0xff])
            .chain(uid.bytes())
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        Self(format!("{hash:016x}"))
    }

    /// Returns the folder of the sink's unpublished files.
    pub(super) fn staging(&self, root: &Path) -> PathBuf {
        root.join(STAGING).join(&self.0)
    }

    /// Returns the file that says what was published.
    pub(super) fn published(&self, root: &Path) -> PathBuf {
        self.staging(root).join("published")
    }

    /// Returns a file's final name within the path.
    pub(super) fn target(&self, partition: &str, staged: &StagedName, checkpoint: u64) -> String {
        let StagedName {
            lineage,
            generation,
            worker,
            number,
            extension,
        } = staged;
        format!(
            "{partition}part-{}-{lineage}-{generation}-{checkpoint}-{worker}-{number}.{extension}",
            self.0
        )
    }
}

/// The name of a file that is not published yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StagedName {
    /// The short form of the lineage.
    pub(super) lineage: String,
    pub(super) generation: u64,
    pub(super) worker: usize,
    /// Counts the worker's files.
    pub(super) number: u64,
    pub(super) extension: String,
}

impl std::fmt::Display for StagedName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}-g{}-w{}-{}.{}",
            self.lineage, self.generation, self.worker, self.number, self.extension
        )
    }
}

/// Returns the lineage, in its short form, and the generation that wrote an unpublished file, by its name.
pub(super) fn writer_of(name: &str) -> Option<(&str, u64)> {
    let (lineage, rest) = name.split_once("-g")?;
    Some((lineage, rest.split_once("-w")?.0.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_form() {
        let sink = SinkName::new("job", "sink");
        assert_ne!(sink, SinkName::new("jobs", "ink"));
        let staged = StagedName {
            lineage: "0a1b2c3d".to_owned(),
            generation: 3,
            worker: 1,
            number: 7,
            extension: "json".to_owned(),
        };
        assert_eq!(staged.to_string(), "0a1b2c3d-g3-w1-7.json");
        assert_eq!(writer_of("0a1b2c3d-g3-w1-7.json"), Some(("0a1b2c3d", 3)));
        assert_eq!(writer_of("published"), None);
        assert_eq!(
            sink.target("a=1/", &staged, 12),
            format!("a=1/part-{}-0a1b2c3d-3-12-1-7.json", sink.0)
        );
    }
}
