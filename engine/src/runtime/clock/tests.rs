use super::*;
use crate::runtime::message::SplitReport;
use tidemill_checkpoints::{AttemptId, CheckpointId, Generation, SavepointName};

const MS: fn(u64) -> Duration = Duration::from_millis;

fn table(idle_ms: Option<u64>, max_drift_ms: Option<i64>) -> TableOptions {
    TableOptions {
        name: "t".into(),
        has_event_time: true,
        idle_timeout: idle_ms.map(MS),
        max_drift_ms,
    }
}

fn clock(workers: usize, table: TableOptions, interval: Option<Duration>) -> Clock {
    let start = ClockStart {
        tick: 1,
        ..ClockStart::default()
    };
    Clock::new(TickOptions::default(), workers, vec![table], interval, start, MS(0))
}

fn discovered(ids: &[&str], complete: bool) -> Event {
    let splits = ids
        .iter()
        .map(|id| Split {
            id: SplitId((*id).into()),
            position: "0".into(),
        })
        .collect();
    Event::Discovered {
        table: 0,
        splits,
        complete,
        ended_seen: 0,
        forget: Vec::new(),
    }
}

fn split(id: &str, watermark: i64, position: &str) -> SplitReport {
    let (id, position) = (SplitId(id.into()), position.to_owned());
    SplitReport {
        table: 0,
        id,
        rows: 1,
        position,
        watermark: Watermark(watermark),
        ended: false,
    }
}

fn closed(tick: u64, worker: usize, splits: Vec<SplitReport>) -> Event {
    Event::Report(Report::Closed {
        tick,
        worker,
        splits,
        more: false,
        busy: Vec::new(),
    })
}

fn settled(tick: u64, full: bool) -> Event {
    Event::Report(Report::Settled { tick, full })
}

fn wish(kind: SnapshotKind, request: Option<u64>, ends_job: bool) -> Wish {
    Wish {
        kind,
        request,
        ends_job,
    }
}

fn attempt() -> Attempt {
    Attempt {
        checkpoint: CheckpointId(1),
        attempt: AttemptId(1),
        generation: Generation(1),
    }
}

/// The ticks opened by some actions.
fn opened(actions: &[Action]) -> Vec<u64> {
    let open = |action: &Action| match action {
        Action::Send {
            command: Command::Open { tick, .. },
            ..
        } => Some(*tick),
        _ => None,
    };
    actions.iter().filter_map(open).collect()
}

fn closes(actions: &[Action]) -> Vec<(u64, Watermark)> {
    let close = |action: &Action| match action {
        Action::Close(closed) => Some((closed.tick, closed.watermarks[0])),
        _ => None,
    };
    actions.iter().filter_map(close).collect()
}

/// Runs one whole tick of one worker and returns its close.
fn whole_tick(clock: &mut Clock, now: u64, splits: Vec<SplitReport>) -> (u64, Watermark) {
    let actions = clock.turn(
        MS(now),
        now as i64,
        Some(clock.next),
        vec![Event::Report(Report::Ready)],
    );
    let [tick] = opened(&actions)[..] else {
        panic!("{actions:?}")
    };
    clock.turn(MS(now), now as i64, Some(tick), vec![settled(tick, false)]);
    let actions = clock.turn(MS(now), now as i64, Some(tick), vec![closed(tick, 0, splits)]);
    let [close] = closes(&actions)[..] else {
        panic!("{actions:?}")
    };
    close
}

#[test]
fn no_tick_opens_while_nothing_is_due() {
    let mut clock = clock(1, table(None, None), None);
    assert_eq!(clock.turn(MS(5), 5, Some(1), vec![]), vec![]);
    assert_eq!(clock.sleep(MS(5), 5), None, "nothing to wait for but being woken");
    let actions = clock.turn(MS(6), 6, Some(1), vec![Event::Report(Report::Ready)]);
    assert_eq!(opened(&actions), vec![1]);
    assert_eq!(
        clock.sleep(MS(6), 6),
        Some(MS(2)),
        "the tick is closed after its interval at the latest"
    );
}

#[test]
fn tick_closes_for_operators_once_every_worker_has_reported() {
    let mut clock = clock(2, table(None, None), None);
    clock.turn(MS(0), 0, Some(1), vec![discovered(&["a", "b"], false)]);
    assert_eq!(clock.turn(MS(0), 0, Some(1), vec![settled(1, false)]), vec![]);
    let actions = clock.turn(MS(0), 0, Some(1), vec![settled(1, false)]);
    assert_eq!(
        actions[0],
        Action::Send {
            tick: 1,
            command: Command::Close { tick: 1 }
        }
    );
    assert_eq!(
        clock.turn(MS(0), 0, Some(1), vec![closed(1, 0, vec![split("a", 50, "1")])]),
        vec![]
    );
    let actions = clock.turn(MS(0), 0, Some(1), vec![closed(1, 1, vec![split("b", 30, "1")])]);
    assert_eq!(closes(&actions), vec![(1, Watermark(30))]);
}

#[test]
fn no_more_than_k_ticks_are_in_flight() {
    let mut clock = clock(1, table(None, None), None);
    for tick in 1..=4 {
        let actions = clock.turn(MS(0), 0, Some(1), vec![Event::Report(Report::Ready)]);
        assert_eq!(opened(&actions), vec![tick]);
        clock.turn(MS(0), 0, Some(1), vec![settled(tick, true)]);
    }
    let actions = clock.turn(MS(0), 0, Some(1), vec![Event::Report(Report::Ready)]);
    assert_eq!(opened(&actions), Vec::<u64>::new());
    assert_eq!(
        clock.sleep(MS(0), 0),
        None,
        "blocked by the probe, not by time: no busy waiting"
    );
    assert_eq!(opened(&clock.turn(MS(0), 0, Some(2), vec![])), vec![5]);
}

#[test]
fn a_tick_goes_on_while_those_before_it_keep_the_workers_busy() {
    let mut clock = clock(2, table(None, None), None);
    clock.turn(MS(0), 0, Some(1), vec![Event::Report(Report::Ready)]);
    let actions = clock.turn(MS(0), 0, Some(1), vec![settled(1, true), settled(1, true)]);
    assert_eq!(
        opened(&actions),
        vec![2],
        "of several workers' full tick no report is waited for"
    );
    let close = |tick| Action::Send {
        tick,
        command: Command::Close { tick },
    };
    // The interval is over, and the first tick is not through.
    assert_eq!(clock.turn(MS(5), 5, Some(1), vec![settled(2, true)]), vec![]);
    assert_eq!(clock.sleep(MS(5), 5), None, "the probe wakes it, not the time");
    let actions = clock.turn(MS(6), 6, Some(2), vec![]);
    assert_eq!((&actions[0], opened(&actions)), (&close(2), vec![3]));
    // A full tick does not wait.
    assert_eq!(
        clock.turn(MS(6), 6, Some(2), vec![settled(3, true), settled(3, true)])[0],
        close(3)
    );
}

#[test]
fn next_tick_opens_before_the_reports_where_a_worker_still_reads() {
    let mut clock = clock(2, table(None, None), None);
    clock.turn(MS(0), 0, Some(1), vec![Event::Report(Report::Ready)]);
    // The interval is over; one worker has nothing left, the other has not settled.
    let actions = clock.turn(MS(2), 2, Some(1), vec![settled(1, false)]);
    assert_eq!(opened(&actions), vec![2]);
    // Both have nothing left: whether a third tick is worth it is for the reports to say.
    let actions = clock.turn(MS(4), 4, Some(2), vec![settled(2, false), settled(2, false)]);
    assert_eq!(opened(&actions), Vec::<u64>::new());
    let nothing = |tick, worker| closed(tick, worker, vec![]);
    let reports = vec![nothing(1, 0), nothing(1, 1), nothing(2, 0), nothing(2, 1)];
    assert_eq!(opened(&clock.turn(MS(4), 4, Some(2), reports)), Vec::<u64>::new());
}

#[test]
fn trickle_waits_for_the_interval_and_full_ticks_follow_at_once() {
    let mut clock = clock(1, table(None, None), None);
    clock.turn(MS(10), 10, Some(1), vec![Event::Report(Report::Ready)]);
    clock.turn(MS(10), 10, Some(1), vec![settled(1, false)]);
    let actions = clock.turn(MS(11), 11, Some(2), vec![Event::Report(Report::Ready)]);
    assert_eq!(opened(&actions), Vec::<u64>::new());
    assert_eq!(clock.sleep(MS(11), 11), Some(MS(1)));
    assert_eq!(opened(&clock.turn(MS(12), 12, Some(2), vec![])), vec![2]);
    clock.turn(MS(12), 12, Some(2), vec![settled(2, true)]);
    assert_eq!(
        opened(&clock.turn(MS(12), 12, Some(3), vec![Event::Report(Report::Ready)])),
        vec![3]
    );
}

#[test]
fn watermark_is_the_least_of_the_splits_and_never_goes_back() {
    let mut clock = clock(1, table(None, None), None);
    clock.turn(MS(0), 0, Some(1), vec![discovered(&["a", "b"], false)]);
    clock.turn(MS(2), 2, Some(1), vec![closed(1, 0, vec![])]);
    clock.turn(MS(3), 3, Some(2), vec![closed(1, 0, vec![])]);
    assert_eq!(
        whole_tick(&mut clock, 5, vec![split("a", 50, "1")]).1,
        Watermark::NONE,
        "b has not told one"
    );
    assert_eq!(whole_tick(&mut clock, 10, vec![split("b", 40, "1")]).1, Watermark(40));
    assert_eq!(whole_tick(&mut clock, 15, vec![split("b", 20, "2")]).1, Watermark(40));
    // A new split starts without a watermark and holds the table where it is.
    clock.turn(MS(16), 16, Some(clock.next), vec![discovered(&["c"], false)]);
    let tick = clock.next - 1;
    clock.turn(MS(20), 20, Some(tick), vec![]);
    clock.turn(MS(20), 20, Some(tick), vec![closed(tick, 0, vec![])]);
    assert_eq!(whole_tick(&mut clock, 25, vec![split("b", 90, "3")]).1, Watermark(40));
}

#[test]
fn idle_split_is_left_out_only_after_its_timeout() {
    let mut clock = clock(1, table(Some(100), None), None);
    clock.turn(MS(0), 0, Some(1), vec![discovered(&["a", "b"], false)]);
    clock.turn(MS(2), 2, Some(1), vec![]);
    clock.turn(
        MS(2),
        2,
        Some(1),
        vec![closed(1, 0, vec![split("a", 10, "1"), split("b", 20, "1")])],
    );
    assert_eq!(whole_tick(&mut clock, 50, vec![split("b", 60, "2")]).1, Watermark(10));
    assert_eq!(clock.sleep(MS(52), 52), Some(MS(50)), "split a was last active at 2");
    let actions = clock.turn(MS(102), 102, Some(3), vec![]);
    assert_eq!(opened(&actions), vec![3], "a tick tells the operators");
    clock.turn(MS(102), 102, Some(3), vec![settled(3, false)]);
    assert_eq!(
        closes(&clock.turn(MS(102), 102, Some(3), vec![closed(3, 0, vec![])])),
        vec![(3, Watermark(60))]
    );
}

#[test]
fn splits_far_ahead_are_held_by_a_ceiling() {
    let mut clock = clock(1, table(None, Some(30)), None);
    clock.turn(MS(0), 0, Some(1), vec![discovered(&["a"], false)]);
    clock.turn(MS(2), 2, Some(1), vec![]);
    // The watermark rises, so what was beyond the ceiling may go on: a tick opens by itself.
    let actions = clock.turn(MS(2), 2, Some(1), vec![closed(1, 0, vec![split("a", 10, "1")])]);
    let Some(Action::Send {
        command: Command::Open { ceilings, .. },
        ..
    }) = actions.last()
    else {
        panic!("{actions:?}")
    };
    assert_eq!(ceilings, &vec![Some(40)]);
}

#[test]
fn checkpoint_cut_has_all_reports_before_the_hold_and_none_after() {
    let mut clock = clock(1, table(None, None), Some(MS(100)));
    clock.turn(MS(0), 0, Some(1), vec![discovered(&["a"], false)]);
    clock.turn(MS(2), 2, Some(1), vec![]);
    let actions = clock.turn(MS(100), 100, Some(1), vec![]);
    assert_eq!(
        actions,
        vec![Action::BeginAttempt(wish(SnapshotKind::Periodic, None, false))]
    );
    let actions = clock.turn(MS(101), 101, Some(1), vec![Event::AttemptBegun(attempt())]);
    assert_eq!(actions, vec![], "the report of tick 1 is missing, so the hold waits");
    let actions = clock.turn(MS(102), 102, Some(1), vec![closed(1, 0, vec![split("a", 7, "pos-1")])]);
    assert_eq!(opened(&actions), vec![2]);
    assert!(
        matches!(
            &actions[1],
            Action::Send {
                command: Command::Open { hold: Some(_), .. },
                ..
            }
        ),
        "{actions:?}"
    );
    let actions = clock.turn(MS(103), 103, Some(2), vec![Event::Report(Report::Ready)]);
    assert_eq!(actions, vec![], "nothing is taken in during a hold");
    let actions = clock.turn(MS(104), 104, Some(2), vec![Event::Report(Report::Captured { tick: 2 })]);
    let Some(Action::Captured { cut, .. }) = actions.first() else {
        panic!("{actions:?}")
    };
    assert_eq!((cut.tick, cut.watermarks["t"]), (2, Some(7)));
    assert_eq!(cut.sources["t"]["a"].position, "pos-1");
}

#[test]
fn end_of_input_is_a_last_tick_a_final_checkpoint_and_shutdown() {
    let mut clock = clock(1, table(None, None), Some(MS(1000)));
    let actions = clock.turn(MS(0), 0, Some(1), vec![discovered(&["a"], true)]);
    assert_eq!(opened(&actions), vec![1]);
    clock.turn(MS(0), 0, Some(1), vec![settled(1, false)]);
    let ended = SplitReport {
        ended: true,
        ..split("a", 10, "1")
    };
    let actions = clock.turn(MS(0), 0, Some(2), vec![closed(1, 0, vec![ended])]);
    assert_eq!(closes(&actions), vec![(1, Watermark::END)]);
    assert_eq!(opened(&actions), vec![2], "the last tick");
    let actions = clock.turn(MS(0), 0, Some(2), vec![closed(2, 0, vec![])]);
    assert!(
        matches!(
            &actions[0],
            Action::Close(TickClosed {
                tick: 2,
                is_last: true,
                ..
            })
        ),
        "{actions:?}"
    );
    assert_eq!(actions[1], Action::BeginAttempt(wish(SnapshotKind::Final, None, true)));
    clock.turn(MS(0), 0, Some(3), vec![Event::AttemptBegun(attempt())]);
    clock.turn(MS(0), 0, Some(3), vec![Event::Report(Report::Captured { tick: 3 })]);
    clock.turn(MS(0), 0, Some(4), vec![closed(3, 0, vec![])]);
    assert_eq!(
        clock.turn(MS(0), 0, Some(4), vec![Event::Decided]),
        vec![],
        "published first"
    );
    assert_eq!(
        clock.turn(MS(0), 0, Some(4), vec![Event::Published]),
        vec![Action::Shutdown]
    );
}

#[test]
fn stop_whose_savepoint_is_refused_is_called_off() {
    let mut clock = clock(1, table(None, None), None);
    let kind = wish(
        SnapshotKind::Savepoint(SavepointName::new("taken").unwrap()),
        Some(7),
        true,
    );
    let actions = clock.turn(MS(0), 0, Some(1), vec![Event::StopWanted(kind.clone())]);
    assert_eq!(actions, vec![Action::BeginAttempt(kind.clone())]);
    let actions = clock.turn(MS(1), 1, Some(1), vec![Event::AttemptFailed { refused: true }]);
    assert_eq!(actions, vec![]);
    assert_eq!(
        opened(&clock.turn(MS(2), 2, Some(1), vec![Event::Report(Report::Ready)])),
        vec![1],
        "the job goes on"
    );
    clock.turn(
        MS(2),
        2,
        Some(2),
        vec![settled(1, false), Event::StopWanted(kind.clone())],
    );
    let actions = clock.turn(MS(3), 3, Some(2), vec![Event::AttemptFailed { refused: false }]);
    assert_eq!(
        actions,
        vec![Action::BeginAttempt(kind)],
        "one that may succeed is repeated"
    );
}

#[test]
fn wall_time_never_goes_back() {
    let mut clock = clock(1, table(None, None), None);
    let wall_of = |actions: &[Action]| match actions.iter().find(|action| matches!(action, Action::Send { .. })) {
        Some(Action::Send {
            command: Command::Open { wall_time_ms, .. },
            ..
        }) => *wall_time_ms,
        _ => panic!("{actions:?}"),
    };
    assert_eq!(
        wall_of(&clock.turn(MS(0), 500, Some(1), vec![Event::Report(Report::Ready)])),
        500
    );
    clock.turn(MS(0), 500, Some(2), vec![settled(1, false)]);
    assert_eq!(
        wall_of(&clock.turn(MS(5), 100, Some(2), vec![Event::Report(Report::Ready)])),
        500
    );
}

#[test]
fn ended_parent_holds_the_watermark_until_its_children_are_known() {
    let mut clock = clock(1, table(None, None), None);
    clock.turn(MS(0), 0, Some(1), vec![discovered(&["a", "b"], false)]);
    clock.turn(MS(2), 2, Some(1), vec![]);
    let parent_ends = SplitReport {
        ended: true,
        ..split("b", 50, "end")
    };
    let actions = clock.turn(
        MS(2),
        2,
        Some(1),
        vec![closed(1, 0, vec![split("a", 90, "1"), parent_ends])],
    );
    assert_eq!(closes(&actions), vec![(1, Watermark(50))]);
    let told = Action::SplitEnded {
        table: 0,
        id: SplitId("b".into()),
        position: "end".into(),
    };
    assert!(actions.contains(&told), "{actions:?}");
    // A look that did not know of the end changes nothing.
    let close = whole_tick(&mut clock, 10, vec![split("a", 95, "2")]);
    assert_eq!(close.1, Watermark(50));
    // One that did brings the child, which now holds the watermark itself.
    let child = Split {
        id: SplitId("b1".into()),
        position: "0".into(),
    };
    let found = Event::Discovered {
        table: 0,
        splits: vec![child],
        complete: false,
        ended_seen: 1,
        forget: Vec::new(),
    };
    let actions = clock.turn(MS(20), 20, Some(clock.next), vec![found]);
    let [tick] = opened(&actions)[..] else {
        panic!("{actions:?}")
    };
    clock.turn(MS(20), 20, Some(tick), vec![settled(tick, false)]);
    clock.turn(MS(20), 20, Some(tick), vec![closed(tick, 0, vec![])]);
    assert_eq!(whole_tick(&mut clock, 30, vec![split("a", 99, "3")]).1, Watermark(50));
    assert_eq!(whole_tick(&mut clock, 40, vec![split("b1", 70, "1")]).1, Watermark(70));
}

#[test]
fn splits_that_ended_are_forgotten_once_they_hold_nothing_back() {
    let mut clock = clock(1, table(None, None), None);
    clock.turn(MS(0), 0, Some(1), vec![discovered(&["a", "b"], false)]);
    let ended = SplitReport {
        ended: true,
        ..split("b", 50, "end")
    };
    clock.turn(MS(0), 0, Some(1), vec![settled(1, false)]);
    clock.turn(MS(0), 0, Some(1), vec![closed(1, 0, vec![split("a", 90, "1"), ended])]);
    let forget = |ended_seen, ids: &[&str]| Event::Discovered {
        table: 0,
        splits: Vec::new(),
        complete: false,
        ended_seen,
        forget: ids.iter().map(|id| SplitId((*id).into())).collect(),
    };
    let known = |clock: &Clock| {
        let cut = clock.tables.cut(1, 0);
        cut.sources["t"].keys().cloned().collect::<Vec<_>>()
    };
    // Nobody has looked since it ended; and the other one has not ended at all.
    clock.turn(MS(10), 10, Some(clock.next), vec![forget(0, &["a", "b"])]);
    assert_eq!(known(&clock), ["a", "b"]);
    clock.turn(MS(20), 20, Some(clock.next), vec![forget(1, &["a", "b"])]);
    assert_eq!(known(&clock), ["a"]);
}

#[test]
fn split_with_rows_that_a_tick_did_not_get_to_is_not_idle() {
    let mut clock = clock(1, table(Some(100), None), None);
    clock.turn(MS(0), 0, Some(1), vec![discovered(&["a", "b"], false)]);
    clock.turn(MS(2), 2, Some(1), vec![]);
    clock.turn(
        MS(2),
        2,
        Some(1),
        vec![closed(1, 0, vec![split("a", 10, "1"), split("b", 20, "1")])],
    );
    let actions = clock.turn(MS(150), 150, Some(2), vec![Event::Report(Report::Ready)]);
    let [tick] = opened(&actions)[..] else {
        panic!("{actions:?}")
    };
    clock.turn(MS(150), 150, Some(tick), vec![settled(tick, true)]);
    let report = Report::Closed {
        tick,
        worker: 0,
        splits: vec![split("b", 80, "2")],
        more: true,
        busy: vec![(0, SplitId("a".into()))],
    };
    let actions = clock.turn(MS(150), 150, Some(tick), vec![Event::Report(report)]);
    assert_eq!(closes(&actions), vec![(tick, Watermark(10))]);
}

#[test]
fn last_wish_to_stop_counts_and_the_one_before_is_told() {
    let mut clock = clock(1, table(None, None), None);
    let first = wish(SnapshotKind::Final, Some(1), true);
    let second = wish(SnapshotKind::Savepoint(SavepointName::new("s").unwrap()), Some(2), true);
    let events = vec![Event::StopWanted(first.clone()), Event::StopWanted(second.clone())];
    let actions = clock.turn(MS(0), 0, Some(1), events);
    assert_eq!(actions, vec![Action::Replaced(first), Action::BeginAttempt(second)]);
}
