//! Typed, validated, layered configuration with presets
