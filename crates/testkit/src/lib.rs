#![doc = include_str!("../README.md")]

mod base;
mod child;
mod dir;
mod home;
mod port;
mod postgres;
mod process;
mod proxy;
mod redis;
mod shared;
mod tls;

pub use child::{ChildGone, KillableChild, child_argument, say};
pub use dir::TestDir;
pub use port::{free_port, unique_name};
pub use postgres::{PostgresBuilder, PostgresServer};
pub use proxy::{Cut, Direction, FaultProxy, ProxyCounters};
pub use redis::{RedisBuilder, RedisCluster, RedisSentinel, RedisServer, Reply, SlotMove};
pub use tls::Certificates;
