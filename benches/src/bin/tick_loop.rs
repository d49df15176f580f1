//! Rows per second and per CPU-second of the tick loop, the generator included.
//!
//! `cargo run --release -p tidemill-benches --bin tick_loop -- [ROWS] [WORKERS] [KEYS]`

use anyhow::Context;
use std::time::Instant;
use tidemill_engine::job::{JobConfig, start};

#[allow(clippy::print_stdout)] // its output is what it is for
fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |what: &str, default: u64| -> anyhow::Result<u64> {
        arguments.next().map_or(Ok(default), |text| {
            text.parse().with_context(|| format!("{what}: {text}"))
        })
    };
    let (rows, workers, keys) = (
        number("ROWS", 50_000_000)?,
        number("WORKERS", 2)?,
        number("KEYS", 1_000)?,
    );
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let mut config = JobConfig::new("tick-loop");
    config.parallelism = usize::try_from(workers)?;
    let graph = tidemill_benches::tumbling_count(rows, keys)?;
    let (wall, cpu) = (Instant::now(), cpu_seconds()?);
    let job = start(graph, config, runtime.handle())?;
    runtime.block_on(job.wait())?;
    let (wall, cpu) = (wall.elapsed().as_secs_f64(), cpu_seconds()? - cpu);
    let status = job.status();
    let (read, out) = (status.operators[0].counts.rows_out, status.operators[2].counts.rows_in);
    println!(
        "rows {read} workers {workers} keys {keys} rows_out {out} ticks {} seconds {wall:.2} cpu_seconds {cpu:.2} \
         rows_per_second {:.0} rows_per_cpu_second {:.0}",
        status.ticks,
        read as f64 / wall,
        read as f64 / cpu,
    );
    Ok(())
}

/// User and system time of this process so far.
fn cpu_seconds() -> anyhow::Result<f64> {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF)?;
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}
