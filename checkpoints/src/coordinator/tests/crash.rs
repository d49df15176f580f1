//! A crash at every step, then restarts: they converge, and nothing is lost or twice.

use super::model::World;
use crate::failpoints::{Action, CHECKPOINT_FAILPOINTS, When};
use crate::{Failpoints, SavepointName, SnapshotKind};

/// Takes four checkpoints, one of them as a savepoint, and collects after each.
async fn run(world: &World, failpoints: &Failpoints) -> crate::Result<()> {
    let mut process = world.start(failpoints).await?;
    for n in 0..4 {
        let name = SavepointName::new("sp").unwrap();
        let kind = match process.coordinator.check_savepoint_name(&name).await {
            Ok(()) if n == 1 => SnapshotKind::Savepoint(name),
            _ => SnapshotKind::Periodic,
        };
        process.checkpoint(kind).await?;
        process.coordinator.gc(2).await?;
        world.check_output(process.position);
    }
    Ok(())
}

#[tokio::test]
async fn a_crash_at_every_step_converges() {
    // First without a crash, and once more for the steps of a restart, to learn how often each step is passed.
    let world = World::default();
    let counting = Failpoints::new();
    run(&world, &counting).await.unwrap();
    let unpublished = world
        .start(&Failpoints::none())
        .await
        .unwrap()
        .decide(SnapshotKind::Periodic)
        .await;
    unpublished.unwrap();
    run(&world, &counting).await.unwrap();
    let steps = counting.all_hits();
    for name in CHECKPOINT_FAILPOINTS {
        assert!(steps.contains_key(*name), "{name} was never passed");
    }

    for (name, hits) in steps {
        for hit in 1..=hits {
            let world = World::default();
            let failpoints = Failpoints::new();
            failpoints.set(&name, When::At(hit), Action::Error);
            // Dropping the process at the error is what a kill leaves behind.
            let mut crashes = 0;
            for _ in 0..2 {
                crashes += u32::from(run(&world, &failpoints).await.is_err());
                let unpublished = world
                    .start(&Failpoints::none())
                    .await
                    .unwrap()
                    .decide(SnapshotKind::Periodic)
                    .await;
                unpublished.unwrap();
            }
            crashes += u32::from(run(&world, &failpoints).await.is_err());
            assert!(crashes <= 1, "{name}@{hit}");

            let last = world.start(&Failpoints::none()).await.unwrap();
            let count = world.sink.lock().unwrap().published.len() as u64;
            assert_eq!(
                count, last.position,
                "{name}@{hit}: all that is decided is published after a restart"
            );
            world.check_output(last.position);
            world.check_reachable(2).await;
            let savepoints = world
                .store()
                .list_savepoints(&crate::test_support::job())
                .await
                .unwrap();
            assert_eq!(savepoints.len(), 1, "{name}@{hit}");
        }
    }
}

#[tokio::test]
async fn a_crash_loop_while_publishing_again_converges() {
    let world = World::default();
    let mut process = world.start(&Failpoints::none()).await.unwrap();
    process.decide(SnapshotKind::Periodic).await.unwrap();
    process.decide(SnapshotKind::Periodic).await.unwrap();
    for _ in 0..10 {
        for name in ["restore.replay_commit", "ckpt.committed.put.before"] {
            let failpoints = Failpoints::new();
            failpoints.set(name, When::At(1), Action::Error);
            assert!(world.start(&failpoints).await.is_err());
            world.check_output(6);
        }
    }
    let process = world.start(&Failpoints::none()).await.unwrap();
    assert_eq!((process.position, world.sink.lock().unwrap().published.len()), (6, 6));
}

#[tokio::test]
async fn an_empty_checkpoint_is_a_checkpoint() {
    let world = World::default();
    let process = world.start(&Failpoints::none()).await.unwrap();
    for expected in 1..=3 {
        let attempt = process.coordinator.begin().await.unwrap();
        let manifest = process
            .coordinator
            .decide(&attempt, crate::test_support::snapshot(1))
            .await
            .unwrap();
        assert_eq!(manifest.checkpoint.0, expected);
        process.publish(&manifest).await.unwrap();
    }
    let options = world.options(&Failpoints::none(), crate::RestoreFrom::Latest);
    let (_, restore) = crate::Coordinator::start(world.store(), options).await.unwrap();
    let restore = restore.unwrap();
    assert!(restore.was_published());
    assert_eq!((restore.manifest.checkpoint.0, restore.manifest.snapshot.tick), (3, 1));
}
