//! Which bucket a duration falls into: exact below 256 ns, then 128 buckets for every doubling.
//!
//! A bucket that starts at `v` is at most `v / 128` wide, so its highest value exceeds any value in it by less than
//! 0.782 %.

/// Buckets per doubling, as a power of two.
const SUB_BITS: u32 = 7;

/// The largest duration with a bucket of its own, in nanoseconds (about 18 minutes). Longer ones share the last bucket.
pub(crate) const HIGHEST: u64 = (1 << 40) - 1;

/// How many buckets there are.
pub(crate) const LEN: usize = index_of(HIGHEST) + 1;

/// The bucket of `nanos`.
pub(crate) const fn index_of(nanos: u64) -> usize {
    let v = if nanos > HIGHEST { HIGHEST } else { nanos };
    // `| 0xff` puts everything below 256 into the first, exact, group.
    let shift = 63 - (v | 0xff).leading_zeros() - SUB_BITS;
    ((shift as usize) << SUB_BITS) + (v >> shift) as usize
}

const fn shift_of(index: usize) -> usize {
    (index >> SUB_BITS).saturating_sub(1)
}

/// The smallest value, in nanoseconds, of a bucket.
pub(crate) const fn lowest(index: usize) -> u64 {
    let shift = shift_of(index);
    ((index - (shift << SUB_BITS)) as u64) << shift
}

/// The largest value, in nanoseconds, of a bucket.
pub(crate) const fn highest(index: usize) -> u64 {
    lowest(index) + (1 << shift_of(index)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_gapless_and_narrow() {
        assert_eq!(lowest(0), 0);
        for i in 0..LEN {
            assert_eq!(index_of(lowest(i)), i);
            assert_eq!(index_of(highest(i)), i);
            if i + 1 < LEN {
                assert_eq!(highest(i) + 1, lowest(i + 1));
            }
            assert!((highest(i) - lowest(i)) * 128 <= lowest(i));
        }
        assert_eq!(highest(LEN - 1), HIGHEST);
        assert_eq!(index_of(u64::MAX), LEN - 1);
    }
}
