//! A figure against its limit.

use infra_types::Decimal;

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
