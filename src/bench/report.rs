//! The figures for people: tables as docs/BENCHMARKS.md has them.

use super::http::{Load, Outcome};
use super::latency::Percentiles;
use super::{Protocol, Report};

impl Report {
    /// The tables.
    pub(crate) fn text(&self) -> String {
        let mut parts = vec![format!("{} processors, files in {}", self.processors, self.directory)];
        if !self.append.is_empty() {
            let rows = self.append.iter().map(|row| {
                let (least, most) = row.records_per_second_range;
                let (worst, best) = row.ratio_range;
                vec![
                    grouped(row.load.in_flight as f64),
                    row.load.request_records.to_string(),
                    row.shards.to_string(),
                    format!(
                        "{} ({} to {})",
                        grouped(row.records_per_second),
                        grouped(least),
                        grouped(most)
                    ),
                    format!("{:.0}", row.mb_per_second),
                    latency(&row.latency),
                    format!(
                        "{:.0} records, {:.0} KB",
                        row.records_per_sync,
                        row.bytes_per_sync / 1e3
                    ),
                    format!("{:.0} and {:.0}", row.log_mb_per_second, row.plain_mb_per_second),
                    format!("{:.2} ({worst:.2} to {best:.2})", row.ratio),
                    format!("{:.0}, {:.2}", row.overwrite_mb_per_second, row.overwrite_ratio),
                ]
            });
            parts.push(section(
                "Durable appends, 1 KiB, fdatasync before each acknowledgement",
                &[
                    "in flight",
                    "in one put",
                    "shards",
                    "records/s",
                    "MB/s",
                    "p50 / p99 / p99.9 ms",
                    "one sync",
                    "log and plain appending writer MB/s",
                    "log / plain",
                    "overwriting writer MB/s, log / it",
                ],
                rows.collect(),
            ));
        }
        if let Some(read) = &self.read {
            let row = vec![
                grouped(read.records as f64),
                read.passes.to_string(),
                grouped(read.records_per_second),
                format!("{:.2}", read.gb_per_second),
            ];
            let titles = ["records", "passes", "records/s", "GB/s"];
            parts.push(section("Reading from the page cache, one thread", &titles, vec![row]));
        }
        if let Some(tail) = &self.tail {
            let row = vec![
                grouped(tail.rate as f64),
                latency(&tail.from_acknowledgement),
                latency(&tail.from_put),
            ];
            let titles = [
                "records/s, open loop",
                "from acknowledgement, p50 / p99 / p99.9 ms",
                "from put, p50 / p99 / p99.9 ms",
            ];
            parts.push(section("A consumer at the tail", &titles, vec![row]));
        }
        if !self.http.is_empty() {
            let rows = self.http.iter().map(|row| {
                let protocol = match row.protocol {
                    Protocol::Json => "JSON",
                    Protocol::Cbor => "CBOR",
                };
                let load = match row.load {
                    Load::Closed { in_flight } => format!("closed, {in_flight} in flight"),
                    Load::Open { rate } => format!("open, {} records/s", grouped(f64::from(rate))),
                };
                let mut cells = vec![protocol.to_owned(), load];
                match &row.outcome {
                    Outcome::Stored(stored) => cells.extend([
                        grouped(stored.records_per_second),
                        format!("{:.0}", stored.mb_per_second),
                        latency(&stored.latency),
                        stored.server_cpu_us.map_or_else(|| "-".into(), |us| format!("{us:.2}")),
                        format!("{:.2}", stored.client_cpu_us),
                    ]),
                    Outcome::Refused { refused } => {
                        cells.push(format!("refused: {refused}"));
                        cells.extend(["-", "-", "-", "-"].map(str::to_owned));
                    }
                }
                cells
            });
            parts.push(section(
                "PutRecords of 500 x 1 KiB over HTTP",
                &[
                    "encoding",
                    "load",
                    "records/s",
                    "MB/s",
                    "p50 / p99 / p99.9 ms",
                    "server CPU us/record",
                    "client CPU us/record",
                ],
                rows.collect(),
            ));
        }
        if let Some(many) = &self.many {
            let row = vec![
                grouped(f64::from(many.shards)),
                many.streams.to_string(),
                format!("{:.0} ms", many.open_ms),
                format!("{:.0} ms", many.server_start_ms),
                format!(
                    "{:.0} MB ({:.0} MB empty)",
                    many.server_memory_mb, many.empty_server_memory_mb
                ),
                many.server_threads.to_string(),
            ];
            let titles = [
                "shards",
                "streams",
                "store opens in",
                "server starts in",
                "server memory",
                "threads",
            ];
            parts.push(section("Very many shards", &titles, vec![row]));
        }
        parts.join("\n\n")
    }
}

fn latency(percentiles: &Percentiles) -> String {
    format!(
        "{:.2} / {:.2} / {:.2}",
        percentiles.p50_ms, percentiles.p99_ms, percentiles.p999_ms
    )
}

/// Writes a whole number with commas between its thousands.
fn grouped(number: f64) -> String {
    let digits = format!("{:.0}", number.max(0.0));
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn section(title: &str, titles: &[&str], rows: Vec<Vec<String>>) -> String {
    let line = |cells: Vec<String>| format!("| {} |", cells.join(" | "));
    let mut lines = vec![format!("{title}\n")];
    lines.push(line(titles.iter().map(|title| (*title).to_owned()).collect()));
    lines.push(format!("|{}", "---|".repeat(titles.len())));
    lines.extend(rows.into_iter().map(line));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (number, text) in [
            (0.0, "0"),
            (999.4, "999"),
            (1_000.0, "1,000"),
            (1_234_567.0, "1,234,567"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn a_refused_encoding_has_a_row_that_says_why() {
        let report = Report {
            http: vec![super::super::http::Loaded {
                protocol: Protocol::Cbor,
                load: Load::Closed { in_flight: 4 },
                outcome: Outcome::Refused { refused: "no".into() },
            }],
            ..Report::default()
        };
        let text = report.text();
        assert!(
            text.contains("| CBOR | closed, 4 in flight | refused: no | - | - | - | - |"),
            "{text}"
        );
    }
}
