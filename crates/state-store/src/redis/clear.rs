//! Emptying a namespace, a chunk a script, so that others get their turn in between.

use infra_backends::Access;
use infra_types::ErrorKind;

use super::{
    RedisStateStore,
    keys::Space,
    reads::{array, bytes, number},
    scripts,
};
use crate::error::StoreError;

/// Keys that one step of a scan looks at, and keys of one script.
const LOOK: usize = 1_000;
const CHUNK: usize = 500;
/// Scans of the whole server before it is given up: each but the first because the servers changed meanwhile.
const PASSES: u32 = 5;

impl RedisStateStore {
    pub(super) async fn clear_all(&self, space: &Space) -> Result<u64, StoreError> {
        let mut removed = 0;
        for _ in 0..PASSES {
            let before = self.topology();
            removed += self.clear_pass(space).await?;
            // A cursor means nothing to another server: keys may have been passed over.
            if self.topology() == before {
                return Ok(removed);
            }
        }
        let message =
            "the servers changed while a namespace was cleared; a part of it may be left: clear it again".to_owned();
        Err(StoreError::Backend { message, kind: ErrorKind::Transient })
    }

    /// Moves on whenever the owner of a slot may be another one.
    fn topology(&self) -> u64 {
        let statistics = self.redis.statistics();
        statistics.failovers + statistics.redirects + statistics.reconnects
    }

    async fn clear_pass(&self, space: &Space) -> Result<u64, StoreError> {
        let (mut removed, mut cursor) = (0, "0".to_owned());
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(&cursor).arg("MATCH").arg(space.pattern()).arg("COUNT").arg(LOOK);
            let mut replies = array(self.query(space.base(), &scan, Access::Read).await?)?.into_iter();
            cursor = number(replies.next())?.to_string();
            let keys = array(replies.next().unwrap_or_default())?;
            let keys = keys.into_iter().map(|key| bytes(Some(key))).collect::<Result<Vec<_>, _>>()?;
            let own: Vec<Vec<u8>> = keys.into_iter().filter(|key| space.holds_value(key)).collect();
            for chunk in own.chunks(CHUNK) {
                removed += self.clear_chunk(space, chunk).await?;
            }
            if cursor == "0" {
                break;
            }
        }
        // Without keys: in a cluster the namespace's owner answers this one, whoever was scanned.
        self.clear_chunk(space, &[]).await?;
        Ok(removed)
    }

    async fn clear_chunk(&self, space: &Space, keys: &[Vec<u8>]) -> Result<u64, StoreError> {
        let common = space.common();
        let mut call = scripts::CLEAR.call(common.len() + keys.len());
        for key in &common {
            call.arg(key);
        }
        for key in keys {
            call.arg(key);
        }
        call.arg(space.name_at() - 2);
        number(Some(self.script(space, &scripts::CLEAR, &call, Access::Write).await?))
    }
}
