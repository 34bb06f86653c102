//! The only way down.

use infra_state_store::Version;
use infra_types::{EventId, UserId};

use crate::{
    controller::{EmergencyController, clip},
    durable::{Found, Record},
    error::EmergencyError,
    raise::{ATTEMPTS, Written},
    state::{EmergencyState, Snapshot},
};

impl EmergencyController {
    /// Goes back to NORMAL, from any state, in the name of a person who has looked at `expected_version` (from
    /// [`Snapshot::version`]). A stop that came after that look is never undone. This process goes on refusing until the store
    /// has the re-arm; other processes follow with their next refresh. At NORMAL nothing is written.
    ///
    /// An unreadable record is replaced, unless a newer program wrote it; inspect it first.
    ///
    /// # Errors
    /// `Invalid` without a reason; `Moved` if the record is at another version, also because a stop of this process that had
    /// not been written yet was written first; `Damaged` for a record of a newer program; `Store` if it was not written, or,
    /// with kind `Ambiguous`, if nobody can tell: look again; `Contended`.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the re-arm wholly done or wholly undone.
    pub async fn rearm(&self, by: &UserId, reason: &str, expected_version: u64) -> Result<Snapshot, EmergencyError> {
        if reason.trim().is_empty() {
            return Err(EmergencyError::invalid("re-arming needs a reason: write what was found and why it is safe"));
        }
        let (at, id) = (self.clock.wall(), EventId::generate());
        let mut lost_reply = None;
        for _ in 0..ATTEMPTS {
            let read = match self.read().await {
                Ok(read) => self.write_pending().await.map(|wrote| (!wrote).then_some(read)),
                Err(e) => Err(e),
            };
            let (found, accepted) = match read {
                Ok(Some(read)) => read,
                Ok(None) => continue,
                Err(e) => return Err(lost_reply.map_or(e, EmergencyError::Store)),
            };
            let enforced = self.snapshot();
            let (from, version, transitions, when) = match (found, accepted) {
                (Found::Record(r, _), Ok(())) if r.id == id => return Ok(enforced),
                (Found::Record(r, when), Ok(())) => (r.state, r.version.0, r.transitions, when),
                (Found::Record(r, when), Err(_)) => (r.state, enforced.version, enforced.transitions, when),
                (Found::Damaged { replace: Some(when), .. }, _) => {
                    (enforced.state, enforced.version, enforced.transitions, when)
                }
                (Found::Damaged { what, replace: None, .. }, _) => return Err(EmergencyError::Damaged { what }),
            };
            if version != expected_version {
                return Err(EmergencyError::Moved {
                    expected: expected_version,
                    found: version,
                    state: enforced.state.max(from),
                });
            }
            if from == EmergencyState::Normal && enforced.state == EmergencyState::Normal {
                return Ok(enforced);
            }
            let next = Record {
                schema: Record::SCHEMA,
                state: EmergencyState::Normal,
                version: Version(version + 1),
                transitions: transitions + 1,
                reason: clip(reason),
                by: by.to_string(),
                at,
                id: id.clone(),
            };
            match self.write(next, from, when).await? {
                Written::Done => return Ok(self.snapshot()),
                Written::ReadAgain(lost) => lost_reply = lost,
            }
        }
        Err(lost_reply.map_or(EmergencyError::Contended, EmergencyError::Store))
    }
}
