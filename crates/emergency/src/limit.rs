//! A figure against its limit.

use std::time::Duration;

use infra_types::{Decimal, Monotonic, Scope};
use parking_lot::Mutex;

use crate::{controller::EmergencyController, error::EmergencyError, stop::Stop};

/// What [`check_risk_limit`](crate::EmergencyController::check_risk_limit) found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitVerdict {
    /// Below the limit.
    Within {
        /// How much is left, in the unit of the figures.
        headroom: Decimal,
    },
    /// At the limit or beyond it.
    Breached {
        /// How far beyond, in the unit of the figures; zero exactly at the limit.
        excess: Decimal,
        /// Whether trading was halted because of it.
        halted: bool,
    },
}

impl LimitVerdict {
    /// Whether the limit was reached.
    #[must_use]
    pub fn is_breached(self) -> bool {
        matches!(self, Self::Breached { .. })
    }
}

/// How a [`LimitWatch`] warns, halts and calms down. Shares are of the limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitPolicy {
    /// What is stopped. Default: the firm.
    pub scope: Scope,
    /// From this share on it warns, and raises the scope to ALERT. Default 0.80; above 0 and below 1.
    pub warn_at: Decimal,
    /// A warning is over below this share only. Default 0.70; not above `warn_at`, and above or at 0. (A breach is over below
    /// `warn_at`.)
    pub clear_below: Decimal,
    /// Whether a warning raises the scope to ALERT, which lets nothing through that adds risk. Default true.
    pub alert: bool,
    /// Whether a breach raises the scope to HALT. Default true.
    pub halt: bool,
    /// How long a level that lasts is no news again. Default 60 s.
    pub notify_every: Duration,
}

impl Default for LimitPolicy {
    fn default() -> Self {
        Self {
            scope: Scope::Firm,
            warn_at: Decimal::new(80, 2),
            clear_below: Decimal::new(70, 2),
            alert: true,
            halt: true,
            notify_every: Duration::from_secs(60),
        }
    }
}

/// How near a figure is to its limit, with hysteresis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LimitLevel {
    /// Far enough.
    Within,
    /// At the warning or beyond it.
    Warned,
    /// At the limit or beyond it.
    Breached,
}

/// What [`LimitWatch::check`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitReport {
    /// The level now.
    pub level: LimitLevel,
    /// The level at the check before.
    pub was: LimitLevel,
    /// How much is left, in the unit of the figures; negative beyond the limit.
    pub headroom: Decimal,
    /// Whether somebody should be told: the level changed, or it lasts and the last news of it is `notify_every` old.
    pub is_news: bool,
}

#[derive(Debug)]
struct Watched {
    level: LimitLevel,
    told: Option<Monotonic>,
}

/// One limit that is watched over many checks: it warns before it halts, and does not flutter.
///
/// Falling back calms the report only. What it stopped stays stopped until a person re-arms it; a breach that still lasts then
/// halts again with the next check, a warning does not alert again before it was cleared.
#[derive(Debug)]
pub struct LimitWatch {
    name: String,
    policy: LimitPolicy,
    watched: Mutex<Watched>,
}

impl LimitWatch {
    /// Watches the limit `name`.
    ///
    /// # Errors
    /// `Invalid` unless 0 ≤ `clear_below` ≤ `warn_at` < 1 and `warn_at` > 0.
    pub fn new(name: impl Into<String>, policy: LimitPolicy) -> Result<Self, EmergencyError> {
        let (warn, clear) = (policy.warn_at, policy.clear_below);
        if warn <= Decimal::ZERO || warn >= Decimal::ONE || clear < Decimal::ZERO || clear > warn {
            let rule = "the warning must be above 0 and below 1, and be cleared at or below that";
            return Err(EmergencyError::invalid(format!("{rule}: warn_at {warn}, clear_below {clear}")));
        }
        let watched = Mutex::new(Watched { level: LimitLevel::Within, told: None });
        Ok(Self { name: name.into(), policy, watched })
    }

    /// Compares a figure with its limit, in one unit of the caller's choice: `current >= limit` is a breach, whatever their signs. A
    /// limit that is not above zero has no warning before it.
    ///
    /// # Errors
    /// As [`EmergencyController::halt_in`]; the stop holds in this process all the same, except after `TooManyScopes`.
    ///
    /// # Cancel safety
    /// As [`EmergencyController::halt`].
    pub async fn check(
        &self,
        switch: &EmergencyController,
        current: Decimal,
        limit: Decimal,
    ) -> Result<LimitReport, EmergencyError> {
        let is_breached = current >= limit;
        let report = self.judge(switch.clock.now(), current, limit);
        let raise = match report.level {
            _ if is_breached && self.policy.halt => Some(Stop::halt as fn(&str, &str) -> Stop),
            // A breach that must not halt is at least worth an alert.
            LimitLevel::Warned | LimitLevel::Breached if report.was == LimitLevel::Within && self.policy.alert => {
                Some(Stop::alert as fn(&str, &str) -> Stop)
            }
            _ => None,
        };
        if let Some(stop) = raise {
            let reason = format!("{} is at {current}, its limit is {limit}", self.name);
            let stop = stop(switch.id().as_str(), &reason).automatic().in_scope(self.policy.scope.clone());
            let stopped = switch.stop(stop).await;
            if let Err(EmergencyError::TooManyScopes { .. }) = stopped {
                // Nothing holds, so the next check has to try again.
                self.watched.lock().level = report.was;
            }
            stopped?;
        }
        Ok(report)
    }

    fn judge(&self, now: Monotonic, current: Decimal, limit: Decimal) -> LimitReport {
        let mut watched = self.watched.lock();
        let was = watched.level;
        // Shares are at most 1, so the products are no larger than the limit.
        let beyond = |share: Decimal| limit > Decimal::ZERO && current >= limit * share;
        let level = if current >= limit || (was == LimitLevel::Breached && beyond(self.policy.warn_at)) {
            LimitLevel::Breached
        } else if beyond(self.policy.warn_at) || (was > LimitLevel::Within && beyond(self.policy.clear_below)) {
            LimitLevel::Warned
        } else {
            LimitLevel::Within
        };
        let is_due = watched.told.is_none_or(|told| now.since(told) >= self.policy.notify_every);
        let is_news = level != was || (level > LimitLevel::Within && is_due);
        if is_news {
            watched.told = Some(now);
        }
        watched.level = level;
        LimitReport { level, was, headroom: limit.saturating_sub(current), is_news }
    }
}
