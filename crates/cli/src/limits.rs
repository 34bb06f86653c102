//! Limits, and what people do about them.

use std::{path::Path, process::ExitCode, time::Duration};

use infra_factory::{
    Console,
    config::LimitsFrom,
    risk_engine::{LimitSet, Override as Leave, RiskLimits},
    types::Order,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    Failure,
    args::{EnableStrategy, Limits, Override},
    lever::told,
    show::Show,
};

/// Shows, exports or changes limits.
pub(crate) async fn limits(console: &Console, show: Show, what: &Limits) -> Result<ExitCode, Failure> {
    match what {
        Limits::Show => {
            let set = console.limits().await?;
            let body = serde_json::to_string_pretty(&set.limits)?;
            show.thing(&set, || format!("{}\n{body}", origin(&set)))?;
        }
        Limits::History { max } => {
            for set in console.limit_history(*max).await? {
                show.thing(&set, || origin(&set))?;
            }
        }
        Limits::Export { file } => {
            let set = serde_json::to_string_pretty(&console.limits().await?)?;
            match file {
                Some(file) => std::fs::write(file, set + "\n").map_err(|e| about(file, &e))?,
                None => println!("{set}"),
            }
        }
        Limits::Set { file, by, reason, version } => {
            let (limits, named) = limits_in(read(file)?).map_err(|e| about(file, &e))?;
            let base = match (version, named) {
                (Some(version), Some(named)) if *version != named => {
                    return Err(format!("the file was made of version {named}, not {version}").into());
                }
                (Some(base), _) => *base,
                (None, Some(base)) => base,
                (None, None) => return Err("say with --version which version the change was thought out on".into()),
            };
            let set = console.set_limits(base, limits, by.clone(), reason).await?;
            show.thing(&set, || origin(&set))?;
            if console.limits_from() == LimitsFrom::Config {
                eprintln!(
                    "infra: a bot that starts with risk.limits = \"config\" puts its configuration's limits back: set it to \"stored\""
                );
            }
            told(console).await;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Lets a strategy go on.
pub(crate) async fn enable(console: &Console, show: Show, what: &EnableStrategy) -> Result<ExitCode, Failure> {
    let enabled = console.enable_strategy(&what.strategy, what.by.clone(), &what.reason).await?;
    show.thing(&enabled, || {
        format!("{} may act again, after {} executions, by {}", enabled.strategy, enabled.executions, enabled.by)
    })?;
    told(console).await;
    Ok(ExitCode::SUCCESS)
}

/// Asks for or grants one order past limits.
pub(crate) async fn override_once(console: &Console, show: Show, what: &Override) -> Result<ExitCode, Failure> {
    let leave = match what {
        Override::Request { order, rules, by, reason, minutes } => {
            let of: Order = parsed(read(order)?).map_err(|e| about(order, &e))?;
            let life = Duration::from_secs(u64::from(*minutes) * 60);
            console.request_override(&of, rules.iter().cloned().collect(), by.clone(), reason, life).await?
        }
        Override::Grant { account, order, by } => console.grant_override(account, order, by.clone()).await?,
    };
    show.thing(&leave, || told_of(&leave))?;
    told(console).await;
    Ok(ExitCode::SUCCESS)
}

/// Lists what nobody looks after.
pub(crate) async fn orphans(console: &Console, show: Show) -> Result<ExitCode, Failure> {
    for orphan in console.orphans().await? {
        let (order, record) = (&orphan.record.order, &orphan.record);
        show.thing(&orphan, || {
            let mark = record.orphaned.as_ref().map(|m| format!("since {}, by {}: {}", m.since, m.by, m.why));
            let (id, bot, account, on) = (&order.id, &orphan.bot, &order.account, &order.instrument);
            let (status, filled, qty) = (record.status, record.filled, order.qty);
            format!(
                "{id} of {bot}, {account} in {on}: {status:?}, {filled} of {qty} filled; {}",
                mark.unwrap_or_default()
            )
        })?;
    }
    Ok(ExitCode::SUCCESS)
}

fn origin(set: &LimitSet) -> String {
    match set.version {
        0 => "no limits are stored; the configuration says:".to_owned(),
        version => format!("version {version}, by {} at {}: {}", set.author, set.at, set.reason),
    }
}

fn told_of(leave: &Leave) -> String {
    let rules = leave.rules.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let Leave { order, account, requested_by, expires_at, .. } = leave;
    match &leave.granted_by {
        Some(by) => format!("{by} lets order {order} of {account} past {rules} once, until {expires_at}"),
        None => format!(
            "{requested_by} asks for order {order} of {account} to pass {rules}; somebody else grants it until {expires_at}: infra override grant --account {account} --order {order} --by NAME"
        ),
    }
}

/// The limits of a file, and the version that it was made of.
fn limits_in(value: Value) -> Result<(RiskLimits, Option<u64>), Failure> {
    if value.get("limits").is_some() {
        let set: LimitSet = parsed(value)?;
        return Ok((set.limits, Some(set.version)));
    }
    Ok((parsed(value)?, None))
}

fn read(file: &Path) -> Result<Value, Failure> {
    let text = std::fs::read_to_string(file).map_err(|e| about(file, &e))?;
    serde_json::from_str(&text).map_err(|e| about(file, &e))
}

fn parsed<T: DeserializeOwned>(value: Value) -> Result<T, Failure> {
    Ok(serde_json::from_value(value)?)
}

fn about(file: &Path, what: &dyn std::fmt::Display) -> Failure {
    format!("{}: {what}", file.display()).into()
}
