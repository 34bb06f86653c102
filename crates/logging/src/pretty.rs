//! One short line for a person.

use std::io::Write as _;

use tracing::Level;

use crate::{
    record::{Field, Record, Value},
    stamp::stamp,
};

/// Appends the line; `ansi` colours the level. Writing to a `Vec` cannot fail, so results are dropped.
pub(crate) fn write(out: &mut Vec<u8>, record: &Record<'_>, ansi: bool) {
    // To the millisecond.
    out.extend_from_slice(&stamp(record.at)[..23]);
    out.extend_from_slice(b"Z ");
    let colour = match record.level {
        Level::ERROR => "31",
        Level::WARN => "33",
        Level::INFO => "32",
        Level::DEBUG => "34",
        Level::TRACE => "35",
    };
    if ansi {
        drop(write!(out, "\x1b[{colour}m{:>5}\x1b[0m ", record.level));
    } else {
        drop(write!(out, "{:>5} ", record.level));
    }
    drop(write!(out, "{}: ", record.target));
    plain(out, &record.message);
    fields(out, &record.fields);
    for (name, span) in &record.spans {
        drop(write!(out, " [{name}"));
        fields(out, span);
        out.push(b']');
    }
    fields(out, &record.context);
    out.push(b'\n');
}

fn fields(out: &mut Vec<u8>, fields: &[Field]) {
    for (name, value) in fields {
        drop(write!(out, " {name}="));
        match value {
            Value::Bool(v) => drop(write!(out, "{v}")),
            Value::I64(v) => drop(write!(out, "{v}")),
            Value::U64(v) => drop(write!(out, "{v}")),
            Value::F64(v) => drop(write!(out, "{v}")),
            Value::Text(v) if v.is_empty() || v.contains(|c: char| c.is_whitespace() || c.is_control() || c == '"') => {
                drop(write!(out, "{v:?}"));
            }
            Value::Text(v) => plain(out, v),
        }
    }
}

/// Control characters as escapes: a value may neither move the cursor nor pretend to be another line.
fn plain(out: &mut Vec<u8>, text: &str) {
    if !text.contains(char::is_control) {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    for c in text.chars() {
        if c.is_control() { drop(write!(out, "{}", c.escape_default())) } else { drop(write!(out, "{c}")) }
    }
}
