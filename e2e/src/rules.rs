//! What must hold of every answer, whatever was asked.

use serde_json::Value;

use crate::client::Answer;

/// What is wrong with an answer whatever the request was.
pub fn rule_broken_by(answer: &Answer, is_head: bool) -> Option<String> {
    let content_type = answer.header("content-type").unwrap_or_default();
    let needs = |name: &str| {
        answer
            .header(name)
            .is_none()
            .then(|| format!("{} without {name}", answer.status))
    };
    match answer.status {
        204 => (!answer.body.is_empty()).then(|| "204 with a body".to_owned()),
        405 => needs("allow").or_else(|| problem_flaw(answer, content_type, is_head)),
        400..=499 if answer.status != 429 => problem_flaw(answer, content_type, is_head),
        429 | 503 => needs("retry-after").or_else(|| problem_flaw(answer, content_type, is_head)),
        504 => problem_flaw(answer, content_type, is_head),
        500.. => Some(format!("a {} for a client's request", answer.status)),
        _ if is_head || !content_type.starts_with("application/json") => None,
        _ => serde_json::from_slice::<Value>(&answer.body)
            .err()
            .map(|e| format!("not JSON: {e}")),
    }
}

fn problem_flaw(answer: &Answer, content_type: &str, is_head: bool) -> Option<String> {
    if is_head {
        return None;
    }
    if !content_type.starts_with("application/problem+json") {
        return Some(format!("a {} of content type '{content_type}'", answer.status));
    }
    let problem = answer.json();
    let texts = ["type", "title", "detail", "code", "request_id"];
    if let Some(missing) = texts
        .iter()
        .find(|key| problem[**key].as_str().is_none_or(str::is_empty))
    {
        return Some(format!("a problem without '{missing}'"));
    }
    if problem["status"] != answer.status {
        return Some(format!(
            "a problem of status {} in a {}",
            problem["status"], answer.status
        ));
    }
    let odd = ["field", "hint"]
        .into_iter()
        .find(|key| !(problem[*key].is_null() || problem[*key].is_string()));
    odd.map(|key| format!("'{key}' of a problem is {}", problem[key]))
}
