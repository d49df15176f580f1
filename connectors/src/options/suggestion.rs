//! Finds the name that was probably meant.

/// Returns the candidate nearest to `name`, if it is near enough to be a slip of the keyboard.
pub(crate) fn closest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (name.chars().count() / 3).clamp(1, 4);
    let (distance, near) = candidates
        .map(|candidate| (distance(name, candidate), candidate))
        .min()?;
    (distance <= allowed).then_some(near)
}

/// Returns the number of insertions, deletions and replacements between two names, without regard to case.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.to_lowercase().chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        let names = ["stream", "stream.arn", "format"];
        assert_eq!(closest("strem", names.into_iter()), Some("stream"));
        assert_eq!(closest("Stream.ARN", names.into_iter()), Some("stream.arn"));
        assert_eq!(closest("parallelism", names.into_iter()), None);
    }

    #[test]
    fn distance_counts_edits() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("same", "same"), 0);
    }
}
