//! From an older key, or none, to the active one.

use infra_types::Namespace;

use super::{EncryptedStateStore, seal::Place};
use crate::{
    batch::{Batch, Ttl, When},
    error::StoreError,
    op::Op,
    store::{Scan, Value},
};

/// Records of one page: a page is read into memory, and a value may have a mebibyte.
const PAGE: usize = 32;

/// What a rotation found and did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rotated {
    /// Records that were seen.
    pub seen: u64,
    /// Records that were encrypted anew.
    pub rewritten: u64,
    /// Records that somebody else wrote or deleted meanwhile: whoever writes, writes under the active key.
    pub changed_meanwhile: u64,
}

impl EncryptedStateStore {
    /// Encrypts the records under a prefix anew that are not under the active key (with [`accept_plain`](Self::accept_plain) also those
    /// that are not encrypted), each if nobody else writes it meanwhile; times to live stay, versions move on. Counters, cache
    /// keys, lists and outboxes stay as they are.
    ///
    /// # Errors
    /// As [`StateStore::scan`](crate::StateStore::scan) and [`StateStore::apply`](crate::StateStore::apply), `WrongCodec` or `Corrupt` for a record that cannot be read. After any of them, and
    /// after `Ambiguous` too, it is safe to call it again: it goes on where work is left.
    ///
    /// # Cancel safety
    /// Dropping the future leaves a part rewritten; every record can be read.
    pub async fn rotate(&self, namespace: &Namespace, prefix: &str) -> Result<Rotated, StoreError> {
        let mut rotated = Rotated::default();
        let mut scan = Scan { limit: PAGE, ..Scan::new(prefix) };
        loop {
            let page = self.inner.scan(namespace, scan.clone()).await?;
            for (key, entry) in page.entries {
                rotated.seen += 1;
                let (Value::Bytes(stored), Some(version)) = (&entry.value, entry.version) else { continue };
                let place = Place::value(namespace, &key);
                if self.keys.is_current(&place, stored)? {
                    continue;
                }
                let value = self.keys.seal(&place, &self.open(&place, stored)?)?.into();
                let op = Op::Set { key: key.clone(), value, ttl: Ttl::Keep, when: When::Version(version) };
                match self.inner.apply(Batch::new(namespace.clone()).with(op)).await {
                    Ok(_) => rotated.rewritten += 1,
                    Err(StoreError::Mismatch { .. }) => rotated.changed_meanwhile += 1,
                    Err(e) => return Err(e),
                }
            }
            match page.next {
                None => return Ok(rotated),
                next => scan.after = next,
            }
        }
    }
}
