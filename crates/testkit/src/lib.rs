//! What the tests share: temporary stores, child processes to kill
