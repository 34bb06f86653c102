//! One JSON object a line.
//!
//! `{"timestamp":…,"level":…,"target":…,"message":…,"correlation_id":…,"user":…,"account":…,"operation":…,
//! "fields":{…},"spans":[{"name":…,"fields":{…}}]}`; what is empty is left out.

use std::io::Write as _;

use crate::{
    record::{Field, Record, Value},
    stamp::stamp,
};

/// Appends the line. Writing to a `Vec` cannot fail, so results are dropped.
pub(crate) fn write(out: &mut Vec<u8>, record: &Record<'_>) {
    out.extend_from_slice(br#"{"timestamp":""#);
    out.extend_from_slice(&stamp(record.at));
    out.extend_from_slice(br#"","level":""#);
    out.extend_from_slice(record.level.as_str().as_bytes());
    out.extend_from_slice(br#"","target":"#);
    text(out, record.target);
    out.extend_from_slice(br#","message":"#);
    text(out, &record.message);
    for (name, value) in &record.context {
        out.push(b',');
        member(out, name, value);
    }
    if !record.fields.is_empty() {
        out.extend_from_slice(br#","fields":"#);
        object(out, &record.fields);
    }
    if !record.spans.is_empty() {
        out.extend_from_slice(br#","spans":["#);
        for (n, (name, fields)) in record.spans.iter().enumerate() {
            if n > 0 {
                out.push(b',');
            }
            out.extend_from_slice(br#"{"name":"#);
            text(out, name);
            if !fields.is_empty() {
                out.extend_from_slice(br#","fields":"#);
                object(out, fields);
            }
            out.push(b'}');
        }
        out.push(b']');
    }
    out.extend_from_slice(b"}\n");
}

fn object(out: &mut Vec<u8>, fields: &[Field]) {
    out.push(b'{');
    for (n, (name, value)) in fields.iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        member(out, name, value);
    }
    out.push(b'}');
}

fn member(out: &mut Vec<u8>, name: &str, value: &Value) {
    text(out, name);
    out.push(b':');
    match value {
        Value::Bool(v) => drop(write!(out, "{v}")),
        Value::I64(v) => drop(write!(out, "{v}")),
        Value::U64(v) => drop(write!(out, "{v}")),
        // JSON knows neither infinity nor NaN.
        Value::F64(v) if !v.is_finite() => drop(write!(out, "\"{v}\"")),
        Value::F64(v) => drop(serde_json::to_writer(out, v)),
        Value::Text(v) => text(out, v),
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    drop(serde_json::to_writer(out, text));
}
