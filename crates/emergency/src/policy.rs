//! Who may re-arm, when, and how many it takes.

use std::{collections::BTreeSet, time::Duration};

use infra_types::{Scope, Timestamp, UserId};

use crate::{durable::Held, error::EmergencyError, state::EmergencyState, stop::Decision};

/// The rules of re-arming.
///
/// Without any, everybody who is named may re-arm everything, alone and at once. It binds the processes that were given it and
/// those only: give the same to each that can re-arm (RTS 6 art. 18: access to critical functions is restricted and traceable
/// to a person). Only the cool-down is in the record and so holds for everybody.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct RearmPolicy {
    /// Per person: everything, or these scopes. Nobody is listed: everybody may.
    entitled: Vec<(UserId, Option<BTreeSet<Scope>>)>,
    two_person: Option<Duration>,
    cool_down: Option<Duration>,
}

impl RearmPolicy {
    /// No rules.
    pub fn new() -> Self {
        Self::default()
    }

    /// This person may re-arm every scope. From the first entitled person on, nobody else may.
    pub fn entitle(mut self, user: UserId) -> Self {
        self.entitled.push((user, None));
        self
    }

    /// This person may re-arm these scopes, and none that lies in them or around them.
    pub fn entitle_in(mut self, user: UserId, scopes: impl IntoIterator<Item = Scope>) -> Self {
        self.entitled.push((user, Some(scopes.into_iter().collect())));
        self
    }

    /// It takes two persons: one asks, another one confirms within `expiry` (by the wall clock). Both must be entitled.
    pub fn two_person(mut self, expiry: Duration) -> Self {
        self.two_person = Some(expiry);
        self
    }

    /// What a program halted stays halted for so long (by the wall clock) whoever wants to re-arm it. Put into the record by the
    /// process that halts.
    pub fn cool_down(mut self, after_automatic: Duration) -> Self {
        self.cool_down = Some(after_automatic);
        self
    }

    pub(crate) fn needs_two(&self) -> Option<Duration> {
        self.two_person
    }

    /// When what was decided so may be re-armed at the earliest.
    pub(crate) fn rearm_from(&self, decision: &Decision) -> Option<Timestamp> {
        let stopped = decision.automatic && decision.state >= EmergencyState::Halt;
        self.cool_down.filter(|_| stopped).map(|wait| decision.at.saturating_add(wait))
    }

    pub(crate) fn check_person(&self, user: &UserId, scope: &Scope) -> Result<(), EmergencyError> {
        let covers = |scopes: &Option<BTreeSet<Scope>>| scopes.as_ref().is_none_or(|s| s.contains(scope));
        if self.entitled.is_empty() || self.entitled.iter().any(|(who, scopes)| who == user && covers(scopes)) {
            return Ok(());
        }
        Err(EmergencyError::NotEntitled { user: user.clone(), scope: scope.clone() })
    }

    pub(crate) fn check_time(held: &Held, scope: &Scope, now: Timestamp) -> Result<(), EmergencyError> {
        match held.rearm_from {
            Some(until) if now < until => Err(EmergencyError::CoolingDown { scope: scope.clone(), until }),
            _ => Ok(()),
        }
    }
}
