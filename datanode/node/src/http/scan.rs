//! `GET …/documents`: pages of one snapshot, in the order of ids or of an attribute.

use std::sync::Arc;

use axum::http::StatusCode;
use rhumb_core::ids::IdKind;
use rhumb_core::order::OrderBy;
use rhumb_core::query::Include;
use rhumb_core::typing::id_from_text;
use rhumb_core::{Code, DocId, Filter, Limits, Problem, Schema};
use rhumb_engine::{Collection, EngineError, PageStart, Scan};

use super::answer::{self, Answer, write_json};
use super::call::{Call, in_time};
use super::cursor::{self, Pinned};
use super::documents::{STEP, write_stored};
use super::params::Params;
use super::problem::Refused;

/// A page that has become so large ends early: its cursor goes on from there.
const FULL_PAGE: usize = 32 << 20;

pub async fn scan(call: &mut Call) -> Refused<Answer> {
    let collection = call.collection().await?;
    let limit = call.params.limit(call.app.limits.page_rows)?;
    let cursor = call.params.get_filled("cursor").map(cursor::read).transpose()?;
    let (number, pinned, start) = match cursor {
        Some((number, start)) => {
            // The snapshot of the first page serves: the parameter is checked and no more.
            call.consistency()?;
            let pinned = call.app.cursors.find(number)?;
            same_scan(&pinned, &collection, call)?;
            (Some(number), pinned, start)
        }
        None => (None, begin(call, &collection).await?, PageStart::First),
    };
    call.saw(&collection, &pinned.snapshot.positions());
    let rendering = in_time(call.patience(), render(&pinned, start, limit));
    let Rendering { mut out, rows, next } = rendering.await?;
    call.bill.rows(rows as u64);
    if let Some(next) = next {
        let number = number.unwrap_or_else(|| call.app.cursors.pin(pinned));
        out.extend_from_slice(b",\"cursor\":");
        write_json(&mut out, &cursor::write(number, &next));
    }
    out.push(b'}');
    Ok(answer::bytes_of(StatusCode::OK, "application/json", out))
}

/// Of a cursor: it belongs to this collection, and what is asked beside it is what its
/// scan was asked.  Leaving the other parameters out is fine.
///
/// Another caller's snapshot shows another caller's rows: to others it is no cursor.
fn same_scan(pinned: &Pinned, collection: &Collection, call: &Call) -> Result<(), Problem> {
    let asked = call.params.identity();
    let same = asked.iter().all(|pair| pinned.asked.contains(pair)) && pinned.caller == call.caller.mark();
    if same && pinned.collection == collection.entry().id {
        return Ok(());
    }
    Err(
        Problem::new(Code::BadCursor, "this cursor belongs to another scan")
            .field("cursor")
            .hint("send the cursor with the parameters of its first page, or without any"),
    )
}

async fn begin(call: &mut Call, collection: &Arc<Collection>) -> Refused<Arc<Pinned>> {
    let consistency = call.consistency()?;
    let schema = collection.schema();
    let mut scan = parse(&call.params, &schema, &call.app.limits)?;
    scan.filter = Filter::both(call.scope(&schema), scan.filter);
    let include = scan.include.clone();
    let reading = call.read(collection, consistency).await?;
    let snapshot = in_time(call.patience(), reading.scan(scan)).await?;
    Ok(Arc::new(Pinned {
        snapshot,
        collection: collection.entry().id.clone(),
        schema: collection.schema(),
        include,
        asked: call.params.identity(),
        caller: call.caller.mark(),
    }))
}

fn parse(params: &Params, schema: &Schema, limits: &Limits) -> Result<Scan, Problem> {
    let bound = |name: &str| -> Result<Option<DocId>, Problem> {
        let Some(text) = params.get_filled(name) else {
            return Ok(None);
        };
        match id_from_text(text, schema.id_kind, limits).map_err(|problem| problem.field(name))? {
            Some(id) => Ok(Some(id)),
            None => Err(not_a_number(name)),
        }
    };
    let prefix = params.get_filled("prefix").map(str::to_owned);
    if prefix.is_some() && schema.id_kind == Some(IdKind::Num) {
        return Err(
            Problem::new(Code::InvalidValue, "ids that are numbers have no prefix")
                .field("prefix")
                .hint("use start and end"),
        );
    }
    let filter = params
        .get_filled("filter")
        .map(|text| Filter::parse_param(text, schema, limits));
    let order_by = params
        .get_filled("order_by")
        .map(|text| OrderBy::parse(text, schema));
    Ok(Scan {
        start: bound("start")?,
        end: bound("end")?,
        prefix,
        filter: filter.transpose().map_err(|problem| problem.within("filter"))?,
        order_by: order_by
            .transpose()
            .map_err(|problem| problem.within("order_by"))?
            .unwrap_or_else(OrderBy::id),
        include: params
            .get("include")
            .map_or(Ok(Include::Everything), |text| Include::parse_param(text, schema))?,
    })
}

fn not_a_number(name: &str) -> Problem {
    Problem::new(
        Code::InvalidId,
        "the ids of this collection are unsigned 64-bit integers",
    )
    .field(name)
}

/// A page, and where the next one starts.
struct Rendering {
    /// `{"documents":[…]`, still open.
    out: Vec<u8>,
    rows: usize,
    next: Option<PageStart>,
}

async fn render(pinned: &Pinned, mut start: PageStart, limit: usize) -> Result<Rendering, EngineError> {
    let mut out = b"{\"documents\":[".to_vec();
    let mut left = limit;
    let next = loop {
        let page = pinned.snapshot.page(&start, left.min(STEP)).await?;
        left = left.saturating_sub(page.documents.len());
        for stored in &page.documents {
            if out.last() != Some(&b'[') {
                out.push(b',');
            }
            write_stored(&mut out, stored, &pinned.include, &pinned.schema);
        }
        match page.next {
            Some(next) if left > 0 && out.len() < FULL_PAGE => start = next,
            next => break next,
        }
    };
    out.push(b']');
    Ok(Rendering {
        out,
        rows: limit - left,
        next,
    })
}

#[cfg(test)]
mod tests {
    use rhumb_api::{Op, ROUTES};
    use rhumb_core::order::OrderKey;

    use super::*;

    fn scan_of(query: &str, kind: Option<IdKind>) -> Result<Scan, Problem> {
        let route = ROUTES
            .iter()
            .find(|route| route.op == Op::ScanDocuments)
            .expect("there is one");
        let schema = Schema {
            id_kind: kind,
            ..Schema::default()
        };
        parse(&Params::parse(Some(query), route)?, &schema, &Limits::default())
    }

    #[test]
    fn bounds_are_ids_of_the_collections_kind() {
        let scan = scan_of("start=7&end=12", Some(IdKind::Num)).expect("numbers");
        assert_eq!(
            (scan.start, scan.end),
            (Some(DocId::Num(7)), Some(DocId::Num(12)))
        );
        let scan = scan_of("start=7&end=", Some(IdKind::Str)).expect("strings");
        assert_eq!((scan.start, scan.end), (Some(DocId::from("7")), None));
        let problem = scan_of("end=x", Some(IdKind::Num)).expect_err("no number");
        assert_eq!(
            (problem.code, problem.field.as_deref()),
            (Code::InvalidId, Some("end"))
        );
        assert_eq!(
            scan_of("prefix=1", Some(IdKind::Num)).expect_err("numbers").code,
            Code::InvalidValue
        );
        assert!(scan_of("prefix=1", None).is_ok());
    }

    #[test]
    fn everything_is_included_in_the_order_of_ids_unless_asked_otherwise() {
        let scan = scan_of("", None).expect("valid");
        assert_eq!(
            (scan.include, scan.order_by),
            (Include::Everything, OrderBy::id())
        );
        let scan = scan_of("order_by=-id&include=false", None).expect("valid");
        assert!(scan.order_by.descending && scan.order_by.key == OrderKey::Id);
        assert_eq!(scan.include, Include::Nothing);
    }

    #[test]
    fn a_bad_parameter_is_named() {
        for (query, code, field) in [
            ("filter=%7B%22nope%22%3A1%7D", Code::UnknownField, "filter.nope"),
            ("order_by=nope", Code::UnknownField, "order_by.nope"),
            ("include=nope", Code::UnknownField, "include.nope"),
        ] {
            let problem = scan_of(query, None).expect_err(query);
            assert_eq!(
                (problem.code, problem.field.as_deref()),
                (code, Some(field)),
                "{query}"
            );
        }
    }
}
