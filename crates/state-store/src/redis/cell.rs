//! How a value stands in a string: `KIND VERSION EXPIRES\n`, then its bytes.
//!
//! The kind is `b` (bytes), `n` (a counter, in digits) or `m` (a mark); the version is 0 where there is none; what never expires has `-`.
//! A kind that is none of these was written by something else, or by a later release. A lease is `l FENCE EXPIRES\nHOLDER`.

use bytes::Bytes;
use infra_types::Timestamp;

use crate::{
    batch::Version,
    error::StoreError,
    key::{Key, KeyKind},
    store::{Entry, Value},
};

/// No head is longer: a kind, two numbers of 20 digits and three separators.
const HEAD_MAX: usize = 48;

struct Head<'a> {
    kind: &'a str,
    number: u64,
    expires_ms: Option<i64>,
    /// Where the bytes begin.
    len: usize,
}

fn head(raw: &[u8]) -> Option<Head<'_>> {
    let len = raw.iter().take(HEAD_MAX).position(|byte| *byte == b'\n')?;
    let mut words = std::str::from_utf8(&raw[..len]).ok()?.split(' ');
    let (kind, number, expires) = (words.next()?, words.next()?, words.next()?);
    let expires_ms = if expires == "-" { None } else { Some(expires.parse().ok()?) };
    words.next().is_none().then_some(Head { kind, number: number.parse().ok()?, expires_ms, len: len + 1 })
}

fn corrupt(key: &Key) -> StoreError {
    let reason =
        format!("{key:?} does not begin as values of this library do: something else or a later release wrote it");
    StoreError::Corrupt { reason }
}

/// The head of a cache key that stays for ever.
pub(super) const CACHE_FOR_EVER: [&[u8]; 2] = [b"b 0 -\n", b"n 0 -\n"];

/// A cache key or a record as it was read; none if it expired by `now_ms`, where that is known (else Redis has judged it).
pub(super) fn entry(key: &Key, raw: Vec<u8>, now_ms: Option<i64>) -> Result<Option<Entry>, StoreError> {
    if key.kind() == KeyKind::Lease {
        return lease(key, &raw, now_ms.unwrap_or(i64::MIN));
    }
    let Head { kind, number, expires_ms, len } =
        head(&raw).filter(|head| matches!(head.kind, "b" | "n")).ok_or_else(|| corrupt(key))?;
    if let (Some(at), Some(now)) = (expires_ms, now_ms)
        && now >= at
    {
        return Ok(None);
    }
    let version = (key.kind() == KeyKind::Record).then_some(Version(number));
    let value = if kind == "b" {
        Value::Bytes(Bytes::from(raw).slice(len..))
    } else {
        let digits = std::str::from_utf8(&raw[len..]).ok().and_then(|text| text.parse().ok());
        Value::Counter(digits.ok_or_else(|| corrupt(key))?)
    };
    Ok(Some(Entry { value, version, expires_at: expires_ms.map(Timestamp::from_millis) }))
}

fn lease(key: &Key, raw: &[u8], now_ms: i64) -> Result<Option<Entry>, StoreError> {
    let head = head(raw).filter(|head| head.kind == "l").ok_or_else(|| corrupt(key))?;
    let (holder, expires_ms) = (&raw[head.len..], head.expires_ms.ok_or_else(|| corrupt(key))?);
    Ok((!holder.is_empty() && now_ms < expires_ms).then(|| Entry {
        value: Value::Bytes(Bytes::copy_from_slice(holder)),
        version: Some(Version(head.number)),
        expires_at: Some(Timestamp::from_millis(expires_ms)),
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(key: &Key, raw: &[u8]) -> Result<Option<Entry>, StoreError> {
        entry(key, raw.to_vec(), Some(1_000))
    }

    #[test]
    fn what_the_scripts_write_is_read() {
        let (record, cache, lease) = (Key::record("k").unwrap(), Key::cache("k").unwrap(), Key::lease("k").unwrap());
        let found = read(&record, b"b 9007199254740991 1001\na\nb").unwrap().unwrap();
        assert_eq!(found.value, Value::from(&b"a\nb"[..]));
        assert_eq!(found.version, Some(Version(9_007_199_254_740_991)));
        assert_eq!(found.expires_at, Some(Timestamp::from_millis(1_001)));
        assert_eq!(read(&record, b"b 1 1000\nx").unwrap(), None, "it ends at its moment");
        let number = read(&cache, b"n 0 -\n-5").unwrap().unwrap();
        assert_eq!((number.value, number.version, number.expires_at), (Value::Counter(-5), None, None));
        assert_eq!(read(&lease, b"l 7 1001\nme").unwrap().unwrap().version, Some(Version(7)));
        assert_eq!(read(&lease, b"l 7 1001\n").unwrap(), None, "nobody holds it");
        assert_eq!(read(&lease, b"l 7 1000\nme").unwrap(), None, "it ran out");
    }

    #[test]
    fn anything_else_is_corrupt() {
        let (record, lease) = (Key::record("k").unwrap(), Key::lease("k").unwrap());
        for raw in [
            "",
            "hello",
            "b",
            "b 1 -",
            "c 1 -\n",
            "b x -\n",
            "b 1 x\n",
            "b 1 - -\n",
            "n 1 -\nfive",
            "l 1 5\nme",
            "m 0 -\n",
        ] {
            let refused = read(&record, raw.as_bytes());
            assert!(matches!(refused, Err(StoreError::Corrupt { .. })), "{raw:?}: {refused:?}");
        }
        for raw in ["", "b 1 -\nme", "l 1 -\nme", "l x 5\nme"] {
            assert!(matches!(read(&lease, raw.as_bytes()), Err(StoreError::Corrupt { .. })), "{raw:?}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(raw: Vec<u8>) {
            for key in [Key::record("k").unwrap(), Key::lease("k").unwrap()] {
                let _ = entry(&key, raw.clone(), Some(0));
            }
        }
    }
}
