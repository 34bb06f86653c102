//! Typed values that say what they are.

mod ext;

use std::io::Write;

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

pub use self::ext::{StoredEntry, StoredExt, StoredPage};
use crate::{error::StoreError, ext::to_json, key::Key};

/// A type that is kept in stores for longer than one version of a program. Its values are written as JSON behind one line that
/// names codec, type and schema, so that a reader knows what it has before it reads:
///
/// ```text
/// infra json order 3
/// {"id":"…","qty":"0.5"}
/// ```
///
/// A value of another codec or type, or of a newer schema, is refused as `WrongCodec`; one of an older schema goes through
/// [`upgrade`](Self::upgrade). Reading upgrades what is given, not what is stored.
///
/// ```
/// use infra_state_store::{MemoryStateStore, Key, Stored, StoredExt, Ttl};
/// use infra_types::{Namespace, SystemClock};
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Cursor { offset: u64, epoch: u32 }
///
/// impl Stored for Cursor {
///     const NAME: &'static str = "cursor";
///     const SCHEMA: u32 = 2;
///     fn upgrade(from: u32, old: serde_json::Value) -> Option<Self> {
///         // Schema 1 had no epochs.
///         (from == 1).then(|| Some(Self { offset: old["offset"].as_u64()?, epoch: 0 })).flatten()
///     }
/// }
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let (store, ns) = (MemoryStateStore::new(SystemClock::shared()), Namespace::new("feed")?);
/// let key = Key::record("cursor")?;
/// store.set_stored(&ns, &key, &Cursor { offset: 7, epoch: 1 }, Ttl::Never).await?;
/// assert_eq!(store.get_stored::<Cursor>(&ns, &key).await?.unwrap().offset, 7);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Stored: Serialize + DeserializeOwned + Send + Sync {
    /// The type's name for ever: `[a-z0-9_.-]{1,64}`. Another name is a compile error.
    const NAME: &'static str;

    /// Counts up with every change of the fields that an older reader would misread.
    const SCHEMA: u32;

    /// Makes a value of one that was written under an older schema (`from < SCHEMA`); none if it cannot be read any more.
    #[must_use]
    fn upgrade(from: u32, old: serde_json::Value) -> Option<Self> {
        let _ = (from, old);
        None
    }
}

/// The header is short, so that one that is searched for in foreign bytes is found or given up soon.
const HEADER_BYTES_MAX: usize = 100;

/// A value as it is stored, for a [`Batch`](crate::Batch), a list or an outbox.
///
/// # Errors
/// `Invalid` if it has no JSON form.
pub fn encode_stored<T: Stored>(value: &T) -> Result<Bytes, StoreError> {
    const { assert!(is_name(T::NAME), "Stored::NAME must match [a-z0-9_.-]{{1,64}}") };
    let json = to_json(value)?;
    let mut bytes = Vec::with_capacity(json.len() + HEADER_BYTES_MAX);
    // Writing to memory cannot fail.
    let _ = writeln!(bytes, "infra json {} {}", T::NAME, T::SCHEMA);
    bytes.extend(json);
    Ok(bytes.into())
}

/// The value in stored bytes. `key` is where they come from, for the error.
///
/// # Errors
/// `WrongCodec` if they are not a `T` of this schema or of one that it upgrades. It never repeats the bytes: they may be a secret.
pub fn decode_stored<T: Stored>(key: &Key, bytes: &[u8]) -> Result<T, StoreError> {
    const { assert!(is_name(T::NAME), "Stored::NAME must match [a-z0-9_.-]{{1,64}}") };
    let wrong = |found: String| StoreError::WrongCodec {
        key: key.clone(),
        found,
        expected: format!("json {} {}", T::NAME, T::SCHEMA),
    };
    let Some((header, body)) = split(bytes) else { return Err(wrong("a value without a header".into())) };
    let Header { codec, name, schema } = header;
    let found = format!("{codec} {name} {schema}");
    if codec != "json" || name != T::NAME || schema > T::SCHEMA {
        return Err(wrong(found));
    }
    let value = if schema == T::SCHEMA {
        serde_json::from_slice(body).ok()
    } else {
        serde_json::from_slice(body).ok().and_then(|old| T::upgrade(schema, old))
    };
    value.ok_or_else(|| wrong(format!("{found} with fields that do not fit")))
}

struct Header<'a> {
    codec: &'a str,
    name: &'a str,
    schema: u32,
}

fn split(bytes: &[u8]) -> Option<(Header<'_>, &[u8])> {
    let end = bytes.iter().take(HEADER_BYTES_MAX).position(|b| *b == b'\n')?;
    let mut words = std::str::from_utf8(&bytes[..end]).ok()?.split(' ');
    let header = match (words.next()?, words.next()?, words.next()?, words.next()?, words.next()) {
        ("infra", codec, name, schema, None) if is_name(codec) && is_name(name) => {
            Header { codec, name, schema: schema.parse().ok()? }
        }
        _ => return None,
    };
    Some((header, &bytes[end + 1..]))
}

const fn is_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if !matches!(bytes[at], b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'-') {
            return false;
        }
        at += 1;
    }
    !bytes.is_empty() && bytes.len() <= 64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Stored for u64 {
        const NAME: &'static str = "n";
        const SCHEMA: u32 = 1;
    }

    #[test]
    fn names_keep_their_rule() {
        for good in ["a", "order.v-2_x", &"x".repeat(64)] {
            assert!(is_name(good));
        }
        for bad in ["", "A", "a b", "a\n", "é", &"x".repeat(65)] {
            assert!(!is_name(bad), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn every_value_comes_back(n: u64) {
            let key = Key::record("k").unwrap();
            prop_assert_eq!(decode_stored::<u64>(&key, &encode_stored(&n).unwrap()).unwrap(), n);
        }

        #[test]
        fn foreign_bytes_are_refused_without_a_word_of_them(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let key = Key::record("k").unwrap();
            let e = decode_stored::<u64>(&key, &bytes).unwrap_err();
            prop_assert!(e.to_string().contains("a value without a header"), "{}", e);
        }
    }
}
