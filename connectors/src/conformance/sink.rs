//! What every sink must keep.

use super::{Wakes, metrics, runtime};
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use std::ops::Range;
use std::sync::Arc;
use tidemill_engine::operator::{Progress, TickClose};
use tidemill_engine::sink::{
    CommitterContext, Lineage, Nonce, PreCommitId, PublishPermit, Sink, SinkCommitter, SinkContext, SinkWriter,
};
use tidemill_engine::time::{Tick, Watermark};

/// The rows that sinks are tested with: a number and its text.
pub(crate) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("name", DataType::Utf8, true),
    ]))
}

/// The rows with these numbers.
pub(crate) fn rows(ids: Range<i64>) -> RecordBatch {
    let names: Vec<String> = ids.clone().map(name).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(ids)),
        Arc::new(StringArray::from(names)),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

/// The text of a number.
pub(crate) fn name(id: i64) -> String {
    format!("n{}", id % 3)
}

/// A table under test: makes its sink afresh, as a process that starts does, and shows what a reader sees.
pub(crate) trait SinkUnderTest {
    /// Makes the sink.
    fn sink(&self) -> Arc<dyn Sink>;
    /// Returns the numbers of the rows that are visible, sorted.
    fn visible(&self) -> Vec<i64>;
}

/// A process that writes with two workers.
pub(crate) struct Process {
    runtime: tokio::runtime::Runtime,
    wakes: Wakes,
    pub(crate) writers: Vec<Box<dyn SinkWriter>>,
    pub(crate) committer: Option<Arc<dyn SinkCommitter>>,
    /// The generation that publishes; its writers keep that of the start.
    generation: u64,
    lineage: Lineage,
    /// Who decided the checkpoint that is published.
    pub(crate) decided_by: Nonce,
    tick: u64,
}

impl Process {
    pub(crate) fn start(test: &dyn SinkUnderTest, generation: u64) -> Self {
        Self::start_run(test, 1, generation)
    }

    /// Starts a process of the job's run with this number: each has checkpoints of its own.
    pub(crate) fn start_run(test: &dyn SinkUnderTest, run: u8, generation: u64) -> Self {
        let nonce = Nonce::from_bytes([run; 16]);
        let lineage = Lineage::begun_by(nonce);
        let (runtime, wakes, sink) = (runtime(), Wakes::default(), test.sink());
        let writer = |worker| {
            let context = SinkContext {
                uid: "sink/1".to_owned(),
                job: "job-1".to_owned(),
                generation,
                lineage,
                worker,
                workers: 2,
                waker: wakes.waker(),
                runtime: runtime.handle().clone(),
                metrics: metrics(),
            };
            sink.writer(context).unwrap()
        };
        let context = CommitterContext {
            uid: "sink/1".to_owned(),
            job: "job-1".to_owned(),
            runtime: runtime.handle().clone(),
        };
        let writers = vec![writer(0), writer(1)];
        let committer = sink.committer(context).unwrap();
        Self {
            runtime,
            wakes,
            writers,
            committer,
            generation,
            lineage,
            decided_by: nonce,
            tick: 0,
        }
    }

    /// Writes rows in a tick of their own, every other row on each worker.
    pub(crate) fn tick(&mut self, ids: Range<i64>) {
        self.tick += 1;
        let close = TickClose {
            tick: Tick(self.tick),
            wall_time_ms: i64::try_from(self.tick).unwrap() * 1_000,
            watermarks: vec![Watermark::NONE],
            is_last: false,
        };
        for id in ids {
            let worker = usize::try_from(id).unwrap() % 2;
            self.writers[worker]
                .write(&rows(id..id + 1), close.wall_time_ms)
                .unwrap();
        }
        for writer in &mut self.writers {
            loop {
                let seen = self.wakes.count();
                match writer.tick_closed(&close).unwrap() {
                    Progress::Done => break,
                    Progress::More => self.wakes.wait_beyond(seen),
                }
            }
        }
    }

    /// Pre-commits on every worker and gives the committables.
    pub(crate) fn pre_commit(&mut self, checkpoint: u64, attempt: u64) -> Vec<Vec<u8>> {
        let id = PreCommitId { checkpoint, attempt };
        let pending: Vec<_> = self
            .writers
            .iter_mut()
            .map(|writer| writer.pre_commit(id).unwrap())
            .collect();
        pending
            .into_iter()
            .filter_map(|pending| self.runtime.block_on(pending).unwrap())
            .collect()
    }

    pub(crate) fn publish(&self, checkpoint: u64, committables: &[Vec<u8>]) -> tidemill_engine::Result<()> {
        let permit = PublishPermit {
            checkpoint,
            generation: self.generation,
            lineage: self.lineage,
            decided_by: self.decided_by,
        };
        self.runtime
            .block_on(self.committer.as_ref().unwrap().publish(permit, committables))
    }
}

fn ids(range: Range<i64>) -> Vec<i64> {
    range.collect()
}

/// Checks a sink whose output becomes visible with its checkpoint.
pub(crate) fn check_exactly_once(test: &dyn SinkUnderTest) {
    let mut first = Process::start(test, 1);
    first.tick(0..5);
    first.tick(5..10);
    let one = first.pre_commit(1, 0);
    assert_eq!(test.visible(), ids(0..0), "nothing is visible before its checkpoint");
    first.tick(10..12);
    first.publish(1, &one).unwrap();
    assert_eq!(
        test.visible(),
        ids(0..10),
        "what was written before the pre-commit is visible, and no more"
    );
    first.publish(1, &one).unwrap();
    assert_eq!(test.visible(), ids(0..10), "publishing again changes nothing");

    // An attempt fails; its committables are published with those of the next.
    let mut two = first.pre_commit(2, 0);
    first.tick(12..15);
    two.extend(first.pre_commit(2, 1));
    assert_eq!(test.visible(), ids(0..10));
    first.publish(2, &two).unwrap();
    assert_eq!(
        test.visible(),
        ids(0..15),
        "the rows of an attempt that failed are there once"
    );

    // A running coordinator moves on to a newer generation, while rows of the next checkpoint are being written.
    first.generation = 2;
    first.tick(15..17);
    first.publish(2, &two).unwrap();
    let three = first.pre_commit(3, 0);
    first.publish(3, &three).unwrap();
    assert_eq!(
        test.visible(),
        ids(0..17),
        "a newer generation of the same process takes nothing away"
    );

    // A checkpoint without rows.
    let four = first.pre_commit(4, 0);
    first.publish(4, &four).unwrap();
    assert_eq!(test.visible(), ids(0..17));

    // The process dies after a pre-commit whose checkpoint never existed.
    first.tick(17..20);
    let _lost = first.pre_commit(5, 0);
    first.tick(20..21);
    drop(first);

    // The next one replays the newest checkpoint and writes the rows again.
    let mut second = Process::start(test, 3);
    second.publish(4, &four).unwrap();
    assert_eq!(
        test.visible(),
        ids(0..17),
        "rows of a checkpoint that never existed stay invisible"
    );
    second.tick(17..22);
    let five = second.pre_commit(5, 0);
    drop(second);

    // The process dies after the checkpoint existed and before it was published.
    let mut third = Process::start(test, 4);
    third.publish(5, &five).unwrap();
    assert_eq!(test.visible(), ids(0..22), "a restart publishes what was lacking");
    third.publish(5, &five).unwrap();
    third.tick(22..300);
    let six = third.pre_commit(6, 0);
    third.publish(6, &six).unwrap();
    drop(third);

    // The process dies after publishing and before it is noted.
    let fourth = Process::start(test, 5);
    fourth.publish(6, &six).unwrap();
    assert_eq!(test.visible(), ids(0..300), "a replay repeats nothing");
}

/// Checks what is visible when a job is run again under its name without its checkpoints: its numbers begin again.
pub(crate) fn check_run_again_without_checkpoints(test: &dyn SinkUnderTest) {
    let run = |number, from: i64| {
        let mut process = Process::start_run(test, number, 1);
        for checkpoint in 1..=3 {
            let first = from + 2 * (i64::try_from(checkpoint).unwrap() - 1);
            process.tick(first..first + 2);
            let committables = process.pre_commit(checkpoint, 0);
            process.publish(checkpoint, &committables).unwrap();
        }
        process
    };
    let mut first = run(1, 0);
    assert_eq!(test.visible(), ids(0..6));
    // It still lives, with a checkpoint that waits to be published, when the second one runs.
    first.tick(100..104);
    let four = first.pre_commit(4, 0);
    let mut second = run(2, 6);
    assert_eq!(test.visible(), ids(0..12), "all rows of both runs are there");
    let error = first.publish(4, &four).unwrap_err();
    assert!(!error.is_retryable(), "{error}");
    assert!(error.to_string().contains("another run of job-1"), "{error}");
    assert_eq!(test.visible(), ids(0..12), "nothing more of the first");

    // Within the second run, a replay publishes once.
    second.tick(12..14);
    let four = second.pre_commit(4, 0);
    second.publish(4, &four).unwrap();
    second.publish(4, &four).unwrap();
    let restarted = Process::start_run(test, 2, 2);
    restarted.publish(4, &four).unwrap();
    assert_eq!(test.visible(), ids(0..14));
    let error = second.publish(4, &four).unwrap_err();
    assert!(matches!(error, tidemill_engine::Error::Fenced), "{error}");

    // The checkpoints were put back from a copy: another process decides another content under the same number.
    let mut copy = Process::start_run(test, 2, 3);
    copy.decided_by = Nonce::from_bytes([7; 16]);
    copy.tick(14..16);
    let other = copy.pre_commit(4, 0);
    let error = copy.publish(4, &other).unwrap_err().to_string();
    assert!(error.contains("with other content"), "{error}");
    // And a third run goes on from that, as a restore does.
    let third = run(3, 14);
    assert_eq!(test.visible(), ids(0..20));
    drop(third);
}

/// Checks a sink whose output becomes visible with its tick.
pub(crate) fn check_at_least_once(test: &dyn SinkUnderTest) {
    let mut first = Process::start(test, 1);
    assert!(first.committer.is_none());
    first.tick(0..5);
    first.tick(5..700);
    assert!(first.pre_commit(1, 0).is_empty(), "there is nothing to publish");
    assert_eq!(test.visible(), ids(0..700), "all is stored once the pre-commit is done");
    drop(first);
    let mut second = Process::start(test, 2);
    second.tick(700..710);
    second.pre_commit(2, 0);
    assert_eq!(test.visible(), ids(0..710));
}
