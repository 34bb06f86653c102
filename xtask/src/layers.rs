//! Who may depend on whom. ARCHITECTURE.md says why; this is the rule that the build holds.
//!
//! Only `[dependencies]` and `[build-dependencies]` are arrows: a test may use what it likes.

use crate::workspace::{Dependency, Kind, Member};

/// A layer; arrows point to a smaller one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// Vocabulary: no drivers, no I/O.
    L0,
    /// Opening databases.
    L1,
    /// Ports: the only crates that speak to a server or a file.
    L2,
    /// Capabilities: logic, no drivers, no arrows between them.
    L3,
    /// Composition.
    L4,
    /// Programs over a running composition.
    L5,
    /// Never published, and never beneath anything that is.
    Dev,
}

/// Every member and its layer. A crate that is planned may stand here before it exists.
pub const TABLE: &[(Layer, &[&str])] = &[
    (Layer::L0, &["infra-types"]),
    (Layer::L1, &["infra-backends"]),
    (Layer::L2, &["infra-state-store", "infra-event-bus", "infra-audit-log", "infra-records"]),
    (Layer::L3, &["infra-resilience", "infra-emergency", "infra-risk-engine", "infra-latency-monitor"]),
    (Layer::L3, &["infra-config", "infra-logging", "infra-health", "infra-alerts", "infra-security"]),
    (Layer::L4, &["infra-factory"]),
    (Layer::L5, &["infra-monitor", "infra-cli"]),
    (Layer::Dev, &["infra-testkit", "infra-examples", "infra-benches", "xtask"]),
];

/// The ports whose traits a capability may use; the backends behind them it may not choose.
const TRAITS_FOR_CAPABILITIES: &[&str] = &["infra-state-store", "infra-event-bus"];

/// Features that bring a driver in.
pub const BACKEND_FEATURES: &[&str] = &["sqlite", "redis", "postgres"];

/// Packages that speak to a database or a broker.
pub const DRIVERS: &[&str] = &[
    "rusqlite",
    "libsqlite3-sys",
    "sqlx",
    "sqlx-core",
    "sqlx-sqlite",
    "sqlx-postgres",
    "redis",
    "fred",
    "tokio-postgres",
    "postgres",
    "diesel",
];

/// The layer of a package, if it stands in [`TABLE`].
pub fn layer_of(package: &str) -> Option<Layer> {
    TABLE.iter().find(|(_, packages)| packages.contains(&package)).map(|(layer, _)| *layer)
}

/// Every breach of the rule, one sentence each; empty if it holds.
pub fn check(members: &[Member]) -> Vec<String> {
    members.iter().flat_map(check_member).collect()
}

fn check_member(member: &Member) -> Vec<String> {
    let name = &member.name;
    let Some(layer) = layer_of(name) else {
        return vec![format!("{name} has no layer: give it one in TABLE of xtask/src/layers.rs")];
    };
    let mut breaches = Vec::new();
    if member.published == (layer == Layer::Dev) {
        let fix = if member.published { "set publish = false" } else { "remove publish = false" };
        breaches.push(format!("{name} is in layer {layer:?}: {fix}"));
    }
    if layer != Layer::Dev && !is_in_its_folder(member) {
        breaches.push(format!("{name} lives in {}: the folder is the name without infra-", member.dir.display()));
    }
    if layer != Layer::Dev && member.features.get("default").is_some_and(|on| !on.is_empty()) {
        breaches.push(format!("{name} has default features: no backend is on unless it is asked for, default = []"));
    }
    let arrows = member.dependencies.iter().filter(|dependency| dependency.kind != Kind::Dev);
    for dependency in arrows.filter(|_| layer != Layer::Dev) {
        if let Some(reason) = refuse(layer, dependency) {
            breaches.push(format!("{name} -> {}: {reason}", dependency.name));
        }
    }
    breaches
}

fn is_in_its_folder(member: &Member) -> bool {
    let folder = member.dir.file_name().map(|folder| folder.to_string_lossy().into_owned()).unwrap_or_default();
    folder == member.name || format!("infra-{folder}") == member.name
}

/// Why a published crate of this layer may not have this arrow.
fn refuse(from: Layer, dependency: &Dependency) -> Option<String> {
    let name = dependency.name.as_str();
    if !dependency.in_workspace {
        return refuse_external(from, dependency);
    }
    let Some(to) = layer_of(name) else {
        return Some("it has no layer".to_owned());
    };
    if to == Layer::Dev {
        return Some("a published crate never depends on what is not published".to_owned());
    }
    if to == from {
        return Some(format!("both are {from:?}; what two of them do to each other is wiring of infra-factory"));
    }
    if to > from {
        return Some(format!("arrows point down, this one goes from {from:?} up to {to:?}"));
    }
    if from != Layer::L3 || to == Layer::L0 {
        return None;
    }
    if !TRAITS_FOR_CAPABILITIES.contains(&name) {
        return Some(format!("beneath L3 are infra-types and the traits of {}", TRAITS_FOR_CAPABILITIES.join(", ")));
    }
    let chosen = dependency.features.iter().find(|feature| BACKEND_FEATURES.contains(&feature.as_str()))?;
    Some(format!("an L3 crate uses the traits and chooses no backend, but asks for feature {chosen}"))
}

fn refuse_external(from: Layer, dependency: &Dependency) -> Option<String> {
    let may_drive = matches!(from, Layer::L1 | Layer::L2);
    if DRIVERS.contains(&dependency.name.as_str()) && !may_drive {
        return Some("drivers belong to infra-backends and the L2 ports".to_owned());
    }
    let small = |feature: &String| matches!(feature.as_str(), "rt" | "time");
    if from == Layer::L0 && dependency.name == "tokio" && !dependency.features.iter().all(small) {
        return Some("infra-types uses tokio's rt and time only".to_owned());
    }
    None
}

#[cfg(test)]
mod tests;
