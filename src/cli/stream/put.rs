//! `put`: standard input to records.
//!
//! ```text
//!   standard input ─▶ reader (a thread): lines, keys, checks ─▶ queue ─▶ batches, one in flight ─▶ PutRecords
//!                                                                 ▲                                  │
//!                                                                 └── records that were refused ◀────┘
//! ```
//! One request is in flight at a time, and (unless told otherwise) a request has at most one record of a key: so a record
//! that is refused is sent again before any later one of its key. A request that gets no answer is repeated as it was, under
//! the same number.
//!
//! | file | |
//! |---|---|
//! | `input.rs` | from bytes to records |
//! | `key.rs` | where keys come from |
//! | `numbers.rs` | how requests are numbered, so that a repeated one is stored once |
//! | `queue.rs` | what is sent next |
//! | `pace.rs` | not faster than asked |

mod input;
mod key;
mod numbers;
mod pace;
mod queue;

use super::Endpoint;
use super::failure::{Failure, note, print};
use super::values::parse_hash_key;
use crate::cli::kinesis::KinesisClient;
use crate::rust_job::parse_duration;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::Args;
use input::{Form, Input, Limits, Read};
use key::KeyChoice;
use numbers::Numbers;
use pace::Pace;
use queue::{Entry, Order, Queue};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// Chunks of input that wait.
const CHUNKS_MAX: usize = 8;
/// Requests in a row of which nothing was stored.
const ATTEMPTS_MAX: u32 = 30;
/// The delay before a repetition; it doubles with each request of which nothing was stored.
const RETRY_DELAY: Duration = Duration::from_millis(50);
/// The longest such delay.
const RETRY_DELAY_MAX: Duration = Duration::from_secs(3);
/// A run that took longer than this, with requests that could not be filled, is told what would be faster.
const HINT_AFTER: Duration = Duration::from_secs(3);
/// What a stream's records may have, where the service does not say it.
const RECORD_KIB_DEFAULT: u64 = 1_024;

/// The arguments of `put`.
#[derive(Debug, Args)]
#[command(
    after_help = "Every line is a record, also an empty one; the line feed at its end is not part of it. Progress and a
summary go to standard error. At the first line that cannot be a record it stops: what came before is stored, nothing
behind it.

Examples:
  echo '{\"page\":\"/\",\"user\":\"ann\"}' | tidemill stream put clicks
  tidemill stream put clicks --key-field user.id < clicks.jsonl      key from each line's JSON
  seq 1000000 | tidemill stream put numbers --key all --unordered    one key, full requests
  tidemill stream put images --raw --key cat.jpg < cat.jpg           standard input as one record
  tidemill stream put clicks --rate 100 < clicks.jsonl               100 records a second"
)]
pub(in crate::cli) struct PutArguments {
    /// The stream.
    name: String,
    /// The partition key of all records [default: a random one for each].
    #[arg(long, value_name = "KEY", conflicts_with = "key_field")]
    key: Option<String>,
    /// The field of each record's JSON that is its partition key; dots lead into objects.
    #[arg(long, value_name = "FIELD")]
    key_field: Option<String>,
    /// The hash key of all records, which decides on the shard instead of the partition key.
    #[arg(long, value_name = "N", value_parser = parse_hash_key)]
    hash_key: Option<u128>,
    /// All of standard input is one record.
    #[arg(long, conflicts_with = "base64")]
    raw: bool,
    /// Each line is base64.
    #[arg(long)]
    base64: bool,
    /// Records a second, at most.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Fill requests with several records of one key: much faster where few keys repeat, but a record that the service
    /// refuses at first can land behind later ones of its key.
    #[arg(long)]
    unordered: bool,
    /// Print progress this often, like 1s.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    progress: Option<Duration>,
    /// Print the summary as JSON on standard output.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    endpoint: Endpoint,
}

/// Whether a request was sent before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    First,
    Repeated,
}

/// What has happened so far.
#[derive(Debug, Default)]
struct Counts {
    records: u64,
    bytes: u64,
    requests: u64,
    /// Records that were sent again because the service refused them.
    retried: u64,
    /// Requests that were sent again because no answer came.
    unanswered: u64,
    /// Records that waited only because another of their key was on its way.
    held: u64,
}

/// Puts standard input into a stream.
pub(super) async fn put(arguments: PutArguments, stop: watch::Receiver<bool>) -> Result<(), Failure> {
    let client = arguments.endpoint.client()?;
    // A stream that does not exist, or a server that is not there, is told before anything is read.
    let summary = client.summary(&arguments.name).await?;
    let record_kib = summary.get("MaxRecordSizeInKiB").and_then(Value::as_u64);
    let limits = Limits {
        record_bytes: usize::try_from(record_kib.unwrap_or(RECORD_KIB_DEFAULT) * 1_024).unwrap_or(usize::MAX),
    };
    let form = match (arguments.raw, arguments.base64) {
        (true, _) => Form::Whole,
        (_, true) => Form::Base64Lines,
        _ => Form::Lines,
    };
    let keys = KeyChoice::new(arguments.key.clone(), arguments.key_field.as_deref()).map_err(Failure::Refused)?;
    let (chunks_in, chunks) = mpsc::channel(CHUNKS_MAX);
    std::thread::Builder::new()
        .name("stdin".into())
        .spawn(move || Input::new(std::io::stdin().lock(), form, keys, limits).send_to(&chunks_in))
        .map_err(|error| Failure::Failed(format!("cannot start: {error}")))?;

    let mut putting = Putting {
        client,
        arguments: &arguments,
        numbers: Numbers::new().map_err(Failure::Failed)?,
        unanswered: None,
        queue: Queue::new(if arguments.unordered { Order::None } else { Order::Key }),
        pace: arguments.rate.map(Pace::new),
        started: Instant::now(),
        counts: Counts::default(),
        told: Duration::ZERO,
        is_troubled: false,
        failures: 0,
    };
    let result = putting.run(chunks, stop).await;
    putting.tell_summary()?;
    result
}

struct Putting<'a> {
    client: KinesisClient,
    arguments: &'a PutArguments,
    numbers: Numbers,
    /// A request that got no answer: it comes again as it was.
    unanswered: Option<Vec<Entry>>,
    queue: Queue,
    pace: Option<Pace>,
    started: Instant,
    counts: Counts,
    /// When progress was told last.
    told: Duration,
    /// A failure has been told, and no success yet.
    is_troubled: bool,
    /// Requests in a row of which nothing was stored.
    failures: u32,
}

impl Putting<'_> {
    async fn run(
        &mut self,
        mut chunks: mpsc::Receiver<Result<Vec<Entry>, Read>>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), Failure> {
        let mut end: Option<Result<(), Failure>> = None;
        loop {
            // Whatever has arrived goes into the next request, and a lone line goes at once.
            while end.is_none() && self.queue.has_room() {
                let chunk = if self.queue.is_empty() && self.unanswered.is_none() {
                    tokio::select! {
                        _ = stop.wait_for(|&stop| stop) => return Err(self.interrupted()),
                        chunk = chunks.recv() => chunk,
                    }
                } else {
                    match chunks.try_recv() {
                        Ok(chunk) => Some(chunk),
                        Err(mpsc::error::TryRecvError::Empty) => break,
                        Err(mpsc::error::TryRecvError::Disconnected) => None,
                    }
                };
                match chunk {
                    Some(Ok(entries)) => self.queue.extend(entries),
                    Some(Err(read)) => end = Some(Err(read.into_failure())),
                    None => end = Some(Ok(())),
                }
            }
            if self.queue.is_empty() && self.unanswered.is_none() {
                return end.unwrap_or(Ok(()));
            }
            let was_refused = match self.unanswered.take() {
                Some(entries) => self.send(entries, Turn::Repeated).await?,
                None => {
                    let room = self.room(&mut stop).await?;
                    let batch = self.queue.next(room);
                    self.counts.held += u64::from(batch.is_held);
                    self.send(batch.entries, Turn::First).await?
                }
            };
            if was_refused {
                let delay = (RETRY_DELAY * 2u32.pow(self.failures.min(10))).min(RETRY_DELAY_MAX);
                tokio::select! {
                    _ = stop.wait_for(|&stop| stop) => return Err(self.interrupted()),
                    () = tokio::time::sleep(delay) => {}
                }
            }
            self.tell_progress();
            if *stop.borrow() {
                return Err(self.interrupted());
            }
        }
    }

    /// Waits until records may be sent, and says how many.
    async fn room(&mut self, stop: &mut watch::Receiver<bool>) -> Result<usize, Failure> {
        let Some(pace) = &mut self.pace else {
            return Ok(queue::PUT_RECORDS_MAX);
        };
        loop {
            match pace.room(self.started.elapsed()) {
                Ok(room) => return Ok(room),
                Err(wait) => tokio::select! {
                    _ = stop.wait_for(|&stop| stop) => break,
                    () = tokio::time::sleep(wait) => {}
                },
            }
        }
        Err(self.interrupted())
    }

    /// Sends a request; says whether anything of it was refused. That goes back into the queue, or all of it waits to be
    /// repeated.
    async fn send(&mut self, batch: Vec<Entry>, turn: Turn) -> Result<bool, Failure> {
        let body = json!({
            "StreamName": self.arguments.name,
            "Records": batch.iter().map(|entry| record(entry, self.arguments.hash_key)).collect::<Vec<Value>>(),
        });
        let place = |entries: &[Entry]| match entries {
            [only] => only.place.to_string(),
            [first, .., last] => format!("{} to {}", first.place, last.place),
            [] => String::new(),
        };
        let answer = self
            .client
            .call_with("PutRecords", &body, &self.numbers.headers())
            .await;
        self.counts.requests += 1;
        let answer = match answer {
            Ok(answer) => answer,
            // It was forgotten while the input was silent. What was sent before has been answered, so nothing is in doubt.
            Err(error) if turn == Turn::First && error.is("UnknownProducerException") => {
                self.numbers.begin_anew();
                self.unanswered = Some(batch);
                return Ok(false);
            }
            Err(error) if error.is_transient() => {
                self.failures += 1;
                if self.failures >= ATTEMPTS_MAX {
                    let tried = format!("{}: tried {ATTEMPTS_MAX} times", place(&batch));
                    return Err(Failure::from(error).after(tried));
                }
                if !self.is_troubled {
                    self.is_troubled = true;
                    note(format_args!("note: {error}\nnote: trying again"));
                }
                self.counts.unanswered += 1;
                self.unanswered = Some(batch);
                return Ok(true);
            }
            Err(error) => return Err(Failure::from(error).after(place(&batch))),
        };
        self.numbers.is_understood |= answer.is_numbered;
        let results = answer.body.get("Records").and_then(Value::as_array);
        let results = results
            .filter(|results| results.len() == batch.len())
            .ok_or_else(|| self.client.incomplete("PutRecords", "Records"))?;
        self.is_troubled = false;
        let mut refused = Vec::new();
        let mut reason = None;
        for (entry, result) in batch.into_iter().zip(results) {
            let Some(code) = result.get("ErrorCode").and_then(Value::as_str) else {
                self.counts.records += 1;
                self.counts.bytes += (entry.data.len() + entry.key.len()) as u64;
                continue;
            };
            let message = result.get("ErrorMessage").and_then(Value::as_str).unwrap_or_default();
            reason.get_or_insert_with(|| format!("{}: {message} ({code})", entry.place));
            refused.push(entry);
        }
        self.failures = if refused.len() == results.len() {
            self.failures + 1
        } else {
            // What stored nothing has not used its number.
            self.numbers.next();
            0
        };
        if let Some(reason) = reason.filter(|_| self.failures >= ATTEMPTS_MAX) {
            return Err(Failure::Failed(format!(
                "{reason}; nothing was stored by {ATTEMPTS_MAX} requests in a row; check the server"
            )));
        }
        self.counts.retried += refused.len() as u64;
        let was_refused = !refused.is_empty();
        if let Some(pace) = &mut self.pace {
            pace.took(results.len() - refused.len());
        }
        self.queue.put_back(refused);
        Ok(was_refused)
    }

    fn interrupted(&self) -> Failure {
        Failure::Failed(format!(
            "interrupted: {} records are stored, the rest is not",
            self.counts.records
        ))
    }

    fn tell_progress(&mut self) {
        let elapsed = self.started.elapsed();
        if self
            .arguments
            .progress
            .is_some_and(|every| elapsed >= self.told + every)
        {
            self.told = elapsed;
            note(self.text());
        }
    }

    fn per_second(&self) -> f64 {
        self.counts.records as f64 / self.started.elapsed().as_secs_f64().max(1e-6)
    }

    fn text(&self) -> String {
        let counts = &self.counts;
        let mut text = format!(
            "{} records ({:.1} MB) in {:.1} s, {:.0} records/s, {} requests",
            counts.records,
            counts.bytes as f64 / 1e6,
            self.started.elapsed().as_secs_f64(),
            self.per_second(),
            counts.requests
        );
        if counts.retried > 0 {
            text.push_str(&format!(", {} records sent again", counts.retried));
        }
        text
    }

    fn tell_summary(&self) -> Result<(), Failure> {
        let counts = &self.counts;
        note(format_args!("stored {}", self.text()));
        if counts.unanswered > 0 && !self.numbers.is_understood {
            note(format_args!(
                "note: {} requests were sent again because no good answer came; some of their records may be stored twice",
                counts.unanswered
            ));
        }
        if counts.held * 2 > counts.requests && self.started.elapsed() > HINT_AFTER {
            note(
                "note: requests were not full, for they have one record of a key each, which keeps the order of keys; \
                 --unordered is faster",
            );
        }
        if !self.arguments.json {
            return Ok(());
        }
        print(json!({
            "records": counts.records, "bytes": counts.bytes, "seconds": self.started.elapsed().as_secs_f64(),
            "records_per_second": self.per_second(), "requests": counts.requests, "records_retried": counts.retried,
            "requests_unanswered": counts.unanswered,
        }))
    }
}

fn record(entry: &Entry, hash_key: Option<u128>) -> Value {
    let mut record = json!({ "Data": BASE64.encode(&entry.data), "PartitionKey": entry.key });
    if let Some(key) = hash_key {
        record["ExplicitHashKey"] = key.to_string().into();
    }
    record
}
