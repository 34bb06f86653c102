//! Every input of an engine and every decision it made of it, one JSON line each, so that the decisions can be made again and compared
//! to the last bit (RTS 6 art. 13; a regulator's "why did you send this").
//!
//! A [`DecisionRecorder`] is an engine whose inputs pass through it one after the other. While one of them is at work time stands
//! still, so that the times in the line are those that the engine saw. [`replay`] drives a fresh engine over a store in memory with the
//! inputs and the times of a log, and compares what comes out with what stands there, byte by byte.
//!
//! A line is `{"digest":"…","entry":{…}}`. The digest runs over all lines so far (FNV-1a of 128 bits by Fowler, Noll and Vo over the digest
//! before and the entry's bytes): a line that was lost or damaged is found. It is no signature; an audit log is where proof against
//! forgery is.
//!
//! **What a replay cannot know:** changes that other processes made to the ledger in the meantime, what a server's own clock
//! decided (windows and expiry on Redis and PostgreSQL), and calls of the engine beside the recorder. Inputs that a lost connection
//! or a caller's operation ended are in the log and are not decided again; the report counts them.

mod clock;
mod govern;
mod line;
mod record;
mod replay;

pub use clock::DecisionClock;
pub use line::Input;
pub use record::DecisionRecorder;
pub use replay::{Difference, ReplayError, ReplayReport, replay};

#[cfg(test)]
mod tests;
