//! Makes a split of each file.

use super::listing::{Found, check, list};
use super::position::{At, FilePosition};
use super::source_error;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;
use tidemill_engine::Result;
use tidemill_engine::source::{Discovery, Split, SplitEnumerator, SplitId, SplitState};

/// How places in files are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    Lines,
    Parquet,
}

/// Endings of compressed files, which are not unpacked.
const COMPRESSED: [&str; 7] = ["gz", "gzip", "bz2", "xz", "zst", "deflate", "zip"];

/// Looks for files.
pub(super) struct FileEnumerator {
    table: String,
    path: PathBuf,
    interval: Option<Duration>,
    kind: FileKind,
    /// Files whose change was told already.
    told: BTreeSet<SplitId>,
}

impl FileEnumerator {
    pub(super) fn new(table: String, path: PathBuf, interval: Option<Duration>, kind: FileKind) -> Self {
        Self {
            table,
            path,
            interval,
            kind,
            told: BTreeSet::new(),
        }
    }

    fn split(&self, found: &Found) -> Result<Split, String> {
        let name = found
            .path
            .to_str()
            .ok_or_else(|| format!("the name of {} is not UTF-8", found.path.display()))?;
        let extension = found.path.extension().and_then(|e| e.to_str()).unwrap_or("");
        if self.kind == FileKind::Lines && COMPRESSED.contains(&extension.to_lowercase().as_str()) {
            return Err(format!(
                "{name} is compressed, which is not supported: unpack it, or move it away"
            ));
        }
        let at = match self.kind {
            FileKind::Lines => At::Line { byte: 0, line: 1 },
            FileKind::Parquet => At::Row(0),
        };
        let position = FilePosition { at, size: found.size }.to_string();
        Ok(Split {
            id: SplitId(name.to_owned()),
            position,
        })
    }

    /// Warns once about a file that was found before and has another size now.
    fn note_change(&mut self, id: &SplitId, found: &Found, state: &SplitState) {
        let changed = FilePosition::parse(&state.position).is_ok_and(|position| position.size != found.size);
        if changed && self.told.insert(id.clone()) {
            tracing::warn!(
                table = self.table,
                file = id.0,
                "the file has changed since it was found; what was added is not read: write files elsewhere and move them in"
            );
        }
    }
}

#[async_trait::async_trait]
impl SplitEnumerator for FileEnumerator {
    async fn discover(&mut self, known: &BTreeMap<SplitId, SplitState>) -> Result<Discovery> {
        let complete = self.interval.is_none();
        // A bounded table is what was there when the job first looked.
        if complete && !known.is_empty() {
            return Ok(Discovery {
                complete,
                ..Discovery::default()
            });
        }
        let path = self.path.clone();
        let looked = tokio::task::spawn_blocking(move || (check(&path), list(&path))).await;
        let (checked, listed) = looked.map_err(|error| source_error(&self.table, error))?;
        // What was there and is gone may come back with the disk it is on; what never was there will not.
        if known.is_empty() {
            checked.map_err(|message| source_error(&self.table, message).permanent())?;
        }
        let mut new = Vec::new();
        for found in listed.map_err(|message| source_error(&self.table, message))? {
            let split = self
                .split(&found)
                .map_err(|message| source_error(&self.table, message))?;
            match known.get(&split.id) {
                Some(state) => self.note_change(&split.id, &found, state),
                None => new.push(split),
            }
        }
        Ok(Discovery {
            new,
            complete,
            ..Discovery::default()
        })
    }

    fn interval(&self) -> Option<Duration> {
        self.interval
    }
}
