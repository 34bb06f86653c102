//! What a log finds, and what it survives.

use std::{io, sync::Arc, time::Duration};

use infra_state_store::{Key, MemoryStateStore, Op, StateStore, When};
use infra_types::{Clock, Decimal, Fill, InstrumentSpec, ManualClock, Money, Namespace, Order, Side};

use super::{
    line::{Digest, frame, unframe},
    *,
};
use crate::{
    config::{LimitValue, RiskLimits},
    engine::Stance,
    error::RiskError,
    market::Quote,
    reservation::Outcome,
};

fn limits(order_notional_max: i64) -> RiskLimits {
    let amount = Some(LimitValue::Amount(Decimal::from(10_000)));
    RiskLimits {
        firm_currency: Some("USD".parse().unwrap()),
        reference_age_max: Some(Duration::from_secs(5)),
        order_qty_max: Some(Decimal::from(100)),
        order_notional_max: Some(Decimal::from(order_notional_max)),
        exposure_account_max: amount,
        exposure_firm_max: amount,
        position_notional_max: amount,
        open_positions_max: Some(5),
        daily_loss_max: amount,
        drawdown_max: amount,
        ..RiskLimits::default()
    }
}

fn spec() -> InstrumentSpec {
    InstrumentSpec {
        id: "v/X".parse().unwrap(),
        base: "XX".parse().unwrap(),
        quote: "USD".parse().unwrap(),
        tick_size: Decimal::new(1, 2),
        lot_size: Decimal::new(1, 2),
        qty_min: "0.01".parse().unwrap(),
        qty_max: "1000".parse().unwrap(),
        notional_min: Decimal::ZERO,
        maker_fee_rate: Decimal::ZERO,
        taker_fee_rate: Decimal::ZERO,
    }
}

fn order(id: &str, qty: &str) -> Order {
    let [account, strategy] = ["a", "s"];
    Order::limit(
        id.parse().unwrap(),
        account.parse().unwrap(),
        strategy.parse().unwrap(),
        "v/X".parse().unwrap(),
        Side::Buy,
        qty.parse().unwrap(),
        "100".parse().unwrap(),
    )
}

fn fill(qty: &str) -> Fill {
    Fill {
        qty: qty.parse().unwrap(),
        price: "100".parse().unwrap(),
        fee: Money::new(Decimal::ONE, "USD".parse().unwrap()),
        is_maker: true,
    }
}

fn namespace() -> Namespace {
    Namespace::new("ledger").unwrap()
}

struct Scene<W> {
    clock: ManualClock,
    store: Arc<dyn StateStore>,
    recorder: DecisionRecorder<W>,
}

fn scene<W: io::Write + Send>(clock: ManualClock, store: Option<Arc<dyn StateStore>>, out: W) -> Scene<W> {
    let of_decisions = DecisionClock::new(Arc::new(clock.clone()));
    let store = store.unwrap_or_else(|| Arc::new(MemoryStateStore::new(Arc::new(of_decisions.clone()))));
    let recorder = DecisionRecorder::new(store.clone(), namespace(), of_decisions, limits(5_000), out).unwrap();
    Scene { clock, store, recorder }
}

impl<W: io::Write + Send> Scene<W> {
    async fn open(&mut self) {
        self.recorder.restore().await.unwrap();
        self.recorder.open_account("a".parse().unwrap(), "USD".parse().unwrap(), Decimal::from(9_000)).await.unwrap();
        self.recorder.register_instrument(spec()).unwrap();
        self.quote();
    }

    fn quote(&mut self) {
        let quote = Quote { bid: "99".parse().unwrap(), ask: "101".parse().unwrap(), at: self.clock.wall() };
        self.recorder.update_market(&spec().id, quote).unwrap();
    }

    /// One order that passes and is filled in part, one that is refused, one that comes on an old quote.
    async fn trade(&mut self) {
        let none: &(dyn Fn(&crate::Approval) -> Vec<Op> + Send + Sync) = &|_| Vec::new();
        let passed = self.recorder.check_and_reserve(order("o1", "40"), Stance::Open, none).await.unwrap();
        self.clock.advance(Duration::from_millis(1_234));
        let fill = fill("15.5");
        let outcome = Outcome::Fill { fill: &fill, is_last: false };
        let settled = self.recorder.settle(&passed.order, &passed.reservation, outcome, &|_| Vec::new()).await.unwrap();
        assert!(self.recorder.check_and_reserve(order("o2", "90"), Stance::Open, none).await.is_err());
        self.recorder.settle(&passed.order, &settled.reservation, Outcome::End, &|_| Vec::new()).await.unwrap();
        self.clock.advance(Duration::from_secs(60));
        assert!(self.recorder.check_and_reserve(order("o3", "1"), Stance::Open, none).await.is_err());
        self.recorder.checkpoint().await.unwrap();
    }
}

async fn log() -> Vec<u8> {
    let mut scene = scene(ManualClock::default(), None, Vec::new());
    scene.open().await;
    scene.trade().await;
    scene.recorder.finish().unwrap()
}

async fn again(log: &[u8]) -> Result<ReplayReport, ReplayError> {
    replay(log, &mut |_| {}).await
}

/// The log with another text in its entries, and digests that are right for it.
fn rewritten(log: &[u8], from: &str, to: &str) -> Vec<u8> {
    let mut digest = Digest::START;
    let lines = std::str::from_utf8(log).unwrap().lines().map(|line| {
        let entry = unframe(line).unwrap().1.replace(from, to);
        digest = digest.then(entry.as_bytes());
        frame(digest, &entry)
    });
    lines.collect::<String>().into_bytes()
}

#[test]
fn the_digest_is_fnv_1a_of_128_bits() {
    // The published digest of "a" is that of the offset basis alone; ours goes on from the digest before.
    let plain = |bytes: &[u8]| {
        let step = |digest: u128, byte: &u8| (digest ^ u128::from(*byte)).wrapping_mul(0x0100_0000_0000_0000_0000_013b);
        bytes.iter().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, step)
    };
    assert_eq!(plain(b"a"), 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
    let mut bytes = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128.to_be_bytes().to_vec();
    bytes.push(b'a');
    assert_eq!(Digest::START.then(b"a").to_string(), format!("{:032x}", plain(&bytes)));
}

#[tokio::test]
async fn every_decision_comes_out_the_same() {
    let log = log().await;
    let report = again(&log).await.unwrap();
    assert_eq!((report.different, report.differences, report.interrupted), (0, vec![], 0));
    assert_eq!((report.decisions, report.approved, report.settled), (3, 1, 2));
    assert!(report.is_whole && report.lines == 12, "{} lines", report.lines);
    for line in std::str::from_utf8(&log).unwrap().lines() {
        let json: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(json["digest"].is_string() && json["entry"]["n"].is_u64());
    }
}

#[tokio::test]
async fn other_limits_or_another_time_come_out_otherwise() {
    let log = log().await;
    let lower =
        again(&rewritten(&log, "\"order_notional_max\":\"5000\"", "\"order_notional_max\":\"3999\"")).await.unwrap();
    assert!(lower.different > 0);
    assert!(lower.differences[0].replayed.contains("\"refused\""), "{:?}", lower.differences[0]);
    let entry = std::str::from_utf8(&log).unwrap().lines().find(|line| line.contains("\"o3\"")).unwrap();
    let mono = entry.split_once("\"mono\":").unwrap().1.split_once(',').unwrap().0;
    let later = again(&rewritten(&log, mono, &(mono.parse::<u64>().unwrap() - 1_000_000).to_string())).await.unwrap();
    assert_eq!(later.different, 1, "the age of the quote is another");
}

#[tokio::test]
async fn damage_is_found_wherever_it_is() {
    let log = log().await;
    for at in (0..log.len()).step_by(97) {
        let mut damaged = log.clone();
        damaged[at] ^= 1;
        let found = again(&damaged).await;
        assert!(matches!(found, Err(ReplayError::Damaged { .. } | ReplayError::Read(_))), "byte {at}: {found:?}");
    }
    let lines: Vec<_> = log.split_inclusive(|byte| *byte == b'\n').collect();
    let without = |n: usize| [&lines[..n], &lines[n + 1..]].concat().concat();
    assert!(matches!(again(&without(3)).await, Err(ReplayError::Damaged { line: 4, .. })));
    let cut = again(&lines[..lines.len() - 1].concat()).await.unwrap();
    assert!(!cut.is_whole && cut.different == 0, "an end that is missing is told");
    assert!(matches!(again(b"").await, Err(ReplayError::NoStart)));
    assert!(matches!(again(&rewritten(&log, "\"format\":1", "\"format\":9")).await, Err(ReplayError::NoStart)));
}

#[tokio::test]
async fn a_log_that_begins_on_a_ledger_with_positions_brings_them_along() {
    let mut first = scene(ManualClock::default(), None, Vec::new());
    first.open().await;
    first.trade().await;
    let mut second = scene(first.clock.clone(), Some(first.store.clone()), Vec::new());
    second.recorder.restore().await.unwrap();
    second.recorder.register_instrument(spec()).unwrap();
    second.quote();
    let approval = second.recorder.check_and_reserve(order("o9", "1"), Stance::Open, &|_| Vec::new()).await.unwrap();
    assert!(approval.decision.checks.iter().any(|c| c.value > Decimal::from(1_600)), "what is held counts");
    let report = again(&second.recorder.finish().unwrap()).await.unwrap();
    assert_eq!((report.different, report.decisions, report.approved), (0, 1, 1), "{:?}", report.differences);
}

#[tokio::test]
async fn what_a_caller_ended_is_told_and_not_decided_again() {
    let mut scene = scene(ManualClock::default(), None, Vec::new());
    scene.open().await;
    let never = |_: &crate::Approval| vec![Op::Check { key: Key::record("none").unwrap(), when: When::Exists }];
    let refused = scene.recorder.check_and_reserve(order("o0", "1"), Stance::Open, &never).await;
    assert!(matches!(refused, Err(RiskError::Caller { .. })));
    scene.trade().await;
    let report = again(&scene.recorder.finish().unwrap()).await.unwrap();
    assert_eq!((report.interrupted, report.different, report.decisions), (1, 0, 3), "{:?}", report.differences);
}

/// Takes so many bytes, then fails.
#[derive(Debug)]
struct Full(usize);

impl io::Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.checked_sub(bytes.len()) {
            Some(left) => {
                self.0 = left;
                Ok(bytes.len())
            }
            None => Err(io::Error::from(io::ErrorKind::StorageFull)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_full_disk_stops_no_trading_and_is_told() {
    let mut scene = scene(ManualClock::default(), None, Full(4_000));
    scene.open().await;
    scene.trade().await;
    assert!(scene.recorder.lost() > 0 && scene.recorder.entries() > 0);
    assert_eq!(scene.recorder.broken().map(io::Error::kind), Some(io::ErrorKind::StorageFull));
    assert!(scene.recorder.finish().is_err());
}

#[test]
fn an_input_that_ended_half_way_ends_the_log_and_lets_the_clock_go_on() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut scene = scene(ManualClock::default(), None, Vec::new());
    runtime.block_on(scene.open());
    let entries = scene.recorder.entries();
    let thrown = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let never = |_: &crate::Approval| panic!("a caller's own mistake");
        runtime.block_on(scene.recorder.check_and_reserve(order("o1", "1"), Stance::Open, &never)).map(drop)
    }));
    assert!(thrown.is_err());
    let before = scene.recorder.engine().now().mono;
    scene.clock.advance(Duration::from_secs(1));
    assert_eq!(scene.recorder.engine().now().mono.since(before), Duration::from_secs(1));
    scene.quote();
    assert_eq!((scene.recorder.lost(), scene.recorder.entries()), (2, entries), "that input, and the quote after it");
    assert!(scene.recorder.finish().is_err());
}
