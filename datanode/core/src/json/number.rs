//! Numbers of a JSON text.  The common ones (at most 19 digits, a small exponent) are one
//! pass over the bytes and one multiplication or division, which is correctly rounded
//! (Clinger 1990: both operands are exact in f64).  All others go through `str::parse`,
//! which is correctly rounded too; so the result is always the nearest f64.

use super::{EXACT_IN_F64, Json};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    Int(i64),
    UInt(u64),
    Float(f64),
}

/// What is wrong with a number, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotANumber {
    pub at: usize,
    pub why: &'static str,
}

/// Powers of ten that f64 holds exactly.
const EXACT_TENS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];

/// The number that is the whole of `text`, for words outside a JSON text.
pub fn parse_number(text: &str) -> Option<Json> {
    let (number, end) = scan(text, 0).ok()?;
    (end == text.len()).then_some(match number {
        Number::Int(n) => Json::Int(n),
        Number::UInt(n) => Json::UInt(n),
        Number::Float(x) => Json::Float(x),
    })
}

/// Digits seen so far, as an integer while they fit.
struct Digits {
    mantissa: u64,
    /// Significant ones, without leading zeros.
    count: usize,
}

impl Digits {
    /// Reads digits from `at` on and returns where they end.  The mantissa wraps beyond 19
    /// digits; `count` tells.
    #[inline]
    fn read(&mut self, bytes: &[u8], mut at: usize) -> usize {
        while let Some(word) = bytes.get(at..at + 8).and_then(|b| b.try_into().ok()) {
            let word = u64::from_le_bytes(word);
            // How many digits there are differs from number to number: no branch on it.
            let count = leading_digits(word);
            if count == 0 {
                return at;
            }
            let value = value_of(word, count);
            self.mantissa = self.mantissa.wrapping_mul(TENS[count]).wrapping_add(value);
            self.grow(count, value);
            at += count;
            if count < 8 {
                return at;
            }
        }
        while let Some(digit) = bytes.get(at).map(|b| b.wrapping_sub(b'0')).filter(|d| *d < 10) {
            self.mantissa = self.mantissa.wrapping_mul(10).wrapping_add(u64::from(digit));
            self.grow(1, u64::from(digit));
            at += 1;
        }
        at
    }

    #[inline]
    fn grow(&mut self, digits: usize, group: u64) {
        if self.count > 0 {
            self.count += digits;
        } else if group > 0 {
            // An overestimate is harmless: it only sends a number down the slow path.
            self.count = digits;
        }
    }
}

const TENS: [u64; 9] = [
    1,
    10,
    100,
    1_000,
    10_000,
    100_000,
    1_000_000,
    10_000_000,
    100_000_000,
];

const ZEROS: u64 = 0x3030_3030_3030_3030;

/// How many of eight bytes, from the first on, are ASCII digits.
#[inline]
fn leading_digits(word: u64) -> usize {
    let values = word ^ ZEROS;
    // A byte above 9 gets its high bit; what it carries reaches only bytes behind it.
    let others = (values.wrapping_add(0x7676_7676_7676_7676) | values) & 0x8080_8080_8080_8080;
    others.trailing_zeros() as usize / 8
}

/// The number that the first `count` digits are, 1 to 8 of them.
#[inline]
fn value_of(word: u64, count: usize) -> u64 {
    // Zeros in front, and what is behind falls off.
    let ones = (word ^ ZEROS) << (64 - 8 * count);
    let pairs = ones.wrapping_mul(10).wrapping_add(ones >> 8);
    let low = (pairs & 0x0000_00FF_0000_00FF).wrapping_mul(0x000F_4240_0000_0064);
    let high = ((pairs >> 16) & 0x0000_00FF_0000_00FF).wrapping_mul(0x0000_2710_0000_0001);
    low.wrapping_add(high) >> 32
}

/// The number at `start`, by JSON's grammar, and where it ends.
#[inline]
pub(super) fn scan(text: &str, start: usize) -> Result<(Number, usize), NotANumber> {
    let bytes = text.as_bytes();
    let negative = bytes.get(start) == Some(&b'-');
    let first = start + usize::from(negative);
    let mut digits = Digits {
        mantissa: 0,
        count: 0,
    };
    let mut at = digits.read(bytes, first);
    if at == first {
        return Err(NotANumber {
            at,
            why: "expected a digit",
        });
    }
    if bytes[first] == b'0' && at > first + 1 {
        return Err(NotANumber {
            at: first,
            why: "a number does not start with 0",
        });
    }
    let mut exponent = 0_i64;
    let mut whole = true;
    if bytes.get(at) == Some(&b'.') {
        whole = false;
        let fraction = at + 1;
        at = digits.read(bytes, fraction);
        if at == fraction {
            return Err(NotANumber {
                at,
                why: "expected a digit after the point",
            });
        }
        exponent = fraction as i64 - at as i64;
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        whole = false;
        let (written, end) = scan_exponent(bytes, at + 1)?;
        exponent += written;
        at = end;
    }
    let number = if whole {
        whole_number(negative, &digits, &text[start..at])
    } else {
        decimal(negative, &digits, exponent, &text[start..at])
    };
    match number {
        Number::Float(x) if !x.is_finite() => Err(NotANumber {
            at: start,
            why: "the number is too large",
        }),
        number => Ok((number, at)),
    }
}

/// Saturates: nobody can tell 10^100000 from 10^99999.
fn scan_exponent(bytes: &[u8], start: usize) -> Result<(i64, usize), NotANumber> {
    let negative = bytes.get(start) == Some(&b'-');
    let first = start + usize::from(matches!(bytes.get(start), Some(b'-' | b'+')));
    let mut at = first;
    let mut exponent = 0_i64;
    while let Some(digit) = bytes.get(at).map(|b| b.wrapping_sub(b'0')).filter(|d| *d < 10) {
        exponent = (exponent * 10 + i64::from(digit)).min(1 << 32);
        at += 1;
    }
    if at == first {
        return Err(NotANumber {
            at,
            why: "expected a digit in the exponent",
        });
    }
    Ok((if negative { -exponent } else { exponent }, at))
}

#[inline]
fn whole_number(negative: bool, digits: &Digits, text: &str) -> Number {
    // 19 digits always fit in u64; a 20th may.
    let magnitude = match digits.count {
        0..=19 => Some(digits.mantissa),
        _ => text.trim_start_matches('-').parse().ok(),
    };
    match (magnitude, negative) {
        (Some(m), false) => i64::try_from(m).map_or(Number::UInt(m), Number::Int),
        // An integer has no negative zero.
        (Some(0), true) => Number::Float(-0.0),
        (Some(m), true) => 0_i64
            .checked_sub_unsigned(m)
            .map_or_else(|| slow(text), Number::Int),
        (None, _) => slow(text),
    }
}

#[inline]
fn decimal(negative: bool, digits: &Digits, exponent: i64, text: &str) -> Number {
    if digits.count > 19 || digits.mantissa > EXACT_IN_F64 || exponent.unsigned_abs() > 22 {
        return slow(text);
    }
    let magnitude = digits.mantissa as f64;
    let scale = EXACT_TENS[exponent.unsigned_abs() as usize];
    let x = if exponent < 0 {
        magnitude / scale
    } else {
        magnitude * scale
    };
    Number::Float(if negative { -x } else { x })
}

fn slow(text: &str) -> Number {
    // The grammar was checked, so it parses; out of range gives an infinity, refused above.
    Number::Float(text.parse().unwrap_or(f64::INFINITY))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn number(text: &str) -> Option<Number> {
        scan(text, 0)
            .ok()
            .filter(|(_, end)| *end == text.len())
            .map(|(n, _)| n)
    }

    #[test]
    fn integers_keep_their_value_to_the_ends_of_their_range() {
        assert_eq!(number("0"), Some(Number::Int(0)));
        assert_eq!(number("-9223372036854775808"), Some(Number::Int(i64::MIN)));
        assert_eq!(number("9223372036854775807"), Some(Number::Int(i64::MAX)));
        assert_eq!(number("9223372036854775808"), Some(Number::UInt(1 << 63)));
        assert_eq!(number("18446744073709551615"), Some(Number::UInt(u64::MAX)));
        assert_eq!(
            number("18446744073709551616"),
            Some(Number::Float(18_446_744_073_709_551_616.0))
        );
        assert_eq!(
            number("-9223372036854775809"),
            Some(Number::Float(-9_223_372_036_854_775_808.0))
        );
        assert_eq!(
            number("-0").map(|n| matches!(n, Number::Float(x) if x.is_sign_negative())),
            Some(true)
        );
    }

    #[test]
    fn what_json_does_not_call_a_number_is_refused() {
        for text in [
            "", "-", "01", "-01", "1.", ".5", "1e", "1e+", "+1", "0x10", "1_000", "--1", "1.e5", "Infinity",
        ] {
            assert_eq!(number(text), None, "{text}");
        }
    }

    #[test]
    fn a_number_beyond_f64_is_refused_and_one_below_it_is_zero() {
        assert_eq!(
            scan("1e400", 0),
            Err(NotANumber {
                at: 0,
                why: "the number is too large"
            })
        );
        assert_eq!(scan("-1e99999999999999999999", 0).map_err(|e| e.at), Err(0));
        let long = "9".repeat(400);
        assert!(scan(&long, 0).is_err());
        assert_eq!(number("1e-400"), Some(Number::Float(0.0)));
        assert_eq!(number("0e99999999999999999999"), Some(Number::Float(0.0)));
        assert_eq!(
            number(&format!("0.{}1", "0".repeat(400))),
            Some(Number::Float(0.0))
        );
    }

    #[test]
    fn digits_taken_at_once_are_what_they_spell() {
        let read = |text: [u8; 8]| {
            let word = u64::from_le_bytes(text);
            let count = leading_digits(word);
            (count, if count > 0 { value_of(word, count) } else { 0 })
        };
        assert_eq!(read(*b"12345678"), (8, 12_345_678));
        assert_eq!(read(*b"00000009"), (8, 9));
        assert_eq!(read(*b"0412345,"), (7, 412_345));
        assert_eq!(read(*b"7]99:/.."), (1, 7));
        assert_eq!(read(*b"-1234567"), (0, 0));
        for odd in [b'/', b':', b'.', b',', b'e', b' ', 0, 0x7F, 0x80, 0xFF] {
            for at in 0..8 {
                let mut digits = *b"98765432";
                digits[at] = odd;
                let spelt = std::str::from_utf8(&digits[..at]).expect("digits");
                assert_eq!(read(digits), (at, spelt.parse().unwrap_or(0)), "{odd} at {at}");
            }
        }
    }

    fn same_as_std(text: &str) -> Result<(), TestCaseError> {
        let expected: f64 = text.parse().expect("the strategy makes numbers");
        match number(text) {
            Some(Number::Float(x)) => prop_assert_eq!(x.to_bits(), expected.to_bits(), "{}", text),
            Some(Number::Int(n)) => prop_assert_eq!(Ok(n), text.parse::<i64>()),
            Some(Number::UInt(n)) => prop_assert_eq!(Ok(n), text.parse::<u64>()),
            None => prop_assert!(!expected.is_finite(), "{} is finite", text),
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn every_number_is_rounded_as_std_rounds_it(
            text in "-?(0|[1-9][0-9]{0,24})(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?"
        ) {
            same_as_std(&text)?;
        }

        #[test]
        fn every_f64_is_read_back_to_the_bit(bits in any::<u64>()) {
            let x = f64::from_bits(bits);
            prop_assume!(x.is_finite());
            same_as_std(&format!("{x:e}"))?;
            same_as_std(&format!("{x:?}"))?;
        }

        #[test]
        fn every_f32_written_shortest_is_read_back_to_the_bit(bits in any::<u32>()) {
            let x = f32::from_bits(bits);
            prop_assume!(x.is_finite());
            let Some(Number::Float(y)) = number(&format!("{x:?}")) else {
                return Err(TestCaseError::fail("a float"));
            };
            prop_assert_eq!((y as f32).to_bits(), bits);
        }
    }
}
