//! The Merkle tree of RFC 6962, section 2.1, grown one leaf at a time.

use std::fmt;

use sha2::{Digest, Sha256};

/// A SHA-256 value; prints as hex.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash32([u8; 32]);

impl Hash32 {
    /// From the 32 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl TryFrom<&[u8]> for Hash32 {
    type Error = std::array::TryFromSliceError;
    fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
        bytes.try_into().map(Self)
    }
}

impl fmt::Display for Hash32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Hash32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for Hash32 {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// The hash of a leaf: `SHA-256(0x00 ‖ data)`.
#[must_use]
pub fn leaf_hash(data: &[u8]) -> Hash32 {
    Hash32(Sha256::new().chain_update([0]).chain_update(data).finalize().into())
}

/// The hash of an inner node: `SHA-256(0x01 ‖ left ‖ right)`. The prefix keeps a node from passing as a leaf.
#[must_use]
pub fn node_hash(left: &Hash32, right: &Hash32) -> Hash32 {
    Hash32(Sha256::new().chain_update([1]).chain_update(left.0).chain_update(right.0).finalize().into())
}

/// What a log of `size` events is, in 40 bytes: two logs with the same head hold the same events in the same order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct TreeHead {
    /// How many events.
    pub size: u64,
    /// The Merkle tree hash over their stored bytes.
    pub root: Hash32,
}

/// The perfect subtrees that a tree of `size` leaves consists of (its compact range): all that growing it needs.
///
/// One node for each set bit of `size`, the largest subtree first, so at most 64.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frontier {
    size: u64,
    nodes: Vec<Hash32>,
}

impl Frontier {
    /// From its parts; none if the number of nodes does not fit the size.
    #[must_use]
    pub fn from_parts(size: u64, nodes: Vec<Hash32>) -> Option<Self> {
        (nodes.len() == size.count_ones() as usize).then_some(Self { size, nodes })
    }

    /// From `size` and the concatenated nodes, as [`Self::node_bytes`] writes them.
    #[must_use]
    pub fn from_node_bytes(size: u64, bytes: &[u8]) -> Option<Self> {
        if !bytes.len().is_multiple_of(32) {
            return None;
        }
        let nodes = bytes.chunks_exact(32).filter_map(|chunk| Hash32::try_from(chunk).ok()).collect();
        Self::from_parts(size, nodes)
    }

    /// The nodes, 32 bytes each, the largest subtree first.
    #[must_use]
    pub fn node_bytes(&self) -> Vec<u8> {
        self.nodes.iter().flat_map(|node| node.0).collect()
    }

    /// How many leaves.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf by its hash; on average one node hash.
    pub fn push(&mut self, leaf: Hash32) {
        let mut node = leaf;
        // Each trailing one of the size is a subtree as large as the one in hand.
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.nodes.pop() {
                node = node_hash(&left, &node);
            }
        }
        self.nodes.push(node);
        self.size += 1;
    }

    /// The root: of no leaves, the hash of nothing.
    #[must_use]
    pub fn root(&self) -> Hash32 {
        let mut right_to_left = self.nodes.iter().rev();
        match right_to_left.next() {
            None => Hash32(Sha256::digest([]).into()),
            Some(last) => right_to_left.fold(*last, |right, left| node_hash(left, &right)),
        }
    }

    /// Size and root.
    #[must_use]
    pub fn head(&self) -> TreeHead {
        TreeHead { size: self.size, root: self.root() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hash(hex_text: &str) -> Hash32 {
        Hash32::try_from(hex::decode(hex_text).unwrap().as_slice()).unwrap()
    }

    /// The leaves and roots of the reference tests of certificate-transparency (`merkletree/merkle_tree_test.cc`).
    #[test]
    fn published_vectors() {
        let leaves: [&str; 8] =
            ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
        let roots = [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        let mut frontier = Frontier::default();
        assert_eq!(frontier.root(), hash("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"));
        for (leaf, root) in leaves.iter().zip(roots) {
            frontier.push(leaf_hash(&hex::decode(leaf).unwrap()));
            assert_eq!(frontier.root(), hash(root));
        }
    }

    /// RFC 6962, section 2.1, word for word.
    fn by_definition(leaves: &[Hash32]) -> Hash32 {
        match leaves {
            [] => Frontier::default().root(),
            [one] => *one,
            many => {
                let k = (many.len() - 1).ilog2();
                let (left, right) = many.split_at(1 << k);
                node_hash(&by_definition(left), &by_definition(right))
            }
        }
    }

    proptest! {
        #[test]
        fn growing_is_the_same_as_the_definition(leaves in prop::collection::vec(any::<[u8; 4]>(), 0..200)) {
            let leaves: Vec<_> = leaves.iter().map(|l| leaf_hash(l)).collect();
            let mut frontier = Frontier::default();
            leaves.iter().for_each(|leaf| frontier.push(*leaf));
            prop_assert_eq!(frontier.root(), by_definition(&leaves));
            let stored = Frontier::from_node_bytes(frontier.size(), &frontier.node_bytes());
            prop_assert_eq!(stored, Some(frontier));
        }
    }
}
