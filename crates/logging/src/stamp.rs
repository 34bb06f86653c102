//! Timestamps of fixed width, so that lines sort as text.

use std::cell::Cell;

use infra_types::Timestamp;

/// `2025-01-01T00:00:00.000000000Z`.
pub(crate) const LEN: usize = 30;

/// `2025-01-01T00:00:00`.
const SECOND_LEN: usize = 19;

thread_local! {
    /// The last second and how it prints: most lines of a thread share it with the line before.
    static LAST: Cell<Option<(i64, [u8; SECOND_LEN])>> = const { Cell::new(None) };
}

/// RFC 3339 in UTC with nine decimals.
pub(crate) fn stamp(at: Timestamp) -> [u8; LEN] {
    let second = at.as_nanos().div_euclid(1_000_000_000);
    let mut out = [b'0'; LEN];
    out[..SECOND_LEN].copy_from_slice(&print(second));
    out[SECOND_LEN] = b'.';
    out[LEN - 1] = b'Z';
    let mut rest = at.as_nanos().rem_euclid(1_000_000_000).unsigned_abs();
    for digit in out[SECOND_LEN + 1..LEN - 1].iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
    }
    out
}

fn print(second: i64) -> [u8; SECOND_LEN] {
    if let Ok(Some((last, text))) = LAST.try_with(Cell::get)
        && last == second
    {
        return text;
    }
    let mut text = [b'0'; SECOND_LEN];
    // Half a second on, so that the first second of the range, which begins before it, prints as well.
    let whole = Timestamp::from_nanos(second.saturating_mul(1_000_000_000).saturating_add(500_000_000)).to_string();
    // A timestamp spans the years 1677 to 2262: the year always has four digits.
    if let Some(start) = whole.as_bytes().first_chunk() {
        text = *start;
    }
    let _ = LAST.try_with(|kept| kept.set(Some((second, text))));
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn reads_back_to_the_same_nanosecond(nanos in any::<i64>()) {
            let at = Timestamp::from_nanos(nanos);
            let text = String::from_utf8(stamp(at).to_vec()).unwrap();
            prop_assert_eq!(text.parse::<Timestamp>().unwrap(), at, "{}", text);
        }

        #[test]
        fn sorts_as_text(a in any::<i64>(), b in any::<i64>()) {
            let stamp = |n| stamp(Timestamp::from_nanos(n));
            prop_assert_eq!(stamp(a).cmp(&stamp(b)), a.cmp(&b));
        }
    }

    #[test]
    fn the_ends_of_the_range_print() {
        for nanos in [i64::MIN, i64::MAX, -1, 0, 1_735_689_600_123_456_789] {
            let at = Timestamp::from_nanos(nanos);
            let text = String::from_utf8(stamp(at).to_vec()).unwrap();
            assert_eq!(text.parse::<Timestamp>().unwrap(), at, "{text}");
        }
    }
}
