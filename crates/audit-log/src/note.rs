//! Checkpoints as C2SP signed notes (<https://c2sp.org/signed-note>, <https://c2sp.org/tlog-checkpoint>).
//!
//! The text is three lines, origin, size and root in base64; a signature line names the key and holds its id and the Ed25519
//! signature of the text. Keys are written as Go's `sumdb/note` writes them, so that its tools read them.

use std::fmt;

use base64::{Engine, prelude::BASE64_STANDARD};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use rand::TryRngCore;
use sha2::{Digest, Sha256};

use crate::{
    error::AuditError,
    tree::{Hash32, TreeHead},
};

const ED25519: u8 = 1;
/// No note of ours comes near; it bounds what a reader takes from a stranger's file.
pub(crate) const NOTE_BYTES_MAX: usize = 64 * 1024;

fn bad(reason: impl Into<String>) -> AuditError {
    AuditError::BadNote { reason: reason.into() }
}

/// The public half: who may sign checkpoints of one log.
#[derive(Clone, PartialEq, Eq)]
pub struct NoteVerifier {
    origin: String,
    key: VerifyingKey,
}

impl NoteVerifier {
    /// Reads `<origin>+<key id in hex>+<base64>`.
    ///
    /// # Errors
    /// `BadNote` if it is not of that form.
    pub fn parse(text: &str) -> Result<Self, AuditError> {
        let (origin, bytes) = parse_key(text).ok_or_else(|| bad("the verifier key is not <origin>+<id>+<base64>"))?;
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| bad("the verifier key is not an Ed25519 key"))?;
        let this = Self { origin, key };
        // The id tells a mistyped key from a right one.
        if this.to_string() == text { Ok(this) } else { Err(bad("the verifier key does not fit its id")) }
    }

    /// The log's name: the first line of its checkpoints.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    fn key_id(&self) -> [u8; 4] {
        let digest = Sha256::new()
            .chain_update(self.origin.as_bytes())
            .chain_update([b'\n', ED25519])
            .chain_update(self.key.as_bytes())
            .finalize();
        [digest[0], digest[1], digest[2], digest[3]]
    }

    /// The text of a note that this key has signed; signatures of other keys are passed over.
    fn open<'a>(&self, note: &'a str) -> Result<&'a str, AuditError> {
        if note.len() > NOTE_BYTES_MAX {
            return Err(bad(format!("a note has at most {NOTE_BYTES_MAX} bytes")));
        }
        let split = note.rfind("\n\n").ok_or_else(|| bad("there is no empty line before the signatures"))?;
        let (text, signatures) = (&note[..=split], &note[split + 2..]);
        if !signatures.ends_with('\n') {
            return Err(bad("the last line is cut off"));
        }
        for line in signatures.lines() {
            let parts = line.strip_prefix("\u{2014} ").and_then(|rest| rest.split_once(' '));
            let (name, blob) = parts.ok_or_else(|| bad("a signature line is not `— name base64`"))?;
            let blob = BASE64_STANDARD.decode(blob).map_err(|_| bad("a signature is not base64"))?;
            let Some((id, signature)) = blob.split_first_chunk::<4>() else {
                return Err(bad("a signature is cut off"));
            };
            if name == self.origin && *id == self.key_id() {
                let signature = Signature::from_slice(signature).map_err(|_| bad("the signature is cut off"))?;
                let signed = self.key.verify_strict(text.as_bytes(), &signature);
                return signed.map(|()| text).map_err(|_| bad("the signature does not fit the text"));
            }
        }
        Err(bad(format!("it is not signed by {self}")))
    }
}

impl fmt::Display for NoteVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_key(f, "", self, self.key.as_bytes())
    }
}

impl fmt::Debug for NoteVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NoteVerifier({self})")
    }
}

fn write_key(out: &mut impl fmt::Write, prefix: &str, public: &NoteVerifier, bytes: &[u8; 32]) -> fmt::Result {
    let mut tagged = vec![ED25519];
    tagged.extend(bytes);
    let id = u32::from_be_bytes(public.key_id());
    write!(out, "{prefix}{}+{id:08x}+{}", public.origin, BASE64_STANDARD.encode(tagged))
}

fn parse_key(text: &str) -> Option<(String, [u8; 32])> {
    let mut parts = text.splitn(3, '+');
    let (origin, _id, blob) = (parts.next()?, parts.next()?, parts.next()?);
    let blob = BASE64_STANDARD.decode(blob).ok()?;
    let (tag, bytes) = blob.split_first()?;
    check_origin(origin).ok()?;
    (*tag == ED25519).then_some((origin.into(), bytes.try_into().ok()?))
}

fn check_origin(origin: &str) -> Result<(), AuditError> {
    let fits = !origin.is_empty() && origin.len() <= 255 && origin.bytes().all(|b| b.is_ascii_graphic() && b != b'+');
    let rule = "an origin is 1 to 255 bytes of printable ASCII without + and spaces, e.g. `example.com/bots/7`";
    if fits { Ok(()) } else { Err(AuditError::Invalid { rule: rule.into() }) }
}

/// The secret half: signs checkpoints of one log. Never prints its key.
#[derive(Clone)]
pub struct NoteSigner {
    key: SigningKey,
    verifier: NoteVerifier,
}

impl NoteSigner {
    /// A new key from the system's random source.
    ///
    /// # Errors
    /// `Invalid` if the origin is not 1 to 255 bytes of printable ASCII without `+`; `Backend` without a random source.
    pub fn generate(origin: &str) -> Result<Self, AuditError> {
        let mut seed = [0; 32];
        rand::rngs::OsRng.try_fill_bytes(&mut seed).map_err(|e| AuditError::Backend {
            message: format!("the system gives no random bytes: {e}"),
            kind: infra_types::ErrorKind::Unavailable,
        })?;
        Self::from_seed(origin, &seed)
    }

    /// The key that a seed determines, for tests and for keys that are kept elsewhere.
    ///
    /// # Errors
    /// `Invalid` as `generate`.
    pub fn from_seed(origin: &str, seed: &[u8; 32]) -> Result<Self, AuditError> {
        check_origin(origin)?;
        let key = SigningKey::from_bytes(seed);
        let verifier = NoteVerifier { origin: origin.into(), key: key.verifying_key() };
        Ok(Self { key, verifier })
    }

    /// Reads `PRIVATE+KEY+<origin>+<key id in hex>+<base64>`; none if it is not of that form.
    pub(crate) fn parse_secret(text: &str) -> Option<Self> {
        let (origin, seed) = parse_key(text.strip_prefix("PRIVATE+KEY+")?)?;
        let this = Self::from_seed(&origin, &seed).ok()?;
        (this.to_secret_text() == text).then_some(this)
    }

    /// What `parse_secret` reads.
    pub(crate) fn to_secret_text(&self) -> String {
        let mut out = String::new();
        // Writing to a String does not fail.
        let _ = write_key(&mut out, "PRIVATE+KEY+", &self.verifier, self.key.as_bytes());
        out
    }

    /// The public half; give it to whoever is to verify.
    #[must_use]
    pub fn verifier(&self) -> &NoteVerifier {
        &self.verifier
    }

    /// Signs a head, which should come from [`AuditLog::checkpoint`](crate::AuditLog::checkpoint).
    #[must_use]
    pub fn sign(&self, head: TreeHead) -> Checkpoint {
        let origin = &self.verifier.origin;
        let text = format!("{origin}\n{}\n{}\n", head.size, BASE64_STANDARD.encode(head.root.as_bytes()));
        let note = format!("{text}\n{}", self.signature_line(&text));
        Checkpoint { origin: origin.clone(), head, note }
    }

    fn signature_line(&self, text: &str) -> String {
        let mut blob = self.verifier.key_id().to_vec();
        blob.extend(self.key.sign(text.as_bytes()).to_bytes());
        format!("\u{2014} {} {}\n", self.verifier.origin, BASE64_STANDARD.encode(blob))
    }
}

impl fmt::Debug for NoteSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NoteSigner(*** of {})", self.verifier)
    }
}

/// A head that a key vouches for. It only comes to be by signing or by checking a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    origin: String,
    head: TreeHead,
    note: String,
}

impl Checkpoint {
    /// Checks a note's signature and reads it.
    ///
    /// # Errors
    /// `BadNote` if `verifier` has not signed it, if it is of another origin, or not of the three lines.
    pub fn open(note: &str, verifier: &NoteVerifier) -> Result<Self, AuditError> {
        let text = verifier.open(note)?;
        let head = parse_head(text, verifier.origin())
            .ok_or_else(|| bad(format!("its text is not the three lines of a checkpoint of {}", verifier.origin())))?;
        Ok(Self { origin: verifier.origin.clone(), head, note: note.into() })
    }

    /// The log's name.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// What was signed.
    #[must_use]
    pub fn head(&self) -> TreeHead {
        self.head
    }

    /// The signed note, to be kept where the log's writer cannot reach it.
    #[must_use]
    pub fn note(&self) -> &str {
        &self.note
    }
}

fn parse_head(text: &str, origin: &str) -> Option<TreeHead> {
    let lines: Vec<_> = text.strip_suffix('\n')?.split('\n').collect();
    let [name, size_text, root] = lines.as_slice() else { return None };
    let size: u64 = size_text.parse().ok()?;
    let root = BASE64_STANDARD.decode(root).ok()?;
    let root = Hash32::try_from(root.as_slice()).ok()?;
    // One text for each number: no `+7`, no `007`.
    (*name == origin && size.to_string() == *size_text).then_some(TreeHead { size, root })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Frontier;

    /// The example of Go's `golang.org/x/mod/sumdb/note`.
    #[test]
    fn published_note_and_keys() {
        let secret = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
        let public = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        let text =
            "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
        let line = "\u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
        let signer = NoteSigner::parse_secret(secret).unwrap();
        assert_eq!(signer.verifier().to_string(), public);
        assert_eq!(signer.signature_line(text), line);
        let verifier = NoteVerifier::parse(public).unwrap();
        assert_eq!(verifier.open(&format!("{text}\n{line}")).unwrap(), text);
        assert!(!format!("{signer:?}").contains("AYEKFALV"));
    }

    fn signer() -> NoteSigner {
        NoteSigner::from_seed("example.com/bot-7", &[7; 32]).unwrap()
    }

    #[test]
    fn every_changed_byte_of_a_checkpoint_is_noticed() {
        let checkpoint = signer().sign(Frontier::default().head());
        let verifier = NoteVerifier::parse(&signer().verifier().to_string()).unwrap();
        assert_eq!(Checkpoint::open(checkpoint.note(), &verifier).unwrap(), checkpoint);
        for at in 0..checkpoint.note().len() {
            let mut bytes = checkpoint.note().as_bytes().to_vec();
            bytes[at] ^= 1 << (at % 7);
            if let Ok(text) = String::from_utf8(bytes) {
                assert!(Checkpoint::open(&text, &verifier).is_err(), "byte {at}");
            }
            if checkpoint.note().is_char_boundary(at) {
                assert!(Checkpoint::open(&checkpoint.note()[..at], &verifier).is_err(), "cut at {at}");
            }
        }
    }

    #[test]
    fn other_keys_and_origins_do_not_count_and_witness_lines_do_no_harm() {
        let checkpoint = signer().sign(Frontier::default().head());
        let stranger = NoteSigner::from_seed("example.com/bot-7", &[8; 32]).unwrap();
        let renamed = NoteSigner::from_seed("example.com/bot-8", &[7; 32]).unwrap();
        for other in [stranger.verifier(), renamed.verifier()] {
            assert!(Checkpoint::open(checkpoint.note(), other).is_err());
        }
        let text = checkpoint.note().split_once("\n\n").unwrap().0.to_owned() + "\n";
        let witnessed = format!("{}{}", checkpoint.note(), stranger.signature_line(&text));
        assert_eq!(Checkpoint::open(&witnessed, stranger.verifier()).unwrap().head(), checkpoint.head());
        assert_eq!(Checkpoint::open(&witnessed, signer().verifier()).unwrap().head(), checkpoint.head());
        for origin in ["", "a b", "a+b", "a\nb"] {
            assert!(NoteSigner::from_seed(origin, &[7; 32]).is_err(), "{origin:?}");
        }
    }

    #[test]
    fn sizes_have_one_spelling() {
        let root = BASE64_STANDARD.encode([1; 32]);
        for (size, good) in
            [("7", true), ("+7", false), ("07", false), ("-7", false), ("", false), ("99999999999999999999", false)]
        {
            assert_eq!(parse_head(&format!("o\n{size}\n{root}\n"), "o").is_some(), good, "{size}");
        }
        assert!(parse_head(&format!("o\n7\n{root}\nmore\n"), "o").is_none());
    }
}
