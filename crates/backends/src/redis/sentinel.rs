//! Asking sentinels for the primary, and not believing them until it says so itself.

use redis::{FromRedisValue, Value};

use super::{
    classify,
    config::RedisTopology,
    dial::{Dialer, Live, within},
    server::Expected,
};
use crate::error::BackendError;

/// A connection to the primary that the first sentinel with a true answer names.
pub(super) async fn dial(dialer: &Dialer, topology: &RedisTopology) -> Result<Live, BackendError> {
    let RedisTopology::Sentinel { sentinels, service, username, password } = topology else {
        return Err(BackendError::Other { reason: "only sentinels know a primary".to_owned() });
    };
    // A silent sentinel may not take the time that the next one needs.
    let share = dialer.config.connect_timeout / u32::try_from(sentinels.len().clamp(1, 4)).unwrap_or(1);
    let mut last = None;
    for (host, port) in sentinels {
        let asked = async {
            let line = dialer.open(host, *port, username.as_deref(), password.as_ref()).await?;
            let mut cmd = redis::cmd("SENTINEL");
            cmd.arg("GET-MASTER-ADDR-BY-NAME").arg(service);
            let reply = classify::reply(&line.target, dialer.ask(&line, &cmd).await?)?;
            address(&line.target, service, reply)
        };
        let found = within(share, host, *port, asked).await;
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

fn address(target: &str, service: &str, reply: Value) -> Result<(String, u16), BackendError> {
    Option::<(String, u16)>::from_redis_value(reply).ok().flatten().ok_or_else(|| BackendError::Connect {
        target: target.to_owned(),
        reason: format!("this sentinel knows no primary called {service}; check the service name"),
    })
}
