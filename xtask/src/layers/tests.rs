use std::path::PathBuf;

use super::*;

fn with(name: &str, dependency: Dependency) -> Member {
    Member { dependencies: vec![dependency], published: layer_of(name) != Some(Layer::Dev), ..Member::new(name) }
}

fn breaches(name: &str, dependency: Dependency) -> Vec<String> {
    check(&[with(name, dependency)])
}

#[track_caller]
fn refused(name: &str, dependency: Dependency, because: &str) {
    let found = breaches(name, dependency);
    assert!(found.len() == 1 && found[0].contains(because), "expected `{because}`, found {found:?}");
}

#[track_caller]
fn allowed(name: &str, dependency: Dependency) {
    assert_eq!(breaches(name, dependency), Vec::<String>::new());
}

fn normal(name: &str) -> Dependency {
    Dependency::member(name, Kind::Normal)
}

fn driver(name: &str, kind: Kind) -> Dependency {
    Dependency::external(name, kind)
}

#[test]
fn arrows_up_are_refused() {
    for (from, to) in [
        ("infra-types", "infra-backends"),
        ("infra-backends", "infra-state-store"),
        ("infra-state-store", "infra-resilience"),
        ("infra-config", "infra-factory"),
        ("infra-factory", "infra-monitor"),
    ] {
        refused(from, normal(to), "arrows point down");
        refused(from, Dependency::member(to, Kind::Build), "arrows point down");
    }
}

#[test]
fn arrows_down_are_allowed() {
    allowed("infra-backends", normal("infra-types"));
    allowed("infra-state-store", normal("infra-backends"));
    allowed("infra-factory", normal("infra-audit-log").with_features(&["sqlite"]));
    allowed("infra-monitor", normal("infra-factory"));
}

#[test]
fn neighbours_are_refused() {
    refused("infra-emergency", normal("infra-risk-engine"), "both are L3");
    refused("infra-audit-log", normal("infra-state-store"), "both are L2");
    refused("infra-cli", normal("infra-monitor"), "both are L5");
}

#[test]
fn a_test_may_use_a_neighbour_or_the_testkit() {
    allowed("infra-emergency", Dependency::member("infra-risk-engine", Kind::Dev));
    allowed("infra-state-store", Dependency::member("infra-testkit", Kind::Dev));
    allowed("infra-factory", driver("rusqlite", Kind::Dev));
}

#[test]
fn a_capability_may_use_the_traits_of_two_ports() {
    for port in ["infra-state-store", "infra-event-bus"] {
        allowed("infra-emergency", normal(port));
        allowed("infra-emergency", normal(port).with_features(&["conformance"]));
        for backend in BACKEND_FEATURES {
            refused("infra-emergency", normal(port).with_features(&[backend]), "chooses no backend");
        }
    }
}

#[test]
fn a_capability_may_not_use_the_other_ports_or_the_backends() {
    for port in ["infra-audit-log", "infra-records", "infra-backends"] {
        refused("infra-risk-engine", normal(port), "beneath L3");
    }
}

#[test]
fn drivers_belong_to_backends_and_ports() {
    for name in ["rusqlite", "sqlx", "redis"] {
        allowed("infra-backends", driver(name, Kind::Normal));
        allowed("infra-event-bus", driver(name, Kind::Normal));
        allowed("infra-benches", driver(name, Kind::Normal));
        for from in ["infra-types", "infra-emergency", "infra-factory", "infra-monitor"] {
            refused(from, driver(name, Kind::Normal), "drivers belong");
        }
    }
}

#[test]
fn published_crates_never_depend_on_the_dev_ones() {
    for dev in ["infra-testkit", "infra-examples", "infra-benches", "xtask"] {
        refused("infra-monitor", normal(dev), "not published");
        allowed("infra-examples", normal(dev));
    }
}

#[test]
fn types_take_two_features_of_tokio() {
    allowed("infra-types", driver("tokio", Kind::Normal).with_features(&["rt", "time"]));
    refused("infra-types", driver("tokio", Kind::Normal).with_features(&["rt", "net"]), "rt and time only");
    allowed("infra-types", driver("tokio", Kind::Dev).with_features(&["macros"]));
}

#[test]
fn every_member_has_a_layer() {
    assert!(check(&[Member::new("infra-common")])[0].contains("infra-common has no layer"));
    refused("infra-emergency", normal("infra-common"), "has no layer");
}

#[test]
fn publishing_follows_the_layer() {
    let hidden = Member { published: false, ..Member::new("infra-types") };
    assert!(check(&[hidden])[0].contains("remove publish = false"));
    assert!(check(&[Member::new("infra-testkit")])[0].contains("set publish = false"));
}

#[test]
fn a_crate_lives_where_its_name_says() {
    let moved = Member { dir: PathBuf::from("crates/store"), ..Member::new("infra-state-store") };
    assert!(check(&[moved])[0].contains("crates/store"));
    let factory = Member { dir: PathBuf::from("crates/infra-factory"), ..Member::new("infra-factory") };
    assert_eq!(check(&[factory]), Vec::<String>::new());
}

#[test]
fn nothing_is_on_by_default() {
    let mut member = Member::new("infra-state-store");
    member.features.insert("default".into(), vec![]);
    assert_eq!(check(&[member.clone()]), Vec::<String>::new());
    member.features.insert("default".into(), vec!["sqlite".into()]);
    assert!(check(&[member])[0].contains("default = []"));
}

#[test]
fn no_package_stands_in_two_layers() {
    let mut all: Vec<&str> = TABLE.iter().flat_map(|(_, packages)| packages.iter().copied()).collect();
    let before = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), before);
}
