//! Everything that can be wrong with a connection is said in words that help, in bounded time, without the password.
#![cfg(feature = "postgres")]

use std::{
    io::{Read, Write},
    net::TcpListener,
    num::NonZeroU32,
    process::Command,
    time::Duration,
};

use infra_backends::{BackendError, Pem, Postgres, PostgresConfig, PostgresTls};
use infra_testkit::{FaultProxy, PostgresServer, free_port};
use infra_types::{Clock, ErrorKind, HealthStatus, Secret, SystemClock};

const SECRET: &str = "hunter2-never-print";

fn config(url: &str) -> PostgresConfig {
    let config = PostgresConfig::from_url(url).expect("a good URL");
    // A connect takes long where nothing is optimised and the machine is busy.
    let patience =
        if url.contains("operation_timeout_ms") { config.operation_timeout } else { Duration::from_secs(20) };
    config.with_connect_timeout(Duration::from_secs(20)).with_operation_timeout(patience)
}

/// The error of the first use, which came in time and holds no secret.
async fn refused(config: PostgresConfig) -> BackendError {
    let limit = config.operation_timeout + Duration::from_secs(1);
    let postgres = Postgres::new(config).expect("it works");
    let clock = SystemClock;
    let started = clock.now();
    let error = postgres.execute(sqlx::query("SELECT 1")).await.expect_err("it cannot work");
    assert!(clock.now().since(started) < limit, "{error:?}");
    for text in [format!("{error}"), format!("{error:?}"), format!("{postgres:?}"), format!("{:?}", postgres.config())]
    {
        assert!(!text.contains(SECRET), "{text}");
    }
    assert_ne!(error.kind(), ErrorKind::Ambiguous, "nothing was sent: {error:?}");
    let health = postgres.health().await;
    assert_eq!(health.status, HealthStatus::Down);
    assert!(!health.detail.contains(SECRET));
    assert_eq!(postgres.statistics().open, 0);
    assert!(postgres.statistics().connect_failures + postgres.statistics().connects > 0);
    error
}

#[tokio::test]
async fn wrong_password_user_and_database() {
    let server = PostgresServer::shared();
    let error = refused(config(&server.url_with_password(SECRET))).await;
    assert!(matches!(&error, BackendError::Auth { reason, .. } if reason.contains("28P01")), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::Permanent);

    let mut nobody = config(&server.url());
    nobody.user = "nobody_here".into();
    assert!(matches!(refused(nobody).await, BackendError::Auth { .. }));

    let mut none = config(&server.url());
    none.password = None;
    assert!(matches!(refused(none).await, BackendError::Auth { .. }));

    let mut missing = config(&server.url());
    missing.database = "no_such_db".into();
    let error = refused(missing).await;
    assert!(
        matches!(&error, BackendError::InvalidConfig { what: "database", rule } if rule.contains("no_such_db")),
        "{error:?}"
    );

    let odd = config(&server.url()).with_option("no_such_setting", "1");
    assert!(matches!(refused(odd).await, BackendError::InvalidConfig { what: "options", .. }));
}

#[tokio::test]
async fn tls_that_is_not_offered_or_not_trusted() {
    for tls in [PostgresTls::Require, PostgresTls::VerifyCa, PostgresTls::VerifyFull] {
        let error = refused(config(&PostgresServer::shared().url()).with_tls(tls)).await;
        assert!(matches!(&error, BackendError::Tls { reason, .. } if reason.contains("not offer")), "{error:?}");
    }
    let server = PostgresServer::shared_tls();
    let certificates = server.certificates();
    let bare = config(&server.bare_url());
    // The server takes encrypted connections only.
    let error = refused(bare.clone().with_tls(PostgresTls::Disable)).await;
    assert!(matches!(&error, BackendError::Auth { reason, .. } if reason.contains("not encrypted")), "{error:?}");
    // Nobody vouches for it, or the wrong one does.
    for config in [
        bare.clone().with_tls(PostgresTls::VerifyFull),
        bare.clone().with_tls(PostgresTls::VerifyCa).with_root_ca(Pem::File(certificates.other_ca_file())),
        bare.clone()
            .with_tls(PostgresTls::VerifyFull)
            .with_root_ca(Pem::Text(Secret::new(certificates.other_ca_pem()))),
    ] {
        let error = refused(config).await;
        assert!(matches!(&error, BackendError::Tls { reason, .. } if reason.contains("certificate")), "{error:?}");
    }
    let missing = Pem::File("/no/such/ca.pem".into());
    let error = refused(bare.clone().with_tls(PostgresTls::VerifyFull).with_root_ca(missing)).await;
    assert!(matches!(&error, BackendError::InvalidConfig { what: "tls", .. }), "{error:?}");
    // And what works.
    let ca = Pem::Text(Secret::new(certificates.ca_pem()));
    for config in [
        config(&server.url()),
        bare.clone().with_tls(PostgresTls::VerifyFull).with_root_ca(ca),
        bare.with_tls(PostgresTls::Require),
    ] {
        let postgres = Postgres::new(config).unwrap();
        let rows =
            postgres.read(|| sqlx::query("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")).await.unwrap();
        assert!(sqlx::Row::get::<bool, _>(&rows[0], 0));
    }
}

#[tokio::test]
async fn a_certificate_for_another_host_and_a_server_that_wants_ours() {
    let server = PostgresServer::builder().tls_for("db.example").start();
    let ca = Pem::File(server.certificates().ca_file());
    let bare = config(&server.bare_url()).with_root_ca(ca);
    let error = refused(bare.clone().with_tls(PostgresTls::VerifyFull)).await;
    assert!(matches!(&error, BackendError::Tls { .. }), "{error:?}");
    Postgres::new(bare.with_tls(PostgresTls::VerifyCa)).unwrap().probe().await.unwrap();

    let server = PostgresServer::builder().tls_with_client_certificate().start();
    let certificates = server.certificates();
    let error = refused(config(&server.url())).await;
    assert!(matches!(&error, BackendError::Tls { .. } | BackendError::Auth { .. }), "{error:?}");
    let files = (Pem::File(certificates.client_file()), Pem::File(certificates.client_key_file()));
    Postgres::new(config(&server.url()).with_client_cert(files.0, files.1)).unwrap().probe().await.unwrap();
    let text = |pem: String| Pem::Text(Secret::new(pem));
    let texts = (text(certificates.client_pem()), text(certificates.client_key_pem()));
    Postgres::new(config(&server.url()).with_client_cert(texts.0, texts.1)).unwrap().probe().await.unwrap();
}

#[tokio::test]
async fn nothing_there_or_nothing_that_answers() {
    let url = |port: u16, tls: &str| {
        format!("postgres://u:{SECRET}@127.0.0.1:{port}/d?sslmode={tls}&operation_timeout_ms=300")
    };
    for tls in ["disable", "require"] {
        let error = refused(config(&url(free_port(), tls))).await;
        assert!(
            matches!(&error, BackendError::Connect { reason, .. } if reason.contains("nothing listens")),
            "{error:?}"
        );
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
    let proxy = FaultProxy::start(PostgresServer::shared().addr()).await;
    proxy.black_hole();
    for tls in ["disable", "require"] {
        let error = refused(config(&url(proxy.addr().port(), tls))).await;
        assert!(matches!(&error, BackendError::Connect { reason, .. } if reason.contains("in time")), "{error:?}");
    }
    let mut unknown = config(&url(5432, "disable"));
    unknown.host = "no-such-host.invalid".into();
    unknown.operation_timeout = Duration::from_secs(5);
    assert!(matches!(refused(unknown).await, BackendError::Connect { .. }));
}

#[tokio::test]
async fn something_else_answers_there() {
    for answer in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b"-ERR unknown command\r\n", b"R\xff\xff\xff\xff", b""] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            while let Ok((mut socket, _)) = listener.accept() {
                let _ = socket.read(&mut [0; 64]);
                let _ = socket.write_all(answer);
            }
        });
        for tls in ["disable", "require"] {
            let url = format!("postgres://u:{SECRET}@127.0.0.1:{port}/d?sslmode={tls}");
            let error = refused(config(&url)).await;
            assert!(
                matches!(&error, BackendError::Connect { reason, .. } if reason.contains("does not speak PostgreSQL")),
                "{error:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_full_a_stopping_and_a_read_only_server() {
    let server =
        PostgresServer::builder().config("max_connections", "6").config("superuser_reserved_connections", "3").start();
    let postgres = Postgres::new(config(&server.url()).with_pool_max(NonZeroU32::new(3).unwrap())).unwrap();
    while postgres.statistics().open < 3 {
        let slow = || postgres.read(|| sqlx::query("SELECT pg_sleep(0.1)"));
        futures::future::try_join_all((0..3).map(|_| slow())).await.unwrap();
    }
    let error = Postgres::new(config(&server.url())).unwrap().probe().await.unwrap_err();
    assert!(matches!(error, BackendError::Busy), "{error:?}");

    // A polite shutdown waits for the sessions that are there and takes no new one.
    assert!(Command::new("kill").args(["-TERM", &server.pid().to_string()]).status().unwrap().success());
    let late = loop {
        match Postgres::new(config(&server.url())).unwrap().probe().await {
            Err(BackendError::Busy) | Ok(_) => tokio::task::yield_now().await,
            Err(error) => break error,
        }
    };
    assert!(matches!(&late, BackendError::Connect { reason, .. } if reason.contains("57P03")), "{late:?}");
    postgres.close().await;

    let server = PostgresServer::builder().read_only().start();
    assert!(matches!(refused(config(&server.url())).await, BackendError::ReadOnly));
    let facts = Postgres::new(config(&server.url())).unwrap().server().await.unwrap();
    assert!(facts.read_only && !facts.in_recovery);
}
