//! The bot's way to the exchange: one connection, calls through the resilience policies, answers turned into what the gate
//! asks for.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use infra_factory::{
    gate::{Approved, OrderSink, Placement, SinkError, VenueOrder},
    resilience::{Classify, Idempotent, Policy, ReadOnly, Submission, presets},
};
use infra_types::{Clock, ErrorKind, Execution, InstrumentSpec, Order, OrderId, SystemClock, Timestamp};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    sync::oneshot,
};

use crate::exchange::protocol::{Answer, Call, NewOrder, Reply, Request, Stats};

/// How long one call may take. Replies that were dropped cost this much, so a replay keeps it short.
const CALL_TIMEOUT: Duration = Duration::from_millis(60);
/// How long the exchange may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a call has no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum CallFailure {
    #[error("the connection to the exchange is gone")]
    Gone,
    #[error("the exchange is busy")]
    Busy,
    #[error("the exchange refused: {0}")]
    Refused(String),
    #[error("the exchange already has this order id")]
    Duplicate,
}

impl Classify for CallFailure {
    fn kind(&self) -> ErrorKind {
        match self {
            // The request may have been read before the connection broke.
            Self::Gone | Self::Duplicate => ErrorKind::Ambiguous,
            Self::Busy => ErrorKind::Transient,
            Self::Refused(_) => ErrorKind::Permanent,
        }
    }
}

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Answer>>>>;

/// One connection to the exchange.
pub(crate) struct VenueClient {
    writer: tokio::sync::Mutex<tokio::net::tcp::OwnedWriteHalf>,
    waiting: Waiting,
    next_id: AtomicU64,
    clock: Arc<dyn Clock>,
    specs: HashMap<infra_types::InstrumentId, InstrumentSpec>,
    entry: Policy,
    read: Policy,
    cancel: Policy,
}

/// Starts the exchange, or finds the one that still runs, and connects.
pub(crate) async fn connect(
    dir: &Path,
    seed: u64,
    is_temporary: bool,
    clock: Arc<dyn Clock>,
    specs: &[InstrumentSpec],
) -> Result<VenueClient, String> {
    let address_file = dir.join("exchange.addr");
    let deadline = SystemClock.now() + START_TIMEOUT;
    let mut child = None;
    let journal = dir.join("exchange.journal");
    loop {
        if let Some(stream) = try_connect(&address_file).await {
            let client = greet(stream, Arc::clone(&clock), specs)?;
            if client.is_mine(&journal, seed).await {
                return Ok(client);
            }
            // Whoever listens there now is not our exchange.
            let _ = std::fs::remove_file(&address_file);
        }
        let has_ended =
            child.as_mut().is_some_and(|c: &mut std::process::Child| c.try_wait().is_ok_and(|end| end.is_some()));
        match &mut child {
            None => child = Some(start(dir, &address_file, seed, is_temporary)?),
            Some(_) if has_ended => {
                let log = std::fs::read_to_string(dir.join("exchange.log")).unwrap_or_default();
                return Err(format!(
                    "the exchange could not start: {}",
                    log.lines().last().unwrap_or("it said nothing")
                ));
            }
            Some(_) => {}
        }
        if SystemClock.now() > deadline {
            return Err("the exchange does not answer: it could not be started or hangs; see the processes named trading_bot exchange".into());
        }
        SystemClock.sleep(Duration::from_millis(5)).await;
    }
}

/// A client on a fresh connection.
fn greet(stream: TcpStream, clock: Arc<dyn Clock>, specs: &[InstrumentSpec]) -> Result<VenueClient, String> {
    stream.set_nodelay(true).map_err(|e| format!("exchange connection: {e}"))?;
    let (reader, writer) = stream.into_split();
    let waiting = Waiting::default();
    let answers = Arc::clone(&waiting);
    tokio::spawn(async move {
        let mut lines = BufReader::new(reader).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if let Ok(Reply { id, answer }) = serde_json::from_str(&line)
                && let Some(reply) = answers.lock().remove(&id)
            {
                // Nobody waits for a late reply any more; the gate asks by order id instead.
                let _ = reply.send(answer);
            }
        }
        // Whoever still waits learns that no answer will come.
        answers.lock().clear();
    });
    let policy = |builder: infra_factory::resilience::PolicyBuilder| {
        builder.attempt_timeout(CALL_TIMEOUT).build().map_err(|e| format!("policy: {e}"))
    };
    Ok(VenueClient {
        writer: tokio::sync::Mutex::new(writer),
        waiting,
        next_id: AtomicU64::new(1),
        clock,
        specs: specs.iter().map(|s| (s.id.clone(), s.clone())).collect(),
        // The exchange loses messages on purpose, evenly; a breaker would only add waiting to a replay's orders.
        entry: policy(Policy::builder("order_entry"))?,
        read: policy(presets::account_read("exchange_read"))?,
        cancel: policy(presets::order_cancel("order_cancel"))?,
    })
}

async fn try_connect(address_file: &PathBuf) -> Option<TcpStream> {
    let address = std::fs::read_to_string(address_file).ok()?;
    TcpStream::connect(address.trim()).await.ok()
}

fn start(dir: &Path, address_file: &Path, seed: u64, is_temporary: bool) -> Result<std::process::Child, String> {
    let program =
        std::env::current_exe().map_err(|e| format!("cannot find this program to start the exchange: {e}"))?;
    let mut command = Command::new(program);
    command.arg("exchange");
    command.arg("--journal").arg(dir.join("exchange.journal")).arg("--address-file").arg(address_file);
    command.arg("--seed").arg(seed.to_string());
    if is_temporary {
        command.arg("--remove-dir").arg(dir).args(["--idle-s", "5"]);
    }
    // Its errors go to a file beside its books: it outlives this terminal.
    let log = std::fs::File::create(dir.join("exchange.log")).map_err(|e| format!("exchange log: {e}"))?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    #[cfg(unix)]
    {
        // A Ctrl-C in the terminal is for the bot; the exchange is somebody else's machine.
        use std::os::unix::process::CommandExt;
        command.process_group(0);
    }
    command.spawn().map_err(|e| format!("cannot start the exchange: {e}"))
}

impl VenueClient {
    async fn ask(&self, call: Call) -> Result<Answer, CallFailure> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        self.waiting.lock().insert(id, reply);
        // Forgets the question when the policy's timeout drops this future.
        let _forget = Forget { waiting: &self.waiting, id };
        let mut bytes = serde_json::to_vec(&Request { id, call }).map_err(|e| CallFailure::Refused(e.to_string()))?;
        bytes.push(b'\n');
        self.writer.lock().await.write_all(&bytes).await.map_err(|_| CallFailure::Gone)?;
        match answer.await {
            Ok(Answer::Busy) => Err(CallFailure::Busy),
            Ok(Answer::Rejected { reason }) => Err(CallFailure::Refused(reason)),
            Ok(Answer::Duplicate) => Err(CallFailure::Duplicate),
            Ok(answer) => Ok(answer),
            Err(_) => Err(CallFailure::Gone),
        }
    }

    /// Reports later than `after`, up to `at`, and when the next one is due.
    pub(crate) async fn executions(
        &self,
        after: Timestamp,
        at: Timestamp,
    ) -> Result<(Vec<Execution>, Option<Timestamp>), SinkError> {
        match self.read.call(ReadOnly, |_| self.ask(Call::Executions { after, at })).await {
            Ok(Answer::Executions { executions, quiet_until }) => Ok((executions, quiet_until)),
            Ok(other) => Err(odd(&other)),
            Err(e) => Err(SinkError { reason: e.to_string() }),
        }
    }

    /// Whether this is the exchange of these books. One that does not answer is not known to be another.
    async fn is_mine(&self, journal: &Path, seed: u64) -> bool {
        match self.read.call(ReadOnly, |_| self.ask(Call::Hello)).await {
            Ok(Answer::Hello { journal: of, seed: with }) => of == journal && with == seed,
            _ => false,
        }
    }

    /// What the exchange counted.
    pub(crate) async fn stats(&self) -> Result<Stats, SinkError> {
        match self.read.call(ReadOnly, |_| self.ask(Call::Stats)).await {
            Ok(Answer::Stats(stats)) => Ok(stats),
            Ok(other) => Err(odd(&other)),
            Err(e) => Err(SinkError { reason: e.to_string() }),
        }
    }

    /// Ends the exchange's process; its file stays.
    pub(crate) async fn shutdown(&self) {
        let _ = self.read.call(ReadOnly, |_| self.ask(Call::Shutdown)).await;
    }
}

struct Forget<'a> {
    waiting: &'a Waiting,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.waiting.lock().remove(&self.id);
    }
}

fn odd(answer: &Answer) -> SinkError {
    SinkError { reason: format!("it answered something else: {answer:?}") }
}

#[async_trait]
impl OrderSink for VenueClient {
    async fn place(&self, approved: Approved<Order>) -> Placement {
        let order = approved.order();
        let Some(spec) = self.specs.get(&order.instrument) else {
            return Placement::Rejected { reason: format!("{} is not traded here", order.instrument) };
        };
        let call = Call::Place(NewOrder {
            order: order.id.clone(),
            instrument: order.instrument.clone(),
            side: order.side,
            qty: order.qty,
            price: order.kind.price(),
            lot: spec.lot_size,
            fee_rate: spec.taker_fee_rate,
            fee_currency: spec.quote.clone(),
            at: approved.approved_at(),
        });
        match self.entry.submit(&order.id, |_| self.ask(call)).await {
            Submission::Applied(Answer::Accepted { venue_order_id }) => Placement::Acknowledged { venue_order_id },
            Submission::Applied(other) => Placement::Unknown { reason: odd(&other).reason },
            Submission::Rejected(e) => Placement::Rejected { reason: e.to_string() },
            Submission::NotSent(e) => Placement::NotSent { reason: e.to_string() },
            Submission::Unknown { error, .. } => Placement::Unknown { reason: error.to_string() },
        }
    }

    async fn cancel(&self, order: &OrderId) -> Result<(), SinkError> {
        let at = self.clock.wall();
        match self.cancel.call(Idempotent, |_| self.ask(Call::Cancel { order: order.clone(), at })).await {
            Ok(_) => Ok(()),
            Err(e) => Err(SinkError { reason: e.to_string() }),
        }
    }

    /// One connection carries all requests in order and the exchange reads one connection to its end before the next, so a
    /// "not found" is final: no earlier request can still be on its way.
    async fn query(&self, order: &OrderId) -> Result<VenueOrder, SinkError> {
        let at = self.clock.wall();
        match self.read.call(ReadOnly, |_| self.ask(Call::Query { order: order.clone(), at })).await {
            Ok(Answer::NotFound) => Ok(VenueOrder::NotFound),
            Ok(Answer::Found { executions }) => Ok(VenueOrder::Found { executions }),
            Ok(other) => Err(odd(&other)),
            Err(e) => Err(SinkError { reason: e.to_string() }),
        }
    }
}
