//! Our store on PostgreSQL beside bare sqlx, on one private server.

use std::sync::Arc;

use bytes::Bytes;
use criterion::Criterion;
use infra_backends::PostgresConfig;
use infra_benches::criterion;
use infra_state_store::{Batch, Key, PostgresStateStore, StateStore};
use infra_testkit::PostgresServer;
use infra_types::{Namespace, SystemClock};
use sqlx::{PgPool, postgres::PgPoolOptions};
use tokio::runtime::Runtime;

const ROWS: usize = 1_000;

struct Stand {
    rt: Runtime,
    store: Arc<dyn StateStore>,
    bare: PgPool,
    ns: Namespace,
    value: Bytes,
}

fn stand(server: &PostgresServer) -> Stand {
    let rt = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let config = PostgresConfig::from_url(&server.url()).expect("an address");
    let store = PostgresStateStore::open(config, SystemClock::shared()).expect("settings that make sense");
    let bare = rt.block_on(async {
        let pool = PgPoolOptions::new().max_connections(10).connect(&server.url()).await.expect("connected");
        // The shape of what a versioned record needs.
        let table = "CREATE TABLE bare_entry (ns text NOT NULL, name text COLLATE \"C\" NOT NULL, bytes bytea NOT NULL,
                         version bigint NOT NULL, PRIMARY KEY (ns, name))";
        sqlx::query(table).execute(&pool).await.expect("made");
        pool
    });
    let ns = Namespace::new("bench").expect("a valid namespace");
    Stand { rt, store: Arc::new(store), bare, ns, value: Bytes::from(vec![7_u8; 64]) }
}

const UNNEST: &str = "INSERT INTO bare_entry (ns, name, bytes, version)
    SELECT 'bench', name, bytes, version FROM unnest($1::text[], $2::bytea[], $3::bigint[]) AS t (name, bytes, version)
    ON CONFLICT (ns, name) DO UPDATE SET bytes = excluded.bytes, version = excluded.version";

fn sets(c: &mut Criterion, stand: &Stand, rows: usize, name: &str) {
    let names: Vec<String> = (0..rows).map(|n| format!("order:{n:04}")).collect();
    let key = |name: &String| Key::record(name).expect("a valid key");
    let batch =
        names.iter().fold(Batch::new(stand.ns.clone()), |batch, name| batch.set(key(name), stand.value.clone()));
    let values: Vec<&[u8]> = vec![&stand.value[..]; rows];
    let versions: Vec<i64> = (0..rows as i64).collect();
    let mut group = c.benchmark_group(format!("state_store/{name}"));
    group.sample_size(20);
    group.bench_function("infra", |b| {
        b.to_async(&stand.rt).iter(|| async { drop(stand.store.apply(batch.clone()).await.expect("stored")) });
    });
    group.bench_function("sqlx_unnest", |b| {
        b.to_async(&stand.rt).iter(|| async {
            let query = sqlx::query(UNNEST).bind(&names).bind(&values).bind(&versions);
            query.execute(&stand.bare).await.expect("stored")
        });
    });
    group.finish();
}

fn get(c: &mut Criterion, stand: &Stand) {
    let key = Key::record("order:0001").expect("a valid key");
    let mut group = c.benchmark_group("state_store/postgres_get");
    group.sample_size(20);
    group.bench_function("infra", |b| {
        b.to_async(&stand.rt)
            .iter(|| async { drop(stand.store.get(&stand.ns, &key).await.expect("read").expect("there")) });
    });
    let sql = "SELECT bytes, version FROM bare_entry WHERE ns = 'bench' AND name = $1";
    group.bench_function("sqlx", |b| {
        b.to_async(&stand.rt).iter(|| async {
            let (bytes, version): (Vec<u8>, i64) =
                sqlx::query_as(sql).bind("order:0001").fetch_one(&stand.bare).await.expect("read");
            (bytes, version)
        });
    });
    group.finish();
}

fn main() {
    let server = PostgresServer::start();
    let stand = stand(&server);
    let mut c = criterion();
    sets(&mut c, &stand, ROWS, "postgres_batch_of_1000");
    sets(&mut c, &stand, 1, "postgres_one_set");
    get(&mut c, &stand);
    c.final_summary();
}
