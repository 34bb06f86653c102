//! The page of refusals and the suite say the same, and no case is left out of the list that every backend runs.
#![expect(clippy::unwrap_used, reason = "the whole file is tests")]

use std::collections::BTreeSet;

use infra_event_bus::conformance::Capability;

const PAGE: &str = include_str!("../../../docs/event-bus-refusals.md");
const LIST: &str = include_str!("../src/conformance.rs");

/// The cases as they stand in the files of the suite.
fn written() -> BTreeSet<String> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/conformance");
    let read = |file: std::io::Result<std::fs::DirEntry>| std::fs::read_to_string(file?.path());
    let files = std::fs::read_dir(folder).expect("the suite is there").map(|file| read(file).expect("a file of it"));
    let case = |line: &str| Some(line.strip_prefix("pub async fn ")?.split(['(', '<']).next()?.to_owned());
    files.flat_map(|text| text.lines().filter_map(case).collect::<Vec<_>>()).collect()
}

/// The cases that the macro makes tests of.
fn listed() -> Vec<String> {
    let (_, list) = LIST.split_once("@$what $fixture;").expect("the macro's list");
    let (list, _) = list.split_once('}').expect("its end");
    list.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn every_case_that_is_written_is_run() {
    let listed = listed();
    assert_eq!(listed.iter().cloned().collect::<BTreeSet<_>>(), written());
    assert_eq!(listed.len(), written().len(), "one is listed twice");
    assert!(listed.len() >= 80);
}

#[test]
fn the_page_names_every_capability_once_and_no_other() {
    let rows: Vec<_> = PAGE.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`')).collect();
    let names: Vec<_> = rows.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names, Capability::ALL.map(|capability| format!("{capability:?}")));
    for (name, cells) in rows {
        assert_eq!(cells.matches('|').count(), 5, "{name} has a cell for each of the four backends");
    }
}

#[test]
fn the_page_names_cases_that_there_are() {
    let written = written();
    let words = PAGE.split('`').skip(1).step_by(2);
    let cases: Vec<_> = words.filter(|word| word.contains('_') && !word.contains([':', ' ', '(', '/', '.'])).collect();
    let settings = ["synchronous_commit"];
    for case in cases.iter().filter(|case| !settings.contains(case)) {
        assert!(written.contains(*case), "the page names {case}, which is no case");
    }
    let refusals: Vec<_> = PAGE.lines().filter(|line| line.starts_with("| ") && line.contains(": `")).collect();
    for refusal in &refusals {
        let by = refusal.rsplit('|').nth(1).unwrap();
        assert!(written.iter().any(|case| by.contains(&format!("`{case}`"))), "no case asserts {refusal}");
    }
    // A "no" in the list needs its reason below.
    for (backend, column) in [("memory", 2), ("SQLite", 3), ("Redis", 4), ("PostgreSQL", 5)] {
        for capability in Capability::ALL {
            let name = format!("`{capability:?}`");
            let row = PAGE.lines().find(|line| line.starts_with(&format!("| {name} |"))).unwrap();
            let is_refused = row.split('|').nth(column).unwrap().contains("**no**");
            let has_reason = refusals.iter().any(|r| r.starts_with(&format!("| {backend}: ")) && r.contains(&name));
            assert!(!is_refused || has_reason, "{backend} cannot do {name}, and the page does not say why");
        }
    }
}

/// What the page says of a backend without an "if" is what its bus says.
fn says_the_same(column: usize, info: infra_event_bus::BusInfo) {
    for capability in Capability::ALL {
        let row = PAGE.lines().find(|line| line.starts_with(&format!("| `{capability:?}` |"))).unwrap();
        let cell = row.split('|').nth(column).unwrap().trim();
        let told = if cell == "**no**" { Some(false) } else { cell.starts_with("yes").then_some(true) };
        if let Some(told) = told {
            assert_eq!(told, capability.is_in(&info), "{}: {capability:?}", info.backend);
        }
    }
}

fn clock() -> std::sync::Arc<dyn infra_types::Clock> {
    infra_types::SystemClock::shared()
}

#[test]
fn the_page_tells_of_memory_what_memory_tells() {
    says_the_same(2, infra_event_bus::EventBus::info(&infra_event_bus::MemoryEventBus::new(clock())));
}

#[cfg(feature = "sqlite")]
#[test]
fn the_page_tells_of_sqlite_what_sqlite_tells() {
    let file = infra_backends::Sqlite::new(infra_backends::SqliteConfig::new("never-opened.db"));
    says_the_same(3, infra_event_bus::EventBus::info(&infra_event_bus::SqliteEventBus::new(file, clock())));
}

#[cfg(feature = "redis")]
#[test]
fn the_page_tells_of_redis_what_redis_tells() {
    let config = infra_backends::RedisConfig::from_url("redis://127.0.0.1:1").unwrap();
    let redis = infra_backends::Redis::new(config).unwrap();
    says_the_same(4, infra_event_bus::EventBus::info(&infra_event_bus::RedisEventBus::new(redis, clock()).unwrap()));
}

#[cfg(feature = "postgres")]
#[test]
fn the_page_tells_of_postgres_what_postgres_tells() {
    let config = infra_backends::PostgresConfig::from_url("postgres://a@127.0.0.1:1/b").unwrap();
    let postgres = infra_backends::Postgres::new(config).unwrap();
    says_the_same(5, infra_event_bus::EventBus::info(&infra_event_bus::PostgresEventBus::new(postgres, clock())));
}
