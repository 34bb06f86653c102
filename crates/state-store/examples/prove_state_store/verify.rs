//! What was said, against what is there and what was heard on the wire.

mod sides;
#[cfg(test)]
mod tests;

use std::fmt::Display;

use self::sides::{Side, Sides};
use super::{
    batches::Name,
    found::Found,
    journal::{Attempt, Fate, Journal},
    servers::OPERATION_TIMEOUT,
    tap::Sightings,
};

/// So many problems are told in words.
const WORDS_MAX: usize = 20;
/// Two processes note the same moment, each when it gets to it.
const SLACK_MS: i64 = 100;

/// The figures. The second half must be zero.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Answered as done.
    pub(crate) acknowledged: u32,
    /// `Ambiguous`, and there.
    pub(crate) ambiguous_whole: u32,
    /// `Ambiguous`, and not there.
    pub(crate) ambiguous_absent: u32,
    /// Of those two: the tap heard the request leave its client.
    pub(crate) ambiguous_heard: u32,
    /// Begun by a client that was killed, and there.
    pub(crate) unheard_whole: u32,
    /// The same, and not there.
    pub(crate) unheard_absent: u32,
    /// Of those four: came after somebody had looked for it in vain.
    pub(crate) late: u32,
    /// Answered as not written.
    pub(crate) refused: u32,

    /// Acknowledged, or seen once, and not there.
    pub(crate) lost: u32,
    /// There in part.
    pub(crate) torn: u32,
    /// There more than once.
    pub(crate) doubled: u32,
    /// Read in an order in which they were not written, or in different orders.
    pub(crate) disordered: u32,
    /// `Ambiguous` where no reply was lost, or not written where it was written, or not sent where it was sent.
    pub(crate) misreported: u32,
    /// Answers that must not come at all.
    pub(crate) unexpected: u32,
    /// Some of those in words.
    pub(crate) words: Vec<String>,
}

impl Verdict {
    /// Whether every promise held.
    pub(crate) fn holds(&self) -> bool {
        [self.lost, self.torn, self.doubled, self.disordered, self.misreported, self.unexpected] == [0; 6]
    }

    fn blame(&mut self, what: fn(&mut Self) -> &mut u32, words: impl Display) {
        *what(self) += 1;
        if self.words.len() < WORDS_MAX {
            self.words.push(words.to_string());
        }
    }
}

/// Compares. Without a wire no reply can get lost.
pub(crate) fn verify(journal: &Journal, wire: Option<&Sightings>, found: &Found) -> Verdict {
    let mut verdict = Verdict::default();
    for problem in &journal.problems {
        verdict.blame(|v| &mut v.unexpected, problem);
    }
    for vanished in &journal.vanished {
        verdict.blame(|v| &mut v.lost, vanished);
    }
    let sides = Sides::new(journal, found, &mut verdict);
    let mut late_of = vec![0_u32; journal.writers.len()];
    let mut conflicts_of = late_of.clone();
    for (name, attempt) in journal.attempts() {
        let side = sides.of(name);
        match side {
            Side::Torn => verdict.blame(|v| &mut v.torn, format_args!("{name} is there in part ({:?})", attempt.fate)),
            Side::Doubled => verdict.blame(|v| &mut v.doubled, format_args!("{name} is there twice")),
            Side::Whole | Side::Absent => {}
        }
        let is_there = side != Side::Absent;
        match (attempt.fate, is_there) {
            (Fate::Acknowledged, _) => verdict.acknowledged += 1,
            (Fate::Ambiguous, true) => verdict.ambiguous_whole += 1,
            (Fate::Ambiguous, false) => verdict.ambiguous_absent += 1,
            (Fate::Unheard | Fate::Begun, true) => verdict.unheard_whole += 1,
            (Fate::Unheard | Fate::Begun, false) => verdict.unheard_absent += 1,
            (Fate::Refused { .. }, _) => verdict.refused += 1,
        }
        if attempt.fate == Fate::Ambiguous && wire.is_some_and(|wire| wire.sent.contains(&name)) {
            verdict.ambiguous_heard += 1;
        }
        if !is_there && (attempt.fate == Fate::Acknowledged || attempt.looked == Some(true)) {
            verdict.blame(|v| &mut v.lost, format_args!("{name} is not there ({:?})", attempt.fate));
        }
        if is_there && attempt.looked == Some(false) {
            verdict.late += 1;
            late_of[usize::from(name.writer)] += 1;
        }
        if matches!(attempt.fate, Fate::Refused { conflict: true, .. }) {
            conflicts_of[usize::from(name.writer)] += 1;
        }
        if let Some(why) = misreport(name, attempt, is_there, wire) {
            verdict.blame(
                |v| &mut v.misreported,
                format_args!("{name}: {why} ({} ms; {})", attempt.ended - attempt.begun, attempt.words),
            );
        }
    }
    for (writer, (conflicts, late)) in conflicts_of.into_iter().zip(late_of).enumerate() {
        if conflicts > late {
            let words = format_args!("writer {writer} met {conflicts} conflicts with {late} late batches");
            verdict.blame(|v| &mut v.misreported, words);
        }
    }
    sides.totals(journal, found, &mut verdict);
    verdict
}

/// Why what the client was told is not what happened.
fn misreport(name: Name, attempt: &Attempt, is_there: bool, wire: Option<&Sightings>) -> Option<&'static str> {
    let was_sent = wire.is_some_and(|wire| wire.sent.contains(&name));
    match attempt.fate {
        Fate::Refused { .. } if is_there => Some("reported as not written, and it is there"),
        Fate::Refused { unsent: true, .. } if was_sent => Some("reported as not sent, and it was on the wire"),
        Fate::Ambiguous => {
            let Some(wire) = wire else { return Some("ambiguous, and there is no wire to lose a reply on") };
            let was_in_time = attempt.ended - attempt.begun < OPERATION_TIMEOUT.as_millis() as i64 * 9 / 10;
            // What the client wrote into a connection that was being reset was perhaps not heard.
            let was_reset = wire.resets.iter().any(|at| (attempt.begun..=attempt.ended + SLACK_MS).contains(at));
            if !was_sent && !was_reset {
                Some("ambiguous, and no request was sent")
            } else if wire.answered.contains(&name) && was_in_time {
                Some("ambiguous, and the whole reply reached its client in time")
            } else {
                None
            }
        }
        _ => None,
    }
}
