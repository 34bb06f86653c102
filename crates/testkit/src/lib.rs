#![doc = include_str!("../README.md")]

mod child;
mod dir;

pub use child::{ChildGone, KillableChild, child_argument, say};
pub use dir::TestDir;
