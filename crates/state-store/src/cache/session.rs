//! Who is logged in, and what they may do.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use infra_types::{Timestamp, UserId};
use serde::{Deserialize, Serialize};

use super::typed::{Cached, TypedCache};
use crate::{codec::Stored, key::KeyKind};

/// Sessions by their id. [`touch`](TypedCache::touch) keeps one alive. The id is a key's name, which is printed and stored as it is: use
/// the hash of a token, never the token.
pub type SessionCache = TypedCache<Session>;

/// What users may do, by user. Evicted where cache keys are bounded: absence means "look it up", never "may not".
pub type PermissionCache = TypedCache<Permissions>;

/// Somebody who is logged in. `Debug` shows the names of the attributes, not their values.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Its name.
    pub id: String,
    /// Whose.
    pub user: UserId,
    /// Since when.
    pub created_at: Timestamp,
    /// What the program wants to remember with it.
    pub attributes: BTreeMap<String, String>,
}

impl Stored for Session {
    const NAME: &'static str = "session";
    const SCHEMA: u32 = 1;
}

impl Cached for Session {
    type Id = str;
    const PREFIX: &'static str = "session:";
    const TTL: Duration = Duration::from_secs(86_400);

    fn id(&self) -> String {
        self.id.clone()
    }

    fn name(id: &str) -> String {
        id.to_owned()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.id)
            .field("user", &self.user)
            .field("created_at", &self.created_at)
            .field("attributes", &self.attributes.keys())
            .finish()
    }
}

/// What a user may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permissions {
    /// Who.
    pub user: UserId,
    /// In which roles.
    pub roles: BTreeSet<String>,
    /// What.
    pub allowed: BTreeSet<String>,
}

impl Permissions {
    /// Whether the user may do this.
    #[must_use]
    pub fn allows(&self, what: &str) -> bool {
        self.allowed.contains(what)
    }
}

impl Stored for Permissions {
    const NAME: &'static str = "permissions";
    const SCHEMA: u32 = 1;
}

impl Cached for Permissions {
    type Id = UserId;
    const PREFIX: &'static str = "perm:";
    const TTL: Duration = Duration::from_secs(300);
    const KIND: KeyKind = KeyKind::Cache;

    fn id(&self) -> String {
        Self::name(&self.user)
    }

    fn name(user: &UserId) -> String {
        user.to_string()
    }
}
