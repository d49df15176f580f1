//! Requests that fail, answers that are lost, listings that lie, bytes that rot.

use super::model::World;
use crate::faulty::Fault;
use crate::{Error, ErrorKind, Failpoints, SavepointName, SnapshotKind};

const PERIODIC: SnapshotKind = SnapshotKind::Periodic;

fn savepoint() -> SnapshotKind {
    SnapshotKind::Savepoint(SavepointName::new("sp").unwrap())
}

#[tokio::test]
async fn a_lost_answer_of_any_create_is_found_out() {
    for part in ["/gen/", "/state/", "/checkpoint/", "/committed/", "/savepoint/"] {
        let world = World::default();
        world.objects.set_next(1, "put", part, Fault::ApplyThenFail);
        let mut process = world.start(&Failpoints::none()).await.unwrap();
        process.checkpoint(savepoint()).await.unwrap();
        process.checkpoint(PERIODIC).await.unwrap();
        process.coordinator.gc(2).await.unwrap();
        let restarted = world.start(&Failpoints::none()).await.unwrap();
        assert_eq!(restarted.position, 6, "{part}");
        world.check_output(6);
    }
}

#[tokio::test]
async fn a_conflict_without_an_object_is_tried_again() {
    for part in ["/gen/", "/state/", "/checkpoint/", "/committed/", "/savepoint/"] {
        let world = World::default();
        world.objects.set_next(2, "put", part, Fault::ClaimExists);
        let mut process = world.start(&Failpoints::none()).await.unwrap();
        process.checkpoint(savepoint()).await.unwrap();
        assert_eq!(world.start(&Failpoints::none()).await.unwrap().position, 3, "{part}");
        world.check_output(3);
    }
}

#[tokio::test]
async fn a_conflict_that_stays_fails_the_attempt_and_nothing_else() {
    let world = World::default();
    let mut process = world.start(&Failpoints::none()).await.unwrap();
    world
        .objects
        .set_next(u32::MAX, "put", "/checkpoint/", Fault::ClaimExists);
    let error = process.checkpoint(PERIODIC).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    world.objects.heal();
    assert_eq!(process.checkpoint(PERIODIC).await.unwrap().0, 1);
    world.check_output(3);
}

#[tokio::test]
async fn a_short_outage_is_not_noticed_and_a_long_one_fails_the_attempt() {
    for (failures, survives) in [(3, true), (20, false)] {
        for operation in ["put", "get"] {
            let world = World::default();
            let mut process = world.start(&Failpoints::none()).await.unwrap();
            world.objects.set_next(failures, operation, "", Fault::Fail);
            let result = process.checkpoint(PERIODIC).await;
            assert_eq!(result.is_ok(), survives, "{operation}: {result:?}");
            if let Err(error) = result {
                assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
                world.objects.heal();
                assert_eq!(process.checkpoint(PERIODIC).await.unwrap().0, 1);
            }
            world.check_output(3);
        }
    }
}

/// Applied, and every answer lost: the attempt looks failed and has succeeded. Another attempt would publish other output.
#[tokio::test]
async fn an_attempt_that_succeeded_unknown_to_us_ends_the_process() {
    let world = World::default();
    let mut process = world.start(&Failpoints::none()).await.unwrap();
    let mut applied = false;
    world.objects.set(move |operation, name| match (operation, name) {
        ("put", "j/checkpoint/1.json") if !applied => {
            applied = true;
            Some(Fault::ApplyThenFail)
        }
        (_, "j/checkpoint/1.json") => Some(Fault::Fail),
        _ => None,
    });
    assert_eq!(process.checkpoint(PERIODIC).await.unwrap_err().kind(), ErrorKind::Retry);
    world.objects.heal();
    let error = process.checkpoint(PERIODIC).await.unwrap_err();
    assert!(
        matches!(error, Error::DecidedEarlier { .. }) && error.kind() == ErrorKind::Fenced,
        "{error}"
    );
    assert_eq!(world.start(&Failpoints::none()).await.unwrap().position, 3);
    world.check_output(3);
}

/// The same, but the caller asks again with the attempt it has.
#[tokio::test]
async fn a_decision_may_be_asked_for_again() {
    let world = World::default();
    let process = world.start(&Failpoints::none()).await.unwrap();
    let attempt = process.coordinator.begin().await.unwrap();
    let mut puts = 0;
    world.objects.set(move |operation, name| {
        let hit = operation == "put" && name.contains("/checkpoint/");
        puts += u32::from(hit);
        hit.then_some(if puts == 1 { Fault::ApplyThenFail } else { Fault::Fail })
    });
    let snapshot = crate::test_support::snapshot(1);
    process
        .coordinator
        .decide(&attempt, snapshot.clone())
        .await
        .unwrap_err();
    world.objects.heal();
    let manifest = process.coordinator.decide(&attempt, snapshot).await.unwrap();
    assert_eq!(manifest.attempt, attempt.attempt);
    process.publish(&manifest).await.unwrap();
}

#[tokio::test]
async fn a_listing_that_lies_changes_nothing_that_counts() {
    let world = World::default();
    world.objects.hide("");
    let mut process = world.start(&Failpoints::none()).await.unwrap();
    process.checkpoint(savepoint()).await.unwrap();
    for _ in 0..5 {
        process.checkpoint(PERIODIC).await.unwrap();
        process.coordinator.gc(2).await.unwrap();
    }
    for name in [
        "j/checkpoint/99.json",
        "j/committed/98.json",
        "j/state/1/1/1/9",
        "j/savepoint/ghost.json",
        "j/gen/77.json",
    ] {
        world.objects.show_ghost(name);
    }
    process.coordinator.gc(2).await.unwrap();
    world.check_reachable(2).await;
    let restarted = world.start(&Failpoints::none()).await.unwrap();
    assert_eq!(restarted.position, 18);
    world.check_output(18);
    // A new job is not refused because of a ghost.
    let fresh = World::default();
    fresh.objects.show_ghost("j/committed/3.json");
    assert_eq!(fresh.start(&Failpoints::none()).await.unwrap().position, 0);
}

#[tokio::test]
async fn a_savepoint_hidden_from_listings_keeps_its_state() {
    let world = World::default();
    let mut process = world.start(&Failpoints::none()).await.unwrap();
    process.checkpoint(savepoint()).await.unwrap();
    world.objects.hide("/savepoint/");
    for round in 0..6 {
        if round == 3 {
            process = world.start(&Failpoints::none()).await.unwrap();
        }
        process.checkpoint(PERIODIC).await.unwrap();
        process.coordinator.gc(1).await.unwrap();
    }
    assert!(
        !world
            .names("j/checkpoint/")
            .await
            .contains(&"j/checkpoint/2.json".to_owned())
    );
    world.check_reachable(1).await;
}

#[tokio::test]
async fn a_damaged_object_is_named_and_nothing_is_changed() {
    for part in ["j/gen/1.json", "j/checkpoint/2.json", "j/state/1/2/2/0"] {
        let world = World::default();
        let mut process = world.start(&Failpoints::none()).await.unwrap();
        process.checkpoint(PERIODIC).await.unwrap();
        process.checkpoint(PERIODIC).await.unwrap();
        let store = world.store();
        let mut bytes = store.get(part).await.unwrap().unwrap().to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x40;
        store.delete(vec![part.to_owned()]).await.unwrap();
        store.create(part, bytes.into()).await.unwrap();
        let error = world.start(&Failpoints::none()).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{part}: {error}");
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
}

#[tokio::test]
async fn a_job_that_lost_its_checkpoints_is_not_started_from_nothing() {
    for (removed, collected) in [("j/checkpoint/", true), ("j/checkpoint/", false)] {
        let world = World::default();
        let mut process = world.start(&Failpoints::none()).await.unwrap();
        process.checkpoint(PERIODIC).await.unwrap();
        process.checkpoint(PERIODIC).await.unwrap();
        if collected {
            process.coordinator.gc(2).await.unwrap();
        }
        world.store().delete(world.names(removed).await).await.unwrap();
        let claims = world.names("j/gen/").await;
        let error = world.start(&Failpoints::none()).await.err().unwrap();
        assert!(matches!(error, Error::CheckpointMissing { .. }), "{error}");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert_eq!(world.names("j/gen/").await, claims);
    }
}

#[tokio::test]
async fn a_collection_that_cannot_see_what_is_live_removes_nothing() {
    let world = World::default();
    let mut process = world.start(&Failpoints::none()).await.unwrap();
    process.checkpoint(savepoint()).await.unwrap();
    process.checkpoint(PERIODIC).await.unwrap();
    // A process that has not read the savepoint yet.
    let mut process = world.start(&Failpoints::none()).await.unwrap();
    for _ in 0..3 {
        process.checkpoint(PERIODIC).await.unwrap();
    }
    let before = world.names("j/state/").await;
    world.objects.set_next(u32::MAX, "get", "/savepoint/", Fault::Fail);
    assert!(process.coordinator.gc(1).await.is_err());
    assert_eq!(world.names("j/state/").await, before);
    world.objects.heal();
    process.coordinator.gc(1).await.unwrap();
    assert!(world.names("j/state/").await.len() < before.len());
    world.check_reachable(1).await;
}
