//! Opening one connection, and saying what is wrong when that fails.

use std::{io, time::Duration};

use sqlx::{
    ConnectOptions, Connection, PgConnection,
    postgres::{PgConnectOptions, PgDatabaseError, PgSslMode},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    classify,
    config::{PostgresConfig, PostgresTls},
    server::PostgresServer,
};
use crate::{error::BackendError, pem::Pem};

/// What the driver is told for each connection.
pub(super) fn options(config: &PostgresConfig) -> PgConnectOptions {
    let ms = |d: Duration| d.as_millis().max(1).to_string();
    // A little under the operation's own time: the server's definite "cancelled" arrives before we have to give up and
    // not know; and a statement whose caller is gone ends on the server too.
    let statement = config.operation_timeout * 9 / 10;
    let own = [
        ("statement_timeout", ms(statement)),
        ("lock_timeout", ms(config.operation_timeout * 8 / 10)),
        ("idle_in_transaction_session_timeout", ms(config.operation_timeout * 2)),
        // `pg_temp` last: otherwise a temporary table could stand in for one of ours.
        ("search_path", format!("{},pg_temp", config.schema)),
        ("default_transaction_isolation", "read committed".into()),
        // Plans are kept, in connections and functions: one that was made while a table was small would read the whole of it
        // long after it has grown. Every statement here has its index; one without can still read it all.
        ("enable_seqscan", "off".into()),
    ];
    let theirs = config.options.iter().map(|(name, value)| (name.as_str(), value.clone()));
    // The server takes the last of two equal names.
    let all = theirs.chain(own);
    let mode = match config.tls {
        PostgresTls::Disable => PgSslMode::Disable,
        PostgresTls::Require => PgSslMode::Require,
        PostgresTls::VerifyCa => PgSslMode::VerifyCa,
        PostgresTls::VerifyFull => PgSslMode::VerifyFull,
    };
    let mut options = PgConnectOptions::new_without_pgpass()
        .host(&config.host)
        .port(config.port)
        .database(&config.database)
        .username(&config.user)
        // Empty rather than unset: the driver would look for PGPASSWORD.
        .password(config.password.as_ref().map_or("", |p| p.expose()))
        .ssl_mode(mode)
        .application_name("infra")
        .statement_cache_capacity(256)
        .options(all)
        .disable_statement_logging();
    options = match &config.root_ca {
        Some(Pem::File(path)) => options.ssl_root_cert(path),
        Some(Pem::Text(pem)) => options.ssl_root_cert_from_pem(pem.expose().clone().into_bytes()),
        None => options,
    };
    if let Some((cert, key)) = &config.client_cert {
        options = match cert {
            Pem::File(path) => options.ssl_client_cert(path),
            Pem::Text(pem) => options.ssl_client_cert_from_pem(pem.expose()),
        };
        options = match key {
            Pem::File(path) => options.ssl_client_key(path),
            Pem::Text(pem) => options.ssl_client_key_from_pem(pem.expose()),
        };
    }
    options
}

/// Opens a connection and asks what the server is; the caller bounds the time.
pub(super) async fn dial(
    config: &PostgresConfig,
    options: &PgConnectOptions,
    sniff: bool,
) -> Result<(PgConnection, PostgresServer), BackendError> {
    if sniff && config.tls == PostgresTls::Disable && !config.host.starts_with('/') {
        is_postgres(config).await?;
    }
    let failed = |e: sqlx::Error| explain(config, &e);
    let mut conn = PgConnection::connect_with(options).await.map_err(failed)?;
    let server = PostgresServer::read(&mut conn).await.map_err(failed)?;
    Ok((conn, server))
}

/// Asks for TLS the way PostgreSQL does and looks at the one byte that answers. Without it another kind of server would be
/// taken at its word by the driver, which reads its first bytes as a message of a gigabyte.
async fn is_postgres(config: &PostgresConfig) -> Result<(), BackendError> {
    const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
    let talk = async {
        let mut socket = tokio::net::TcpStream::connect((config.host.as_str(), config.port)).await?;
        socket.write_all(&SSL_REQUEST).await?;
        socket.read_u8().await
    };
    match talk.await {
        // `E`: a server that is full or shutting down may answer with an error at once.
        Ok(b'S' | b'N' | b'E') => Ok(()),
        Ok(_) => Err(not_postgres(config, "its first byte is wrong")),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Err(not_postgres(config, "it hangs up")),
        Err(e) => Err(explain(config, &sqlx::Error::Io(e))),
    }
}

fn not_postgres(config: &PostgresConfig, why: &str) -> BackendError {
    let reason = format!("what answers there does not speak PostgreSQL ({why}): check host and port");
    BackendError::Connect { target: config.target(), reason }
}

/// What a failed connect means.
pub(super) fn explain(config: &PostgresConfig, e: &sqlx::Error) -> BackendError {
    let target = config.target();
    let tls_on = config.tls != PostgresTls::Disable;
    match e {
        sqlx::Error::Database(d) => match d.try_downcast_ref::<PgDatabaseError>() {
            Some(d) => login(config, d),
            None => BackendError::Connect { target, reason: d.to_string() },
        },
        // rustls reports what it dislikes as invalid data.
        sqlx::Error::Io(e) if tls_on && e.kind() == io::ErrorKind::InvalidData => BackendError::Tls {
            target,
            reason: format!("{e}; check the server's certificate, the authority you trust and the host name"),
        },
        sqlx::Error::Io(e)
            if tls_on
                && matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
                && !config.host.starts_with('/') =>
        {
            let rule = format!("a file for TLS cannot be read ({e}): check the paths of certificates and key");
            BackendError::InvalidConfig { what: "tls", rule }
        }
        sqlx::Error::Io(e) if e.kind() == io::ErrorKind::ConnectionRefused => BackendError::Connect {
            target,
            reason: "nothing listens there: start the server or check host and port".into(),
        },
        sqlx::Error::Io(e) => BackendError::Connect { target, reason: classify::io_words(e) },
        sqlx::Error::Tls(e) if e.to_string().contains("does not support TLS") => {
            let reason =
                "the server does not offer it: switch `ssl` on there, or say sslmode=disable if the way is safe";
            BackendError::Tls { target, reason: reason.into() }
        }
        sqlx::Error::Tls(e) => BackendError::Tls { target, reason: e.to_string() },
        sqlx::Error::Configuration(e) => BackendError::InvalidConfig { what: "tls", rule: e.to_string() },
        sqlx::Error::Protocol(words) => not_postgres(config, words),
        other => BackendError::Connect { target, reason: other.to_string() },
    }
}

/// The server took the call and said no.
fn login(config: &PostgresConfig, d: &PgDatabaseError) -> BackendError {
    let target = config.target();
    let reason = classify::words(d);
    match d.code() {
        "28000" if config.tls == PostgresTls::Disable => {
            let reason = format!("{reason}; this connection is not encrypted, which the server may ask for");
            BackendError::Auth { target, reason }
        }
        code if code.starts_with("28") => BackendError::Auth { target, reason },
        "3D000" => {
            let rule = format!("`{}` does not exist at {target}: create it or name another", config.database);
            BackendError::InvalidConfig { what: "database", rule }
        }
        "53300" => BackendError::Busy,
        "42501" => BackendError::Denied { reason },
        "57P03" | "57P01" | "57P02" => {
            let reason = format!("{reason}: it is starting or stopping; wait for it");
            BackendError::Connect { target, reason }
        }
        "22023" | "42704" | "22P02" => {
            BackendError::InvalidConfig { what: "options", rule: format!("{reason}: correct or remove this setting") }
        }
        _ => BackendError::Connect { target, reason },
    }
}
