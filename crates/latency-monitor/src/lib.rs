//! Latency figures of operations and of an order's stages
