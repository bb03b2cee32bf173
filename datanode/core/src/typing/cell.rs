//! Text that has no types of its own: CSV cells and ids in paths.

use super::doc_id;
use crate::ids::{DocId, IdKind};
use crate::json::{Json, parse_number};
use crate::limits::Limits;
use crate::problem::Problem;
use crate::schema::{FieldType, Scalar};

/// What a CSV cell says under its field's type, to be typed like any JSON value.  An empty
/// cell is missing.  Without a type, what reads as a boolean, a number, a list or an object
/// is one; everything else, `null` and `007` too, is a string.
pub fn cell(text: &str, ty: Option<&FieldType>, limits: &Limits) -> Json {
    let is_text = matches!(
        ty,
        Some(FieldType::Text { .. } | FieldType::Scalar(Scalar::String | Scalar::Timestamp))
    );
    if text.is_empty() {
        return Json::Null;
    }
    if is_text {
        return Json::from(text);
    }
    let trimmed = text.trim();
    // pandas writes True and False.
    if trimmed.eq_ignore_ascii_case("true") || trimmed.eq_ignore_ascii_case("false") {
        return Json::Bool(trimmed.eq_ignore_ascii_case("true"));
    }
    if trimmed.starts_with(['[', '{']) {
        return Json::parse(trimmed.as_bytes(), limits).unwrap_or_else(|_| Json::from(text));
    }
    parse_number(trimmed).unwrap_or_else(|| Json::from(text))
}

/// An id that came as text: in a path, in a CSV file.  Text that is no number is never the
/// id of a document when ids are numbers: `Ok(None)`.  Before the first document ids given
/// as text are strings.
pub fn id_from_text(text: &str, kind: Option<IdKind>, limits: &Limits) -> Result<Option<DocId>, Problem> {
    match kind {
        Some(IdKind::Num) => {
            let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
            Ok(text.parse().ok().filter(|_| plain).map(DocId::Num))
        }
        Some(IdKind::Str) | None => doc_id(Json::from(text), limits).map(Some),
    }
}

/// The kind that a body's own id gives to the id in the path, before the first document.
pub fn kind_of_id(body: &Json) -> Option<IdKind> {
    match body.get("id") {
        Some(Json::Int(_) | Json::UInt(_)) => Some(IdKind::Num),
        Some(Json::Str(_)) => Some(IdKind::Str),
        _ => None,
    }
}
