//! The only way down.

use infra_state_store::{Version, When};
use infra_types::{EventId, Scope, UserId};

use crate::{
    controller::EmergencyController,
    durable::{Found, Held, Record},
    error::EmergencyError,
    policy::RearmPolicy,
    raise::{ATTEMPTS, Written},
    state::{EmergencyState, RearmRequest, Snapshot, Transition, TransitionKind},
    stop::clip_reason,
};

/// What a person wants.
enum Want<'a> {
    /// To re-arm what they saw at this version.
    Rearm(u64),
    /// To ask for it.
    Request(u64, RearmRequest),
    /// To confirm what another one asked for.
    Confirm(&'a EventId),
}

/// The record to write on, and how the scope stands in it.
struct Base {
    record: Record,
    when: When,
    held: Held,
    /// What was read is whole, so the scope is as the record says.
    is_sound: bool,
}

impl EmergencyController {
    /// [`rearm_in`](Self::rearm_in) for the whole firm. Narrower stops stay.
    ///
    /// # Errors
    /// As [`rearm_in`](Self::rearm_in).
    ///
    /// # Cancel safety
    /// As [`rearm_in`](Self::rearm_in).
    pub async fn rearm(&self, by: &UserId, reason: &str, expected_version: u64) -> Result<Snapshot, EmergencyError> {
        self.rearm_in(&Scope::Firm, by, reason, expected_version).await
    }

    /// Takes one scope back to NORMAL, from any state, in the name of a person who has looked at `expected_version` (from
    /// [`Snapshot::version`] of that scope). A stop of it that came after that look is never undone, and no other scope is
    /// touched. This process goes on refusing until the store has the re-arm; other processes follow with their next refresh. At
    /// NORMAL nothing is written.
    ///
    /// For the firm, an unreadable record is replaced, unless a newer program wrote it; inspect it first. Narrower stops that this
    /// process knows outlive that.
    ///
    /// # Errors
    /// `Invalid` without a reason; `NotEntitled`, `SecondPersonNeeded` and `CoolingDown` by the [`RearmPolicy`]; `Moved` if the
    /// scope is at another version, also because a stop of this process that had not been written yet was written first;
    /// `Damaged` for a record of a newer program, and `Damaged` and `WentBack` for a narrower scope until the firm was looked
    /// at; `Store` if it was not written, or, with kind `Ambiguous`, if nobody can tell: look again; `Contended`.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the re-arm wholly done or wholly undone.
    pub async fn rearm_in(
        &self,
        scope: &Scope,
        by: &UserId,
        reason: &str,
        expected_version: u64,
    ) -> Result<Snapshot, EmergencyError> {
        self.policy.check_person(by, scope)?;
        if self.policy.needs_two().is_some() {
            return Err(EmergencyError::SecondPersonNeeded);
        }
        self.lower(scope, by, needed(reason)?, Want::Rearm(expected_version)).await
    }

    /// Asks for a re-arm that another person has to [confirm](Self::confirm_rearm). It takes the place of an earlier request of the
    /// scope. Any stop of the scope makes it void, one that changes nothing else too. Under a policy without a second person it
    /// expires after an hour.
    ///
    /// With a record that cannot be read there is nothing to write the request into: [`shutdown`](Self::shutdown) replaces it.
    ///
    /// # Errors
    /// As [`rearm_in`](Self::rearm_in); `Invalid` if the scope is not stopped.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the request wholly there or not at all.
    pub async fn request_rearm(
        &self,
        scope: &Scope,
        by: &UserId,
        reason: &str,
        expected_version: u64,
    ) -> Result<RearmRequest, EmergencyError> {
        self.policy.check_person(by, scope)?;
        let at = self.clock.wall();
        let expires = at.saturating_add(self.policy.needs_two().unwrap_or(std::time::Duration::from_secs(3_600)));
        let reason = clip_reason(needed(reason)?, scope);
        let request = RearmRequest { id: EventId::generate(), by: by.clone(), reason, at, expires };
        self.lower(scope, by, "", Want::Request(expected_version, request.clone())).await?;
        Ok(request)
    }

    /// Confirms what another person asked for: the re-arm happens, in both their names.
    ///
    /// # Errors
    /// As [`rearm_in`](Self::rearm_in); `NoRequest` if it expired or a stop came after it; `SamePerson`.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the re-arm wholly done or wholly undone.
    pub async fn confirm_rearm(
        &self,
        scope: &Scope,
        by: &UserId,
        request: &EventId,
    ) -> Result<Snapshot, EmergencyError> {
        self.policy.check_person(by, scope)?;
        self.lower(scope, by, "", Want::Confirm(request)).await
    }

    async fn lower(
        &self,
        scope: &Scope,
        by: &UserId,
        reason: &str,
        want: Want<'_>,
    ) -> Result<Snapshot, EmergencyError> {
        let id = EventId::generate();
        let mut lost_reply = None;
        for _ in 0..ATTEMPTS {
            let read = match self.read().await {
                // A stop of this process that the store has not taken came after the look as well.
                Ok(read) => self.write_pending(|s| s == scope).await.map(|wrote| (!wrote).then_some(read)),
                Err(e) => Err(e),
            };
            let (found, accepted) = match read {
                Ok(Some(read)) => read,
                Ok(None) => continue,
                Err(e) => return Err(lost_reply.map_or(e, EmergencyError::Store)),
            };
            let base = match self.base(scope, found, accepted) {
                Ok(base) => base,
                Err(e) => return Err(lost_reply.map_or(e, EmergencyError::Store)),
            };
            if base.record.id == id {
                return Ok(self.view.snapshot(scope));
            }
            let next = match self.lowered(base, scope, by, reason, &want, &id) {
                Ok(next) => next,
                // It may be ours that moved it.
                Err(e) => return Err(lost_reply.map_or(e, EmergencyError::Store)),
            };
            let Some((next, transition, when)) = next else { return Ok(self.view.snapshot(scope)) };
            match self.write(next, &[transition], when).await? {
                Written::Done => return Ok(self.view.snapshot(scope)),
                Written::ReadAgain(lost) => lost_reply = lost,
            }
        }
        Err(lost_reply.map_or(EmergencyError::Contended, EmergencyError::Store))
    }

    fn base(&self, scope: &Scope, found: Found, accepted: Result<(), EmergencyError>) -> Result<Base, EmergencyError> {
        let unsound = |record: Record, when| {
            let enforced = self.view.snapshot(scope);
            let record = self.written_back(record);
            let held = Held { state: enforced.state, version: Version(enforced.version), ..record.firm.clone() };
            Base { record, when, held, is_sound: false }
        };
        match (found, accepted) {
            (Found::Record(record, when), Ok(())) => {
                let held = record.held(scope).cloned().unwrap_or_else(Held::untouched);
                Ok(Base { record, when, held, is_sound: true })
            }
            (Found::Record(record, when), Err(_)) if *scope == Scope::Firm => Ok(unsound(record, when)),
            (Found::Damaged { replace: Some(when), .. }, _) if *scope == Scope::Firm => {
                Ok(unsound(Record::absent(), when))
            }
            (Found::Damaged { what, .. }, _) => Err(EmergencyError::Damaged { what }),
            (Found::Record(..), Err(e)) => Err(e),
        }
    }

    /// The record as the person wants it, and its transition; none if there is nothing to do.
    fn lowered(
        &self,
        base: Base,
        scope: &Scope,
        by: &UserId,
        reason: &str,
        want: &Want<'_>,
        id: &EventId,
    ) -> Result<Option<(Record, Transition, When)>, EmergencyError> {
        let Base { mut record, when, held, is_sound } = base;
        let now = self.clock.wall();
        let (from, version) = (held.state, Version(record.version.0 + 1));
        if let Want::Rearm(expected) | Want::Request(expected, _) = want
            && held.version.0 != *expected
        {
            let state = self.view.snapshot(scope).state.max(from);
            return Err(EmergencyError::Moved {
                scope: scope.clone(),
                expected: *expected,
                found: held.version.0,
                state,
            });
        }
        RearmPolicy::check_time(&held, scope, now)?;
        let mut told = Transition {
            kind: TransitionKind::Rearmed,
            from,
            to: EmergencyState::Normal,
            reason: clip_reason(reason, scope),
            by: by.to_string(),
            confirmed_by: None,
            at: now,
            version: version.0,
            scope: scope.clone(),
        };
        match want {
            Want::Rearm(_) if is_sound && from == EmergencyState::Normal => return Ok(None),
            Want::Rearm(_) => {}
            Want::Request(_, _) if !is_sound => {
                let rule = "there is no sound record to keep a request in: persist the state, or shut down, first";
                return Err(EmergencyError::invalid(rule));
            }
            Want::Request(_, _) if from == EmergencyState::Normal => {
                return Err(EmergencyError::invalid(format!("{scope} is not stopped: there is nothing to re-arm")));
            }
            Want::Request(_, request) => {
                let (kind, reason) = (TransitionKind::RearmRequested, request.reason.clone());
                let requested = Held { request: Some(request.clone()), ..held };
                record.set(scope.clone(), requested);
                record.version = version;
                record.id = id.clone();
                return Ok(Some((record, Transition { kind, to: from, reason, ..told }, when)));
            }
            Want::Confirm(wanted) => {
                let request = held.request.filter(|r| r.id == **wanted && now < r.expires);
                let request = request.ok_or_else(|| EmergencyError::NoRequest { scope: scope.clone() })?;
                if request.by == *by {
                    return Err(EmergencyError::SamePerson { user: by.clone() });
                }
                (told.by, told.reason, told.confirmed_by) = (request.by.to_string(), request.reason, Some(by.clone()));
            }
        }
        let normal = Held {
            state: EmergencyState::Normal,
            version,
            reason: told.reason.clone(),
            by: told.by.clone(),
            at: now,
            ..Held::untouched()
        };
        record.set(scope.clone(), normal);
        record.version = version;
        record.transitions += 1;
        record.id = id.clone();
        Ok(Some((record, told, when)))
    }
}

fn needed(reason: &str) -> Result<&str, EmergencyError> {
    if reason.trim().is_empty() {
        return Err(EmergencyError::invalid("re-arming needs a reason: write what was found and why it is safe"));
    }
    Ok(reason)
}
