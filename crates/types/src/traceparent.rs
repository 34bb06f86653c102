//! Which trace a piece of work belongs to.

use std::{
    fmt,
    num::{NonZeroU64, NonZeroU128},
    str::FromStr,
};

use crate::error::InvalidValue;

/// The `traceparent` of [W3C Trace Context](https://www.w3.org/TR/trace-context-1/), level 1: which trace, and which span in it is
/// the parent of what comes next.
///
/// Prints as version `00` with no flag but *sampled*, as the standard asks of what is sent on, whatever version was read.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceParent {
    trace_id: NonZeroU128,
    parent_id: NonZeroU64,
    is_sampled: bool,
}

/// Bytes of `vv-tttttttttttttttttttttttttttttttt-pppppppppppppppp-ff`.
const LEN: usize = 55;

impl TraceParent {
    /// The trace `trace_id` under the span `parent_id`; `is_sampled` says that the sender may have recorded it.
    #[must_use]
    pub fn new(trace_id: NonZeroU128, parent_id: NonZeroU64, is_sampled: bool) -> Self {
        Self { trace_id, parent_id, is_sampled }
    }

    /// Reads the header's text: version `00` exactly, a later version as far as version `00` goes.
    ///
    /// # Errors
    /// `InvalidValue` for version `ff`, a wrong length, anything but lower-case hexadecimal digits, or an id of zeros. The standard
    /// then begins a new trace: leave the value out and go on.
    pub fn parse(text: &str) -> Result<Self, InvalidValue> {
        let bad = |rule: &str| InvalidValue::new("traceparent", format!("{rule}; a new trace begins without one"));
        let bytes = text.as_bytes();
        let Some(head) = bytes.get(..LEN) else {
            return Err(bad(&format!("must be {LEN} bytes, is {}", bytes.len())));
        };
        let version = hex(&head[..2]).ok_or_else(|| bad("the version must be two lower-case hexadecimal digits"))?;
        match (version, &bytes[LEN..]) {
            (0xff, _) => return Err(bad("version ff is forbidden")),
            (0, rest) if !rest.is_empty() => {
                return Err(bad(&format!("version 00 is {LEN} bytes, not {}", text.len())));
            }
            (_, [next, ..]) if *next != b'-' => return Err(bad("what a later version adds must begin with '-'")),
            _ => {}
        }
        if [head[2], head[35], head[52]] != *b"---" {
            return Err(bad("the parts must be divided by '-'"));
        }
        let part = |from: usize, to: usize| {
            hex(&head[from..to]).ok_or_else(|| bad("the parts must be lower-case hexadecimal digits"))
        };
        let (trace_id, parent_id, flags) = (part(3, 35)?, part(36, 52)?, part(53, 55)?);
        let trace_id = NonZeroU128::new(trace_id).ok_or_else(|| bad("the trace id may not be zeros"))?;
        // Sixteen digits fit.
        let parent_id = NonZeroU64::new(parent_id as u64).ok_or_else(|| bad("the parent id may not be zeros"))?;
        Ok(Self { trace_id, parent_id, is_sampled: flags & 1 == 1 })
    }

    /// The same trace under the span `span_id`: what that span sends on.
    #[must_use]
    pub fn child(self, span_id: NonZeroU64) -> Self {
        Self { parent_id: span_id, ..self }
    }

    /// The id that everything in the trace shares.
    #[must_use]
    pub fn trace_id(self) -> NonZeroU128 {
        self.trace_id
    }

    /// The span that caused what comes next.
    #[must_use]
    pub fn parent_id(self) -> NonZeroU64 {
        self.parent_id
    }

    /// Whether the sender may have recorded its part.
    #[must_use]
    pub fn is_sampled(self) -> bool {
        self.is_sampled
    }
}

/// At most 32 lower-case digits.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0u128, |sum, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(sum << 4 | u128::from(value))
    })
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.parent_id, u8::from(self.is_sampled))
    }
}

impl fmt::Debug for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TraceParent {
    type Err = InvalidValue;
    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        Self::parse(text)
    }
}

impl serde::Serialize for TraceParent {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for TraceParent {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::parse(&std::borrow::Cow::<'de, str>::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // The example of the standard, section 3.2.3.
    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn reads_the_example_of_the_standard() {
        let parent = TraceParent::parse(EXAMPLE).unwrap();
        assert_eq!(parent.trace_id().get(), 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!(parent.parent_id().get(), 0x00f0_67aa_0ba9_02b7);
        assert!(parent.is_sampled());
        assert_eq!(parent.to_string(), EXAMPLE);
        let child = parent.child(NonZeroU64::new(0xb7ad).unwrap());
        assert_eq!(child.to_string(), "00-4bf92f3577b34da6a3ce929d0e0e4736-000000000000b7ad-01");
        assert_eq!(serde_json::to_string(&parent).unwrap(), format!("\"{EXAMPLE}\""));
        assert_eq!(serde_json::from_str::<TraceParent>(&format!("\"{EXAMPLE}\"")).unwrap(), parent);
        assert!(serde_json::from_str::<TraceParent>("\"00\"").is_err());
    }

    #[test]
    fn a_later_version_is_read_as_far_as_this_one_goes() {
        for (text, ok) in [
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", true),
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-the-future-adds", true),
            ("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-", true),
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.more", false),
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0", false),
        ] {
            let read = TraceParent::parse(text);
            assert_eq!(read.is_ok(), ok, "{text}");
            // What is sent on is the version that we speak.
            read.into_iter().for_each(|parent| assert_eq!(parent.to_string(), EXAMPLE));
        }
        // Flags that version 00 does not know are not sent on.
        let flagged = EXAMPLE.replace("-01", "-fe");
        assert_eq!(TraceParent::parse(&flagged).unwrap().to_string(), EXAMPLE.replace("-01", "-00"));
    }

    #[test]
    fn refuses_what_the_standard_refuses() {
        for bad in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00F067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e47360-0f067aa0ba902b7-01",
            "0x-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0g",
            " 0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b-01é",
        ] {
            assert!(TraceParent::parse(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_again(trace in 1u128.., parent in 1u64.., is_sampled: bool) {
            let made = TraceParent::new(trace.try_into().unwrap(), parent.try_into().unwrap(), is_sampled);
            prop_assert_eq!(TraceParent::parse(&made.to_string()).unwrap(), made);
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,70}") {
            let _ = TraceParent::parse(&text);
        }

        #[test]
        fn one_changed_byte_is_another_value_or_an_error(at in 0usize..55, byte in b' '..b'~') {
            let mut bytes = EXAMPLE.as_bytes().to_vec();
            bytes[at] = byte;
            let text = String::from_utf8(bytes).unwrap();
            if let Ok(read) = TraceParent::parse(&text) {
                // Only the version and the unknown flags may differ without a difference in meaning.
                prop_assert!(text == EXAMPLE || read.to_string() != EXAMPLE || matches!(at, 0..=1 | 53..=54));
            }
        }
    }
}
