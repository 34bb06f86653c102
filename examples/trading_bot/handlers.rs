//! What happens to each kind of event that the bus delivers.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use async_trait::async_trait;
use infra_factory::{
    event_bus::{Delivered, Handler, HandlerError},
    gate::{GateError, OrderGate, Placed, Reported},
    latency_monitor::{OrderStages, OrderTrace, Stage},
    risk_engine::{Quote, RiskEngine},
    state_store::{Batch, Key, Op, StateStore, StoreError, Ttl, When},
};
use infra_types::{
    AccountId, BotId, CorrelationId, Envelope, ErrorKind, Execution, ExecutionKind, InstrumentSpec, Monotonic,
    Namespace, Order, OrderId, Price, Qty, Side, StrategyId,
};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{
    checkpoint::Cursor,
    data::{MarketEvent, MarketRow},
    progress::Progress,
    strategy::Signal,
    venue_client::VenueClient,
};

/// What the handlers share.
pub(crate) struct Desk {
    pub bot: BotId,
    pub account: AccountId,
    pub strategy: StrategyId,
    pub specs: Vec<InstrumentSpec>,
    pub gate: Arc<OrderGate>,
    pub risk: Arc<RiskEngine>,
    pub market_data: Arc<dyn StateStore>,
    pub market_namespace: Namespace,
    pub venue: Arc<VenueClient>,
    pub cursor: Cursor,
    pub progress: Arc<Progress>,
    pub stages: OrderStages,
    /// Instruments with an order that is not over.
    pub working: Mutex<BTreeMap<usize, BTreeSet<OrderId>>>,
    /// The signal that the last event gave rise to.
    pub signal: Mutex<Option<Signal>>,
    /// When the last signal's tick arrived and when it was decided on.
    pub tick: Mutex<Option<(Monotonic, Monotonic)>>,
    /// Orders on their way, for the stages of latency.
    pub traces: Mutex<HashMap<OrderId, OrderTrace>>,
    /// What stopped the run, if something did.
    pub failure: Mutex<Option<String>>,
    /// Told when `failure` is set.
    pub failed: Notify,
}

impl Desk {
    /// The client order id of a signal: the same each time, so that a repeated signal is the same order.
    pub(crate) fn order_id(&self, signal: u64) -> Option<OrderId> {
        format!("{}-{signal:06}", self.bot).parse().ok()
    }

    /// Ties a signal, its order and everything after it together; the same in every run.
    pub(crate) fn correlation(&self, signal: u64) -> CorrelationId {
        let bot = self.bot.as_str().bytes().fold(0u64, |h, b| h.wrapping_mul(31).wrapping_add(u64::from(b)));
        CorrelationId::from_u128((u128::from(bot) << 64) | u128::from(signal))
    }

    fn instrument_of(&self, order: &Order) -> Option<usize> {
        self.specs.iter().position(|s| s.id == order.instrument)
    }

    /// Notes whether an order still works.
    pub(crate) fn note(&self, order: &Order, is_over: bool) {
        let Some(instrument) = self.instrument_of(order) else { return };
        let mut working = self.working.lock();
        let orders = working.entry(instrument).or_default();
        if is_over {
            orders.remove(&order.id);
        } else {
            orders.insert(order.id.clone());
        }
    }

    /// Stops the run at the next event.
    pub(crate) fn fail(&self, reason: impl Into<String>) {
        self.failure.lock().get_or_insert_with(|| reason.into());
        self.failed.notify_one();
    }

    fn mark(&self, id: &OrderId, stage: Stage) {
        if let Some(trace) = self.traces.lock().get_mut(id) {
            // A second fill is no second stage.
            let _ = trace.mark(stage);
        }
    }
}

fn poison(e: impl std::fmt::Display) -> HandlerError {
    HandlerError::Poison(e.to_string())
}

/// Market data: into the cache, the risk engine and the strategy.
pub(crate) struct OnMarket(pub Arc<Desk>);

#[async_trait]
impl Handler for OnMarket {
    async fn handle(&self, event: Delivered) -> Result<(), HandlerError> {
        let desk = &self.0;
        let row: MarketRow = serde_json::from_slice(&event.envelope.data).map_err(poison)?;
        let spec = &desk.specs[row.instrument];
        let at = event.envelope.time;
        let key = Key::cache(format!("market:{}", event.envelope.topic)).map_err(poison)?;
        let cached = Batch::new(desk.market_namespace.clone()).set_when(
            key,
            event.envelope.data.clone(),
            Ttl::After(std::time::Duration::from_secs(60)),
            When::Always,
        );
        desk.market_data.apply(cached).await.map_err(poison)?;
        if let MarketEvent::Quote { bid, ask } = &row.event {
            let quote = Price::new(*bid).and_then(|bid| Ok(Quote { bid, ask: Price::new(*ask)?, at }));
            let taken = quote.is_ok_and(|quote| desk.risk.update_market(&spec.id, quote).is_ok());
            desk.cursor.change(|c| {
                c.quotes_refused += u64::from(!taken);
                if taken {
                    c.quoted[row.instrument] = Some(at);
                }
            });
            if !taken {
                return Ok(());
            }
        }
        let held = desk.risk.position(&desk.account, &spec.id).map_or_else(Default::default, |p| p.qty);
        let is_working = desk.working.lock().get(&row.instrument).is_some_and(|orders| !orders.is_empty());
        desk.cursor.change(|c| {
            if let Some(signal) = c.strategy.on_event(row.instrument, at, &row.event, held, is_working) {
                *desk.signal.lock() = Some(signal);
            }
        });
        Ok(())
    }
}

/// Signals: through the gate and to the exchange.
pub(crate) struct OnSignal(pub Arc<Desk>);

impl OnSignal {
    fn order(&self, signal: &Signal) -> Result<Order, HandlerError> {
        let desk = &self.0;
        let spec = desk.specs.get(signal.instrument).ok_or_else(|| poison("an unknown instrument"))?;
        let id = desk.order_id(signal.number).ok_or_else(|| poison("the bot id is too long for order ids"))?;
        let qty: Qty = spec.floor_to_lot(signal.qty);
        let price = Price::new(signal.price).map_err(poison)?;
        let (account, strategy) = (desk.account.clone(), desk.strategy.clone());
        let order = Order::limit(id, account, strategy, spec.id.clone(), signal.side, qty, price);
        Ok(if signal.side == Side::Sell { order.reduce_only() } else { order })
    }
}

#[async_trait]
impl Handler for OnSignal {
    async fn handle(&self, event: Delivered) -> Result<(), HandlerError> {
        let desk = &self.0;
        let signal: Signal = serde_json::from_slice(&event.envelope.data).map_err(poison)?;
        let order = self.order(&signal)?;
        let id = order.id.clone();
        let consumer = Key::record(format!("executor/{}", desk.bot)).map_err(poison)?;
        let once = Op::MarkInbox { consumer, id: event.envelope.id.clone(), ttl: Ttl::Never };
        let approved = match desk.gate.approve_with(order.clone(), vec![once]).await {
            Ok(approved) => approved,
            // It was decided before the bus could be told; what was approved then is reconciled at the start.
            Err(
                GateError::Caller { source: StoreError::AlreadyProcessed { .. }, .. }
                | GateError::DuplicateOrderId { .. },
            ) => {
                return Ok(());
            }
            Err(e @ (GateError::Refused(_) | GateError::Halted { .. })) => {
                desk.traces.lock().remove(&id);
                tracing::warn!(order = %id, reason = %e, "refused");
                desk.progress.highlight(|| {
                    format!("{} refused  {:?} {} {}: {e}", signal.at, order.side, order.qty, order.instrument)
                });
                return Ok(());
            }
            Err(e) => {
                desk.fail(e.to_string());
                return Err(HandlerError::Retry(e.to_string()));
            }
        };
        if let Some((tick, decided)) = desk.tick.lock().take() {
            let mut trace = desk.stages.begin_at(desk.correlation(signal.number), Stage::TickReceived, tick);
            // Refused orders have no way to measure.
            let _ = trace.mark_at(Stage::Signal, decided);
            desk.traces.lock().insert(id.clone(), trace);
        }
        desk.mark(&id, Stage::Approved);
        tracing::info!(order = %id, side = ?order.side, qty = %approved.order().qty, "approved");
        let order = approved.order().clone();
        desk.mark(&id, Stage::Sent);
        match desk.gate.place(approved, desk.venue.as_ref()).await {
            Ok(Placed::AtVenue(record)) => {
                desk.mark(&id, Stage::Acknowledged);
                desk.note(&record.order, record.status.is_terminal());
            }
            Ok(Placed::Rejected { reason }) => {
                desk.traces.lock().remove(&id);
                desk.progress.highlight(|| format!("{} rejected {id}: {reason}", signal.at));
            }
            Ok(Placed::NotSent { reason }) => {
                desk.traces.lock().remove(&id);
                desk.progress.highlight(|| format!("{} not sent {id}: {reason}", signal.at));
            }
            Ok(Placed::Unknown { reason }) => {
                desk.note(&order, false);
                desk.fail(format!("what became of order {id} is unknown, so it counts as live ({reason}); run the same command to go on"));
            }
            Ok(_) => desk.fail("a placement of a kind that this bot does not know"),
            Err(e @ GateError::Halted { .. }) => desk.progress.highlight(|| e.to_string()),
            Err(e) => {
                desk.fail(e.to_string());
                return Err(HandlerError::Retry(e.to_string()));
            }
        }
        Ok(())
    }
}

/// Execution reports: into orders, positions and P&L, with the checkpoint in the same batch.
pub(crate) struct OnExecution(pub Arc<Desk>);

#[async_trait]
impl Handler for OnExecution {
    async fn handle(&self, event: Delivered) -> Result<(), HandlerError> {
        let desk = &self.0;
        let execution: Execution = serde_json::from_slice(&event.envelope.data).map_err(poison)?;
        match desk.gate.report_with(execution.clone(), vec![desk.cursor.op()]).await {
            Ok(Reported::Counted { record, realised }) => {
                let is_over = record.status.is_terminal();
                desk.note(&record.order, is_over);
                tracing::info!(order = %execution.order, status = ?record.status, filled = %record.filled, "reported");
                if let ExecutionKind::Filled(fill) = &execution.kind {
                    desk.mark(&execution.order, Stage::Filled);
                    desk.progress.highlight(|| {
                        let gain = realised
                            .filter(|r| !r.is_zero())
                            .map_or(String::new(), |r| format!(", realised {}", r.round_dp(4).normalize()));
                        format!(
                            "{} filled   {:?} {} {} at {}{gain}",
                            execution.at,
                            record.order.side,
                            fill.qty.get().normalize(),
                            record.order.instrument,
                            fill.price.get().normalize()
                        )
                    });
                }
                if is_over && let Some(trace) = desk.traces.lock().remove(&execution.order) {
                    let _ = trace.finish();
                }
                Ok(())
            }
            Ok(_) => Ok(()),
            // Somebody was faster, or the reply was lost: a report that was counted counts once, so it may come again.
            Err(e) if e.kind().is_retryable() || matches!(e.kind(), ErrorKind::Conflict | ErrorKind::Ambiguous) => {
                Err(HandlerError::Retry(e.to_string()))
            }
            Err(e) => {
                desk.fail(format!("a report could not be counted: {e}"));
                Err(poison(e))
            }
        }
    }
}

/// The envelope that carries a signal.
pub(crate) fn signal_envelope(desk: &Desk, signal: &Signal) -> Result<Envelope, String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let symbol = &desk.specs[signal.instrument].id.symbol;
    let topic = format!("signals:{}:{symbol}", desk.bot).parse().map_err(|e| text(&e))?;
    let id = infra_types::EventId::new(format!("signal.{}.{}", desk.bot, signal.number)).map_err(|e| text(&e))?;
    let data = serde_json::to_vec(signal).map_err(|e| text(&e))?;
    Ok(Envelope::new(topic, "signal.v1", signal.at, data)
        .with_id(id)
        .with_source(format!("bot/{}", desk.bot))
        .with_correlation(desk.correlation(signal.number)))
}
