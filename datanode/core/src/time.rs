//! Timestamps: RFC 3339 outside, milliseconds since 1970 in UTC inside.
//!
//! What `parse` accepts, `format` writes as RFC 3339 again: an instant whose UTC year has
//! no four digits is refused at the edge.  Digits beyond the millisecond are cut off, in
//! documents and in filter operands alike, so that a filter finds what was written.

use chrono::{DateTime, SecondsFormat, Utc};

use crate::problem::{Code, Problem, shorten};

/// 0000-01-01T00:00:00.000Z.
const FIRST_MS: i64 = -62_167_219_200_000;
/// 9999-12-31T23:59:59.999Z.
const LAST_MS: i64 = 253_402_300_799_999;

pub fn parse(text: &str) -> Result<i64, Problem> {
    let refused = |why: String| {
        Problem::new(Code::TypeMismatch, why)
            .hint("a timestamp is an RFC 3339 string with an offset, like \"2026-01-31T12:00:00Z\"")
    };
    let moment = DateTime::parse_from_rfc3339(text)
        .map_err(|e| refused(format!("'{}' is not a timestamp: {e}", shorten(text))))?;
    let ms = moment.timestamp_millis();
    if (FIRST_MS..=LAST_MS).contains(&ms) {
        return Ok(ms);
    }
    Err(refused(format!(
        "'{}' is outside the years 0000 to 9999 in UTC",
        shorten(text)
    )))
}

/// UTC with milliseconds.  A number no timestamp can have (it can only come from a corrupt
/// store) is clamped, so that the text stays RFC 3339.
pub fn format(ms: i64) -> String {
    let ms = ms.clamp(FIRST_MS, LAST_MS);
    let moment: DateTime<Utc> =
        DateTime::from_timestamp_millis(ms).expect("clamped to four-digit years, which chrono holds");
    moment.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// A length of time in milliseconds: `7d`, `12h`, `30m`, `1.5s`, `500ms`.
pub fn parse_span(text: &str) -> Option<f64> {
    let at = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(at);
    let ms = match unit {
        "ms" => 1.0,
        "s" => 1e3,
        "m" => 60e3,
        "h" => 3_600e3,
        "d" => 86_400e3,
        _ => return None,
    };
    let plain = number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    number.parse::<f64>().ok().filter(|_| plain).map(|n| n * ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn offsets_are_folded_into_utc() {
        let ms = parse("2026-01-31T12:00:00.5+02:00").expect("valid");
        assert_eq!(format(ms), "2026-01-31T10:00:00.500Z");
    }

    #[test]
    fn a_span_is_a_number_and_a_unit() {
        for (text, ms) in [
            ("7d", 604_800_000.0),
            ("12h", 43_200_000.0),
            ("30m", 1_800_000.0),
            ("1.5s", 1_500.0),
            ("500ms", 500.0),
        ] {
            assert_eq!(parse_span(text), Some(ms), "{text}");
        }
        for text in ["", "7", "d", "-1d", "7w", "7 d", "1e3s", "infs", "7dd", "ds"] {
            assert_eq!(parse_span(text), None, "{text}");
        }
    }

    #[test]
    fn digits_beyond_the_millisecond_are_cut_off_before_and_after_1970() {
        assert_eq!(
            format(parse("2026-01-31T12:00:00.123999999Z").expect("valid")),
            "2026-01-31T12:00:00.123Z"
        );
        assert_eq!(
            format(parse("1969-12-31T23:59:59.9999Z").expect("valid")),
            "1969-12-31T23:59:59.999Z"
        );
    }

    #[test]
    fn what_is_not_rfc_3339_is_refused_with_an_example() {
        for text in [
            "",
            "now",
            "2026-01-31",
            "2026-01-31T12:00:00",
            "2026-02-30T12:00:00Z",
            "1700000000",
        ] {
            let problem = parse(text).expect_err(text);
            assert_eq!(problem.code, Code::TypeMismatch);
            assert!(problem.hint.expect("a hint").contains("RFC 3339"));
        }
    }

    #[test]
    fn an_instant_whose_utc_year_has_five_digits_or_a_sign_is_refused() {
        assert!(parse("9999-12-31T23:59:59-01:00").is_err());
        assert!(parse("0000-01-01T00:00:00+01:00").is_err());
        assert_eq!(parse("9999-12-31T23:59:59.999Z"), Ok(LAST_MS));
        assert_eq!(parse("0000-01-01T00:00:00Z"), Ok(FIRST_MS));
        assert!(parse("9999-12-31T23:59:60Z").is_err());
    }

    proptest! {
        #[test]
        fn every_instant_in_range_survives_format_and_parse(ms in FIRST_MS..=LAST_MS) {
            prop_assert_eq!(parse(&format(ms)), Ok(ms));
        }

        #[test]
        fn any_text_parses_to_something_that_formats_or_is_refused(text in "[0-9TZ:.+ -]{0,40}") {
            if let Ok(ms) = parse(&text) {
                prop_assert_eq!(parse(&format(ms)), Ok(ms));
            }
        }
    }
}
