use infra_types::{ErrorKind, EventId, Symbol, UserId};
use proptest::{option, prelude::*};

use super::*;
use crate::AuditKind;

fn fields() -> impl Strategy<Value = Fields> {
    prop::collection::btree_map(".{0,6}", ".{0,12}", 0..5)
        .prop_filter("texts of floats are refused", |m| !m.values().any(|t| matches!(&**t, "NaN" | "inf" | "-inf")))
        .prop_map(Fields)
}

fn kind() -> impl Strategy<Value = AuditKind> {
    prop_oneof![
        prop::sample::select(AuditKind::BUILT_IN),
        "[A-Z][A-Z0-9_]{0,63}".prop_map(|name| name.parse().unwrap()),
    ]
}

prop_compose! {
    fn event()(
        id in "[!-~]{1,128}", kind in kind(), at in any::<i64>(), user in option::of("[a-z]{1,64}"), address in option::of(".*"),
        correlation in option::of(any::<u128>()), resource in ".*", action in ".*", symbol in option::of("[A-Z]{1,64}"),
        before in option::of(fields()), after in option::of(fields()), details in fields(),
    ) -> AuditEvent {
        AuditEvent {
            id: EventId::new(id).unwrap(),
            kind,
            at: Timestamp::from_nanos(at),
            context: AuditContext {
                user: user.map(|u| UserId::new(u).unwrap()),
                address,
                correlation: correlation.map(CorrelationId::from_u128),
            },
            resource, action, before, after, details,
            symbol: symbol.map(|s| Symbol::new(s).unwrap()),
        }
    }
}

proptest! {
    #[test]
    fn what_was_encoded_decodes_to_the_same(event in event()) {
        let data = event.encode().unwrap();
        prop_assert_eq!(AuditEvent::decode(&data).unwrap(), event);
    }

    #[test]
    fn any_bytes_decode_to_what_encodes_to_them_or_not_at_all(event in event(), at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let mut data = event.encode().unwrap();
        let at = at.index(data.len());
        data[at] = to;
        // The one asymmetry: a flip may spell `NaN`, which may not be written.
        if let Ok(other) = AuditEvent::decode(&data) && let Ok(again) = other.encode() {
            prop_assert_eq!(again, data);
        }
    }

    #[test]
    fn a_part_of_an_event_is_no_event(event in event(), cut in any::<prop::sample::Index>()) {
        let mut data = event.encode().unwrap();
        prop_assert!(AuditEvent::decode(&data[..cut.index(data.len())]).is_err());
        data.push(0);
        prop_assert!(AuditEvent::decode(&data).is_err());
    }
}

fn small() -> AuditEvent {
    AuditEvent::new(EventId::new("1").unwrap(), AuditKind::SystemEvent, Timestamp::EPOCH, "", "")
}

#[test]
fn the_layout_is_what_it_was() {
    let event = small().with_symbol(Symbol::new("B").unwrap()).with_details(Fields::new().with("k", 7u32));
    let want = "0001000131000c53595354454d5f4556454e54000000000000000000000000000000010001420000000100016b000137";
    assert_eq!(hex::encode(event.encode().unwrap()), want);
}

#[test]
fn the_largest_event_fits_and_one_byte_more_is_an_error() {
    let room = LEAF_BYTES_MAX - small().encode().unwrap().len();
    let mut event = small();
    event.resource = "x".repeat(room);
    assert_eq!(event.encode().unwrap().len(), LEAF_BYTES_MAX);
    for more in [1, 40_000, 200_000] {
        event.resource = "x".repeat(room + more);
        let e = event.encode().unwrap_err();
        assert!(matches!(e, AuditError::TooLarge { max: LEAF_BYTES_MAX, .. }), "{e}");
        assert_eq!(e.kind(), ErrorKind::Invalid);
    }
}

#[test]
fn texts_of_floats_are_refused_and_long_numbers_kept() {
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let event = small().with_after(Fields::new().with("pnl", bad.to_string()));
        assert!(matches!(event.encode(), Err(AuditError::Invalid { .. })), "{bad}");
    }
    // A canonical-JSON library would store ...992.
    let event = small().with_details(Fields::new().with("json", r#"{"n":9007199254740993}"#));
    let back = AuditEvent::decode(&event.encode().unwrap()).unwrap();
    assert_eq!(back.details.get("json"), Some(r#"{"n":9007199254740993}"#));
}
