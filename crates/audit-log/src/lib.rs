//! A tamper-evident trail of what a bot did: RFC 6962 tree, checkpoints, verification
