//! Errors of the API: names, statuses, bodies. The one place that maps [`StoreError`] to them.

use super::item::Fields;
use crate::error::{ErrorKind, StoreError};

/// An error as the service answers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    status: u16,
    name: &'static str,
    message: Option<String>,
}

impl ApiError {
    fn new(name: &'static str, message: impl Into<String>) -> Self {
        Self {
            status: 400,
            name,
            message: Some(message.into()),
        }
    }

    /// An error without a message.
    pub(crate) fn bare(name: &'static str) -> Self {
        Self {
            status: 400,
            name,
            message: None,
        }
    }

    pub(crate) fn internal() -> Self {
        Self {
            status: 500,
            name: "InternalFailure",
            message: None,
        }
    }

    pub(crate) fn serialization(message: impl Into<String>) -> Self {
        Self::new("SerializationException", message)
    }

    pub(crate) fn validation(message: impl Into<String>) -> Self {
        Self::new("ValidationException", message)
    }

    pub(crate) fn invalid_argument(message: impl Into<String>) -> Self {
        Self::new("InvalidArgumentException", message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new("ResourceNotFoundException", message)
    }

    pub(crate) fn in_use(message: impl Into<String>) -> Self {
        Self::new("ResourceInUseException", message)
    }

    pub(crate) fn limit(message: impl Into<String>) -> Self {
        Self::new("LimitExceededException", message)
    }

    pub(crate) fn rate(message: impl Into<String>) -> Self {
        Self::new("ProvisionedThroughputExceededException", message)
    }

    pub(crate) fn expired_iterator(message: impl Into<String>) -> Self {
        Self::new("ExpiredIteratorException", message)
    }

    pub(crate) fn expired_token(message: impl Into<String>) -> Self {
        Self::new("ExpiredNextTokenException", message)
    }

    pub(crate) fn dry_run() -> Self {
        Self::new(
            "DryRunOperationException",
            "Request would have succeeded, but DryRun flag is set.",
        )
    }

    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::new("UnsupportedOperationException", message)
    }

    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }

    /// What the body of the answer says.
    pub(crate) fn fields(&self) -> Fields {
        // The service spells it so for this one error.
        let key = if self.name == "SerializationException" {
            "Message"
        } else {
            "message"
        };
        Fields::new()
            .with("__type", self.name)
            .with_some(key, self.message.as_deref())
    }

    /// The error for a request of `account`.
    pub(crate) fn of(error: StoreError, account: &str) -> Self {
        match error {
            StoreError::StreamNotFound(stream) => {
                Self::not_found(format!("Stream {stream} under account {account} not found."))
            }
            StoreError::StreamExists(stream) => {
                Self::in_use(format!("Stream {stream} under account {account} already exists."))
            }
            StoreError::ShardNotFound { stream, shard } => Self::not_found(format!(
                "Could not find shard {shard} in stream {stream} under account {account}."
            )),
            StoreError::ConsumerExists { stream, consumer } => Self::in_use(format!(
                "Consumer {consumer} under stream {stream} already exists for account {account}."
            )),
            StoreError::ConsumerNotFound { stream, consumer } => Self::not_found(format!(
                "Consumer {consumer} under stream {stream} not found for account {account}."
            )),
            StoreError::ConsumerLimit { stream, limit } => Self::limit(format!(
                "Stream {stream} under account {account} has {limit} registered consumers, which is the limit, or that \
                 many are being created."
            )),
            StoreError::RateExceeded { stream, shard } => Self::rate(format!(
                "Rate exceeded for shard {shard} in stream {stream} under account {account}."
            )),
            StoreError::StreamBusy { stream, status } => Self::in_use(format!(
                "Stream {stream} under account {account} not ACTIVE, instead in state {status}"
            )),
            StoreError::ShardClosed { stream, shard } => Self::invalid_argument(format!(
                "Shard {shard} in stream {stream} under account {account} has already been merged or split, and thus is \
                 not eligible for merging or splitting."
            )),
            StoreError::NotAdjacent {
                stream,
                shard,
                adjacent,
            } => Self::invalid_argument(format!(
                "Shards {shard} and {adjacent} in stream {stream} under account {account} are not an adjacent pair of \
                 shards eligible for merging"
            )),
            StoreError::SplitPoint {
                stream,
                shard,
                at,
                range,
            } => Self::invalid_argument(format!(
                "NewStartingHashKey {at} used in SplitShard() on shard {shard} in stream {stream} under account \
                 {account} is not both greater than one plus the shard's StartingHashKey {} and less than the shard's \
                 EndingHashKey {}.",
                range.start, range.end
            )),
            // The service has no such errors: these names are ours.
            error @ StoreError::ProducerUnknown { .. } => Self::new("UnknownProducerException", error.to_string()),
            error @ StoreError::ProducerFenced { .. } => Self::new("ProducerFencedException", error.to_string()),
            error @ StoreError::SequenceGap { .. } => Self::new("OutOfSequenceException", error.to_string()),
            error @ StoreError::SequenceForgotten { .. } => Self::new("SequenceForgottenException", error.to_string()),
            error @ StoreError::SequenceReused { .. } => Self::new("SequenceReusedException", error.to_string()),
            other => match other.kind() {
                ErrorKind::User => Self::invalid_argument(other.to_string()),
                ErrorKind::Conflict | ErrorKind::Fenced => Self::in_use(other.to_string()),
                // The client retries these; the operator finds the reason in the log.
                ErrorKind::Retry | ErrorKind::Corrupt | ErrorKind::Internal => {
                    // Of what meets every request the store itself tells, and not for each.
                    if !matches!(
                        other,
                        StoreError::NoSpace { .. } | StoreError::StoreFull { .. } | StoreError::Poisoned { .. }
                    ) {
                        tracing::error!(error = %other, "a Kinesis request failed");
                    }
                    Self::internal()
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tracing::span;

    /// Counts lines.
    #[derive(Default)]
    struct Lines(Arc<AtomicUsize>);

    impl tracing::Subscriber for Lines {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }

        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

        fn event(&self, _: &tracing::Event<'_>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }

        fn enter(&self, _: &span::Id) {}

        fn exit(&self, _: &span::Id) {}
    }

    #[test]
    fn refusals_that_the_store_tells_of_have_no_line_for_each_request() {
        let lines = Lines::default();
        let count = Arc::clone(&lines.0);
        tracing::subscriber::with_default(lines, || {
            let full = StoreError::NoSpace {
                directory: "/data/store".to_owned(),
            };
            let poisoned = StoreError::Poisoned {
                reason: "input/output error".to_owned(),
            };
            for error in [full, poisoned] {
                assert_eq!(ApiError::of(error, "000000000000"), ApiError::internal());
            }
            assert_eq!(count.load(Ordering::SeqCst), 0);
            assert_eq!(ApiError::of(StoreError::Closed, "000000000000"), ApiError::internal());
            assert_eq!(count.load(Ordering::SeqCst), 1);
        });
    }
}
