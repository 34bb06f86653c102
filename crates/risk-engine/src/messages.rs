//! Messages that are no new orders: cancels and changes count, and always pass (RTS 6 art. 15(1)(d), FIA 2024).

use infra_state_store::{Applied, Batch, Key, Op, Value, WindowLimit};
use infra_types::{Decimal, Order};

use crate::{
    decision::Check,
    engine::RiskEngine,
    error::RiskError,
    limits::{self, MessageKind},
    rulebook::Places,
    rules::{Limit, Mode},
};

/// A message about an order that is approved already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Message {
    /// It is to be taken out of the book.
    Cancel,
    /// It is to be made smaller or cheaper; what makes it larger is a new order.
    Change,
}

impl RiskEngine {
    /// Counts a message about an order in every message rate that covers it, and answers where they stand. It never refuses: whoever
    /// cancels sends the cancel whatever this says, also if the store cannot be reached.
    ///
    /// # Errors
    /// What the store says: then the message is not counted.
    ///
    /// # Cancel safety
    /// Dropping the future may leave the message counted.
    pub async fn count_message(&self, order: &Order, message: Message) -> Result<Vec<Check>, RiskError> {
        let active = self.active();
        let places = Places::of(order, active.limits().groups.get(&order.account));
        let (mut batch, mut checks) = (Batch::new(self.namespace.clone()), Vec::new());
        for (named, place) in active.rules.covering(&places) {
            let Limit::MessageRate { max, window } = named.rule.limit else { continue };
            let key = Key::window(crate::plan::window_name(named, "messages", place))?;
            // Without a bound: it is counted, and passes.
            let limit = WindowLimit::new(Value::COUNTER_MAX, window);
            batch = batch.with(Op::Admit { window: key, by: 1, limit });
            let check = limits::message_rate(place.scope(), max, MessageKind::Exempt, 0, 1).check;
            let shadow = named.rule.mode == Mode::Shadow;
            let note = match message {
                Message::Cancel => "a cancel is counted, and passes",
                Message::Change => "a change is counted, and passes",
            };
            let rule = Some(named.id.clone());
            checks.push(Check { rule, shadow, warn_at: named.rule.warn_at, ..check.with_note(note) });
        }
        if checks.is_empty() {
            return Ok(checks);
        }
        let applied = self.store.apply(batch).await?;
        for (check, done) in checks.iter_mut().zip(applied) {
            if let Applied::Used(used) = done {
                check.measure(Decimal::from(used));
            }
        }
        Ok(checks)
    }
}
