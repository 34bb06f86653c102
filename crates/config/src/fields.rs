//! How single values are read and printed: durations with units, exact decimals, masked secrets.

/// Durations as text with a unit. A bare number is not a duration: nobody remembers whether it meant seconds.
pub(crate) mod duration {
    use std::time::Duration;

    use serde::{Deserializer, Serializer, de::Error};

    use crate::de::RawText;

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        let text = RawText::read(d)?;
        if text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(D::Error::custom(
                "expected a duration with a unit, such as `5s` or `250ms`, found a bare number",
            ));
        }
        humantime::parse_duration(&text)
            .map_err(|_| D::Error::custom("expected a duration with a unit, such as `5s` or `250ms`"))
    }

    pub(crate) fn serialize<S: Serializer>(value: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&humantime::format_duration(*value))
    }
}

/// Decimals from their text, also of TOML numbers: never through a binary float.
pub(crate) mod decimal {
    use infra_types::Decimal;
    use serde::{Deserializer, Serializer, de::Error};

    use crate::de::RawText;

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Decimal, D::Error> {
        let text = RawText::read(d)?;
        Decimal::from_str_exact(&text).map_err(|_| {
            D::Error::custom("expected an exact, finite decimal such as `0.05`, at most 28 digits and no exponent")
        })
    }

    pub(crate) fn serialize<S: Serializer>(value: &Decimal, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(value)
    }
}

/// Host names that cannot change the meaning of the address they become part of.
pub(crate) mod host {
    use serde::{Deserialize, Deserializer, de::Error};

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<String, D::Error> {
        let text = String::deserialize(d)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
        if text.is_empty() || text.len() > 255 || !text.chars().all(plain) {
            return Err(D::Error::custom("expected a host name or an IP address, without scheme, port or path"));
        }
        Ok(text)
    }
}

/// Secrets print as `***`.
pub(crate) mod mask {
    use std::collections::BTreeMap;

    use infra_types::Secret;
    use serde::{Serialize, Serializer};

    pub(crate) fn option<S: Serializer>(value: &Option<Secret<String>>, s: S) -> Result<S::Ok, S::Error> {
        value.as_ref().map(|_| "***").serialize(s)
    }

    pub(crate) fn map<S: Serializer>(value: &BTreeMap<String, Secret<String>>, s: S) -> Result<S::Ok, S::Error> {
        s.collect_map(value.keys().map(|key| (key, "***")))
    }
}

/// A bot's name, with a message that holds no part of the text.
pub(crate) fn bot_id<'de, D: serde::Deserializer<'de>>(d: D) -> Result<infra_types::BotId, D::Error> {
    let text = <String as serde::Deserialize>::deserialize(d)?;
    infra_types::BotId::new(text).map_err(|_| {
        serde::de::Error::custom("expected 1 to 64 printable ASCII characters without spaces and without * ? \\ /")
    })
}
