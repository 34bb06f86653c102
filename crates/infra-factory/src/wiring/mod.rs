//! What the parts do to each other, one file for each sentence.
//!
//! * `guarded_store`: when a server fails, its store is asked again where that is safe, and left alone when it keeps failing.
//! * `outbox`: what a batch tells the bus and the audit log travels in that batch.
//! * `relay`: a relay carries it on, in order, at least once, and forgets it afterwards.
//! * `inbox`: the effect of an event and the mark that it was processed travel in one batch.
//! * `halt_rows`: a change of the kill switch is audited and told on the bus in its own batch.
//! * `breach_escalates`: a loss that reaches its limit halts the limit's scope, where the configuration says so; `losses` says what is lost.
//! * `unexpected_fill_halts`: a fill that nobody approved halts its account.
//! * `limit_rows`: a change of limits, and what people do about them, is audited and told in its own batch.
//! * `halt_cancels`: when trading is halted, working orders are cancelled at every venue.
//! * `death_cancels`: when a bot falls silent, another one marks its orders as orphaned and cancels them.
//! * `supervise`: both of them at work beside the trading, and the ledger compared with the venues again and again.

pub(crate) mod breach_escalates;
pub(crate) mod death_cancels;
#[cfg(any(feature = "redis", feature = "postgres", test))]
pub(crate) mod guarded_store;
pub(crate) mod halt_cancels;
pub(crate) mod halt_rows;
pub(crate) mod inbox;
pub(crate) mod limit_rows;
pub(crate) mod losses;
pub(crate) mod outbox;
pub(crate) mod relay;
pub(crate) mod supervise;
pub(crate) mod unexpected_fill_halts;
