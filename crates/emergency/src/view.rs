//! What this process knows and enforces. Everything here is synchronous and short; the store is asked elsewhere.
//!
//! The state enforced is the strongest of: the newest record that was read, every stop that this process decided and has not
//! yet seen in the store, and HALT while the record is unreadable, lost, or was never read.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use infra_types::{BotId, Clock, Monotonic, Scope, Timestamp};
use parking_lot::Mutex;

use crate::{
    durable::{Found, Held, Record, SCOPES_MAX},
    error::EmergencyError,
    notify::Notifier,
    scopes::{InForce, OrderScopes, States},
    state::{EmergencyState, Snapshot, Stance, Transition, TransitionKind},
    stop::Decision,
};

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
    /// Of each scope the strongest stop whose call ended without the store having taken it, with the newest ticket it was left at.
    pending: BTreeMap<Scope, (u64, Decision)>,
    fault: Option<Fault>,
    /// Numbers what begins.
    ticket: u64,
    /// What the subscribers believe.
    told: States,
    /// What was published to those who ask.
    published: States,
}

impl Inner {
    /// The store was at `state` after the stop had been left: whoever re-arms from there has seen something as strong.
    fn settle_covered(&mut self, began: &Began, covers: impl Fn(&Decision) -> bool) {
        self.pending.retain(|_, (left, decision)| *left >= began.ticket || !covers(decision));
    }

    fn held(&self) -> impl Iterator<Item = &Decision> {
        self.calls.iter().map(|(_, d)| d).chain(self.pending.values().map(|(_, d)| d))
    }

    /// What is in force, `unread` being what the firm is at while nothing was read.
    fn states(&self, unread: EmergencyState) -> States {
        let firm = self.known.as_ref().map_or(unread, |r| r.firm.state);
        let firm = if self.fault.is_some() { firm.max(EmergencyState::Halt) } else { firm };
        let known = self.known.iter().flat_map(|r| r.scopes.iter().map(|(scope, held)| (scope, held.state)));
        let mut states = States::from([(Scope::Firm, firm)]);
        for (scope, state) in known.chain(self.held().map(|d| (&d.scope, d.state))) {
            if state > EmergencyState::Normal {
                let strongest = states.entry(scope.clone()).or_default();
                *strongest = state.max(*strongest);
            }
        }
        states
    }
}

pub(crate) struct View {
    id: BotId,
    lease: Duration,
    clock: Arc<dyn Clock>,
    born: Timestamp,
    in_force: InForce,
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
            in_force: InForce::unread(),
            inner: Mutex::new(Inner {
                known: None,
                calls: Vec::new(),
                pending: BTreeMap::new(),
                fault: None,
                ticket: 0,
                told: States::from([(Scope::Firm, EmergencyState::Normal)]),
                published: States::from([(Scope::Firm, EmergencyState::Halt)]),
            }),
            notifier: Notifier::default(),
        }
    }

    pub(crate) fn id(&self) -> &BotId {
        &self.id
    }

    pub(crate) fn state(&self) -> EmergencyState {
        self.in_force.firm()
    }

    pub(crate) fn valid_until(&self) -> Monotonic {
        Monotonic::from_origin(Duration::from_nanos(self.in_force.valid_until()))
    }

    /// The state that covers an order, and what may pass.
    pub(crate) fn stance(&self, order: &OrderScopes<'_>) -> (EmergencyState, Stance) {
        let (valid_until, state) = self.in_force.covering(order);
        // The clock last: a process that was suspended in between notices.
        let is_confirmed = self.clock.now() < Monotonic::from_origin(Duration::from_nanos(valid_until));
        let stance = state.stance();
        (state, if stance == Stance::Open && !is_confirmed { Stance::ReduceOnly } else { stance })
    }

    /// What somebody decided that covers an order, the strongest of it and of those the widest: as the snapshots, but not having
    /// read yet is no decision.
    pub(crate) fn decided(&self, order: &OrderScopes<'_>) -> Snapshot {
        let inner = self.inner.lock();
        let states = inner.states(EmergencyState::Normal);
        let covering = states.iter().filter(|(scope, _)| order.lie_in(scope));
        // Of equals the last: the map begins with the widest.
        let scope = covering.rev().max_by_key(|(_, state)| **state).map_or(Scope::Firm, |(scope, _)| scope.clone());
        self.enforced(&inner, &scope, EmergencyState::Normal)
    }

    pub(crate) fn snapshot(&self, scope: &Scope) -> Snapshot {
        self.enforced(&self.inner.lock(), scope, EmergencyState::Halt)
    }

    /// The firm, and every narrower scope that is stopped.
    pub(crate) fn snapshots(&self) -> Vec<Snapshot> {
        let inner = self.inner.lock();
        inner.published.keys().map(|scope| self.enforced(&inner, scope, EmergencyState::Halt)).collect()
    }

    /// The scopes that somebody stopped, or that are because the record is unreadable; not having read yet is no such reason.
    pub(crate) fn stops(&self) -> Vec<Snapshot> {
        let inner = self.inner.lock();
        let states = inner.states(EmergencyState::Normal);
        let stopped = states.iter().filter(|(_, state)| **state > EmergencyState::Normal);
        stopped.map(|(scope, _)| self.enforced(&inner, scope, EmergencyState::Normal)).collect()
    }

    /// Enforces the narrower stops that are known until the store holds them again.
    pub(crate) fn keep_known(&self) {
        self.change(|inner| {
            let Inner { known: Some(known), pending, ticket, .. } = inner else { return };
            for (scope, held) in &known.scopes {
                if pending.get(scope).is_none_or(|(_, d)| d.state < held.state) {
                    pending.insert(scope.clone(), (*ticket, Decision::of(scope, held)));
                }
            }
        });
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
                    // Whoever puts a record in its place has seen a firm at HALT, and knows nothing of any narrower stop.
                    inner.settle_covered(began, |d| d.scope == Scope::Firm && d.state <= EmergencyState::Halt);
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
                // A re-arm that waits for its second person was asked for without having seen the stop: the stop has to be
                // written, which makes the request void.
                inner.settle_covered(began, |d| {
                    record.held(&d.scope).is_some_and(|held| d.state <= held.state && held.request.is_none())
                });
                Ok(())
            }
        });
        if outcome.is_ok() {
            // After the state: see `gauge`.
            let until = (began.at + self.lease).since_origin().as_nanos();
            self.in_force.confirm(u64::try_from(until).unwrap_or(u64::MAX));
        }
        outcome
    }

    /// Enforces a stop from now on: until its call reports it done, else until a later answer of the store covers it.
    ///
    /// # Errors
    /// `TooManyScopes` if so many scopes wait for the store that there is no room for another; nothing is enforced then.
    pub(crate) fn hold(&self, decision: Decision) -> Result<Call<'_>, EmergencyError> {
        let ticket = self.change(|inner| {
            let has_room = decision.scope == Scope::Firm
                || inner.pending.contains_key(&decision.scope)
                || inner.pending.len() + inner.calls.len() < SCOPES_MAX;
            has_room.then(|| {
                inner.ticket += 1;
                inner.calls.push((inner.ticket, decision));
                inner.ticket
            })
        });
        let ticket = ticket.ok_or(EmergencyError::TooManyScopes { max: SCOPES_MAX })?;
        Ok(Call { view: self, ticket })
    }

    /// The stops that the store has still to take, the firm's first, at most `limit` of those that `wanted` names.
    pub(crate) fn pending(&self, limit: usize, wanted: impl Fn(&Scope) -> bool) -> Vec<(u64, Decision)> {
        let inner = self.inner.lock();
        inner.pending.values().filter(|(_, d)| wanted(&d.scope)).take(limit).cloned().collect()
    }

    /// The store took the stop of `scope` that was left at `ticket`.
    pub(crate) fn settle(&self, scope: &Scope, ticket: u64) {
        self.change(|inner| {
            if inner.pending.get(scope).is_some_and(|(left, _)| *left == ticket) {
                inner.pending.remove(scope);
            }
        });
    }

    fn fail(&self, inner: &mut Inner, error: &EmergencyError, version: u64) {
        let version = version.max(inner.known.as_ref().map_or(0, |r| r.version.0));
        let what = error.to_string();
        // The same fault, seen again, began when it began.
        let at = inner.fault.take().filter(|f| f.what == what).map_or_else(|| self.clock.wall(), |f| f.at);
        inner.fault = Some(Fault { what, version, at, ticket: inner.ticket });
    }

    /// Changes what is known, publishes what follows from it, and tells the subscribers.
    fn change<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        let result = {
            let mut inner = self.inner.lock();
            let result = change(&mut inner);
            let states = inner.states(EmergencyState::Halt);
            if states != inner.published {
                self.in_force.publish(&states);
                inner.published = states;
            }
            // Not having read yet is no news: a bot that starts into NORMAL hears nothing.
            let news = inner.states(EmergencyState::Normal);
            if news != inner.told {
                self.tell(&inner, &news);
                inner.told = news;
            }
            result
        };
        self.notifier.tell();
        result
    }

    /// Queues what changed against what was told.
    fn tell(&self, inner: &Inner, news: &States) {
        let all: std::collections::BTreeSet<&Scope> = news.keys().chain(inner.told.keys()).collect();
        for scope in all {
            let state_in = |states: &States| states.get(scope).copied().unwrap_or_default();
            let (from, to) = (state_in(&inner.told), state_in(news));
            if from == to {
                continue;
            }
            let Snapshot { reason, by, at, version, .. } = self.enforced(inner, scope, EmergencyState::Normal);
            let kind = if to > from { TransitionKind::Raised } else { TransitionKind::Rearmed };
            let scope = scope.clone();
            self.notifier.queue(Transition { kind, from, to, reason, by, confirmed_by: None, at, version, scope });
        }
    }

    fn enforced(&self, inner: &Inner, scope: &Scope, unread: EmergencyState) -> Snapshot {
        let transitions = inner.known.as_ref().map_or(0, |r| r.transitions);
        let is_firm = *scope == Scope::Firm;
        let ours = |state, what: &str, at, version| Snapshot {
            scope: scope.clone(),
            state,
            version,
            reason: what.to_owned(),
            by: self.id.to_string(),
            at,
            transitions,
            is_durable: false,
            is_automatic: true,
            rearm_from: None,
            request: None,
        };
        let stored = |held: &Held, is_durable| Snapshot {
            scope: scope.clone(),
            state: held.state,
            version: held.version.0,
            reason: held.reason.clone(),
            by: held.by.clone(),
            at: held.at,
            transitions,
            is_durable,
            is_automatic: held.automatic,
            rearm_from: held.rearm_from,
            request: held.request.clone(),
        };
        let mut snapshot = match (&inner.fault, &inner.known) {
            (Some(f), known) if is_firm => {
                let state = known.as_ref().map_or(unread, |r| r.firm.state).max(EmergencyState::Halt);
                ours(state, &f.what, f.at, f.version)
            }
            (None, None) if is_firm => ours(unread, "the emergency state was not read yet", self.born, 0),
            (fault, Some(r)) => {
                let untouched = Held::untouched();
                stored(r.held(scope).unwrap_or(&untouched), fault.is_none())
            }
            (_, None) => stored(&Held::untouched(), false),
        };
        let held = inner.held().filter(|d| d.scope == *scope);
        if let Some(d) = held.max_by_key(|d| d.state)
            && (d.state > snapshot.state || (d.state == snapshot.state && !snapshot.is_durable))
        {
            let Decision { state, by, reason, at, automatic, .. } = d.clone();
            snapshot = Snapshot { state, by, reason, at, is_automatic: automatic, is_durable: false, ..snapshot };
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
            let strongest = match inner.pending.remove(&mine.scope) {
                Some((_, theirs)) if theirs.state >= mine.state => theirs,
                _ => mine,
            };
            inner.pending.insert(strongest.scope.clone(), (inner.ticket, strongest));
        });
    }
}

#[cfg(test)]
mod tests {
    use infra_state_store::{Version, When};
    use infra_types::ManualClock;

    use super::*;
    use crate::stop::Stop;

    use EmergencyState::{Halt, Normal};

    fn view() -> View {
        View::new(BotId::new("a").unwrap(), Duration::from_secs(2), Arc::new(ManualClock::default()))
    }

    fn record(version: u64, state: EmergencyState) -> Found {
        let firm = Held { state, version: Version(version), ..Held::untouched() };
        Found::Record(Record { version: Version(version), firm, ..Record::absent() }, When::Exists)
    }

    fn halt(view: &View) -> Call<'_> {
        view.hold(Stop::halt("bob", "now").decided(Timestamp::EPOCH)).unwrap()
    }

    #[test]
    fn of_two_answers_under_way_the_newer_record_counts() {
        let view = view();
        let (slow, fast) = (view.begin(), view.begin());
        view.accept(&fast, &record(2, Halt)).unwrap();
        view.accept(&slow, &record(1, Normal)).unwrap();
        assert_eq!((view.state(), view.snapshot(&Scope::Firm).version), (Halt, 2));
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
        assert_eq!((view.state(), view.pending(9, |_| true).is_empty()), (Normal, true));
    }
}
