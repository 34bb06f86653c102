//! Did you mean …?

/// The candidate that a person most likely meant, if any is near.
pub(crate) fn did_you_mean<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    // Bounds the quadratic distance; nothing that long is a typo of ours.
    if word.len() > 64 {
        return None;
    }
    let word = word.to_ascii_lowercase().replace('-', "_");
    let nearest = candidates
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, &candidate.replace('-', "_")), *candidate))
        .min_by_key(|(distance, _)| *distance);
    if let Some((distance, candidate)) = nearest
        && distance <= (candidate.len() / 3).max(1)
        && distance < word.chars().count()
    {
        return Some(candidate);
    }
    let abbreviates = |candidate: &&&str| word.len() >= 3 && candidate.starts_with(&word);
    candidates.iter().find(abbreviates).copied()
}

#[cfg(test)]
mod tests {
    use super::did_you_mean;

    #[test]
    fn near_words_and_abbreviations_only() {
        let candidates = ["backend", "host", "port"];
        assert_eq!(did_you_mean("bakcend", &candidates), Some("backend"));
        assert_eq!(did_you_mean("prot", &candidates), Some("port"));
        assert_eq!(did_you_mean("back", &candidates), Some("backend"));
        assert_eq!(did_you_mean("x", &candidates), None);
        assert_eq!(did_you_mean("", &candidates), None);
        assert_eq!(did_you_mean("colour", &candidates), None);
        assert_eq!(did_you_mean(&"a".repeat(100_000), &candidates), None);
    }
}
