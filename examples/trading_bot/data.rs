//! Real market data from a file: checked to its last line before the first order, then replayed.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Seek, SeekFrom},
    path::Path,
};

use flate2::read::MultiGzDecoder;
use infra_types::{Decimal, Side, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

/// A line longer than this is not market data.
const LINE_BYTES_MAX: u64 = 64 * 1024;

/// One row of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct MarketRow {
    /// Index into the instruments of the replay.
    pub instrument: usize,
    /// When it arrived; goes backwards in places.
    pub received: Timestamp,
    /// What happened.
    pub event: MarketEvent,
}

/// What a venue publishes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum MarketEvent {
    /// Somebody traded.
    Trade {
        /// Per unit, in the quote currency.
        price: Decimal,
        /// In the base currency.
        qty: Decimal,
        /// Which way the taker went.
        side: Side,
    },
    /// The best prices changed.
    Quote {
        /// The best price that buyers offer.
        bid: Decimal,
        /// The best price that sellers ask.
        ask: Decimal,
    },
}

/// What is wrong with a file, in one line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataError {
    #[error("cannot read {path}: {source}")]
    Read { path: String, source: std::io::Error },
    #[error("{path} is damaged or cut off after {good} good lines: {reason}")]
    Damaged { path: String, good: u64, reason: String },
    #[error("{path}, line {line}: {reason} (the format is in examples/data/README.md)")]
    Line { path: String, line: u64, reason: String },
    #[error("{path} holds no events")]
    Empty { path: String },
}

/// What the first pass over a file found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Survey {
    /// How many events there are.
    pub events: u64,
    /// Names the exact content: a run goes on only with the same one.
    pub fingerprint: String,
}

/// Rows of a file, in order.
pub(crate) struct Rows {
    path: String,
    lines: Box<dyn BufRead + Send>,
    line: u64,
    instruments: usize,
    is_gzip: bool,
}

impl Rows {
    /// Opens a plain or gzip file; `instruments` is how many there are to refer to.
    pub(crate) fn open(path: &Path, instruments: usize) -> Result<Self, DataError> {
        let name = path.display().to_string();
        let fail = |source| DataError::Read { path: name.clone(), source };
        let mut file = File::open(path).map_err(fail)?;
        let mut magic = [0u8; 2];
        let got = file.read(&mut magic).map_err(fail)?;
        file.seek(SeekFrom::Start(0)).map_err(fail)?;
        let is_gzip = got == 2 && magic == [0x1f, 0x8b];
        let lines: Box<dyn BufRead + Send> = if is_gzip {
            Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(file)))
        } else {
            Box::new(BufReader::with_capacity(1 << 16, file))
        };
        Ok(Self { path: name, lines, line: 0, instruments, is_gzip })
    }

    fn next_line(&mut self) -> Result<Option<String>, DataError> {
        let mut text = Vec::new();
        let read = (&mut self.lines).take(LINE_BYTES_MAX).read_until(b'\n', &mut text);
        let damaged = |reason: String| DataError::Damaged { path: self.path.clone(), good: self.line, reason };
        if read.map_err(|e| damaged(e.to_string()))? == 0 {
            return Ok(None);
        }
        if text.len() as u64 == LINE_BYTES_MAX {
            return Err(damaged(format!("a line is longer than {LINE_BYTES_MAX} bytes")));
        }
        self.line += 1;
        String::from_utf8(text).map(Some).map_err(|_| self.bad("it is not UTF-8".into()))
    }

    fn bad(&self, reason: String) -> DataError {
        DataError::Line { path: self.path.clone(), line: self.line, reason }
    }

    /// A wrong line of a gzip file may be the fault of the file: its checksum stands at the end.
    fn blame(&mut self, error: DataError) -> DataError {
        let good = self.line.saturating_sub(1);
        match std::io::copy(&mut self.lines, &mut std::io::sink()) {
            Err(e) if self.is_gzip => DataError::Damaged { path: self.path.clone(), good, reason: e.to_string() },
            _ => error,
        }
    }

    /// The next row, if there is one.
    pub(crate) fn next_row(&mut self) -> Result<Option<MarketRow>, DataError> {
        while let Some(text) = self.next_line()? {
            if text.trim().is_empty() {
                continue;
            }
            let row = parse(&text).map_err(|reason| self.bad(reason))?;
            if row.instrument >= self.instruments {
                let last = self.instruments - 1;
                return Err(self.bad(format!("instrument {} is unknown: this replay has 0 to {last}", row.instrument)));
            }
            return Ok(Some(row));
        }
        Ok(None)
    }
}

/// Reads the whole file once: every line is checked before anything is traded on the first one.
pub(crate) fn survey(path: &Path, instruments: usize) -> Result<Survey, DataError> {
    let mut rows = Rows::open(path, instruments)?;
    let (mut events, mut hash) = (0, Sha256::new());
    loop {
        let row = match rows.next_row() {
            Ok(Some(row)) => row,
            Ok(None) => break,
            Err(e) => return Err(rows.blame(e)),
        };
        events += 1;
        let row = serde_json::to_vec(&row).map_err(|e| rows.bad(e.to_string()))?;
        hash.update((row.len() as u64).to_be_bytes());
        hash.update(row);
    }
    if events == 0 {
        return Err(DataError::Empty { path: path.display().to_string() });
    }
    let fingerprint = hash.finalize().iter().take(16).map(|b| format!("{b:02x}")).collect();
    Ok(Survey { events, fingerprint })
}

#[derive(Deserialize)]
struct RawLine<'a> {
    #[serde(rename = "Item", borrow)]
    item: RawItem<'a>,
}

#[derive(Deserialize)]
struct RawItem<'a> {
    time_received: Timestamp,
    instrument: usize,
    #[serde(borrow)]
    kind: RawKind<'a>,
}

#[derive(Deserialize)]
enum RawKind<'a> {
    #[serde(borrow)]
    Trade(RawTrade<'a>),
    #[serde(borrow)]
    OrderBookL1(RawL1<'a>),
}

#[derive(Deserialize)]
struct RawTrade<'a> {
    #[serde(borrow)]
    price: &'a RawValue,
    #[serde(borrow)]
    amount: &'a RawValue,
    side: RawSide,
}

#[derive(Deserialize)]
enum RawSide {
    Buy,
    Sell,
}

#[derive(Deserialize)]
struct RawL1<'a> {
    #[serde(borrow)]
    best_bid: RawLevel<'a>,
    #[serde(borrow)]
    best_ask: RawLevel<'a>,
}

#[derive(Deserialize)]
struct RawLevel<'a> {
    #[serde(borrow)]
    price: &'a RawValue,
}

/// From the raw text of a JSON number or string, never through a binary float.
fn decimal(raw: &RawValue, what: &str) -> Result<Decimal, String> {
    let text = raw.get().trim_matches('"');
    let value = if text.contains(['e', 'E']) { Decimal::from_scientific(text) } else { Decimal::from_str_exact(text) };
    match value {
        Ok(value) if value <= Decimal::ZERO => Err(format!("{what} must be above zero, is {value}")),
        // Wide enough for every market, narrow enough that no product of two leaves the decimals.
        Ok(value) if !(Decimal::new(1, 12)..=Decimal::from(1_000_000_000_000u64)).contains(&value) => {
            Err(format!("{what} must be between 1e-12 and 1e12, is {value}"))
        }
        Ok(value) => Ok(value),
        Err(e) => Err(format!("{what} {text:?} is not a decimal: {e}")),
    }
}

fn parse(text: &str) -> Result<MarketRow, String> {
    let RawLine { item } = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let event = match item.kind {
        RawKind::Trade(t) => MarketEvent::Trade {
            price: decimal(t.price, "the price")?,
            qty: decimal(t.amount, "the amount")?,
            side: match t.side {
                RawSide::Buy => Side::Buy,
                RawSide::Sell => Side::Sell,
            },
        },
        RawKind::OrderBookL1(l) => {
            // A crossed quote is the market's business: the risk engine refuses it and the report counts it.
            let (bid, ask) = (decimal(l.best_bid.price, "the bid")?, decimal(l.best_ask.price, "the ask")?);
            MarketEvent::Quote { bid, ask }
        }
    };
    Ok(MarketRow { instrument: item.instrument, received: item.time_received, event })
}
