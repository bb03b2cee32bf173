//! Until when a certificate is valid, read from its DER: seven steps into a structure that
//! rustls has checked already.

use rhumb_core::time;

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xA0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// `None` for whatever is no X.509 certificate.
pub fn not_after_ms(der: &[u8]) -> Option<i64> {
    let (certificate, _) = value(der, SEQUENCE)?;
    let (mut tbs, _) = value(certificate, SEQUENCE)?;
    if tbs.first() == Some(&VERSION) {
        tbs = any(tbs)?.2;
    }
    // Serial number, algorithm, issuer.
    for _ in 0..3 {
        tbs = any(tbs)?.2;
    }
    let (validity, _) = value(tbs, SEQUENCE)?;
    let (_, _, after) = any(validity)?;
    let (tag, not_after, _) = any(after)?;
    let text = std::str::from_utf8(not_after).ok()?.strip_suffix('Z')?;
    let full = match tag {
        // RFC 5280: two digits from 50 on are of the last century.
        UTC_TIME if text.get(..2)? >= "50" => format!("19{text}"),
        UTC_TIME => format!("20{text}"),
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    let part = |from: usize, to: usize| full.get(from..to);
    let (date, hour) = (
        (part(0, 4)?, part(4, 6)?, part(6, 8)?),
        (part(8, 10)?, part(10, 12)?, part(12, 14)?),
    );
    let text = format!(
        "{}-{}-{}T{}:{}:{}Z",
        date.0, date.1, date.2, hour.0, hour.1, hour.2
    );
    time::parse(&text).ok()
}

fn value(der: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (tag, value, rest) = any(der)?;
    (tag == wanted).then_some((value, rest))
}

/// Tag, value, and what comes after.
fn any(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7F => (usize::from(*first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7F))?;
            let length = digits
                .iter()
                .fold(0_usize, |sum, digit| sum << 8 | usize::from(*digit));
            (length, rest)
        }
        _ => return None,
    };
    let (value, rest) = rest.split_at_checked(length)?;
    Some((*tag, value, rest))
}
