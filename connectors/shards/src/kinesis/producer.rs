//! The headers by which a producer numbers its requests. The service has nothing like them; a client that does not send
//! them notices nothing.

use super::error::ApiError;
use super::validate;
use crate::access::{PutEntry, PutResult};
use crate::error::StoreError;
use crate::ids::StreamName;
use crate::limits::PRODUCER_ID_CHARS_MAX;
use crate::producers::{Producer, ProducerId, PutOnce, PutOnceOutcome};
use crate::store::ShardStore;

/// Header with the producer's id.
pub const PRODUCER_ID_HEADER: &str = "x-tidemill-producer-id";
/// Header with the producer's epoch.
pub const PRODUCER_EPOCH_HEADER: &str = "x-tidemill-producer-epoch";
/// Header with the sequence of the request.
pub const PRODUCER_SEQUENCE_HEADER: &str = "x-tidemill-producer-sequence";
/// Header of the answer: `stored`, `repeated` or `nothing`; see [`crate::PutOnceOutcome`].
pub const PRODUCER_OUTCOME_HEADER: &str = "x-tidemill-producer-outcome";

/// The headers as they came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProducerHeaders {
    /// Value of [`PRODUCER_ID_HEADER`].
    pub id: Option<String>,
    /// Value of [`PRODUCER_EPOCH_HEADER`].
    pub epoch: Option<String>,
    /// Value of [`PRODUCER_SEQUENCE_HEADER`].
    pub sequence: Option<String>,
}

impl ProducerHeaders {
    /// Reads them: all three or none.
    pub(super) fn read(&self, operation: &str) -> Result<Option<Producer>, ApiError> {
        let all = [
            (PRODUCER_ID_HEADER, &self.id),
            (PRODUCER_EPOCH_HEADER, &self.epoch),
            (PRODUCER_SEQUENCE_HEADER, &self.sequence),
        ];
        if all.iter().all(|(_, value)| value.is_none()) {
            return Ok(None);
        }
        if !matches!(operation, "PutRecord" | "PutRecords") {
            return Err(ApiError::validation(format!(
                "The headers x-tidemill-producer-id, -epoch and -sequence belong to PutRecord and PutRecords, not to \
                 {operation}: leave them out."
            )));
        }
        let mut errors: Vec<String> = all
            .iter()
            .filter(|(_, value)| value.is_none())
            .map(|(name, _)| validate::missing(name))
            .collect();
        let id = self.id.as_ref().and_then(|id| {
            let read = ProducerId::new(id.as_str());
            if read.is_err() {
                let constraint = format!("[a-zA-Z0-9_.-]{{1,{PRODUCER_ID_CHARS_MAX}}}");
                errors.push(wrong(id, PRODUCER_ID_HEADER, &constraint));
            }
            read.ok()
        });
        let mut number = |name, value: &Option<String>| {
            let text = value.as_ref()?;
            // Rust would take a plus sign.
            let read = text.parse::<u64>().ok().filter(|_| !text.starts_with('+'));
            if read.is_none() {
                errors.push(wrong(text, name, "[0, 18446744073709551615]"));
            }
            read
        };
        let epoch = number(PRODUCER_EPOCH_HEADER, &self.epoch);
        let sequence = number(PRODUCER_SEQUENCE_HEADER, &self.sequence);
        validate::outcome(errors)?;
        match (id, epoch, sequence) {
            (Some(id), Some(epoch), Some(sequence)) => Ok(Some(Producer { id, epoch, sequence })),
            _ => Err(ApiError::internal()),
        }
    }
}

fn wrong(value: &str, name: &str, constraint: &str) -> String {
    format!("Value '{value}' at '{name}' failed to satisfy constraint: Member must satisfy: {constraint}")
}

/// How a put is numbered, and what became of that.
#[derive(Debug, Default)]
pub(super) struct Numbering {
    producer: Option<Producer>,
    outcome: Option<PutOnceOutcome>,
}

impl Numbering {
    pub(super) fn new(producer: Option<Producer>) -> Self {
        Self {
            producer,
            outcome: None,
        }
    }

    /// Stores records, once when they are numbered.
    pub(super) async fn put(
        &mut self,
        store: &ShardStore,
        stream: &StreamName,
        entries: Vec<PutEntry>,
    ) -> Result<Vec<PutResult>, StoreError> {
        let Some(producer) = self.producer.take() else {
            return store.put_records_within_capacity(stream, entries).await;
        };
        let PutOnce { outcome, results } = store
            .put_records_once_within_capacity(stream, producer, entries)
            .await?;
        self.outcome = Some(outcome);
        Ok(results)
    }

    /// What a numbered put did; `None` when there was none, or it was refused.
    pub(super) fn outcome(&self) -> Option<PutOnceOutcome> {
        self.outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(id: Option<&str>, epoch: Option<&str>, sequence: Option<&str>) -> ProducerHeaders {
        ProducerHeaders {
            id: id.map(str::to_owned),
            epoch: epoch.map(str::to_owned),
            sequence: sequence.map(str::to_owned),
        }
    }

    fn message(headers: &ProducerHeaders) -> String {
        let error = headers.read("PutRecords").unwrap_err();
        assert_eq!((error.status(), error.name()), (400, "ValidationException"));
        error.message().unwrap().to_owned()
    }

    #[test]
    fn all_three_or_none_and_each_must_be_sound() {
        assert_eq!(headers(None, None, None).read("ListStreams").unwrap(), None);
        let all = headers(Some("p-1"), Some("18446744073709551615"), Some("0"));
        let producer = all.read("PutRecord").unwrap().unwrap();
        assert_eq!(
            (producer.id.as_str(), producer.epoch, producer.sequence),
            ("p-1", u64::MAX, 0)
        );
        assert_eq!(all.read("GetRecords").unwrap_err().name(), "ValidationException");
        let said = message(&headers(Some("p"), None, None));
        assert!(
            said.contains("2 validation errors") && said.contains(PRODUCER_EPOCH_HEADER),
            "{said}"
        );
        assert!(said.contains(PRODUCER_SEQUENCE_HEADER), "{said}");
        assert!(message(&headers(None, Some("0"), Some("0"))).contains(PRODUCER_ID_HEADER));
        for bad in ["", "a b", "a/b", "é", "p,p"] {
            assert!(
                message(&headers(Some(bad), Some("0"), Some("0"))).contains(PRODUCER_ID_HEADER),
                "{bad:?}"
            );
        }
        for bad in ["", "-1", "+1", " 1", "1.0", "18446744073709551616", "x", "0,1"] {
            assert!(
                message(&headers(Some("p"), Some(bad), Some("0"))).contains(PRODUCER_EPOCH_HEADER),
                "{bad:?}"
            );
            assert!(
                message(&headers(Some("p"), Some("0"), Some(bad))).contains(PRODUCER_SEQUENCE_HEADER),
                "{bad:?}"
            );
        }
    }
}
