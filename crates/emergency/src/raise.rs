//! Reading the record, and raising it by compare-and-swap.

use infra_state_store::{Batch, Op, StoreError, Ttl, Version, When};
use infra_types::{ErrorKind, EventId, Scope};

use crate::{
    controller::EmergencyController,
    durable::{Found, HISTORY_MAX, Held, Record, SCOPES_MAX, decode},
    error::EmergencyError,
    state::{EmergencyState, Snapshot, Transition, TransitionKind},
    stop::{Decision, Stop},
};

/// How often a swap is tried. Each loss means that somebody else's swap succeeded.
pub(crate) const ATTEMPTS: usize = 16;

/// Stops that are written in one batch: with their rows they are far from what a batch may hold.
const STOPS_PER_BATCH: usize = 32;

/// How a stop came to be in force for everybody.
pub(crate) enum Raised {
    /// The record is at least as strong.
    Stored,
    /// The record is damaged, which counts as HALT wherever it is read; nothing weaker than it may be is written over it.
    CoveredByDamage(EmergencyError),
}

/// How a write ended when it did not fail for good.
pub(crate) enum Written {
    Done,
    /// Somebody else was first, or the reply was lost (then the error is here): read again.
    ReadAgain(Option<StoreError>),
}

impl EmergencyController {
    /// Enforces the stop at once, then makes it durable.
    pub(crate) async fn escalate(&self, stop: Stop) -> Result<Snapshot, EmergencyError> {
        let decision = self.decided(stop);
        let call = self.view.hold(decision.clone())?;
        match self.raise(std::slice::from_ref(&decision)).await {
            Ok(Raised::Stored) => {
                call.done();
                Ok(self.view.snapshot(&decision.scope))
            }
            Ok(Raised::CoveredByDamage(damage)) => {
                call.done();
                Err(damage)
            }
            Err(cause) => Err(not_durable(&decision, cause)),
        }
    }

    /// Writes the stops of the wanted scopes that the store has not taken yet; whether there were any.
    pub(crate) async fn write_pending(&self, wanted: impl Fn(&Scope) -> bool) -> Result<bool, EmergencyError> {
        let mut wrote = false;
        // The firm's alone: a damaged record takes it where it takes no narrower one.
        let firm = self.view.pending(1, |scope| *scope == Scope::Firm && wanted(scope));
        if !firm.is_empty() {
            self.write_some(firm).await?;
            wrote = true;
        }
        loop {
            let some = self.view.pending(STOPS_PER_BATCH, |scope| *scope != Scope::Firm && wanted(scope));
            if some.is_empty() {
                return Ok(wrote);
            }
            self.write_some(some).await?;
            wrote = true;
        }
    }

    async fn write_some(&self, stops: Vec<(u64, Decision)>) -> Result<(), EmergencyError> {
        match self.write_together(&stops).await {
            // One that finds no room must not keep out those that need none.
            Err(EmergencyError::NotDurable { cause, .. })
                if stops.len() > 1 && matches!(*cause, EmergencyError::TooManyScopes { .. }) =>
            {
                let mut full = Ok(());
                for stop in &stops {
                    full = full.and(self.write_together(std::slice::from_ref(stop)).await);
                }
                full
            }
            written => written,
        }
    }

    async fn write_together(&self, stops: &[(u64, Decision)]) -> Result<(), EmergencyError> {
        let decisions: Vec<Decision> = stops.iter().map(|(_, decision)| decision.clone()).collect();
        let raised = match self.raise(&decisions).await {
            Ok(raised) => raised,
            Err(cause) => return Err(not_durable(&decisions[0], cause)),
        };
        for (ticket, decision) in stops {
            self.view.settle(&decision.scope, *ticket);
        }
        match raised {
            Raised::Stored => Ok(()),
            Raised::CoveredByDamage(damage) => Err(damage),
        }
    }

    /// The stop as it is decided now, by the rules of this process.
    fn decided(&self, stop: Stop) -> Decision {
        let decision = stop.decided(self.clock.wall());
        Decision { rearm_from: self.policy.rearm_from(&decision), ..decision }
    }

    /// Makes the record at least as strong as the decisions: either one of the firm, or any of narrower scopes. Repeating it
    /// changes nothing, so a lost reply is simply read after.
    async fn raise(&self, decisions: &[Decision]) -> Result<Raised, EmergencyError> {
        let mut lost_reply = None;
        for _ in 0..ATTEMPTS {
            let (found, accepted) = match self.read().await {
                Ok(read) => read,
                // The write before is still in doubt, and that is the graver news.
                Err(e) => return Err(lost_reply.map_or(e, EmergencyError::Store)),
            };
            let is_back = accepted.is_err();
            let (base, when) = match (found, accepted) {
                (Found::Record(record, when), Ok(())) => (record, when),
                (Found::Record(record, when), Err(_)) => (self.written_back(record), when),
                // Only the strongest state surely is no weaker than what cannot be read.
                (Found::Damaged { replace: Some(when), .. }, _) if decisions.iter().any(ends_trading) => {
                    (self.written_back(Record::absent()), when)
                }
                (Found::Damaged { what, replace: Some(_), .. }, _)
                    if decisions.iter().all(|d| d.scope == Scope::Firm) =>
                {
                    return Ok(Raised::CoveredByDamage(EmergencyError::Damaged { what }));
                }
                // A narrower stop would not outlive the damage; and of a newer program's record only this process is known to
                // read it as a HALT.
                (Found::Damaged { what, .. }, _) => return Err(EmergencyError::Damaged { what }),
            };
            let (next, transitions) =
                if is_back { raised(base, &self.with_firm(decisions), true)? } else { raised(base, decisions, false)? };
            if transitions.is_empty() {
                return Ok(Raised::Stored);
            }
            match self.write(next, &transitions, when).await? {
                Written::Done => return Ok(Raised::Stored),
                Written::ReadAgain(lost) => lost_reply = lost,
            }
        }
        Err(lost_reply.map_or(EmergencyError::Contended, EmergencyError::Store))
    }

    /// What to write on where the store holds less than this process knows, or nothing that can be read. The narrower stops that
    /// are known go on being enforced and are written by what comes next.
    pub(crate) fn written_back(&self, found: Record) -> Record {
        self.view.keep_known();
        let Snapshot { version, transitions, .. } = self.view.snapshot(&Scope::Firm);
        let version = found.version.max(Version(version));
        Record { version, transitions: found.transitions.max(transitions), ..found }
    }

    /// The decisions, and that the firm is not weaker than this process enforces: what the store lost may have been that strong.
    fn with_firm(&self, decisions: &[Decision]) -> Vec<Decision> {
        let enforced = self.view.snapshot(&Scope::Firm);
        let mut all = decisions.to_vec();
        match all.iter_mut().find(|d| d.scope == Scope::Firm) {
            Some(firm) => firm.state = firm.state.max(enforced.state),
            None => all.push(Decision {
                scope: Scope::Firm,
                state: enforced.state,
                by: enforced.by,
                reason: enforced.reason,
                at: enforced.at,
                automatic: enforced.is_automatic,
                rearm_from: enforced.rearm_from,
            }),
        }
        all
    }

    /// Reads the record and takes it into the view. The inner result says whether it could be taken.
    pub(crate) async fn read(&self) -> Result<(Found, Result<(), EmergencyError>), EmergencyError> {
        let began = self.view.begin();
        let found = match self.store.get(&self.namespace, &self.key).await {
            Ok(entry) => decode(entry),
            Err(e) if e.kind() == ErrorKind::Corrupt => {
                Found::Damaged { what: e.to_string(), version: 0, replace: None }
            }
            Err(e) => return Err(e.into()),
        };
        let accepted = self.view.accept(&began, &found);
        Ok((found, accepted))
    }

    /// Swaps the record, with the rows of its transitions.
    pub(crate) async fn write(
        &self,
        next: Record,
        transitions: &[Transition],
        when: When,
    ) -> Result<Written, EmergencyError> {
        let began = self.view.begin();
        let json = |e: serde_json::Error| EmergencyError::invalid(e.to_string());
        let record = serde_json::to_vec(&next).map_err(json)?;
        let mut batch = Batch::new(self.namespace.clone()).set_when(self.key.clone(), record, Ttl::Never, when);
        for transition in transitions {
            let value = serde_json::to_vec(transition).map_err(json)?.into();
            let list = self.history.clone();
            batch = batch.with(Op::Push { list, value, cap: HISTORY_MAX, ttl: Ttl::Never });
            if let Some(companions) = &self.companions {
                batch.extend(companions(transition));
            }
        }
        match self.store.apply(batch).await {
            Ok(_) => {
                self.view.accept(&began, &Found::Record(next, When::Exists))?;
                self.push.tell(transitions);
                Ok(Written::Done)
            }
            Err(StoreError::Mismatch { index: 0, .. }) => Ok(Written::ReadAgain(None)),
            Err(e) if e.kind() == ErrorKind::Ambiguous => Ok(Written::ReadAgain(Some(e))),
            Err(e) => Err(e.into()),
        }
    }
}

/// The record with the decisions in it, and what changed; `always` the firm.
fn raised(
    mut record: Record,
    decisions: &[Decision],
    always: bool,
) -> Result<(Record, Vec<Transition>), EmergencyError> {
    let mut transitions = Vec::new();
    for decision in decisions {
        let held = record.held(&decision.scope);
        let (from, is_requested) = held.map_or((EmergencyState::Normal, false), |h| (h.state, h.request.is_some()));
        // At the same state it is a transition only if it makes a requested re-arm void.
        if from >= decision.state && !is_requested && !(always && decision.scope == Scope::Firm) {
            continue;
        }
        if held.is_none() && record.scopes.len() >= SCOPES_MAX {
            return Err(EmergencyError::TooManyScopes { max: SCOPES_MAX });
        }
        let version = Version(record.version.0 + 1);
        let next = match held {
            Some(stronger) if from > decision.state => Held { version, request: None, ..stronger.clone() },
            // A cool-down that runs is not cut short by a stronger stop.
            Some(weaker) => {
                let next = decision.held(version);
                Held { rearm_from: next.rearm_from.max(weaker.rearm_from), ..next }
            }
            None => decision.held(version),
        };
        transitions.push(Transition {
            kind: TransitionKind::Raised,
            from,
            to: next.state,
            reason: decision.reason.clone(),
            by: decision.by.clone(),
            confirmed_by: None,
            at: decision.at,
            version: version.0,
            scope: decision.scope.clone(),
        });
        record.version = version;
        record.transitions += 1;
        record.set(decision.scope.clone(), next);
    }
    record.id = EventId::generate();
    Ok((record, transitions))
}

fn ends_trading(decision: &Decision) -> bool {
    decision.scope == Scope::Firm && decision.state == EmergencyState::Shutdown
}

fn not_durable(decision: &Decision, cause: EmergencyError) -> EmergencyError {
    EmergencyError::NotDurable { state: decision.state, cause: Box::new(cause) }
}
