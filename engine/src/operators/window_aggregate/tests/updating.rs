//! Windows that are told before and after their end, and windows in processing time, tick by tick against a few lines that
//! look at all rows again and again; two checkpoints, each restored at another parallelism.

use super::windows::{TickRows, Workers, any_ticks, spec_of, summary};
use super::*;
use arrow::compute::cast;
use arrow::util::display::{ArrayFormatter, FormatOptions};

/// The rows, the watermark and the wall time of a tick.
type TimedRows = (Vec<Row>, i64, i64);

/// What is told in a tick: the key with its window, the result, and the weight; by key, in the order of telling.
type News = Vec<(String, String, i64)>;

fn text(batch: &RecordBatch, has_weight: bool) -> News {
    let options = FormatOptions::new().with_null("NULL");
    let results = batch.num_columns() - usize::from(has_weight);
    let columns = batch.columns().iter().enumerate().map(|(index, column)| match index {
        1 | 2 => cast(column, &DataType::Int64).unwrap(),
        _ => ArrayRef::clone(column),
    });
    let formatted = columns.collect::<Vec<_>>();
    let formatters: Vec<_> = formatted
        .iter()
        .map(|column| ArrayFormatter::try_new(column.as_ref(), &options).unwrap())
        .collect();
    let row = |row: usize| {
        let part = |from: usize, to: usize| {
            let values = formatters[from..to].iter().map(|column| column.value(row).to_string());
            values.collect::<Vec<_>>().join("|")
        };
        let weight = match has_weight {
            true => batch.column(results).as_primitive::<Int64Type>().value(row),
            false => 1,
        };
        (part(0, 3), part(3, results), weight)
    };
    (0..batch.num_rows()).map(row).collect()
}

/// Runs the operators; gives what they tell in each tick, and how many rows were late.
fn run(spec: &WindowAggregate, ticks: &[TimedRows], cuts: [usize; 2]) -> (Vec<News>, u64) {
    let metrics = Arc::default();
    let mut workers = Workers::new(spec, 1, &metrics);
    let (mut told, mut before) = (Vec::new(), Watermark::NONE);
    for (index, (rows, watermark, wall_ms)) in ticks.iter().enumerate() {
        for (cut, parallelism) in cuts.iter().zip([3, 2]) {
            if *cut == index {
                workers = workers.restored(spec, parallelism, &metrics);
            }
        }
        let watermark = Watermark(*watermark).max(before);
        let of_job = match spec.time {
            TimeDomain::EventTime => (before, watermark),
            TimeDomain::ProcessingTime => (Watermark::NONE, Watermark::NONE),
        };
        let batches = workers.tick(index as u64 + 1, rows, (of_job.0, of_job.1, *wall_ms));
        let batches = batches.iter().flat_map(|batch| text(batch, spec.updates.is_some()));
        let mut news: News = batches.collect();
        news.sort_by(|a, b| a.0.cmp(&b.0));
        told.push(news);
        before = watermark;
        if spec.time == TimeDomain::ProcessingTime {
            let timer_ms = workers.next_timer_ms();
            assert!(
                timer_ms.is_none_or(|timer_ms| timer_ms > *wall_ms),
                "{timer_ms:?} at {wall_ms}"
            );
        }
    }
    (told, metrics.rows_late.get())
}

/// The reference. A window is told on time, and with `updates` before and after.
fn expected(
    windows_of: impl Fn(i64) -> Vec<(i64, i64)>,
    updates: Option<Updates>,
    ticks: &[TimedRows],
    cuts: [usize; 2],
    with_set: bool,
) -> (Vec<News>, u64) {
    let lateness_ms = updates.map_or(0, |updates| updates.allowed_lateness_ms);
    let mut values: BTreeMap<(String, i64, i64), Vec<Option<i32>>> = BTreeMap::new();
    let mut known: BTreeMap<(String, i64, i64), String> = BTreeMap::new();
    let (mut told, mut late) = (Vec::new(), 0);
    let (mut before, mut last_wall) = (Watermark::NONE, None);
    for (index, (rows, watermark, wall_ms)) in ticks.iter().enumerate() {
        let was_gone = before.delayed_by(lateness_ms);
        for (page, time, cents) in rows {
            let mut kept = windows_of(*time);
            kept.retain(|(_, end)| !was_gone.has_passed_window(*end));
            late += u64::from(kept.is_empty());
            for (start, end) in kept {
                let key = (page.unwrap_or("NULL").to_owned(), start, end);
                values.entry(key).or_default().push(*cents);
            }
        }
        let watermark = Watermark(*watermark).max(before);
        let gone = watermark.delayed_by(lateness_ms);
        if cuts.contains(&index) {
            last_wall = None;
        }
        let is_due = |delay_ms: i64| {
            delay_ms == 0 || last_wall.is_some_and(|last: i64| wall_ms.div_euclid(delay_ms) > last.div_euclid(delay_ms))
        };
        let mut news = Vec::new();
        for ((page, start, end), values) in &values {
            let tells = if was_gone.has_passed_window(*end) {
                false
            } else if before.has_passed_window(*end) {
                updates.is_some_and(|updates| is_due(updates.late_ms)) || gone.has_passed_window(*end)
            } else if watermark.has_passed_window(*end) {
                true
            } else {
                updates.and_then(|updates| updates.early_ms).is_some_and(is_due)
            };
            if !tells {
                continue;
            }
            let result = result_of(values, with_set);
            let key = (page.clone(), *start, *end);
            let shown = format!("{page}|{start}|{end}");
            match known.insert(key, result.clone()) {
                Some(same) if same == result => continue,
                Some(other) => news.push((shown.clone(), other, -1)),
                None => {}
            }
            news.push((shown, result, 1));
        }
        news.sort_by(|a, b| a.0.cmp(&b.0));
        told.push(news);
        (before, last_wall) = (watermark, Some(*wall_ms));
    }
    (told, late)
}

fn result_of(values: &[Option<i32>], with_set: bool) -> String {
    let ((n, sum, most, mean, kinds), least) = summary(values, with_set);
    let all = [Some(n), sum.map(i64::from), most.map(i64::from), mean.map(i64::from)];
    let all = all
        .into_iter()
        .chain(with_set.then_some(kinds))
        .chain([least.map(i64::from)]);
    let all = all.map(|value| value.map_or("NULL".to_owned(), |value| value.to_string()));
    all.collect::<Vec<_>>().join("|")
}

/// The reference for sessions: all rows of a page that are kept, cut at its pauses again in every tick. What was told within
/// a session's bounds is taken back when something else is told of it.
fn expected_sessions(
    gap: i64,
    updates: Updates,
    ticks: &[TimedRows],
    cuts: [usize; 2],
    with_set: bool,
) -> (Vec<News>, u64) {
    let mut kept: BTreeMap<String, Vec<(i64, Option<i32>)>> = BTreeMap::new();
    let mut known: BTreeMap<String, Vec<(i64, i64, String)>> = BTreeMap::new();
    let (mut told, mut late) = (Vec::new(), 0);
    let (mut before, mut last_wall) = (Watermark::NONE, None);
    for (index, (rows, watermark, wall_ms)) in ticks.iter().enumerate() {
        for (page, time, cents) in rows {
            let page = page.unwrap_or("NULL").to_owned();
            kept.entry(page).or_default().push((*time, *cents));
        }
        let watermark = Watermark(*watermark).max(before);
        let was_gone = before.delayed_by(updates.allowed_lateness_ms);
        let gone = watermark.delayed_by(updates.allowed_lateness_ms);
        if cuts.contains(&index) {
            last_wall = None;
        }
        let is_due = |delay_ms: i64| {
            delay_ms == 0 || last_wall.is_some_and(|last: i64| wall_ms.div_euclid(delay_ms) > last.div_euclid(delay_ms))
        };
        let mut news = Vec::new();
        for (page, rows) in &mut kept {
            rows.sort_by_key(|(time, _)| *time);
            let known = known.entry(page.clone()).or_default();
            let mut left = Vec::new();
            for session in rows.chunk_by(|a, b| b.0 - a.0 <= gap) {
                let (start, end) = (session[0].0, session[session.len() - 1].0 + gap);
                if was_gone.has_passed_window(end) {
                    late += session.len() as u64;
                    continue;
                }
                let tells = if before.has_passed_window(end) {
                    is_due(updates.late_ms) || gone.has_passed_window(end)
                } else {
                    watermark.has_passed_window(end) || updates.early_ms.is_some_and(is_due)
                };
                let values: Vec<_> = session.iter().map(|row| row.1).collect();
                let now = (start, end, result_of(&values, with_set));
                let is_in = |told: &(i64, i64, String)| start <= told.0 && told.1 <= end;
                if tells && !known.contains(&now) {
                    let shown = |(start, end, _): &(i64, i64, String)| format!("{page}|{start}|{end}");
                    let others = known.extract_if(.., |told| is_in(told));
                    news.extend(others.map(|told| (shown(&told), told.2, -1)));
                    news.push((shown(&now), now.2.clone(), 1));
                    known.push(now);
                }
                if gone.has_passed_window(end) {
                    known.retain(|told| !is_in(told));
                } else {
                    left.extend_from_slice(session);
                }
            }
            *rows = left;
        }
        news.sort_by(|a, b| a.0.cmp(&b.0));
        told.push(news);
        (before, last_wall) = (watermark, Some(*wall_ms));
    }
    (told, late)
}

/// Windows of three kinds, with their reference.
fn any_window() -> impl Strategy<Value = WindowAssigner> {
    (0usize..3, 1i64..9, 0i64..20, 1i64..5, -5i64..5).prop_map(|(kind, step_ms, more, steps, offset_ms)| match kind {
        0 => WindowAssigner::Tumble {
            time: 1,
            size_ms: step_ms + more,
            offset_ms,
        },
        1 => WindowAssigner::Hop {
            time: 1,
            size_ms: step_ms + more,
            slide_ms: step_ms,
            offset_ms,
        },
        _ => WindowAssigner::Cumulate {
            time: 1,
            size_ms: step_ms * steps,
            step_ms,
            offset_ms,
        },
    })
}

fn windows_of(window: &WindowAssigner, time: i64) -> Vec<(i64, i64)> {
    match *window {
        WindowAssigner::Tumble { size_ms, offset_ms, .. } => {
            let start = time - (time - offset_ms).rem_euclid(size_ms);
            vec![(start, start + size_ms)]
        }
        WindowAssigner::Hop {
            size_ms,
            slide_ms,
            offset_ms,
            ..
        } => (time - size_ms + 1..=time)
            .filter(|start| (start - offset_ms).rem_euclid(slide_ms) == 0)
            .map(|start| (start, start + size_ms))
            .collect(),
        WindowAssigner::Cumulate {
            size_ms,
            step_ms,
            offset_ms,
            ..
        } => {
            let start = time - (time - offset_ms).rem_euclid(size_ms);
            let ends = (1..=size_ms / step_ms).map(|n| start + n * step_ms);
            ends.filter(|end| time < *end).map(|end| (start, end)).collect()
        }
        _ => unreachable!("not tested here"),
    }
}

fn any_updates() -> impl Strategy<Value = Updates> {
    let delay = prop::sample::select(vec![0i64, 1, 7, 30]);
    (prop::option::of(delay.clone()), delay, 0i64..30).prop_map(|(early_ms, late_ms, allowed_lateness_ms)| Updates {
        early_ms,
        late_ms,
        allowed_lateness_ms,
    })
}

/// Gives ticks wall times, and behind them one that ends the input.
fn timed(ticks: Vec<TickRows>, steps: &[i64]) -> Vec<TimedRows> {
    let mut wall_ms = 1_000;
    let end = (Vec::new(), i64::MAX);
    let ticks = ticks.into_iter().chain([end]).zip(steps.iter().cycle());
    let timed = ticks.map(|((rows, watermark), step)| {
        wall_ms += step;
        (rows, watermark, wall_ms)
    });
    timed.collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 160, ..ProptestConfig::default() })]

    #[test]
    fn windows_are_told_as_by_the_reference(
        ticks in any_ticks(), steps in prop::collection::vec(0i64..12, 1..15), cuts in [0usize..14, 0usize..14],
        window in any_window(), updates in any_updates(), with_set: bool,
    ) {
        let ticks = timed(ticks, &steps);
        let spec = WindowAggregate { updates: Some(updates), ..spec_of(window.clone(), with_set) };
        let expected = expected(|time| windows_of(&window, time), Some(updates), &ticks, cuts, with_set);
        prop_assert_eq!(run(&spec, &ticks, cuts), expected);
    }

    #[test]
    fn sessions_are_told_as_by_the_reference(
        ticks in any_ticks(), steps in prop::collection::vec(0i64..12, 1..15), cuts in [0usize..14, 0usize..14],
        gap in 1i64..16, updates in any_updates(), with_set: bool,
    ) {
        let ticks = timed(ticks, &steps);
        let window = WindowAssigner::Session { time: 1, gap_ms: gap };
        let spec = WindowAggregate { updates: Some(updates), ..spec_of(window, with_set) };
        prop_assert_eq!(run(&spec, &ticks, cuts), expected_sessions(gap, updates, &ticks, cuts, with_set));
    }

    #[test]
    fn sessions_of_the_wall_clock_are_those_of_the_reference(
        ticks in any_ticks(), steps in prop::collection::vec(0i64..12, 1..15), cuts in [0usize..14, 0usize..14],
        gap in 1i64..16, early_ms in prop::option::of(prop::sample::select(vec![0i64, 7])), with_set: bool,
    ) {
        let mut ticks = timed(ticks, &steps);
        for (rows, watermark, wall_ms) in &mut ticks {
            rows.iter_mut().for_each(|row| row.1 = *wall_ms);
            *watermark = *wall_ms - 1;
        }
        let updates = early_ms.map(|early_ms| Updates { early_ms: Some(early_ms), late_ms: 0, allowed_lateness_ms: 9 });
        let window = WindowAssigner::Session { time: 1, gap_ms: gap };
        let spec = WindowAggregate { updates, time: TimeDomain::ProcessingTime, ..spec_of(window, with_set) };
        // Lateness is of event time.
        let told = Updates { early_ms, ..Updates::default() };
        let expected = expected_sessions(gap, told, &ticks, cuts, with_set);
        prop_assert_eq!(expected.1, 0);
        prop_assert_eq!(run(&spec, &ticks, cuts), expected);
    }

    /// A row's time is the wall time of its tick; nothing is late, and nothing fires at the end.
    #[test]
    fn windows_of_the_wall_clock_are_those_of_the_reference(
        ticks in any_ticks(), steps in prop::collection::vec(0i64..12, 1..15), cuts in [0usize..14, 0usize..14],
        window in any_window(), early_ms in prop::option::of(prop::sample::select(vec![0i64, 7])), with_set: bool,
    ) {
        let mut ticks = timed(ticks, &steps);
        for (rows, watermark, wall_ms) in &mut ticks {
            rows.iter_mut().for_each(|row| row.1 = *wall_ms);
            *watermark = *wall_ms - 1;
        }
        let updates = early_ms.map(|early_ms| Updates { early_ms: Some(early_ms), late_ms: 0, allowed_lateness_ms: 9 });
        let spec = WindowAggregate { updates, time: TimeDomain::ProcessingTime, ..spec_of(window.clone(), with_set) };
        // Lateness is of event time.
        let told = updates.map(|updates| Updates { allowed_lateness_ms: 0, ..updates });
        let expected = expected(|time| windows_of(&window, time), told, &ticks, cuts, with_set);
        prop_assert_eq!(expected.1, 0);
        prop_assert_eq!(run(&spec, &ticks, cuts), expected);
    }
}

#[test]
fn windows_of_the_wall_clock_have_their_timer_also_behind_a_restore() {
    let updates = |early_ms| {
        let (late_ms, allowed_lateness_ms) = (0, 0);
        Some(Updates {
            early_ms,
            late_ms,
            allowed_lateness_ms,
        })
    };
    for (updates, timer_ms) in [
        (None, 10),
        (updates(None), 10),
        (updates(Some(0)), 10),
        (updates(Some(7)), 7),
    ] {
        let spec = WindowAggregate {
            updates,
            time: TimeDomain::ProcessingTime,
            ..spec(false)
        };
        let metrics = Arc::default();
        let mut workers = Workers::new(&spec, 1, &metrics);
        let _ = workers.tick(1, &[(Some("x"), 5, Some(1))], (Watermark::NONE, Watermark::NONE, 5));
        assert_eq!(workers.next_timer_ms(), Some(timer_ms), "{updates:?}");
        let mut workers = workers.restored(&spec, 2, &metrics);
        // What is early and not told at once waits for a tick that tells the time.
        let restored_ms = if timer_ms < 10 { 0 } else { timer_ms };
        assert_eq!(workers.next_timer_ms(), Some(restored_ms), "{updates:?}");
        let told = workers.tick(2, &[], (Watermark::NONE, Watermark::NONE, 10));
        let rows: usize = told.iter().map(RecordBatch::num_rows).sum();
        // A result that was told at once is not told again.
        let is_told = updates.is_some_and(|updates| updates.early_ms == Some(0));
        assert_eq!(rows, usize::from(!is_told), "{updates:?}");
    }
}
