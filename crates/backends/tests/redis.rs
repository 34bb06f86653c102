//! A Redis handle over one server: what works, what a fault of the network or the server means, and that nothing is sent twice.

use std::{num::NonZeroUsize, time::Duration};

use infra_backends::{Access, BackendError, Fsync, Redis, RedisConfig, RedisScript, RedisTopology};
use infra_testkit::{Cut, Direction, FaultProxy, RedisServer, Reply};
use infra_types::{Clock, ErrorKind, HealthStatus, SystemClock};
use redis::{Cmd, Value, cmd};

fn at(addr: std::net::SocketAddr) -> RedisConfig {
    RedisConfig::new(RedisTopology::standalone(addr.ip().to_string(), addr.port()))
        .with_connect_timeout(Duration::from_secs(3))
        .with_operation_timeout(Duration::from_millis(400))
}

fn incr(key: &str) -> Cmd {
    let mut incr = cmd("INCR");
    incr.arg(key);
    incr
}

async fn add(redis: &Redis, key: &str) -> Result<Value, BackendError> {
    redis.query(key.as_bytes(), &incr(key), Access::Write).await
}

async fn read(redis: &Redis, key: &str) -> Result<Value, BackendError> {
    let mut get = cmd("GET");
    get.arg(key);
    redis.query(key.as_bytes(), &get, Access::Read).await
}

#[tokio::test]
async fn commands_scripts_and_pipelines() {
    let server = RedisServer::start();
    let redis = Redis::new(at(server.addr()).with_db(3).with_key_prefix("p:")).unwrap();
    assert_eq!(redis.server(), None);
    assert_eq!(redis.statistics().connects, 0, "nothing happens before the first use");
    assert_eq!(add(&redis, "n").await.unwrap(), Value::Int(1));
    let known = redis.server().unwrap();
    assert!(known.version.as_ref().unwrap().starts_with("7."));
    assert_eq!((known.fsync, known.cluster), (Some(Fsync::Always), false));
    assert_eq!((redis.key_prefix(), redis.is_cluster()), ("p:", false));

    let script = RedisScript::new("return redis.call('INCRBY', KEYS[1], ARGV[1])");
    let mut call = script.call(1);
    call.arg("n").arg(5);
    for expected in [6, 11] {
        assert_eq!(redis.script(b"n", &script, &call, Access::Write).await.unwrap(), Value::Int(expected));
    }
    assert_eq!(redis.statistics().script_loads, 1, "known from then on");
    server.cli(&["SCRIPT", "FLUSH"]);
    assert_eq!(redis.script(b"n", &script, &call, Access::Write).await.unwrap(), Value::Int(16));

    let no = RedisScript::new("return redis.error_reply('IN003 fenced by ' .. ARGV[1])");
    let mut call = no.call(0);
    call.arg(7);
    match redis.script(b"n", &no, &call, Access::Write).await {
        Err(BackendError::Refused { code, message, .. }) => assert_eq!((&*code, &*message), ("IN003", "fenced by 7")),
        other => panic!("{other:?}"),
    }

    let mut pipeline = redis::pipe();
    pipeline.add_command(incr("n")).cmd("LPUSH").arg("n").arg("x").add_command(incr("n"));
    let replies = redis.pipeline(b"n", &pipeline, Access::Write).await.unwrap();
    assert_eq!(replies[0].as_ref().unwrap(), &Value::Int(17));
    assert!(replies[1].as_ref().unwrap_err().to_string().contains("WRONGTYPE"));
    assert_eq!(replies[2].as_ref().unwrap(), &Value::Int(18));
    let mut atomic = redis::pipe();
    atomic.atomic().add_command(incr("n")).add_command(incr("n"));
    let replies = redis.pipeline(b"n", &atomic, Access::Write).await.unwrap();
    assert_eq!(replies.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [Value::Int(19), Value::Int(20)]);
    let mut wrong = redis::pipe();
    wrong.atomic().add_command(incr("n")).cmd("NO-SUCH-COMMAND");
    assert_eq!(redis.pipeline(b"n", &wrong, Access::Write).await.unwrap_err().kind(), ErrorKind::Permanent);
    assert!(redis.pipeline(b"n", &redis::pipe(), Access::Read).await.unwrap().is_empty());
    // A value with any bytes, and the database that was chosen.
    let bytes: Vec<u8> = (0..=255).collect();
    let mut set = cmd("SET");
    set.arg("b").arg(&bytes);
    redis.query(b"b", &set, Access::Write).await.unwrap();
    assert_eq!(read(&redis, "b").await.unwrap(), Value::BulkString(bytes));
    assert_eq!(server.cli(&["DBSIZE"]).text(), "0", "database 0 stays empty");
    assert!(server.cli(&["CLIENT", "LIST"]).text().contains("name=infra"));
}

#[tokio::test]
async fn health_and_close() {
    let server = RedisServer::start();
    let redis = Redis::new(at(server.addr()).with_connections(NonZeroUsize::new(3).unwrap())).unwrap();
    let health = redis.health().await;
    assert_eq!(health.status, HealthStatus::Up);
    assert!(health.probe.unwrap() > Duration::ZERO);
    for _ in 0..9 {
        add(&redis, "n").await.unwrap();
    }
    assert_eq!(redis.statistics().connections, 3);
    let clone = redis.clone();
    redis.close();
    redis.close();
    assert!(matches!(add(&clone, "n").await, Err(BackendError::Closed)));
    assert!(matches!(clone.connect().await, Err(BackendError::Closed)));
    assert_eq!(clone.health().await.status, HealthStatus::Down);
    eventually(|| clone.statistics().connections == 0).await;
    assert_eq!(server.cli(&["GET", "n"]).text(), "9");
}

#[tokio::test]
async fn closing_waits_for_answers_that_are_on_their_way() {
    let server = RedisServer::start();
    let proxy = FaultProxy::start(server.addr()).await;
    let redis = Redis::new(at(proxy.addr())).unwrap();
    redis.connect().await.unwrap();
    proxy.delay(Direction::ToClient, Duration::from_millis(100));
    let waiting = redis.clone();
    let waiting = tokio::spawn(async move { add(&waiting, "n").await });
    eventually(|| server.cli(&["GET", "n"]).text() == "1").await;
    redis.close();
    assert_eq!(waiting.await.unwrap().unwrap(), Value::Int(1));
}

/// Waits for what another task is about to do.
async fn eventually(done: impl Fn() -> bool) {
    let deadline = SystemClock.now() + Duration::from_secs(10);
    while !done() {
        assert!(SystemClock.now() < deadline, "it does not happen");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_restart_between_operations_goes_unnoticed() {
    let mut server = RedisServer::start();
    let redis = Redis::new(at(server.addr())).unwrap();
    for round in 1..=3 {
        assert_eq!(add(&redis, "n").await.unwrap(), Value::Int(round));
        server.restart();
        // The end of the old connection is seen by its driver; until then the handle cannot know.
        eventually(|| redis.statistics().connections == 0).await;
    }
    assert_eq!(add(&redis, "n").await.unwrap(), Value::Int(4));
    let statistics = redis.statistics();
    assert_eq!((statistics.connects, statistics.reconnects, statistics.failovers), (4, 3, 3));
}

#[tokio::test]
async fn a_server_that_is_down_is_a_clean_not_sent_and_comes_back() {
    let mut server = RedisServer::start();
    let redis = Redis::new(at(server.addr())).unwrap();
    add(&redis, "n").await.unwrap();
    server.kill();
    eventually(|| redis.statistics().connections == 0).await;
    let started = SystemClock.now();
    for _ in 0..200 {
        let error = add(&redis, "n").await.unwrap_err();
        assert!(matches!(error, BackendError::Connect { .. }), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
    assert!(SystemClock.now().since(started) < Duration::from_secs(2));
    assert!(redis.statistics().connect_failures < 20, "attempts pause: {:?}", redis.statistics());
    assert_eq!(redis.health().await.status, HealthStatus::Down);
    server.restart();
    let mut answer = add(&redis, "n").await;
    while let Err(BackendError::Connect { .. }) = answer {
        tokio::time::sleep(Duration::from_millis(20)).await;
        answer = add(&redis, "n").await;
    }
    assert_eq!(answer.unwrap(), Value::Int(2), "no failed attempt was ever sent");
}

#[tokio::test]
async fn a_lost_reply_is_ambiguous_for_a_write_and_never_repeated() {
    let server = RedisServer::start();
    let proxy = FaultProxy::start(server.addr()).await;
    let redis = Redis::new(at(proxy.addr())).unwrap();
    redis.connect().await.unwrap();
    for round in 1..=20 {
        proxy.swallow_next_reply();
        let error = add(&redis, "n").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Ambiguous, "{error:?}");
        proxy.pass();
        assert_eq!(server.cli(&["GET", "n"]).text(), round.to_string());
        redis.connect().await.unwrap();
        proxy.swallow_next_reply();
        assert_eq!(read(&redis, "n").await.unwrap_err().kind(), ErrorKind::Transient);
        redis.connect().await.unwrap();
    }
}

#[tokio::test]
async fn no_answer_in_time() {
    let server = RedisServer::start();
    let proxy = FaultProxy::start(server.addr()).await;
    let redis = Redis::new(at(proxy.addr())).unwrap();
    add(&redis, "n").await.unwrap();
    proxy.black_hole();
    let started = SystemClock.now();
    assert_eq!(add(&redis, "n").await.unwrap_err().kind(), ErrorKind::Ambiguous);
    assert!(SystemClock.now().since(started) < Duration::from_millis(900));
    // The silent connection was given up; a new one brings nothing either, but nothing was sent on it.
    let started = SystemClock.now();
    let error = add(&redis, "n").await.unwrap_err();
    assert!(matches!(error, BackendError::Connect { .. }), "{error:?}");
    assert!(SystemClock.now().since(started) < Duration::from_millis(3_900));
    assert_eq!(redis.statistics().timeouts, 1);
}

#[tokio::test]
async fn a_frozen_server_does_not_run_given_up_writes_that_it_never_got() {
    let mut server = RedisServer::start();
    let redis = Redis::new(at(server.addr())).unwrap();
    add(&redis, "n").await.unwrap();
    server.stop_process();
    let waiting: Vec<_> = (0..50)
        .map(|_| {
            let redis = redis.clone();
            tokio::spawn(async move { add(&redis, "n").await })
        })
        .collect();
    for one in waiting {
        let error = one.await.unwrap().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Ambiguous | ErrorKind::Unavailable), "{error}");
    }
    server.continue_process();
    let mut answer = add(&redis, "n").await;
    while answer.is_err() {
        answer = add(&redis, "n").await;
    }
    let Value::Int(n) = answer.unwrap() else { panic!("not a number") };
    assert!((2..=52).contains(&n), "each was run at most once: {n}");
}

#[tokio::test]
async fn a_cut_at_any_byte_is_told_truly() {
    let server = RedisServer::start();
    let proxy = FaultProxy::start(server.addr()).await;
    let redis = Redis::new(at(proxy.addr())).unwrap();
    let (mut done, mut unknown) = (0, 0);
    let request = redis::pack_command(&[b"INCR".to_vec(), b"n".to_vec()]).len() as u64;
    for bytes in 0..=request {
        redis.connect().await.unwrap();
        proxy.cut_after(Direction::ToServer, bytes, Cut::Fin);
        match add(&redis, "n").await {
            Ok(_) => done += 1,
            Err(error) if error.kind() == ErrorKind::Ambiguous => unknown += 1,
            Err(error) => panic!("{error:?}"),
        }
        proxy.pass();
        eventually(|| redis.statistics().connections == 0).await;
    }
    let Ok(Value::BulkString(stored)) = read(&redis, "n").await else { panic!("no count") };
    let stored: i64 = String::from_utf8(stored).unwrap().parse().unwrap();
    assert!(stored >= done && stored <= done + unknown, "{done} <= {stored} <= {done} + {unknown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_under_load_lose_no_answered_write() {
    let mut server = RedisServer::start();
    let redis = Redis::new(at(server.addr())).unwrap();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let (redis, stop) = (redis.clone(), stop.clone());
            tokio::spawn(async move {
                let (mut done, mut unknown) = (0i64, 0i64);
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    match add(&redis, "n").await {
                        Ok(_) => done += 1,
                        Err(error) if error.kind() == ErrorKind::Ambiguous => unknown += 1,
                        // Never sent, or refused while the server reads its file.
                        Err(error) => {
                            assert!(error.kind().is_retryable(), "{error:?}");
                            tokio::time::sleep(Duration::from_millis(2)).await;
                        }
                    }
                }
                (done, unknown)
            })
        })
        .collect();
    for _ in 0..5 {
        let before = redis.statistics().commands;
        eventually(|| redis.statistics().commands > before + 500).await;
        server.restart();
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let (mut done, mut unknown) = (0, 0);
    for task in tasks {
        let (d, u) = task.await.unwrap();
        (done, unknown) = (done + d, unknown + u);
    }
    let Reply::Bulk(Some(stored)) = server.cli(&["GET", "n"]) else { panic!("no count") };
    let stored: i64 = String::from_utf8(stored).unwrap().parse().unwrap();
    assert!(stored >= done && stored <= done + unknown, "{done} <= {stored} <= {done} + {unknown}");
    // Each restart can hide at most one answer of each task.
    assert!(unknown <= 5 * 16, "{unknown}");
}

#[tokio::test]
async fn a_dropped_future_harms_nobody() {
    let server = RedisServer::start();
    let redis = Redis::new(at(server.addr())).unwrap();
    for n in 0..200 {
        let (dropped, write) = (add(&redis, "dropped"), add(&redis, "n"));
        tokio::pin!(dropped);
        tokio::select! {
            biased;
            _ = &mut dropped => {}
            () = tokio::task::yield_now() => {}
        }
        assert_eq!(write.await.unwrap(), Value::Int(n + 1));
    }
}

#[tokio::test]
async fn a_handle_outlives_its_runtime() {
    let server = RedisServer::start();
    let redis = Redis::new(at(server.addr())).unwrap();
    let elsewhere = redis.clone();
    let other = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { add(&elsewhere, "n").await.unwrap() })
    });
    assert_eq!(other.join().unwrap(), Value::Int(1));
    assert_eq!(add(&redis, "n").await.unwrap(), Value::Int(2));
}
