//! What is read, each in one moment of the server.

use bytes::Bytes;
use infra_backends::Access;
use infra_types::{EventId, Timestamp};
use redis::Value as Reply;

use super::{RedisStateStore, batch, cell, keys::Space, scripts};
use crate::{
    batch::{OutboxPosition, OutboxRow, Version},
    changes::{Change, ChangePosition, Changes},
    error::StoreError,
    key::Key,
    list::{ListOrder, ListPage, ListRange},
    store::{Entry, Page, Scan},
    validate::changes_not_kept,
};

impl RedisStateStore {
    /// A key whose time the server has judged already.
    pub(super) async fn read_one(&self, space: &Space, key: &Key) -> Result<Option<Entry>, StoreError> {
        let name = space.key(key);
        let mut cmd = redis::Cmd::with_capacity(2, 8 + name.len());
        cmd.arg("GET").arg(&name);
        found(key, self.query(&name, &cmd, Access::Read).await?, None)
    }

    pub(super) async fn read_plain(&self, space: &Space, keys: &[Key]) -> Result<Vec<Option<Entry>>, StoreError> {
        let mut cmd = redis::cmd("MGET");
        for key in keys {
            cmd.arg(space.key(key));
        }
        let replies = array(self.query(space.base(), &cmd, Access::Read).await?)?;
        entries(keys, replies.into_iter(), None)
    }

    /// Keys among which are leases: their rows outlive their time.
    pub(super) async fn read_with_time(&self, space: &Space, keys: &[Key]) -> Result<Vec<Option<Entry>>, StoreError> {
        let mut call = scripts::READ.call(keys.len());
        for key in keys {
            call.arg(space.key(key));
        }
        let mut replies = array(self.script(space, &scripts::READ, &call, Access::Read).await?)?.into_iter();
        let now_ms = number(replies.next())?;
        entries(keys, replies, Some(i64::try_from(now_ms).unwrap_or(i64::MAX)))
    }

    pub(super) async fn page(&self, space: &Space, scan: &Scan) -> Result<Page, StoreError> {
        let [_, index, ends, _] = space.common();
        let mut from = match scan.after.as_deref() {
            Some(after) if after >= scan.prefix.as_str() => format!("({after}").into_bytes(),
            _ => format!("[{}", scan.prefix).into_bytes(),
        };
        let (to, mut page) = (prefix_end(&scan.prefix), Page::default());
        // One more than asked for tells whether there is another page.
        let mut wanted = scan.limit + 1;
        loop {
            let mut call = scripts::SCAN.call(2);
            call.arg(&index).arg(&ends).arg(space.records()).arg(&from).arg(&to).arg(wanted);
            let mut replies = array(self.script(space, &scripts::SCAN, &call, Access::Read).await?)?.into_iter();
            from = bytes(replies.next())?;
            let mut missing = Vec::new();
            while let Some(name) = replies.next() {
                let key = Key::record(text(Some(name))?).map_err(|e| StoreError::Corrupt { reason: e.to_string() })?;
                match replies.next() {
                    Some(Reply::BulkString(raw)) => {
                        page.entries.extend(cell::entry(&key, raw, None)?.map(|e| (key, e)))
                    }
                    _ => missing.push(key),
                }
            }
            if !missing.is_empty() {
                self.prune(space, &missing).await?;
            }
            wanted = (scan.limit + 1).saturating_sub(page.entries.len());
            if wanted == 0 {
                page.entries.truncate(scan.limit);
                page.next = page.entries.last().map(|(key, _)| key.name().to_owned());
                return Ok(page);
            }
            if from.is_empty() {
                return Ok(page);
            }
        }
    }

    /// Forgets names of records that something else removed.
    async fn prune(&self, space: &Space, gone: &[Key]) -> Result<(), StoreError> {
        let [_, index, ends, _] = space.common();
        let mut call = scripts::PRUNE.call(2 + gone.len());
        call.arg(index).arg(ends);
        for key in gone {
            call.arg(space.key(key));
        }
        call.arg(space.name_at());
        // Repeating it does no harm, so a lost answer is no doubt about anything.
        self.script(space, &scripts::PRUNE, &call, Access::Read).await.map(|_| ())
    }

    pub(super) async fn list_page(&self, space: &Space, list: &Key, range: ListRange) -> Result<ListPage, StoreError> {
        let (skip, limit) = (i64::from(range.skip), i64::try_from(range.limit).unwrap_or(i64::MAX));
        let (from, to) = match range.order {
            ListOrder::OldestFirst => (skip, skip + limit - 1),
            ListOrder::NewestFirst => (-skip - limit, -skip - 1),
        };
        let mut call = scripts::LIST.call(1);
        call.arg(space.key(list)).arg(from).arg(to);
        let mut replies = array(self.script(space, &scripts::LIST, &call, Access::Read).await?)?.into_iter();
        let length = u32::try_from(number(replies.next())?).unwrap_or(u32::MAX);
        let values = array(replies.next().unwrap_or_default())?;
        let mut values =
            values.into_iter().map(|value| bytes(Some(value)).map(Bytes::from)).collect::<Result<Vec<_>, _>>()?;
        if range.order == ListOrder::NewestFirst {
            values.reverse();
        }
        Ok(ListPage { values, length })
    }

    pub(super) async fn messages(
        &self,
        space: &Space,
        outbox: &Key,
        after: Option<OutboxPosition>,
        limit: usize,
    ) -> Result<Vec<OutboxRow>, StoreError> {
        let name = space.outbox(outbox);
        let from = format!("({}-0", after.map_or(0, batch::position));
        let mut cmd = redis::cmd("XRANGE");
        cmd.arg(&name).arg(from).arg("+").arg("COUNT").arg(limit);
        array(self.query(&name, &cmd, Access::Read).await?)?.into_iter().map(message).collect()
    }

    pub(super) async fn changes_after(
        &self,
        space: &Space,
        after: Option<ChangePosition>,
        limit: usize,
    ) -> Result<Changes, StoreError> {
        let [meta, _, _, kept] = space.common();
        let mut call = scripts::CHANGES.call(2);
        call.arg(meta).arg(kept);
        match after {
            Some(position) => call.arg(batch::number(position.0)),
            None => call.arg(""),
        };
        call.arg(limit);
        let reply = self.script(space, &scripts::CHANGES, &call, Access::Read).await?;
        if reply == Reply::Nil {
            return Err(changes_not_kept());
        }
        let mut replies = array(reply)?.into_iter();
        let end = ChangePosition(number(replies.next())?);
        let gap = number(replies.next())? == 1;
        let Some(after) = after.filter(|_| !gap) else { return Ok(Changes { changes: Vec::new(), next: end, gap }) };
        let mut changes = Vec::new();
        while let Some(id) = replies.next() {
            changes.push(change(&text(Some(id))?, &text(replies.next())?)?);
        }
        let next = changes.last().map_or(after, |change| change.position);
        Ok(Changes { changes, next, gap })
    }
}

fn entries(
    keys: &[Key],
    replies: impl Iterator<Item = Reply>,
    now_ms: Option<i64>,
) -> Result<Vec<Option<Entry>>, StoreError> {
    let entries =
        keys.iter().zip(replies).map(|(key, reply)| found(key, reply, now_ms)).collect::<Result<Vec<_>, _>>()?;
    if entries.len() == keys.len() { Ok(entries) } else { Err(misread()) }
}

fn found(key: &Key, reply: Reply, now_ms: Option<i64>) -> Result<Option<Entry>, StoreError> {
    match reply {
        Reply::Nil => Ok(None),
        Reply::BulkString(raw) => cell::entry(key, raw, now_ms),
        _ => Err(misread()),
    }
}

/// `(` and the first text that is greater than all with this prefix: no byte of UTF-8 is 255, so the last one can be moved on.
fn prefix_end(prefix: &str) -> Vec<u8> {
    let mut end = format!("({prefix}").into_bytes();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

/// `[id, [field, value, …]]`.
fn message(row: Reply) -> Result<OutboxRow, StoreError> {
    let mut row = array(row)?.into_iter();
    let position = OutboxPosition { transaction: 0, sequence: stream_number(&text(row.next())?)? };
    let mut fields = array(row.next().unwrap_or_default())?.into_iter();
    let mut field = |name: &str| -> Result<Reply, StoreError> {
        match fields.next() {
            Some(Reply::BulkString(found)) if found == name.as_bytes() => fields.next().ok_or_else(misread),
            _ => Err(StoreError::Corrupt { reason: "a message of an outbox has other fields".into() }),
        }
    };
    let order_key = text(Some(field("o")?))?;
    let id = EventId::new(text(Some(field("i")?))?).map_err(|e| StoreError::Corrupt { reason: e.to_string() })?;
    Ok(OutboxRow { position, order_key, id, payload: bytes(Some(field("p")?))?.into() })
}

/// `VERSION EXPIRES NAME`.
fn change(id: &str, line: &str) -> Result<Change, StoreError> {
    let corrupt = || StoreError::Corrupt { reason: "a kept change does not read as one".into() };
    let mut words = line.splitn(3, ' ');
    let mut word = || words.next().ok_or_else(corrupt);
    let (version, expires, name) = (word()?, word()?, word()?);
    let version = if version == "-" { None } else { Some(Version(version.parse().map_err(|_| corrupt())?)) };
    let expires_ms: Option<i64> = if expires == "-" { None } else { Some(expires.parse().map_err(|_| corrupt())?) };
    let key = Key::record(name).map_err(|_| corrupt())?;
    let position = ChangePosition(stream_number(id)?);
    Ok(Change { position, key, version, expires_at: expires_ms.map(Timestamp::from_millis) })
}

fn stream_number(id: &str) -> Result<u64, StoreError> {
    let number = id.strip_suffix("-0").and_then(|number| number.parse().ok());
    number.ok_or_else(|| StoreError::Corrupt { reason: "a stream holds an id that this library never gives".into() })
}

pub(super) fn array(reply: Reply) -> Result<Vec<Reply>, StoreError> {
    match reply {
        Reply::Array(replies) => Ok(replies),
        Reply::Nil => Ok(Vec::new()),
        _ => Err(misread()),
    }
}

pub(super) fn bytes(reply: Option<Reply>) -> Result<Vec<u8>, StoreError> {
    match reply {
        Some(Reply::BulkString(bytes)) => Ok(bytes),
        _ => Err(misread()),
    }
}

pub(super) fn text(reply: Option<Reply>) -> Result<String, StoreError> {
    String::from_utf8(bytes(reply)?).map_err(|_| StoreError::Corrupt { reason: "a stored text is not UTF-8".into() })
}

pub(super) fn number(reply: Option<Reply>) -> Result<u64, StoreError> {
    let number = match reply {
        Some(Reply::Int(number)) => u64::try_from(number).ok(),
        Some(Reply::BulkString(digits)) => std::str::from_utf8(&digits).ok().and_then(|text| text.parse().ok()),
        _ => None,
    };
    number.ok_or_else(misread)
}

pub(super) fn misread() -> StoreError {
    StoreError::Corrupt { reason: "the server's answer is none that this library knows".into() }
}
