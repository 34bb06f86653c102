//! On a store in memory.

use std::sync::Arc;

use infra_state_store::{Key, MemoryStateStore, Op, StateStore, StateStoreExt, Ttl, When};
use infra_types::{Clock, Decimal, ErrorKind, ManualClock, Namespace};

use super::*;
use crate::risk_events::{RiskEventFilter, RiskEventKind, RiskEvents};

struct World {
    clock: ManualClock,
    store: Arc<dyn StateStore>,
}

impl World {
    fn new() -> Self {
        let clock = ManualClock::default();
        Self { store: Arc::new(MemoryStateStore::new(Arc::new(clock.clone()))), clock }
    }

    fn workflow(&self, config: WorkflowConfig) -> PositionWorkflow {
        PositionWorkflow::new(self.store.clone(), namespace(), Arc::new(self.clock.clone()), config).unwrap()
    }

    fn ask(&self, id: &str) -> PositionAsk {
        PositionAsk {
            id: EventId::new(id).unwrap(),
            account: "a".parse().unwrap(),
            instrument: "v/X".parse().unwrap(),
            side: Side::Buy,
            size: "10".parse().unwrap(),
            reason: "a hedge".into(),
            by: user("ada"),
            expires_at: self.clock.wall().saturating_add(Duration::from_secs(60)),
        }
    }

    async fn open_count(&self) -> i64 {
        let key = Key::record("risk/requests/open").unwrap();
        self.store.get_counter(&namespace(), &key).await.unwrap()
    }

    async fn kinds(&self) -> Vec<RiskEventKind> {
        let events = RiskEvents::new(self.store.clone(), namespace()).unwrap();
        let page = events.query(&RiskEventFilter::default()).await.unwrap();
        page.events.into_iter().rev().map(|e| e.kind).collect()
    }
}

fn namespace() -> Namespace {
    Namespace::new("ledger").unwrap()
}

fn user(name: &str) -> UserId {
    name.parse().unwrap()
}

fn order(account: &str, symbol: &str, side: Side, qty: &str) -> Order {
    Order::limit(
        "o".parse().unwrap(),
        account.parse().unwrap(),
        "s".parse().unwrap(),
        format!("v/{symbol}").parse().unwrap(),
        side,
        qty.parse().unwrap(),
        "1".parse().unwrap(),
    )
}

const NONE: Companions<'static> = &|_| Vec::new();

#[tokio::test]
async fn an_approval_is_used_up_once() {
    let world = World::new();
    let workflow = world.workflow(WorkflowConfig::default());
    let id = workflow.request(world.ask("r"), NONE).await.unwrap().ask.id;
    let wish = order("a", "X", Side::Buy, "10");
    let early = workflow.grant(&id, &wish, NONE).await.unwrap_err();
    assert!(matches!(early, WorkflowError::WrongState { state: RequestState::Pending, .. }));
    let approved = workflow.approve(&id, &user("bob"), "fine", NONE).await.unwrap();
    assert_eq!((approved.state, approved.decided_by), (RequestState::Approved, Some(user("bob"))));
    for (misfit, why) in [
        (order("b", "X", Side::Buy, "1"), "account"),
        (order("a", "Y", Side::Buy, "1"), "instrument"),
        (order("a", "X", Side::Sell, "1"), "side"),
        (order("a", "X", Side::Buy, "10.0001"), "larger"),
    ] {
        let refused = workflow.grant(&id, &misfit, NONE).await.unwrap_err();
        assert!(refused.to_string().contains(why), "{refused}");
    }
    // Two orders are given the same approval; the batch of one of them goes through.
    let (one, two) = (workflow.grant(&id, &wish, NONE).await.unwrap(), workflow.grant(&id, &wish, NONE).await.unwrap());
    let batch = |grant: &PositionGrant| infra_state_store::Batch { namespace: namespace(), ops: grant.ops() };
    world.store.apply(batch(&one)).await.unwrap();
    assert!(world.store.apply(batch(&two)).await.is_err());
    assert!(matches!(workflow.grant(&id, &wish, NONE).await, Err(WorkflowError::NotOpen(_))));
    let used = workflow.list(&RequestFilter::default()).await.unwrap();
    assert_eq!((used.len(), used[0].state, &used[0].used_by), (1, RequestState::Used, &Some(wish.id)));
    assert_eq!(world.open_count().await, 0);
    use RiskEventKind::{PositionApproved, PositionRequested, PositionUsed};
    assert_eq!(world.kinds().await, [PositionRequested, PositionApproved, PositionUsed]);
}

#[tokio::test]
async fn nobody_decides_alone_and_a_decision_stands() {
    let world = World::new();
    let approvers = [user("ada"), user("bob")].into();
    let workflow = world.workflow(WorkflowConfig { approvers, ..WorkflowConfig::default() });
    let id = workflow.request(world.ask("r"), NONE).await.unwrap().ask.id;
    let own = workflow.approve(&id, &user("ada"), "me", NONE).await.unwrap_err();
    assert!(matches!(own, WorkflowError::SamePerson(_)) && own.kind() == ErrorKind::Permanent);
    let stranger = workflow.reject(&id, &user("eve"), "no", NONE).await.unwrap_err();
    assert!(matches!(stranger, WorkflowError::NotEntitled(_)));
    assert!(matches!(workflow.withdraw(&id, &user("bob"), NONE).await, Err(WorkflowError::NotEntitled(_))));
    assert!(matches!(workflow.approve(&id, &user("bob"), "", NONE).await, Err(WorkflowError::Invalid(_))));
    workflow.reject(&id, &user("bob"), "too large", NONE).await.unwrap();
    assert!(matches!(workflow.approve(&id, &user("bob"), "after all", NONE).await, Err(WorkflowError::NotOpen(_))));
    let second = workflow.request(world.ask("r2"), NONE).await.unwrap().ask.id;
    workflow.approve(&second, &user("bob"), "fine", NONE).await.unwrap();
    let again = workflow.reject(&second, &user("bob"), "no", NONE).await.unwrap_err();
    assert!(matches!(again, WorkflowError::WrongState { state: RequestState::Approved, .. }));
    assert_eq!(workflow.withdraw(&second, &user("ada"), NONE).await.unwrap().state, RequestState::Withdrawn);
    assert_eq!(world.open_count().await, 0);
}

#[tokio::test]
async fn time_runs_out_for_requests_and_approvals() {
    let world = World::new();
    let workflow = world.workflow(WorkflowConfig::default());
    for id in ["p", "a", "later"] {
        let mut ask = world.ask(id);
        if id == "later" {
            ask.expires_at = ask.expires_at.saturating_add(Duration::from_secs(60));
        }
        workflow.request(ask, NONE).await.unwrap();
    }
    let approved = EventId::new("a").unwrap();
    workflow.approve(&approved, &user("bob"), "fine", NONE).await.unwrap();
    assert_eq!(workflow.sweep(NONE).await.unwrap(), 0);
    world.clock.advance(Duration::from_secs(60));
    let late = workflow.grant(&approved, &order("a", "X", Side::Buy, "1"), NONE).await.unwrap_err();
    assert!(matches!(late, WorkflowError::Expired { .. }));
    let pending = EventId::new("p").unwrap();
    assert!(matches!(workflow.approve(&pending, &user("bob"), "x", NONE).await, Err(WorkflowError::Expired { .. })));
    assert_eq!((workflow.sweep(NONE).await.unwrap(), workflow.sweep(NONE).await.unwrap()), (2, 0));
    let pending = RequestFilter { states: vec![RequestState::Pending], ..RequestFilter::default() };
    assert_eq!(workflow.list(&pending).await.unwrap()[0].ask.id, EventId::new("later").unwrap());
    assert_eq!(world.open_count().await, 1);
}

#[tokio::test]
async fn asking_again_is_recognised_and_too_much_is_refused() {
    let world = World::new();
    let workflow = world.workflow(WorkflowConfig { open_max: 2, ..WorkflowConfig::default() });
    let first = workflow.request(world.ask("r"), NONE).await.unwrap();
    assert_eq!(workflow.request(world.ask("r"), NONE).await.unwrap(), first);
    assert_eq!(world.open_count().await, 1);
    let other = PositionAsk { size: "11".parse().unwrap(), ..world.ask("r") };
    assert!(matches!(workflow.request(other, NONE).await, Err(WorkflowError::AlreadyAsked(_))));
    workflow.request(world.ask("r2"), NONE).await.unwrap();
    assert!(matches!(workflow.request(world.ask("r3"), NONE).await, Err(WorkflowError::TooMany { max: 2 })));
    let now = world.clock.wall();
    for bad in [
        PositionAsk { size: Qty::ZERO, ..world.ask("x") },
        PositionAsk { reason: String::new(), ..world.ask("x") },
        PositionAsk { reason: "x".repeat(501), ..world.ask("x") },
        PositionAsk { expires_at: now, ..world.ask("x") },
        PositionAsk { expires_at: now.saturating_add(Duration::from_secs(86_401)), ..world.ask("x") },
    ] {
        assert!(matches!(workflow.request(bad, NONE).await, Err(WorkflowError::Invalid(_))));
    }
}

#[tokio::test]
async fn companions_happen_with_the_step_or_neither_does() {
    let world = World::new();
    let workflow = world.workflow(WorkflowConfig::default());
    let row = |request: &PositionRequest| {
        let key = Key::record(format!("audit/{:?}", request.state)).unwrap();
        vec![Op::Set { key, value: request.ask.id.to_string().into(), ttl: Ttl::Never, when: When::Absent }]
    };
    let id = workflow.request(world.ask("r"), &row).await.unwrap().ask.id;
    workflow.approve(&id, &user("bob"), "fine", &row).await.unwrap();
    let audit = |state: &str| Key::record(format!("audit/{state}")).unwrap();
    for state in ["Pending", "Approved"] {
        assert!(world.store.exists(&namespace(), &audit(state)).await.unwrap(), "{state}");
    }
    // The row is there already: the second request is refused with its place among the caller's operations.
    let refused = workflow.request(world.ask("r2"), &row).await.unwrap_err();
    assert!(matches!(refused, WorkflowError::Ledger(crate::RiskError::Caller { index: 0, .. })), "{refused:?}");
    assert_eq!(world.open_count().await, 1);
    let grant = workflow.grant(&id, &order("a", "X", Side::Buy, "1"), &row).await.unwrap();
    world.store.apply(infra_state_store::Batch { namespace: namespace(), ops: grant.ops() }).await.unwrap();
    assert!(world.store.exists(&namespace(), &audit("Used")).await.unwrap());
}

#[tokio::test]
async fn filters_let_through_what_they_name() {
    let world = World::new();
    let workflow = world.workflow(WorkflowConfig { over_max: 3, ..WorkflowConfig::default() });
    for n in 0..6 {
        let by = user(if n % 2 == 0 { "ada" } else { "eve" });
        let account = if n < 3 { "a" } else { "b" }.parse().unwrap();
        let ask = PositionAsk { by, account, ..world.ask(&format!("r{n}")) };
        let id = workflow.request(ask, NONE).await.unwrap().ask.id;
        if n > 1 {
            workflow.reject(&id, &user("bob"), "no", NONE).await.unwrap();
        }
        world.clock.advance(Duration::from_secs(1));
    }
    let ids = async |filter: RequestFilter| {
        let found = workflow.list(&filter).await.unwrap();
        found.iter().map(|r| r.ask.id.to_string()).collect::<Vec<_>>().join(" ")
    };
    let default = RequestFilter::default;
    assert_eq!(ids(default()).await, "r0 r1 r5 r4 r3", "open ones, then the newest three that are over");
    assert_eq!(ids(RequestFilter { states: vec![RequestState::Rejected], ..default() }).await, "r5 r4 r3");
    assert_eq!(ids(RequestFilter { asked_by: Some(user("eve")), ..default() }).await, "r1 r5 r3");
    assert_eq!(ids(RequestFilter { account: Some("a".parse().unwrap()), ..default() }).await, "r0 r1");
    assert_eq!(ids(RequestFilter { instrument: Some("v/Y".parse().unwrap()), ..default() }).await, "");
    assert_eq!(ids(RequestFilter { decided_by: Some(user("bob")), limit: 2, ..default() }).await, "r5 r4");
    let start = Timestamp::from_millis(1_735_689_600_000);
    let (from, until) = (start.saturating_add(Duration::from_secs(1)), start.saturating_add(Duration::from_secs(5)));
    assert_eq!(ids(RequestFilter { from: Some(from), until: Some(until), ..default() }).await, "r1 r4 r3");
    assert!(workflow.list(&RequestFilter { limit: 0, ..default() }).await.is_err());
    assert_eq!(Decimal::from(workflow.list(&default()).await.unwrap().len()), Decimal::from(5));
}
