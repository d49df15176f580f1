//! What a user chooses to restore: once, over crashes, and into another job.

use super::model::World;
use crate::test_support::job;
use crate::{
    CheckpointId, Coordinator, Error, Failpoints, JobUid, RequestId, RestoreFrom, RestoreSource, SavepointName,
    SnapshotKind, StartOptions,
};

const PERIODIC: SnapshotKind = SnapshotKind::Periodic;

fn savepoint() -> SnapshotKind {
    SnapshotKind::Savepoint(SavepointName::new("sp").unwrap())
}

fn choose(source: &str, request: &str) -> RestoreFrom {
    let source = RestoreSource::parse(source, &job()).unwrap();
    RestoreFrom::Chosen {
        source,
        request: RequestId::new(request).unwrap(),
    }
}

/// Six checkpoints; the second is the savepoint `sp`.
async fn six() -> World {
    let world = World::default();
    let mut process = world.start(&Failpoints::none()).await.unwrap();
    for n in 0..6 {
        process
            .checkpoint(if n == 1 { savepoint() } else { PERIODIC })
            .await
            .unwrap();
    }
    world
}

/// The sink of a rewound job begins where the restored state ends.
fn rewind_output(world: &World, position: usize) {
    world.sink.lock().unwrap().published.truncate(position);
}

#[tokio::test]
async fn a_choice_is_granted_once_and_holds_over_crashes() {
    for (source, position) in [("sp", 6), ("checkpoint/4", 12), ("nothing", 0)] {
        let world = six().await;
        let choice = choose(source, "r1");
        let process = world.start_from(&Failpoints::none(), choice.clone()).await.unwrap();
        assert_eq!(process.position, position, "{source}");
        rewind_output(&world, position as usize);
        // Crashes before the first checkpoint; restarts with and without the choice on the command line.
        for restore in [RestoreFrom::Latest, choice.clone(), RestoreFrom::Latest] {
            let process = world.start_from(&Failpoints::none(), restore).await.unwrap();
            assert_eq!(process.position, position, "{source}");
        }
        if source == "sp" {
            let error = world
                .store()
                .delete_savepoint(&job(), &SavepointName::new("sp").unwrap())
                .await
                .unwrap_err();
            assert!(matches!(error, Error::SavepointInUse { .. }), "{error}");
        }
        let mut process = world.start(&Failpoints::none()).await.unwrap();
        assert_eq!(process.checkpoint(PERIODIC).await.unwrap(), CheckpointId(7));
        for restore in [RestoreFrom::Latest, choice.clone()] {
            assert_eq!(
                world.start_from(&Failpoints::none(), restore).await.unwrap().position,
                position + 3,
                "{source}"
            );
        }
        world.check_output(position + 3);
        // The user may ask for the same again.
        let again = world
            .start_from(&Failpoints::none(), choose(source, "r2"))
            .await
            .unwrap();
        assert_eq!(again.position, position, "{source}");
    }
}

#[tokio::test]
async fn output_of_a_checkpoint_rewound_over_is_never_published() {
    let world = World::default();
    let mut process = world.start(&Failpoints::none()).await.unwrap();
    process.checkpoint(PERIODIC).await.unwrap();
    process.decide(PERIODIC).await.unwrap();
    process.decide(PERIODIC).await.unwrap();
    let mut process = world
        .start_from(&Failpoints::none(), choose("checkpoint/1", "r"))
        .await
        .unwrap();
    assert_eq!(process.position, 3);
    let manifest = process.decide(PERIODIC).await.unwrap();
    assert_eq!(manifest.checkpoint, CheckpointId(4));
    // Killed before it is published: the way back from 4 leads to 1, not over 3 and 2.
    let restarted = world.start(&Failpoints::none()).await.unwrap();
    assert_eq!(restarted.position, 6);
    assert_eq!(world.sink.lock().unwrap().published, [1, 2, 3, 4, 5, 6]);
}

#[tokio::test]
async fn a_checkpoint_left_behind_unpublished_is_refused_once_a_later_one_is_published() {
    let world = World::default();
    let mut process = world.start(&Failpoints::none()).await.unwrap();
    process.checkpoint(PERIODIC).await.unwrap();
    process.decide(PERIODIC).await.unwrap();
    // Nothing later is published: it is, now.
    let process = world
        .start_from(&Failpoints::none(), choose("checkpoint/2", "r1"))
        .await
        .unwrap();
    assert_eq!(process.position, 6);
    let mut process = world.start(&Failpoints::none()).await.unwrap();
    process.decide(PERIODIC).await.unwrap();
    let mut process = world
        .start_from(&Failpoints::none(), choose("checkpoint/1", "r2"))
        .await
        .unwrap();
    assert_eq!(process.checkpoint(PERIODIC).await.unwrap(), CheckpointId(4));
    let claims = world.names("j/gen/").await;
    let choice = choose("checkpoint/3", "r3");
    let error = world.start_from(&Failpoints::none(), choice).await.err().unwrap();
    assert!(matches!(error, Error::LeftBehind { .. }), "{error}");
    assert_eq!(error.kind(), crate::ErrorKind::User);
    assert_eq!(world.names("j/gen/").await, claims);
}

#[tokio::test]
async fn a_lineage_lasts_over_restarts_and_ends_with_a_choice_or_the_checkpoints() {
    let world = World::default();
    let mut process = world.start(&Failpoints::none()).await.unwrap();
    process.checkpoint(PERIODIC).await.unwrap();
    let first = process.coordinator.lineage();
    for _ in 0..4 {
        process.checkpoint(PERIODIC).await.unwrap();
        // Claims a generation now and then.
        process.coordinator.gc(1).await.unwrap();
        process = world.start(&Failpoints::none()).await.unwrap();
        assert_eq!(process.coordinator.lineage(), first);
    }
    // What is decided and not published is published in the lineage that it was decided in; what follows, in the new one.
    let six = process.decide(PERIODIC).await.unwrap();
    let (coordinator, restore) = Coordinator::start(
        world.store(),
        world.options(&Failpoints::none(), choose("checkpoint/6", "r")),
    )
    .await
    .unwrap();
    assert_eq!(restore.unwrap().replay, std::slice::from_ref(&six));
    let permit = coordinator.permit(six.checkpoint).await.unwrap();
    assert_eq!((permit.lineage, permit.decided_by), (first, six.nonce));
    assert_ne!(coordinator.lineage(), first);
    let mut process = world.start(&Failpoints::none()).await.unwrap();
    assert_eq!(process.coordinator.lineage(), coordinator.lineage());
    let seven = process.decide(PERIODIC).await.unwrap();
    assert_eq!(
        (seven.checkpoint, seven.lineage),
        (CheckpointId(7), coordinator.lineage())
    );
    process.publish(&seven).await.unwrap();
    world.check_output(21);

    world.store().delete_job(&job()).await.unwrap();
    let process = world.start(&Failpoints::none()).await.unwrap();
    assert!(![first, coordinator.lineage()].contains(&process.coordinator.lineage()));
}

#[tokio::test]
async fn numbers_above_a_base_that_is_gone_are_not_given_again() {
    let world = six().await;
    let mut process = world.start(&Failpoints::none()).await.unwrap();
    process.coordinator.gc(1).await.unwrap();
    process.checkpoint(PERIODIC).await.unwrap();
    // Somebody deletes the checkpoints, and leaves the claims and the markers.
    world.store().delete(world.names("j/checkpoint/").await).await.unwrap();
    let error = world.start(&Failpoints::none()).await.err().unwrap();
    assert!(matches!(error, Error::CheckpointMissing { .. }), "{error}");
    let mut process = world
        .start_from(&Failpoints::none(), choose("nothing", "r"))
        .await
        .unwrap();
    // Number 7 has a marker: it would be taken for published.
    assert_eq!(process.checkpoint(PERIODIC).await.unwrap(), CheckpointId(8));
}

#[tokio::test]
async fn a_wrong_choice_is_told_and_claims_nothing() {
    let world = six().await;
    let mut process = world.start(&Failpoints::none()).await.unwrap();
    process.coordinator.gc(2).await.unwrap();
    process.decide(PERIODIC).await.unwrap();
    let claims = world.names("j/gen/").await;
    for (source, told) in [
        ("none", "there is no j/savepoint/none.json"),
        ("checkpoint/99", "there is no j/checkpoint/99.json"),
        ("other/checkpoint/1", "there is no other/checkpoint/1.json"),
        ("checkpoint/1", "there is no j/checkpoint/1.json"),
    ] {
        let error = world
            .start_from(&Failpoints::none(), choose(source, "r"))
            .await
            .err()
            .unwrap();
        assert!(error.to_string().contains(told), "{source}: {error}");
        assert_eq!(error.kind(), crate::ErrorKind::User);
    }
    assert_eq!(world.names("j/gen/").await, claims);
}

#[tokio::test]
async fn a_checkpoint_whose_state_is_collected_is_refused() {
    let world = World::default();
    let options = world.options(&Failpoints::none(), RestoreFrom::Latest);
    let (coordinator, _) = Coordinator::start(world.store(), options).await.unwrap();
    for worker in 0..4u32 {
        let attempt = coordinator.begin().await.unwrap();
        let state = coordinator
            .put_state(&attempt, worker, crate::StateWriter::new().finish())
            .await
            .unwrap();
        let snapshot = crate::Snapshot {
            state: vec![state],
            ..crate::test_support::snapshot(1)
        };
        let manifest = coordinator.decide(&attempt, snapshot).await.unwrap();
        coordinator.permit(manifest.checkpoint).await.unwrap();
        coordinator.mark_committed(manifest.checkpoint).await.unwrap();
        coordinator.gc(1).await.unwrap();
    }
    // The base stays at 1 here, so 2 and 3 are manifests on the way only.
    let listed = world.store().list_checkpoints(&job(), 9).await.unwrap();
    let restorable: Vec<_> = listed
        .iter()
        .map(|listed| (listed.manifest.checkpoint.0, listed.restorable))
        .collect();
    assert_eq!(restorable, [(4, true), (3, false), (2, false), (1, true)]);
    let error = Coordinator::start(
        world.store(),
        world.options(&Failpoints::none(), choose("checkpoint/3", "r")),
    )
    .await;
    let error = error.err().unwrap();
    assert!(matches!(error, Error::Collected { .. }), "{error}");
}

#[tokio::test]
async fn a_new_job_continues_from_another_jobs_savepoint_and_keeps_a_copy() {
    for (source, position) in [("j/savepoint/sp", 6), ("j/checkpoint/6", 18)] {
        let world = six().await;
        let new_job = JobUid::new("new").unwrap();
        let start = |restore| {
            let options = StartOptions {
                job: new_job.clone(),
                ..world.options(&Failpoints::none(), restore)
            };
            Coordinator::start(world.store(), options)
        };
        let (_, restore) = start(choose(source, "r")).await.unwrap();
        let restore = restore.unwrap();
        assert!(restore.was_published());
        assert_eq!(super::model::read_position(&restore.manifest), position);
        // Killed at once, and started again without the choice.
        let (coordinator, restore) = start(RestoreFrom::Latest).await.unwrap();
        let restored = restore.unwrap().manifest;
        assert_eq!(super::model::read_position(&restored), position);

        // Its first checkpoint takes the state over as it is.
        let attempt = coordinator.begin().await.unwrap();
        let manifest = coordinator.decide(&attempt, restored.snapshot.clone()).await.unwrap();
        assert_eq!((manifest.job.as_str(), manifest.checkpoint), ("new", CheckpointId(1)));
        assert!(
            manifest
                .snapshot
                .state
                .iter()
                .all(|state| state.object.starts_with("new/state/"))
        );
        coordinator.permit(manifest.checkpoint).await.unwrap();
        coordinator.mark_committed(manifest.checkpoint).await.unwrap();
        let theirs = world.names("j/").await;
        coordinator.gc(1).await.unwrap();
        assert_eq!(world.names("j/").await, theirs);

        // The old job goes away with everything; the new one does not need it.
        world.store().delete_job(&job()).await.unwrap();
        assert!(world.names("j/").await.is_empty());
        let (_, restore) = start(RestoreFrom::Latest).await.unwrap();
        let manifest = restore.unwrap().manifest;
        let sum = super::model::read_sum(world.store(), &manifest).await.unwrap();
        assert_eq!(sum, position * (position + 1) / 2);
    }
}

#[tokio::test]
async fn an_unpublished_checkpoint_of_another_job_is_refused() {
    let world = six().await;
    world
        .start(&Failpoints::none())
        .await
        .unwrap()
        .decide(PERIODIC)
        .await
        .unwrap();
    let options = world.options(&Failpoints::none(), choose("j/checkpoint/7", "r"));
    let options = StartOptions {
        job: JobUid::new("new").unwrap(),
        ..options
    };
    let error = Coordinator::start(world.store(), options).await.err().unwrap();
    assert!(matches!(error, Error::NotPublished { .. }), "{error}");
    assert!(world.names("new/").await.is_empty());
}

#[tokio::test]
async fn a_damaged_newest_checkpoint_can_be_left_behind_by_choice() {
    let world = six().await;
    let object = "j/checkpoint/6.json";
    world.store().delete(vec![object.to_owned()]).await.unwrap();
    world.store().create(object, "rot".into()).await.unwrap();
    assert!(
        world
            .start(&Failpoints::none())
            .await
            .err()
            .unwrap()
            .to_string()
            .contains(object)
    );
    let choice = choose("checkpoint/5", "r");
    assert_eq!(
        world
            .start_from(&Failpoints::none(), choice.clone())
            .await
            .unwrap()
            .position,
        15
    );
    rewind_output(&world, 15);
    let mut process = world.start(&Failpoints::none()).await.unwrap();
    assert_eq!(process.position, 15);
    assert_eq!(process.checkpoint(PERIODIC).await.unwrap(), CheckpointId(7));
    assert_eq!(
        world.start_from(&Failpoints::none(), choice).await.unwrap().position,
        18
    );
    // The savepoint is still known, though the list in the newest manifest could not be read.
    process.coordinator.gc(1).await.unwrap_err();
    let mut process = world.start(&Failpoints::none()).await.unwrap();
    for _ in 0..3 {
        process.checkpoint(PERIODIC).await.unwrap();
        process.coordinator.gc(1).await.unwrap();
    }
    world.check_reachable(1).await;
    assert_eq!(world.store().list_savepoints(&job()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_savepoint_name_is_taken_once() {
    let world = six().await;
    let mut process = world.start(&Failpoints::none()).await.unwrap();
    let error = process.checkpoint(savepoint()).await.unwrap_err();
    assert!(matches!(error, Error::SavepointExists { .. }), "{error}");
    let name = SavepointName::new("sp").unwrap();
    assert!(process.coordinator.check_savepoint_name(&name).await.is_err());
    process.checkpoint(PERIODIC).await.unwrap();
    // Removed by the user: its state goes, and the name is free again.
    world.store().delete_savepoint(&job(), &name).await.unwrap();
    assert!(matches!(
        world.store().delete_savepoint(&job(), &name).await,
        Err(Error::NothingToRestore { .. })
    ));
    process.coordinator.gc(1).await.unwrap();
    assert!(
        !world
            .names("j/state/")
            .await
            .iter()
            .any(|name| name.starts_with("j/state/1/2/"))
    );
    process.checkpoint(savepoint()).await.unwrap();
    assert_eq!(world.store().list_savepoints(&job()).await.unwrap().len(), 1);
    // The newest manifest still lists a removed savepoint; a restarted process takes that for no obstacle.
    world.store().delete_savepoint(&job(), &name).await.unwrap();
    let mut process = world.start(&Failpoints::none()).await.unwrap();
    process.checkpoint(savepoint()).await.unwrap();
    // Removed and given again between two collections, the second has the state of the new one in mind.
    process.coordinator.gc(1).await.unwrap();
    world.store().delete_savepoint(&job(), &name).await.unwrap();
    process.checkpoint(savepoint()).await.unwrap();
    for _ in 0..4 {
        process.checkpoint(PERIODIC).await.unwrap();
        process.coordinator.gc(1).await.unwrap();
    }
    world.check_reachable(1).await;
}
