//! Retry, circuit breaker and timeout for calls to an exchange
