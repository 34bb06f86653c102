//! Where a reply ends, so that a connection that is read bit by bit knows when one is whole.

/// A line of a reply (not a payload) is never near this long.
const LINE_MAX: usize = 64 * 1_024;

/// Why bytes are no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoReply {
    /// They are in no form that Redis speaks.
    Unreadable,
    /// It would be longer than the limit.
    TooLong,
}

/// How many bytes the first reply (RESP2 or RESP3) at the front of `bytes` takes; none if it is not whole yet. It costs a look at
/// each element, not at each byte.
pub(super) fn whole(bytes: &[u8], limit: usize) -> Result<Option<usize>, NoReply> {
    let (mut at, mut left) = (0_usize, 1_usize);
    while left > 0 {
        let rest = bytes.get(at..).unwrap_or_default();
        let Some(end) = rest.iter().take(LINE_MAX).position(|byte| *byte == b'\n') else {
            return if rest.len() >= LINE_MAX { Err(NoReply::Unreadable) } else { within(at, limit) };
        };
        let (kind, text) = match rest.get(..end) {
            Some([kind, text @ .., b'\r']) => (*kind, text),
            _ => return Err(NoReply::Unreadable),
        };
        (at, left) = (at + end + 1, left - 1);
        let (payload, elements) = match kind {
            b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => (0, 0),
            // After the payload comes a line end; -1 is RESP2's null.
            b'$' | b'=' | b'!' => (number(text)?.map_or(0, |n| n.saturating_add(2)), 0),
            b'*' | b'>' | b'~' => (0, number(text)?.unwrap_or(0)),
            b'%' => (0, number(text)?.unwrap_or(0).saturating_mul(2)),
            // An attribute stands before what it belongs to.
            b'|' => (0, number(text)?.unwrap_or(0).saturating_mul(2).saturating_add(1)),
            _ => return Err(NoReply::Unreadable),
        };
        (at, left) = (at.saturating_add(payload), left.saturating_add(elements));
        // An element has three bytes at least.
        within(at.saturating_add(left.saturating_mul(3)), limit)?;
    }
    Ok((at <= bytes.len()).then_some(at))
}

fn within(length: usize, limit: usize) -> Result<Option<usize>, NoReply> {
    if length > limit { Err(NoReply::TooLong) } else { Ok(None) }
}

fn number(text: &[u8]) -> Result<Option<usize>, NoReply> {
    if text == b"-1" {
        return Ok(None);
    }
    let text = std::str::from_utf8(text).map_err(|_| NoReply::Unreadable)?;
    text.parse().map(Some).map_err(|_| NoReply::Unreadable)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 1 << 20;

    #[test]
    fn every_kind_of_reply_is_measured() {
        for reply in [
            "+OK\r\n",
            "-ERR no\r\n",
            ":7\r\n",
            "_\r\n",
            "$-1\r\n",
            "*-1\r\n",
            "$0\r\n\r\n",
            "$5\r\na\r\nbc\r\n",
            "*0\r\n",
            "*2\r\n*1\r\n:1\r\n$1\r\nx\r\n",
            ">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n",
            "%2\r\n+a\r\n:1\r\n+b\r\n*1\r\n,1.5\r\n",
            "|1\r\n+k\r\n+v\r\n:1\r\n",
            "=8\r\ntxt:stop\r\n",
            "~1\r\n#t\r\n",
        ] {
            let followed = format!("{reply}+next\r\n");
            assert_eq!(whole(followed.as_bytes(), LIMIT), Ok(Some(reply.len())), "{reply:?}");
            assert!(redis::parse_redis_value(reply.as_bytes()).is_ok(), "{reply:?}");
            for end in 0..reply.len() {
                assert_eq!(whole(&reply.as_bytes()[..end], LIMIT), Ok(None), "{:?}", &reply[..end]);
            }
        }
    }

    #[test]
    fn what_is_no_reply_is_refused_before_it_takes_memory() {
        for wrong in ["HTTP/1.1 400\r\n", "$x\r\n", "$-2\r\n", "\r\n", "+no line end\n", "*99999999999999999999999\r\n"]
        {
            assert_eq!(whole(wrong.as_bytes(), LIMIT), Err(NoReply::Unreadable), "{wrong:?}");
        }
        for long in ["$1048576\r\n", "*1000000\r\n", "%18446744073709551615\r\n", "$18446744073709551615\r\n"] {
            assert_eq!(whole(long.as_bytes(), LIMIT), Err(NoReply::TooLong), "{long:?}");
        }
        assert_eq!(whole(&vec![b'+'; LINE_MAX], LIMIT), Err(NoReply::Unreadable));
    }

    proptest! {
        #[test]
        fn a_payload_may_be_any_bytes(payload in prop::collection::vec(any::<u8>(), 0..200), cut in 0_usize..250) {
            let mut push = b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$".to_vec();
            push.extend_from_slice(format!("{}\r\n", payload.len()).as_bytes());
            push.extend_from_slice(&payload);
            push.extend_from_slice(b"\r\n");
            prop_assert_eq!(whole(&push, LIMIT), Ok(Some(push.len())));
            prop_assert_eq!(whole(&push[..cut.min(push.len() - 1)], LIMIT), Ok(None));
        }

        #[test]
        fn no_bytes_are_measured_beyond_their_end(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            if let Ok(Some(length)) = whole(&bytes, LIMIT) {
                prop_assert!(length <= bytes.len());
            }
        }
    }
}
