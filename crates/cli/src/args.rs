//! What the command understands.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use infra_factory::types::{AccountId, EventId, OrderId, Scope, StrategyId, UserId};

/// Stops trading bots, says how they stand, and lets them go on; shows and changes their limits: the kill switch in a person's hand.
#[derive(Debug, Parser)]
#[command(name = "infra", version, arg_required_else_help = true, after_help = EXAMPLES)]
pub(crate) struct Cli {
    /// Where the bots keep their ledger.
    #[command(flatten)]
    pub(crate) ledger: Ledger,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  infra --preset standalone --data-dir ./infra-data status
  infra --preset production halt --by anna --reason \"prices look wrong\"
  infra --preset production halt --scope account:main --by anna --reason \"margin call\"
  infra --preset production rearm --scope account:main --version 7 --by anna --reason \"margin paid\"

Exit codes: 0 done; 1 it could not be done; 2 the command is wrong; 3 `status --check` found a stop in force.";

/// Which ledger.
#[derive(Debug, Args)]
pub(crate) struct Ledger {
    /// What the bots run with: standalone, staging or production. The environment's variables are read on top of it.
    #[arg(long, global = true, default_value = "standalone", value_name = "PRESET")]
    pub(crate) preset: String,
    /// The bots' configuration file (TOML), if they have one.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where the bots keep their files.
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// One JSON object a line instead of text for a person.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// One lever.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Say which stops are in force.
    Status {
        /// Exit with 3 if any stop is in force, or if the store cannot confirm that none is.
        #[arg(long)]
        check: bool,
        /// How many of the newest changes are shown: 0 to 500.
        #[arg(long, default_value_t = 5, value_name = "N")]
        history: usize,
    },
    /// Let only orders pass that reduce a position, and cancels, until somebody re-arms.
    Halt(Stop),
    /// As `halt`, at the level of a warning.
    Alert(Stop),
    /// Let nothing pass but cancels, until somebody re-arms.
    Shutdown(Stop),
    /// End a stop, by a named person who has looked at it; where it takes two, ask for it.
    Rearm(Rearm),
    /// Be the second person of a re-arm that another one asked for.
    Confirm(Confirm),
    /// Print each change as it comes, until Ctrl-C.
    Watch,
    /// Show, export and change the limits that every bot decides by.
    #[command(subcommand)]
    Limits(Limits),
    /// Let a strategy that reached its number of executions act again.
    EnableStrategy(EnableStrategy),
    /// Let one order past named limits, by two persons.
    #[command(subcommand)]
    Override(Override),
    /// List the open orders of bots that died: they count until the venue says that they are over.
    Orphans,
}

/// What to do with limits.
#[derive(Debug, Subcommand)]
pub(crate) enum Limits {
    /// Show those in force: their version, who set them, when and why.
    Show,
    /// List the versions, the newest first.
    History {
        /// How many: 1 to 1,000.
        #[arg(long, default_value_t = 20, value_name = "N")]
        max: usize,
    },
    /// Write those in force as JSON, to be kept, or edited and set.
    Export {
        /// Where to; the standard output if none.
        file: Option<PathBuf>,
    },
    /// Store the limits of a file as the next version: from then on no bot decides by older ones.
    Set {
        /// JSON: what `export` wrote, edited, or the limits alone.
        file: PathBuf,
        /// Who sets them.
        #[arg(long)]
        by: UserId,
        /// Why.
        #[arg(long)]
        reason: String,
        /// The version that the change was thought out on; an exported file names it.
        #[arg(long)]
        version: Option<u64>,
    },
}

/// A strategy that may go on.
#[derive(Debug, Args)]
pub(crate) struct EnableStrategy {
    /// Which.
    pub(crate) strategy: StrategyId,
    /// Who enables it.
    #[arg(long)]
    pub(crate) by: UserId,
    /// Why it may go on.
    #[arg(long)]
    pub(crate) reason: String,
}

/// One order past limits.
#[derive(Debug, Subcommand)]
pub(crate) enum Override {
    /// Ask for it.
    Request {
        /// The order as it will be sent (JSON): it is let through as it is, or not at all.
        order: PathBuf,
        /// Which rules it may pass, by their ids, with commas between them.
        #[arg(long, value_delimiter = ',', required = true)]
        rules: Vec<String>,
        /// Who asks.
        #[arg(long)]
        by: UserId,
        /// Why.
        #[arg(long)]
        reason: String,
        /// How long it may be granted and used: 1 to 1440.
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1440))]
        minutes: u16,
    },
    /// Grant what another person asked for.
    Grant {
        /// Whose order it is.
        #[arg(long)]
        account: AccountId,
        /// Which order.
        #[arg(long)]
        order: OrderId,
        /// Who grants it: not the person who asked.
        #[arg(long)]
        by: UserId,
    },
}

/// A stop.
#[derive(Debug, Args)]
pub(crate) struct Stop {
    /// What to stop: firm, group:ID, venue:ID, account:ID, strategy:ID or instrument:VENUE/SYMBOL.
    #[arg(long, default_value = "firm")]
    pub(crate) scope: Scope,
    /// Who stops.
    #[arg(long)]
    pub(crate) by: UserId,
    /// Why.
    #[arg(long)]
    pub(crate) reason: String,
}

/// The end of a stop.
#[derive(Debug, Args)]
pub(crate) struct Rearm {
    /// What to re-arm: as for `halt`.
    #[arg(long, default_value = "firm")]
    pub(crate) scope: Scope,
    /// Who re-arms.
    #[arg(long)]
    pub(crate) by: UserId,
    /// Why it may go on.
    #[arg(long)]
    pub(crate) reason: String,
    /// The version that `status` showed: a stop that came since is not undone.
    #[arg(long)]
    pub(crate) version: u64,
}

/// The second person.
#[derive(Debug, Args)]
pub(crate) struct Confirm {
    /// What is re-armed: as in the request.
    #[arg(long, default_value = "firm")]
    pub(crate) scope: Scope,
    /// Who confirms: not the person who asked.
    #[arg(long)]
    pub(crate) by: UserId,
    /// The request, as `status` shows it.
    #[arg(long, value_name = "ID", value_parser = |text: &str| EventId::new(text))]
    pub(crate) request: EventId,
}
