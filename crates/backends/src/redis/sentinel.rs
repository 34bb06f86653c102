//! Asking sentinels for the primary, and not believing them until it says so itself.

use std::{future::pending, time::Duration};

use redis::{FromRedisValue, Value};

use super::{
    classify,
    config::RedisTopology,
    dial::{Dialer, Live, within},
    server::Expected,
};
use crate::error::BackendError;

/// How often a subscription asks whether its server is still the primary.
const ASKED_EVERY: Duration = Duration::from_secs(5);

/// A connection to the primary that the first sentinel with a true answer names.
pub(super) async fn dial(dialer: &Dialer, topology: &RedisTopology) -> Result<Live, BackendError> {
    let RedisTopology::Sentinel { sentinels, service, .. } = topology else {
        return Err(BackendError::Other { reason: "only sentinels know a primary".to_owned() });
    };
    let share = share(dialer, sentinels.len());
    let mut last = None;
    for (host, port) in sentinels {
        let found = within(share, host, *port, primary(dialer, host, *port, topology)).await;
        let dialed = match found {
            Ok((host, port)) => dialer.dial(&host, port, Expected::Primary, share).await,
            Err(error) => Err(error),
        };
        match dialed {
            Ok(live) => return Ok(live),
            Err(BackendError::ReadOnly) => {
                let reason = format!("the primary it names for {service} is a replica; a failover may be going on");
                last = Some(BackendError::Connect { target: format!("{host}:{port}"), reason });
            }
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| BackendError::Other { reason: "there are no sentinels".to_owned() }))
}

/// Ends when a sentinel names another primary than the one at `target`, and says so. One that is cut off from its sentinels goes on
/// as if nothing had happened, while everybody else is with its successor.
pub(super) async fn replaced(dialer: &Dialer, topology: &RedisTopology, target: &str) -> String {
    let RedisTopology::Sentinel { sentinels, service, .. } = topology else { return pending().await };
    let share = share(dialer, sentinels.len());
    loop {
        tokio::time::sleep(ASKED_EVERY).await;
        for (host, port) in sentinels {
            match within(share, host, *port, primary(dialer, host, *port, topology)).await {
                Ok((host, port)) if format!("{host}:{port}") == target => break,
                Ok((host, port)) => return format!("the primary of {service} is {host}:{port} now, not {target}"),
                // Who knows nothing has nothing to say against it.
                Err(_) => {}
            }
        }
    }
}

/// A silent sentinel may not take the time that the next one needs.
fn share(dialer: &Dialer, sentinels: usize) -> Duration {
    dialer.config.connect_timeout / u32::try_from(sentinels.clamp(1, 4)).unwrap_or(1)
}

/// The primary that one sentinel names.
async fn primary(
    dialer: &Dialer,
    host: &str,
    port: u16,
    topology: &RedisTopology,
) -> Result<(String, u16), BackendError> {
    let RedisTopology::Sentinel { service, username, password, .. } = topology else {
        return Err(BackendError::Other { reason: "only sentinels know a primary".to_owned() });
    };
    let line = dialer.open(host, port, username.as_deref(), password.as_ref()).await?;
    let mut cmd = redis::cmd("SENTINEL");
    cmd.arg("GET-MASTER-ADDR-BY-NAME").arg(service);
    let reply = classify::reply(&line.target, dialer.ask(&line, &cmd).await?)?;
    address(&line.target, service, reply)
}

fn address(target: &str, service: &str, reply: Value) -> Result<(String, u16), BackendError> {
    Option::<(String, u16)>::from_redis_value(reply).ok().flatten().ok_or_else(|| BackendError::Connect {
        target: target.to_owned(),
        reason: format!("this sentinel knows no primary called {service}; check the service name"),
    })
}
