//! A batch of frames in memory, before it is known where in the log it goes.

use super::frame::{CONTROL_KEY, FrameHeader, FrameKind, HEADER_BYTES, SNAPSHOT_KEY};
use super::recovery::previous_key;
use crate::ids::{ShardKey, Uuid};
use crate::limits::SNAPSHOT_CHUNK_BYTES;
use crate::state::State;

/// Frames of one group commit, one behind the other as they will lie in the segment.
#[derive(Default)]
pub(crate) struct Draft {
    bytes: Vec<u8>,
    frames: Vec<(usize, FrameHeader)>,
}

impl Draft {
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.frames.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Adds a frame; `write` appends its payload. Returns where it lies in the batch.
    pub(crate) fn frame(&mut self, mut header: FrameHeader, write: impl FnOnce(&mut Vec<u8>)) -> (usize, usize) {
        let start = self.bytes.len();
        self.bytes.resize(start + HEADER_BYTES, 0);
        write(&mut self.bytes);
        header.payload_len = (self.bytes.len() - start - HEADER_BYTES) as u32;
        let end = start + header.frame_len();
        self.bytes.resize(end, 0);
        self.frames.push((start, header));
        (start, end - start)
    }

    /// Number of frames.
    pub(crate) fn frames(&self) -> usize {
        self.frames.len()
    }

    /// Makes the frames from number `from` on one piece with the next one that is added.
    pub(crate) fn join(&mut self, from: usize) {
        for (_, header) in &mut self.frames[from..] {
            header.joined = true;
        }
    }

    /// Adds a control frame.
    pub(crate) fn control(&mut self, json: &[u8], time_ms: u64) {
        self.frame(header(FrameKind::Control, CONTROL_KEY, 1, 0, time_ms), |payload| {
            payload.extend_from_slice(json)
        });
    }

    /// Adds the frames of a snapshot of `state`.
    pub(crate) fn snapshot(&mut self, state: &State, time_ms: u64) {
        let json = serde_json::to_vec(state).expect("a map with string keys serialises");
        let chunks = json.chunks(SNAPSHOT_CHUNK_BYTES);
        let count = chunks.len() as u32;
        for (index, chunk) in chunks.enumerate() {
            let header = header(FrameKind::Snapshot, SNAPSHOT_KEY, count, index as u64, time_ms);
            self.frame(header, |payload| payload.extend_from_slice(chunk));
        }
    }

    /// Writes all headers for a batch that starts at `offset`, behind a frame of `previous` length and shard, and
    /// returns the length and shard of its own last frame.
    pub(crate) fn seal(&mut self, uuid: Uuid, offset: u64, mut previous: (u32, ShardKey)) -> (u32, ShardKey) {
        for (start, header) in &mut self.frames {
            header.batch_start = offset as u32;
            (header.previous_len, header.previous_shard) = previous;
            let length = header.frame_len();
            header.seal(&mut self.bytes[*start..*start + length], uuid, offset + *start as u64);
            previous = (length as u32, previous_key(header));
        }
        previous
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// A header whose remaining fields [`Draft`] fills in.
pub(crate) fn header(kind: FrameKind, shard: ShardKey, count: u32, first: u64, time_ms: u64) -> FrameHeader {
    FrameHeader {
        kind,
        joined: false,
        payload_len: 0,
        count,
        shard,
        first,
        time_ms,
        before: 0,
        previous_len: 0,
        batch_start: 0,
        previous_shard: CONTROL_KEY,
    }
}
