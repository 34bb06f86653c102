//! The namespaces of a store in memory: a hash table that only grows, so that finding one takes no lock.

use std::{hash::BuildHasher, sync::OnceLock};

use infra_types::Namespace;
use parking_lot::RwLock;

use super::{Hasher, space::Space};

/// Chains of the table. A store with more namespaces works, its chains only get longer.
const CHAINS: usize = 1_024;

type Link = OnceLock<Box<Node>>;

struct Node {
    namespace: Namespace,
    /// The namespace's lock is its unit of atomicity; it is never held across an await.
    space: RwLock<Space>,
    next: Link,
}

pub(super) struct Spaces {
    hasher: Hasher,
    chains: Box<[Link]>,
}

impl Default for Spaces {
    fn default() -> Self {
        Self { hasher: Hasher::default(), chains: (0..CHAINS).map(|_| Link::new()).collect() }
    }
}

impl Spaces {
    #[inline]
    pub(super) fn get(&self, namespace: &Namespace) -> Option<&RwLock<Space>> {
        let mut link = self.chain(namespace);
        while let Some(node) = link.get() {
            if node.namespace == *namespace {
                return Some(&node.space);
            }
            link = &node.next;
        }
        None
    }

    pub(super) fn get_or_new(&self, namespace: &Namespace) -> &RwLock<Space> {
        let mut link = self.chain(namespace);
        loop {
            // Of several that come at once, one makes the node; it may be another namespace's.
            let node = link.get_or_init(|| {
                Box::new(Node { namespace: namespace.clone(), space: RwLock::default(), next: Link::new() })
            });
            if node.namespace == *namespace {
                return &node.space;
            }
            link = &node.next;
        }
    }

    pub(super) fn len(&self) -> usize {
        self.chains.iter().map(|chain| std::iter::successors(chain.get(), |node| node.next.get()).count()).sum()
    }

    #[inline]
    fn chain(&self, namespace: &Namespace) -> &Link {
        // The remainder is smaller than the table.
        #[expect(clippy::cast_possible_truncation, reason = "any bits of the hash will do")]
        let hash = self.hasher.hash_one(namespace.as_str()) as usize;
        &self.chains[hash % CHAINS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_namespaces_than_chains_are_all_found_again() {
        let spaces = Spaces::default();
        let namespaces: Vec<_> = (0..3 * CHAINS).map(|n| Namespace::new(format!("n{n}")).unwrap()).collect();
        for namespace in &namespaces {
            assert!(spaces.get(namespace).is_none());
            assert!(std::ptr::eq(spaces.get_or_new(namespace), spaces.get_or_new(namespace)));
        }
        assert_eq!(spaces.len(), namespaces.len());
        assert!(namespaces.iter().all(|namespace| spaces.get(namespace).is_some()));
    }

    #[test]
    fn those_who_come_at_once_get_the_same_space() {
        let spaces = Spaces::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for n in 0..500 {
                        spaces.get_or_new(&Namespace::new(format!("n{n}")).unwrap());
                    }
                });
            }
        });
        assert_eq!(spaces.len(), 500);
    }
}
