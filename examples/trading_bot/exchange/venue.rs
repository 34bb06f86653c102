//! What the exchange does with an order: decided by the seed and the client order id alone, so that two runs, whole or
//! interrupted, meet the same venue.

use std::{collections::BTreeMap, path::Path};

use infra_types::{Decimal, Execution, ExecutionKind, Fill, Money, OrderId, Qty, Timestamp};
use sha2::{Digest, Sha256};

use super::{
    journal::{Journal, Line},
    protocol::{Answer, NewOrder, Stats},
};

/// Parts of a thousand.
const DROP_REQUEST: u64 = 20;
const DROP_REPLY: u64 = 20;
const LATE_REPLY: u64 = 40;
const BUSY: u64 = 20;
const REJECT: u64 = 30;
const EXPIRE: u64 = 120;
/// The number of a cancel among an order's reports.
const CANCEL_PART: usize = 99;

/// What happens to one placement on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    /// It arrives and is answered.
    Clean,
    /// It never arrives.
    DropRequest,
    /// It arrives; the reply is lost.
    DropReply,
    /// It arrives; the reply comes after this many milliseconds.
    Late(u64),
    /// It is turned away unread.
    Busy,
}

struct Known {
    order: NewOrder,
    rejected: bool,
    executions: Vec<Execution>,
}

/// The exchange's books.
pub(crate) struct Venue {
    seed: u64,
    journal: Journal,
    orders: BTreeMap<OrderId, Known>,
    attempts: BTreeMap<OrderId, u32>,
    /// Every report by its time.
    timeline: BTreeMap<(Timestamp, OrderId, usize), Execution>,
    stats: Stats,
}

/// 64 bits that depend on everything named and on nothing else.
fn draw(seed: u64, order: &OrderId, attempt: u32, what: &str) -> u64 {
    let mut hash = Sha256::new();
    hash.update(seed.to_be_bytes());
    hash.update(attempt.to_be_bytes());
    hash.update(what.as_bytes());
    hash.update([0]);
    hash.update(order.as_str().as_bytes());
    let digest = hash.finalize();
    u64::from_be_bytes([digest[0], digest[1], digest[2], digest[3], digest[4], digest[5], digest[6], digest[7]])
}

impl Venue {
    /// Opens the books at `path`.
    pub(crate) fn open(path: &Path, seed: u64) -> Result<Self, String> {
        let (journal, lines) = Journal::open(path)?;
        let mut venue = Self {
            seed,
            journal,
            orders: BTreeMap::new(),
            attempts: BTreeMap::new(),
            timeline: BTreeMap::new(),
            stats: Stats::default(),
        };
        for line in lines {
            venue.enter(line);
        }
        Ok(venue)
    }

    fn note(&mut self, line: Line) -> Result<(), String> {
        self.journal.append(&line)?;
        self.enter(line);
        Ok(())
    }

    fn enter(&mut self, line: Line) {
        match line {
            Line::Attempt { order } => {
                let attempt = self.attempts.entry(order.clone()).or_insert(0);
                *attempt += 1;
                match transport(self.seed, &order, *attempt) {
                    Transport::Clean => {}
                    Transport::DropRequest => self.stats.dropped_requests += 1,
                    Transport::DropReply => self.stats.dropped_replies += 1,
                    Transport::Late(_) => self.stats.late_replies += 1,
                    Transport::Busy => self.stats.busy += 1,
                }
            }
            Line::Duplicate { .. } => self.stats.duplicates += 1,
            Line::Order { order } => {
                let id = order.order.clone();
                let executions = outcome(self.seed, &order);
                let rejected =
                    matches!(executions.first(), Some(Execution { kind: ExecutionKind::Rejected { .. }, .. }));
                self.stats.orders += 1;
                self.stats.rejects += u64::from(rejected);
                for (part, execution) in executions.iter().enumerate() {
                    self.timeline.insert((execution.at, id.clone(), part), execution.clone());
                }
                self.orders.insert(id, Known { order, rejected, executions });
            }
            Line::Cancel { order, at } => self.enter_cancel(&order, at),
        }
    }

    fn enter_cancel(&mut self, id: &OrderId, at: Timestamp) {
        let Some(known) = self.orders.get_mut(id) else { return };
        let ends = |e: &Execution| !matches!(e.kind, ExecutionKind::Filled(_) | ExecutionKind::Acknowledged { .. });
        if known.executions.iter().all(|e| e.at <= at) || known.executions.iter().any(|e| e.at <= at && ends(e)) {
            return;
        }
        for (part, gone) in known.executions.iter().enumerate().filter(|(_, e)| e.at > at) {
            self.timeline.remove(&(gone.at, id.clone(), part));
        }
        known.executions.retain(|e| e.at <= at);
        let cancelled = report(
            &known.order,
            CANCEL_PART,
            at.saturating_add(std::time::Duration::from_millis(1)),
            ExecutionKind::Cancelled,
        );
        self.timeline.insert((cancelled.at, id.clone(), CANCEL_PART), cancelled.clone());
        known.executions.push(cancelled);
    }

    /// Takes a placement, and says what happens to the reply; no answer where the request was dropped.
    pub(crate) fn place(&mut self, order: NewOrder) -> Result<(Transport, Option<Answer>), String> {
        let id = order.order.clone();
        self.note(Line::Attempt { order: id.clone() })?;
        let way = transport(self.seed, &id, self.attempts[&id]);
        if way == Transport::DropRequest {
            return Ok((way, None));
        }
        if way == Transport::Busy {
            return Ok((way, Some(Answer::Busy)));
        }
        if self.orders.contains_key(&id) {
            self.note(Line::Duplicate { order: id })?;
            return Ok((way, Some(Answer::Duplicate)));
        }
        self.note(Line::Order { order })?;
        Ok((way, Some(self.first_answer(&id))))
    }

    fn first_answer(&self, id: &OrderId) -> Answer {
        match self.orders.get(id) {
            Some(known) if known.rejected => {
                Answer::Rejected { reason: "the exchange's own risk check refused it".into() }
            }
            Some(known) => Answer::Accepted { venue_order_id: venue_order_id(&known.order) },
            None => Answer::NotFound,
        }
    }

    /// Takes a cancel.
    pub(crate) fn cancel(&mut self, order: OrderId, at: Timestamp) -> Result<Answer, String> {
        if !self.orders.contains_key(&order) {
            return Ok(Answer::NotFound);
        }
        self.note(Line::Cancel { order, at })?;
        Ok(Answer::CancelTaken)
    }

    /// What became of an order by `at`.
    pub(crate) fn query(&self, order: &OrderId, at: Timestamp) -> Answer {
        match self.orders.get(order) {
            Some(known) => {
                // Acknowledgement and rejection are immediate; they stand at the order's own time.
                Answer::Found { executions: known.executions.iter().filter(|e| e.at <= at).cloned().collect() }
            }
            None => Answer::NotFound,
        }
    }

    /// Reports after `after` and up to `at`, and when the next one is due.
    pub(crate) fn executions(&self, after: Timestamp, at: Timestamp) -> Answer {
        let due = |(time, ..): &(Timestamp, OrderId, usize)| *time > after && *time <= at;
        let executions = self.timeline.iter().filter(|(key, _)| due(key)).map(|(_, e)| e.clone()).collect();
        let quiet_until = self.timeline.keys().map(|(time, ..)| *time).find(|time| *time > at);
        Answer::Executions { executions, quiet_until }
    }

    /// Which behaviour this is.
    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// What was counted.
    pub(crate) fn stats(&self) -> Stats {
        self.stats
    }
}

fn transport(seed: u64, order: &OrderId, attempt: u32) -> Transport {
    let mut lot = draw(seed, order, attempt, "transport") % 1_000;
    for (share, fault) in [
        (DROP_REQUEST, Transport::DropRequest),
        (DROP_REPLY, Transport::DropReply),
        (BUSY, Transport::Busy),
        (LATE_REPLY, Transport::Late(1 + draw(seed, order, attempt, "late") % 20)),
    ] {
        if lot < share {
            return fault;
        }
        lot -= share;
    }
    Transport::Clean
}

fn venue_order_id(order: &NewOrder) -> String {
    format!("x-{}", order.order)
}

fn report(order: &NewOrder, part: usize, at: Timestamp, kind: ExecutionKind) -> Execution {
    // The client order id is at most 64 bytes; the digest keeps the execution id inside its own 64.
    let tag = draw(0, &order.order, 0, "execution id");
    #[expect(clippy::expect_used, reason = "hex digits and a number always form a valid id")]
    let id = format!("e-{tag:016x}-{part}").parse().expect("a valid execution id");
    Execution { id, order: order.order.clone(), at, kind }
}

/// Everything that will ever be reported on an order, unless it is cancelled: an acknowledgement or a rejection at its own
/// time, then one to three fills, of which the last may be missing (the order expires instead).
fn outcome(seed: u64, order: &NewOrder) -> Vec<Execution> {
    let draw = |what: &str| draw(seed, &order.order, 0, what);
    if draw("reject") % 1_000 < REJECT {
        let kind = ExecutionKind::Rejected { reason: "the exchange's own risk check refused it".into() };
        return vec![report(order, 0, order.at, kind)];
    }
    let acknowledged = ExecutionKind::Acknowledged { venue_order_id: venue_order_id(order) };
    let mut reports = vec![report(order, 0, order.at, acknowledged)];
    let parts = 1 + draw("parts") % 3;
    let expires = draw("expire") % 1_000 < EXPIRE;
    let lots = (order.qty.get() / order.lot).floor();
    let (mut left, mut at) = (order.qty.get(), order.at);
    for part in 1..=parts {
        at = at.saturating_add(std::time::Duration::from_millis(5 + draw(&format!("delay {part}")) % 300));
        let is_last = part == parts;
        if is_last && expires {
            reports.push(report(order, part as usize, at, ExecutionKind::Expired));
            break;
        }
        let qty = if is_last { left } else { ((lots / Decimal::from(parts)).floor() * order.lot).min(left) };
        if qty <= Decimal::ZERO {
            continue;
        }
        left -= qty;
        let fee = Money::new((order.price.get() * qty * order.fee_rate).round_dp(8), order.fee_currency.clone());
        let qty = Qty::new(qty).unwrap_or(Qty::ZERO);
        let fill = Fill { qty, price: order.price, fee, is_maker: false };
        reports.push(report(order, part as usize, at, ExecutionKind::Filled(fill)));
    }
    reports
}
