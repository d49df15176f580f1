//! Where a table begins to be read.

use super::fake::FakeStore;
use super::resharding::Stream as _;
use super::*;

fn starts(store: &Arc<FakeStore>, options: &[(&str, &str)]) -> Result<Vec<(String, String)>, String> {
    let shards: Arc<dyn ShardAccess> = Arc::clone(store) as _;
    let environment = ConnectorEnvironment::new().with_shards(shards);
    let source = crate::create_source(&table(schema(), options), &[0, 1], &environment).unwrap();
    let reading = Reading::new(source.as_ref());
    let mut enumerator = source.enumerator().unwrap();
    let found = reading.runtime.block_on(enumerator.discover(&BTreeMap::new()));
    let found = found.map_err(|error| error.to_string())?.new;
    let short = |split: Split| {
        (
            split.id.0.trim_start_matches("shardId-0000000000").to_owned(),
            split.position,
        )
    };
    Ok(found.into_iter().map(short).collect())
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

/// 0 was split into 1 and 2, and 1 into 3 and 4; each has four rows of each key that belongs there.
fn family() -> Arc<FakeStore> {
    let store = FakeStore::new(1, 10);
    let fill = || (0..40).for_each(|row| store.put_row(&format!("k{}", row % 10)));
    fill();
    store.split(0);
    fill();
    store.split(1);
    fill();
    store
}

#[test]
fn reading_goes_on_at_given_sequence_numbers() {
    let store = family();
    let at = |shard, record| format!("shardId-{shard:012}:{}", store.sequence(shard, record));
    // 3 is listed: 1 and 0 lie before it. 2 and 4 are not, and their parents need not be read.
    let listed = at(3, 2);
    let start = |position: &str, listed: &str| {
        starts(
            &store,
            &[
                ("source.init.position", position),
                ("source.init.sequence-numbers", listed),
            ],
        )
    };
    assert_eq!(
        start("AT_SEQUENCE_NUMBER", &listed),
        Ok(pairs(&[("02", "12@0"), ("03", "13@3"), ("04", "14@0")]))
    );
    assert_eq!(
        start("AFTER_SEQUENCE_NUMBER", &listed),
        Ok(pairs(&[("02", "12@0"), ("03", "13@4"), ("04", "14@0")]))
    );
    // A parent that is listed itself is read first, its children wait.
    let both = format!("{};{}", at(0, 5), at(2, 1));
    assert_eq!(start("AT_SEQUENCE_NUMBER", &both), Ok(pairs(&[("00", "10@6")])));
    let error = start("AT_SEQUENCE_NUMBER", "shardId-9:17").unwrap_err();
    assert!(error.contains("has no shard shardId-000000000009"), "{error}");
}

#[test]
fn a_moment_is_looked_for_in_every_generation() {
    let store = family();
    // Only the oldest has its turn; its children start at the same moment when theirs comes.
    assert_eq!(
        starts(
            &store,
            &[("source.init.position", "AT_TIMESTAMP"), ("source.init.timestamp", "7")]
        ),
        Ok(pairs(&[("00", "10@7")]))
    );
    assert_eq!(
        starts(&store, &[]).unwrap().len(),
        5,
        "latest is decided everywhere at once"
    );
}
