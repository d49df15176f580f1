use super::*;
use crate::conformance::source::{Reading, check_bounded};
use arrow::array::{Array, AsArray, RecordBatch, StructArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{Int32Type, Int64Type, TimestampMillisecondType};
use std::collections::HashSet;
use std::time::Duration;
use tidemill_engine::source::ReadOutcome;
use tidemill_engine::time::ManualTime;

fn table(schema: SchemaRef, options: &[(&str, &str)]) -> TableDefinition {
    let options = options.iter().chain(&[("connector", "nexmark")]);
    TableDefinition {
        name: "t".to_owned(),
        schema,
        metadata_columns: Vec::new(),
        options: options.map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        partition_keys: Vec::new(),
        primary_key: Vec::new(),
    }
}

fn source(options: &[(&str, &str)]) -> NexmarkSource {
    projected(nexmark_schema(), options)
}

fn projected(schema: SchemaRef, options: &[(&str, &str)]) -> NexmarkSource {
    let all: Vec<usize> = (0..schema.fields().len()).collect();
    NexmarkSource::new(&table(schema, options), &all, &ConnectorEnvironment::new()).unwrap()
}

/// Reads the only split.
fn events(options: &[(&str, &str)]) -> RecordBatch {
    let source = source(&[options, &[("splits", "1")]].concat());
    let reading = Reading::new(&source);
    let split = reading.discover(&BTreeMap::new()).remove(0);
    let mut reader = reading.open(&split);
    let mut batches = Vec::new();
    while let Some(batch) = reading.next(reader.as_mut(), 5_000).unwrap() {
        batches.push(batch);
    }
    concat_batches(&source.schema, &batches).unwrap()
}

fn row<'a>(events: &'a RecordBatch, name: &str) -> &'a StructArray {
    events.column_by_name(name).unwrap().as_struct()
}

fn numbers<'a>(row: &'a StructArray, field: &str) -> impl Iterator<Item = i64> + 'a {
    let column = row.column_by_name(field).unwrap();
    column.as_primitive::<Int64Type>().iter().flatten()
}

fn times<'a>(row: &'a StructArray, field: &str) -> impl Iterator<Item = i64> + 'a {
    let column = row.column_by_name(field).unwrap();
    column.as_primitive::<TimestampMillisecondType>().iter().flatten()
}

fn texts<'a>(row: &'a StructArray, field: &str) -> impl Iterator<Item = &'a str> + 'a {
    row.column_by_name(field).unwrap().as_string::<i32>().iter().flatten()
}

fn share<T>(values: impl Iterator<Item = T>, is: impl Fn(T) -> bool) -> f64 {
    let (mut found, mut all) = (0, 0);
    for value in values {
        all += 1;
        found += u32::from(is(value));
    }
    f64::from(found) / f64::from(all)
}

#[test]
fn splits_make_the_events_of_one() {
    let one = check_bounded(&source(&[("events", "777"), ("splits", "1")]));
    assert_eq!(one.len(), 777);
    for splits in ["2", "3", "5", "40"] {
        assert_eq!(check_bounded(&source(&[("events", "777"), ("splits", splits)])), one);
    }
    assert_ne!(check_bounded(&source(&[("events", "777"), ("seed", "1")])), one);
}

#[test]
fn kinds_come_in_their_proportions_and_have_their_columns() {
    let events = events(&[("events", "9999")]);
    let kinds = events.column(0).as_primitive::<Int32Type>();
    let count = |kind: i32| kinds.values().iter().filter(|found| **found == kind).count();
    assert_eq!((count(0), count(1), count(2)), (199, 600, 9_200));
    for (kind, name) in [(0, "person"), (1, "auction"), (2, "bid")] {
        let rows = row(&events, name);
        for index in 0..events.num_rows() {
            assert_eq!(rows.is_valid(index), kinds.value(index) == kind);
        }
        for column in rows.columns() {
            assert_eq!(column.nulls(), rows.nulls(), "{name}");
        }
    }
}

#[test]
fn ids_count_up_and_hot_ones_are_taken_as_often_as_described() {
    let events = events(&[("events", "300000"), ("first.event.rate", "1000")]);
    let (persons, auctions, bids) = (row(&events, "person"), row(&events, "auction"), row(&events, "bid"));
    assert!(numbers(persons, "id").eq(1_001..=7_000));
    assert!(numbers(auctions, "id").eq(1_000..19_000));
    let near = |found: f64, expected: f64| assert!((found - expected).abs() < 0.02, "{found} is not {expected}");
    near(share(numbers(auctions, "seller"), |seller| seller % 100 == 0), 0.75);
    near(share(numbers(bids, "bidder"), |bidder| bidder % 100 == 1), 0.75);
    near(share(numbers(bids, "auction"), |auction| auction % 100 == 0), 0.5);
    near(share(numbers(auctions, "category"), |category| category == 12), 0.2);
    // Nobody is far from the newest.
    let (mut person, mut auction) = (1_000, 999);
    let kinds = events.column(0).as_primitive::<Int32Type>().values();
    let bidder = bids.column_by_name("bidder").unwrap().as_primitive::<Int64Type>();
    let bid_on = bids.column_by_name("auction").unwrap().as_primitive::<Int64Type>();
    for (index, kind) in kinds.iter().enumerate() {
        match kind {
            0 => person += 1,
            1 => auction += 1,
            _ => {
                let (bidder, bid_on) = (bidder.value(index), bid_on.value(index));
                assert!(
                    (person - 999).max(1_000) <= bidder && bidder <= person + 10,
                    "{bidder} {person}"
                );
                assert!(
                    (auction - 100).max(1_000) <= bid_on && bid_on <= auction + 10,
                    "{bid_on} {auction}"
                );
            }
        }
    }
}

#[test]
fn times_rise_by_the_rate_and_auctions_end_later() {
    let events = events(&[("events", "5000"), ("first.event.rate", "1000")]);
    let (auctions, bids) = (row(&events, "auction"), row(&events, "bid"));
    let start = 1_436_918_400_000;
    let expected = (1..=5_000_i64)
        .filter(|number| number % 50 >= 4)
        .map(|number| start + number);
    assert!(times(bids, "dateTime").eq(expected));
    // At a thousand events a second, 1,666 of them take 1,666 ms.
    for (opened, expires) in times(auctions, "dateTime").zip(times(auctions, "expires")) {
        assert!((1..=2 * 1_666).contains(&(expires - opened)), "{opened} {expires}");
    }
}

#[test]
fn prices_channels_and_texts_are_as_described() {
    let events = events(&[("events", "100000")]);
    let (persons, auctions, bids) = (row(&events, "person"), row(&events, "auction"), row(&events, "bid"));
    let near = |found: f64, expected: f64| assert!((found - expected).abs() < 0.02, "{found} is not {expected}");
    assert!(numbers(bids, "price").all(|price| (100..=100_000_000).contains(&price)));
    near(share(numbers(bids, "price"), |price| price < 100_000), 0.5);
    near(share(numbers(bids, "price"), |price| price < 1_000), 1.0 / 6.0);
    assert!(
        numbers(auctions, "initialBid")
            .zip(numbers(auctions, "reserve"))
            .all(|(first, reserve)| first < reserve)
    );
    near(share(texts(bids, "channel"), |channel| channel == "Apple"), 0.125);
    near(
        share(texts(bids, "channel"), |channel| channel.starts_with("channel-")),
        0.5,
    );
    near(share(texts(bids, "url"), |url| url.contains("&channel_id=")), 0.45);
    let mut urls = std::collections::HashMap::new();
    for (channel, url) in texts(bids, "channel").zip(texts(bids, "url")) {
        assert_eq!(*urls.entry(channel).or_insert(url), url, "a channel has one url");
        let parts: Vec<&str> = url.split('/').collect();
        assert_eq!((parts.len(), parts[2]), (7, "www.nexmark.com"), "{url}");
        assert!(parts[6].starts_with("item.htm?query=1"));
    }
    assert!(urls.len() > 9_000);
    let average = |row: &StructArray| {
        let (mut bytes, mut rows) = (0, 0);
        for column in row.columns() {
            match column.as_string_opt::<i32>() {
                Some(texts) => {
                    rows = texts.len() - texts.null_count();
                    bytes += texts.iter().flatten().map(str::len).sum::<usize>();
                }
                None => bytes += 8 * (column.len() - column.null_count()),
            }
        }
        bytes as f64 / rows as f64
    };
    assert!((190.0..215.0).contains(&average(persons)), "{}", average(persons));
    assert!((480.0..520.0).contains(&average(auctions)), "{}", average(auctions));
    assert!((165.0..205.0).contains(&average(bids)), "{}", average(bids));
    let states: HashSet<&str> = texts(persons, "state").collect();
    assert_eq!(states, HashSet::from(["AZ", "CA", "ID", "OR", "WA", "WY"]));
    assert!(texts(persons, "creditCard").all(|card| card.len() == 19 && card.split(' ').count() == 4));
    assert!(texts(auctions, "itemName").all(|name| (3..=20).contains(&name.len())));
    assert!(texts(auctions, "description").all(|text| (3..=100).contains(&text.len())));
}

/// What a table of the benchmark is: it must not change between versions, for positions in checkpoints and published
/// figures count on it.
#[test]
fn the_first_ten_thousand_events_stay_the_same() {
    let events = events(&[("events", "10000"), ("first.event.rate", "10000000"), ("seed", "42")]);
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for line in crate::conformance::lines(&[events]) {
        for byte in line.bytes().chain([b'\n']) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    assert_eq!(format!("{hash:016x}"), "caf1dcbdff38a1b8");
}

#[test]
fn fields_that_are_left_out_change_no_others() {
    let whole = events(&[("events", "2000")]);
    let part = |name: &str, fields: &[&str]| {
        let schema = nexmark_schema();
        let DataType::Struct(known) = schema.field_with_name(name).unwrap().data_type().clone() else {
            panic!("no row");
        };
        let fields: Fields = fields
            .iter()
            .map(|field| known.find(field).unwrap().1.clone())
            .collect();
        Field::new(name, DataType::Struct(fields), true)
    };
    let schema = Arc::new(Schema::new(vec![
        part("bid", &["extra", "price"]),
        part("person", &["extra"]),
        part("auction", &["extra", "id"]),
    ]));
    let source = projected(schema, &[("events", "2000"), ("splits", "1")]);
    let reading = Reading::new(&source);
    let split = reading.discover(&BTreeMap::new()).remove(0);
    let mut reader = reading.open(&split);
    let batch = reading.next(reader.as_mut(), 2_000).unwrap().unwrap();
    for (index, field) in batch.schema().fields().iter().enumerate() {
        let (found, expected) = (batch.column(index).as_struct(), row(&whole, field.name()));
        for name in found.column_names() {
            assert_eq!(found.column_by_name(name), expected.column_by_name(name), "{name}");
        }
    }
}

#[test]
fn a_rate_is_kept() {
    let time = Arc::new(ManualTime::at(0));
    let env = ConnectorEnvironment::new().with_time(Arc::clone(&time) as _);
    let options = [("events-per-second", "1000"), ("splits", "2"), ("events", "2000")];
    let source = NexmarkSource::new(&table(nexmark_schema(), &options), &[0], &env).unwrap();
    let reading = Reading::new(&source);
    let mut readers: Vec<_> = reading
        .discover(&BTreeMap::new())
        .iter()
        .map(|split| reading.open(split))
        .collect();
    let mut read = || {
        let mut rows = 0;
        for reader in &mut readers {
            while reader.is_ready() {
                match reader.read(1_000, usize::MAX).unwrap() {
                    ReadOutcome::Rows(batch) => rows += batch.num_rows(),
                    _ => break,
                }
            }
        }
        rows
    };
    assert_eq!(read(), 0);
    time.advance(Duration::from_millis(120));
    assert_eq!(read(), 120);
    time.advance(Duration::from_millis(880));
    assert_eq!(read(), 880);
    time.advance(Duration::from_secs(5));
    assert_eq!(read(), 1_000);
}

#[test]
fn what_cannot_be_is_refused() {
    let refused = |options: &[(&str, &str)]| check(&table(nexmark_schema(), options)).unwrap_err().to_string();
    assert!(refused(&[("first.event.rate", "0")]).contains("from 1"));
    assert!(refused(&[("splits", "5000")]).contains("4096"));
    assert!(refused(&[("events", "many")]).contains("whole number"));
    assert!(refused(&[("event", "5")]).contains("events"));
    let columns = |field: Field| check(&table(Arc::new(Schema::new(vec![field])), &[])).unwrap_err();
    let error = columns(Field::new("bids", DataType::Int64, true));
    assert_eq!(error.hint.as_deref(), Some("did you mean bid?"));
    let fields: Fields = vec![Field::new("price", DataType::Int32, true)].into();
    let error = columns(Field::new("bid", DataType::Struct(fields.clone()), true));
    assert_eq!(error.hint.as_deref(), Some("declare it BIGINT"));
    let error = columns(Field::new("bid", DataType::Struct(fields), false));
    assert!(error.message.contains("NOT NULL"), "{}", error.message);
    let source = source(&[("splits", "4")]);
    let reading = Reading::new(&source);
    for (id, position, reason) in [
        ("0/3", "1", "'splits' = '3'"),
        ("x", "1", "not one of"),
        ("1/4", "1", "not the number"),
        ("0/4", "-", "not the number"),
    ] {
        let split = Split {
            id: SplitId(id.to_owned()),
            position: position.to_owned(),
        };
        let error = source.open_split(&split, reading.context()).err().unwrap().to_string();
        assert!(error.contains(reason), "{error}");
    }
}
