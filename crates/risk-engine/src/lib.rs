#![doc = include_str!("../README.md")]
#![expect(
    clippy::result_large_err,
    reason = "a failed check moves into the decision; a box would allocate for every order"
)]

mod account;
mod answers;
mod book;
mod checkpoint;
mod config;
mod correlation;
mod decision;
mod decision_log;
mod deposits;
mod engine;
mod error;
mod guard;
mod held;
mod history;
mod holder;
mod ledger;
mod limit_store;
pub mod limits;
mod load;
mod local;
mod market;
mod marks;
mod messages;
mod moves;
mod orphans;
mod overrides;
mod plan;
mod portfolio;
mod position;
mod query;
mod rates;
mod reconcile;
mod reservation;
mod risk_events;
mod rulebook;
mod rules;
mod settle;
mod slots;
mod strategy;
mod truth;
mod validate;
mod workflow;
mod working;

pub use account::AccountState;
pub use config::{LimitValue, RiskLimits};
pub use correlation::{
    AdjustedExposure, Correlation, CorrelationConfig, CorrelationTracker, ExposureBasis, GroupExposure, Intensity,
    NotEnoughData, ShrinkTarget, Weighting,
};
pub use decision::{Check, Decision, Level, code};
pub use decision_log::{
    DecisionClock, DecisionRecorder, Difference as ReplayDifference, Input, ReplayError, ReplayReport, replay,
};
pub use engine::{RiskEngine, Stance};
pub use error::RiskError;
pub use guard::{Guard, GuardEvent};
pub use held::{HeldOrder, HeldState, OrphanCause};
pub use history::{HistoryRange, HistorySample, PortfolioHistory};
pub use holder::{HolderConfig, HolderState};
pub use local::{Add, LocalError, LocalLedger, LocalSettled, LocalSizes, Metric, Moment, Reserved, Route, Ticket};
pub use market::{Quote, QuoteError, QuotesRefused};
pub use messages::Message;
pub use orphans::Compose;
pub use overrides::{Enabled, OVERRIDE_LIFE_MAX, Override};
pub use portfolio::{
    AccountMetrics, PortfolioMetrics, Raise, Raised, ScopeMetrics, Threshold, ThresholdMetric,
    raised as raised_thresholds,
};
pub use position::{Booked, Position};
pub use reconcile::ReconcileError;
pub use reservation::{Approval, Effect, Outcome, Reservation, Settled};
pub use risk_events::{RiskEvent, RiskEventFilter, RiskEventKind, RiskEventPage, RiskEvents, Severity};
pub use rules::{Coverage, Limit, LimitSet, Mode, Rule, ScopeKind};
pub use strategy::StrategyState;
pub use truth::{Difference, Reconciled, Settles, VenueBalance, VenueOrder, VenueTruth};
pub use workflow::{
    Companions, PositionAsk, PositionGrant, PositionRequest, PositionWorkflow, RequestFilter, RequestState,
    WorkflowConfig, WorkflowError,
};
