//! Our store on Redis beside bare redis-rs and fred, on one private server: 64 tasks at once, and one call after the other.

use std::{
    future::Future,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use criterion::{BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use fred::{
    interfaces::{ClientLike, KeysInterface},
    types::{Builder, Expiration, config::Config},
};
use infra_backends::RedisConfig;
use infra_benches::criterion;
use infra_state_store::{Batch, Key, RedisStateStore, StateStore, StateStoreExt, Ttl};
use infra_testkit::RedisServer;
use infra_types::{Clock, Namespace, SystemClock};
use redis::aio::ConnectionManager;
use tokio::runtime::Runtime;

/// Tasks that call at once.
const TASKS: u64 = 64;
/// Keys that they use in turn.
const HOT: u64 = 1_024;
const HOUR: Duration = Duration::from_secs(3_600);

struct Stand {
    rt: Runtime,
    store: Arc<dyn StateStore>,
    bare: ConnectionManager,
    fred: fred::clients::Client,
    ns: Namespace,
    value: Bytes,
    address: SocketAddr,
}

fn stand(server: &RedisServer) -> Stand {
    let rt = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let config = RedisConfig::from_url(&server.url()).expect("an address").with_key_prefix("bench:");
    let store = RedisStateStore::open(config, SystemClock::shared()).expect("settings that make sense");
    let (bare, fred) = rt.block_on(async {
        let client = redis::Client::open(server.url()).expect("an address");
        let bare = client.get_connection_manager().await.expect("connected");
        let fred =
            Builder::from_config(Config::from_url(&server.url()).expect("an address")).build().expect("a client");
        fred.init().await.expect("connected");
        (bare, fred)
    });
    let ns = Namespace::new("bench").expect("a valid namespace");
    let value = Bytes::from(vec![7_u8; 64]);
    Stand { rt, store: Arc::new(store), bare, fred, ns, value, address: server.addr() }
}

/// How long `iterations` calls take when [`TASKS`] tasks make them at once.
async fn at_once<F, W>(iterations: u64, call: F) -> Duration
where
    F: Fn(u64) -> W + Clone + Send + 'static,
    W: Future<Output = ()> + Send,
{
    let clock = SystemClock;
    let start = clock.now();
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let call = call.clone();
            tokio::spawn(async move {
                for n in (task..iterations).step_by(TASKS as usize) {
                    call(n).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("a task of the bench must not panic");
    }
    clock.now().since(start)
}

fn bench<F, W>(group: &mut BenchmarkGroup<'_, WallTime>, rt: &Runtime, name: &str, call: F)
where
    F: Fn(u64) -> W + Clone + Send + 'static,
    W: Future<Output = ()> + Send,
{
    group.bench_function(name, |b| b.iter_custom(|iterations| rt.block_on(at_once(iterations, call.clone()))));
}

fn names(prefix: &str) -> Arc<Vec<String>> {
    Arc::new((0..HOT).map(|n| format!("{prefix}{n}")).collect())
}

fn keys() -> Arc<Vec<Key>> {
    Arc::new((0..HOT).map(|n| Key::cache(format!("price:{n}")).expect("a valid key")).collect())
}

fn at<T>(items: &[T], n: u64) -> &T {
    &items[(n % HOT) as usize]
}

fn get(c: &mut Criterion, stand: &Stand) {
    let (keys, bare_names, fred_names) = (keys(), names("bare:"), names("fred:"));
    stand.rt.block_on(async {
        for n in 0..HOT {
            stand.store.set(&stand.ns, at(&keys, n), stand.value.clone(), Ttl::Never).await.expect("stored");
            let value = &stand.value[..];
            for names in [&bare_names, &fred_names] {
                let set = redis::cmd("SET").arg(at(names, n)).arg(value).query_async(&mut stand.bare.clone()).await;
                let () = set.expect("stored");
            }
        }
    });
    let mut group = c.benchmark_group("state_store/redis_get_64_tasks");
    group.throughput(Throughput::Elements(1));
    let (store, ns) = (stand.store.clone(), stand.ns.clone());
    bench(&mut group, &stand.rt, "infra", move |n| {
        let (store, ns, keys) = (store.clone(), ns.clone(), keys.clone());
        async move { drop(store.get(&ns, at(&keys, n)).await.expect("read").expect("there")) }
    });
    let bare = stand.bare.clone();
    bench(&mut group, &stand.rt, "redis_rs", move |n| {
        let (mut bare, names) = (bare.clone(), bare_names.clone());
        async move {
            let found: Vec<u8> = redis::cmd("GET").arg(at(&names, n)).query_async(&mut bare).await.expect("read");
            drop(found);
        }
    });
    let fred = stand.fred.clone();
    bench(&mut group, &stand.rt, "fred", move |n| {
        let (fred, names) = (fred.clone(), fred_names.clone());
        async move { drop(fred.get::<Bytes, _>(at(&names, n)).await.expect("read")) }
    });
    group.finish();
}

fn set(c: &mut Criterion, stand: &Stand, ttl: Ttl, name: &str) {
    let (keys, bare_names, fred_names) = (keys(), names("bare:"), names("fred:"));
    let mut group = c.benchmark_group(format!("state_store/{name}"));
    group.throughput(Throughput::Elements(1));
    let (store, ns, value) = (stand.store.clone(), stand.ns.clone(), stand.value.clone());
    bench(&mut group, &stand.rt, "infra", move |n| {
        let (store, ns, keys, value) = (store.clone(), ns.clone(), keys.clone(), value.clone());
        async move { assert!(store.set(&ns, at(&keys, n), value, ttl).await.is_ok()) }
    });
    let millis = (ttl != Ttl::Never).then_some(HOUR.as_millis() as u64);
    let (bare, value) = (stand.bare.clone(), stand.value.clone());
    bench(&mut group, &stand.rt, "redis_rs", move |n| {
        let (mut bare, names, value) = (bare.clone(), bare_names.clone(), value.clone());
        async move {
            let mut set = redis::cmd("SET");
            set.arg(at(&names, n)).arg(&value[..]);
            if let Some(millis) = millis {
                set.arg("PX").arg(millis);
            }
            let () = set.query_async(&mut bare).await.expect("stored");
        }
    });
    let (fred, value) = (stand.fred.clone(), stand.value.clone());
    bench(&mut group, &stand.rt, "fred", move |n| {
        let (fred, names, value) = (fred.clone(), fred_names.clone(), value.clone());
        let expire = millis.map(|millis| Expiration::PX(millis as i64));
        async move { fred.set::<(), _, _>(at(&names, n), value, expire, None, false).await.expect("stored") }
    });
    group.finish();
}

/// One versioned write beside the same script with the same arguments, called bare.
fn set_record(c: &mut Criterion, stand: &Stand) {
    let key = Key::record("order").expect("a valid key");
    let batch = Batch::new(stand.ns.clone()).set(key, stand.value.clone());
    let seen = watch_one(stand.address, || {
        stand.rt.block_on(stand.store.apply(batch.clone())).expect("stored");
    });
    let mut bare_call = redis::Cmd::new();
    for word in &seen {
        bare_call.arg(word);
    }
    let mut group = c.benchmark_group("state_store/redis_set_record_64_tasks");
    group.throughput(Throughput::Elements(1));
    let store = stand.store.clone();
    bench(&mut group, &stand.rt, "infra", move |_| {
        let (store, batch) = (store.clone(), batch.clone());
        async move { drop(store.apply(batch).await.expect("stored")) }
    });
    let (bare, bare_call) = (stand.bare.clone(), Arc::new(bare_call));
    bench(&mut group, &stand.rt, "floor_same_script", move |_| {
        let (mut bare, call) = (bare.clone(), bare_call.clone());
        async move { drop(call.query_async::<redis::Value>(&mut bare).await.expect("run")) }
    });
    group.finish();
}

/// One caller: ten versioned writes in one batch beside one bare write.
fn batch_of_10(c: &mut Criterion, stand: &Stand) {
    let key = |n: u64| Key::record(format!("order:{n}")).expect("a valid key");
    let batch = (0..10).fold(Batch::new(stand.ns.clone()), |batch, n| batch.set(key(n), stand.value.clone()));
    let mut group = c.benchmark_group("state_store/redis_batch_of_10");
    group.bench_function("infra", |b| {
        b.to_async(&stand.rt).iter(|| async { drop(stand.store.apply(batch.clone()).await.expect("stored")) });
    });
    group.bench_function("floor_one_set", |b| {
        b.to_async(&stand.rt).iter(|| async {
            let mut bare = stand.bare.clone();
            let set = redis::cmd("SET").arg("bare:one").arg(&stand.value[..]).query_async(&mut bare).await;
            let () = set.expect("stored");
        });
    });
    group.finish();
}

/// The words of the one script call that `call` makes, as the server's MONITOR tells them.
fn watch_one(address: SocketAddr, call: impl FnOnce()) -> Vec<Vec<u8>> {
    let mut monitor = TcpStream::connect(address).expect("connected");
    monitor.write_all(b"MONITOR\r\n").expect("asked");
    let mut lines = BufReader::new(monitor).lines();
    assert_eq!(lines.next().expect("an answer").expect("read"), "+OK");
    call();
    let line = lines.map(|line| line.expect("read")).find(|line| line.contains("\"EVALSHA\"")).expect("a script call");
    let words = &line[line.find('"').expect("the first word")..];
    unquote(words)
}

/// Words in quotes with `\xHH`, `\"` and `\\` escaped.
fn unquote(text: &str) -> Vec<Vec<u8>> {
    let (mut words, mut word, mut bytes) = (Vec::new(), None::<Vec<u8>>, text.bytes());
    while let Some(byte) = bytes.next() {
        match (&mut word, byte) {
            (None, b'"') => word = Some(Vec::new()),
            (Some(_), b'"') => words.extend(word.take()),
            (Some(word), b'\\') => word.push(match bytes.next() {
                Some(b'x') => {
                    let digits: String = bytes.by_ref().take(2).map(char::from).collect();
                    u8::from_str_radix(&digits, 16).expect("two digits")
                }
                Some(b'n') => b'\n',
                Some(b'r') => b'\r',
                Some(b't') => b'\t',
                Some(b'a') => 7,
                Some(b'b') => 8,
                other => other.expect("an escaped character"),
            }),
            (Some(word), byte) => word.push(byte),
            (None, _) => {}
        }
    }
    words
}

fn main() {
    // Without a disk: what is compared is the way to the server and back.
    let server = RedisServer::builder().config("appendonly", "no").start();
    let stand = stand(&server);
    let mut c = criterion();
    get(&mut c, &stand);
    set(&mut c, &stand, Ttl::Never, "redis_set_64_tasks");
    set(&mut c, &stand, Ttl::After(HOUR), "redis_set_with_ttl_64_tasks");
    set_record(&mut c, &stand);
    batch_of_10(&mut c, &stand);
    c.final_summary();
}
