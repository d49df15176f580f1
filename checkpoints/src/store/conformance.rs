//! What the protocol needs of an object store, run against each kind that can be run here.

use crate::doubles::{Cloud, Double, Fault};
use crate::store::Creation;
use crate::{Coordinator, ErrorKind, Failpoints, JobUid, Nonce, OpenOptions, RestoreFrom, SnapshotStore, StartOptions};
use std::sync::Arc;

/// The smallest part of an upload that S3 takes.
const PART: usize = 5 << 20;

async fn conforms(store: SnapshotStore) {
    // Absence is an answer, not an error.
    assert_eq!(store.get("j/a.json").await.unwrap(), None);
    assert_eq!(store.head("j/a.json").await.unwrap(), None);
    assert_eq!(store.get_ranges("j/a.json", &[0..1, 2..3]).await.unwrap(), None);
    assert!(store.list("j/").await.unwrap().is_empty());
    store.delete(vec!["j/a.json".to_owned()]).await.unwrap();

    // What is created is there at once, and is not replaced.
    assert_eq!(
        store.create("j/a.json", "first".into()).await.unwrap(),
        Creation::Created
    );
    assert_eq!(
        store.create("j/a.json", "second".into()).await.unwrap(),
        Creation::Exists("first".into())
    );
    assert_eq!(store.get("j/a.json").await.unwrap().unwrap(), "first");
    assert_eq!(store.head("j/a.json").await.unwrap(), Some(5));

    // Ranges, also empty ones, keep their order; an empty object is an object.
    let ranges = store
        .get_ranges("j/a.json", &[3..5, 1..1, 0..2])
        .await
        .unwrap()
        .unwrap();
    assert_eq!(ranges, ["st", "", "fi"]);
    store.create("j/empty", "".into()).await.unwrap();
    assert_eq!(store.get("j/empty").await.unwrap().unwrap(), "");

    // A prefix ends at a component: `j/state` does not list `j/states`.
    store.create("j/state/1/1/1/0", "s".into()).await.unwrap();
    store.create("j/states/1", "x".into()).await.unwrap();
    assert_eq!(
        store.list("j/state/").await.unwrap(),
        [("j/state/1/1/1/0".to_owned(), 1)]
    );
    assert_eq!(store.list("j/").await.unwrap().len(), 4);

    // What is deleted is gone, and only that.
    store
        .delete(vec!["j/state/1/1/1/0".to_owned(), "j/never".to_owned()])
        .await
        .unwrap();
    assert_eq!(store.get("j/state/1/1/1/0").await.unwrap(), None);
    assert!(store.list("j/state/").await.unwrap().is_empty());
    assert!(store.get("j/states/1").await.unwrap().is_some());

    // An upload in parts is there as a whole, and read across their borders.
    let mut upload = store.begin_parts("j/parts").await.unwrap();
    for (letter, bytes) in [(b'a', PART), (b'b', PART), (b'c', 1)] {
        upload.put_part(vec![letter; bytes].into()).await.unwrap();
    }
    assert_eq!(store.head("j/parts").await.unwrap(), None);
    upload.complete().await.unwrap();
    assert_eq!(store.head("j/parts").await.unwrap(), Some(2 * PART as u64 + 1));
    let border = |at: usize| at as u64 - 1..at as u64 + 1;
    let borders = store.get_ranges("j/parts", &[border(PART), border(2 * PART)]).await;
    assert_eq!(borders.unwrap().unwrap(), ["ab", "bc"]);

    // Of many concurrent creators exactly one wins, and all others see what it wrote.
    let store = Arc::new(store);
    let creators = (0..16).map(|n| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { (n, store.create("j/race", format!("by {n}").into()).await.unwrap()) })
    });
    let outcomes: Vec<_> = futures::future::join_all(creators)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let winners: Vec<_> = outcomes
        .iter()
        .filter(|(_, outcome)| *outcome == Creation::Created)
        .collect();
    let [(winner, _)] = winners[..] else {
        panic!("{} creators won", winners.len())
    };
    let content = format!("by {winner}");
    for (n, outcome) in &outcomes {
        assert!(
            n == winner || *outcome == Creation::Exists(content.clone().into()),
            "{n}: {outcome:?}"
        );
    }
}

#[tokio::test]
async fn memory_conforms() {
    conforms(SnapshotStore::open("memory://conformance").unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_conforms() {
    let temp = tempfile::tempdir().unwrap();
    conforms(SnapshotStore::open(&format!("file://{}", temp.path().display())).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cloud_conforms() {
    for cloud in Cloud::ALL {
        for prefix in ["", "a b/c"] {
            let double = Double::start(cloud);
            conforms(double.store(prefix)).await;
            let names: Vec<String> = double.objects().into_keys().collect();
            assert!(names.iter().all(|name| name.starts_with(prefix)), "{names:?}");
            assert!(double.odd().is_empty(), "{cloud:?}: {:?}", double.odd());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cloud_that_fails_is_asked_again_and_what_became_of_a_write_is_found_out() {
    for cloud in Cloud::ALL {
        let double = Double::start(cloud);
        let store = double.store("");
        double.fail_next("PUT", "lost", Fault::AppliedThenUnavailable);
        let mine = || "mine".into();
        assert_eq!(store.create("lost", mine()).await.unwrap(), Creation::Exists(mine()));
        double.fail_next("PUT", "busy", Fault::Unavailable);
        assert_eq!(store.create("busy", mine()).await.unwrap(), Creation::Created);
        double.fail_next("GET", "busy", Fault::Unavailable);
        assert_eq!(store.get("busy").await.unwrap(), Some(mine()));
        double.fail_next("GET", "busy", Fault::Forbidden);
        let error = store.get("busy").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::User, "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
        assert!(double.odd().is_empty(), "{cloud:?}: {:?}", double.odd());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_creates_an_object_twice_gets_no_job() {
    for cloud in Cloud::ALL {
        let double = Double::start(cloud);
        let start = async || {
            let options = StartOptions {
                job: JobUid::new("j").unwrap(),
                nonce: Nonce::random(),
                restore: RestoreFrom::Latest,
                started_ms: 0,
                failpoints: Failpoints::none(),
            };
            Coordinator::start(double.store(""), options).await
        };
        start().await.unwrap();
        double.ignore_conditions();
        let error = start().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::User);
        assert!(error.to_string().contains("does not know create-if-absent"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_not_to_be_signed_ask_nobody_for_credentials() {
    for (cloud, variable) in [
        (Cloud::Aws, "AWS_SKIP_SIGNATURE"),
        (Cloud::Google, "GOOGLE_SKIP_SIGNATURE"),
        (Cloud::Azure, "AZURE_SKIP_SIGNATURE"),
    ] {
        let double = Double::start(cloud);
        let mut options = OpenOptions {
            environment: double.environment(),
            ..OpenOptions::from_process()
        };
        options.environment.remove("GOOGLE_BEARER_TOKEN");
        options.environment.insert(variable.to_owned(), "true".to_owned());
        let store = SnapshotStore::open_with(&double.url(""), options).unwrap();
        // The double lets nobody in.
        let write = store.create("x", "1".into()).await.unwrap_err();
        let delete = store.delete(vec!["x".to_owned()]).await.unwrap_err();
        for error in [write, store.get("x").await.unwrap_err(), delete] {
            let told = error.to_string();
            assert!(told.contains("401") || told.contains("403"), "{cloud:?}: {told}");
            assert!(!told.contains("token"), "{cloud:?}: {told}");
        }
    }
}

/// Against a real service or an emulator, by hand; see CONTRIBUTING.md.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs an empty place in a store: TIDEMILL_CONFORMANCE_URL, and the variables of its cloud"]
async fn the_store_of_the_environment_conforms() {
    let url = std::env::var("TIDEMILL_CONFORMANCE_URL").expect("TIDEMILL_CONFORMANCE_URL");
    conforms(SnapshotStore::open(&url).unwrap()).await;
}

#[tokio::test]
async fn names_that_leave_the_store_are_refused() {
    let store = SnapshotStore::in_memory();
    for name in ["../x", "a/../b", "a//b"] {
        assert_eq!(
            store.get(name).await.unwrap_err().kind(),
            crate::ErrorKind::User,
            "{name}"
        );
    }
}
