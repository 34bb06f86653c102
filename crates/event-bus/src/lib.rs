//! Events between the parts of a bot and between bots, at most once or at least once
