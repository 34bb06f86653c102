//! Reading the record, and raising it by compare-and-swap.

use infra_state_store::{Batch, StoreError, Ttl, Version, When};
use infra_types::{ErrorKind, EventId, Scope};

use crate::{
    controller::EmergencyController,
    durable::{Found, Record, decode},
    error::EmergencyError,
    state::{EmergencyState, Snapshot, Transition},
    view::Decision,
};

/// How often a swap is tried. Each loss means that somebody else's swap succeeded.
pub(crate) const ATTEMPTS: usize = 16;

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
    /// Enforces the decision at once, then makes it durable.
    pub(crate) async fn escalate(&self, decision: Decision) -> Result<Snapshot, EmergencyError> {
        let call = self.view.hold(decision.clone());
        match self.raise(&decision).await {
            Ok(Raised::Stored) => {
                call.done();
                Ok(self.snapshot())
            }
            Ok(Raised::CoveredByDamage(damage)) => {
                call.done();
                Err(damage)
            }
            Err(cause) => Err(EmergencyError::NotDurable { state: decision.state, cause: Box::new(cause) }),
        }
    }

    /// Makes the record at least as strong as the decision. Repeating it changes nothing, so a lost reply is simply read after.
    pub(crate) async fn raise(&self, decision: &Decision) -> Result<Raised, EmergencyError> {
        let mut lost_reply = None;
        for _ in 0..ATTEMPTS {
            let (found, accepted) = match self.read().await {
                Ok(read) => read,
                // The write before is still in doubt, and that is the graver news.
                Err(e) => return Err(lost_reply.map_or(e, EmergencyError::Store)),
            };
            let enforced = self.snapshot();
            let (from, version, transitions, to, when) = match (found, accepted) {
                (Found::Record(r, _), Ok(())) if r.state >= decision.state => return Ok(Raised::Stored),
                (Found::Record(r, when), Ok(())) => (r.state, r.version.0, r.transitions, decision.state, when),
                // The store lost a transition: what is written back must not be weaker than what it lost.
                (Found::Record(r, when), Err(_)) => {
                    (r.state, enforced.version, enforced.transitions, enforced.state.max(decision.state), when)
                }
                // Only the strongest state surely is no weaker than what cannot be read.
                (Found::Damaged { replace: Some(when), .. }, _) if decision.state == EmergencyState::Shutdown => {
                    (EmergencyState::Halt, enforced.version, enforced.transitions, decision.state, when)
                }
                (Found::Damaged { what, replace: Some(_), .. }, _) => {
                    return Ok(Raised::CoveredByDamage(EmergencyError::Damaged { what }));
                }
                // Only this process is known to read it as a HALT.
                (Found::Damaged { what, replace: None, .. }, _) => return Err(EmergencyError::Damaged { what }),
            };
            let next = Record {
                schema: Record::SCHEMA,
                state: to,
                version: Version(version + 1),
                transitions: transitions + 1,
                reason: decision.reason.clone(),
                by: decision.by.clone(),
                at: decision.at,
                id: EventId::generate(),
            };
            match self.write(next, from, when).await? {
                Written::Done => return Ok(Raised::Stored),
                Written::ReadAgain(lost) => lost_reply = lost,
            }
        }
        Err(lost_reply.map_or(EmergencyError::Contended, EmergencyError::Store))
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

    /// Swaps the record, with its companion rows.
    pub(crate) async fn write(
        &self,
        next: Record,
        from: EmergencyState,
        when: When,
    ) -> Result<Written, EmergencyError> {
        let began = self.view.begin();
        let json = serde_json::to_vec(&next).map_err(|e| EmergencyError::invalid(e.to_string()))?;
        let mut batch = Batch::new(self.namespace.clone()).set_when(self.key.clone(), json, Ttl::Never, when);
        if let Some(companions) = &self.companions {
            batch.extend(companions(&Transition {
                from,
                to: next.state,
                reason: next.reason.clone(),
                by: next.by.clone(),
                at: next.at,
                version: next.version.0,
                scope: Scope::Firm,
            }));
        }
        match self.store.apply(batch).await {
            Ok(_) => {
                self.view.accept(&began, &Found::Record(next, When::Exists))?;
                Ok(Written::Done)
            }
            Err(StoreError::Mismatch { index: 0, .. }) => Ok(Written::ReadAgain(None)),
            Err(e) if e.kind() == ErrorKind::Ambiguous => Ok(Written::ReadAgain(Some(e))),
            Err(e) => Err(e.into()),
        }
    }
}
