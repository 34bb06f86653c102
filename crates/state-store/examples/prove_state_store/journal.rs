//! What the clients said.

use std::fmt::Display;

use super::batches::{Name, WRITERS};

/// How an attempt ended, as far as anybody was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It was begun, and the client still works on it.
    Begun,
    /// The store answered that it is done.
    Acknowledged,
    /// The store answered `Ambiguous`.
    Ambiguous,
    /// The store answered that nothing was written.
    Refused {
        /// It says that nothing was sent either.
        unsent: bool,
        /// Because the record had another version than expected.
        conflict: bool,
    },
    /// The client was killed before it said more.
    Unheard,
}

/// One attempt.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub(crate) fate: Fate,
    /// In milliseconds since 1970.
    pub(crate) begun: i64,
    /// The same; 0 while it lasts.
    pub(crate) ended: i64,
    /// What the client found when it looked whether it is there.
    pub(crate) looked: Option<bool>,
    /// What the store said, unless it said that all is well.
    pub(crate) words: String,
}

/// Of all writers.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    /// By writer, then by number (the first is 1).
    pub(crate) writers: Vec<Vec<Attempt>>,
    /// What must not happen and is no matter of one batch.
    pub(crate) problems: Vec<String>,
    /// Writers whose acknowledged batch was not there when somebody looked after a kill.
    pub(crate) vanished: Vec<String>,
    quota: u32,
    settled: u32,
}

/// What a writer goes on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Resume {
    pub(crate) writer: u8,
    /// Its next number.
    pub(crate) next: u32,
    /// How many batches are still to be settled.
    pub(crate) left: u32,
    /// A batch of which nobody knows whether it is there; 0 for none.
    pub(crate) unresolved: u32,
}

impl Journal {
    pub(crate) fn new(batches: u32) -> Self {
        let quota = batches.div_ceil(u32::from(WRITERS));
        Self { writers: vec![Vec::new(); usize::from(WRITERS)], quota, ..Self::default() }
    }

    /// How many attempts had an outcome that is not a refusal.
    pub(crate) fn settled(&self) -> u32 {
        self.settled
    }

    pub(crate) fn complain(&mut self, problem: impl Display) {
        self.problems.push(problem.to_string());
    }

    pub(crate) fn vanish(&mut self, vanished: Vec<String>) {
        self.vanished.extend(vanished);
    }

    /// Takes a line of a client: a letter, the attempt, the time, and what belongs to the letter.
    pub(crate) fn hear(&mut self, line: &str) {
        if self.understand(line).is_none() {
            self.complain(format!("a client said: {line}"));
        }
    }

    fn understand(&mut self, line: &str) -> Option<()> {
        let mut words = line.splitn(4, ' ');
        let (letter, name) = (words.next()?, Name::parse(words.next()?)?);
        let (time, rest) = (words.next()?.parse().ok()?, words.next().unwrap_or_default());
        let attempts = self.writers.get_mut(usize::from(name.writer))?;
        if letter == "b" {
            let is_next = name.n as usize == attempts.len() + 1;
            attempts.push(Attempt { fate: Fate::Begun, begun: time, ended: 0, looked: None, words: String::new() });
            return is_next.then_some(());
        }
        let attempt = attempts.get_mut((name.n as usize).checked_sub(1)?)?;
        if letter == "f" {
            attempt.looked = Some(rest == "1");
            return matches!(attempt.fate, Fate::Ambiguous | Fate::Unheard).then_some(());
        }
        let was_begun = attempt.fate == Fate::Begun;
        attempt.ended = time;
        attempt.fate = match letter {
            "o" => Fate::Acknowledged,
            "a" => Fate::Ambiguous,
            "r" => Fate::Refused { unsent: rest.contains("nothing was sent"), conflict: rest.starts_with("conflict") },
            _ => return None,
        };
        attempt.words = rest.to_owned();
        self.settled += u32::from(letter != "r");
        was_begun.then_some(())
    }

    /// The client that `writers` were in was killed.
    pub(crate) fn died(&mut self, writers: impl Iterator<Item = u8>) {
        for writer in writers {
            if let Some(attempt) = self.writers[usize::from(writer)].last_mut()
                && attempt.fate == Fate::Begun
            {
                attempt.fate = Fate::Unheard;
                self.settled += 1;
            }
        }
    }

    pub(crate) fn resume(&self, writer: u8) -> Resume {
        let attempts = &self.writers[usize::from(writer)];
        let settled = attempts.iter().filter(|a| !matches!(a.fate, Fate::Refused { .. } | Fate::Begun)).count();
        let is_unsure = |a: &Attempt| matches!(a.fate, Fate::Ambiguous | Fate::Unheard) && a.looked.is_none();
        let number = |at: usize| u32::try_from(at).expect("fewer attempts than that");
        Resume {
            writer,
            next: number(attempts.len() + 1),
            left: self.quota.saturating_sub(number(settled)),
            unresolved: attempts.iter().position(is_unsure).map_or(0, |at| number(at + 1)),
        }
    }

    /// By writer; 0 for none.
    pub(crate) fn last_acknowledged(&self) -> Vec<u32> {
        let last = |attempts: &Vec<Attempt>| {
            let at = attempts.iter().rposition(|a| a.fate == Fate::Acknowledged);
            at.map_or(0, |at| u32::try_from(at + 1).expect("fewer attempts than that"))
        };
        self.writers.iter().map(last).collect()
    }

    /// Every attempt with its name.
    pub(crate) fn attempts(&self) -> impl Iterator<Item = (Name, &Attempt)> {
        (0..)
            .zip(&self.writers)
            .flat_map(|(writer, attempts)| (1..).zip(attempts).map(move |(n, attempt)| (Name { writer, n }, attempt)))
    }
}
