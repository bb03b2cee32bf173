//! The members of a JSON object; the rules are `rhumb_core::members`.

pub use rhumb_core::members::{Members, consistency};

#[cfg(test)]
pub mod tests {
    use rhumb_core::{Code, Json, Problem};

    /// The names that a parser knows, sorted, as it tells them when it meets one it does
    /// not know.
    pub fn known_to<T>(parse: impl Fn(Json) -> Result<T, Problem>) -> Vec<String> {
        let odd = Json::Object(vec![("qqqqqqqqqqqqqqqqqqqqqqqq".into(), Json::Bool(true))]);
        let problem = parse(odd).err().expect("an unknown member is refused");
        assert_eq!(problem.code, Code::UnknownField);
        let hint = problem.hint.expect("the known names");
        let list = hint
            .strip_prefix("known fields: ")
            .expect("few enough to be listed");
        let mut names: Vec<String> = list.split(", ").map(str::to_owned).collect();
        names.sort_unstable();
        names
    }
}
