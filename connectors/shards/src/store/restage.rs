//! Staged records of shards that were closed before their publish: they are staged again, for the shards that are open
//! now, and published then. Nothing is visible meanwhile; after a crash the job publishes its old references again, and
//! the second staging is repeated with them. What the first left behind only takes space.

use super::ShardStore;
use super::put::encoded_len;
use crate::access::{PutEntry, StagedExtent};
use crate::error::StoreError;
use crate::ids::{ShardKey, StreamName, Uuid};
use crate::limits;
use crate::log::entry;
use crate::log::writer::{Staged, StagedPayload, hash_key};
use crate::view::StreamView;

/// What publishes next: a frame that stays as it is, or records that have to be staged first. In the order in which they
/// become visible, which for each shard is the order of the records.
enum Piece {
    Kept(StagedExtent),
    Again(StagedPayload),
}

impl ShardStore {
    /// Stages the records of closed shards again.
    pub(super) async fn restage(&self, checkpoint: u64, sink_hash: u64, staged: Staged) -> Result<Staged, StoreError> {
        let store = self.clone();
        let pieces = super::blocking(move || store.pieces(checkpoint, sink_hash, staged)).await?;
        let mut owners = Vec::with_capacity(pieces.len());
        let (mut again, mut kept) = (Vec::new(), Vec::new());
        for (id, stream, piece) in pieces {
            match piece {
                Piece::Kept(extent) => {
                    owners.push((id, stream, true));
                    kept.push(extent);
                }
                Piece::Again(payload) => {
                    owners.push((id, stream, false));
                    again.push(payload);
                }
            }
        }
        tracing::debug!(
            frames = again.len(),
            "staged output again, because its shards were split or merged"
        );
        let again = self.stage_frames(checkpoint, sink_hash, again).await?;
        let (mut again, mut kept) = (again.into_iter(), kept.into_iter());
        let extents = owners.into_iter().filter_map(|(id, stream, stays)| {
            let extent = if stays { kept.next() } else { again.next() };
            extent.map(|extent| (id, stream, extent))
        });
        Ok(extents.collect())
    }

    /// Takes the frames of closed shards apart. Waits for the disk.
    fn pieces(
        &self,
        checkpoint: u64,
        sink_hash: u64,
        staged: Staged,
    ) -> Result<Vec<(Uuid, StreamName, Piece)>, StoreError> {
        let mut pieces = Vec::with_capacity(staged.len());
        // Frames of the same shard that follow each other are filled together.
        let mut open: hashbrown::HashMap<ShardKey, usize> = hashbrown::HashMap::new();
        for (id, name, extent) in staged {
            let stream = self.stream(&name)?;
            let shard = stream.shard_by_key(extent.shard).map(|shard| &shard.meta);
            if shard.is_some_and(|shard| shard.is_open()) {
                open.clear();
                pieces.push((id, name, Piece::Kept(extent)));
                continue;
            }
            for record in self.staged_records(&stream, &extent, checkpoint, sink_hash)? {
                let shard = stream.routes.shard(hash_key(&record, stream.meta.distribution));
                let length = encoded_len(&record);
                let fits = open.get(&shard).copied().filter(|at| {
                    matches!(&pieces[*at], (_, _, Piece::Again(payload))
                        if payload.payload.len() + length <= limits::FRAME_SPLIT_BYTES)
                });
                let at = fits.unwrap_or_else(|| {
                    let payload = StagedPayload {
                        shard,
                        records: 0,
                        payload: Vec::new(),
                    };
                    pieces.push((id, name.clone(), Piece::Again(payload)));
                    open.insert(shard, pieces.len() - 1);
                    pieces.len() - 1
                });
                if let (_, _, Piece::Again(payload)) = &mut pieces[at] {
                    payload.records += 1;
                    let (key, hash_key) = (&record.partition_key, record.explicit_hash_key);
                    entry::encode(&mut payload.payload, key, hash_key, &record.data);
                }
            }
        }
        Ok(pieces)
    }

    fn staged_records(
        &self,
        stream: &StreamView,
        extent: &StagedExtent,
        checkpoint: u64,
        sink_hash: u64,
    ) -> Result<Vec<PutEntry>, StoreError> {
        let invalid = |reason: String| {
            StoreError::Limit(format!(
                "staged output for stream {} cannot be read to send it to the children of its shard: {reason}",
                stream.meta.name
            ))
        };
        let payload = self
            .0
            .reader
            .read_staged(extent, checkpoint, sink_hash)
            .map_err(invalid)?;
        let mut records = Vec::with_capacity(extent.records as usize);
        let mut at = 0;
        while at < payload.len() {
            let (entry, next) =
                entry::decode(&payload, at).ok_or_else(|| invalid("a frame is no list of records".to_owned()))?;
            records.push(PutEntry {
                // Decoding has checked it.
                partition_key: String::from_utf8_lossy(&entry.key).into_owned(),
                explicit_hash_key: entry.hash_key,
                data: entry.data,
            });
            at = next;
        }
        Ok(records)
    }
}
