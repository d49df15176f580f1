//! Two coordinators of one job, and messages that come late.

use super::model::World;
use crate::failpoints::{Action, CKPT_MANIFEST_PUT_BEFORE, Pause, When};
use crate::{Coordinator, Error, ErrorKind, Failpoints, RestoreFrom, SnapshotKind, StateWriter};
use std::sync::Arc;

const PERIODIC: SnapshotKind = SnapshotKind::Periodic;

#[tokio::test]
async fn every_step_of_the_older_coordinator_is_fenced() {
    let world = World::default();
    let mut older = world.start(&Failpoints::none()).await.unwrap();
    let waiting = older.decide(PERIODIC).await.unwrap();
    let attempt = older.coordinator.begin().await.unwrap();

    let mut newer = world.start(&Failpoints::none()).await.unwrap();
    assert!(newer.coordinator.generation() > older.coordinator.generation());
    let fenced = |error: Error, step: &str| {
        assert_eq!(error.kind(), ErrorKind::Fenced, "{step}: {error}");
        assert!(error.to_string().contains("j/gen/2.json"), "{step}: {error}");
    };
    fenced(older.coordinator.begin().await.unwrap_err(), "begin");
    fenced(
        older.coordinator.permit(waiting.checkpoint).await.unwrap_err(),
        "permit",
    );
    let snapshot = crate::test_support::snapshot(9);
    fenced(
        older.coordinator.decide(&attempt, snapshot).await.unwrap_err(),
        "decide",
    );
    fenced(older.coordinator.gc(1).await.unwrap_err(), "gc");

    newer.checkpoint(PERIODIC).await.unwrap();
    world.check_output(newer.position);
    assert_eq!(world.sink.lock().unwrap().published.len(), 6);
}

/// The older one is stopped between its last look and the decision, and goes on when the newer one has started.
#[tokio::test]
async fn a_paused_coordinator_and_its_successor_agree_on_one_decision() {
    for successor_is_first in [true, false] {
        let world = World::default();
        let pause = Pause::new();
        // The pause lies in the store, behind the fence check.
        let (held, reached) = (pause.clone(), Arc::new(Failpoints::new()));
        reached.set("put", When::At(1), Action::Pause(held));
        let inside = Arc::clone(&reached);
        world.objects.set(move |operation, name| {
            if operation == "put" && name == "j/checkpoint/1.json" {
                inside.hit("put").unwrap();
            }
            None
        });
        let mut older = world.start(&Failpoints::none()).await.unwrap();
        let blocked = tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(older.checkpoint(PERIODIC))
        });
        pause.reached().await;
        // The paused thread holds the rule of the store; a store without rules on the same objects is for the successor.
        let twin = world.without_faults();
        let mut newer = twin.start(&Failpoints::none()).await.unwrap();
        if successor_is_first {
            newer.checkpoint(PERIODIC).await.unwrap();
            pause.release();
            let error = blocked.await.unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
            assert!(error.to_string().contains("checkpoint/1.json"), "{error}");
        } else {
            pause.release();
            // It decides, and then gets no permit.
            let error = blocked.await.unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
            let error = newer.checkpoint(PERIODIC).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
            // The successor of both takes that checkpoint over.
            let third = twin.start(&Failpoints::none()).await.unwrap();
            assert_eq!(third.position, 3);
        }
        assert_eq!(world.sink.lock().unwrap().published, [1, 2, 3]);
    }
}

#[tokio::test]
async fn a_coordinator_whose_checkpoints_were_deleted_decides_and_publishes_nothing_more() {
    let world = World::default();
    let mut first = world.start(&Failpoints::none()).await.unwrap();
    first.checkpoint(PERIODIC).await.unwrap();
    let waiting = first.decide(PERIODIC).await.unwrap();
    let attempt = first.coordinator.begin().await.unwrap();
    world.store().delete_job(&crate::test_support::job()).await.unwrap();
    let coordinator = &first.coordinator;
    let refused = async |told: &str| {
        for error in [
            coordinator.begin().await.unwrap_err(),
            coordinator
                .decide(&attempt, crate::test_support::snapshot(1))
                .await
                .unwrap_err(),
            coordinator.permit(waiting.checkpoint).await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
            assert!(error.to_string().contains(told), "{error}");
        }
    };
    refused("deleted while it runs").await;
    // The job is started again: it counts from the beginning, and its claims have the names of the old ones.
    let mut second = world.start(&Failpoints::none()).await.unwrap();
    assert_eq!(second.position, 0);
    let one = second.decide(PERIODIC).await.unwrap();
    assert_ne!(one.lineage, waiting.lineage);
    refused("fenced by j/gen/1.json").await;
    second.publish(&one).await.unwrap();
    assert_eq!(world.sink.lock().unwrap().published, [1, 2, 3, 1, 2, 3]);
    assert_eq!(world.names("j/checkpoint/").await, ["j/checkpoint/1.json"]);
}

#[tokio::test]
async fn of_many_coordinators_starting_at_once_one_remains() {
    let world = World::default();
    world
        .start(&Failpoints::none())
        .await
        .unwrap()
        .checkpoint(PERIODIC)
        .await
        .unwrap();
    let starts = (0..8).map(|_| {
        let options = world.options(&Failpoints::none(), RestoreFrom::Latest);
        let store = world.store();
        tokio::spawn(async move { Coordinator::start(store, options).await.unwrap().0 })
    });
    let coordinators: Vec<_> = futures::future::join_all(starts)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let mut owners = 0;
    for coordinator in &coordinators {
        owners += u32::from(coordinator.begin().await.is_ok());
    }
    assert_eq!(owners, 1);
    let mut generations: Vec<_> = coordinators.iter().map(Coordinator::generation).collect();
    generations.sort();
    generations.dedup();
    assert_eq!(generations.len(), 8);
}

#[tokio::test]
async fn state_of_an_older_attempt_is_refused() {
    let world = World::default();
    let process = world.start(&Failpoints::none()).await.unwrap();
    let first = process.coordinator.begin().await.unwrap();
    let second = process.coordinator.begin().await.unwrap();
    let error = process
        .coordinator
        .put_state(&first, 0, StateWriter::new().finish())
        .await
        .unwrap_err();
    assert!(
        matches!(error, Error::StaleAttempt { .. }) && error.kind() == ErrorKind::Conflict,
        "{error}"
    );
    let error = process
        .coordinator
        .decide(&first, crate::test_support::snapshot(1))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::StaleAttempt { .. }), "{error}");
    // From another process, which cannot know: the state lies apart and is never referred to.
    process
        .coordinator
        .uploader()
        .put_state(&first, 0, StateWriter::new().finish())
        .await
        .unwrap();
    let state = process
        .coordinator
        .put_state(&second, 0, StateWriter::new().finish())
        .await
        .unwrap();
    let manifest = crate::Snapshot {
        state: vec![state],
        ..crate::test_support::snapshot(1)
    };
    let manifest = process.coordinator.decide(&second, manifest).await.unwrap();
    assert_eq!(manifest.snapshot.state[0].object, "j/state/1/1/2/0");
    process.publish(&manifest).await.unwrap();
    process.coordinator.gc(1).await.unwrap();
    assert_eq!(world.names("j/state/").await, ["j/state/1/1/2/0"]);
}

#[tokio::test]
async fn a_failed_decision_does_not_take_its_checkpoint() {
    let world = World::default();
    let failpoints = Failpoints::new();
    failpoints.set(CKPT_MANIFEST_PUT_BEFORE, When::At(2), Action::Error);
    let mut process = world.start(&failpoints).await.unwrap();
    process.checkpoint(PERIODIC).await.unwrap();
    assert_eq!(process.checkpoint(PERIODIC).await.unwrap_err().kind(), ErrorKind::Retry);
    assert_eq!(process.checkpoint(PERIODIC).await.unwrap().0, 2);
    world.check_output(6);
}
