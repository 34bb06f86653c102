//! The stored bytes of an event: what is hashed, and all that is hashed.
//!
//! Big-endian, every text behind its length in two bytes, every optional part behind 0 or 1:
//! `version:u16 id kind at:i64 user? address? correlation?:16 bytes resource action symbol? before? after? details`, where a
//! map is `count:u16 (name text)*` with names in strictly rising byte order. One event has one encoding, and whatever
//! decodes encodes to the same bytes again.

use infra_types::{AuditContext, CorrelationId, Timestamp};

use crate::{
    error::AuditError,
    event::AuditEvent,
    fields::Fields,
    tree::{Hash32, leaf_hash},
};

/// The layout of the stored bytes; it stands inside them, so that it is hashed as well.
pub const SCHEMA_VERSION: u16 = 1;

/// The largest stored event in bytes.
pub const LEAF_BYTES_MAX: usize = 65_535;

/// An event with its bytes, ready to be stored.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) event: AuditEvent,
    pub(crate) data: Vec<u8>,
    pub(crate) leaf: Hash32,
}

impl Prepared {
    pub(crate) fn new(event: AuditEvent) -> Result<Self, AuditError> {
        let data = event.encode()?;
        let leaf = leaf_hash(&data);
        Ok(Self { event, data, leaf })
    }

    pub(crate) fn all(events: Vec<AuditEvent>) -> Result<Vec<Self>, AuditError> {
        let max = crate::log::BATCH_EVENTS_MAX;
        if events.len() > max {
            return Err(AuditError::TooLarge { what: "batch events", found: events.len(), max });
        }
        events.into_iter().map(Self::new).collect()
    }
}

impl AuditEvent {
    /// The bytes that are stored and hashed.
    ///
    /// # Errors
    /// `TooLarge` over [`LEAF_BYTES_MAX`]; `Invalid` if a field's text is `NaN`, `inf` or `-inf`, which only a float prints.
    pub fn encode(&self) -> Result<Vec<u8>, AuditError> {
        let maps = [self.before.as_ref(), self.after.as_ref(), Some(&self.details)];
        for (name, text) in maps.into_iter().flatten().flat_map(Fields::iter) {
            if matches!(text, "NaN" | "inf" | "-inf") {
                return Err(AuditError::Invalid { rule: format!("field {name:?} is {text}: record a decimal") });
            }
        }
        let mut out = Writer(Vec::with_capacity(256));
        out.0.extend(SCHEMA_VERSION.to_be_bytes());
        out.text(self.id.as_str())?;
        out.text(self.kind.as_str())?;
        out.0.extend(self.at.as_nanos().to_be_bytes());
        out.optional(self.context.user.as_ref(), |out, user| out.text(user.as_str()))?;
        out.optional(self.context.address.as_ref(), |out, address| out.text(address))?;
        out.optional(self.context.correlation, |out, id| {
            out.0.extend(id.as_u128().to_be_bytes());
            Ok(())
        })?;
        out.text(&self.resource)?;
        out.text(&self.action)?;
        out.optional(self.symbol.as_ref(), |out, symbol| out.text(symbol.as_str()))?;
        out.optional(self.before.as_ref(), Writer::fields)?;
        out.optional(self.after.as_ref(), Writer::fields)?;
        out.fields(&self.details)?;
        if out.0.len() > LEAF_BYTES_MAX {
            return Err(too_large(out.0.len()));
        }
        Ok(out.0)
    }

    /// The event that `data` is the encoding of.
    ///
    /// # Errors
    /// `Corrupt` if it is none.
    pub fn decode(data: &[u8]) -> Result<Self, AuditError> {
        Reader(data).event().ok_or_else(|| AuditError::Corrupt {
            index: None,
            reason: format!("{} bytes are not an event of schema version {SCHEMA_VERSION}", data.len()),
        })
    }
}

fn too_large(found: usize) -> AuditError {
    AuditError::TooLarge { what: "event", found, max: LEAF_BYTES_MAX }
}

struct Writer(Vec<u8>);

impl Writer {
    fn length(&mut self, n: usize) -> Result<(), AuditError> {
        // A length that does not fit belongs to an event that does not fit either.
        self.0.extend(u16::try_from(n).map_err(|_| too_large(self.0.len().saturating_add(n)))?.to_be_bytes());
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), AuditError> {
        self.length(text.len())?;
        self.0.extend(text.as_bytes());
        Ok(())
    }

    fn fields(&mut self, fields: &Fields) -> Result<(), AuditError> {
        self.length(fields.len())?;
        for (name, text) in fields.iter() {
            self.text(name)?;
            self.text(text)?;
        }
        Ok(())
    }

    fn optional<T>(
        &mut self,
        part: Option<T>,
        write: impl FnOnce(&mut Self, T) -> Result<(), AuditError>,
    ) -> Result<(), AuditError> {
        self.0.push(u8::from(part.is_some()));
        part.map_or(Ok(()), |part| write(self, part))
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn event(mut self) -> Option<AuditEvent> {
        if u16::from_be_bytes(self.array()?) != SCHEMA_VERSION {
            return None;
        }
        let event = AuditEvent {
            id: infra_types::EventId::new(self.text()?).ok()?,
            kind: self.text()?.parse().ok()?,
            at: Timestamp::from_nanos(i64::from_be_bytes(self.array()?)),
            context: AuditContext {
                user: self.optional(|r| r.text()?.parse().ok())?,
                address: self.optional(|r| r.text().map(Into::into))?,
                correlation: self.optional(|r| Some(CorrelationId::from_u128(u128::from_be_bytes(r.array()?))))?,
            },
            resource: self.text()?.into(),
            action: self.text()?.into(),
            symbol: self.optional(|r| r.text()?.parse().ok())?,
            before: self.optional(Self::fields)?,
            after: self.optional(Self::fields)?,
            details: self.fields()?,
        };
        self.0.is_empty().then_some(event)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = usize::from(u16::from_be_bytes(self.array()?));
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        std::str::from_utf8(head).ok()
    }

    fn fields(&mut self) -> Option<Fields> {
        let mut fields = Fields::new();
        for _ in 0..u16::from_be_bytes(self.array()?) {
            let (name, text) = (self.text()?, self.text()?);
            // Rising order leaves one encoding for each map.
            if fields.0.last_key_value().is_some_and(|(last, _)| last.as_str() >= name) {
                return None;
            }
            fields.0.insert(name.into(), text.into());
        }
        Some(fields)
    }

    #[expect(clippy::option_option, reason = "the outer one is the parser's failure")]
    fn optional<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        match self.array()? {
            [0] => Some(None),
            [1] => read(self).map(Some),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
