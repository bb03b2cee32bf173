//! What is refused, and how that looks to a client.  Every answer that is not a success is
//! made here, and only here.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use rhumb_core::{Code, Problem};
use rhumb_engine::{EngineError, PartOutcome};

use super::answer;

/// A request that was not answered with what it asked for.
#[derive(Debug)]
pub struct Refusal {
    problem: Problem,
    /// Of a write that was applied in part.
    partitions: Vec<PartOutcome>,
    /// The methods that this path takes, for a 405.
    allow: Option<String>,
    not_leading: bool,
    /// For a 429.
    retry_after: Option<Duration>,
}

/// Put on a response when nothing was done because this node does not lead the collection:
/// another one can be asked.
#[derive(Clone, Copy, Debug)]
pub struct NotLeading;

pub type Refused<T> = Result<T, Refusal>;

/// What a client should wait before it asks again; short, since most waits are for a PUT.
const RETRY_AFTER_S: &str = "1";
const CHALLENGE: &str = "Bearer realm=\"rhumb\"";

impl Refusal {
    pub fn method_not_allowed(method: &str, allow: String) -> Self {
        let problem = Problem::new(Code::MethodNotAllowed, format!("{method} is not taken here"))
            .hint(format!("this path takes {allow}"));
        Self {
            allow: Some(allow),
            ..problem.into()
        }
    }

    pub fn after(self, wait: Duration) -> Self {
        Self {
            retry_after: Some(wait),
            ..self
        }
    }

    pub fn problem(&self) -> &Problem {
        &self.problem
    }

    pub fn is_our_mistake(&self) -> bool {
        self.problem.code == Code::Internal
    }

    pub fn wire(&self, request_id: &str) -> rhumb_api::Problem {
        let Problem {
            code,
            detail,
            field,
            hint,
        } = &self.problem;
        let partitions = self.partitions.iter().map(|part| rhumb_api::PartialOutcome {
            partition: part.partition,
            outcome: match part.outcome {
                rhumb_engine::Outcome::Applied => rhumb_api::PartitionOutcome::Applied,
                rhumb_engine::Outcome::NotApplied => rhumb_api::PartitionOutcome::NotApplied,
                rhumb_engine::Outcome::Unknown => rhumb_api::PartitionOutcome::Unknown,
            },
        });
        rhumb_api::Problem {
            kind: format!("urn:rhumb:problem:{}", rhumb_api::name(*code)),
            title: rhumb_api::title(*code).to_owned(),
            status: rhumb_api::status(*code),
            detail: if self.is_our_mistake() {
                // What went wrong inside is for the log, where the request id finds it.
                "the server made a mistake; its log says more under the request id".to_owned()
            } else {
                detail.clone()
            },
            code: rhumb_api::name(*code).to_owned(),
            field: field.clone(),
            hint: hint.clone(),
            request_id: request_id.to_owned(),
            partitions: (!self.partitions.is_empty()).then(|| partitions.collect()),
        }
    }

    pub fn into_response(self, request_id: &str) -> Response<Body> {
        let wire = self.wire(request_id);
        let status = StatusCode::from_u16(wire.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = answer::json(status, &wire);
        if self.not_leading {
            response.extensions_mut().insert(NotLeading);
        }
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if matches!(wire.status, 429 | 503) {
            let seconds = self
                .retry_after
                .map(|wait| wait.as_secs_f64().ceil().max(1.0) as u64);
            let told = seconds.map_or(HeaderValue::from_static(RETRY_AFTER_S), HeaderValue::from);
            headers.insert(header::RETRY_AFTER, told);
        }
        if wire.status == 401 {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(CHALLENGE));
        }
        if let Some(allow) = self.allow.and_then(|allow| HeaderValue::try_from(allow).ok()) {
            headers.insert(header::ALLOW, allow);
        }
        response
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self {
            problem,
            partitions: Vec::new(),
            allow: None,
            not_leading: false,
            retry_after: None,
        }
    }
}

impl From<EngineError> for Refusal {
    fn from(error: EngineError) -> Self {
        let problem = error.problem();
        match error {
            EngineError::PartiallyApplied(partitions) => Self {
                partitions,
                ..problem.into()
            },
            EngineError::NotLeading => Self {
                not_leading: true,
                ..problem.into()
            },
            _ => problem.into(),
        }
    }
}

/// A panic, or a task that was lost.
impl From<tokio::task::JoinError> for Refusal {
    fn from(error: tokio::task::JoinError) -> Self {
        Problem::new(
            Code::Internal,
            format!("a task of the request ended early: {error}"),
        )
        .into()
    }
}

#[cfg(test)]
mod tests {
    use rhumb_engine::Outcome;

    use super::*;

    #[test]
    fn a_problem_carries_its_place_its_hint_and_the_request_id() {
        let problem = Problem::new(Code::DimensionMismatch, "3 for 4")
            .field("upsert[3].embedding")
            .hint("send 4");
        let wire = Refusal::from(problem).wire("r1");
        assert_eq!((wire.status, wire.code.as_str()), (422, "dimension_mismatch"));
        assert_eq!(wire.field.as_deref(), Some("upsert[3].embedding"));
        assert_eq!(wire.request_id, "r1");
        assert_eq!(wire.partitions, None);
    }

    #[test]
    fn a_busy_or_unavailable_server_says_when_to_come_back() {
        for code in rhumb_api::CODES {
            let response = Refusal::from(Problem::new(code, "x")).into_response("r");
            let wanted = matches!(response.status().as_u16(), 429 | 503);
            assert_eq!(
                response.headers().contains_key(header::RETRY_AFTER),
                wanted,
                "{code:?}"
            );
            assert_eq!(
                response.headers()[header::CONTENT_TYPE],
                "application/problem+json"
            );
        }
    }

    #[test]
    fn whoever_is_not_known_is_told_how_to_prove_themselves() {
        let response = Refusal::from(Problem::new(Code::Unauthenticated, "x")).into_response("r");
        assert_eq!(response.headers()[header::WWW_AUTHENTICATE], CHALLENGE);
        let wait =
            Refusal::from(Problem::new(Code::TooManyRequests, "x")).after(Duration::from_millis(1_200));
        assert_eq!(wait.into_response("r").headers()[header::RETRY_AFTER], "2");
    }

    #[test]
    fn a_part_that_was_applied_is_told_from_one_that_was_not() {
        let parts = vec![
            PartOutcome {
                partition: 0,
                outcome: Outcome::Applied,
            },
            PartOutcome {
                partition: 1,
                outcome: Outcome::NotApplied,
            },
        ];
        let wire = Refusal::from(EngineError::PartiallyApplied(parts)).wire("r");
        assert_eq!((wire.status, wire.code.as_str()), (503, "partially_applied"));
        assert_eq!(wire.partitions.map(|p| p.len()), Some(2));
    }

    #[test]
    fn our_own_mistakes_are_not_explained_to_strangers() {
        let wire = Refusal::from(EngineError::Bug("slot 17 of /srv/secret".into())).wire("r");
        assert_eq!(wire.status, 500);
        assert!(!wire.detail.contains("secret"));
    }

    #[test]
    fn a_method_that_is_not_taken_names_those_that_are() {
        let response = Refusal::method_not_allowed("POST", "GET, HEAD".into()).into_response("r");
        assert_eq!(response.headers()[header::ALLOW], "GET, HEAD");
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    }
}
