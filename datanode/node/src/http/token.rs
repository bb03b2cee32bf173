//! Opaque tokens: bytes with a checksum, in letters that need no escaping in a URL.  The
//! checksum tells a token that was cut or edited from one that is ours; it is no secret,
//! since a token opens nothing that its bearer could not read anyway.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

pub fn seal(mut bytes: Vec<u8>) -> String {
    let sum = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The bytes of a token that `seal` made.
pub fn open(token: &str) -> Option<Vec<u8>> {
    let mut bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let body = bytes.len().checked_sub(4)?;
    let sum = bytes.split_off(body);
    (sum == crc32fast::hash(&bytes).to_le_bytes()).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_opens_again_and_a_changed_one_does_not() {
        let token = seal(b"hello".to_vec());
        assert_eq!(open(&token).as_deref(), Some(b"hello".as_slice()));
        for at in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(open(&String::from_utf8(changed).expect("ascii")), None);
        }
        for text in [
            "",
            "!",
            "AAAA",
            "hello world",
            &token[1..],
            &token[..token.len() - 1],
        ] {
            assert_eq!(open(text), None, "{text}");
        }
    }
}
