//! What a backend may be unable to do: a closed list, told truly.

use super::{Fixture, Log, event, pattern, start, store};
use crate::{BusInfo, SubscribeOptions};

/// Something that not every backend can do, by its nature. The list is closed: everything else every backend does. The reasons are in
/// `docs/event-bus-refusals.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Capability {
    /// Keep a stored event when this process dies.
    SurvivesProcess,
    /// Keep a stored event when the power fails.
    SurvivesPowerCut,
    /// Let consumers of other processes have stored events.
    SharedBetweenProcesses,
    /// Bring live events to the live subscriptions of other processes.
    LiveBetweenProcesses,
}

impl Capability {
    /// Every one.
    pub const ALL: [Self; 4] =
        [Self::SurvivesProcess, Self::SurvivesPowerCut, Self::SharedBetweenProcesses, Self::LiveBetweenProcesses];

    /// Whether a backend that describes itself so can do it.
    #[must_use]
    pub const fn is_in(self, info: &BusInfo) -> bool {
        match self {
            Self::SurvivesProcess => info.survives_process,
            Self::SurvivesPowerCut => info.survives_power_cut,
            Self::SharedBetweenProcesses => info.shared_between_processes,
            Self::LiveBetweenProcesses => info.live_between_processes,
        }
    }
}

/// What a bus says of itself makes sense, is the same on every handle and at every time, and agrees with what the fixture can show.
pub async fn what_a_backend_lacks_is_said(mut f: impl Fixture) {
    // A backend may claim the more only once it knows its server or its file, so it is asked something first.
    let _ = f.bus().status("nobody").await;
    let info = f.bus().info();
    assert!(!info.backend.is_empty());
    assert_eq!(info.limits, super::config().limits, "the suite reckons with its limits");
    let implies = |one: Capability, other: Capability| {
        assert!(!one.is_in(&info) || other.is_in(&info), "{one:?} without {other:?} makes no sense: {info:?}");
    };
    implies(Capability::SurvivesPowerCut, Capability::SurvivesProcess);
    implies(Capability::SharedBetweenProcesses, Capability::SurvivesProcess);
    implies(Capability::LiveBetweenProcesses, Capability::SharedBetweenProcesses);
    let log = Log::new();
    start(&f.bus(), SubscribeOptions::at_least_once(pattern("t"), "g", log.handler()))
        .await
        .stop()
        .await
        .expect("it stops");
    store(&f.bus(), event("t", "k", "a")).await;
    let other = f.other().await;
    assert_eq!(other.is_some(), info.shared_between_processes, "shared means that a second process can have it");
    if let Some(other) = &other {
        assert_eq!(other.status("g").await.expect("the same group").pending, 1);
        assert_eq!(other.info(), info);
    }
    assert_eq!(f.bus().info(), info);
    let survives = super::crash(&mut f, "g").await;
    assert_eq!(survives, info.survives_process);
    assert_eq!(super::pending(&f.bus(), "g").await, survives.then_some(1));
    assert_eq!(f.bus().info(), info);
}
