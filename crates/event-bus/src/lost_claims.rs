//! Claims whose answers were lost: nobody knows what they got, so the next one of the same run gives it back.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use parking_lot::Mutex;

use crate::BusError;

/// Remembered at most. Older ones come back when their lease ends.
const LOST_MAX: usize = 1_000;

/// The claims of this process, by number.
#[derive(Debug, Default)]
pub(crate) struct LostClaims {
    last: AtomicU64,
    /// (incarnation, number) of those that may have been made without anybody knowing what they got.
    lost: Mutex<Vec<(Arc<str>, u64)>>,
}

impl LostClaims {
    /// Of the claim with this number nobody knows what it got.
    pub(crate) fn note(&self, incarnation: &Arc<str>, number: u64) {
        let mut lost = self.lost.lock();
        if lost.len() < LOST_MAX {
            lost.push((incarnation.clone(), number));
        }
    }

    /// A claim that is about to be asked for.
    pub(crate) fn begin(&self, incarnation: &Arc<str>) -> Asked<'_> {
        let lost = self.lost.lock().iter().filter(|lost| lost.0 == *incarnation).map(|lost| lost.1).collect();
        let number = self.last.fetch_add(1, Relaxed);
        Asked { claims: self, incarnation: incarnation.clone(), number, lost, is_answered: false }
    }
}

/// A claim on its way. It is remembered as lost unless it is told that the answer came, also if it is dropped.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    claims: &'a LostClaims,
    incarnation: Arc<str>,
    /// Its number.
    pub(crate) number: u64,
    /// Those that it gives back.
    pub(crate) lost: Vec<u64>,
    is_answered: bool,
}

impl Asked<'_> {
    /// Takes what the store answered, and passes it on.
    pub(crate) fn answered<T>(mut self, answer: Result<T, BusError>) -> Result<T, BusError> {
        self.is_answered = !matches!(answer, Err(BusError::Ambiguous { .. }));
        if answer.is_ok() && !self.lost.is_empty() {
            self.claims.lost.lock().retain(|lost| !(lost.0 == self.incarnation && self.lost.contains(&lost.1)));
        }
        answer
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.claims.note(&self.incarnation, self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_answered_is_given_back_until_it_was() {
        let (claims, mine, other): (_, Arc<str>, Arc<str>) = (LostClaims::default(), "mine".into(), "other".into());
        drop(claims.begin(&mine));
        let ambiguous = Err::<(), _>(BusError::Ambiguous { reason: "cut".into() });
        assert!(claims.begin(&mine).answered(ambiguous).is_err());
        assert_eq!(
            (claims.begin(&other).answered(Ok(())).is_ok(), claims.begin(&mine).lost.clone()),
            (true, vec![0, 1])
        );
        // The one that was just looked at is lost as well: nobody answered it.
        let next = claims.begin(&mine);
        assert_eq!(next.lost, [0, 1, 3]);
        // A refusal is an answer, and gave nothing back.
        assert!(next.answered(Err::<(), _>(BusError::Closed)).is_err());
        let last = claims.begin(&mine);
        assert_eq!(last.lost, [0, 1, 3]);
        assert!(last.answered(Ok(())).is_ok());
        assert!(claims.begin(&mine).lost.is_empty());
    }
}
