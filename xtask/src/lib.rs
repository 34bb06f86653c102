#![doc = include_str!("../README.md")]

pub mod bench;
pub mod cli;
pub mod controls;
pub mod dependencies;
pub mod feature_sets;
pub mod files;
pub mod hygiene;
pub mod layers;
pub mod preflight;
pub mod process;
pub mod prove;
pub mod report;
pub mod servers;
pub mod sizes;
pub mod steps;
pub mod workspace;
