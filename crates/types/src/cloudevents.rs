//! Events as other people's software reads them: [CloudEvents 1.0](https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md)
//! in JSON, structured mode.
//!
//! | envelope | attribute | |
//! |---|---|---|
//! | `id`, `kind`, `time` | `id`, `type`, `time` | `time` is RFC 3339, to the nanosecond |
//! | `source` | `source` | may not be empty there, so that "nobody in particular" is `/`, both ways |
//! | `key` | `subject` | may not be empty there, so that an empty key has none, both ways |
//! | `content_type` | `datacontenttype` | none reads as `application/json` |
//! | `data` | `data` or `data_base64` | `data` if the content type is JSON and the bytes are one JSON text, else Base64; nothing if empty |
//! | `topic`, `correlation`, `traceparent` | the extensions of the same name | |
//!
//! JSON payloads are embedded as the text they are, never through numbers or maps: 9007199254740993, the order of members and spaces
//! come back as they were, as long as nobody rewrites the JSON on its way. What has spaces around it, and `null` (which some
//! readers take for "no data"), goes as Base64.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::{
    context::ExecutionContext,
    envelope::{Envelope, EventId, Topic},
    error::InvalidValue,
};

const WHAT: &str = "cloudevent";
const NOBODY: &str = "/";
const JSON: &str = "application/json";

#[derive(Serialize)]
struct Written<'a> {
    specversion: &'static str,
    id: &'a str,
    source: &'a str,
    r#type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    time: String,
    datacontenttype: &'a str,
    topic: &'a str,
    correlation: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
}

/// Null is "not set" for an attribute, and a payload for `data`.
#[derive(Deserialize)]
struct Read<'a> {
    specversion: Option<String>,
    id: Option<String>,
    source: Option<String>,
    r#type: Option<String>,
    subject: Option<String>,
    time: Option<String>,
    datacontenttype: Option<String>,
    topic: Option<String>,
    correlation: Option<String>,
    traceparent: Option<String>,
    #[serde(borrow, default, deserialize_with = "even_null")]
    data: Option<&'a RawValue>,
    data_base64: Option<String>,
}

fn even_null<'de: 'a, 'a, D: Deserializer<'de>>(d: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(d).map(Some)
}

impl Envelope {
    /// The event as a CloudEvent; the [module](self) says which field goes where.
    ///
    /// # Errors
    /// `InvalidValue` for what no CloudEvent may hold: an empty `kind` or `content_type`, a `source` that is no URI reference (RFC
    /// 3986: printable ASCII without spaces and `"<>\^{|}` and the backtick, `%` before two hexadecimal digits), control characters in an
    /// attribute.
    pub fn to_cloudevent(&self) -> Result<String, InvalidValue> {
        let attributes = [
            ("key", Some(&self.key)),
            ("source", Some(&self.source)),
            ("kind", Some(&self.kind)),
            ("content_type", Some(&self.content_type)),
            ("traceparent", self.traceparent.as_ref()),
        ];
        for (name, text) in attributes.into_iter().filter_map(|(name, text)| Some((name, text?))) {
            if text.chars().any(is_forbidden) {
                return Err(bad(format!("{name} may not hold control characters or noncharacters, is {text:?}")));
            }
        }
        if self.kind.is_empty() || self.content_type.is_empty() {
            return Err(bad("kind and content_type may not be empty: say what the event is and how to read it"));
        }
        if !is_uri_reference(&self.source) {
            return Err(bad(format!("source must be a URI reference such as bot/bot_001, is {:?}", self.source)));
        }
        let data = is_json(&self.content_type).then(|| embedded(&self.data)).flatten();
        let written = Written {
            specversion: "1.0",
            id: self.id.as_str(),
            source: if self.source.is_empty() { NOBODY } else { &self.source },
            r#type: &self.kind,
            subject: Some(self.key.as_str()).filter(|key| !key.is_empty()),
            time: self.time.to_string(),
            datacontenttype: &self.content_type,
            topic: self.topic.as_str(),
            correlation: self.correlation.to_string(),
            traceparent: self.traceparent.as_deref(),
            data,
            data_base64: (data.is_none() && !self.data.is_empty()).then(|| STANDARD.encode(&self.data)),
        };
        serde_json::to_string(&written).map_err(|e| bad(e.to_string()))
    }

    /// Reads a CloudEvent in JSON. Besides what CloudEvents requires, `time` and the extension `topic` must be there; one
    /// without `correlation` belongs to the running task's. Extensions that the [module](self) does not name are ignored.
    ///
    /// # Errors
    /// `InvalidValue` names the attribute and the rule it broke.
    pub fn from_cloudevent(json: &[u8]) -> Result<Self, InvalidValue> {
        let read: Read<'_> = serde_json::from_slice(json).map_err(|e| bad(format!("must be one JSON object: {e}")))?;
        let need = |name: &str, value: Option<String>| {
            value.filter(|v| !v.is_empty()).ok_or_else(|| bad(format!("attribute {name} is missing or empty")))
        };
        match need("specversion", read.specversion)?.as_str() {
            "1.0" => {}
            other => return Err(bad(format!("specversion must be \"1.0\", is {other:?}"))),
        }
        let content_type = match read.datacontenttype {
            Some(empty) if empty.is_empty() => return Err(bad("datacontenttype may not be empty: leave it out")),
            given => given.unwrap_or_else(|| JSON.into()),
        };
        let data = payload(read.data, read.data_base64, &content_type)?;
        Ok(Self {
            id: EventId::new(need("id", read.id)?)?,
            topic: Topic::new(need("topic (an extension: where the event goes)", read.topic)?)?,
            key: read.subject.unwrap_or_default(),
            source: Some(need("source", read.source)?).filter(|source| source != NOBODY).unwrap_or_default(),
            kind: need("type", read.r#type)?,
            time: need("time", read.time)?.parse()?,
            content_type,
            correlation: match read.correlation {
                Some(text) => text.parse()?,
                None => ExecutionContext::current_correlation(),
            },
            traceparent: read.traceparent,
            data,
        })
    }
}

fn bad(rule: impl Into<String>) -> InvalidValue {
    InvalidValue::new(WHAT, rule)
}

/// The bytes as JSON that gives exactly these bytes again; none if there is none.
fn embedded(data: &[u8]) -> Option<&RawValue> {
    let raw: &RawValue = serde_json::from_slice(data).ok()?;
    // Spaces around a value are not part of it.
    (raw.get().len() == data.len() && raw.get() != "null").then_some(raw)
}

fn payload(data: Option<&RawValue>, base64: Option<String>, content_type: &str) -> Result<Bytes, InvalidValue> {
    match (data, base64) {
        (Some(_), Some(_)) => Err(bad("may hold data or data_base64, not both")),
        (None, None) => Ok(Bytes::new()),
        (None, Some(text)) => {
            STANDARD.decode(text).map(Bytes::from).map_err(|e| bad(format!("data_base64 is not Base64: {e}")))
        }
        (Some(raw), None) if is_json(content_type) => Ok(Bytes::copy_from_slice(raw.get().as_bytes())),
        // Text of another type is a JSON string.
        (Some(raw), None) => serde_json::from_str::<String>(raw.get()).map(Bytes::from).map_err(|_| {
            bad(format!("data of type {content_type:?} must be a string (or data_base64), not other JSON"))
        }),
    }
}

/// `application/json`, `text/json` and whatever ends in `+json`, parameters aside.
fn is_json(content_type: &str) -> bool {
    let media = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media.split_once('/').is_some_and(|(_, subtype)| subtype == "json" || subtype.ends_with("+json"))
}

/// What a CloudEvents string may not hold (section 3.1 of its type system).
fn is_forbidden(c: char) -> bool {
    c.is_control() || matches!(u32::from(c), 0xFDD0..=0xFDEF) || u32::from(c) & 0xFFFE == 0xFFFE
}

/// Whether it is empty or made of what RFC 3986 allows in a URI reference.
fn is_uri_reference(text: &str) -> bool {
    let is_escape = |rest: &[u8]| matches!(rest, [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit());
    let bytes = text.as_bytes();
    bytes.iter().enumerate().all(|(n, b)| match b {
        b'%' => is_escape(&bytes[n + 1..]),
        b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' => false,
        _ => b.is_ascii_graphic(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::{CorrelationId, Timestamp};

    fn event(data: impl Into<Bytes>) -> Envelope {
        let time = Timestamp::from_nanos(1_742_944_020_773_684_644);
        Envelope::new(Topic::new("fills:BTCUSDT").unwrap(), "fill.v1", time, data)
            .with_id(EventId::new("fill-1").unwrap())
            .with_key("BTCUSDT")
            .with_source("bot/bot_001")
            .with_correlation(CorrelationId::from_u128(7))
    }

    fn round_trip(event: &Envelope) -> String {
        let text = event.to_cloudevent().unwrap();
        assert_eq!(&Envelope::from_cloudevent(text.as_bytes()).unwrap(), event, "{text}");
        text
    }

    #[test]
    fn the_attributes_are_those_of_the_standard() {
        let mut event = event(r#"{"qty":"0.5"}"#);
        event.traceparent = Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into());
        let value: Value = serde_json::from_str(&round_trip(&event)).unwrap();
        let want = json!({
            "specversion": "1.0",
            "id": "fill-1",
            "source": "bot/bot_001",
            "type": "fill.v1",
            "subject": "BTCUSDT",
            "time": "2025-03-25T23:07:00.773684644Z",
            "datacontenttype": "application/json",
            "topic": "fills:BTCUSDT",
            "correlation": "00000000-0000-0000-0000-000000000007",
            "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "data": {"qty": "0.5"},
        });
        assert_eq!(value, want);
        // Attribute names are lower-case letters and digits, but for the one member that the JSON format itself names so.
        let is_name = |name: &String| name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        assert!(value.as_object().unwrap().keys().all(is_name), "{value}");
    }

    #[test]
    fn a_payload_comes_back_to_the_byte() {
        let embedded: [&[u8]; 8] = [
            b"9007199254740993",
            b"{\"id\":9007199254740993,\"px\":0.1000,\"e\":1E400}",
            b"{ \"b\" : 1,\n \"a\" : 2, \"a\" : 3 }",
            b"\"\\u00e9\\ud800\"",
            "\"é 🦀\"".as_bytes(),
            b"-0.0",
            b"[]",
            b"false",
        ];
        for data in embedded {
            let text = round_trip(&event(data.to_vec()));
            assert!(text.contains(&format!("\"data\":{}", String::from_utf8_lossy(data))), "{text}");
        }
        let encoded: [&[u8]; 9] =
            [b"null", b" 1", b"1\n", b"{", b"1 2", b"\xff\x00", b"\xef\xbb\xbf1", b"NaN", b"\"\n\""];
        for data in encoded {
            let text = round_trip(&event(data.to_vec()));
            assert!(text.contains("\"data_base64\":") && !text.contains("\"data\":"), "{text}");
        }
        let empty = round_trip(&event(""));
        assert!(!empty.contains("\"data\"") && !empty.contains("data_base64"), "{empty}");
        // Deeper than a parser that recurses would go.
        round_trip(&event("[".repeat(10_000) + &"]".repeat(10_000)));
    }

    #[test]
    fn what_is_json_says_the_content_type() {
        for (content_type, is) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/vnd.bot.fill+json", true),
            ("text/json", true),
            ("application/jsonlines", false),
            ("application/protobuf", false),
            ("json", false),
        ] {
            let mut event = event("1");
            event.content_type = content_type.into();
            assert_eq!(round_trip(&event).contains("\"data\":1"), is, "{content_type}");
        }
    }

    #[test]
    fn nobody_in_particular_is_a_slash_and_no_key_is_no_subject() {
        let text = round_trip(&event("1").with_source("").with_key(""));
        assert!(text.contains("\"source\":\"/\"") && !text.contains("subject"), "{text}");
    }

    #[test]
    fn what_no_cloudevent_may_hold_is_not_written() {
        let with = |change: fn(&mut Envelope)| {
            let mut event = event("1");
            change(&mut event);
            event.to_cloudevent().unwrap_err().to_string()
        };
        for (change, word) in [
            ((|e| e.kind.clear()) as fn(&mut Envelope), "kind"),
            (|e| e.content_type.clear(), "content_type"),
            (|e| e.source = "bot 1".into(), "source"),
            (|e| e.source = "bot/é".into(), "source"),
            (|e| e.source = "bot%2".into(), "source"),
            (|e| e.key = "a\nb".into(), "key"),
            (|e| e.traceparent = Some("\u{ffff}".into()), "traceparent"),
        ] {
            let error = with(change);
            assert!(error.contains(word), "{error}");
        }
        round_trip(&event("1").with_source("https://example.com:8080/a%2Fb?c=[1]&d='x'#e"));
    }

    fn foreign(change: impl FnOnce(&mut serde_json::Map<String, Value>)) -> Result<Envelope, InvalidValue> {
        let mut value = json!({
            "specversion": "1.0", "id": "A234-1234-1234", "source": "https://example.com/feed", "type": "com.example.tick",
            "time": "2018-04-05T17:31:00+02:00", "topic": "ticks",
        });
        change(value.as_object_mut().unwrap());
        Envelope::from_cloudevent(value.to_string().as_bytes())
    }

    #[test]
    fn events_of_others_are_read() {
        let read = foreign(|e| {
            e.insert("comexampleextension1".into(), json!("value"));
            e.insert("comexampleothervalue".into(), json!(5));
            e.insert("dataschema".into(), json!(null));
            e.insert("subject".into(), json!(null));
            e.insert("datacontenttype".into(), json!("text/xml"));
            e.insert("data".into(), json!("<much wow=\"xml\"/>"));
        });
        let read = read.unwrap();
        assert_eq!((&read.data[..], read.key.as_str()), (&b"<much wow=\"xml\"/>"[..], ""));
        assert_eq!(read.time, "2018-04-05T15:31:00Z".parse().unwrap());
        let bare = foreign(|_| {}).unwrap();
        assert_eq!((bare.content_type.as_str(), bare.data.len(), bare.traceparent), (JSON, 0, None));
        let null = foreign(|e| drop(e.insert("data".into(), json!(null)))).unwrap();
        assert_eq!(&null.data[..], b"null");
        let within = ExecutionContext::new(CorrelationId::from_u128(9)).sync_scope(|| foreign(|_| {}));
        assert_eq!(within.unwrap().correlation, CorrelationId::from_u128(9));
    }

    #[test]
    fn bad_events_are_refused_with_the_attribute_that_is_wrong() {
        for name in ["specversion", "id", "source", "type", "time", "topic"] {
            let missing = foreign(|e| drop(e.remove(name))).unwrap_err().to_string();
            assert!(missing.contains(name), "{missing}");
            let null = foreign(|e| drop(e.insert(name.into(), json!(null)))).unwrap_err().to_string();
            assert_eq!(null, missing);
            let empty = foreign(|e| drop(e.insert(name.into(), json!("")))).unwrap_err().to_string();
            assert_eq!(empty, missing);
            assert!(foreign(|e| drop(e.insert(name.into(), json!(1)))).is_err(), "{name}");
        }
        for (name, value, word) in [
            ("specversion", json!("0.3"), "0.3"),
            ("specversion", json!("1.1"), "1.1"),
            ("id", json!("a b"), "event id"),
            ("time", json!("yesterday"), "RFC 3339"),
            ("topic", json!("ticks:*"), "topic"),
            ("correlation", json!("7"), "correlation"),
            ("datacontenttype", json!(""), "datacontenttype"),
            ("data_base64", json!("a"), "Base64"),
            ("data_base64", json!("YQ"), "Base64"),
        ] {
            let error = foreign(|e| drop(e.insert(name.into(), value.clone()))).unwrap_err().to_string();
            assert!(error.contains(word), "{name} {value}: {error}");
        }
        for data in [json!(1), json!(null), json!("YQ==")] {
            let both = foreign(|e| {
                e.insert("data".into(), data);
                e.insert("data_base64".into(), json!("YQ=="));
            });
            assert!(both.unwrap_err().to_string().contains("not both"));
        }
        let object = foreign(|e| {
            e.insert("datacontenttype".into(), json!("text/plain"));
            e.insert("data".into(), json!({"a": 1}));
        });
        assert!(object.unwrap_err().to_string().contains("string"));
        for text in ["", "[]", "1", "{", "{} {}", "{\"id\":\"a\",\"id\":\"b\"}", "\u{feff}{}"] {
            assert!(Envelope::from_cloudevent(text.as_bytes()).is_err(), "{text:?}");
        }
        assert!(Envelope::from_cloudevent(b"\xff").is_err());
    }

    fn payloads() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..200),
            any::<String>().prop_map(String::into_bytes),
            any::<String>().prop_map(|s| json!({ s.as_str(): s }).to_string().into_bytes()),
            "[ \n]{0,1}-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,4})?[ \n]{0,1}"
                .prop_map(String::into_bytes),
        ]
    }

    proptest! {
        #[test]
        fn every_event_comes_back(
            id in "[!-~]{1,128}", topic in "[a-zA-Z0-9:._-]{1,60}", key in "\\P{C}{0,40}", source in "[a-zA-Z0-9/:._~-]{0,40}",
            kind in "\\P{C}{1,40}", nanos: i64, is_json: bool, correlation: u128, traceparent in proptest::option::of("\\P{C}{0,60}"),
            data in payloads(),
        ) {
            let event = Envelope {
                id: EventId::new(id).unwrap(),
                topic: Topic::new(topic).unwrap(),
                key,
                // The two ways to say "nobody" are one.
                source: if source == NOBODY { String::new() } else { source },
                kind,
                time: Timestamp::from_nanos(nanos),
                content_type: if is_json { "application/json" } else { "application/octet-stream" }.into(),
                correlation: CorrelationId::from_u128(correlation),
                traceparent,
                data: data.into(),
            };
            let text = event.to_cloudevent().unwrap();
            prop_assert_eq!(&Envelope::from_cloudevent(text.as_bytes()).unwrap(), &event);
            // Also what another program reads: the same attributes by a parser that knows nothing of us.
            if let Ok(value) = serde_json::from_str::<Value>(&text) {
                prop_assert_eq!(value["id"].as_str(), Some(event.id.as_str()));
                prop_assert_eq!(value["type"].as_str(), Some(event.kind.as_str()));
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Envelope::from_cloudevent(&bytes);
        }
    }
}
