//! State that bots share: one atomic batch with preconditions, on memory and SQLite
