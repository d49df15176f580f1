//! Records whose shard was closed while they waited for the writer.
//!
//! A put finds its shard by what it sees of the store; by the time the writer takes it, the shard may have been split or
//! merged. Such records go where their hash key belongs now. Records of one key have one open shard at any moment, so
//! their order stays.

use hashbrown::HashMap;

use super::{Append, Writer};
use crate::access::PutEntry;
use crate::hashkey::HashKey;
use crate::ids::ShardKey;
use crate::stream::RecordDistribution;
use crate::view::Routes;

impl Writer {
    /// Sends records of closed shards to the shards that are open now. Those of deleted streams stay, and are refused.
    pub(super) fn reroute(&self, appends: &mut [Append]) {
        let mut moves: HashMap<ShardKey, Option<(Routes, RecordDistribution)>> = HashMap::new();
        for routed in appends.iter_mut().flat_map(|append| &mut append.records) {
            let closed = |shard: ShardKey| self.state.shards.get(&shard).is_some_and(|known| known.closed);
            if !closed(routed.shard) {
                continue;
            }
            let now = moves.entry(routed.shard).or_insert_with(|| {
                let meta = self.state.stream_of(routed.shard)?;
                Some((Routes::new(meta), meta.distribution))
            });
            if let Some((routes, distribution)) = now {
                routed.shard = routes.shard(hash_key(&routed.entry, *distribution));
            }
        }
    }
}

/// Where a record belongs. One that is spread by the store goes anywhere, but to the same place each time.
pub(crate) fn hash_key(entry: &PutEntry, distribution: RecordDistribution) -> HashKey {
    match distribution {
        RecordDistribution::Auto => HashKey(xxhash_rust::xxh3::xxh3_128(&entry.data)),
        RecordDistribution::UserPartitionKey => entry
            .explicit_hash_key
            .unwrap_or_else(|| HashKey::of(&entry.partition_key)),
    }
}
