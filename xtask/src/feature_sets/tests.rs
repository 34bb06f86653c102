use super::*;
use crate::workspace::{Member, Target};

const CLEAN: &str = "infra-state-store v0.1.0 (/w/crates/state-store)\tdefault\ntokio v1.51.0\trt,time\n";

fn workspace() -> Workspace {
    let mut store = Member::new("infra-state-store");
    store.features.extend(["sqlite", "redis", "postgres"].map(|name| (name.to_owned(), vec![])));
    let mut bus = Member::new("infra-event-bus");
    bus.features.insert("sqlite".into(), vec![]);
    let names = ["infra-benches", "infra-examples", "infra-types"];
    let members = [store, bus].into_iter().chain(names.map(Member::new)).collect();
    Workspace { root: "/w".into(), rust_version: "1.94".into(), members }
}

#[test]
fn a_clean_set_none_passes() {
    assert_eq!(verify(FeatureSet::None, CLEAN, &workspace()), Vec::<String>::new());
}

#[test]
fn set_none_refuses_a_backend_feature() {
    for line in ["infra-state-store v0.1.0 (/w)\tdefault,sqlite", "infra-event-bus v0.1.0 (/w)\tredis (*)"] {
        let problems = verify(FeatureSet::None, &format!("{CLEAN}{line}\n"), &workspace());
        assert_eq!(problems.len(), 1, "{line}");
        assert!(problems[0].contains("set none has infra-"), "{problems:?}");
    }
}

#[test]
fn set_none_refuses_a_driver_even_without_a_feature() {
    let tree = format!("{CLEAN}rusqlite v0.39.0\tbundled\nrusqlite v0.39.0\tbundled (*)\n");
    let problems = verify(FeatureSet::None, &tree, &workspace());
    assert_eq!(problems.len(), 1);
    assert!(problems[0].contains("driver rusqlite"), "{problems:?}");
}

#[test]
fn a_foreign_feature_of_the_same_name_is_no_backend() {
    assert_eq!(verify(FeatureSet::None, "some-cache v1.0.0\tredis\n", &workspace()), Vec::<String>::new());
}

#[test]
fn a_set_has_exactly_its_own_driver() {
    let sets = [
        (FeatureSet::Redis, "redis", "redis v1.8.0\tscript\n", "rusqlite v0.39.0\t\n", "rusqlite"),
        (
            FeatureSet::Postgres,
            "postgres",
            "sqlx v0.9.0\t\nsqlx-core v0.9.0\t\nsqlx-postgres v0.9.0\t\n",
            "sqlx-sqlite v0.9.0\t\n",
            "sqlx-sqlite",
        ),
    ];
    for (set, feature, driver, other, other_name) in sets {
        let on = format!("infra-state-store v0.1.0 (/w)\tdefault,{feature} (*)\n");
        assert_eq!(verify(set, &format!("{on}{driver}"), &workspace()), Vec::<String>::new());
        assert!(verify(set, &on, &workspace())[0].contains("does not build its driver"));
        let mixed = verify(set, &format!("{on}{driver}{other}"), &workspace());
        assert_eq!(mixed.len(), 1);
        assert!(mixed[0].contains(&format!("driver {other_name}")), "{mixed:?}");
        let off = verify(set, driver, &workspace());
        assert_eq!(off, [format!("set {feature} leaves infra-state-store/{feature} off")]);
        let more = verify(set, &format!("{on}{driver}infra-backends v0.1.0 (/w)\tsqlite\n"), &workspace());
        assert!(more[0].contains("infra-backends/sqlite on"), "{more:?}");
    }
}

#[test]
fn set_all_has_every_driver_and_may_have_peers() {
    let on = "infra-state-store v0.1.0\tpostgres,redis,sqlite\ninfra-event-bus v0.1.0\tsqlite\n";
    let drivers = "rusqlite v0.39.0\t\nredis v1.8.0\t\nsqlx-postgres v0.9.0\t\nfred v10.1.0\t\n";
    assert_eq!(verify(FeatureSet::All, &format!("{on}{drivers}"), &workspace()), Vec::<String>::new());
    assert_eq!(verify(FeatureSet::All, on, &workspace()).len(), 3);
}

#[test]
fn a_feature_that_nobody_has_is_an_empty_set() {
    let none = Workspace { members: vec![Member::new("infra-types")], ..workspace() };
    assert!(verify(FeatureSet::Sqlite, CLEAN, &none)[0].contains("no member"));
}

#[test]
fn arguments_name_what_the_set_is_about() {
    let words = |set: FeatureSet| set.arguments(&workspace()).join(" ");
    let none = "--workspace --no-default-features --exclude=infra-examples --exclude=infra-benches";
    assert_eq!(words(FeatureSet::None), none);
    let sqlite = "--package=infra-state-store --package=infra-event-bus --package=infra-examples --no-default-features \
                  --features=infra-state-store/sqlite,infra-event-bus/sqlite";
    assert_eq!(words(FeatureSet::Sqlite), sqlite);
    let redis = "--package=infra-state-store --no-default-features --features=infra-state-store/redis";
    assert_eq!(words(FeatureSet::Redis), redis);
    let all = words(FeatureSet::All);
    assert!(all.contains("--package=infra-benches"), "{all}");
    assert!(
        all.ends_with("/sqlite,infra-state-store/redis,infra-state-store/postgres,infra-event-bus/sqlite"),
        "{all}"
    );
    let part = FeatureSet::All.arguments_for(&workspace(), &["infra-event-bus"]).join(" ");
    assert_eq!(part, "--package=infra-event-bus --no-default-features --features=infra-event-bus/sqlite");
}

#[test]
fn set_all_runs_what_composes_and_what_needs_two() {
    let mut workspace = workspace();
    let test = |name: &str, features: &[&str]| Target {
        name: name.to_owned(),
        is_test: true,
        source: "/w/t.rs".into(),
        required_features: features.iter().map(|&feature| feature.to_owned()).collect(),
    };
    workspace.members[0].targets = vec![
        test("redis", &["redis"]),
        test("same_everywhere", &["redis", "postgres"]),
        test("suite", &["redis", "conformance"]),
    ];
    workspace.members.push(Member::new("infra-factory"));
    let (whole, gated) = FeatureSet::of_all(&workspace);
    assert_eq!(whole, ["infra-factory", "infra-benches"]);
    assert_eq!(gated, [("infra-state-store", vec!["same_everywhere"])]);
}

#[test]
fn only_redis_and_postgres_need_servers() {
    let needing: Vec<_> = FeatureSet::EVERY.into_iter().filter(|set| set.needs_servers()).collect();
    assert_eq!(needing, [FeatureSet::Redis, FeatureSet::Postgres, FeatureSet::All]);
}

#[test]
fn a_test_that_no_set_would_run_is_refused() {
    let file = |path: &str, text: String| run_nowhere(&SourceFile { path: path.into(), text });
    let both = format!("#[{}(feature = \"redis\", feature = \"sqlite\"))]", concat!("cfg", "(all"));
    let found = file("crates/a/tests/b.rs", format!("\n{both}\n"));
    assert!(found.len() == 1 && found[0].starts_with("crates/a/tests/b.rs:2: "), "{found:?}");
    assert_eq!(file("crates/a/src/b.rs", both), Vec::<String>::new());
    assert_eq!(file("crates/a/tests/b.rs", "#[cfg(feature = \"redis\")]".into()), Vec::<String>::new());
}
