//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::exchange::server::ServerArgs;

/// A trading bot on real market data: replays 50,000 events of Binance through the whole stack against an exchange of its
/// own that loses messages on purpose.
#[derive(Debug, Parser)]
#[command(name = "trading_bot", version, args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub command: Option<Hidden>,

    /// development: everything in memory. standalone: everything in SQLite, so that a killed run goes on where it was.
    #[arg(long, default_value = "development")]
    pub preset: String,

    /// Where standalone keeps its files [default: ./infra-data]; development keeps none
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// The name of this bot, at most 48 characters; bots of different names may share a data dir.
    #[arg(long, default_value = "bot_001")]
    pub bot_id: String,

    /// Market data, plain or gzip; the format is in examples/data/README.md [default: the shipped Binance data]
    #[arg(long, value_name = "FILE")]
    pub input: Option<PathBuf>,

    /// Decides every fault of the exchange.
    #[arg(long, default_value_t = 7)]
    pub seed: u64,

    /// 1 replays in real time, 60 a minute a second, 0 as fast as it goes.
    #[arg(long, default_value_t = 0.0, value_parser = speed)]
    pub speed: f64,

    /// Pull the kill switch after so many events.
    #[arg(long, value_name = "N")]
    pub halt_after: Option<u64>,

    /// Print the report as one JSON object on the last line.
    #[arg(long)]
    pub json: bool,
}

/// Not for people.
#[derive(Debug, Subcommand)]
pub(crate) enum Hidden {
    /// The exchange's process; the bot starts it.
    #[command(hide = true)]
    Exchange(ServerArgs),
}

fn speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(speed) if speed == 0.0 || (0.001..=1e6).contains(&speed) => Ok(speed),
        _ => Err("must be 0, or 0.001 to 1000000".into()),
    }
}

impl Args {
    /// The file to replay.
    pub(crate) fn input(&self) -> PathBuf {
        let shipped =
            concat!(env!("CARGO_MANIFEST_DIR"), "/data/binance_spot_trades_l1_btcusdt_ethusdt_solusdt.json.gz");
        self.input.clone().unwrap_or_else(|| shipped.into())
    }
}
