//! Being woken by a PostgreSQL server: that it happens, and that every interruption is told.
#![cfg(feature = "postgres")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of a test end it like the test itself")]

use std::{net::SocketAddr, time::Duration};

use infra_backends::{BackendError, Pem, Postgres, PostgresConfig, PostgresListener, PostgresSignal};
use infra_testkit::{Cut, FaultProxy, PostgresServer, unique_name};
use infra_types::{Clock, SystemClock};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(30);
/// Longer than it takes to notice a silent server, with time for a busy machine.
const NOTICED: Duration = Duration::from_millis(3_900);

fn config(server: &PostgresServer, addr: SocketAddr) -> PostgresConfig {
    // A connect takes long where nothing is optimised and the machine is busy.
    PostgresConfig::from_url(&server.url()).unwrap().with_port(addr.port()).with_connect_timeout(Duration::from_secs(5))
}

async fn next(listener: &mut PostgresListener) -> PostgresSignal {
    timeout(SOON, listener.next()).await.unwrap_or_else(|_| panic!("nothing is told: {listener:?}"))
}

/// Until it listens, whatever fails before.
async fn listening(listener: &mut PostgresListener) {
    loop {
        match next(listener).await {
            PostgresSignal::Listening => return,
            PostgresSignal::Failed(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn notified(listener: &mut PostgresListener) {
    let signal = next(listener).await;
    assert!(matches!(signal, PostgresSignal::Notified), "{signal:?}");
}

async fn gap(listener: &mut PostgresListener) -> String {
    match next(listener).await {
        PostgresSignal::Gap { reason } => reason,
        other => panic!("{other:?}"),
    }
}

async fn silent(listener: &mut PostgresListener, time: Duration) {
    if let Ok(signal) = timeout(time, listener.next()).await {
        panic!("{signal:?}");
    }
}

/// Waits for what another task is about to do.
async fn eventually(done: impl Fn() -> bool) {
    let deadline = SystemClock.now() + Duration::from_secs(10);
    while !done() {
        assert!(SystemClock.now() < deadline, "it does not happen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// How many connections the server has that listen to `channel`.
fn listeners(server: &PostgresServer, channel: &str) -> usize {
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'infra-listen' AND query LIKE '%{channel}%'"
    );
    server.psql(&sql).trim().parse().unwrap()
}

#[tokio::test]
async fn it_wakes_once_what_came_while_nobody_looked() {
    let server = PostgresServer::shared();
    let (postgres, channel) = (Postgres::new(config(server, server.addr())).unwrap(), unique_name());
    let mut listener = postgres.listen(&channel).unwrap();
    assert_eq!(postgres.statistics().connects, 0, "nothing happens before the first use");
    listening(&mut listener).await;
    assert_eq!(postgres.statistics().listening, 1);
    silent(&mut listener, Duration::from_millis(300)).await;

    postgres.execute(Postgres::notify_query(&channel)).await.unwrap();
    notified(&mut listener).await;
    silent(&mut listener, Duration::from_millis(300)).await;

    // With its transaction, or not at all.
    let name = channel.clone();
    let rolled_back: Result<(), BackendError> = postgres
        .transaction(|tx| {
            Box::pin(async move {
                tx.execute(Postgres::notify_query(&name)).await?;
                Err(BackendError::Busy)
            })
        })
        .await;
    assert!(rolled_back.is_err());
    silent(&mut listener, Duration::from_millis(300)).await;

    // The whole way of the questions, and not ours.
    postgres.execute(Postgres::notify_query("another")).await.unwrap();
    silent(&mut listener, Duration::from_secs(3)).await;
    assert_eq!(postgres.statistics().gaps, 0);
}

#[tokio::test]
async fn a_name_keeps_its_letters_and_a_wrong_one_is_refused() {
    let server = PostgresServer::shared();
    let postgres = Postgres::new(config(server, server.addr())).unwrap();
    for name in ["", "a\0b", &"x".repeat(64)] {
        assert!(matches!(postgres.listen(name), Err(BackendError::InvalidConfig { .. })), "{name:?}");
    }
    let (unique, long) = (unique_name(), format!("{:x>63}", unique_name()));
    for name in [format!("{unique}-\"Quoted\"; --Ä"), long] {
        let mut listener = postgres.listen(&name).unwrap();
        listening(&mut listener).await;
        postgres.execute(Postgres::notify_query(&name)).await.unwrap();
        notified(&mut listener).await;
    }
}

#[tokio::test]
async fn a_storm_is_a_few_signals_and_leaves_nothing_on_the_server() {
    let server = PostgresServer::start();
    let (postgres, channel) = (Postgres::new(config(&server, server.addr())).unwrap(), unique_name());
    let mut listener = postgres.listen(&channel).unwrap();
    listening(&mut listener).await;
    let storm = |payloads: u32| {
        // Equal ones would be one already.
        server.psql(&format!("SELECT count(pg_notify('{channel}', i::text)) FROM generate_series(1, {payloads}) i"))
    };
    // Nobody reads meanwhile; the listener does.
    storm(100_000);
    eventually(|| server.psql("SELECT pg_notification_queue_usage() = 0").trim() == "t").await;
    let mut signals = 0;
    while let Ok(signal) = timeout(Duration::from_millis(500), listener.next()).await {
        assert!(matches!(signal, PostgresSignal::Notified), "{signal:?}");
        signals += 1;
    }
    assert!((1..=2).contains(&signals), "{signals}");
    // Read as fast as they come: less than one each, and the last one is never swallowed.
    storm(100_000);
    notified(&mut listener).await;
    while timeout(Duration::from_millis(500), listener.next()).await.is_ok() {}
    postgres.execute(Postgres::notify_query(&channel)).await.unwrap();
    notified(&mut listener).await;
    assert_eq!(postgres.statistics().gaps, 0);
}

#[tokio::test]
async fn a_restart_is_one_gap() {
    let mut server = PostgresServer::start();
    let (postgres, channel) = (Postgres::new(config(&server, server.addr())).unwrap(), unique_name());
    let mut listener = postgres.listen(&channel).unwrap();
    listening(&mut listener).await;
    for round in 1..=2 {
        server.kill();
        gap(&mut listener).await;
        assert!(matches!(next(&mut listener).await, PostgresSignal::Failed(BackendError::Connect { .. })));
        silent(&mut listener, Duration::from_secs(1)).await;
        server.restart();
        listening(&mut listener).await;
        server.psql(&format!("NOTIFY \"{channel}\""));
        notified(&mut listener).await;
        assert_eq!(postgres.statistics().gaps, round);
    }
    // One that ends our connection in words.
    server.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'infra-listen'");
    gap(&mut listener).await;
    listening(&mut listener).await;
    let statistics = postgres.statistics();
    assert!(statistics.connect_failures < 60, "attempts pause: {statistics:?}");
}

#[tokio::test]
async fn cuts_and_black_holes_are_gaps() {
    let server = PostgresServer::shared();
    let proxy = FaultProxy::start(server.addr()).await;
    let hasty = config(server, proxy.addr()).with_connect_timeout(Duration::from_secs(2));
    let (postgres, channel) = (Postgres::new(hasty).unwrap(), unique_name());
    let mut listener = postgres.listen(&channel).unwrap();
    listening(&mut listener).await;
    for how in [Cut::Fin, Cut::Reset] {
        proxy.cut_all(how);
        gap(&mut listener).await;
        listening(&mut listener).await;
        server.psql(&format!("NOTIFY \"{channel}\""));
        notified(&mut listener).await;
    }
    proxy.black_hole();
    let started = SystemClock.now();
    let reason = gap(&mut listener).await;
    let took = SystemClock.now().since(started);
    assert!(took < NOTICED, "{took:?}: {reason}");
    assert!(reason.contains("no sign of life"), "{reason}");
    assert!(matches!(next(&mut listener).await, PostgresSignal::Failed(BackendError::Connect { .. })));
    assert_eq!(postgres.statistics().listening, 0);
    proxy.pass();
    listening(&mut listener).await;
    // Noticed also while nobody asks.
    proxy.black_hole();
    tokio::time::sleep(NOTICED).await;
    assert_eq!(postgres.statistics().gaps, 4);
    proxy.pass();
    gap(&mut listener).await;
    listening(&mut listener).await;
    server.psql(&format!("NOTIFY \"{channel}\""));
    notified(&mut listener).await;
}

#[tokio::test]
async fn a_frozen_server_is_a_gap() {
    let mut server = PostgresServer::start();
    let (postgres, channel) = (Postgres::new(config(&server, server.addr())).unwrap(), unique_name());
    let mut listener = postgres.listen(&channel).unwrap();
    listening(&mut listener).await;
    server.stop_process();
    let started = SystemClock.now();
    gap(&mut listener).await;
    assert!(SystemClock.now().since(started) < NOTICED);
    server.continue_process();
    listening(&mut listener).await;
}

#[tokio::test]
async fn a_dead_connection_leaves_nothing_behind() {
    let server = PostgresServer::shared();
    let proxy = FaultProxy::start(server.addr()).await;
    let (postgres, channel) = (Postgres::new(config(server, proxy.addr())).unwrap(), unique_name());
    let mut listener = postgres.listen(&channel).unwrap();
    listening(&mut listener).await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    proxy.black_hole();
    drop(listener);
    // The task that listened is gone, and no other one waits for an answer that does not come.
    eventually(|| tasks() < before && postgres.statistics().listening == 0).await;
    proxy.pass();
    // The end of the socket gets through to the server.
    eventually(|| listeners(server, &channel) == 0).await;
}

#[tokio::test]
async fn a_wrong_password_is_told_once_and_tried_slowly() {
    let server = PostgresServer::start();
    let url = server.url_with_password("hunter2");
    let postgres = Postgres::new(PostgresConfig::from_url(&url).unwrap()).unwrap();
    let channel = unique_name();
    let mut listener = postgres.listen(&channel).unwrap();
    match next(&mut listener).await {
        PostgresSignal::Failed(error @ BackendError::Auth { .. }) => {
            assert!(!format!("{error:?} {listener:?}").contains("hunter2"));
        }
        other => panic!("{other:?}"),
    }
    silent(&mut listener, Duration::from_secs(3)).await;
    let tried = postgres.statistics().connect_failures;
    assert!((3..12).contains(&tried), "{tried} attempts");
    // Repaired on the server, without a word to us.
    server.psql(&format!("ALTER USER {} PASSWORD 'hunter2'", server.user()));
    listening(&mut listener).await;
}

#[tokio::test]
async fn dropping_and_closing_end_the_connection() {
    let server = PostgresServer::shared();
    let (postgres, channel) = (Postgres::new(config(server, server.addr())).unwrap(), unique_name());
    let mut one = postgres.listen(&channel).unwrap();
    let mut other = postgres.listen(&channel).unwrap();
    listening(&mut one).await;
    listening(&mut other).await;
    assert_eq!((listeners(server, &channel), postgres.statistics().listening), (2, 2));
    drop(one);
    eventually(|| listeners(server, &channel) == 1).await;
    postgres.close().await;
    gap(&mut other).await;
    assert!(matches!(next(&mut other).await, PostgresSignal::Failed(BackendError::Closed)));
    silent(&mut other, Duration::from_millis(300)).await;
    eventually(|| listeners(server, &channel) == 0).await;
    let mut late = postgres.listen(&channel).unwrap();
    assert!(matches!(next(&mut late).await, PostgresSignal::Failed(BackendError::Closed)));
}

#[tokio::test]
async fn over_tls() {
    let server = PostgresServer::shared_tls();
    let config = config(server, server.addr());
    let channel = unique_name();
    let stranger = config.clone().with_root_ca(Pem::text(server.certificates().other_ca_pem()));
    let mut refused = Postgres::new(stranger).unwrap().listen(&channel).unwrap();
    let signal = next(&mut refused).await;
    assert!(matches!(signal, PostgresSignal::Failed(BackendError::Tls { .. })), "{signal:?}");

    let postgres = Postgres::new(config).unwrap();
    let mut listener = postgres.listen(&channel).unwrap();
    listening(&mut listener).await;
    postgres.execute(Postgres::notify_query(&channel)).await.unwrap();
    notified(&mut listener).await;
    // Long enough for several questions over TLS.
    silent(&mut listener, Duration::from_secs(3)).await;
    let encrypted = server.psql(
        "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'infra-listen'",
    );
    assert_eq!(encrypted.trim(), "t");
}

#[test]
fn a_listener_outlives_its_runtime() {
    let server = PostgresServer::shared();
    let (postgres, channel) = (Postgres::new(config(server, server.addr())).unwrap(), unique_name());
    let mut listener = postgres.listen(&channel).unwrap();
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime().block_on(listening(&mut listener));
    runtime().block_on(async {
        gap(&mut listener).await;
        listening(&mut listener).await;
        server.psql(&format!("NOTIFY \"{channel}\""));
        notified(&mut listener).await;
    });
    // Dropped where there is no runtime at all.
    drop(listener);
}
