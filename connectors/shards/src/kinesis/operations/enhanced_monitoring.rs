//! EnableEnhancedMonitoring and DisableEnhancedMonitoring: which measurements of each shard a stream asks for. They are
//! kept and told; the server's own metrics do not depend on them.

use super::{change, metric_names};
use crate::kinesis::error::ApiError;
use crate::kinesis::item::Fields;
use crate::kinesis::shape::{Field, Kind, STREAM_ARN, STREAM_ID, STREAM_NAME};
use crate::kinesis::stream_ref;
use crate::store::ShardStore;
use crate::stream::ShardMetric;
use crate::update::StreamUpdate;

pub(super) const SHAPE: &[Field] = &[
    STREAM_NAME,
    Field::new(
        "ShardLevelMetrics",
        Kind::Texts(&Field::new("", Kind::Text).values(&[
            "IncomingBytes",
            "IncomingRecords",
            "OutgoingBytes",
            "OutgoingRecords",
            "WriteProvisionedThroughputExceeded",
            "ReadProvisionedThroughputExceeded",
            "IteratorAgeMilliseconds",
            "ALL",
        ])),
    )
    .required()
    .range(1, 7),
    STREAM_ARN,
    STREAM_ID,
];

pub(super) async fn enable(store: &ShardStore, fields: Fields) -> Result<Fields, ApiError> {
    let update = StreamUpdate::EnableMetrics(metrics(&fields));
    run(store, &fields, update).await
}

pub(super) async fn disable(store: &ShardStore, fields: Fields) -> Result<Fields, ApiError> {
    let update = StreamUpdate::DisableMetrics(metrics(&fields));
    run(store, &fields, update).await
}

async fn run(store: &ShardStore, fields: &Fields, update: StreamUpdate) -> Result<Fields, ApiError> {
    let stream = stream_ref::stream(store, fields)?;
    let updated = change(store, &stream, update).await?;
    Ok(Fields::new()
        .with("StreamName", stream.name.as_str())
        .with("CurrentShardLevelMetrics", metric_names(&updated.before.metrics))
        .with("DesiredShardLevelMetrics", metric_names(&updated.after.metrics))
        .with("StreamARN", stream.arn.as_str()))
}

fn metrics(fields: &Fields) -> Vec<ShardMetric> {
    let names = fields.texts("ShardLevelMetrics");
    let all = names.iter().any(|name| name == "ALL");
    let wanted = |metric: &ShardMetric| all || names.iter().any(|name| name == metric.as_str());
    ShardMetric::ALL.into_iter().filter(wanted).collect()
}
