//! Shapes: the fields of requests, their types and constraints, as the service model has them.

/// Type of a field.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Text,
    Integer,
    Boolean,
    Timestamp,
    Blob,
    /// A list of structures.
    List(&'static [Field]),
    /// A list of texts, each with the constraints of the field.
    Texts(&'static Field),
    Structure(&'static [Field]),
    /// A map from text to text.
    Map,
}

/// A pattern that a text must match as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pattern {
    Name,
    HashKey,
    SequenceNumber,
    StreamArn,
    StreamId,
    ResourceArn,
}

impl Pattern {
    /// The pattern as the service writes it.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Name => "[a-zA-Z0-9_.-]+",
            Self::HashKey => r"0|([1-9]\d{0,38})",
            Self::SequenceNumber => r"0|([1-9]\d{0,128})",
            Self::StreamArn => r"arn:aws.*:kinesis:.*:\d{12}:stream/\S+",
            Self::StreamId => "[a-z0-9]{20}-[a-z0-9]{3}",
            Self::ResourceArn => r"arn:aws.*:kinesis:.*:\d{12}:.*(stream|channel|queue)/\S+",
        }
    }

    pub(crate) fn matches(self, text: &str) -> bool {
        let decimal = |digits: usize| {
            text == "0"
                || (!text.starts_with('0')
                    && (1..=digits).contains(&text.len())
                    && text.bytes().all(|c| c.is_ascii_digit()))
        };
        match self {
            Self::Name => crate::ids::is_name(text),
            Self::HashKey => decimal(39),
            Self::SequenceNumber => decimal(129),
            Self::StreamArn => arn(text).is_some(),
            Self::ResourceArn => resource(text).is_some_and(|resource| {
                let named = |kind: &str| {
                    resource.match_indices(kind).any(|(at, _)| {
                        let name = &resource[at + kind.len()..];
                        !name.is_empty() && !name.contains(char::is_whitespace)
                    })
                };
                ["stream/", "channel/", "queue/"].into_iter().any(named)
            }),
            Self::StreamId => {
                let lower = |part: &str| part.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
                text.len() == 24
                    && text
                        .split_once('-')
                        .is_some_and(|(a, b)| a.len() == 20 && lower(a) && lower(b))
            }
        }
    }
}

/// The stream's name in an ARN.
pub(crate) fn arn(text: &str) -> Option<&str> {
    let name = resource(text)?.strip_prefix("stream/")?;
    (!name.is_empty() && !name.contains(char::is_whitespace)).then_some(name)
}

/// What an ARN of the service names, behind the account.
pub(crate) fn resource(text: &str) -> Option<&str> {
    let mut parts = text.splitn(6, ':');
    let sound = parts.next()? == "arn"
        && parts.next()?.starts_with("aws")
        && parts.next()? == "kinesis"
        && parts.next().is_some()
        && parts
            .next()
            .is_some_and(|account| account.len() == 12 && account.bytes().all(|c| c.is_ascii_digit()));
    parts.next().filter(|_| sound)
}

/// A field of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) required: bool,
    /// Smallest length or value.
    pub(crate) min: Option<i64>,
    /// Largest length or value.
    pub(crate) max: Option<i64>,
    pub(crate) pattern: Option<Pattern>,
    /// The values of an enumeration; empty for all others.
    pub(crate) values: &'static [&'static str],
}

impl Field {
    pub(crate) const fn new(name: &'static str, kind: Kind) -> Self {
        Self {
            name,
            kind,
            required: false,
            min: None,
            max: None,
            pattern: None,
            values: &[],
        }
    }

    pub(crate) const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    pub(crate) const fn range(mut self, min: i64, max: i64) -> Self {
        self.min = Some(min);
        self.max = Some(max);
        self
    }

    pub(crate) const fn min(mut self, min: i64) -> Self {
        self.min = Some(min);
        self
    }

    pub(crate) const fn pattern(mut self, pattern: Pattern) -> Self {
        self.pattern = Some(pattern);
        self
    }

    pub(crate) const fn values(mut self, values: &'static [&'static str]) -> Self {
        self.values = values;
        self
    }
}

/// Fields that many operations share.
pub(crate) const STREAM_NAME: Field = Field::new("StreamName", Kind::Text)
    .pattern(Pattern::Name)
    .range(1, 128);
pub(crate) const STREAM_ARN: Field = Field::new("StreamARN", Kind::Text)
    .pattern(Pattern::StreamArn)
    .range(1, 2048);
pub(crate) const STREAM_ID: Field = Field::new("StreamId", Kind::Text)
    .pattern(Pattern::StreamId)
    .range(1, 24);
pub(crate) const SHARD_ID: Field = Field::new("ShardId", Kind::Text).pattern(Pattern::Name).range(1, 128);
pub(crate) const EXCLUSIVE_START_SHARD_ID: Field = Field::new("ExclusiveStartShardId", Kind::Text)
    .pattern(Pattern::Name)
    .range(1, 128);
pub(crate) const NEXT_TOKEN: Field = Field::new("NextToken", Kind::Text).range(1, 1_048_576);
pub(crate) const DATA: Field = Field::new("Data", Kind::Blob).required().range(0, 10_485_760);
/// Optional for streams that spread records by themselves; the operations ask for it on all others.
pub(crate) const PARTITION_KEY: Field = Field::new("PartitionKey", Kind::Text).range(1, 256);
pub(crate) const EXPLICIT_HASH_KEY: Field = Field::new("ExplicitHashKey", Kind::Text).pattern(Pattern::HashKey);
pub(crate) const RESOURCE_ARN: Field = Field::new("ResourceARN", Kind::Text)
    .required()
    .pattern(Pattern::ResourceArn)
    .range(1, 2048);
pub(crate) const TAGS: Field = Field::new("Tags", Kind::Map).range(1, 200);
pub(crate) const TAG_KEYS: Field = Field::new("TagKeys", Kind::Texts(&Field::new("", Kind::Text).range(1, 128)))
    .required()
    .range(1, 50);
pub(crate) const STREAM_MODE_DETAILS: Field = Field::new(
    "StreamModeDetails",
    Kind::Structure(&[Field::new("StreamMode", Kind::Text)
        .required()
        .values(&["PROVISIONED", "ON_DEMAND"])]),
);
pub(crate) const WARM_THROUGHPUT: Field = Field::new("WarmThroughputMiBps", Kind::Integer).min(0);
pub(crate) const MAX_RECORD_SIZE: Field = Field::new("MaxRecordSizeInKiB", Kind::Integer).range(1024, 10_240);
pub(crate) const DISTRIBUTION: Field =
    Field::new("RecordDistributionStrategy", Kind::Text).values(&["AUTO", "USER_PARTITION_KEY"]);
pub(crate) const DRY_RUN: Field = Field::new("DryRun", Kind::Boolean);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_the_service_does() {
        assert!(Pattern::HashKey.matches("0") && Pattern::HashKey.matches(&"9".repeat(39)));
        for bad in ["", "00", "01", "-1", "1a", &"9".repeat(40)] {
            assert!(!Pattern::HashKey.matches(bad), "{bad}");
        }
        assert!(Pattern::SequenceNumber.matches(&"9".repeat(129)));
        assert!(!Pattern::SequenceNumber.matches(&"9".repeat(130)));
        assert!(Pattern::StreamId.matches("abcdefghij0123456789-x0z"));
        assert!(!Pattern::StreamId.matches("abcdefghij0123456789+x0z"));
        assert_eq!(arn("arn:aws:kinesis:us-east-1:000000000000:stream/a"), Some("a"));
        assert_eq!(arn("arn:aws-cn:kinesis::000000000000:stream/a"), Some("a"));
        for bad in [
            "",
            "a",
            "arn:aws:kinesis:r:1:stream/a",
            "arn:aws:s3:r:000000000000:stream/a",
            "arn:aws:kinesis:r:000000000000:stream/",
        ] {
            assert_eq!(arn(bad), None, "{bad}");
        }
        for good in [
            "arn:aws:kinesis:r:000000000000:stream/a",
            "arn:aws:kinesis:r:000000000000:stream/a/consumer/b:17",
            "arn:aws:kinesis:r:000000000000:x-queue/b",
        ] {
            assert!(Pattern::ResourceArn.matches(good), "{good}");
        }
        for bad in [
            "arn:aws:kinesis:r:000000000000:stream/",
            "arn:aws:kinesis:r:000000000000:topic/a",
            "arn:aws:kinesis:r:000000000000:stream/a b",
            "arn:aws:sns:r:000000000000:stream/a",
        ] {
            assert!(!Pattern::ResourceArn.matches(bad), "{bad}");
        }
    }
}
