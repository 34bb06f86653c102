//! One event, ready to be written.

use infra_types::Timestamp;
use tracing::Level;

/// The value of a field; text is scrubbed and cut already.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Bool(bool),
    I64(i64),
    U64(u64),
    F64(f64),
    Text(String),
}

/// A name and its value.
pub(crate) type Field = (&'static str, Value);

/// Gives the field a value; the last one counts.
pub(crate) fn set(fields: &mut Vec<Field>, name: &'static str, value: Value) {
    match fields.iter_mut().find(|(n, _)| *n == name) {
        Some(slot) => slot.1 = value,
        None => fields.push((name, value)),
    }
}

/// One event, ready to be written.
#[derive(Debug)]
pub(crate) struct Record<'a> {
    pub(crate) at: Timestamp,
    pub(crate) level: Level,
    pub(crate) target: &'a str,
    pub(crate) message: String,
    pub(crate) fields: Vec<Field>,
    /// The task's context: correlation id, user, account, operation.
    pub(crate) context: Vec<Field>,
    /// From the outermost span to the innermost.
    pub(crate) spans: Vec<(&'static str, Vec<Field>)>,
}
