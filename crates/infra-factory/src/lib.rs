//! Composes the crates from a preset, and holds the order gate
