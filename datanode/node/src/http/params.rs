//! Path and query string: decoded once, and nothing in them is ignored.

use rhumb_api::Route;
use rhumb_core::problem::shorten;
use rhumb_core::{Code, Problem};

/// The parameters of a query string, each at most once, all known to the route.
#[derive(Debug, Default)]
pub struct Params(Vec<(String, String)>);

impl Params {
    pub fn parse(query: Option<&str>, route: &Route) -> Result<Self, Problem> {
        let mut params = Self::default();
        for pair in query
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty())
        {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name, true)?;
            if !route.query_names().any(|known| known == name) {
                return Err(unknown(&name, route));
            }
            if params.get(&name).is_some() {
                return Err(
                    Problem::new(Code::Malformed, format!("the parameter '{name}' is there twice"))
                        .field(name),
                );
            }
            let value = decode(value, true).map_err(|problem| problem.field(name.clone()))?;
            params.0.push((name, value));
        }
        Ok(params)
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    /// `None` when it is not there or empty: `?cursor=` is a first page.
    pub fn get_filled(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }

    /// A page's `limit`, 100 when left out.
    pub fn limit(&self, most: usize) -> Result<usize, Problem> {
        let Some(text) = self.get("limit") else {
            return Ok(most.min(100));
        };
        match text.parse() {
            Ok(n) if (1..=most).contains(&n) => Ok(n),
            _ => {
                let detail = format!("limit is a number from 1 to {most}, not '{}'", shorten(text));
                Err(Problem::new(Code::InvalidValue, detail).field("limit"))
            }
        }
    }

    /// Those that say what a scan is about, sorted: two scans with the same are the same.
    pub fn identity(&self) -> Vec<(String, String)> {
        let mut pairs: Vec<_> = self
            .0
            .iter()
            .filter(|(n, _)| !matches!(n.as_str(), "limit" | "cursor" | "consistency"))
            .cloned()
            .collect();
        pairs.sort_unstable();
        pairs
    }
}

fn unknown(name: &str, route: &Route) -> Problem {
    let problem = Problem::unknown_field(name, route.query_names());
    Problem {
        detail: format!("there is no parameter '{}'", shorten(name)),
        ..problem
    }
}

/// The parts of a path where its pattern has `{name}`, decoded.
pub fn path_parts(pattern: &str, path: &str) -> Result<Vec<String>, Problem> {
    let pairs = pattern.split('/').zip(path.split('/'));
    pairs
        .filter(|(pattern, _)| pattern.starts_with('{'))
        .map(|(_, part)| decode(part, false))
        .collect()
}

fn decode(text: &str, plus_is_space: bool) -> Result<String, Problem> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'%' => {
                let digits = after.split_first_chunk::<2>();
                let value = digits.and_then(|(digits, _)| Some(hex(digits[0])? << 4 | hex(digits[1])?));
                bytes.push(value.ok_or_else(|| malformed("'%' is followed by two hexadecimal digits"))?);
                rest = &after[2..];
            }
            b'+' if plus_is_space => bytes.push(b' '),
            byte => bytes.push(*byte),
        }
    }
    String::from_utf8(bytes).map_err(|_| malformed("the text is not UTF-8"))
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|n| n as u8)
}

fn malformed(why: &str) -> Problem {
    Problem::new(Code::Malformed, format!("the address cannot be decoded: {why}"))
}

#[cfg(test)]
mod tests {
    use rhumb_api::{Op, ROUTES};

    use super::*;

    fn scan() -> &'static Route {
        ROUTES
            .iter()
            .find(|route| route.op == Op::ScanDocuments)
            .expect("there is one")
    }

    fn parsed(query: &str) -> Result<Params, Problem> {
        Params::parse(Some(query), scan())
    }

    #[test]
    fn parameters_are_decoded() {
        let params = parsed("filter=%7B%22a%22%3A1%7D&start=a+b%2Bc&limit=7&&end=").expect("valid");
        assert_eq!(params.get("filter"), Some("{\"a\":1}"));
        assert_eq!(params.get("start"), Some("a b+c"));
        assert_eq!(params.limit(10_000), Ok(7));
        assert_eq!((params.get("end"), params.get_filled("end")), (Some(""), None));
        assert_eq!(params.get("prefix"), None);
    }

    #[test]
    fn an_unknown_parameter_is_refused_with_the_nearest_name() {
        let problem = parsed("limt=7").expect_err("a typo");
        assert_eq!(
            (problem.code, problem.field.as_deref()),
            (Code::UnknownField, Some("limt"))
        );
        assert!(problem.hint.expect("a hint").contains("limit"));
    }

    #[test]
    fn what_cannot_be_decoded_or_is_there_twice_is_malformed() {
        for query in ["start=%", "start=%4", "start=%zz", "start=%ff", "limit=1&limit=1"] {
            assert_eq!(parsed(query).expect_err(query).code, Code::Malformed);
        }
    }

    #[test]
    fn a_limit_is_within_bounds() {
        for text in ["0", "-1", "10001", "ten", "", "1.5", "99999999999999999999"] {
            let problem = parsed(&format!("limit={text}"))
                .expect("known")
                .limit(10_000)
                .expect_err(text);
            assert_eq!(problem.code, Code::InvalidValue);
        }
        assert_eq!(parsed("").expect("none").limit(10_000), Ok(100));
        assert_eq!(parsed("").expect("none").limit(50), Ok(50));
    }

    #[test]
    fn ids_in_paths_are_decoded_one_segment_at_a_time() {
        let pattern = "/v1/collections/{collection}/documents/{id}";
        let parts = path_parts(pattern, "/v1/collections/w/documents/a%2Fb+%C3%BC%00");
        assert_eq!(parts, Ok(vec!["w".to_owned(), "a/b+ü\0".to_owned()]));
        assert!(path_parts(pattern, "/v1/collections/w/documents/%ff").is_err());
    }

    #[test]
    fn the_same_scan_has_the_same_identity() {
        let first = parsed("limit=1&order_by=-lex&prefix=a")
            .expect("valid")
            .identity();
        let next = parsed("prefix=a&cursor=x&order_by=-lex")
            .expect("valid")
            .identity();
        assert_eq!(first, next);
    }
}
