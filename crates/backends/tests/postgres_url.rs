//! URLs and settings: what is understood, what is refused, and that the password stays inside.
#![cfg(feature = "postgres")]

use std::{num::NonZeroU32, time::Duration};

use infra_backends::{BackendError, Pem, Postgres, PostgresConfig, PostgresTls};
use proptest::prelude::*;

#[test]
fn a_full_url() {
    let config = PostgresConfig::from_url(
        "postgresql://bot%40x:p%2Fw%3A1@db.example:6432/trades?sslmode=verify-ca&sslrootcert=/ca.pem&sslcert=/c.pem&sslkey=/k.pem\
         &options=-c%20work_mem%3D8MB%20--synchronous-commit%3Doff&schema=desk_1&pool_max=3&connect_timeout=7&operation_timeout_ms=250",
    )
    .unwrap();
    assert_eq!((config.host.as_str(), config.port, config.database.as_str()), ("db.example", 6432, "trades"));
    assert_eq!((config.user.as_str(), config.password.unwrap().expose().as_str()), ("bot@x", "p/w:1"));
    assert_eq!((config.tls, config.root_ca), (PostgresTls::VerifyCa, Some(Pem::File("/ca.pem".into()))));
    assert!(config.client_cert.is_some());
    let options = [("work_mem", "8MB"), ("synchronous_commit", "off")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    assert_eq!(config.options, options);
    assert_eq!((config.schema.as_str(), config.pool_max), ("desk_1", NonZeroU32::new(3).unwrap()));
    assert_eq!(config.connect_timeout, Duration::from_secs(7));
    assert_eq!(config.operation_timeout, Duration::from_millis(250));
}

#[test]
fn what_is_left_out_is_safe() {
    let tls = |url: &str| PostgresConfig::from_url(url).unwrap().tls;
    assert_eq!(tls("postgres://u@db.example/d"), PostgresTls::VerifyFull);
    assert_eq!(tls("postgres://u@10.0.0.7/d"), PostgresTls::VerifyFull);
    for local in ["localhost", "127.0.0.1", "[::1]", "%2Fvar%2Frun%2Fpostgresql"] {
        assert_eq!(tls(&format!("postgres://u@{local}/d")), PostgresTls::Disable, "{local}");
    }
    let config = PostgresConfig::from_url("postgres://u@[::1]/d?host=/run/pg").unwrap();
    assert_eq!((config.host.as_str(), config.port), ("/run/pg", 5432));
    assert_eq!((config.schema.as_str(), config.pool_max.get()), ("infra", 10));
}

#[test]
fn wrong_urls_are_refused_without_repeating_them() {
    let secret = "hunter2";
    for (rest, what) in [
        ("@h/d?sslmode=prefer", "sslmode"),
        ("@h/d?sslmode=verify_full", "sslmode"),
        ("@h/d?sslmod=disable", "url"),
        ("@h/d?password=x", "url"),
        ("@h/d?sslcert=/c", "sslcert"),
        ("@h/d?pool_max=0", "pool_max"),
        ("@h/d?pool_max=20000", "pool_max"),
        ("@h/d?connect_timeout=soon", "connect_timeout"),
        ("@h/d?operation_timeout_ms=0", "operation_timeout"),
        ("@h/d?options=work_mem%3D8MB", "options"),
        ("@h/d?options=-c%20a'b%3D1", "options"),
        ("@h/d?schema=Infra", "schema"),
        ("@h/d?schema=a%22%3Bdrop", "schema"),
        ("@h/d?schema=pg_mine", "schema"),
        ("@h/d?schema=1a", "schema"),
        ("@h/d?schema=a2345678901234567890123456789012", "schema"),
        ("@h/", "database"),
        ("@h/%FF", "database"),
        ("@h/d#x", "url"),
        ("@h:99999/d", "url"),
        ("@h:0/d", "port"),
        ("@/d", "url"),
    ] {
        let url = format!("postgres://u:{secret}{rest}");
        match PostgresConfig::from_url(&url) {
            Err(BackendError::InvalidConfig { what: found, rule }) => {
                assert!(found == what || (what == "url" && found == "host"), "{rest}: {found}: {rule}");
                assert!(!rule.contains(secret) && !rule.is_empty(), "{rule}");
            }
            other => panic!("{rest}: {other:?}"),
        }
    }
    for url in ["", "db.example", "mysql://u@h/d", "postgres:", "postgres://h/d"] {
        assert!(matches!(PostgresConfig::from_url(url), Err(BackendError::InvalidConfig { .. })), "{url}");
    }
}

#[test]
fn constructors_check_and_hide() {
    let config = PostgresConfig::new("db.example", "d", "u").with_password("hunter2".to_owned());
    assert!(!format!("{config:?}").contains("hunter2"));
    let key = Pem::Text("-----BEGIN PRIVATE KEY-----".to_owned().into());
    assert!(!format!("{key:?}").contains("PRIVATE"));
    let postgres = Postgres::new(config.clone()).unwrap();
    assert!(!format!("{postgres:?}").contains("hunter2"));
    for bad in [
        config.clone().with_schema("A"),
        config.clone().with_port(0),
        config.clone().with_operation_timeout(Duration::ZERO),
        config.clone().with_connect_timeout(Duration::MAX),
        config.clone().with_option("a b", "c"),
        PostgresConfig::new("", "d", "u"),
        PostgresConfig::new("h", "d", "u\0"),
    ] {
        assert!(matches!(Postgres::new(bad), Err(BackendError::InvalidConfig { .. })));
    }
}

proptest! {
    /// Any text is read or refused, and a refusal never holds the password.
    #[test]
    fn no_url_panics_or_leaks(rest in "\\PC{0,60}", query in "[a-z_=&%0-9]{0,40}") {
        let url = format!("postgres://user:hunter2secret@{rest}?{query}");
        if let Err(error) = PostgresConfig::from_url(&url) {
            let text = format!("{error} {error:?}");
            prop_assert!(!text.contains("hunter2secret"), "{}", text);
        }
    }

    /// Passwords of any characters come through.
    #[test]
    fn passwords_come_through(password in "\\PC{1,40}") {
        let encoded = percent_encoding::utf8_percent_encode(&password, percent_encoding::NON_ALPHANUMERIC);
        let config = PostgresConfig::from_url(&format!("postgres://u:{encoded}@h/d")).unwrap();
        let read = config.password.unwrap();
        prop_assert_eq!(read.expose(), &password);
    }
}
