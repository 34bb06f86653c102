//! Secrets that are known by value: they print nowhere, whatever the field is called.

use std::{fmt, sync::Arc};

use aho_corasick::{AhoCorasick, MatchKind};
use arc_swap::ArcSwapOption;
use infra_types::Secret;
use parking_lot::Mutex;

use crate::{error::LogError, mask::HIDDEN};

const SECRETS_MAX: usize = 1_024;
const BYTES_MIN: usize = 4;
const BYTES_MAX: usize = 16 * 1024;

struct Known {
    automaton: AhoCorasick,
    forms: usize,
    longest: usize,
}

/// Replaces every registered secret by `***`.
#[derive(Default)]
pub(crate) struct Scrubber {
    forms: Mutex<Vec<String>>,
    known: ArcSwapOption<Known>,
}

impl fmt::Debug for Scrubber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scrubber(***)")
    }
}

impl Scrubber {
    pub(crate) fn register(&self, secret: &Secret<String>) -> Result<(), LogError> {
        let secret = secret.expose();
        if secret.len() < BYTES_MIN {
            return Err(LogError::UnfitSecret {
                problem: "use at least 4 bytes; a shorter one would hide ordinary text",
            });
        }
        if secret.len() > BYTES_MAX {
            return Err(LogError::UnfitSecret { problem: "use at most 16 KiB; register the parts that matter" });
        }
        let mut forms = self.forms.lock();
        // As it is, as `{:?}` prints it, and as it stands inside a JSON text.
        let quoted = [format!("{secret:?}"), serde_json::to_string(secret).unwrap_or_default()];
        let inner = quoted.iter().filter_map(|q| q.strip_prefix('"')?.strip_suffix('"'));
        let new: Vec<String> = std::iter::once(secret.as_str()).chain(inner).map(str::to_owned).collect();
        if forms.contains(secret) {
            return Ok(());
        }
        if forms.len() + new.len() > SECRETS_MAX * 3 {
            return Err(LogError::UnfitSecret { problem: "1024 are registered already; register each secret once" });
        }
        let mut all = forms.clone();
        all.extend(new);
        all.sort_unstable();
        all.dedup();
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(&all)
            .map_err(|_| LogError::UnfitSecret { problem: "all secrets together are too long; register fewer" })?;
        let longest = all.iter().map(String::len).max().unwrap_or(0);
        self.known.store(Some(Arc::new(Known { automaton, forms: all.len(), longest })));
        *forms = all;
        Ok(())
    }

    /// The length of the longest form: how far behind a cut a secret may reach.
    pub(crate) fn longest(&self) -> usize {
        self.known.load().as_ref().map_or(0, |known| known.longest)
    }

    /// `text` without secrets; `None` if it holds none.
    pub(crate) fn scrub(&self, text: &str) -> Option<String> {
        let known = self.known.load();
        let known = known.as_ref()?;
        if !known.automaton.is_match(text) {
            return None;
        }
        Some(known.automaton.replace_all(text, &vec![HIDDEN; known.forms]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hides_every_form_and_prints_none() {
        let scrubber = Scrubber::default();
        let secret = "a\"b\\c\nd";
        scrubber.register(&Secret::new(secret.to_owned())).unwrap();
        scrubber.register(&Secret::new("hunter2".to_owned())).unwrap();
        scrubber.register(&Secret::new("hunter2-longer".to_owned())).unwrap();
        let json = serde_json::to_string(secret).unwrap();
        let text = format!("{secret} {secret:?} {json} hunter2-longer hunter2!");
        assert_eq!(scrubber.scrub(&text).unwrap(), "*** \"***\" \"***\" *** ***!");
        assert_eq!(scrubber.scrub("hunter"), None);
        assert!(!format!("{scrubber:?}").contains("hunter"));
    }

    #[test]
    fn refuses_what_would_hide_ordinary_text() {
        let scrubber = Scrubber::default();
        for bad in ["", "abc", &"x".repeat(BYTES_MAX + 1)] {
            assert!(scrubber.register(&Secret::new(bad.to_owned())).is_err());
        }
        assert_eq!(scrubber.scrub("abc"), None);
    }
}
