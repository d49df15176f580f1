//! DescribeLimits: how many shards and streams there are, and may be.

use crate::kinesis::item::Fields;
use crate::kinesis::shape::Field;
use crate::limits;
use crate::store::ShardStore;
use crate::stream::StreamMode;

pub(super) const SHAPE: &[Field] = &[];

pub(super) fn run(store: &ShardStore) -> Fields {
    let (now_ms, limit) = (store.now_ms(), store.options().shards_max);
    let (mut open, mut on_demand) = (0, 0);
    for stream in store
        .view()
        .streams()
        .iter()
        .filter(|stream| !stream.meta.is_gone(now_ms))
    {
        open += stream.meta.open_shards().count() as u32;
        on_demand += u32::from(stream.meta.mode == StreamMode::OnDemand);
    }
    // There is no limit of its own on streams: as many as their first shards leave room for.
    let more = limit.saturating_sub(open) / limits::ON_DEMAND_SHARDS;
    Fields::new()
        .with("ShardLimit", i64::from(limit))
        .with("OpenShardCount", i64::from(open))
        .with("OnDemandStreamCount", i64::from(on_demand))
        .with("OnDemandStreamCountLimit", i64::from(on_demand + more))
        .with("ChannelCount", 0)
        .with("ChannelCountLimit", 0)
}
