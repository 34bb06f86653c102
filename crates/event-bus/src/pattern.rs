//! Which topics a subscription takes: one grammar and one matcher for every backend.

use std::{fmt, str::FromStr};

use infra_types::{InvalidValue, Topic};

/// The longest pattern in bytes: twice the longest topic, since each character may be escaped.
const BYTES_MAX: usize = 400;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// `*`
    Any,
    /// `?`
    One,
    /// This byte.
    Is(u8),
}

/// Topics by wildcard: `*` stands for any run of characters (also none, also across `:`), `?` for exactly one, and `\` takes
/// the next character literally. There are no classes. `prices:*` takes `prices:BTC` and `prices:spot:BTC`.
///
/// Matching takes at most (length of the pattern × length of the topic) steps and allocates nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    parts: Vec<Part>,
}

impl Pattern {
    /// Checks and compiles a pattern.
    ///
    /// # Errors
    /// `InvalidValue` unless it is 1 to 400 bytes of printable ASCII that do not end in a lone `\`.
    pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidValue> {
        let text = text.as_ref();
        if text.is_empty() || text.len() > BYTES_MAX {
            return Err(InvalidValue::new("pattern", format!("must be 1 to {BYTES_MAX} bytes, is {}", text.len())));
        }
        if let Some(c) = text.chars().find(|c| !c.is_ascii_graphic()) {
            return Err(InvalidValue::new("pattern", format!("may not hold {c:?}: topics are printable ASCII")));
        }
        let mut parts = Vec::with_capacity(text.len());
        let mut bytes = text.bytes();
        while let Some(byte) = bytes.next() {
            match byte {
                // A run of stars means what one star means.
                b'*' if parts.last() == Some(&Part::Any) => {}
                b'*' => parts.push(Part::Any),
                b'?' => parts.push(Part::One),
                b'\\' => match bytes.next() {
                    Some(literal) => parts.push(Part::Is(literal)),
                    None => return Err(InvalidValue::new("pattern", "ends in a lone \\: write \\\\ for a backslash")),
                },
                literal => parts.push(Part::Is(literal)),
            }
        }
        Ok(Self { text: text.to_owned(), parts })
    }

    /// The pattern that takes exactly `topic`.
    #[must_use]
    pub fn exactly(topic: &Topic) -> Self {
        // A topic holds no wildcard and no backslash, so it means itself.
        Self { text: topic.as_str().to_owned(), parts: topic.as_str().bytes().map(Part::Is).collect() }
    }

    /// Whether it takes `topic`.
    #[must_use]
    pub fn matches(&self, topic: &Topic) -> bool {
        matches(&self.parts, topic.as_str().as_bytes())
    }

    /// The pattern as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Greedy with one point of return: a later star makes all earlier ones final, so nothing is tried twice over.
fn matches(parts: &[Part], topic: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < topic.len() {
        match parts.get(p) {
            Some(Part::Any) => {
                star = Some((p + 1, t));
                p += 1;
                continue;
            }
            Some(Part::One) => {
                (p, t) = (p + 1, t + 1);
                continue;
            }
            Some(Part::Is(byte)) if *byte == topic[t] => {
                (p, t) = (p + 1, t + 1);
                continue;
            }
            _ => {}
        }
        match star {
            // Let the last star swallow one more character.
            Some((after, from)) => {
                star = Some((after, from + 1));
                (p, t) = (after, from + 1);
            }
            None => return false,
        }
    }
    parts[p..].iter().all(|part| *part == Part::Any)
}

impl FromStr for Pattern {
    type Err = InvalidValue;
    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        Self::new(text)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({})", self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn takes(pattern: &str, topic: &str) -> bool {
        Pattern::new(pattern).unwrap().matches(&Topic::new(topic).unwrap())
    }

    /// The definition, read aloud; exponential, so only for short input.
    fn naive(pattern: &[u8], topic: &[u8]) -> bool {
        match (pattern.first(), topic.first()) {
            (None, None) => true,
            (Some(b'*'), _) => naive(&pattern[1..], topic) || (!topic.is_empty() && naive(pattern, &topic[1..])),
            (Some(b'?'), Some(_)) => naive(&pattern[1..], &topic[1..]),
            (Some(b'\\'), Some(t)) => pattern.get(1) == Some(t) && naive(&pattern[2..], &topic[1..]),
            (Some(p), Some(t)) => p == t && naive(&pattern[1..], &topic[1..]),
            _ => false,
        }
    }

    #[test]
    fn the_grammar_by_example() {
        for (pattern, topic) in [
            ("prices:*", "prices:BTC"),
            ("prices:*", "prices:spot:BTC"),
            ("prices*", "prices"),
            ("*", "a"),
            ("*:BTC", "prices:spot:BTC"),
            ("p?ices:*C", "prices:BTC"),
            ("a**b", "ab"),
            (r"\p\r", "pr"),
        ] {
            assert!(takes(pattern, topic), "{pattern} {topic}");
        }
        for (pattern, topic) in
            [("prices:*", "prices"), ("prices", "prices:BTC"), ("?", "ab"), (r"\*", "a"), ("[ab]", "a"), ("a*b", "abc")]
        {
            assert!(!takes(pattern, topic), "{pattern} {topic}");
        }
    }

    #[test]
    fn refuses_what_it_could_not_mean() {
        for bad in ["", "\\", "a\\", "a b", "é", &"x".repeat(401)] {
            assert!(Pattern::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn hostile_patterns_stay_cheap() {
        // A backtracking matcher would need about 2^60 steps for this.
        let pattern = "*a".repeat(60) + "b";
        assert!(!takes(&pattern, &"a".repeat(200)));
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(pattern in r"([ab:*?]|\\[ab:*?\\]){1,8}", topic in "[ab:]{1,10}") {
            prop_assert_eq!(takes(&pattern, &topic), naive(pattern.as_bytes(), topic.as_bytes()));
        }

        #[test]
        fn an_exact_pattern_takes_its_topic_alone(topic in "[!-)+->@-\\[\\]-~]{1,40}", other in "[ab:]{1,10}") {
            let topic = Topic::new(topic).unwrap();
            let exact = Pattern::exactly(&topic);
            prop_assert!(exact.matches(&topic));
            prop_assert_eq!(exact.matches(&Topic::new(&other).unwrap()), other == topic.as_str());
            prop_assert_eq!(Pattern::new(exact.as_str()).unwrap(), exact);
        }
    }
}
