//! Names of the log's files. They are made of numbers only.

use crate::ids::SegmentNumber;

const LOG_SUFFIX: &str = ".log";

/// `0000000001.log`
pub(crate) fn segment(number: SegmentNumber) -> String {
    format!("{:010}{LOG_SUFFIX}", number.0)
}

/// `0000000001.index`
pub(crate) fn index(number: SegmentNumber) -> String {
    format!("{:010}.index", number.0)
}

/// The number of an index file.
pub(crate) fn parse_index(name: &str) -> Option<SegmentNumber> {
    let number = name.strip_suffix(".index")?;
    parse_segment(&format!("{number}{LOG_SUFFIX}"))
}

/// `0000000001.tier`: the index of a tiered segment.
pub(crate) fn tier(number: SegmentNumber) -> String {
    format!("{:010}.tier", number.0)
}

/// The number of the index of a tiered segment.
pub(crate) fn parse_tier(name: &str) -> Option<SegmentNumber> {
    let number = name.strip_suffix(".tier")?;
    parse_segment(&format!("{number}{LOG_SUFFIX}"))
}

/// A file that is not finished; a crash may leave it, the next attempt empties it.
pub(crate) fn unfinished(name: &str) -> String {
    format!("{name}.tmp")
}

/// The number of a segment file.
pub(crate) fn parse_segment(name: &str) -> Option<SegmentNumber> {
    let digits = name.strip_suffix(LOG_SUFFIX)?;
    if digits.len() != 10 || !digits.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().map(SegmentNumber)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_segments_are_recognised() {
        assert_eq!(parse_segment(&segment(SegmentNumber(12))), Some(SegmentNumber(12)));
        for other in [
            "0000000012.index",
            "0000000012.log.tmp",
            "12.log",
            "store.lock",
            "x000000012.log",
        ] {
            assert_eq!(parse_segment(other), None, "{other}");
        }
    }
}
