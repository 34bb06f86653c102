//! A Redis handle over sentinels and over a cluster: failovers, slots that move, and writes that run once.
#![expect(clippy::unwrap_used, reason = "helpers of a test end it like the test itself")]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use infra_backends::{Access, BackendError, Redis, RedisConfig, RedisScript, RedisTopology, key_slot};
use infra_testkit::{RedisCluster, RedisSentinel};
use infra_types::{Clock, ErrorKind, HealthStatus, SystemClock};
use redis::{Value, cmd};

fn hosts(addrs: &[SocketAddr]) -> Vec<(String, u16)> {
    addrs.iter().map(|addr| (addr.ip().to_string(), addr.port())).collect()
}

async fn add(redis: &Redis, key: &str) -> Result<Value, BackendError> {
    redis.query(key.as_bytes(), cmd("INCR").arg(key), Access::Write).await
}

async fn count(redis: &Redis, key: &str) -> i64 {
    let answer = redis.query(key.as_bytes(), cmd("GET").arg(key), Access::Read).await.unwrap();
    redis::from_redis_value(answer).unwrap()
}

/// Adds until it works; what happens on the way must be honest.
async fn add_at_last(redis: &Redis, key: &str) -> Value {
    let deadline = SystemClock.now() + Duration::from_secs(30);
    loop {
        match add(redis, key).await {
            Ok(value) => return value,
            Err(error) => assert!(SystemClock.now() < deadline && error.kind() != ErrorKind::Permanent, "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Writers that add until told to stop; how many were answered, and how many may have been done.
struct Writers(Arc<AtomicBool>, Vec<tokio::task::JoinHandle<(i64, i64)>>);

impl Writers {
    fn start(redis: &Redis, key: &'static str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let one = || {
            let (redis, stop) = (redis.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let (mut done, mut unknown) = (0, 0);
                while !stop.load(Ordering::Relaxed) {
                    match add(&redis, key).await {
                        Ok(_) => done += 1,
                        Err(error) if error.kind() == ErrorKind::Ambiguous => unknown += 1,
                        Err(error) => {
                            assert_ne!(error.kind(), ErrorKind::Permanent, "{error:?}");
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                    }
                }
                (done, unknown)
            })
        };
        let writers = (0..8).map(|_| one()).collect();
        Self(stop, writers)
    }

    async fn stop(self) -> (i64, i64) {
        self.0.store(true, Ordering::Relaxed);
        let mut sum = (0, 0);
        for writer in self.1 {
            let (done, unknown) = writer.await.unwrap();
            sum = (sum.0 + done, sum.1 + unknown);
        }
        sum
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_name_the_primary_and_its_successor() {
    let mut servers = RedisSentinel::start();
    let topology = RedisTopology::sentinel(hosts(&servers.sentinels()), servers.service());
    let redis = Redis::new(RedisConfig::new(topology)).unwrap();
    assert_eq!(add(&redis, "n").await.unwrap(), Value::Int(1));
    assert_eq!(redis.health().await.status, HealthStatus::Up);

    // One sentinel is not all of them.
    servers.sentinels_mut()[0].kill();
    let other = RedisTopology::sentinel(hosts(&servers.sentinels()), servers.service());
    assert_eq!(count(&Redis::new(RedisConfig::new(other)).unwrap(), "n").await, 1);
    servers.sentinels_mut()[0].restart();

    let wrong = RedisTopology::sentinel(hosts(&servers.sentinels()), "no-such-service");
    let error = add(&Redis::new(RedisConfig::new(wrong)).unwrap(), "n").await.unwrap_err();
    assert!(error.to_string().contains("no-such-service"), "{error}");

    let old = servers.kill_master();
    let new = servers.wait_for_new_master(old);
    assert_ne!(old, new);
    add_at_last(&redis, "after").await;
    let statistics = redis.statistics();
    assert_eq!(statistics.failovers, 1, "{statistics:?}");
    assert!(servers.servers()[new].cli(&["EXISTS", "after"]).text() == "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_routes_moves_and_fails_over() {
    let mut servers = RedisCluster::start();
    let redis = Redis::new(RedisConfig::new(RedisTopology::cluster(hosts(&servers.seeds())))).unwrap();
    assert!(redis.is_cluster());
    for n in 0..300 {
        let key = format!("key-{n}");
        assert_eq!(add(&redis, &key).await.unwrap(), Value::Int(1));
    }
    assert_eq!(key_slot(b"key-1"), servers.slot_of("key-1"));
    assert_eq!(redis.statistics().redirects, 0, "the map is right");
    assert_eq!(redis.health().await.status, HealthStatus::Up);
    assert!(redis.server().unwrap().cluster);

    // Scripts reach every node, each of which learns them.
    let script = RedisScript::new("return redis.call('INCRBY', KEYS[1], ARGV[1])");
    for n in 0..30 {
        let key = format!("key-{n}");
        let mut call = script.call(1);
        call.arg(&key).arg(2);
        assert_eq!(redis.script(key.as_bytes(), &script, &call, Access::Write).await.unwrap(), Value::Int(3));
    }
    assert_eq!(redis.statistics().script_loads, 3);

    // A slot on its way: some keys are here, some there.
    let key = "{moving}1";
    let slot = key_slot(key.as_bytes());
    add(&redis, key).await.unwrap();
    let moving = servers.begin_move(slot);
    assert_eq!(add(&redis, "{moving}2").await.unwrap(), Value::Int(1), "ASK: the key is new");
    let mut call = script.call(1);
    call.arg("{moving}3").arg(2);
    assert_eq!(redis.script(b"{moving}3", &script, &call, Access::Write).await.unwrap(), Value::Int(2));
    let mut both = redis::pipe();
    both.cmd("INCR").arg("{moving}4").cmd("INCR").arg("{moving}4");
    let replies = redis.pipeline(b"{moving}4", &both, Access::Write).await.unwrap();
    assert_eq!(replies.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [Value::Int(1), Value::Int(2)]);
    let mut halves = redis::pipe();
    halves.cmd("INCR").arg(key).cmd("INCR").arg("{moving}5");
    let replies = redis.pipeline(key.as_bytes(), &halves, Access::Write).await.unwrap();
    assert_eq!(replies[0].as_ref().unwrap(), &Value::Int(2));
    assert_eq!(replies[1].as_ref().unwrap_err().kind(), ErrorKind::Transient, "told, not sent again out of order");
    both.atomic();
    let replies = redis.pipeline(b"{moving}4", &both, Access::Write).await;
    assert_eq!(replies.unwrap_err().kind(), ErrorKind::Transient);
    assert!(redis.statistics().redirects >= 3);
    servers.move_keys(moving);
    servers.finish_move(moving);
    let before = redis.statistics().redirects;
    assert_eq!(add(&redis, key).await.unwrap(), Value::Int(3), "MOVED");
    let mut transaction = redis::pipe();
    transaction.atomic().cmd("INCR").arg(key).cmd("INCR").arg(key);
    assert_eq!(redis.pipeline(key.as_bytes(), &transaction, Access::Write).await.unwrap().len(), 2);
    assert_eq!(redis.statistics().redirects, before + 1, "once told, it knows");

    // The death of a primary under load.
    let slot = key_slot(b"n");
    let writers = Writers::start(&redis, "n");
    while redis.statistics().commands < 2_000 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let old = servers.kill_master_of(slot);
    servers.wait_for_failover(slot, old);
    add_at_last(&redis, "{n}after").await;
    let (done, unknown) = writers.stop().await;
    let stored = count(&redis, "n").await;
    // Replication is asynchronous: the last answered writes may be lost with their primary, but none may be doubled.
    assert!(stored <= done + unknown, "{stored} <= {done} + {unknown}");
    assert!(unknown <= 16, "{unknown}");
    assert!(redis.statistics().failovers >= 1, "{:?}", redis.statistics());
    redis.close();
    assert!(matches!(add(&redis, "n").await, Err(BackendError::Closed)));
}
