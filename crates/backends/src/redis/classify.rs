//! What a server's refusal means for the caller.

use redis::{ServerError, Value};

use super::Access;
use crate::error::BackendError;

/// The server's words.
pub(super) fn words(error: &ServerError) -> String {
    match error.details() {
        Some(details) => format!("{} {details}", error.code()),
        None => error.code().to_owned(),
    }
}

/// A refusal: the server answered, so the command has not run (or, for a script that fails on its way, ended there).
pub(super) fn refusal(target: &str, error: &ServerError) -> BackendError {
    let reason = words(error);
    match error.code() {
        "LOADING" | "BUSY" | "TRYAGAIN" | "CLUSTERDOWN" | "MASTERDOWN" | "MOVED" | "ASK" | "NOSCRIPT" => {
            BackendError::Transient { reason }
        }
        "MISCONF" | "NOREPLICAS" => BackendError::Unavailable { reason },
        "OOM" => BackendError::Full,
        "READONLY" => BackendError::ReadOnly,
        "NOAUTH" | "WRONGPASS" => BackendError::Auth { target: target.to_owned(), reason },
        "NOPERM" => BackendError::Denied { reason },
        code if code.len() == 5 && code.starts_with("IN0") => BackendError::Refused {
            code: code.to_owned(),
            message: error.details().unwrap_or_default().to_owned(),
            detail: String::new(),
        },
        _ => BackendError::Other { reason },
    }
}

/// The reply, or the error that it is.
pub(super) fn reply(target: &str, value: Value) -> Result<Value, BackendError> {
    match value {
        Value::ServerError(error) => Err(refusal(target, &error)),
        value => Ok(value),
    }
}

/// No answer to something of which at least a part may have reached the server.
pub(super) fn lost(access: Access, reason: String) -> BackendError {
    match access {
        Access::Read => BackendError::Transient { reason },
        Access::Write => BackendError::Ambiguous { reason },
    }
}

#[cfg(test)]
mod tests {
    use infra_types::ErrorKind;

    use super::*;

    fn kind(line: &str) -> (BackendError, ErrorKind) {
        let value = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap();
        let error = reply("h:1", value).unwrap_err();
        let kind = error.kind();
        (error, kind)
    }

    #[test]
    fn each_refusal_says_what_to_do() {
        for (line, expected) in [
            ("LOADING Redis is loading the dataset in memory", ErrorKind::Transient),
            ("BUSY Redis is busy running a script", ErrorKind::Transient),
            ("TRYAGAIN Multiple keys request during rehashing of slot", ErrorKind::Transient),
            ("CLUSTERDOWN The cluster is down", ErrorKind::Transient),
            ("MASTERDOWN Link with MASTER is down", ErrorKind::Transient),
            ("MOVED 1 h:2", ErrorKind::Transient),
            ("OOM command not allowed when used memory > 'maxmemory'.", ErrorKind::Unavailable),
            ("READONLY You can't write against a read only replica.", ErrorKind::Unavailable),
            ("MISCONF Redis is configured to save RDB snapshots", ErrorKind::Unavailable),
            ("NOREPLICAS Not enough good replicas to write.", ErrorKind::Unavailable),
            ("NOAUTH Authentication required.", ErrorKind::Permanent),
            ("NOPERM this user has no permissions", ErrorKind::Permanent),
            ("WRONGTYPE Operation against a key", ErrorKind::Permanent),
            ("ERR unknown command", ErrorKind::Permanent),
            ("IN003 fenced", ErrorKind::Conflict),
        ] {
            let (error, found) = kind(line);
            assert_eq!(found, expected, "{line}: {error}");
        }
        assert!(
            kind("MISCONF Errors writing to the AOF file: No space left on device").0.to_string().contains("No space")
        );
        assert!(matches!(kind("OOM x").0, BackendError::Full));
        assert!(matches!(kind("READONLY x").0, BackendError::ReadOnly));
        assert!(kind("WRONGTYPE Operation against a key").0.to_string().contains("WRONGTYPE"));
    }

    #[test]
    fn a_lost_write_is_ambiguous_and_a_lost_read_is_not() {
        assert_eq!(lost(Access::Write, "cut".into()).kind(), ErrorKind::Ambiguous);
        assert_eq!(lost(Access::Read, "cut".into()).kind(), ErrorKind::Transient);
    }
}
