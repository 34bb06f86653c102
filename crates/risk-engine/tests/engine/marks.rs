//! What quotes moved between fills outlives the process, and no record of another process wipes it.

use std::time::Duration;

use crate::support::*;
use infra_risk_engine::{AccountState, RiskEngine, StrategyState};
use infra_types::{Decimal, Side};

fn of(engine: &RiskEngine) -> AccountState {
    engine.account(&account()).unwrap()
}

fn of_strategy(engine: &RiskEngine) -> StrategyState {
    engine.strategy(&"s".parse().unwrap()).unwrap()
}

fn drawdown(engine: &RiskEngine) -> Decimal {
    of(engine).drawdown(of(engine).last_pnl)
}

#[tokio::test]
async fn a_mark_that_no_fill_followed_outlives_the_process_after_a_checkpoint() {
    let world = World::new();
    let old = world.engine(limits()).await;
    trade(&old, order("a", &btc(), Side::Buy, "1", "100")).await;
    world.quote(&old, &btc(), "200");
    assert_eq!(old.checkpoint_moved().await.unwrap(), 2, "account and strategy");
    assert_eq!(old.checkpoint_moved().await.unwrap(), 0, "nothing moved since");
    drop(old);

    let new = world.bare(limits());
    new.restore().await.unwrap();
    new.register_instrument(spec(&btc())).unwrap();
    world.quote(&new, &btc(), "110");
    assert_eq!((of(&new).high_water_mark, drawdown(&new), of(&new).max_drawdown), (dec("100"), dec("90"), dec("90")));
    let s = of_strategy(&new);
    assert_eq!((s.high_water_mark, s.max_drawdown), (dec("100"), dec("90")));
}

#[tokio::test]
async fn a_fill_by_another_engine_wipes_no_mark() {
    let world = World::new();
    let (one, two) = (world.engine(limits()).await, world.engine(limits()).await);
    trade(&one, order("a", &btc(), Side::Buy, "1", "100")).await;
    world.quote(&one, &btc(), "200");
    world.quote(&one, &btc(), "160");
    // The other one saw no quote but the first, and trades something else.
    trade(&two, order("b", &eth(), Side::Buy, "1", "100")).await;
    assert_eq!(of(&two).high_water_mark, dec("0"));
    one.restore().await.unwrap();
    assert!(one.position(&account(), &eth()).is_some(), "the fill is known");
    let marks = |engine: &RiskEngine| (of(engine).high_water_mark, of(engine).max_drawdown);
    assert_eq!(marks(&one), (dec("100"), dec("40")));
    assert_eq!(of_strategy(&one).high_water_mark, dec("100"));
    // A checkpoint that finds another one's record takes both along.
    trade(&two, order("c", &eth(), Side::Buy, "1", "100")).await;
    assert_eq!(one.checkpoint_moved().await.unwrap(), 2);
    two.restore().await.unwrap();
    assert_eq!(marks(&two), (dec("100"), dec("40")));
    assert_eq!(of_strategy(&two).max_drawdown, dec("40"));
    world.quote(&one, &btc(), "110");
    assert_eq!(drawdown(&one), dec("90"));
}

#[tokio::test]
async fn what_another_engine_realised_is_not_counted_on_top_of_the_position_that_it_closed() {
    let world = World::new();
    let (one, two) = (world.engine(limits()).await, world.engine(limits()).await);
    trade(&one, order("a", &btc(), Side::Buy, "1", "100")).await;
    for engine in [&one, &two] {
        world.quote(engine, &btc(), "150");
    }
    trade(&two, order("b", &btc(), Side::Sell, "1", "150")).await;
    one.restore().await.unwrap();
    world.quote(&one, &btc(), "150");
    assert_eq!((of(&one).high_water_mark, of(&one).max_drawdown), (dec("50"), dec("0")));
}

#[tokio::test]
async fn a_day_that_began_here_is_not_taken_back_by_a_record_of_the_day_before() {
    let world = World::new();
    let (one, two) = (world.engine(limits()).await, world.engine(limits()).await);
    trade(&one, order("a", &btc(), Side::Buy, "1", "100")).await;
    let yesterday = of(&one).day;
    world.quote(&one, &btc(), "130");
    // Before midnight, but heard of after it.
    trade(&two, order("b", &eth(), Side::Buy, "1", "100")).await;
    world.clock.advance(Duration::from_secs(24 * 3_600));
    world.quote(&one, &btc(), "120");
    one.restore().await.unwrap();
    assert_eq!((of(&one).day, of(&one).day_start_pnl), (yesterday.tomorrow().unwrap(), dec("30")));
    for id in [btc(), eth()] {
        world.quote(&one, &id, "100");
    }
    assert_eq!(of(&one).daily_loss(of(&one).last_pnl), dec("30"));
    assert_eq!(of_strategy(&one).day_start_pnl, dec("30"));
}
