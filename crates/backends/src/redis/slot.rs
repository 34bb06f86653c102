//! Which of a cluster's 16,384 slots a key lives in.
//!
//! Source: Redis Cluster Specification, "Key distribution model" and "Hash tags": CRC16-CCITT (XMODEM) modulo 16,384, of
//! the part between the first `{` and the next `}` if that is not empty.

/// How many slots there are.
pub(super) const SLOTS: usize = 16_384;

const TABLE: [u16; 256] = table();

const fn table() -> [u16; 256] {
    let mut table = [0u16; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| (crc << 8) ^ TABLE[usize::from((crc >> 8) as u8 ^ byte)])
}

/// The slot of a Redis Cluster that `key` lives in, below 16,384. Keys with the same `{tag}` share a slot.
#[must_use]
pub fn key_slot(key: &[u8]) -> u16 {
    let tag = key
        .iter()
        .position(|b| *b == b'{')
        .map(|open| &key[open + 1..])
        .and_then(|rest| rest.iter().position(|b| *b == b'}').map(|close| &rest[..close]))
        .filter(|tag| !tag.is_empty());
    crc16(tag.unwrap_or(key)) % SLOTS as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_vectors() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!(key_slot(b"123456789"), 12_739);
        assert_eq!(key_slot(b"foo"), 12_182);
        assert_eq!(key_slot(b"foo{hash_tag}"), 2_515);
        assert_eq!(key_slot(b"foo{hash_tag}"), key_slot(b"hash_tag"));
        assert_eq!(key_slot(b"foo{}{bar}"), crc16(b"foo{}{bar}") % SLOTS as u16);
        assert_eq!(key_slot(b"foo{{bar}}zap"), key_slot(b"{bar"));
        assert_eq!(key_slot(b"foo{bar}{zap}"), key_slot(b"bar"));
        assert_eq!(key_slot(b""), 0);
    }

    proptest! {
        #[test]
        fn a_tag_decides_alone(tag in "[a-z0-9]{1,20}", before in "[a-z]{0,9}", after: Vec<u8>) {
            let mut key = format!("{before}{{{tag}}}").into_bytes();
            key.extend(after);
            prop_assert_eq!(key_slot(&key), key_slot(tag.as_bytes()));
        }

        #[test]
        fn always_a_slot(key: Vec<u8>) {
            prop_assert!(usize::from(key_slot(&key)) < SLOTS);
        }
    }
}
