//! Finding batches in the bytes of either protocol.

use super::super::batches::Name;

/// Longer than anything that is looked for.
const CARRY: usize = 40;

/// A stream in pieces: what was looked at may be the start of something that goes on in the next piece.
#[derive(Debug, Default)]
struct Pieces(Vec<u8>);

impl Pieces {
    fn add(&mut self, piece: &[u8]) -> &[u8] {
        let keep = self.0.len().min(CARRY);
        self.0.drain(..self.0.len() - keep);
        self.0.extend_from_slice(piece);
        &self.0
    }
}

/// Finds the ids of batches, which stand as text in requests of both protocols.
#[derive(Debug, Default)]
pub(super) struct Requests(Pieces);

impl Requests {
    pub(super) fn feed(&mut self, piece: &[u8]) -> Vec<Name> {
        let bytes = self.0.add(piece);
        let mut found = Vec::new();
        for (at, _) in bytes.windows(2).enumerate().filter(|(_, two)| two == b"<w") {
            let rest = &bytes[at..bytes.len().min(at + CARRY)];
            let name = rest.iter().position(|byte| *byte == b'>').map(|end| &rest[..=end]);
            found.extend(name.and_then(|name| Name::parse(std::str::from_utf8(name).ok()?)));
        }
        found
    }
}

/// Finds the numbers of batches, which are the last result of each, in replies whose end has been seen.
#[derive(Debug, Default)]
pub(super) struct Replies {
    pieces: Pieces,
    /// PostgreSQL's, whose reply has not ended yet.
    open: Vec<Name>,
}

impl Replies {
    pub(super) fn feed(&mut self, piece: &[u8]) -> Vec<Name> {
        let bytes = self.pieces.add(piece);
        let mut whole = Vec::new();
        for (at, byte) in bytes.iter().enumerate() {
            match byte {
                // Redis: a last line of digits.
                b'\n' => whole.extend(digits(&bytes[at + 1..])),
                // PostgreSQL: the last eight bytes before CommandComplete.
                0 if bytes[at..].get(8..12) == Some(b"C\0\0\0") => {
                    let number = bytes[at..].first_chunk().map(|eight| i64::from_be_bytes(*eight));
                    self.open.extend(number.and_then(Name::from_number).filter(|name| name.n > 0));
                }
                // ReadyForQuery.
                b'Z' if bytes[at..].starts_with(b"Z\0\0\0\x05I") => whole.append(&mut self.open),
                _ => {}
            }
        }
        whole
    }
}

fn digits(bytes: &[u8]) -> Option<Name> {
    let length = bytes.iter().take(20).take_while(|byte| byte.is_ascii_digit()).count();
    let text = std::str::from_utf8(&bytes[..length]).ok()?;
    let number = text.parse().ok().filter(|_| bytes[length..].starts_with(b"\r\n"))?;
    Name::from_number(number).filter(|name| name.n > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_pieces(bytes: &[u8], size: usize) -> impl Iterator<Item = &[u8]> {
        bytes.chunks(size)
    }

    #[test]
    fn a_batch_is_found_wherever_its_bytes_are_parted() {
        let name = Name { writer: 31, n: 4_711 };
        let request = format!("*3\r\n$7\r\nEVALSHA\r\n$9\r\n{name}\r\n");
        let redis = format!("$9\r\nok\n12\n3\n{}\r\n", name.number());
        let mut postgres = b"D\0\0\0\x08".to_vec();
        postgres.extend(name.number().to_be_bytes());
        postgres.extend(b"C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05I");
        for size in 1..60 {
            let mut requests = Requests::default();
            assert!(in_pieces(request.as_bytes(), size).any(|piece| requests.feed(piece) == [name]), "{size}");
            for reply in [redis.as_bytes(), &postgres] {
                let mut replies = Replies::default();
                assert!(in_pieces(reply, size).any(|piece| replies.feed(piece).contains(&name)), "{size}");
                // Without its last byte the reply is not whole.
                let mut replies = Replies::default();
                let mut cut = in_pieces(&reply[..reply.len() - 1], size);
                assert!(cut.all(|piece| replies.feed(piece).is_empty()), "{size}");
            }
        }
    }

    #[test]
    fn numbers_of_batches_are_no_other_numbers() {
        let name = Name { writer: 0, n: 1 };
        assert_eq!(Name::from_number(name.number()), Some(name));
        assert_eq!(Name::from_number(1), None);
        assert_eq!(Name::parse(&name.to_string()), Some(name));
        assert_eq!(Name::parse("<w1n>"), None);
    }
}
