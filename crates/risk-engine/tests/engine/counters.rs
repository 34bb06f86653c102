//! Every counter of every scope is what live reservations and positions say, reckoned anew, after every step.

use std::collections::BTreeMap;

use crate::support::*;
use infra_risk_engine::{Approval, Effect, LimitValue, Outcome, Position, RiskEngine, RiskError, RiskLimits, Stance};
use infra_types::{AccountId, Decimal, InstrumentId, Order, Side, StrategyId};
use proptest::prelude::*;

const STRATEGIES: [&str; 2] = ["s1", "s2"];

fn accounts() -> [AccountId; 2] {
    [account(), "euro".parse().unwrap()]
}

/// One trades parts of a unit, the other (at another venue) whole units only.
fn instruments() -> [InstrumentId; 2] {
    [btc(), "w/DOGUSDT".parse().unwrap()]
}

fn wide() -> RiskLimits {
    let wide = Some(LimitValue::Amount(dec("1000000")));
    RiskLimits {
        order_notional_max: Some(dec("1000000")),
        exposure_account_max: wide,
        exposure_firm_max: wide,
        position_notional_max: wide,
        daily_loss_max: wide,
        drawdown_max: wide,
        groups: [(accounts()[1].clone(), "desk".parse().unwrap())].into(),
        ..limits()
    }
}

async fn engine(world: &World) -> RiskEngine {
    let engine = world.engine(wide()).await;
    engine.set_conversion("USDT".parse().unwrap(), "EUR".parse().unwrap(), dec("0.9")).unwrap();
    engine.set_conversion("EUR".parse().unwrap(), "USDT".parse().unwrap(), dec("1.1")).unwrap();
    engine.open_account(accounts()[1].clone(), "EUR".parse().unwrap(), dec("10000")).await.unwrap();
    let mut whole = spec(&instruments()[1]);
    (whole.lot_size, whole.qty_min) = (dec("1"), "1".parse().unwrap());
    engine.register_instrument(whole).unwrap();
    world.quote(&engine, &instruments()[1], "100");
    engine
}

#[derive(Default)]
struct Expected(BTreeMap<String, Decimal>);

impl Expected {
    fn add(&mut self, key: String, by: Decimal) {
        *self.0.entry(format!("risk/used/{key}")).or_default() += by;
    }

    /// The scopes that count in the firm's currency, but the strategy.
    fn wide(account: &AccountId, instrument: &InstrumentId) -> Vec<String> {
        let mut wide = vec!["firm".into(), format!("venue/{}", instrument.venue), format!("instrument/{instrument}")];
        if *account == accounts()[1] {
            wide.push("group/desk".into());
        }
        wide
    }

    fn net(&mut self, side: &str, account: &AccountId, own: Decimal, firm: Decimal) {
        self.add(format!("net_{side}/account/{account}"), own);
        self.add(format!("net_{side}/firm"), firm);
        if *account == accounts()[1] {
            self.add(format!("net_{side}/group/desk"), firm);
        }
    }

    fn gross(&mut self, account: &AccountId, instrument: &InstrumentId, own: Decimal, firm: Decimal) {
        for scope in [format!("account/{account}"), format!("position/{account}/{instrument}")] {
            self.add(format!("exposure/{scope}"), own);
        }
        for scope in Self::wide(account, instrument) {
            self.add(format!("exposure/{scope}"), firm);
        }
    }

    fn qty(&mut self, side: &str, account: &AccountId, instrument: &InstrumentId, qty: Decimal) {
        let whole = if *instrument == instruments()[1] { "_whole" } else { "" };
        self.add(format!("{side}{whole}/instrument/{instrument}"), qty);
        self.add(format!("{side}{whole}/position/{account}/{instrument}"), qty);
    }

    fn order(&mut self, approval: &Approval) {
        let (order, held) = (&approval.order, &approval.reservation);
        let (a, i) = (&order.account, &order.instrument);
        if held.effect() == Effect::Reduce {
            self.add(format!("reducing/position/{a}/{i}"), held.remaining());
            return;
        }
        self.gross(a, i, held.held(), held.held_firm());
        self.add(format!("exposure/strategy/{}", order.strategy), held.held_firm());
        let (net, long) = if order.side == Side::Buy { ("long", "long") } else { ("short", "short") };
        self.net(net, a, held.held(), held.held_firm());
        self.qty(long, a, i, held.remaining());
        for scope in
            ["firm".into(), format!("account/{a}"), format!("strategy/{}", order.strategy), format!("position/{a}/{i}")]
        {
            self.add(format!("orders/{scope}"), Decimal::ONE);
        }
    }

    fn position(&mut self, a: &AccountId, i: &InstrumentId, p: &Position) {
        let (own, firm) = (p.booked.to_decimal(), p.booked_firm.to_decimal());
        self.gross(a, i, own, firm);
        let sign = if p.qty.is_sign_negative() { Decimal::NEGATIVE_ONE } else { Decimal::ONE };
        self.net("long", a, sign * own, sign * firm);
        self.net("short", a, -sign * own, -sign * firm);
        self.qty("long", a, i, p.qty);
        self.qty("short", a, i, -p.qty);
    }
}

async fn audit(engine: &RiskEngine, working: &[Approval]) {
    engine.restore().await.unwrap();
    let mut expected = Expected::default();
    let mut open: BTreeMap<(AccountId, InstrumentId), ()> = BTreeMap::new();
    for approval in working {
        expected.order(approval);
        if approval.reservation.effect() == Effect::Open {
            open.insert((approval.order.account.clone(), approval.order.instrument.clone()), ());
        }
    }
    let mut sum: BTreeMap<(AccountId, InstrumentId), Decimal> = BTreeMap::new();
    for (a, i, p) in engine.positions() {
        expected.position(&a, &i, &p);
        open.insert((a.clone(), i.clone()), ());
        sum.insert((a, i), p.qty);
    }
    for (a, _) in open.keys() {
        expected.add("positions/firm".into(), Decimal::ONE);
        expected.add(format!("positions/account/{a}"), Decimal::ONE);
    }
    for strategy in STRATEGIES {
        let id: StrategyId = strategy.parse().unwrap();
        for (a, i, part) in engine.strategy_positions(&id) {
            expected.add(format!("exposure/strategy/{strategy}"), part.booked_firm.to_decimal());
            *sum.entry((a, i)).or_default() -= part.qty;
        }
    }
    assert!(sum.values().all(Decimal::is_zero), "parts add up to the position: {sum:?}");
    expected.0.retain(|_, v| !v.is_zero());
    let mut used: BTreeMap<String, Decimal> = engine.used().await.unwrap().into_iter().collect();
    used.retain(|_, v| !v.is_zero());
    assert_eq!(used, expected.0);
}

fn wish(n: usize, pick: [bool; 4], qty: Decimal, price: Decimal) -> Order {
    let [euro, whole, second, buy] = pick;
    let instrument = instruments()[usize::from(whole)].clone();
    let qty = if whole { qty.ceil() } else { qty };
    let side = if buy { Side::Buy } else { Side::Sell };
    let mut wish = order(&format!("o-{n}"), &instrument, side, &qty.to_string(), &price.to_string());
    wish.account = accounts()[usize::from(euro)].clone();
    wish.strategy = STRATEGIES[usize::from(second)].parse().unwrap();
    wish
}

type Act = (u8, i64, i64, prop::sample::Index, [bool; 4], [bool; 3]);

async fn act(engine: &RiskEngine, working: &mut Vec<Approval>, n: usize, step: Act) {
    let (action, qty, price, pick, of, [reduce_only, is_last, _]) = step;
    let (qty, price) = (Decimal::new(qty, 2), Decimal::new(price, 2));
    if action <= 2 {
        let mut wish = wish(n, of, qty, price);
        wish.reduce_only = reduce_only;
        match reserve(engine, wish, Stance::Open).await {
            Ok(approval) => working.push(approval),
            Err(RiskError::Refused(_)) => {}
            Err(other) => panic!("{other}"),
        }
        return;
    }
    if working.is_empty() {
        return;
    }
    let at = pick.index(working.len());
    let approval = &mut working[at];
    if action == 3 {
        settle(engine, approval, Outcome::End).await;
    } else {
        // Sometimes more than is left: the venue has the last word.
        let qty = if approval.order.instrument == instruments()[1] { qty.ceil() } else { qty };
        let traded = fill(&qty.to_string(), &price.to_string(), "0.003", "USDT");
        settle(engine, approval, Outcome::Fill { fill: &traded, is_last }).await;
    }
    if approval.reservation.is_closed() {
        working.swap_remove(at);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn counters_are_reckoned_anew_from_what_lives_and_end_at_zero(
        steps in prop::collection::vec(
            (0u8..6, 1i64..400, 9_000i64..11_000, any::<prop::sample::Index>(), any::<[bool; 4]>(), any::<[bool; 3]>()),
            1..40,
        ),
    ) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
            let world = World::new();
            let engines = [engine(&world).await, engine(&world).await];
            let mut working: Vec<Approval> = Vec::new();
            for (n, step) in steps.into_iter().enumerate() {
                act(&engines[usize::from(step.5[2])], &mut working, n, step).await;
                audit(&engines[n % 2], &working).await;
            }
            for mut approval in working {
                settle(&engines[0], &mut approval, Outcome::End).await;
            }
            // Each strategy closes its own part, so that none keeps a part of nothing.
            let engine = &engines[1];
            engine.restore().await.unwrap();
            for (n, strategy) in STRATEGIES.into_iter().enumerate() {
                for (account, id, part) in engine.strategy_positions(&strategy.parse().unwrap()) {
                    let side = if part.qty.is_sign_positive() { Side::Sell } else { Side::Buy };
                    let name = format!("close-{n}-{account}-{}", id.symbol);
                    let mut close = order(&name, &id, side, &part.qty.abs().to_string(), "100");
                    (close.account, close.strategy) = (account, strategy.parse().unwrap());
                    // Where another strategy stands on the other side, this may open what that one closes.
                    let approval = match reserve(engine, close.clone(), Stance::Open).await {
                        Ok(approval) => approval,
                        Err(RiskError::Refused(decision)) if decision.failed("would_flip") => {
                            let half = engine.position(&close.account, &id).unwrap().qty.abs();
                            let rest = close.qty.get() - half;
                            let mut part = close.clone();
                            part.qty = half.try_into().unwrap();
                            let mut approval = reserve(engine, part, Stance::Open).await.unwrap();
                            let traded = fill(&half.to_string(), "100", "0", "USDT");
                            settle(engine, &mut approval, Outcome::Fill { fill: &traded, is_last: true }).await;
                            close.qty = rest.try_into().unwrap();
                            reserve(engine, close, Stance::Open).await.unwrap()
                        }
                        Err(other) => panic!("{other}"),
                    };
                    let mut approval = approval;
                    let traded = fill(&approval.order.qty.to_string(), "100", "0", "USDT");
                    settle(engine, &mut approval, Outcome::Fill { fill: &traded, is_last: true }).await;
                }
            }
            assert_eq!(engine.positions(), vec![]);
            assert_nothing_used(engine).await;
        });
    }
}

#[tokio::test]
async fn a_strategy_has_its_own_result_and_loses_nothing_that_another_lost() {
    let world = World::new();
    let engine = engine(&world).await;
    let of = |strategy: &str, order: Order| Order { strategy: strategy.parse().unwrap(), ..order };
    trade(&engine, of("s1", order("a", &btc(), Side::Buy, "2", "100"))).await;
    trade(&engine, of("s2", order("b", &btc(), Side::Buy, "1", "100"))).await;
    // The second closes more than it has: its own part turns short, the account's position does not.
    trade(&engine, of("s2", order("c", &btc(), Side::Sell, "2", "90"))).await;
    let state = |s: &str| engine.strategy(&s.parse().unwrap()).unwrap();
    assert_eq!((state("s1").realised, state("s2").realised), (dec("0"), dec("-10")));
    world.quote(&engine, &btc(), "95");
    assert_eq!(state("s1").last_pnl, dec("-10"), "two bought at 100");
    assert_eq!(state("s2").last_pnl, dec("-15"), "ten lost, and one sold at 90 that costs 95");
    let parts = engine.strategy_positions(&"s2".parse().unwrap());
    assert_eq!(parts.iter().map(|(_, _, part)| part.qty).collect::<Vec<_>>(), [dec("-1")]);
    let used: BTreeMap<_, _> = engine.used().await.unwrap().into_iter().collect();
    assert_eq!(used["risk/used/exposure/strategy/s1"], dec("200"));
    assert_eq!(used["risk/used/exposure/strategy/s2"], dec("90"));

    let new = self::engine(&world).await;
    assert_eq!(new.strategy(&"s2".parse().unwrap()).unwrap().realised, dec("-10"), "durable");
}

#[tokio::test]
async fn an_account_that_changes_its_group_takes_its_position_along_at_the_next_fill() {
    let world = World::new();
    let engine = engine(&world).await;
    let of = |order: Order| Order { account: accounts()[1].clone(), ..order };
    trade(&engine, of(order("a", &btc(), Side::Buy, "2", "100"))).await;
    let mut working = reserve(&engine, of(order("b", &btc(), Side::Buy, "1", "100")), Stance::Open).await.unwrap();
    let other = RiskLimits { groups: [(accounts()[1].clone(), "other".parse().unwrap())].into(), ..wide() };
    engine.set_limits(0, other, "ann".parse().unwrap(), "moved", &|_| vec![]).await.unwrap();
    let group = |used: &[(String, Decimal)], id: &str| {
        let name = format!("risk/used/exposure/group/{id}");
        used.iter().find(|(key, _)| *key == name).map_or(Decimal::ZERO, |(_, v)| *v)
    };
    let used = engine.used().await.unwrap();
    assert_eq!((group(&used, "desk"), group(&used, "other")), (dec("297"), dec("0")));
    let traded = fill("1", "100", "0", "USDT");
    settle(&engine, &mut working, Outcome::Fill { fill: &traded, is_last: true }).await;
    let used = engine.used().await.unwrap();
    assert_eq!((group(&used, "desk"), group(&used, "other")), (dec("0"), dec("297")));
    trade(&engine, of(order("c", &btc(), Side::Sell, "3", "100"))).await;
    assert_nothing_used(&engine).await;
}

#[tokio::test]
async fn a_strategys_day_begins_at_midnight_with_what_was_known_and_survives() {
    let world = World::new();
    let engine = engine(&world).await;
    trade(&engine, order("a", &btc(), Side::Buy, "2", "100")).await;
    world.quote(&engine, &btc(), "90");
    let state = |engine: &RiskEngine| engine.strategy(&"s".parse().unwrap()).unwrap();
    assert_eq!((state(&engine).last_pnl, state(&engine).day_start_pnl), (dec("-20"), dec("0")));
    world.clock.advance(std::time::Duration::from_secs(24 * 3_600));
    engine.checkpoint().await.unwrap();
    assert_eq!(state(&engine).day_start_pnl, dec("-20"));
    let new = world.bare(wide());
    new.restore().await.unwrap();
    assert_eq!(state(&new), state(&engine));
}
