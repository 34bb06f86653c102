//! The benches stand in `benches/`.
