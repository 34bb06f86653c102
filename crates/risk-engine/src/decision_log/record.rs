//! The engine whose inputs are written down.

use std::{fmt, io, sync::Arc};

use infra_state_store::{Op, Scan, StateStore, Value};
use infra_types::{AccountId, Clock, Currency, Decimal, InstrumentId, InstrumentSpec, Namespace, Order};

use super::{
    DecisionClock, Input,
    clock::Stopped,
    line::{Digest, Output, Written, frame, is_interrupted, nanos},
};
use crate::{
    config::RiskLimits,
    engine::{RiskEngine, Stance},
    error::RiskError,
    market::Quote,
    portfolio::AccountMetrics,
    reservation::{Approval, Outcome, Reservation, Settled},
};

/// An engine and the log of what it was told and what it decided. Inputs come one after the other (`&mut`), so that their order in
/// the log is the one in which they happened; share it behind a lock of your own.
///
/// A log that cannot be written stops nothing: the engine goes on, what is not written is counted ([`lost`](Self::lost)), and the first
/// error is kept. After the first lost line nothing more is written, since what follows could not be replayed. An input whose future
/// is dropped before it ended is such a line.
pub struct DecisionRecorder<W> {
    pub(super) engine: RiskEngine,
    clock: DecisionClock,
    out: W,
    digest: Digest,
    entries: u64,
    lost: u64,
    broken: Option<io::Error>,
    /// An input is at work and has no line yet.
    is_at_work: bool,
}

impl<W> fmt::Debug for DecisionRecorder<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { engine, entries, lost, .. } = self;
        let mut shown = f.debug_struct("DecisionRecorder");
        shown.field("engine", engine).field("entries", entries).field("lost", lost).finish_non_exhaustive()
    }
}

impl<W: io::Write + Send> DecisionRecorder<W> {
    /// An engine over the ledger in `namespace`, with its limits as the first line. Does no I/O on the store.
    ///
    /// # Errors
    /// As [`RiskEngine::new`].
    pub fn new(
        store: Arc<dyn StateStore>,
        namespace: Namespace,
        clock: DecisionClock,
        limits: RiskLimits,
        out: W,
    ) -> Result<Self, RiskError> {
        let started = Input::Started { format: 1, namespace: namespace.to_string(), limits: Box::new(limits.clone()) };
        let engine = RiskEngine::new(store, namespace, Arc::new(clock.clone()), limits)?;
        let mut recorder =
            Self { engine, clock, out, digest: Digest::START, entries: 0, lost: 0, broken: None, is_at_work: false };
        let _still = recorder.begin();
        recorder.write(&started, Output::Done, false);
        Ok(recorder)
    }

    /// The engine, for reading. What changes it must pass through here, or no replay will find it.
    #[must_use]
    pub fn engine(&self) -> &RiskEngine {
        &self.engine
    }

    /// How many entries are written.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// How many entries could not be written.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Why entries are lost.
    #[must_use]
    pub fn broken(&self) -> Option<&io::Error> {
        self.broken.as_ref()
    }

    /// The digest over all entries, as it stands in the last line.
    #[must_use]
    pub fn digest(&self) -> String {
        self.digest.to_string()
    }

    /// Where lines go to.
    pub fn output(&mut self) -> &mut W {
        &mut self.out
    }

    /// Writes down what stands in the ledger, then loads it, as [`RiskEngine::restore`] does. Windows (rates) are not among it: a rule
    /// about a rate is replayed rightly only from where its window was empty.
    ///
    /// # Errors
    /// As [`RiskEngine::restore`].
    ///
    /// # Cancel safety
    /// The log may lack a part of it; call again.
    pub async fn restore(&mut self) -> Result<(), RiskError> {
        let _still = self.begin();
        self.restore_stopped().await
    }

    async fn restore_stopped(&mut self) -> Result<(), RiskError> {
        let mut scan = Scan { limit: 1_000, ..Scan::new("risk/") };
        loop {
            let page = self.engine.store.scan(&self.engine.namespace, scan.clone()).await?;
            for (key, entry) in page.entries {
                let (bytes, counter) = match &entry.value {
                    Value::Counter(raw) => (None, Some(*raw)),
                    Value::Bytes(bytes) => (Some(String::from_utf8_lossy(bytes).into_owned()), None),
                };
                self.write(&Input::Stored { key: key.name().to_owned(), bytes, counter }, Output::Done, false);
            }
            match page.next {
                Some(after) => scan.after = Some(after),
                None => break,
            }
        }
        let result = self.engine.restore().await;
        self.note(&Input::Restore, &result);
        result
    }

    /// As [`RiskEngine::open_account`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// The account may be created, or not, without a line.
    pub async fn open_account(
        &mut self,
        account: AccountId,
        currency: Currency,
        deposit: Decimal,
    ) -> Result<(), RiskError> {
        let _still = self.begin();
        let result = self.engine.open_account(account.clone(), currency.clone(), deposit).await;
        self.note(&Input::Account { account, currency, deposit }, &result);
        result
    }

    /// As [`RiskEngine::register_instrument`].
    ///
    /// # Errors
    /// As there.
    pub fn register_instrument(&mut self, spec: InstrumentSpec) -> Result<(), RiskError> {
        let _still = self.begin();
        let result = self.engine.register_instrument(spec.clone());
        self.note(&Input::Instrument { spec: Box::new(spec) }, &result);
        result
    }

    /// As [`RiskEngine::set_conversion`].
    ///
    /// # Errors
    /// As there.
    pub fn set_conversion(&mut self, from: Currency, to: Currency, rate: Decimal) -> Result<(), RiskError> {
        let _still = self.begin();
        let result = self.engine.set_conversion(from.clone(), to.clone(), rate);
        self.note(&Input::Conversion { from, to, rate }, &result);
        result
    }

    /// As [`RiskEngine::update_account_metrics`].
    pub fn update_account_metrics(&mut self, account: &AccountId, metrics: AccountMetrics) {
        let _still = self.begin();
        self.engine.update_account_metrics(account, metrics.clone());
        self.note(&Input::Reported { account: account.clone(), metrics }, &Ok(()));
    }

    /// As [`RiskEngine::update_market`].
    ///
    /// # Errors
    /// As there.
    pub fn update_market(&mut self, instrument: &InstrumentId, quote: Quote) -> Result<(), RiskError> {
        let _still = self.begin();
        let result = self.engine.update_market(instrument, quote);
        self.note(&Input::Market { instrument: instrument.clone(), quote }, &result);
        result
    }

    /// As [`RiskEngine::check_and_reserve`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// The order may be reserved, or not, without a line.
    pub async fn check_and_reserve(
        &mut self,
        order: Order,
        stance: Stance,
        compose: &(dyn Fn(&Approval) -> Vec<Op> + Send + Sync),
    ) -> Result<Approval, RiskError> {
        let _still = self.begin();
        let input = Input::order(&order, stance);
        let result = self.engine.check_and_reserve(order, stance, compose).await;
        let interrupted = result.as_ref().is_err_and(is_interrupted);
        self.write(&input, result.as_ref().map_or_else(Output::failed, Output::Approved), interrupted);
        result
    }

    /// As [`RiskEngine::settle`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// The outcome may be booked, or not, without a line.
    pub async fn settle(
        &mut self,
        order: &Order,
        reservation: &Reservation,
        outcome: Outcome<'_>,
        compose: &(dyn Fn(&Settled) -> Vec<Op> + Send + Sync),
    ) -> Result<Settled, RiskError> {
        let _still = self.begin();
        let (fill, is_last) = match outcome {
            Outcome::Fill { fill, is_last } => (Some(fill.clone()), is_last),
            Outcome::End => (None, true),
        };
        let (of, held) = (Box::new(order.clone()), Box::new(reservation.clone()));
        let input = Input::Settle { order: of, reservation: held, fill, is_last };
        let result = self.engine.settle(order, reservation, outcome, compose).await;
        let interrupted = result.as_ref().is_err_and(is_interrupted);
        self.write(&input, result.as_ref().map_or_else(Output::failed, Output::Settled), interrupted);
        result
    }

    /// As [`RiskEngine::checkpoint`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// Some accounts may be written, without a line.
    pub async fn checkpoint(&mut self) -> Result<(), RiskError> {
        let _still = self.begin();
        let result = self.engine.checkpoint().await;
        self.note(&Input::Checkpoint, &result);
        result
    }

    /// Closes the log with a line that says that it is whole, and gives back where it went.
    ///
    /// # Errors
    /// Why lines are lost, if any are.
    pub fn finish(mut self) -> io::Result<W> {
        let _still = self.begin();
        self.write(&Input::Finished { lost: self.lost }, Output::Done, false);
        match self.broken {
            Some(error) => Err(error),
            None => self.out.flush().map(|()| self.out),
        }
    }

    /// Time stands still from here on. An input that was dropped half-way has no line, and nobody knows what it did: the log ends
    /// before it.
    pub(super) fn begin(&mut self) -> Stopped {
        if std::mem::replace(&mut self.is_at_work, true) && self.broken.is_none() {
            self.lost += 1;
            self.broken = Some(io::Error::other("an input was dropped before it ended"));
        }
        self.clock.stop()
    }

    fn note(&mut self, input: &Input, result: &Result<(), RiskError>) {
        self.write(input, Output::done(result), result.as_ref().is_err_and(is_interrupted));
    }

    pub(super) fn write(&mut self, input: &Input, output: Output<'_>, interrupted: bool) {
        self.is_at_work = false;
        if self.broken.is_some() {
            self.lost += 1;
            return;
        }
        let (now, wall) = (self.clock.now(), self.clock.wall());
        let written = Written { n: self.entries, mono: nanos(now), wall, interrupted, input, output };
        let entry = serde_json::to_string(&written).map_err(io::Error::other);
        let done = entry.and_then(|entry| {
            let digest = self.digest.then(entry.as_bytes());
            self.out.write_all(frame(digest, &entry).as_bytes())?;
            self.digest = digest;
            Ok(())
        });
        match done {
            Ok(()) => self.entries += 1,
            Err(error) => {
                self.lost += 1;
                self.broken = Some(error);
            }
        }
    }

    /// A replay passes over an entry.
    pub(super) fn pass_over(&mut self) {
        self.entries += 1;
    }

    /// A replay restores, with what it put into the store entry by entry.
    pub(super) async fn restore_again(&mut self) -> Result<(), RiskError> {
        let result = self.engine.restore().await;
        self.note(&Input::Restore, &result);
        result
    }

    /// A replay has put a record into the store.
    pub(super) fn stored_again(&mut self, key: &str, bytes: Option<String>, counter: Option<i64>) {
        self.write(&Input::Stored { key: key.to_owned(), bytes, counter }, Output::Done, false);
    }

    /// A replay is at the log's last line.
    pub(super) fn finish_again(&mut self, lost: u64) {
        self.write(&Input::Finished { lost }, Output::Done, false);
    }
}
