//! `tail`: the records of a stream, as they come.
//!
//! ```text
//!   shards ─▶ lanes: one GetRecords in flight each ─▶ merge by arrival ─▶ filter ─▶ printer ─▶ standard output
//!     ▲                        │ end of a shard
//!     └────── lineage ◀────────┘  children begin when all their parents are printed
//! ```
//! Records of a shard are printed in their order. Those of different shards are merged by their arrival: exactly while
//! catching up, and as they come at the tail.
//!
//! | file | |
//! |---|---|
//! | `lineage.rs` | which shards are read, from where, and when |
//! | `cursor.rs` | the calls that read a shard |
//! | `merge.rs` | the order in which records are printed |
//! | `printer.rs`, `json_text.rs` | how they are printed |

mod cursor;
mod json_text;
mod lineage;
mod merge;
mod printer;

use super::Endpoint;
use super::failure::{Failure, Reader, note, written};
use super::values::{From, parse_from, parse_shard};
use crate::cli::kinesis::{KinesisClient, KinesisError, Shard};
use clap::{ArgGroup, Args};
use cursor::{Cursor, Page, Start};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use lineage::Lineage;
use merge::Merge;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use printer::{Form, Printer};
use std::collections::BTreeMap;
use std::io::{BufWriter, IsTerminal as _, Stdout, Write as _};
use std::os::fd::AsFd as _;
use std::time::Duration;
use tidemill_engine::time::{SystemTime, TimeSource as _};
use tokio::sync::watch;
use tokio::time::Instant;

/// The time between two looks at a shard that has nothing new: the service allows five a second.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// Looks a second at all shards together; with very many shards each is looked at less often.
const POLLS_PER_SECOND_MAX: u32 = 200;
/// Requests in flight.
const IN_FLIGHT_MAX: usize = 16;
/// The delay before a request that failed is sent again; it doubles.
const RETRY_DELAY: Duration = Duration::from_millis(200);
/// The longest such delay.
const RETRY_DELAY_MAX: Duration = Duration::from_secs(5);
/// How often in a row a shard is asked in vain, unless the service only asks for patience.
const ATTEMPTS_MAX: u32 = 12;
/// How often a closed pipe is looked for while nothing is printed.
const PIPE_INTERVAL: Duration = Duration::from_millis(250);

/// The arguments of `tail`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("form").args(["json", "raw", "pretty"]))]
#[command(
    after_help = "It follows all shards, and their children when they are split or merged. It ends with Ctrl-C, when its reader
goes away, after --limit records, or when all shards have ended.

Without an option for the form, the data of each record is a line; on a terminal JSON is spread over several lines, in
colours (not with NO_COLOR set), and control characters are shown and not obeyed.

Where to start (--from): trim-horizon (the oldest record), latest, how long ago (30s, 5m, 2h, 1d), a time
(2026-11-23T08:00:00Z; UTC without an offset), or a sequence number (with --shard, where there are several).

Examples:
  tidemill stream tail clicks                                  what comes from now on
  tidemill stream tail clicks --from 5m --key ann --verbose
  tidemill stream tail clicks --no-follow --json | jq -r .data  everything there is, then end
  tidemill stream tail clicks --from trim-horizon --limit 10 --pretty"
)]
pub(in crate::cli) struct TailArguments {
    /// The stream.
    name: String,
    /// Where to start [default: latest; with --no-follow trim-horizon].
    #[arg(long, value_name = "PLACE", value_parser = parse_from)]
    from: Option<From>,
    /// Only this shard, by its id or its number, without its children; can be repeated.
    #[arg(long = "shard", value_name = "SHARD", value_parser = parse_shard)]
    shards: Vec<String>,
    /// Only records with this partition key; can be repeated.
    #[arg(long = "key", value_name = "KEY")]
    keys: Vec<String>,
    /// End after this number of records.
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Wait for more records at the end; the default.
    #[arg(long, short, conflicts_with = "no_follow")]
    follow: bool,
    /// End when everything there is has been printed.
    #[arg(long)]
    no_follow: bool,
    /// Print each record as a JSON object on a line: shard_id, sequence_number, arrival, partition_key, and data (or
    /// data_base64 when it is not UTF-8).
    #[arg(long)]
    json: bool,
    /// Print the bytes of the data and nothing else, not even line feeds.
    #[arg(long, conflicts_with = "verbose")]
    raw: bool,
    /// Spread JSON over several lines also when standard output is no terminal.
    #[arg(long)]
    pretty: bool,
    /// Print shard, sequence number, arrival and key in front of each record.
    #[arg(long, short, conflicts_with = "json")]
    verbose: bool,
    #[command(flatten)]
    endpoint: Endpoint,
}

/// A record to print.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Its shard.
    shard: String,
    /// Its place in it.
    sequence: String,
    /// When it was stored, milliseconds since 1970.
    arrival_ms: Option<i64>,
    /// Its partition key.
    key: String,
    /// Its data.
    data: Vec<u8>,
}

/// Prints records until somebody has enough.
pub(super) async fn tail(arguments: TailArguments, stop: watch::Receiver<bool>) -> Result<(), Failure> {
    let client = arguments.endpoint.client()?;
    let from = match (arguments.from.clone(), arguments.no_follow) {
        (Some(From::Latest), true) => {
            return Err(Failure::Refused(
                "--no-follow from latest would print nothing; start elsewhere, for example with --from 5m".into(),
            ));
        }
        (Some(from), _) => from,
        (None, true) => From::TrimHorizon,
        (None, false) => From::Latest,
    };
    let now_ms = SystemTime::default().wall_ms();
    let shards = client.shards(&arguments.name).await?;
    let lineage = Lineage::new(&arguments.name, shards, from, &arguments.shards, now_ms).map_err(Failure::Refused)?;
    let is_terminal = std::io::stdout().is_terminal();
    let printer = Printer {
        form: match (arguments.json, arguments.raw, arguments.pretty || is_terminal) {
            (true, _, _) => Form::Json,
            (_, true, _) => Form::Raw,
            (_, _, true) => Form::Pretty,
            _ => Form::Lines,
        },
        is_verbose: arguments.verbose,
        is_terminal,
        has_colour: is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
    };
    let mut tailing = Tailing {
        client,
        arguments: &arguments,
        lineage,
        merge: Merge::default(),
        idle: BTreeMap::new(),
        printer,
        out: BufWriter::with_capacity(64 << 10, std::io::stdout()),
        printed: 0,
        started_ms: now_ms,
        is_troubled: false,
    };
    tailing.run(stop).await
}

/// A shard that waits for its next look.
struct Idle {
    cursor: Cursor,
    due: Instant,
    /// Failures in a row.
    attempts: u32,
}

struct Tailing<'a> {
    client: KinesisClient,
    arguments: &'a TailArguments,
    lineage: Lineage,
    merge: Merge,
    idle: BTreeMap<String, Idle>,
    printer: Printer,
    out: BufWriter<Stdout>,
    printed: u64,
    started_ms: i64,
    /// A failure has been told, and no success yet.
    is_troubled: bool,
}

/// What comes after printing.
enum Next {
    Continue,
    Enough,
}

impl Tailing<'_> {
    async fn run(&mut self, mut stop: watch::Receiver<bool>) -> Result<(), Failure> {
        let mut in_flight = FuturesUnordered::new();
        let starts = self.lineage.begin();
        self.start(starts);
        loop {
            if let Next::Enough = self.print()? {
                return Ok(());
            }
            for ended in self.merge.take_ended() {
                let shards = self.shards().await?;
                let starts = self.lineage.end(&ended, shards);
                if !self.arguments.shards.is_empty() && !self.lineage.children(&ended).is_empty() {
                    let children = self.lineage.children(&ended).join(" and ");
                    note(format_args!("note: {ended} has ended; its records go on in {children}"));
                }
                self.start(starts);
            }
            if self.merge.is_empty() || (self.arguments.no_follow && self.merge.is_at_tip()) {
                // Children that have just begun are not at their tip, so they are read first.
                return Ok(());
            }
            let now = Instant::now();
            let lanes = self.idle.len() + in_flight.len();
            for shard in self.due(now, IN_FLIGHT_MAX.saturating_sub(in_flight.len())) {
                if let Some(idle) = self.idle.remove(&shard) {
                    let client = self.client.clone();
                    in_flight.push(async move {
                        let Idle {
                            mut cursor, attempts, ..
                        } = idle;
                        let read = cursor.read(&client, lanes).await;
                        (cursor, attempts, read)
                    });
                }
            }
            let wake = self.wake(now, in_flight.len());
            tokio::select! {
                _ = stop.wait_for(|&stop| stop) => return Ok(()),
                Some((cursor, attempts, read)) = in_flight.next() => self.take(cursor, attempts, read, lanes)?,
                () = tokio::time::sleep_until(wake) => {
                    if is_reader_gone(self.out.get_ref()) {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// All shards that there are now; a server that is away is waited for.
    async fn shards(&self) -> Result<Vec<Shard>, KinesisError> {
        let mut attempts = 0;
        loop {
            match self.client.shards(&self.arguments.name).await {
                Err(error) if error.is_transient() && attempts < ATTEMPTS_MAX => {
                    tokio::time::sleep(retry_delay(attempts)).await;
                    attempts += 1;
                }
                other => return other,
            }
        }
    }

    /// Takes shards in.
    fn start(&mut self, starts: Vec<(String, Start)>) {
        for (shard, start) in starts {
            self.merge.add(&shard);
            let cursor = Cursor::new(&self.arguments.name, &shard, start, self.started_ms);
            let due = Instant::now();
            self.idle.insert(
                shard,
                Idle {
                    cursor,
                    due,
                    attempts: 0,
                },
            );
        }
    }

    /// The shards to look at now: those that are due and whose records are printed.
    fn due(&self, now: Instant, room: usize) -> Vec<String> {
        if self.merge.is_full() {
            return Vec::new();
        }
        let mut due: Vec<(&String, &Idle)> = self
            .idle
            .iter()
            .filter(|(shard, idle)| idle.due <= now && self.merge.wants(shard))
            .collect();
        due.sort_by_key(|(_, idle)| idle.due);
        due.into_iter().take(room).map(|(shard, _)| shard.clone()).collect()
    }

    /// When there is something to do, if nothing comes before.
    fn wake(&self, now: Instant, in_flight: usize) -> Instant {
        let latest = now + PIPE_INTERVAL;
        if in_flight >= IN_FLIGHT_MAX {
            return latest;
        }
        self.idle
            .iter()
            .filter(|(shard, _)| self.merge.wants(shard))
            .map(|(_, idle)| idle.due)
            .min()
            .map_or(latest, |due| due.min(latest))
    }

    /// Takes the outcome of a look at a shard.
    fn take(
        &mut self,
        mut cursor: Cursor,
        attempts: u32,
        read: Result<Page, KinesisError>,
        lanes: usize,
    ) -> Result<(), Failure> {
        let now = Instant::now();
        let shard = cursor.shard().to_owned();
        match read {
            Ok(page) => {
                self.is_troubled = false;
                if page.is_end {
                    self.merge.end(&shard, page.records);
                    return Ok(());
                }
                let interval = POLL_INTERVAL.max(Duration::from_secs(1) * lanes as u32 / POLLS_PER_SECOND_MAX);
                let due = if page.is_behind { now } else { now + interval };
                self.merge.fill(&shard, page.records, page.is_behind);
                self.idle.insert(
                    shard,
                    Idle {
                        cursor,
                        due,
                        attempts: 0,
                    },
                );
                Ok(())
            }
            Err(error) if error.is("ExpiredIteratorException") && attempts < ATTEMPTS_MAX => {
                cursor.renew();
                self.idle.insert(
                    shard,
                    Idle {
                        cursor,
                        due: now,
                        attempts: attempts + 1,
                    },
                );
                Ok(())
            }
            Err(error) if error.is_transient() => {
                let is_patience = matches!(&error, KinesisError::Refused(refused) if refused.status < 500);
                if attempts >= ATTEMPTS_MAX && !is_patience {
                    return Err(Failure::from(error).after(format!("{shard} was asked {ATTEMPTS_MAX} times")));
                }
                if !is_patience && !self.is_troubled {
                    self.is_troubled = true;
                    note(format_args!("note: {error}\nnote: trying again"));
                }
                // The others go on meanwhile.
                self.merge.leave_out(&shard);
                let delay = retry_delay(attempts);
                self.idle.insert(
                    shard,
                    Idle {
                        cursor,
                        due: now + delay,
                        attempts: attempts + 1,
                    },
                );
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Prints what is ready.
    fn print(&mut self) -> Result<Next, Failure> {
        while let Some(record) = self.merge.next() {
            if !self.arguments.keys.is_empty() && !self.arguments.keys.contains(&record.key) {
                continue;
            }
            if written(self.printer.print(&mut self.out, &record))? == Reader::Gone {
                return Ok(Next::Enough);
            }
            self.printed += 1;
            if self.arguments.limit == Some(self.printed) {
                let _ = written(self.out.flush())?;
                return Ok(Next::Enough);
            }
        }
        Ok(match written(self.out.flush())? {
            Reader::Reads => Next::Continue,
            Reader::Gone => Next::Enough,
        })
    }
}

/// The wait after so many failures in a row.
fn retry_delay(attempts: u32) -> Duration {
    (RETRY_DELAY * 2u32.pow(attempts.min(10))).min(RETRY_DELAY_MAX)
}

/// Says whether the other end of a pipe is closed; nothing needs to be written for that.
fn is_reader_gone(out: &Stdout) -> bool {
    let mut looked_at = [PollFd::new(out.as_fd(), PollFlags::empty())];
    match poll(&mut looked_at, PollTimeout::ZERO) {
        Ok(_) => looked_at[0]
            .revents()
            .is_some_and(|events| events.contains(PollFlags::POLLERR)),
        Err(_) => false,
    }
}
