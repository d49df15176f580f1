//! What the sinks share: the option `sink.delivery-guarantee`, and what they say to results that change.

use crate::error::ConnectorError;
use crate::options::Options;
use tidemill_engine::sink::DeliveryGuarantee;

const OPTION: &str = "sink.delivery-guarantee";

/// Reads `sink.delivery-guarantee`.
///
/// # Errors
/// When it is neither `exactly-once` nor `at-least-once`.
pub(crate) fn delivery_guarantee(options: &Options<'_>) -> Result<Option<DeliveryGuarantee>, ConnectorError> {
    if options.text(OPTION) == Some("none") {
        let message = "'none' is not offered: no sink here is faster by losing rows; leave the option out";
        return Err(ConnectorError::option(OPTION, message));
    }
    let choices = [
        ("exactly-once", DeliveryGuarantee::ExactlyOnce),
        ("at-least-once", DeliveryGuarantee::AtLeastOnce),
    ];
    options.choice(OPTION, &choices)
}

/// Refuses `exactly-once` for a sink whose output cannot be held back.
///
/// # Errors
/// When it is asked for.
pub(crate) fn at_least_once_only(options: &Options<'_>) -> Result<(), ConnectorError> {
    match delivery_guarantee(options)? {
        Some(DeliveryGuarantee::ExactlyOnce) => Err(ConnectorError::option(
            OPTION,
            "this sink writes at once and cannot take back: it is at-least-once",
        )),
        _ => Ok(()),
    }
}

/// Refuses the changes of a result for a table that rows can only be added to.
pub(crate) fn only_added_to(hint: &str) -> ConnectorError {
    let message = "the query's result changes, and rows can only be added to this table";
    ConnectorError::new(message).with_hint(format!(
        "{hint}; or aggregate by windows, whose results are final and do not change"
    ))
}

#[cfg(test)]
mod tests {
    use crate::{TableDefinition, check_sink};
    use arrow::datatypes::{DataType, Field, Schema};
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use tidemill_engine::graph::weight_field;

    /// Checks a table of columns k and n that takes the changes of a result.
    fn check(options: &[(&str, &str)], primary_key: &[&str], partition_keys: &[&str]) -> Result<(), String> {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let options = options
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let table = TableDefinition {
            name: "t".into(),
            schema: Arc::new(Schema::new(vec![
                Field::new("k", DataType::Int64, false),
                Field::new("n", DataType::Int64, true),
                weight_field(),
            ])),
            metadata_columns: Vec::new(),
            options: options.collect::<BTreeMap<_, _>>(),
            partition_keys: owned(partition_keys),
            primary_key: owned(primary_key),
        };
        check_sink(&table).map_err(|error| error.to_string())
    }

    #[test]
    fn results_that_change_are_written_where_a_removal_can_be() {
        let files = |format| [("connector", "filesystem"), ("path", "/tmp/x"), ("format", format)];
        let stream = |format| [("connector", "kinesis"), ("stream", "s"), ("format", format)];
        let fixed = [&stream("debezium-json")[..], &[("sink.partitioner", "fixed")]].concat();
        check(&[("connector", "print")], &[], &[]).unwrap();
        check(&[("connector", "blackhole")], &["k"], &[]).unwrap();
        check(&files("debezium-json"), &[], &[]).unwrap();
        check(&stream("debezium-json"), &["k"], &[]).unwrap();
        check(&stream("debezium-json"), &[], &["k"]).unwrap();
        check(&fixed, &[], &[]).unwrap();
        check(&stream("json"), &["k"], &[]).unwrap();
        check(&stream("json"), &["k", "n"], &["k"]).unwrap();
    }

    #[test]
    fn where_it_cannot_the_refusal_names_what_to_do() {
        let files = |format| [("connector", "filesystem"), ("path", "/tmp/x"), ("format", format)];
        let stream = |format| [("connector", "kinesis"), ("stream", "s"), ("format", format)];
        let random = [&stream("json")[..], &[("sink.partitioner", "random")]].concat();
        for (options, primary_key, partition_keys, about) in [
            (&files("json")[..], &["k"][..], &[][..], "'format' = 'debezium-json'"),
            (&files("csv"), &[], &[], "'format' = 'debezium-json'"),
            (&files("parquet"), &["k"], &[], "'format' = 'debezium-json'"),
            (&stream("json"), &[], &[], "declare PRIMARY KEY"),
            (&stream("csv"), &["k"], &[], "by their primary key with 'json'"),
            (
                &stream("json"),
                &["k"],
                &["n"],
                "PARTITIONED BY column n is not in the primary key",
            ),
            (&stream("debezium-json"), &[], &[], "could go to different shards"),
            (&random, &["k"], &[], "sink.partitioner"),
        ] {
            let error = check(options, primary_key, partition_keys).unwrap_err();
            assert!(error.contains(about), "{options:?}: {error}");
        }
    }
}
