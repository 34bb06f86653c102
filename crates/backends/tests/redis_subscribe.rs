//! Listening to a Redis channel: order, and that every interruption is told once.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of a test end it like the test itself")]

use std::{
    io::{Read, Write},
    net::SocketAddr,
    time::Duration,
};

use infra_backends::{BackendError, Pem, Redis, RedisConfig, RedisMessage, RedisSubscription, RedisTls, RedisTopology};
use infra_testkit::{Cut, Direction, FaultProxy, RedisCluster, RedisSentinel, RedisServer};
use infra_types::{Clock, Secret, SystemClock};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(20);

fn at(addr: SocketAddr) -> RedisConfig {
    RedisConfig::new(RedisTopology::standalone(addr.ip().to_string(), addr.port()))
        .with_connect_timeout(Duration::from_secs(1))
        .with_operation_timeout(Duration::from_millis(400))
}

fn hosts(addrs: &[SocketAddr]) -> Vec<(String, u16)> {
    addrs.iter().map(|addr| (addr.ip().to_string(), addr.port())).collect()
}

async fn next(subscription: &mut RedisSubscription) -> RedisMessage {
    timeout(SOON, subscription.next()).await.unwrap_or_else(|_| panic!("nothing is told: {subscription:?}"))
}

/// Until it listens, whatever fails before; how many failures were told.
async fn listening(subscription: &mut RedisSubscription) -> usize {
    let mut failures = 0;
    loop {
        match next(subscription).await {
            RedisMessage::Subscribed => return failures,
            RedisMessage::Failed(_) => failures += 1,
            other => panic!("{other:?}"),
        }
    }
}

async fn message(subscription: &mut RedisSubscription) -> String {
    match next(subscription).await {
        RedisMessage::Message(bytes) => String::from_utf8(bytes).unwrap(),
        other => panic!("{other:?}"),
    }
}

async fn gap(subscription: &mut RedisSubscription) -> String {
    match next(subscription).await {
        RedisMessage::Gap { reason } => reason,
        other => panic!("{other:?}"),
    }
}

/// Waits for what another task is about to do.
async fn eventually(done: impl Fn() -> bool) {
    let deadline = SystemClock.now() + Duration::from_secs(10);
    while !done() {
        assert!(SystemClock.now() < deadline, "it does not happen");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn listeners(server: &RedisServer) -> usize {
    server.cli(&["CLIENT", "LIST"]).text().matches("name=infra-listen").count()
}

#[tokio::test]
async fn messages_come_in_order_and_whole() {
    let server = RedisServer::start();
    let redis = Redis::new(at(server.addr())).unwrap();
    let mut subscription = redis.subscribe(b"c");
    assert_eq!(redis.statistics().connects, 0, "nothing happens before the first use");
    assert!(format!("{subscription:?}").contains("waiting"));
    assert_eq!(listening(&mut subscription).await, 0);
    redis.publish(b"other", ["not ours"]).await.unwrap();
    for batch in 0..100 {
        redis.publish(b"c", (0..100).map(|n| (batch * 100 + n).to_string())).await.unwrap();
    }
    for n in 0..10_000 {
        assert_eq!(message(&mut subscription).await, n.to_string());
    }
    // Any bytes, none, and more than is read at once.
    let long: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let odd: [&[u8]; 4] = [b"", b"\r\n$1\r\n", &(0..=255).collect::<Vec<u8>>(), &long];
    redis.publish(b"c", odd).await.unwrap();
    for expected in odd {
        match next(&mut subscription).await {
            RedisMessage::Message(bytes) => assert!(bytes == expected, "{} bytes", bytes.len()),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(redis.statistics().gaps, 0);
}

#[tokio::test]
async fn silence_is_no_gap_and_a_dropped_wait_loses_nothing() {
    let server = RedisServer::start();
    let redis = Redis::new(at(server.addr())).unwrap();
    let mut subscription = redis.subscribe(b"c");
    // Waits that are given up all the time: connecting goes on, and the server is asked how it is.
    let (mut told, mut silent) = (Vec::new(), 0);
    while silent < 400 {
        match timeout(Duration::from_millis(10), subscription.next()).await {
            Ok(message) => told.push(message),
            Err(_) => silent += 1,
        }
        if silent == 300 && told.len() == 1 {
            redis.publish(b"c", (0..50).map(|n| n.to_string())).await.unwrap();
        }
    }
    assert!(matches!(told.first(), Some(RedisMessage::Subscribed)), "{told:?}");
    let texts = told.iter().skip(1).map(|message| match message {
        RedisMessage::Message(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => panic!("{other:?}"),
    });
    assert_eq!(texts.collect::<Vec<_>>(), (0..50).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_restart_is_one_gap() {
    let mut server = RedisServer::start();
    let redis = Redis::new(at(server.addr())).unwrap();
    let mut subscription = redis.subscribe(b"c");
    listening(&mut subscription).await;
    for round in 1..=3 {
        redis.publish(b"c", ["before"]).await.unwrap();
        assert_eq!(message(&mut subscription).await, "before");
        server.kill();
        let reason = gap(&mut subscription).await;
        assert!(reason.contains(&server.port().to_string()), "{reason}");
        // While it is down: told, but not over and over.
        assert!(matches!(next(&mut subscription).await, RedisMessage::Failed(BackendError::Connect { .. })));
        assert!(timeout(Duration::from_secs(1), subscription.next()).await.is_err());
        server.restart();
        listening(&mut subscription).await;
        redis.connect().await.unwrap();
        assert_eq!(server.cli(&["PUBLISH", "c", "after"]).text(), "1");
        assert_eq!(message(&mut subscription).await, "after");
        assert_eq!(redis.statistics().gaps, round);
    }
    assert!(redis.statistics().connect_failures < 60, "{:?}", redis.statistics());
}

#[tokio::test]
async fn a_cut_is_a_gap_after_what_came_whole() {
    let server = RedisServer::start();
    let proxy = FaultProxy::start(server.addr()).await;
    let mut subscription = Redis::new(at(proxy.addr())).unwrap().subscribe(b"c");
    listening(&mut subscription).await;
    // A push is 32 bytes here: the second one is cut in all its parts. Each time the pause is longer, up to two seconds.
    for bytes in (32..64).step_by(6) {
        proxy.cut_after(Direction::ToClient, bytes, Cut::Fin);
        server.cli(&["EVAL", "redis.call('PUBLISH', 'c', 'm1') redis.call('PUBLISH', 'c', 'm2')", "0"]);
        assert_eq!(message(&mut subscription).await, "m1");
        gap(&mut subscription).await;
        proxy.pass();
        listening(&mut subscription).await;
    }
    proxy.cut_all(Cut::Reset);
    gap(&mut subscription).await;
    listening(&mut subscription).await;
    server.cli(&["PUBLISH", "c", "after"]);
    assert_eq!(message(&mut subscription).await, "after");
}

#[tokio::test]
async fn a_black_hole_is_a_gap_within_three_seconds() {
    let server = RedisServer::start();
    let proxy = FaultProxy::start(server.addr()).await;
    let redis = Redis::new(at(proxy.addr())).unwrap();
    let mut subscription = redis.subscribe(b"c");
    listening(&mut subscription).await;
    for _ in 0..2 {
        proxy.black_hole();
        let started = SystemClock.now();
        let reason = gap(&mut subscription).await;
        let took = SystemClock.now().since(started);
        assert!(took < Duration::from_millis(3_500), "{took:?}: {reason}");
        assert!(reason.contains("no sign of life"), "{reason}");
        assert!(matches!(next(&mut subscription).await, RedisMessage::Failed(_)));
        proxy.pass();
        // The shared connection had died in the same silence.
        listening(&mut subscription).await;
        redis.publish(b"c", ["after"]).await.unwrap();
        assert_eq!(message(&mut subscription).await, "after");
    }
}

#[tokio::test]
async fn a_frozen_server_is_a_gap() {
    let mut server = RedisServer::start();
    let mut subscription = Redis::new(at(server.addr())).unwrap().subscribe(b"c");
    listening(&mut subscription).await;
    server.stop_process();
    let started = SystemClock.now();
    gap(&mut subscription).await;
    assert!(SystemClock.now().since(started) < Duration::from_millis(3_500));
    server.continue_process();
    listening(&mut subscription).await;
    server.cli(&["PUBLISH", "c", "after"]);
    assert_eq!(message(&mut subscription).await, "after");
}

#[tokio::test]
async fn a_slow_reader_is_cut_by_the_server_and_told() {
    let server = RedisServer::builder().config("client-output-buffer-limit", "pubsub 2mb 1mb 5").start();
    let redis = Redis::new(at(server.addr())).unwrap();
    let mut subscription = redis.subscribe(b"c");
    listening(&mut subscription).await;
    let sent = 2_000;
    for n in 0..sent {
        let mut message = vec![b'.'; 20_000];
        message.splice(..5, format!("{n:05}").into_bytes());
        redis.publish(b"c", [message]).await.unwrap();
    }
    eventually(|| listeners(&server) == 0).await;
    // What was on its way comes, in order and without a hole, and then the gap.
    let mut came = 0;
    loop {
        match next(&mut subscription).await {
            RedisMessage::Message(bytes) => assert_eq!(&bytes[..5], format!("{came:05}").as_bytes()),
            RedisMessage::Gap { .. } => break,
            other => panic!("{other:?}"),
        }
        came += 1;
    }
    assert!(came < sent, "nothing was lost");
    listening(&mut subscription).await;
    redis.publish(b"c", ["after"]).await.unwrap();
    assert_eq!(message(&mut subscription).await, "after");
}

#[tokio::test]
async fn too_long_a_message_is_a_gap() {
    let server = RedisServer::start();
    let redis = Redis::new(at(server.addr()).with_operation_timeout(Duration::from_secs(5))).unwrap();
    let mut subscription = redis.subscribe(b"c");
    listening(&mut subscription).await;
    redis.publish(b"c", [vec![0; 17 << 20]]).await.unwrap();
    let reason = gap(&mut subscription).await;
    assert!(reason.contains("longer than"), "{reason}");
    listening(&mut subscription).await;
}

#[tokio::test]
async fn a_wrong_password_is_told_once_and_tried_slowly() {
    let server = RedisServer::builder().password("right").start();
    let redis = Redis::new(at(server.addr()).with_password(Secret::new("hunter2".into()))).unwrap();
    let mut subscription = redis.subscribe(b"c");
    match next(&mut subscription).await {
        RedisMessage::Failed(error @ BackendError::Auth { .. }) => {
            assert!(!format!("{error:?} {subscription:?}").contains("hunter2"));
        }
        other => panic!("{other:?}"),
    }
    assert!(timeout(Duration::from_secs(3), subscription.next()).await.is_err(), "told once");
    let tried = redis.statistics().connect_failures;
    assert!((3..12).contains(&tried), "{tried} attempts");
    // Repaired on the server, without a word to us.
    server.cli(&["CONFIG", "SET", "requirepass", "hunter2"]);
    assert_eq!(listening(&mut subscription).await, 0);
}

#[tokio::test]
async fn rights_that_lack_are_named_and_those_that_help_are_no_must() {
    let server = RedisServer::builder()
        .config("user", "deaf on >pw ~* +@all resetchannels &other")
        .config("user", "mute on >pw ~* &* +@all -role -client")
        .start();
    let user = |name: &str| at(server.addr()).with_username(name).with_password(Secret::new("pw".into()));
    let mut deaf = Redis::new(user("deaf")).unwrap().subscribe(b"c");
    match next(&mut deaf).await {
        RedisMessage::Failed(BackendError::Denied { reason }) => assert!(reason.contains("channel"), "{reason}"),
        other => panic!("{other:?}"),
    }
    let mut mute = Redis::new(user("mute")).unwrap().subscribe(b"c");
    listening(&mut mute).await;
    assert!(timeout(Duration::from_secs(4), mute.next()).await.is_err(), "a ping will do");
    // The right is taken away while it listens.
    server.cli(&["ACL", "SETUSER", "mute", "resetchannels"]);
    gap(&mut mute).await;
    assert!(matches!(next(&mut mute).await, RedisMessage::Failed(BackendError::Denied { .. })));
}

#[tokio::test]
async fn dropping_and_closing_end_the_connection() {
    let server = RedisServer::start();
    let redis = Redis::new(at(server.addr())).unwrap();
    let mut one = redis.subscribe(b"c");
    let mut other = redis.subscribe(b"c");
    listening(&mut one).await;
    listening(&mut other).await;
    assert_eq!((listeners(&server), redis.statistics().connections), (2, 3));
    drop(one);
    eventually(|| listeners(&server) == 1).await;
    redis.close();
    gap(&mut other).await;
    eventually(|| listeners(&server) == 0).await;
    assert!(matches!(next(&mut other).await, RedisMessage::Failed(BackendError::Closed)));
    assert!(timeout(Duration::from_millis(300), other.next()).await.is_err(), "and nothing more");
    assert!(matches!(next(&mut redis.subscribe(b"c")).await, RedisMessage::Failed(BackendError::Closed)));
    eventually(|| redis.statistics().connections == 0).await;
}

#[tokio::test]
async fn over_tls() {
    let mut server = RedisServer::builder().tls().password("pw").start();
    let tls = RedisTls::default().with_ca(Pem::text(server.certificates().ca_pem()));
    let redis = Redis::new(at(server.addr()).with_tls(tls).with_password(Secret::new("pw".into()))).unwrap();
    let mut subscription = redis.subscribe(b"c");
    listening(&mut subscription).await;
    let long = "x".repeat(100_000);
    redis.publish(b"c", ["short", &long]).await.unwrap();
    assert_eq!(message(&mut subscription).await, "short");
    assert_eq!(message(&mut subscription).await, long);
    // Long enough for several questions over TLS.
    assert!(timeout(Duration::from_secs(4), subscription.next()).await.is_err());
    server.restart();
    gap(&mut subscription).await;
    listening(&mut subscription).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_lead_to_the_next_primary() {
    let mut servers = RedisSentinel::start();
    let topology = RedisTopology::sentinel(hosts(&servers.sentinels()), servers.service());
    let redis = Redis::new(RedisConfig::new(topology)).unwrap();
    let mut subscription = redis.subscribe(b"c");
    listening(&mut subscription).await;
    let old = servers.kill_master();
    gap(&mut subscription).await;
    let new = servers.wait_for_new_master(old);
    listening(&mut subscription).await;
    assert_eq!(listeners(&servers.servers()[new]), 1);
    redis.publish(b"c", ["after"]).await.unwrap();
    assert_eq!(message(&mut subscription).await, "after");
    assert_eq!(redis.statistics().gaps, 1);

    // A primary that becomes a replica without ending its connections.
    let demoted = &servers.servers()[new];
    demoted.cli(&["REPLICAOF", "127.0.0.1", "1"]);
    let reason = gap(&mut subscription).await;
    assert!(reason.contains("read-only"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_was_replaced_and_does_not_know_is_left() {
    let servers = RedisSentinel::start();
    let topology = RedisTopology::sentinel(hosts(&servers.sentinels()), servers.service());
    let redis = Redis::new(RedisConfig::new(topology)).unwrap();
    let mut subscription = redis.subscribe(b"c");
    listening(&mut subscription).await;
    assert!(timeout(Duration::from_secs(6), subscription.next()).await.is_err(), "the right one is kept");
    // As after a partition: the old one runs on and answers us, while the sentinels are with another one.
    let other = RedisServer::start();
    for sentinel in servers.sentinels() {
        let mut asked = std::net::TcpStream::connect(sentinel).unwrap();
        let orders =
            format!("SENTINEL REMOVE {0}\r\nSENTINEL MONITOR {0} 127.0.0.1 {1} 2\r\n", servers.service(), other.port());
        asked.write_all(orders.as_bytes()).unwrap();
        let mut answers = [0; 10];
        asked.read_exact(&mut answers).unwrap();
        assert_eq!(&answers, b"+OK\r\n+OK\r\n");
    }
    let reason = gap(&mut subscription).await;
    assert!(reason.contains(&other.port().to_string()), "{reason}");
    listening(&mut subscription).await;
    redis.publish(b"c", ["after"]).await.unwrap();
    assert_eq!(message(&mut subscription).await, "after");
    assert_eq!(listeners(&other), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lost_its_cluster_is_a_gap() {
    let mut servers = RedisCluster::start();
    let redis = Redis::new(RedisConfig::new(RedisTopology::cluster(hosts(&servers.seeds())))).unwrap();
    let mut subscription = redis.subscribe(b"c");
    listening(&mut subscription).await;
    let owner = servers.master_of(servers.slot_of("c")).unwrap();
    let others: Vec<usize> = (0..servers.nodes().len()).filter(|node| *node != owner).collect();
    for node in others {
        servers.nodes_mut()[node].kill();
    }
    let reason = gap(&mut subscription).await;
    assert!(reason.contains("cut off"), "{reason}");
    let signal = next(&mut subscription).await;
    assert!(matches!(signal, RedisMessage::Failed(BackendError::Transient { .. })), "{signal:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_heard_from_every_node() {
    let mut servers = RedisCluster::start();
    let redis = Redis::new(RedisConfig::new(RedisTopology::cluster(hosts(&servers.seeds())))).unwrap();
    let mut subscription = redis.subscribe(b"c");
    listening(&mut subscription).await;
    let slot = servers.slot_of("c");
    let owner = servers.master_of(slot).unwrap();
    assert_eq!(listeners(&servers.nodes()[owner]), 1);
    redis.publish(b"c", (0..100).map(|n| n.to_string())).await.unwrap();
    for n in 0..100 {
        assert_eq!(message(&mut subscription).await, n.to_string());
    }
    for node in servers.nodes() {
        node.cli(&["PUBLISH", "c", "through the bus"]);
        assert_eq!(message(&mut subscription).await, "through the bus");
    }
    // The slot moves away: still heard, for all nodes hear of all.
    servers.move_slot(slot);
    redis.publish(b"c", ["moved"]).await.unwrap();
    assert_eq!(message(&mut subscription).await, "moved");

    servers.nodes_mut()[owner].kill();
    gap(&mut subscription).await;
    listening(&mut subscription).await;
    let moved = servers.master_of(slot).unwrap();
    assert_ne!(owner, moved);
    redis.publish(b"c", ["after"]).await.unwrap();
    assert_eq!(message(&mut subscription).await, "after");
}
