//! What the demonstration shows: a live table on a terminal, plain lines elsewhere, nothing when JSON is wanted.

use super::recount::Row;
use crate::timestamp;
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

/// The time between two plain lines.
const LINE_INTERVAL: Duration = Duration::from_secs(5);
/// Rows of results on a terminal.
const TABLE_ROWS: usize = 10;

/// What is shown.
pub(super) struct Snapshot<'a> {
    /// Since the clicks began.
    pub(super) elapsed: Duration,
    /// How long they flow.
    pub(super) duration: Duration,
    /// Clicks stored.
    pub(super) clicks: u64,
    /// The job, as REST shows it.
    pub(super) job: &'a Value,
    /// Results in the output stream.
    pub(super) results: u64,
    /// Those of the newest window.
    pub(super) newest: &'a BTreeSet<Row>,
    /// Now.
    pub(super) now_ms: i64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Terminal,
    Lines,
    Silent,
}

/// Where it is shown.
pub(super) struct Screen {
    mode: Mode,
    notes: Vec<String>,
    last_line: Option<Duration>,
    last_clicks: Option<(Duration, u64)>,
    rate: f64,
}

impl Screen {
    /// Takes standard output; it stays empty when it is for JSON.
    pub(super) fn new(json: bool) -> Self {
        let mode = match (json, std::io::stdout().is_terminal()) {
            (true, _) => Mode::Silent,
            (false, true) => Mode::Terminal,
            (false, false) => Mode::Lines,
        };
        Self {
            mode,
            notes: Vec::new(),
            last_line: None,
            last_clicks: None,
            rate: 0.0,
        }
    }

    /// Tells something that happened; it stays on the screen.
    pub(super) fn note(&mut self, text: &str) {
        self.notes.push(text.to_owned());
        if self.mode != Mode::Silent {
            write(&format!("{text}\n"));
        }
    }

    /// Shows how it stands.
    pub(super) fn show(&mut self, now: &Snapshot<'_>) {
        if let Some((at, clicks)) = self.last_clicks
            && now.elapsed > at
        {
            let rate = (now.clicks - clicks) as f64 / (now.elapsed - at).as_secs_f64();
            self.rate = if self.rate == 0.0 {
                rate
            } else {
                0.7 * self.rate + 0.3 * rate
            };
        }
        self.last_clicks = Some((now.elapsed, now.clicks));
        match self.mode {
            Mode::Silent => {}
            Mode::Lines => {
                if self.last_line.is_none_or(|last| now.elapsed >= last + LINE_INTERVAL) {
                    self.last_line = Some(now.elapsed);
                    write(&format!("{}\n", headline(now, self.rate)));
                }
            }
            Mode::Terminal => {
                // Home, everything again, and what was below is cleared: nothing flickers.
                let mut text = String::from("\x1b[H");
                for line in self
                    .notes
                    .iter()
                    .chain([&String::new(), &headline(now, self.rate), &String::new()])
                {
                    text.push_str(line);
                    text.push_str("\x1b[K\n");
                }
                for line in table(now.newest) {
                    text.push_str(&line);
                    text.push_str("\x1b[K\n");
                }
                if self.last_line.replace(now.elapsed).is_none() {
                    text.insert_str(0, "\x1b[2J");
                }
                text.push_str("\x1b[J");
                write(&text);
            }
        }
    }
}

fn headline(now: &Snapshot<'_>, rate: f64) -> String {
    let state = now.job["state"].as_str().unwrap_or("starting");
    let watermark = match now.job["watermark_ms"].as_i64() {
        Some(ms) => format!(
            "{} ({:.1} s behind)",
            &timestamp::format(ms)[11..19],
            (now.now_ms - ms) as f64 / 1_000.0
        ),
        None => "none yet".into(),
    };
    let checkpoint = match now.job["checkpoints"].as_array().and_then(|all| all.last()) {
        Some(last) => format!("{} ({} ms)", last["id"], last["duration_ms"]),
        None => "none yet".into(),
    };
    format!(
        "{:>3}/{} s  {state:<10}  clicks {} ({rate:.0}/s)  results {}  watermark {watermark}  checkpoint {checkpoint}",
        now.elapsed.as_secs(),
        now.duration.as_secs(),
        now.clicks,
        now.results,
    )
}

fn table(newest: &BTreeSet<Row>) -> Vec<String> {
    let Some(first) = newest.first() else {
        return vec!["no window has fired yet".into()];
    };
    let clock = |ms| timestamp::format(ms)[11..19].to_owned();
    let mut lines = vec![
        format!(
            "window {} to {}",
            clock(first.window_start_ms),
            clock(first.window_end_ms)
        ),
        format!("{:<16}{:>10}{:>10}{:>12}", "page", "clicks", "users", "revenue"),
    ];
    let mut rows: Vec<&Row> = newest.iter().collect();
    rows.sort_by_key(|row| (-row.clicks, &row.page));
    lines.extend(rows.iter().take(TABLE_ROWS).map(|row| {
        let revenue = format!("{}.{:02}", row.cents / 100, row.cents % 100);
        format!("{:<16}{:>10}{:>10}{revenue:>12}", row.page, row.clicks, row.users)
    }));
    lines
}

fn write(text: &str) {
    let mut out = std::io::stdout().lock();
    // A reader that has gone away is no reason to stop: the summary's exit code still tells.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_line_tells_throughput_watermark_and_checkpoint() {
        let job = json!({"state": "running", "watermark_ms": 1_795_414_233_007i64, "checkpoints": [{"id": 7, "duration_ms": 12}]});
        let newest = BTreeSet::new();
        let now = Snapshot {
            elapsed: Duration::from_secs(5),
            duration: Duration::from_secs(60),
            clicks: 10_000,
            job: &job,
            results: 20,
            newest: &newest,
            now_ms: 1_795_414_235_507,
        };
        let line = headline(&now, 2_000.4);
        for part in [
            "5/60 s",
            "running",
            "clicks 10000 (2000/s)",
            "results 20",
            "06:10:33 (2.5 s behind)",
            "checkpoint 7 (12 ms)",
        ] {
            assert!(line.contains(part), "{line}");
        }
    }

    #[test]
    fn the_table_begins_with_the_most_visited_page() {
        let row = |page: &str, clicks| Row {
            window_start_ms: 0,
            window_end_ms: 5_000,
            page: page.into(),
            clicks,
            users: 1,
            cents: 1_205,
        };
        let lines = table(&BTreeSet::from([row("/a", 1), row("/b", 9)]));
        assert_eq!(lines[0], "window 00:00:00 to 00:00:05");
        assert!(lines[2].starts_with("/b") && lines[2].ends_with("12.05"), "{lines:?}");
    }
}
