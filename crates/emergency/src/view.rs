//! What this process knows and enforces. Everything here is synchronous and short; the store is asked elsewhere.
//!
//! The state enforced is the strongest of: the newest record that was read, every stop that this process decided and has not
//! yet seen in the store, and HALT while the record is unreadable, lost, or was never read.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use infra_types::{BotId, Clock, Monotonic, Scope, Timestamp};
use parking_lot::Mutex;

use crate::{
    durable::{Found, Record},
    error::EmergencyError,
    notify::Notifier,
    state::{EmergencyState, Snapshot, Stance, Transition},
};

/// A stop as it was decided.
#[derive(Debug, Clone)]
pub(crate) struct Decision {
    pub(crate) state: EmergencyState,
    pub(crate) by: String,
    pub(crate) reason: String,
    pub(crate) at: Timestamp,
}

/// When an operation on the store began, so that its answer can be ordered among others.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Began {
    at: Monotonic,
    /// The newest version known then: the store must not answer with less.
    known: u64,
    ticket: u64,
}

struct Fault {
    what: String,
    version: u64,
    at: Timestamp,
    /// Only an answer to a later question ends it.
    ticket: u64,
}

struct Inner {
    known: Option<Record>,
    /// Stops whose call still runs.
    calls: Vec<(u64, Decision)>,
    /// The strongest stop whose call ended without the store having taken it, with the newest ticket it was left at.
    pending: Option<(u64, Decision)>,
    fault: Option<Fault>,
    /// Numbers what begins.
    ticket: u64,
    /// What the subscribers believe.
    told: EmergencyState,
}

impl Inner {
    /// The store was at `state` after the stop had been left: whoever re-arms from there has seen something as strong.
    fn settle_covered(&mut self, began: &Began, state: EmergencyState) {
        if self.pending.as_ref().is_some_and(|(left, d)| *left < began.ticket && d.state <= state) {
            self.pending = None;
        }
    }
}

pub(crate) struct View {
    id: BotId,
    lease: Duration,
    clock: Arc<dyn Clock>,
    born: Timestamp,
    /// The enforced state, for one atomic load.
    status: AtomicU8,
    /// Nanoseconds of the clock's `now`.
    valid_until: AtomicU64,
    inner: Mutex<Inner>,
    pub(crate) notifier: Notifier,
}

impl View {
    pub(crate) fn new(id: BotId, lease: Duration, clock: Arc<dyn Clock>) -> Self {
        Self {
            id,
            lease,
            born: clock.wall(),
            clock,
            status: AtomicU8::new(EmergencyState::Halt as u8),
            valid_until: AtomicU64::new(0),
            inner: Mutex::new(Inner {
                known: None,
                calls: Vec::new(),
                pending: None,
                fault: None,
                ticket: 0,
                told: EmergencyState::Normal,
            }),
            notifier: Notifier::default(),
        }
    }

    pub(crate) fn id(&self) -> &BotId {
        &self.id
    }

    pub(crate) fn state(&self) -> EmergencyState {
        match self.status.load(Ordering::Acquire) {
            0 => EmergencyState::Normal,
            1 => EmergencyState::Alert,
            2 => EmergencyState::Halt,
            _ => EmergencyState::Shutdown,
        }
    }

    pub(crate) fn valid_until(&self) -> Monotonic {
        Monotonic::from_origin(Duration::from_nanos(self.valid_until.load(Ordering::Acquire)))
    }

    pub(crate) fn stance(&self) -> Stance {
        // The lease first: whoever sees a longer lease also sees the state that came with it. The clock last: a process that was
        // suspended in between notices.
        let valid_until = self.valid_until();
        let stance = self.state().stance();
        let is_confirmed = self.clock.now() < valid_until;
        if stance == Stance::Open && !is_confirmed { Stance::ReduceOnly } else { stance }
    }

    /// What somebody decided: as the snapshot, but not having read yet is no decision.
    pub(crate) fn decided(&self) -> Snapshot {
        self.enforced(&self.inner.lock(), EmergencyState::Normal)
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.enforced(&self.inner.lock(), EmergencyState::Halt)
    }

    pub(crate) fn begin(&self) -> Began {
        let at = self.clock.now();
        let mut inner = self.inner.lock();
        inner.ticket += 1;
        Began { at, known: inner.known.as_ref().map_or(0, |r| r.version.0), ticket: inner.ticket }
    }

    /// Takes the store's answer to what began at `began`.
    pub(crate) fn accept(&self, began: &Began, found: &Found) -> Result<(), EmergencyError> {
        let outcome = self.change(|inner| match found {
            Found::Damaged { what, version, replace } => {
                let error = EmergencyError::Damaged { what: what.clone() };
                self.fail(inner, &error, *version);
                if replace.is_some() {
                    inner.settle_covered(began, EmergencyState::Halt);
                }
                Err(error)
            }
            Found::Record(record, _) if record.version.0 < began.known => {
                let error = EmergencyError::WentBack { known: began.known, found: record.version.0 };
                self.fail(inner, &error, 0);
                Err(error)
            }
            Found::Record(record, _) => {
                // Of two answers under way at once the newer record counts, whichever comes last.
                if inner.known.as_ref().is_none_or(|known| known.version < record.version) {
                    inner.known = Some(record.clone());
                }
                if inner.fault.as_ref().is_some_and(|fault| fault.ticket < began.ticket) {
                    inner.fault = None;
                }
                inner.settle_covered(began, record.state);
                Ok(())
            }
        });
        if outcome.is_ok() {
            // After the state: see `stance`.
            let until = (began.at + self.lease).since_origin().as_nanos();
            self.valid_until.fetch_max(u64::try_from(until).unwrap_or(u64::MAX), Ordering::AcqRel);
        }
        outcome
    }

    /// Enforces a stop from now on: until its call reports it done, else until a later answer of the store covers it.
    pub(crate) fn hold(&self, decision: Decision) -> Call<'_> {
        let ticket = self.change(|inner| {
            inner.ticket += 1;
            inner.calls.push((inner.ticket, decision));
            inner.ticket
        });
        Call { view: self, ticket }
    }

    /// The stop that the store has still to take.
    pub(crate) fn pending(&self) -> Option<(u64, Decision)> {
        self.inner.lock().pending.clone()
    }

    /// The store took the stop that was left at `ticket`.
    pub(crate) fn settle(&self, ticket: u64) {
        self.change(|inner| {
            if inner.pending.as_ref().is_some_and(|(left, _)| *left == ticket) {
                inner.pending = None;
            }
        });
    }

    fn fail(&self, inner: &mut Inner, error: &EmergencyError, version: u64) {
        let version = version.max(inner.known.as_ref().map_or(0, |r| r.version.0));
        inner.fault = Some(Fault { what: error.to_string(), version, at: self.clock.wall(), ticket: inner.ticket });
    }

    /// Changes what is known, publishes what follows from it, and tells the subscribers.
    fn change<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        let result = {
            let mut inner = self.inner.lock();
            let result = change(&mut inner);
            self.status.store(self.enforced(&inner, EmergencyState::Halt).state as u8, Ordering::Release);
            // Not having read yet is no news: a bot that starts into NORMAL hears nothing.
            let news = self.enforced(&inner, EmergencyState::Normal);
            if news.state != inner.told {
                self.notifier.queue(Transition {
                    from: inner.told,
                    to: news.state,
                    reason: news.reason,
                    by: news.by,
                    at: news.at,
                    version: news.version,
                    scope: Scope::Firm,
                });
                inner.told = news.state;
            }
            result
        };
        self.notifier.tell();
        result
    }

    fn enforced(&self, inner: &Inner, unread: EmergencyState) -> Snapshot {
        let (version, transitions) = inner.known.as_ref().map_or((0, 0), |r| (r.version.0, r.transitions));
        let known_state = inner.known.as_ref().map_or(unread, |r| r.state);
        let ours = |state, what: &str, at, version| Snapshot {
            state,
            version,
            reason: what.to_owned(),
            by: self.id.to_string(),
            at,
            transitions,
            is_durable: false,
        };
        let mut snapshot = match (&inner.fault, &inner.known) {
            (Some(f), _) => ours(known_state.max(EmergencyState::Halt), &f.what, f.at, f.version),
            (None, None) => ours(unread, "the emergency state was not read yet", self.born, 0),
            (None, Some(r)) => Snapshot {
                state: r.state,
                version,
                reason: r.reason.clone(),
                by: r.by.clone(),
                at: r.at,
                transitions,
                is_durable: true,
            },
        };
        let held = inner.calls.iter().map(|(_, d)| d).chain(inner.pending.as_ref().map(|(_, d)| d));
        if let Some(d) = held.max_by_key(|d| d.state)
            && (d.state > snapshot.state || (d.state == snapshot.state && !snapshot.is_durable))
        {
            let Decision { state, by, reason, at } = d.clone();
            snapshot = Snapshot { state, by, reason, at, is_durable: false, ..snapshot };
        }
        snapshot
    }
}

/// A stop under way. Dropped before it is done (an error, a cancelled future), it goes on being enforced.
pub(crate) struct Call<'a> {
    view: &'a View,
    ticket: u64,
}

impl Call<'_> {
    /// The store holds it.
    pub(crate) fn done(self) {
        self.view.change(|inner| inner.calls.retain(|(ticket, _)| *ticket != self.ticket));
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.view.change(|inner| {
            let Some(at) = inner.calls.iter().position(|(ticket, _)| *ticket == self.ticket) else { return };
            let (_, mine) = inner.calls.swap_remove(at);
            let strongest = match inner.pending.take() {
                Some((_, theirs)) if theirs.state >= mine.state => theirs,
                _ => mine,
            };
            inner.pending = Some((inner.ticket, strongest));
        });
    }
}

#[cfg(test)]
mod tests {
    use infra_state_store::{Version, When};
    use infra_types::ManualClock;

    use super::*;

    use EmergencyState::{Halt, Normal};

    fn view() -> View {
        View::new(BotId::new("a").unwrap(), Duration::from_secs(2), Arc::new(ManualClock::default()))
    }

    fn record(version: u64, state: EmergencyState) -> Found {
        Found::Record(Record { version: Version(version), state, ..Record::absent() }, When::Exists)
    }

    fn halt(view: &View) -> Call<'_> {
        view.hold(Decision { state: Halt, by: "bob".into(), reason: "now".into(), at: Timestamp::EPOCH })
    }

    #[test]
    fn of_two_answers_under_way_the_newer_record_counts() {
        let view = view();
        let (slow, fast) = (view.begin(), view.begin());
        view.accept(&fast, &record(2, Halt)).unwrap();
        view.accept(&slow, &record(1, Normal)).unwrap();
        assert_eq!((view.state(), view.snapshot().version), (Halt, 2));
        // Asked after version 2 was known, the same answer is a store that went back.
        let late = view.begin();
        assert!(matches!(view.accept(&late, &record(1, Normal)), Err(EmergencyError::WentBack { known: 2, found: 1 })));
    }

    #[test]
    fn only_a_later_question_ends_a_fault() {
        let view = view();
        let (slow, fast) = (view.begin(), view.begin());
        let damage = Found::Damaged { what: "torn".into(), version: 3, replace: Some(When::Exists) };
        view.accept(&fast, &damage).unwrap_err();
        view.accept(&slow, &record(1, Normal)).unwrap();
        assert_eq!(view.state(), Halt);
        view.accept(&view.begin(), &record(1, Normal)).unwrap();
        assert_eq!(view.state(), Normal);
    }

    #[test]
    fn a_stop_is_covered_only_by_what_the_store_held_after_it() {
        let view = view();
        let before = view.begin();
        drop(halt(&view));
        view.accept(&before, &record(1, Halt)).unwrap();
        view.accept(&view.begin(), &record(2, Normal)).unwrap();
        assert_eq!(view.state(), Halt, "the halt of version 1 was re-armed before ours");
        view.accept(&view.begin(), &record(3, Halt)).unwrap();
        view.accept(&view.begin(), &record(4, Normal)).unwrap();
        assert_eq!(view.state(), Normal);
    }

    #[test]
    fn a_stop_under_way_outlives_every_answer_but_its_own() {
        let view = view();
        let call = halt(&view);
        view.accept(&view.begin(), &record(1, Halt)).unwrap();
        view.accept(&view.begin(), &record(2, Normal)).unwrap();
        assert_eq!(view.state(), Halt);
        call.done();
        assert_eq!((view.state(), view.pending().is_none()), (Normal, true));
    }
}
