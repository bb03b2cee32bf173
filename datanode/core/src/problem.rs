//! What is wrong with a request, in the caller's words.  The one error that crosses from
//! rules to HTTP: `code` is the contract, `field` names the place, `hint` the fix.

use std::fmt;

/// Codes are part of the API; `node` maps each to one HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    // 400
    Malformed,
    BadCursor,
    // 401
    Unauthenticated,
    // 403
    Forbidden,
    // 404
    CollectionNotFound,
    DocumentNotFound,
    IdentityNotFound,
    RouteNotFound,
    // 405
    MethodNotAllowed,
    // 408
    RequestTimeout,
    // 409
    CollectionExists,
    // 410
    CursorExpired,
    // 412
    PreconditionFailed,
    // 413
    BodyTooLarge,
    // 415
    UnsupportedMediaType,
    // 422
    DimensionMismatch,
    DuplicateId,
    IdempotencyMismatch,
    InvalidFilter,
    InvalidId,
    InvalidName,
    InvalidValue,
    KOutOfRange,
    LimitExceeded,
    NotFinite,
    QuotaExceeded,
    TypeMismatch,
    UnknownField,
    // 429
    TooManyRequests,
    // 503
    OutcomeUnknown,
    PartiallyApplied,
    Unavailable,
    // 504
    Timeout,
    // 500: our fault, never a client's input
    Internal,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problem {
    pub code: Code,
    pub detail: String,
    pub field: Option<String>,
    pub hint: Option<String>,
}

impl Problem {
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            field: None,
            hint: None,
        }
    }

    /// Replaces the field.
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// A name that is not one of `known`, with the nearest one or the short list as the hint.
    pub fn unknown_field<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        let known: Vec<&str> = known.into_iter().collect();
        let problem = Self::new(
            Code::UnknownField,
            format!("there is no field '{}'", shorten(typed)),
        )
        .field(shorten(typed));
        match nearest(typed, known.iter().copied()) {
            Some(name) => problem.hint(format!("did you mean '{name}'?")),
            None if known.is_empty() => problem.hint("there are no fields yet"),
            None if known.len() <= 20 => problem.hint(format!("known fields: {}", known.join(", "))),
            None => problem,
        }
    }

    /// Puts `prefix` before the field: `upsert[3]` + `embedding` = `upsert[3].embedding`.
    pub fn within(mut self, prefix: &str) -> Self {
        self.field = Some(match self.field {
            Some(inner) if inner.starts_with('[') => format!("{prefix}{inner}"),
            Some(inner) => format!("{prefix}.{inner}"),
            None => prefix.to_owned(),
        });
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.field {
            Some(field) => write!(f, "{} ({field})", self.detail),
            None => f.write_str(&self.detail),
        }
    }
}

/// The end of a message about a word that is not one of `known`.
pub fn did_you_mean<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    match nearest(typed, known.iter().copied()) {
        Some(word) => format!("did you mean '{word}'?"),
        None => format!("known: {}", known.join(", ")),
    }
}

/// User text quoted in a message: cut at 64 characters.
pub fn shorten(text: &str) -> String {
    match text.char_indices().nth(64) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// The candidate nearest to what was typed, when it is near enough to be meant.
pub fn nearest<'a>(typed: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|c| (edit_distance(typed, c), c))
        .filter(|(d, c)| *d <= c.len().max(typed.len()) / 3 + 1)
        .min_by_key(|(d, c)| (*d, std::cmp::Reverse(c.len())))
        .map(|(_, c)| c)
}

fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
