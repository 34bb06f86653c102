//! The steps, each in one batch.

use std::{collections::BTreeSet, sync::Arc};

use infra_state_store::{
    Batch, Delta, Key, ListRange, Op, Scan, StateStore, StateStoreExt, StoreError, Ttl, Value, Version, When,
};
use infra_types::{Clock, Decimal, EventId, InvalidValue, Namespace, Order, Scope, UserId};

use super::{PositionAsk, PositionRequest, RequestFilter, RequestState, WorkflowConfig, WorkflowError};
use crate::{
    error::RiskError,
    ledger,
    risk_events::{RiskEvent, RiskEventKind, RiskEvents},
};

const OPEN: &str = "risk/request/";
const OVER: &str = "risk/requests/over";
const COUNT: &str = "risk/requests/open";
const TRIES: u32 = 16;

/// Operations of the caller that go into the batch of a step, such as an audit row. Called again when a step is tried again.
pub type Companions<'a> = &'a (dyn Fn(&PositionRequest) -> Vec<Op> + Send + Sync);

/// An approval that fits an order, to be used up in the batch that reserves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PositionGrant {
    /// The request as it will be.
    pub request: PositionRequest,
    ops: Vec<Op>,
}

impl PositionGrant {
    /// What uses it up: give these to `check_and_reserve` as operations of the caller. The approval is gone if and only if the order
    /// is reserved; if another order was faster, the batch is refused (`Caller`) and nothing is reserved.
    #[must_use]
    pub fn ops(&self) -> Vec<Op> {
        self.ops.clone()
    }
}

/// The requests of one ledger. Any number of processes may share it.
#[derive(Debug)]
pub struct PositionWorkflow {
    store: Arc<dyn StateStore>,
    namespace: Namespace,
    clock: Arc<dyn Clock>,
    config: WorkflowConfig,
    events: RiskEvents,
}

fn key(id: &EventId) -> Result<Key, StoreError> {
    ledger::key(&format!("{OPEN}{id}"))
}

fn text(what: &'static str, text: &str) -> Result<(), InvalidValue> {
    if (1..=500).contains(&text.chars().count()) {
        return Ok(());
    }
    Err(InvalidValue::new(what, "must be 1 to 500 characters"))
}

impl PositionWorkflow {
    /// The requests of the ledger in `namespace`.
    ///
    /// # Errors
    /// `Invalid` for a bound out of its range.
    pub fn new(
        store: Arc<dyn StateStore>,
        namespace: Namespace,
        clock: Arc<dyn Clock>,
        config: WorkflowConfig,
    ) -> Result<Self, WorkflowError> {
        for (name, bound) in [("open_max", config.open_max), ("over_max", config.over_max)] {
            if !(1..=10_000).contains(&bound) {
                return Err(InvalidValue::new("workflow config", format!("{name} must be 1 to 10000")).into());
            }
        }
        let events = RiskEvents::new(store.clone(), namespace.clone())?;
        Ok(Self { store, namespace, clock, config, events })
    }

    /// Asks for a position. Asking the same again answers with the open request.
    ///
    /// # Errors
    /// `Invalid` for a size of zero, a reason that is empty or too long, or a time that is over or too far away; `AlreadyAsked` if the
    /// id stands for another open ask; `TooMany`; `Ledger`.
    ///
    /// # Cancel safety
    /// The request may be stored or not; ask again with the same id.
    pub async fn request(
        &self,
        ask: PositionAsk,
        companions: Companions<'_>,
    ) -> Result<PositionRequest, WorkflowError> {
        let now = self.clock.wall();
        text("reason", &ask.reason)?;
        if ask.size.get().is_zero() {
            return Err(InvalidValue::new("position size", "must be above zero").into());
        }
        if ask.expires_at <= now || ask.expires_at.since(now) > self.config.life_max {
            let rule = format!("must be later than now and at most {:?} away", self.config.life_max);
            return Err(InvalidValue::new("expiry of a request", rule).into());
        }
        let request = PositionRequest {
            ask,
            asked_at: now,
            state: RequestState::Pending,
            decided_by: None,
            decided_at: None,
            decided_because: None,
            used_by: None,
            over_at: None,
        };
        let open_max = i64::from(self.config.open_max);
        let own = vec![
            self.write(&request, When::Absent)?,
            Op::Add { key: ledger::key(COUNT)?, delta: Delta::at_most(1, open_max), ttl: Ttl::Keep },
            self.event(&request, RiskEventKind::PositionRequested, Some(&request.ask.by))?,
        ];
        let callers = companions(&request);
        match self.apply(own, callers).await {
            Ok(()) => Ok(request),
            Err(StoreError::Mismatch { index: 0, .. }) => match self.get(&request.ask.id).await? {
                Some((stored, _)) if stored.ask == request.ask => Ok(stored),
                Some(_) => Err(WorkflowError::AlreadyAsked(request.ask.id)),
                None => Err(WorkflowError::Contended(request.ask.id)),
            },
            Err(StoreError::OutOfBounds { index: 1, .. }) => Err(WorkflowError::TooMany { max: self.config.open_max }),
            Err(source) => Err(failed(source, 3)),
        }
    }

    /// Lets one order make the position.
    ///
    /// # Errors
    /// `SamePerson`, `NotEntitled`, `NotOpen`, `WrongState` unless it is pending, `Expired`, `Contended`, `Ledger`.
    ///
    /// # Cancel safety
    /// The decision may be stored or not; read before you decide again.
    pub async fn approve(
        &self,
        id: &EventId,
        by: &UserId,
        reason: &str,
        companions: Companions<'_>,
    ) -> Result<PositionRequest, WorkflowError> {
        self.decide(id, by, reason, RequestState::Approved, companions).await
    }

    /// Says no.
    ///
    /// # Errors
    /// As [`approve`](Self::approve).
    ///
    /// # Cancel safety
    /// As [`approve`](Self::approve).
    pub async fn reject(
        &self,
        id: &EventId,
        by: &UserId,
        reason: &str,
        companions: Companions<'_>,
    ) -> Result<PositionRequest, WorkflowError> {
        self.decide(id, by, reason, RequestState::Rejected, companions).await
    }

    async fn decide(
        &self,
        id: &EventId,
        by: &UserId,
        reason: &str,
        verdict: RequestState,
        companions: Companions<'_>,
    ) -> Result<PositionRequest, WorkflowError> {
        text("reason", reason)?;
        let change = |request: &PositionRequest| {
            if *by == request.ask.by {
                return Err(WorkflowError::SamePerson(by.clone()));
            }
            if !self.config.approvers.is_empty() && !self.config.approvers.contains(by) {
                return Err(WorkflowError::NotEntitled(by.clone()));
            }
            if request.state != RequestState::Pending {
                return Err(WorkflowError::WrongState { id: id.clone(), state: request.state });
            }
            self.in_time(request)?;
            let now = self.clock.wall();
            Ok(PositionRequest {
                state: verdict,
                decided_by: Some(by.clone()),
                decided_at: Some(now),
                decided_because: Some(reason.to_owned()),
                over_at: (!verdict.is_open()).then_some(now),
                ..request.clone()
            })
        };
        self.change(id, Some(by), &change, companions).await
    }

    /// Takes a request or an approval back.
    ///
    /// # Errors
    /// `NotEntitled` unless `by` asked for it; `NotOpen`, `Contended`, `Ledger`.
    ///
    /// # Cancel safety
    /// It may be taken back or not; do it again.
    pub async fn withdraw(
        &self,
        id: &EventId,
        by: &UserId,
        companions: Companions<'_>,
    ) -> Result<PositionRequest, WorkflowError> {
        let change = |request: &PositionRequest| {
            if *by != request.ask.by {
                return Err(WorkflowError::NotEntitled(by.clone()));
            }
            Ok(self.over(request, RequestState::Withdrawn))
        };
        self.change(id, Some(by), &change, companions).await
    }

    /// The approval, if it fits the order, to be used up in the batch that reserves the order. Writes nothing.
    ///
    /// # Errors
    /// `NotOpen`, `WrongState` unless it is approved, `Expired`, `DoesNotFit`, `Ledger`.
    ///
    /// # Cancel safety
    /// Reads change nothing.
    pub async fn grant(
        &self,
        id: &EventId,
        order: &Order,
        companions: Companions<'_>,
    ) -> Result<PositionGrant, WorkflowError> {
        let (request, version) = self.get(id).await?.ok_or_else(|| WorkflowError::NotOpen(id.clone()))?;
        if request.state != RequestState::Approved {
            return Err(WorkflowError::WrongState { id: id.clone(), state: request.state });
        }
        self.in_time(&request)?;
        if let Some(reason) = request.misfit(order) {
            return Err(WorkflowError::DoesNotFit { id: id.clone(), reason });
        }
        let used = PositionRequest { used_by: Some(order.id.clone()), ..self.over(&request, RequestState::Used) };
        let mut ops = self.step(&used, version, order.user.as_ref())?;
        ops.extend(companions(&used));
        Ok(PositionGrant { request: used, ops })
    }

    /// Ends every open request whose time ran out, and answers how many those were.
    ///
    /// # Errors
    /// `Ledger`; those before the failing one are ended.
    ///
    /// # Cancel safety
    /// Some may be ended, others not; sweep again.
    pub async fn sweep(&self, companions: Companions<'_>) -> Result<usize, WorkflowError> {
        let mut swept = 0;
        let now = self.clock.wall();
        for request in self.open().await?.into_iter().filter(|r| r.ask.expires_at <= now) {
            let change = |request: &PositionRequest| Ok(self.over(request, RequestState::Expired));
            match self.change(&request.ask.id, None, &change, companions).await {
                Ok(_) => swept += 1,
                // Somebody else ended it.
                Err(WorkflowError::NotOpen(_)) => {}
                Err(other) => return Err(other),
            }
        }
        Ok(swept)
    }

    /// The requests that a filter lets through: open ones by id, then those that are over, the newest first.
    ///
    /// # Errors
    /// `Invalid` unless the filter's limit is 1 to 1,000; `Ledger`.
    ///
    /// # Cancel safety
    /// Reads change nothing.
    pub async fn list(&self, filter: &RequestFilter) -> Result<Vec<PositionRequest>, WorkflowError> {
        if !(1..=1_000).contains(&filter.limit) {
            return Err(InvalidValue::new("request filter", "limit must be 1 to 1000").into());
        }
        let mut found = Vec::new();
        if filter.wants(true) {
            found = self.open().await?;
            found.retain(|request| filter.lets_through(request));
            found.truncate(filter.limit);
        }
        if !filter.wants(false) {
            return Ok(found);
        }
        // One that ends while this reads may stand in both.
        let mut seen: BTreeSet<EventId> = found.iter().map(|r| r.ask.id.clone()).collect();
        let over = Key::list(OVER)?;
        let mut range = ListRange::newest(1_000);
        loop {
            let page = self.store.list_range(&self.namespace, &over, range).await?;
            for bytes in &page.values {
                let request: PositionRequest = serde_json::from_slice(bytes)
                    .map_err(|e| RiskError::Corrupt { key: OVER.to_owned(), reason: e.to_string() })?;
                if found.len() == filter.limit {
                    return Ok(found);
                }
                if seen.insert(request.ask.id.clone()) && filter.lets_through(&request) {
                    found.push(request);
                }
            }
            if page.values.len() < range.limit {
                return Ok(found);
            }
            range.skip = range.skip.saturating_add(1_000);
        }
    }

    async fn open(&self) -> Result<Vec<PositionRequest>, WorkflowError> {
        let mut found = Vec::new();
        let mut scan = Scan { limit: 1_000, ..Scan::new(OPEN) };
        loop {
            let page = self.store.scan(&self.namespace, scan.clone()).await?;
            for (key, entry) in &page.entries {
                found.push(ledger::decode::<PositionRequest>(key, entry)?);
            }
            match page.next {
                Some(after) => scan.after = Some(after),
                None => return Ok(found),
            }
        }
    }

    async fn get(&self, id: &EventId) -> Result<Option<(PositionRequest, Version)>, WorkflowError> {
        let found = self.store.get_versioned(&self.namespace, &key(id)?).await?;
        // A record always has a version.
        Ok(found.and_then(|(request, version)| Some((request, version?))))
    }

    fn in_time(&self, request: &PositionRequest) -> Result<(), WorkflowError> {
        let at = request.ask.expires_at;
        if self.clock.wall() < at { Ok(()) } else { Err(WorkflowError::Expired { id: request.ask.id.clone(), at }) }
    }

    fn over(&self, request: &PositionRequest, state: RequestState) -> PositionRequest {
        PositionRequest { state, over_at: Some(self.clock.wall()), ..request.clone() }
    }

    async fn change(
        &self,
        id: &EventId,
        by: Option<&UserId>,
        change: &(dyn Fn(&PositionRequest) -> Result<PositionRequest, WorkflowError> + Send + Sync),
        companions: Companions<'_>,
    ) -> Result<PositionRequest, WorkflowError> {
        for _ in 0..TRIES {
            let (request, version) = self.get(id).await?.ok_or_else(|| WorkflowError::NotOpen(id.clone()))?;
            let next = change(&request)?;
            let own = self.step(&next, version, by)?;
            let callers_from = own.len();
            match self.apply(own, companions(&next)).await {
                Ok(()) => return Ok(next),
                Err(StoreError::Mismatch { index: 0, .. }) => {}
                Err(source) => return Err(failed(source, callers_from)),
            }
        }
        Err(WorkflowError::Contended(id.clone()))
    }

    /// What a step from `version` to `next` writes.
    fn step(&self, next: &PositionRequest, version: Version, by: Option<&UserId>) -> Result<Vec<Op>, WorkflowError> {
        let when = When::Version(version);
        let kind = match next.state {
            RequestState::Pending => RiskEventKind::PositionRequested,
            RequestState::Approved => RiskEventKind::PositionApproved,
            RequestState::Rejected => RiskEventKind::PositionRejected,
            RequestState::Used => RiskEventKind::PositionUsed,
            RequestState::Withdrawn => RiskEventKind::PositionWithdrawn,
            RequestState::Expired => RiskEventKind::PositionExpired,
        };
        let mut ops = Vec::with_capacity(4);
        if next.state.is_open() {
            ops.push(self.write(next, when)?);
        } else {
            let value = ledger::encode(next, "a position request")?.into();
            ops.push(Op::Delete { key: key(&next.ask.id)?, when });
            ops.push(Op::Add { key: ledger::key(COUNT)?, delta: Delta::unbounded(-1), ttl: Ttl::Keep });
            ops.push(Op::Push { list: Key::list(OVER)?, value, cap: self.config.over_max, ttl: Ttl::Never });
        }
        ops.push(self.event(next, kind, by)?);
        Ok(ops)
    }

    fn write(&self, request: &PositionRequest, when: When) -> Result<Op, WorkflowError> {
        let value = Value::from(ledger::encode(request, "a position request")?);
        Ok(Op::Set { key: key(&request.ask.id)?, value, ttl: Ttl::Never, when })
    }

    fn event(&self, of: &PositionRequest, kind: RiskEventKind, by: Option<&UserId>) -> Result<Op, WorkflowError> {
        let scope = Scope::Instrument(of.ask.instrument.clone());
        let mut event = RiskEvent::new(self.clock.wall(), kind, scope, "position_request");
        event.account = Some(of.ask.account.clone());
        event.order.clone_from(&of.used_by);
        event.user = by.cloned();
        let said = of.decided_because.as_deref().filter(|_| of.used_by.is_none()).unwrap_or(&of.ask.reason);
        let event = event.with_figures(of.ask.size.get(), Decimal::ZERO).with_note(format!("{}: {said}", of.ask.id));
        Ok(self.events.op(&event)?)
    }

    async fn apply(&self, own: Vec<Op>, callers: Vec<Op>) -> Result<(), StoreError> {
        let mut batch = Batch::new(self.namespace.clone());
        batch.extend(own.into_iter().chain(callers));
        self.store.apply(batch).await.map(|_| ())
    }
}

/// Which of the caller's operations refused, if it was one.
fn failed(source: StoreError, callers_from: usize) -> WorkflowError {
    match source.index() {
        Some(index) if index >= callers_from => RiskError::Caller { index: index - callers_from, source }.into(),
        _ => source.into(),
    }
}
