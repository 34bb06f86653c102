//! The trail for other eyes: JSON and CSV.

use std::io::Write;

use crate::{
    error::AuditError,
    fields::Fields,
    log::{AuditLog, AuditQuery, StoredEvent},
};

fn failed(e: impl std::fmt::Display) -> AuditError {
    AuditError::File { what: "write", path: "the export".into(), reason: e.to_string() }
}

/// Every event that `query` asks for, page by page of `query.limit`.
async fn each(
    log: &dyn AuditLog,
    mut query: AuditQuery,
    mut take: impl FnMut(&StoredEvent) -> Result<(), AuditError> + Send,
) -> Result<u64, AuditError> {
    let mut count = 0;
    loop {
        let page = log.query(query.clone()).await?;
        for stored in &page.events {
            take(stored)?;
            count += 1;
        }
        match page.next {
            Some(next) => query.after_index = Some(next),
            None => return Ok(count),
        }
    }
}

/// Writes a JSON array, one event a line, and answers how many. `query.limit` is the size of the pages that are read; all pages
/// are written. Texts are written as they are stored; a decimal is a JSON string.
///
/// # Errors
/// Those of [`AuditLog::query`]; `File` if `out` fails.
///
/// # Cancel safety
/// Dropping the future leaves a part in `out`.
pub async fn export_json(
    log: &dyn AuditLog,
    query: AuditQuery,
    out: &mut (dyn Write + Send),
) -> Result<u64, AuditError> {
    let mut before = "[\n";
    let count = each(log, query, |stored| {
        out.write_all(before.as_bytes()).map_err(failed)?;
        before = ",\n";
        serde_json::to_writer(&mut *out, stored).map_err(failed)
    })
    .await?;
    out.write_all(if count == 0 { b"[]\n" } else { b"\n]\n" }).map_err(failed)?;
    Ok(count)
}

const COLUMNS: &str =
    "index,id,kind,at,user,address,correlation,resource,action,symbol,before,after,details,leaf_hash\r\n";

/// Writes CSV (RFC 4180) with a header and answers how many events; states and details are JSON in one cell. A cell that a
/// spreadsheet would take for a formula (it starts with `= + - @`, a tab or a line end) gets a `'` in front. `query.limit` is
/// the size of the pages that are read; all pages are written.
///
/// # Errors
/// As [`export_json`].
///
/// # Cancel safety
/// As [`export_json`].
pub async fn export_csv(
    log: &dyn AuditLog,
    query: AuditQuery,
    out: &mut (dyn Write + Send),
) -> Result<u64, AuditError> {
    out.write_all(COLUMNS.as_bytes()).map_err(failed)?;
    each(log, query, |stored| {
        let event = &stored.event;
        let json = |fields: &Fields| serde_json::to_string(fields).map_err(failed);
        let state = |fields: Option<&Fields>| fields.map_or(Ok(String::new()), json);
        let text = |part: Option<&str>| part.unwrap_or_default().to_owned();
        let cells = [
            stored.index.to_string(),
            event.id.to_string(),
            event.kind.to_string(),
            event.at.to_string(),
            text(event.context.user.as_ref().map(|user| user.as_str())),
            text(event.context.address.as_deref()),
            event.context.correlation.map_or_else(String::new, |id| id.to_string()),
            event.resource.clone(),
            event.action.clone(),
            text(event.symbol.as_ref().map(|symbol| symbol.as_str())),
            state(event.before.as_ref())?,
            state(event.after.as_ref())?,
            json(&event.details)?,
            stored.leaf_hash.to_string(),
        ];
        let line = cells.map(|text| cell(&text)).join(",") + "\r\n";
        out.write_all(line.as_bytes()).map_err(failed)
    })
    .await
}

fn cell(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']);
    let mark = if formula { "'" } else { "" };
    if text.contains([',', '"', '\r', '\n']) {
        format!("\"{mark}{}\"", text.replace('"', "\"\""))
    } else {
        format!("{mark}{text}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_and_never_formulas() {
        for (text, want) in [
            ("plain", "plain"),
            ("", ""),
            ("a,b", "\"a,b\""),
            ("say \"hi\"", "\"say \"\"hi\"\"\""),
            ("=1+1", "'=1+1"),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\t=1", "'\t=1"),
            ("\r=1", "\"'\r=1\""),
            ("=cmd|' /C calc'!A0,\"x\"", "\"'=cmd|' /C calc'!A0,\"\"x\"\"\""),
        ] {
            assert_eq!(cell(text), want, "{text:?}");
        }
    }
}
