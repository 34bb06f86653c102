//! A venue made of files: each bot writes what the venue does with its orders into one of its own, before it hears of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use infra_risk_engine::{HeldOrder, VenueBalance, VenueOrder, VenueTruth};
use infra_types::{Clock, Decimal, Fill, Money, OrderId, Side, SystemClock};

use super::world::{account, instrument};

/// What every fill costs.
const FEE: Decimal = Decimal::from_parts(7, 0, 0, false, 2);

/// One bot's line to it.
pub(crate) struct Venue {
    file: File,
    /// What was sent.
    has: BTreeSet<OrderId>,
}

impl Venue {
    pub(crate) fn open(dir: &Path, name: &str) -> Self {
        let file = OpenOptions::new().create(true).append(true).open(dir.join(format!("venue-{name}")));
        Self { file: file.expect("the directory is ours"), has: BTreeSet::new() }
    }

    /// Whether the order was sent.
    pub(crate) fn has(&self, id: &OrderId) -> bool {
        self.has.contains(id)
    }

    fn write(&mut self, line: String) {
        // In one call: a killed process has written a line or has not.
        self.file.write_all(line.as_bytes()).expect("the directory is ours");
    }

    pub(crate) fn take(&mut self, id: &OrderId, side: Side, qty: i64) {
        let side = if side == Side::Buy { "buy" } else { "sell" };
        self.write(format!("new {id} {side} {qty}\n"));
        self.has.insert(id.clone());
    }

    /// Fills a part of an order.
    pub(crate) fn fill(&mut self, id: &OrderId, qty: i64) -> Fill {
        self.write(format!("fill {id} {qty}\n"));
        fill(qty)
    }

    pub(crate) fn cancel(&mut self, id: &OrderId) {
        self.write(format!("end {id}\n"));
    }
}

fn fill(qty: i64) -> Fill {
    let fee = Money::new(FEE, "USDT".parse().expect("a currency"));
    let (qty, price) = (Decimal::from(qty).try_into().expect("a quantity"), "100".parse().expect("a price"));
    Fill { qty, price, fee, is_maker: true }
}

/// What the venue knows.
pub(crate) struct Book {
    pub(crate) orders: BTreeMap<OrderId, VenueOrder>,
    /// What is bought less what is sold.
    pub(crate) position: Decimal,
    fees: Decimal,
}

impl Book {
    pub(crate) fn read(dir: &Path) -> Self {
        let mut book = Self { orders: BTreeMap::new(), position: Decimal::ZERO, fees: Decimal::ZERO };
        let mut sides = BTreeMap::new();
        let mut lines = Vec::new();
        for path in files(dir) {
            let text = std::fs::read_to_string(path).expect("the directory is ours");
            lines.extend(text.lines().map(str::to_owned));
        }
        // An order stands in its bot's file and may be cancelled in another's: first what is there, then what ends.
        lines.sort_by_key(|line| line.starts_with("end"));
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            let id: OrderId = words[1].parse().expect("an id");
            match words[0] {
                "new" => {
                    let qty: Decimal = words[3].parse().expect("a quantity");
                    sides.insert(id.clone(), (words[2] == "buy", qty));
                    let order = VenueOrder {
                        instrument: instrument(),
                        is_open: true,
                        filled: Decimal::ZERO,
                        fills: Vec::new(),
                    };
                    book.orders.insert(id, order);
                }
                "fill" => {
                    let fill = fill(words[2].parse().expect("a quantity"));
                    let ((is_buy, qty), order) = (sides[&id], book.orders.get_mut(&id).expect("a new line before"));
                    order.filled += fill.qty.get();
                    order.is_open = order.filled < qty;
                    book.position += if is_buy { fill.qty.get() } else { -fill.qty.get() };
                    book.fees += fill.fee.amount;
                    order.fills.push(fill);
                }
                _ => book.orders.get_mut(&id).expect("a new line before").is_open = false,
            }
        }
        book
    }

    pub(crate) fn open(&self) -> impl Iterator<Item = &OrderId> {
        self.orders.iter().filter(|(_, order)| order.is_open).map(|(id, _)| id)
    }

    /// What the venue answers when it is asked about `held`.
    pub(crate) fn truth(&self, held: &[HeldOrder], deposit: Decimal) -> VenueTruth {
        let mut truth = VenueTruth::asked_at(SystemClock.wall());
        truth.orders = self.orders.clone();
        let asked = held.iter().filter(|held| held.order.account == account()).map(|held| held.order.id.clone());
        truth.never_had = asked.filter(|id| !self.orders.contains_key(id)).collect();
        truth.positions = [(instrument(), self.position)].into();
        // Everything trades at 100, so nothing but fees is ever realised.
        let cash = deposit - self.fees - self.position * Decimal::ONE_HUNDRED;
        truth.balance = Some(VenueBalance::Cash(cash));
        truth
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).expect("the directory is ours");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("the directory is ours").path()).collect();
    files.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("venue-")));
    files.sort();
    files
}
