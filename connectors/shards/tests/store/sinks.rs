//! Stage, publish, replay, fence.

use tidemill_shards::env::SimDisk;
use tidemill_shards::{
    ErrorKind, PublishOutcome, PublishRequest, ShardStore, StageRequest, StagedRef, StoreError, Uuid,
};

use crate::support::*;

/// The lineage of another run of the job.
const OTHER: Uuid = Uuid([9; 16]);

async fn stage(store: &ShardStore, checkpoint: u64, worker: u32, data: &[&str]) -> StagedRef {
    stage_in(store, LINEAGE, checkpoint, worker, data).await
}

async fn stage_in(store: &ShardStore, lineage: Uuid, checkpoint: u64, worker: u32, data: &[&str]) -> StagedRef {
    let entries = data.iter().map(|data| entry(data, *data)).collect();
    let request = StageRequest {
        job: "job".into(),
        sink: "sink".into(),
        stream: name("out"),
        lineage,
        checkpoint,
        attempt: 1,
        worker,
        entries,
    };
    store.stage(request).await.unwrap()
}

fn request(checkpoint: u64, generation: u64, staged: Vec<StagedRef>) -> PublishRequest {
    PublishRequest {
        job: "job".into(),
        sink: "sink".into(),
        lineage: LINEAGE,
        checkpoint,
        generation,
        decided_by: DECIDER,
        staged,
    }
}

fn visible(store: &ShardStore) -> Vec<String> {
    let mut all: Vec<String> = (0..2)
        .flat_map(|id| texts(&read_all(store, &shard("out", id)).unwrap()))
        .collect();
    all.sort();
    all
}

#[test]
fn staged_records_are_invisible_until_published_and_published_once() {
    block_on(async {
        let disk = SimDisk::new();
        let store = open(&disk).unwrap();
        create(&store, "out", 2).await;
        let staged = vec![
            stage(&store, 1, 0, &["a", "b", "c"]).await,
            stage(&store, 1, 1, &["d"]).await,
        ];
        assert!(visible(&store).is_empty());
        // References survive a restart and serialisation, and the log may go on in between.
        let json = serde_json::to_string(&staged).unwrap();
        let staged: Vec<StagedRef> = serde_json::from_str(&json).unwrap();
        drop(store);
        let store = open(&disk).unwrap();
        assert!(visible(&store).is_empty());
        for index in 0..100 {
            put(&store, "out", "p", format!("{index:0100}")).await;
        }
        let before = visible(&store).len();
        let outcome = store.publish(request(1, 1, staged.clone())).await.unwrap();
        assert_eq!(outcome, PublishOutcome::Published { records: 4 });
        assert_eq!(visible(&store).len(), before + 4);
        assert_eq!(visible(&store)[before..], ["a", "b", "c", "d"]);

        // Again: by the same, after a restart, by a newer generation, and with references that are gone.
        assert_eq!(
            store.publish(request(1, 1, staged.clone())).await.unwrap(),
            PublishOutcome::Replayed
        );
        drop(store);
        let store = open(&disk).unwrap();
        assert_eq!(visible(&store).len(), before + 4);
        assert_eq!(
            store.publish(request(1, 1, staged.clone())).await.unwrap(),
            PublishOutcome::Replayed
        );
        assert_eq!(
            store.publish(request(1, 5, Vec::new())).await.unwrap(),
            PublishOutcome::Replayed
        );
        assert_eq!(visible(&store).len(), before + 4);

        // Sequence numbers rise over puts and publishes.
        put(&store, "out", "p", "last").await;
        for id in 0..2 {
            let records = read_all(&store, &shard("out", id)).unwrap();
            assert!(records.windows(2).all(|pair| pair[0].sequence < pair[1].sequence));
            assert!(records.windows(2).all(|pair| pair[0].arrival_ms <= pair[1].arrival_ms));
        }
    });
}

#[test]
fn older_checkpoints_and_generations_are_fenced_also_after_a_restart() {
    block_on(async {
        let disk = SimDisk::new();
        let store = open(&disk).unwrap();
        create(&store, "out", 2).await;
        let (first, second) = (stage(&store, 1, 0, &["a"]).await, stage(&store, 2, 0, &["b"]).await);
        store.publish(request(2, 3, vec![second])).await.unwrap();
        let check = async |store: &ShardStore| {
            let stale = store.publish(request(1, 3, vec![first.clone()])).await.unwrap_err();
            assert!(
                matches!(
                    stale,
                    StoreError::StaleCheckpoint {
                        checkpoint: 1,
                        published: 2,
                        ..
                    }
                ),
                "{stale}"
            );
            let stale = store.publish(request(3, 2, Vec::new())).await.unwrap_err();
            assert!(
                matches!(
                    stale,
                    StoreError::StaleGeneration {
                        generation: 2,
                        newest: 3,
                        ..
                    }
                ),
                "{stale}"
            );
            assert_eq!(stale.kind(), ErrorKind::Fenced);
            assert_eq!(visible(store), ["b"]);
        };
        check(&store).await;
        drop(store);
        let store = open(&disk).unwrap();
        check(&store).await;
        // A replay by a newer generation fences the older one, although nothing new was published.
        store.publish(request(2, 4, Vec::new())).await.unwrap();
        drop(store);
        let store = open(&disk).unwrap();
        let stale = store.publish(request(3, 3, Vec::new())).await.unwrap_err();
        assert!(
            matches!(stale, StoreError::StaleGeneration { newest: 4, .. }),
            "{stale}"
        );
        // An empty checkpoint is a checkpoint.
        assert_eq!(
            store.publish(request(3, 4, Vec::new())).await.unwrap(),
            PublishOutcome::Published { records: 0 }
        );
        // A job that is deleted for good may start again.
        store.forget_job("job").await.unwrap();
        let again = stage(&store, 1, 0, &["c"]).await;
        store.publish(request(1, 1, vec![again])).await.unwrap();
        assert_eq!(visible(&store), ["b", "c"]);
    });
}

#[test]
fn references_that_do_not_fit_are_refused() {
    block_on(async {
        let disk = SimDisk::new();
        let store = open(&disk).unwrap();
        create(&store, "out", 2).await;
        let staged = stage(&store, 1, 0, &["a", "b", "c", "d"]).await;
        let refused = async |staged: Vec<StagedRef>, checkpoint| {
            let error = store.publish(request(checkpoint, 1, staged)).await.unwrap_err();
            assert!(matches!(error, StoreError::StagedMismatch { .. }), "{error}");
            assert!(visible(&store).is_empty());
        };
        refused(vec![staged.clone()], 2).await;
        refused(
            vec![StagedRef {
                checkpoint: 2,
                ..staged.clone()
            }],
            2,
        )
        .await;
        refused(
            vec![StagedRef {
                lineage: OTHER,
                ..staged.clone()
            }],
            1,
        )
        .await;
        refused(
            vec![StagedRef {
                job: "other".into(),
                ..staged.clone()
            }],
            1,
        )
        .await;
        refused(vec![staged.clone(), staged.clone()], 1).await;
        let mut moved = staged.clone();
        moved.extents[0].offset += 8;
        refused(vec![moved], 1).await;
        let mut beyond = staged.clone();
        beyond.extents[0].len = u32::MAX;
        refused(vec![beyond], 1).await;
        let mut more = staged.clone();
        more.extents[0].records += 1;
        refused(vec![more], 1).await;
        // After all that, the right one is accepted.
        store.publish(request(1, 1, vec![staged])).await.unwrap();
        assert_eq!(visible(&store), ["a", "b", "c", "d"]);
    });
}

#[test]
fn publishing_to_a_deleted_stream_is_an_error() {
    block_on(async {
        let store = open(&SimDisk::new()).unwrap();
        create(&store, "out", 2).await;
        let staged = stage(&store, 1, 0, &["a"]).await;
        store.delete_stream(&name("out")).await.unwrap();
        let error = store.publish(request(1, 1, vec![staged.clone()])).await.unwrap_err();
        assert!(matches!(error, StoreError::StreamNotFound(_)), "{error}");
        create(&store, "out", 2).await;
        let error = store.publish(request(1, 1, vec![staged])).await.unwrap_err();
        assert!(matches!(error, StoreError::StagedMismatch { .. }), "{error}");
    });
}

#[test]
fn a_new_run_under_an_old_name_publishes_and_ends_the_old_one() {
    block_on(async {
        let disk = SimDisk::new();
        let store = open(&disk).unwrap();
        create(&store, "out", 2).await;
        let old = |checkpoint, staged| request(checkpoint, 1, staged);
        let new = |checkpoint, generation, staged| PublishRequest {
            lineage: OTHER,
            decided_by: OTHER,
            ..request(checkpoint, generation, staged)
        };
        for (checkpoint, row) in [(1, "a"), (2, "b")] {
            let staged = vec![stage(&store, checkpoint, 0, &[row]).await];
            store.publish(old(checkpoint, staged)).await.unwrap();
        }
        let three = stage(&store, 3, 0, &["zombie"]).await;
        // Another sink of the job has its last publish with the old run, too.
        let mut aside = old(7, Vec::new());
        aside.sink = "aside".into();
        store.publish(aside.clone()).await.unwrap();

        // The checkpoints were deleted: the numbers begin again.
        let one = vec![stage_in(&store, OTHER, 1, 0, &["c"]).await];
        let two = vec![stage_in(&store, OTHER, 2, 0, &["d"]).await];
        let published = |records| Ok(PublishOutcome::Published { records });
        assert_eq!(store.publish(new(1, 1, one.clone())).await, published(1));
        assert_eq!(
            store.publish(new(1, 1, one.clone())).await,
            Ok(PublishOutcome::Replayed)
        );
        // The old one is over for all its sinks.
        aside.checkpoint = 8;
        for zombie in [
            old(3, vec![three.clone()]),
            old(1, Vec::new()),
            old(2, Vec::new()),
            aside,
        ] {
            let error = store.publish(zombie).await.unwrap_err();
            assert!(
                matches!(error, StoreError::RetiredLineage { lineage: LINEAGE, .. }),
                "{error}"
            );
            assert_eq!(error.kind(), ErrorKind::Fenced);
        }
        drop(store);
        let store = open(&disk).unwrap();
        let error = store.publish(old(3, vec![three.clone()])).await.unwrap_err();
        assert!(error.to_string().contains("another run of job"), "{error}");
        assert_eq!(store.publish(new(1, 2, one)).await, Ok(PublishOutcome::Replayed));
        assert_eq!(store.publish(new(2, 2, two)).await, published(1));
        let mut aside_new = new(1, 2, Vec::new());
        aside_new.sink = "aside".into();
        assert_eq!(store.publish(aside_new).await, published(0));
        assert_eq!(visible(&store), ["a", "b", "c", "d"]);
    });
}

#[test]
fn two_contents_under_one_number_are_refused() {
    block_on(async {
        let disk = SimDisk::new();
        let store = open(&disk).unwrap();
        create(&store, "out", 2).await;
        let staged = vec![stage(&store, 4, 0, &["a"]).await];
        store.publish(request(4, 1, staged)).await.unwrap();
        // A copy of the checkpoints from before 4: another process decides a 4 of its own.
        let other = PublishRequest {
            decided_by: OTHER,
            ..request(4, 2, vec![stage(&store, 4, 0, &["b"]).await])
        };
        let error = store.publish(other).await.unwrap_err();
        assert!(
            matches!(error, StoreError::RepeatedCheckpoint { checkpoint: 4, .. }),
            "{error}"
        );
        assert_eq!(visible(&store), ["a"]);
    });
}
