//! Rows with their session, tick by tick against a few lines that cut all rows at their pauses again and again; two
//! checkpoints, each restored at another parallelism.

use super::windows::{TickRows, any_ticks};
use super::*;
use crate::graph::SessionRows;
use crate::operators::window_aggregate::SessionRowsOperator;

/// What goes on in a tick: page, time, value, and the session's bounds; sorted.
type Gone = Vec<(Option<String>, i64, Option<i32>, i64, i64)>;

/// Makes the operators of all workers from sections of state.
fn workers(
    count: usize,
    gap_ms: i64,
    metrics: &Arc<crate::metrics::OperatorMetrics>,
    sections: &[StateSection],
) -> Vec<SessionRowsOperator> {
    let time = DataType::Timestamp(TimeUnit::Millisecond, None);
    let mut fields = input_schema().fields().to_vec();
    fields.extend(["s", "e"].map(|name| Arc::new(Field::new(name, time.clone(), false))));
    let output = Arc::new(Schema::new(fields));
    let worker = |worker| {
        let context = OperatorContext {
            uid: "s".into(),
            worker,
            workers: count,
            key_groups: KeyGroupRange::of_worker(worker, count, 256),
            metrics: Arc::clone(metrics),
        };
        let spec = SessionRows {
            keys: vec![0],
            time: 1,
            gap_ms,
            domain: TimeDomain::EventTime,
        };
        let mut operator = SessionRowsOperator::new(spec, input_schema(), Arc::clone(&output), context);
        operator.restore(sections).unwrap();
        operator
    };
    (0..count).map(worker).collect()
}

fn run(gap_ms: i64, ticks: &[TickRows], cuts: [usize; 2]) -> (Vec<Gone>, u64) {
    let metrics = Arc::default();
    let mut all = workers(1, gap_ms, &metrics, &[]);
    let (mut told, mut before) = (Vec::new(), Watermark::NONE);
    for (index, (rows, watermark)) in ticks.iter().enumerate() {
        for (cut, parallelism) in cuts.iter().zip([3, 2]) {
            if *cut == index {
                let sections = all.iter_mut().flat_map(|worker| worker.capture().unwrap());
                let sections: Vec<StateSection> = sections.collect();
                all = workers(parallelism, gap_ms, &metrics, &sections);
            }
        }
        let watermark = Watermark(*watermark).max(before);
        let mut gone = Gone::new();
        let count = all.len();
        for (worker, operator) in all.iter_mut().enumerate() {
            let key_groups = KeyGroupRange::of_worker(worker, count, 256);
            for part in rows.chunks(3) {
                let batch = batch(part);
                let (mut keys, mut hashes) = (EncodedKeys::default(), Vec::new());
                hash_columns(&[Arc::clone(batch.column(0))], batch.num_rows(), &mut keys, &mut hashes).unwrap();
                let mine = BooleanArray::from_iter(hashes.iter().map(|&hash| Some(key_groups.contains_hash(hash))));
                let mine = arrow::compute::filter_record_batch(&batch, &mine).unwrap();
                let mut out = Output::with_budget(0);
                let _ = operator.on_batch(0, &mine, &open_tick(1, before), &mut out).unwrap();
            }
            loop {
                let mut out = Output::with_budget(2);
                let progress = operator.on_close(&close_tick(1, watermark), &mut out).unwrap();
                for batch in out.take() {
                    let pages = batch.column(0).as_string::<i32>();
                    let cents = batch.column(2).as_primitive::<Int32Type>();
                    let times = [1, 3, 4].map(|column| millis_of(&batch, column));
                    gone.extend((0..batch.num_rows()).map(|row| {
                        let page = pages.is_valid(row).then(|| pages.value(row).to_owned());
                        let cents = cents.is_valid(row).then(|| cents.value(row));
                        (page, times[0][row], cents, times[1][row], times[2][row])
                    }));
                }
                if progress == Progress::Done {
                    break;
                }
            }
        }
        gone.sort();
        told.push(gone);
        before = watermark;
    }
    assert!(all.iter().all(|worker| worker.is_empty()), "what has gone on is kept");
    (told, metrics.rows_late.get())
}

fn expected(gap: i64, ticks: &[TickRows]) -> (Vec<Gone>, u64) {
    let mut kept: BTreeMap<Option<String>, Vec<(i64, Option<i32>)>> = BTreeMap::new();
    let (mut told, mut late, mut before) = (Vec::new(), 0, Watermark::NONE);
    for (rows, watermark) in ticks {
        for (page, time, cents) in rows {
            kept.entry(page.map(str::to_owned)).or_default().push((*time, *cents));
        }
        let watermark = Watermark(*watermark).max(before);
        let mut gone = Gone::new();
        for (page, rows) in &mut kept {
            rows.sort();
            let mut left = Vec::new();
            for session in rows.chunk_by(|a, b| b.0 - a.0 <= gap) {
                let (start, end) = (session[0].0, session[session.len() - 1].0 + gap);
                match session {
                    _ if before.has_passed_window(end) => late += session.len() as u64,
                    _ if !watermark.has_passed_window(end) => left.extend_from_slice(session),
                    rows => gone.extend(rows.iter().map(|row| (page.clone(), row.0, row.1, start, end))),
                }
            }
            *rows = left;
        }
        gone.sort();
        told.push(gone);
        before = watermark;
    }
    (told, late)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 160, ..ProptestConfig::default() })]

    #[test]
    fn rows_go_on_with_the_sessions_of_the_reference(
        ticks in any_ticks(), cuts in [0usize..14, 0usize..14], gap in 1i64..16,
    ) {
        let mut ticks = ticks;
        ticks.push((Vec::new(), i64::MAX));
        prop_assert_eq!(run(gap, &ticks, cuts), expected(gap, &ticks));
    }
}

/// Rows that move when sparse chunks are written anew are still found: one session goes on and on, the others end.
#[test]
fn session_that_goes_on_keeps_its_rows_and_nothing_else() {
    let metrics = Arc::default();
    let mut worker = workers(1, 15, &metrics, &[]).remove(0);
    let (mut gone, mut sizes) = (0, Vec::new());
    for tick in 0..40i64 {
        let pages: Vec<String> = (0..3000)
            .map(|page| {
                if page % 1000 == 0 {
                    "on".into()
                } else {
                    format!("{tick}-{page}")
                }
            })
            .collect();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(pages)),
            Arc::new(TimestampMillisecondArray::from(vec![tick * 10; 3000])),
            Arc::new(Int32Array::from(vec![1; 3000])),
        ];
        let batch = RecordBatch::try_new(input_schema(), columns).unwrap();
        let mut out = Output::with_budget(usize::MAX);
        let before = Watermark(tick * 10 - 10);
        let _ = worker.on_batch(0, &batch, &open_tick(1, before), &mut out).unwrap();
        let _ = worker.on_close(&close_tick(1, Watermark(tick * 10)), &mut out).unwrap();
        gone += out.take().iter().map(RecordBatch::num_rows).sum::<usize>();
        let _ = worker.capture().unwrap();
        sizes.push(metrics.state_bytes.get());
    }
    assert!(
        sizes[30..].iter().max() <= sizes[5..15].iter().max().map(|size| size * 3 / 2).as_ref(),
        "{sizes:?}"
    );
    let mut out = Output::with_budget(usize::MAX);
    let _ = worker.on_close(&close_tick(1, Watermark::END), &mut out).unwrap();
    let last = out.take();
    gone += last.iter().map(RecordBatch::num_rows).sum::<usize>();
    assert_eq!(gone, 40 * 3000);
    let of_the_long = last.iter().flat_map(|batch| {
        let (starts, pages) = (millis_of(batch, 3), batch.column(0).as_string::<i32>().clone());
        (0..batch.num_rows())
            .filter(move |row| pages.value(*row) == "on" && starts[*row] == 0)
            .collect::<Vec<_>>()
    });
    assert_eq!(of_the_long.count(), 40 * 3);
    assert!(worker.is_empty());
}
