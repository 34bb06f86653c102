//! Structured logs with correlation ids, rotation and masking
