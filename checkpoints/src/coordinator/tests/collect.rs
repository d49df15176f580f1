//! Collection: what is live is never removed, whatever the history; what is not live goes.

use super::model::World;
use crate::failpoints::{Action, CKPT_GC_AFTER, When};
use crate::test_support::job;
use crate::{Failpoints, RequestId, RestoreFrom, RestoreSource, SavepointName, SnapshotKind};
use proptest::prelude::*;

#[tokio::test]
async fn a_long_run_leaves_a_bounded_number_of_objects() {
    let world = World::default();
    let mut process = world.start(&Failpoints::none()).await.unwrap();
    let mut removed = 0;
    for _ in 0..40 {
        process.checkpoint(SnapshotKind::Periodic).await.unwrap();
        removed += process.coordinator.gc(3).await.unwrap().objects;
    }
    // The newest three, and the base if it is older: two state objects each.
    assert!(world.names("j/state/").await.len() <= 8);
    assert!(world.names("j/checkpoint/").await.len() <= 5);
    assert!(world.names("j/committed/").await.len() <= 5);
    assert!(removed >= 40 * 4 - 20);
    world.check_reachable(3).await;
    let listed = world.store().list_checkpoints(&job(), 3).await.unwrap();
    let shown: Vec<_> = listed
        .iter()
        .map(|listed| (listed.manifest.checkpoint.0, listed.published, listed.restorable))
        .collect();
    assert_eq!(shown, [(40, true, true), (39, true, true), (38, true, true)]);
}

#[tokio::test]
async fn state_of_failed_attempts_is_swept_once_its_checkpoint_is_decided() {
    let world = World::default();
    let failpoints = Failpoints::new();
    failpoints.set(crate::failpoints::CKPT_MANIFEST_PUT_BEFORE, When::At(2), Action::Error);
    let mut process = world.start(&failpoints).await.unwrap();
    process.checkpoint(SnapshotKind::Periodic).await.unwrap();
    process.checkpoint(SnapshotKind::Periodic).await.unwrap_err();
    let orphans = ["j/state/1/2/2/0".to_owned(), "j/state/1/2/2/1".to_owned()];
    let mut process = world.start(&Failpoints::none()).await.unwrap();
    process.coordinator.gc(1).await.unwrap();
    // The old coordinator could still decide checkpoint 2 with it.
    let left = world.names("j/state/").await;
    assert!(orphans.iter().all(|orphan| left.contains(orphan)), "{left:?}");
    process.checkpoint(SnapshotKind::Periodic).await.unwrap();
    process.coordinator.gc(1).await.unwrap();
    let left = world.names("j/state/").await;
    assert!(!orphans.iter().any(|orphan| left.contains(orphan)), "{left:?}");
    world.check_reachable(1).await;
}

/// One thing that happens to a job.
#[derive(Clone, Debug)]
enum Event {
    Checkpoint,
    Unpublished,
    Savepoint(u8),
    RemoveSavepoint(u8),
    Collect(usize),
    CrashedCollect(usize, u64),
    FailedAttempt,
    Restart,
    Rewind(u8),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => Just(Event::Checkpoint),
        2 => Just(Event::Unpublished),
        1 => (0u8..3).prop_map(Event::Savepoint),
        1 => (0u8..3).prop_map(Event::RemoveSavepoint),
        3 => (1usize..4).prop_map(Event::Collect),
        1 => (1usize..4, 1u64..4).prop_map(|(keep, at)| Event::CrashedCollect(keep, at)),
        1 => Just(Event::FailedAttempt),
        2 => Just(Event::Restart),
        1 => (0u8..3).prop_map(Event::Rewind),
    ]
}

fn name(n: u8) -> SavepointName {
    SavepointName::new(format!("sp{n}")).unwrap()
}

async fn live_through(events: &[Event]) {
    let world = World::default();
    let none = Failpoints::none();
    let mut process = world.start(&none).await.unwrap();
    for (n, event) in events.iter().enumerate() {
        match event {
            Event::Checkpoint => {
                publish_all(&world, &mut process).await;
                process.checkpoint(SnapshotKind::Periodic).await.unwrap();
            }
            Event::Unpublished => {
                // With the backlog full there is none; the next event publishes.
                let _ = process.decide(SnapshotKind::Periodic).await;
            }
            Event::Savepoint(n) if process.coordinator.check_savepoint_name(&name(*n)).await.is_ok() => {
                publish_all(&world, &mut process).await;
                process.checkpoint(SnapshotKind::Savepoint(name(*n))).await.unwrap();
            }
            Event::Savepoint(_) => {}
            Event::RemoveSavepoint(n) => drop(world.store().delete_savepoint(&job(), &name(*n)).await),
            Event::Collect(keep) => {
                process.coordinator.gc(*keep).await.unwrap();
                world.check_reachable(1).await;
            }
            Event::CrashedCollect(keep, at) => {
                let failpoints = Failpoints::new();
                failpoints.set(CKPT_GC_AFTER, When::At(*at), Action::Error);
                process = world.start(&failpoints).await.unwrap();
                let _ = process.coordinator.gc(*keep).await;
                process = world.start(&none).await.unwrap();
            }
            Event::FailedAttempt => {
                let attempt = process.coordinator.begin().await;
                if let Ok(attempt) = attempt {
                    let state = crate::StateWriter::new().finish();
                    process.coordinator.put_state(&attempt, 0, state).await.unwrap();
                }
            }
            Event::Restart => process = world.start(&none).await.unwrap(),
            Event::Rewind(savepoint) => {
                let source = RestoreSource::Savepoint(job(), name(*savepoint));
                let request = RequestId::new(format!("r{n}")).unwrap();
                if let Ok(rewound) = world.start_from(&none, RestoreFrom::Chosen { source, request }).await {
                    // The user brings the sink to the same point, also when that is ahead of an earlier rewind.
                    world.sink.lock().unwrap().published = (1..=rewound.position).collect();
                    process = rewound;
                }
            }
        }
        world.check_output(process.position);
        world.check_reachable(1).await;
    }
    // Whatever it was, a restart restores what the last process had.
    let restarted = world.start(&none).await.unwrap();
    assert_eq!(restarted.position, process.position);
    assert_eq!(world.sink.lock().unwrap().published.len() as u64, process.position);
}

/// Restarting publishes what waits.
async fn publish_all(world: &World, process: &mut super::model::Process) {
    *process = world.start(&Failpoints::none()).await.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]
    #[test]
    fn no_history_makes_a_collection_remove_what_is_live(events in proptest::collection::vec(event(), 1..25)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(live_through(&events));
    }
}
