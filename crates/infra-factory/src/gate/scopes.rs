//! Which stops cover an order: those of its account's group too.

use infra_emergency::{EmergencyState, OrderScopes, Stance};
use infra_risk_engine::LimitSet;
use infra_types::{Order, Scope};

use super::OrderGate;

/// Which account is in which group, as far as it is known.
pub(super) struct Groups(Option<LimitSet>);

impl Groups {
    /// The scopes that an order lies in; in every group, if nobody knows in which.
    pub(super) fn scopes<'a>(&'a self, order: &'a Order) -> OrderScopes<'a> {
        let scopes = OrderScopes::of(order);
        match &self.0 {
            Some(set) => scopes.in_group(set.limits.groups.get(&order.account)),
            None => scopes,
        }
    }
}

impl OrderGate {
    /// What the kill switch says of an order now.
    pub(super) fn stance_of(&self, order: &Order) -> (Stance, EmergencyState) {
        let switch = &self.parts.emergency;
        let scopes = OrderScopes::of(order);
        // As if it were in every group: if that is open, it need not be known in which one it is.
        let stance = switch.stance_of(&scopes);
        if stance == Stance::Open {
            return (stance, switch.state_of(&scopes));
        }
        let groups = Groups(Some(self.parts.risk.limits()));
        let scopes = groups.scopes(order);
        (switch.stance_of(&scopes), switch.state_of(&scopes))
    }

    /// Who is in which group, read anew if `scope` is one: a bot that did not trade for a while may know an old list.
    pub(super) async fn groups_for(&self, scope: &Scope) -> Groups {
        if !matches!(scope, Scope::Group(_)) {
            return Groups(None);
        }
        let read = self.parts.risk.reload_limits().await;
        Groups(read.is_ok().then(|| self.parts.risk.limits()))
    }
}
