//! The decisions made again.

use std::{
    io::{self, BufRead},
    sync::Arc,
};

use infra_state_store::{Batch, Key, MemoryStateStore, Op, StateStore, Ttl, Value, When};
use infra_types::{ManualClock, Namespace};

use super::{
    DecisionClock, DecisionRecorder, Input,
    line::{Digest, Read, unframe},
};
use crate::{engine::Stance, error::RiskError, messages::Message, reservation::Outcome};

/// How many differences are kept with their text.
const DIFFERENCES_KEPT: usize = 10;

/// Why a log cannot be replayed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// It cannot be read.
    #[error("the log cannot be read: {0}")]
    Read(#[from] io::Error),
    /// A line is not what was written: the digest up to it does not match.
    #[error("line {line} is damaged, or lines before it are missing: {reason}")]
    Damaged {
        /// Counted from 1.
        line: u64,
        /// What was seen.
        reason: String,
    },
    /// It does not begin as a log does.
    #[error("the log does not begin with the limits of an engine, in a form that is known")]
    NoStart,
    /// The engine or its store in memory refused what they should not.
    #[error(transparent)]
    Engine(#[from] RiskError),
}

/// An entry that came out otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Its line, counted from 1.
    pub line: u64,
    /// What the log says.
    pub logged: String,
    /// What came out now.
    pub replayed: String,
}

/// What a replay found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReplayReport {
    /// Lines that were read.
    pub lines: u64,
    /// Orders that were decided again.
    pub decisions: u64,
    /// Those that passed.
    pub approved: u64,
    /// Fills and ends that were booked again.
    pub settled: u64,
    /// Inputs that were not tried again, since a store or a caller ended them.
    pub interrupted: u64,
    /// Entries that came out otherwise.
    pub different: u64,
    /// The first ten of them. What follows one is often different for its sake.
    pub differences: Vec<Difference>,
    /// Whether the log was closed and lost no line.
    pub is_whole: bool,
    /// The digest of the last line.
    pub digest: String,
}

/// Drives a fresh engine over a store in memory with a log's inputs and times, and compares every entry byte by byte. Memory stays
/// bounded by the ledger, however long the log. `progress` is told the lines so far, every 10,000.
///
/// # Errors
/// `Read`, `NoStart`, `Damaged` for a line whose digest does not match; `Engine`. Differences are no error: the report has them.
///
/// # Cancel safety
/// Nothing but the position in `log` changes.
pub async fn replay(
    mut log: impl BufRead + Send,
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<ReplayReport, ReplayError> {
    let (mut report, mut digest) = (ReplayReport::default(), Digest::START);
    let mut engine: Option<Replayed> = None;
    let mut line = String::new();
    loop {
        line.clear();
        if log.read_line(&mut line)? == 0 {
            report.digest = digest.to_string();
            return if engine.is_some() { Ok(report) } else { Err(ReplayError::NoStart) };
        }
        report.lines += 1;
        let damaged = |reason: &str| ReplayError::Damaged { line: report.lines, reason: reason.to_owned() };
        let (told, entry) = unframe(&line).ok_or_else(|| damaged("it is no entry of a log"))?;
        digest = digest.then(entry.as_bytes());
        if digest.to_string() != told {
            return Err(damaged("the digest does not match"));
        }
        let read: Read = serde_json::from_str(entry).map_err(|e| damaged(&e.to_string()))?;
        report.is_whole = matches!(read.input, Input::Finished { lost: 0 });
        let replayed = match &mut engine {
            None => Replayed::start(&read).map(|started| engine.insert(started))?,
            Some(engine) => {
                engine.clock.hold(read.now(), read.wall);
                if read.interrupted {
                    report.interrupted += 1;
                    engine.recorder.pass_over();
                    continue;
                }
                engine.step(read, &mut report).await?;
                engine
            }
        };
        let again = replayed.taken()?;
        if again != entry {
            report.different += 1;
            if report.differences.len() < DIFFERENCES_KEPT {
                let (line, logged) = (report.lines, entry.to_owned());
                report.differences.push(Difference { line, logged, replayed: again });
            }
        }
        if report.lines.is_multiple_of(10_000) {
            progress(report.lines);
        }
    }
}

/// The engine that decides again, recorded in its turn.
struct Replayed {
    clock: DecisionClock,
    store: Arc<dyn StateStore>,
    namespace: Namespace,
    recorder: DecisionRecorder<Vec<u8>>,
}

impl Replayed {
    fn start(read: &Read) -> Result<Self, ReplayError> {
        let Input::Started { format: 1, namespace, limits } = &read.input else { return Err(ReplayError::NoStart) };
        let clock = DecisionClock::new(Arc::new(ManualClock::default()));
        clock.hold(read.now(), read.wall);
        let store: Arc<dyn StateStore> = Arc::new(MemoryStateStore::new(Arc::new(clock.clone())));
        let namespace: Namespace = namespace.parse().map_err(|_| ReplayError::NoStart)?;
        let limits = limits.as_ref().clone();
        let recorder = DecisionRecorder::new(store.clone(), namespace.clone(), clock.clone(), limits, Vec::new())?;
        Ok(Self { clock, store, namespace, recorder })
    }

    /// Does what the entry says; what comes out is written by the recorder, errors too.
    async fn step(&mut self, read: Read, report: &mut ReplayReport) -> Result<(), ReplayError> {
        let recorder = &mut self.recorder;
        match read.input {
            Input::Started { .. } => return Err(ReplayError::NoStart),
            Input::Stored { key, bytes, counter } => {
                let value = bytes.map(Value::from).or(counter.map(Value::Counter)).unwrap_or(Value::Counter(0));
                self.put(&key, value).await?;
            }
            Input::Restore => drop(recorder.restore_again().await),
            Input::Account { account, currency, deposit } => {
                drop(recorder.open_account(account, currency, deposit).await);
            }
            Input::Instrument { spec } => drop(recorder.register_instrument(*spec)),
            Input::Conversion { from, to, rate } => drop(recorder.set_conversion(from, to, rate)),
            Input::Reported { account, metrics } => recorder.update_account_metrics(&account, metrics),
            Input::Market { instrument, quote } => drop(recorder.update_market(&instrument, quote)),
            Input::Order { order, reduce_only } => {
                let stance = if reduce_only { Stance::ReduceOnly } else { Stance::Open };
                let result = recorder.check_and_reserve(*order, stance, &|_| Vec::new()).await;
                report.decisions += 1;
                report.approved += u64::from(result.is_ok());
            }
            Input::Settle { order, reservation, fill, is_last } => {
                let outcome = fill.as_ref().map_or(Outcome::End, |fill| Outcome::Fill { fill, is_last });
                drop(recorder.settle(&order, &reservation, outcome, &|_| Vec::new()).await);
                report.settled += 1;
            }
            Input::Checkpoint => drop(recorder.checkpoint().await),
            Input::Limits { base, limits, author, reason } => {
                drop(recorder.set_limits(base, *limits, author, &reason, &|_| Vec::new()).await);
            }
            Input::OverrideAsked { order, rules, by, reason, life } => {
                drop(recorder.request_override(&order, rules, by, &reason, life, &|_| Vec::new()).await);
            }
            Input::OverrideGranted { account, order, by } => {
                drop(recorder.grant_override(&account, &order, by, &|_| Vec::new()).await);
            }
            Input::StrategyEnabled { strategy, by, reason } => {
                drop(recorder.enable_strategy(&strategy, by, &reason, &|_| Vec::new()).await);
            }
            Input::Message { order, is_cancel } => {
                let message = if is_cancel { Message::Cancel } else { Message::Change };
                drop(recorder.count_message(&order, message).await);
            }
            Input::Finished { lost } => recorder.finish_again(lost),
        }
        Ok(())
    }

    async fn put(&mut self, key: &str, value: Value) -> Result<(), ReplayError> {
        let (bytes, counter) = match &value {
            Value::Counter(raw) => (None, Some(*raw)),
            Value::Bytes(bytes) => (Some(String::from_utf8_lossy(bytes).into_owned()), None),
        };
        let name = Key::record(key).map_err(RiskError::from)?;
        let op = Op::Set { key: name, value, ttl: Ttl::Never, when: When::Always };
        self.store.apply(Batch::new(self.namespace.clone()).with(op)).await.map_err(RiskError::from)?;
        self.recorder.stored_again(key, bytes, counter);
        Ok(())
    }

    /// The entry that the recorder wrote last.
    fn taken(&mut self) -> Result<String, ReplayError> {
        let line = String::from_utf8(std::mem::take(self.recorder.output())).unwrap_or_default();
        Ok(unframe(&line).map(|(_, entry)| entry.to_owned()).unwrap_or_default())
    }
}
