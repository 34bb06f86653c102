//! Fields whose name says that their value must not print.

/// What stands in place of a hidden value.
pub(crate) const HIDDEN: &str = "***";

/// Hidden wherever they are a whole word of a name.
const WORDS: [&str; 17] = [
    "password",
    "passwords",
    "passwd",
    "pwd",
    "passphrase",
    "secret",
    "secrets",
    "token",
    "credential",
    "credentials",
    "authorization",
    "auth",
    "apikey",
    "privatekey",
    "cookie",
    "mnemonic",
    "pin",
];

/// Hidden where they follow each other.
const PAIRS: [(&str, &str); 5] =
    [("api", "key"), ("private", "key"), ("access", "key"), ("signing", "key"), ("encryption", "key")];

/// Decides by name.
#[derive(Debug)]
pub(crate) struct Mask {
    extra: Vec<String>,
}

impl Mask {
    pub(crate) fn new(extra: &[String]) -> Self {
        Self { extra: extra.to_vec() }
    }

    /// Whether the field's value must not print: `api_key`, `apiKey`, `db.password`, `X-Auth-Token`, but not `tokens`
    /// (a rate limiter's) or `key` (a store's).
    pub(crate) fn hides(&self, name: &str) -> bool {
        let mut before = "";
        for word in words(name) {
            let is = |known: &str| word.eq_ignore_ascii_case(known);
            if WORDS.into_iter().any(is) {
                return true;
            }
            if PAIRS.iter().any(|(first, second)| before.eq_ignore_ascii_case(first) && is(second)) {
                return true;
            }
            before = word;
        }
        self.extra.iter().any(|extra| extra.eq_ignore_ascii_case(name))
    }
}

/// The words of `snake_case`, `kebab-case`, `dotted.names` and `camelCase`.
fn words(name: &str) -> impl Iterator<Item = &str> {
    let mut rest = name;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
        let bytes = rest.as_bytes();
        let turns = |i: usize| bytes[i].is_ascii_uppercase() && bytes[i - 1].is_ascii_lowercase();
        let end = (1..bytes.len()).find(|i| !bytes[*i].is_ascii_alphanumeric() || turns(*i)).unwrap_or(bytes.len());
        // A cut in the middle of a character cannot happen in Rust's identifiers of ASCII; others are taken whole.
        let (word, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
        rest = after;
        (!word.is_empty()).then_some(word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hides_by_words_and_nothing_else() {
        let mask = Mask::new(&["iban".to_owned()]);
        let hidden = [
            "password",
            "db_password",
            "dbPassword",
            "api_key",
            "apiKey",
            "API_KEY",
            "apikey",
            "x-auth-token",
            "token",
            "client.secret",
            "private_key",
            "Authorization",
            "IBAN",
            "api.key",
        ];
        for name in hidden {
            assert!(mask.hides(name), "{name}");
        }
        for name in ["tokens", "key", "symbol", "author", "price", "passed", "pinned", "api", "schlüssel", "", "__"] {
            assert!(!mask.hides(name), "{name}");
        }
    }
}
