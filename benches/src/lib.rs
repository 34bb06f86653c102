#![doc = include_str!("../README.md")]

mod market;
mod setup;

pub use market::{bitcoin, buy, quote};
pub use setup::{criterion, runtime};
