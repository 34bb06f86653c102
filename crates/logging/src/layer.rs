//! The tracing layer: collects an event once, writes it to every output in that output's own form.
//!
//! Not two layers of tracing-subscriber's `fmt`: those share what they formatted of a span, so that the colours of a
//! console end up in a file.

use std::{cell::Cell, sync::Arc};

use infra_types::{Clock, ExecutionContext};
use tracing::{
    Event, Level, Subscriber,
    span::{Attributes, Id, Record as SpanRecord},
};
use tracing_subscriber::{Layer, layer::Context, registry::LookupSpan};

use crate::{
    config::LogFormat,
    fields::{Cleaner, Collector},
    json, pretty,
    queue::Queue,
    record::{Field, Record, Value},
};

/// A queue and the form of the lines in it.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    pub(crate) form: Form,
    pub(crate) queue: Arc<Queue>,
}

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) format: LogFormat,
    pub(crate) ansi: bool,
}

impl Form {
    pub(crate) fn write(self, out: &mut Vec<u8>, record: &Record<'_>) {
        match self.format {
            LogFormat::Json => json::write(out, record),
            LogFormat::Pretty => pretty::write(out, record, self.ansi),
        }
    }
}

#[derive(Debug)]
pub(crate) struct LogLayer {
    pub(crate) outputs: Vec<Output>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) cleaner: Cleaner,
}

/// A span's fields, in the span's own storage.
struct SpanFields(Vec<Field>);

thread_local! {
    /// A line's bytes: taken while a line is written and put back, so that a `Debug` that logs cannot meet it borrowed.
    static LINE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A buffer that grew beyond this is not kept.
const KEEP_BYTES_MAX: usize = 64 * 1024;

impl LogLayer {
    fn context(&self) -> Vec<Field> {
        let Some(context) = ExecutionContext::current() else { return Vec::new() };
        let mut fields = Vec::with_capacity(4);
        let mut put = |name, value: Option<&str>| {
            if let Some(value) = value {
                fields.push((name, Value::Text(self.cleaner.text(value))));
            }
        };
        put("correlation_id", Some(&context.correlation.to_string()));
        put("user", context.user.as_ref().map(|id| id.as_str()));
        put("account", context.account.as_ref().map(|id| id.as_str()));
        put("operation", context.operation.as_deref());
        fields
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for LogLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        let Some(span) = ctx.span(id) else { return };
        let mut fields = Vec::new();
        attributes.record(&mut Collector { cleaner: &self.cleaner, fields: &mut fields, message: None });
        span.extensions_mut().insert(SpanFields(fields));
    }

    fn on_record(&self, id: &Id, values: &SpanRecord<'_>, ctx: Context<'_, S>) {
        let Some(span) = ctx.span(id) else { return };
        // Collected before the storage is locked: a value's `Debug` may log.
        let mut new = Vec::new();
        values.record(&mut Collector { cleaner: &self.cleaner, fields: &mut new, message: None });
        if let Some(SpanFields(fields)) = span.extensions_mut().get_mut() {
            new.into_iter().for_each(|(name, value)| crate::record::set(fields, name, value));
        }
    }

    fn on_event(&self, event: &Event<'_>, ctx: Context<'_, S>) {
        let mut fields = Vec::new();
        let mut message = String::new();
        event.record(&mut Collector { cleaner: &self.cleaner, fields: &mut fields, message: Some(&mut message) });
        let spans = ctx.event_scope(event).into_iter().flat_map(|scope| scope.from_root());
        let record = Record {
            at: self.clock.wall(),
            level: *event.metadata().level(),
            target: event.metadata().target(),
            message,
            fields,
            context: self.context(),
            spans: spans
                .map(|s| (s.name(), s.extensions().get::<SpanFields>().map(|f| f.0.clone()).unwrap_or_default()))
                .collect(),
        };
        let mut line = LINE.try_with(Cell::take).unwrap_or_default();
        for output in &self.outputs {
            line.clear();
            output.form.write(&mut line, &record);
            output.queue.push(&line, record.level == Level::ERROR);
        }
        if line.capacity() <= KEEP_BYTES_MAX {
            // Fails only while the thread ends.
            let _ = LINE.try_with(|kept| kept.set(line));
        }
    }
}
