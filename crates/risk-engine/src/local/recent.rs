//! Orders that were approved a moment ago, for telling duplicates: a table of fixed size that forgets by age only.

/// What makes two orders of one ledger alike: route (account, strategy, instrument), side, quantity and price at 1e-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Likeness {
    pub(super) route: u32,
    pub(super) is_buy: bool,
    pub(super) qty: i64,
    pub(super) price: i64,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    like: Likeness,
    /// Nanoseconds; not remembered from then on.
    until: u64,
}

const WAYS: usize = 8;

/// What the table knows of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// None like it; where it may be put.
    No(usize),
    /// One like it.
    Yes,
    /// Nobody knows: all places for it are taken by others that must be remembered.
    Full,
}

/// Sets of eight places. An order has one set; what it may not forget it never does.
#[derive(Debug)]
pub(super) struct Recent {
    sets: Vec<[Option<Entry>; WAYS]>,
}

impl Recent {
    /// With room for about `orders`, at least.
    pub(super) fn new(orders: usize) -> Self {
        let sets = orders.div_ceil(WAYS).max(1).next_power_of_two();
        Self { sets: vec![[None; WAYS]; sets] }
    }

    #[inline]
    fn set_of(&self, like: &Likeness) -> usize {
        // Fibonacci hashing (Knuth, TAOCP 6.4): the high bits of a product with 2^64/φ.
        const PHI: u64 = 0x9E37_79B9_7F4A_7C15;
        let mix = |h: u64, v: u64| (h ^ v).wrapping_mul(PHI).rotate_left(29);
        let side = u64::from(like.route) << 1 | u64::from(like.is_buy);
        let hash = mix(mix(mix(PHI, side), like.qty.unsigned_abs()), like.price.unsigned_abs());
        // There are never more sets than fit a usize.
        (hash.wrapping_mul(PHI) >> 20) as usize & (self.sets.len() - 1)
    }

    #[inline]
    pub(super) fn look(&self, like: &Likeness, now: u64) -> Seen {
        let at = self.set_of(like);
        let mut free = None;
        for (way, entry) in self.sets[at].iter().enumerate() {
            match entry {
                Some(entry) if now < entry.until => {
                    if entry.like == *like {
                        return Seen::Yes;
                    }
                }
                _ => free = Some(at * WAYS + way),
            }
        }
        free.map_or(Seen::Full, Seen::No)
    }

    /// Puts it where [`Recent::look`] said.
    #[inline]
    pub(super) fn put(&mut self, place: usize, like: Likeness, until: u64) {
        self.sets[place / WAYS][place % WAYS] = Some(Entry { like, until });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn like(qty: i64) -> Likeness {
        Likeness { route: 1, is_buy: true, qty, price: 100 }
    }

    #[test]
    fn remembers_until_the_window_ends_and_says_when_it_cannot() {
        let mut recent = Recent::new(WAYS);
        for qty in 0..WAYS as i64 {
            let Seen::No(place) = recent.look(&like(qty), 0) else { panic!("{qty}: there is room") };
            recent.put(place, like(qty), 10);
        }
        assert_eq!(recent.look(&like(3), 9), Seen::Yes);
        assert_eq!(recent.look(&like(99), 9), Seen::Full, "never forgets what it must know");
        assert!(matches!(recent.look(&like(3), 10), Seen::No(_)));
        let mut other = like(3);
        other.is_buy = false;
        assert_ne!(recent.look(&other, 9), Seen::Yes);
    }
}
