//! DescribeAccountSettings and UpdateAccountSettings: a commitment to a minimum of on-demand throughput. It is kept and
//! told; nobody is billed.

use super::store_error;
use crate::account::{AccountSettings, Commitment};
use crate::kinesis::error::ApiError;
use crate::kinesis::item::{Fields, Item};
use crate::kinesis::shape::{Field, Kind};
use crate::store::ShardStore;

pub(super) const DESCRIBE: &[Field] = &[];
pub(super) const UPDATE: &[Field] = &[Field::new(
    "MinimumThroughputBillingCommitment",
    Kind::Structure(&[Field::new("Status", Kind::Text)
        .required()
        .values(&["ENABLED", "DISABLED"])]),
)
.required()];

pub(super) fn describe(store: &ShardStore) -> Fields {
    answer(store, store.account_settings())
}

pub(super) async fn update(store: &ShardStore, fields: Fields) -> Result<Fields, ApiError> {
    let enabled = fields
        .structure("MinimumThroughputBillingCommitment")
        .and_then(|commitment| commitment.text("Status"))
        == Some("ENABLED");
    let settings = store.set_commitment(enabled).await.map_err(store_error(store))?;
    Ok(answer(store, settings))
}

fn answer(store: &ShardStore, settings: AccountSettings) -> Fields {
    let time = |ms: Option<u64>| ms.map(|ms| Item::Time(ms as i64));
    let commitment = settings.commitment(store.now_ms());
    let status = match commitment {
        Commitment::Disabled => "DISABLED",
        Commitment::Enabled => "ENABLED",
        Commitment::EnabledUntilEarliestEnd => "ENABLED_UNTIL_EARLIEST_ALLOWED_END",
    };
    let earliest = settings
        .earliest_end_ms()
        .filter(|_| commitment != Commitment::Disabled);
    let commitment = Fields::new()
        .with("Status", status)
        .with_some("StartedAt", time(settings.started_ms))
        .with_some("EndedAt", time(settings.ended_ms))
        .with_some("EarliestAllowedEndAt", time(earliest));
    Fields::new().with("MinimumThroughputBillingCommitment", commitment)
}
