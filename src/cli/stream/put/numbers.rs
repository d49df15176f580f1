//! How the requests of one run are numbered, so that a request that is repeated is stored once. Servers other than ours do
//! not look at it.

use tidemill_shards::kinesis::{PRODUCER_EPOCH_HEADER, PRODUCER_ID_HEADER, PRODUCER_SEQUENCE_HEADER};

/// The number of the next request.
#[derive(Debug)]
pub(super) struct Numbers {
    /// Of this run alone.
    id: String,
    epoch: u64,
    sequence: u64,
    /// The server has said that it looks at the numbers.
    pub(super) is_understood: bool,
}

impl Numbers {
    /// Begins to count.
    ///
    /// # Errors
    /// When there is no entropy for an id.
    pub(super) fn new() -> Result<Self, String> {
        let number = || getrandom::u64().map_err(|error| format!("no entropy for a producer's id: {error}"));
        Ok(Self {
            id: format!("tidemill-stream-put-{:016x}{:016x}", number()?, number()?),
            epoch: 0,
            sequence: 0,
            is_understood: false,
        })
    }

    /// The headers of the next request.
    pub(super) fn headers(&self) -> [(&'static str, String); 3] {
        [
            (PRODUCER_ID_HEADER, self.id.clone()),
            (PRODUCER_EPOCH_HEADER, self.epoch.to_string()),
            (PRODUCER_SEQUENCE_HEADER, self.sequence.to_string()),
        ]
    }

    /// The request was stored.
    pub(super) fn next(&mut self) {
        self.sequence += 1;
    }

    /// The server does not know this run any more.
    pub(super) fn begin_anew(&mut self) {
        self.epoch += 1;
        self.sequence = 0;
    }
}
