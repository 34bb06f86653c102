//! The kill switch: NORMAL, ALERT, HALT, SHUTDOWN, durable and fail-closed
