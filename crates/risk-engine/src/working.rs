//! Which orders work in an instrument, for rules that keep own orders from trading with each other. Kept only while such a rule covers
//! the order; orders from before the rule are not in it.

use infra_types::Order;
use serde::{Deserialize, Serialize};

use crate::{
    book::Book,
    error::RiskError,
    ledger,
    limits::WorkingOrder,
    plan::{Ops, Role, version_of},
    reservation::Reservation,
};

/// Orders of one instrument that are compared; more opening ones are refused, exits beyond are not in the list.
const ORDERS_MAX: usize = 512;

/// The record of one instrument.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Working {
    pub(crate) orders: Vec<WorkingOrder>,
}

impl Working {
    pub(crate) fn is_full(&self) -> bool {
        self.orders.len() >= ORDERS_MAX
    }
}

/// The list with the order in it; none if it is full.
pub(crate) fn with(book: &Book, order: &Order) -> Option<Working> {
    let known = book.working.get(&order.instrument).map(|known| &known.value);
    let mut list = known.cloned().unwrap_or_default();
    list.orders.retain(|w| (&w.account, &w.id) != (&order.account, &order.id));
    if list.is_full() {
        return None;
    }
    list.orders.push(WorkingOrder::from(order));
    Some(list)
}

/// Takes an order that is over out of the list, if it is in one.
pub(crate) fn leave(book: &Book, ops: &mut Ops, was: &Reservation, is: &Reservation) -> Result<(), RiskError> {
    if !was.listed || was.is_closed() || !is.is_closed() {
        return Ok(());
    }
    let known = book.working.get(&is.instrument);
    let mut list = known.map(|known| known.value.clone()).unwrap_or_default();
    list.orders.retain(|w| (&w.account, &w.id) != (&is.account, &is.order));
    let role = Role::Working(Box::new((is.instrument.clone(), list.clone())));
    ops.set(&ledger::working(&is.instrument), &list, version_of(known), role)
}
