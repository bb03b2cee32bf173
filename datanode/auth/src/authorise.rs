//! May they?  One function, asked for every request before its handler; denied unless a
//! grant says otherwise.

use rhumb_api::Op;
use serde_json::{Value, json};

use crate::{Grant, Identity, Operation, substitute};

/// What a route needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// No identity at all.
    Open,
    /// Any identity; what it sees is up to its grants.
    Anyone,
    /// The operation on the collection the path names, perhaps on some of its rows alone.
    Collection(Operation),
    /// The operation on every row: what cannot be done to some of them.
    WholeCollection(Operation),
    /// The operation on every row of all collections.
    Database(Operation),
    /// What the owner of a group may do as well as an admin.
    Group,
}

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    Nothing,
    Collection(&'a str),
    Group { owner: Option<&'a str> },
}

#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Those rows alone that match, when there is a filter.
    Allow { row_filter: Option<Value> },
    /// They may know that it is there, and may not do this.
    Forbidden,
    /// It is as if it were not there.
    Hidden,
}

/// Exhaustive: a new route does not compile without its rule.
pub fn rule(op: Op) -> Rule {
    use Operation::{Admin, Read, Schema, Write};
    match op {
        Op::Healthz | Op::Readyz | Op::Login | Op::RefreshToken => Rule::Open,
        Op::ListCollections | Op::Openapi | Op::Whoami => Rule::Anyone,
        // Both tell of all collections and all rows.
        Op::Metrics | Op::Status => Rule::Database(Read),
        Op::GetCollection
        | Op::ScanDocuments
        | Op::GetDocuments
        | Op::GetDocument
        | Op::Export
        | Op::Query
        | Op::Recall
        | Op::Aggregate => Rule::Collection(Read),
        Op::WriteDocuments | Op::PutDocument | Op::PatchDocument | Op::DeleteDocument | Op::Import => {
            Rule::Collection(Write)
        }
        Op::PutCollection | Op::PatchCollection => Rule::Collection(Schema),
        // The rows of others go with it; how many there are shows.
        Op::DeleteCollection | Op::OptimizeCollection | Op::EraseDocuments => Rule::WholeCollection(Schema),
        Op::GetGroup | Op::PutGroup => Rule::Group,
        Op::CreateKey
        | Op::ListKeys
        | Op::DeleteKey
        | Op::RotateKey
        | Op::PutUser
        | Op::GetUser
        | Op::DeleteUser
        | Op::DeleteGroup
        | Op::PutRole
        | Op::GetRole
        | Op::DeleteRole
        | Op::Audit => Rule::Database(Admin),
    }
}

pub fn authorise(who: &Identity, op: Op, target: Target<'_>) -> Decision {
    decide(who, rule(op), target)
}

pub(crate) fn decide(who: &Identity, rule: Rule, target: Target<'_>) -> Decision {
    let everything = Decision::Allow { row_filter: None };
    match (rule, target) {
        (Rule::Open | Rule::Anyone, _) => everything,
        (Rule::Collection(operation), Target::Collection(name)) => on_collection(who, operation, name),
        (Rule::WholeCollection(operation), Target::Collection(name)) => {
            match on_collection(who, operation, name) {
                Decision::Allow { row_filter: Some(_) } => Decision::Forbidden,
                other => other,
            }
        }
        (Rule::Database(operation), _) if on_everything(who, operation) => everything,
        (Rule::Group, Target::Group { owner }) => {
            let owns = owner.is_some() && who.subject.as_user() == owner;
            match owns || on_everything(who, Operation::Admin) {
                true => everything,
                false => Decision::Forbidden,
            }
        }
        // A route of a collection without one, too: denied by default.
        _ => Decision::Forbidden,
    }
}

impl Identity {
    /// Whether it may know that this collection exists.
    pub fn sees(&self, collection: &str) -> bool {
        usable(self, collection).next().is_some()
    }

    pub fn is_admin(&self) -> bool {
        on_everything(self, Operation::Admin)
    }
}

fn on_everything(who: &Identity, operation: Operation) -> bool {
    who.grants.iter().any(|grant| {
        grant.collections.is_all() && grant.row_filter.is_none() && grant.operations.contains(&operation)
    })
}

/// The grants on a collection, each with its filter as this identity's claims make it.
/// One whose claims are missing is no grant.
fn usable<'a>(who: &'a Identity, name: &'a str) -> impl Iterator<Item = (&'a Grant, Option<Value>)> {
    let fitting = who.grants.iter().filter(|grant| grant.collections.fits(name));
    fitting.filter_map(|grant| match &grant.row_filter {
        None => Some((grant, None)),
        Some(filter) => Some((grant, Some(substitute(filter, &who.claims)?))),
    })
}

fn on_collection(who: &Identity, operation: Operation, name: &str) -> Decision {
    let mut seen = false;
    let mut filters: Vec<Value> = Vec::new();
    for (grant, filter) in usable(who, name) {
        seen = true;
        if !grant.operations.contains(&operation) {
            continue;
        }
        match filter {
            None => return Decision::Allow { row_filter: None },
            Some(filter) if filters.contains(&filter) => {}
            Some(filter) => filters.push(filter),
        }
    }
    match filters.len() {
        0 if seen => Decision::Forbidden,
        0 => Decision::Hidden,
        1 => Decision::Allow {
            row_filter: filters.pop(),
        },
        _ => Decision::Allow {
            row_filter: Some(json!({"$or": filters})),
        },
    }
}

#[cfg(test)]
mod tests {
    use rhumb_api::ROUTES;

    use super::*;
    use crate::{Claims, Pace, Role, Subject};

    fn who(grants: Value, claims: Value) -> Identity {
        let role: Role = serde_json::from_value(json!({"grants": grants})).expect("a role");
        role.check().expect("a sound role");
        Identity {
            subject: Subject::user("ada"),
            roles: vec!["r".into()],
            grants: role.grants,
            claims: serde_json::from_value::<Claims>(claims).expect("claims"),
            pace: Pace::default(),
        }
    }

    fn built_in(name: &str) -> Identity {
        Identity {
            grants: Role::built_in(name).expect("built in").grants,
            ..Identity::anybody()
        }
    }

    fn target_of(path: &str, collection: &'static str) -> Target<'static> {
        if path.contains("{collection}") {
            Target::Collection(collection)
        } else if path.contains("/groups/") {
            Target::Group { owner: Some("bob") }
        } else {
            Target::Nothing
        }
    }

    /// `a`llowed, `f`orbidden, `h`idden, or allowed to see some `r`ows.
    fn sign(decision: Decision) -> char {
        match decision {
            Decision::Allow { row_filter: None } => 'a',
            Decision::Allow { row_filter: Some(_) } => 'r',
            Decision::Forbidden => 'f',
            Decision::Hidden => 'h',
        }
    }

    /// Every route of the table × admin, editor, reader, a tenant on its own collection, the
    /// same on another's, one with a row filter, one without any role.
    #[test]
    fn every_route_is_allowed_to_those_it_is_for_and_nobody_else() {
        let all = json!(["read", "write", "schema"]);
        let tenant = who(json!([{"collections": "team-a-*", "operations": all}]), json!({}));
        let rows = json!([{"collections": "*", "operations": all, "row_filter": {"tenant": "$claims.org"}}]);
        let filtered = who(rows, json!({"org": "x"}));
        let nobody = who(
            json!([{"collections": "none", "operations": ["read"]}]),
            json!({}),
        );
        let mut walked = 0;
        for route in ROUTES {
            let on = |who: &Identity, collection| {
                sign(authorise(who, route.op, target_of(route.path, collection)))
            };
            let found: String = [
                on(&built_in("admin"), "team-a-1"),
                on(&built_in("editor"), "team-a-1"),
                on(&built_in("reader"), "team-a-1"),
                on(&tenant, "team-a-1"),
                on(&tenant, "team-b-1"),
                on(&filtered, "team-a-1"),
                on(&nobody, "team-a-1"),
            ]
            .iter()
            .collect();
            let wanted = match rule(route.op) {
                Rule::Open | Rule::Anyone => "aaaaaaa",
                Rule::Collection(Operation::Read) => "aaaahrh",
                Rule::Collection(Operation::Write | Operation::Schema) => "aafahrh",
                Rule::WholeCollection(Operation::Schema) => "aafahfh",
                Rule::Database(Operation::Read) => "aaaffff",
                Rule::Database(Operation::Admin) | Rule::Group => "affffff",
                other => panic!(
                    "{} has the rule {other:?}, which no route should have",
                    route.path
                ),
            };
            assert_eq!(found, wanted, "{} {}", route.method.name(), route.path);
            walked += 1;
        }
        assert_eq!(walked, ROUTES.len());
    }

    #[test]
    fn only_health_and_getting_a_token_are_open() {
        let open: Vec<&str> = ROUTES
            .iter()
            .filter(|route| rule(route.op) == Rule::Open)
            .map(|route| route.path)
            .collect();
        assert_eq!(open, ["/healthz", "/readyz", "/v1/login", "/v1/token/refresh"]);
    }

    #[test]
    fn every_route_of_a_collection_has_a_rule_of_collections() {
        for route in ROUTES {
            let of_collection = matches!(rule(route.op), Rule::Collection(_) | Rule::WholeCollection(_));
            assert_eq!(
                route.path.contains("{collection}"),
                of_collection,
                "{}",
                route.path
            );
        }
    }

    #[test]
    fn several_grants_add_up() {
        let grants = json!([
            {"collections": "*", "operations": ["read"], "row_filter": {"tenant": "$claims.org"}},
            {"collections": "*", "operations": ["read"], "row_filter": {"public": true}},
            {"collections": "own-*", "operations": ["read", "write"]},
        ]);
        let ada = who(grants, json!({"org": "x"}));
        let rows = Decision::Allow {
            row_filter: Some(json!({"$or": [{"tenant": "x"}, {"public": true}]})),
        };
        assert_eq!(
            decide(&ada, Rule::Collection(Operation::Read), Target::Collection("w")),
            rows
        );
        let whole = Decision::Allow { row_filter: None };
        assert_eq!(
            decide(
                &ada,
                Rule::Collection(Operation::Read),
                Target::Collection("own-1")
            ),
            whole
        );
        assert_eq!(
            decide(&ada, Rule::Collection(Operation::Write), Target::Collection("w")),
            Decision::Forbidden
        );
    }

    #[test]
    fn a_grant_whose_claim_is_missing_hides_the_collection() {
        let grants =
            json!([{"collections": "*", "operations": ["read"], "row_filter": {"tenant": "$claims.org"}}]);
        let ada = who(grants, json!({}));
        assert_eq!(
            authorise(&ada, Op::Query, Target::Collection("w")),
            Decision::Hidden
        );
        assert!(!ada.sees("w"));
    }

    #[test]
    fn the_owner_of_a_group_keeps_it_and_nobody_elses() {
        let ada = who(
            json!([{"collections": "none", "operations": ["read"]}]),
            json!({}),
        );
        let on = |owner| authorise(&ada, Op::PutGroup, Target::Group { owner });
        assert_eq!(on(Some("ada")), Decision::Allow { row_filter: None });
        assert_eq!(on(Some("bob")), Decision::Forbidden);
        assert_eq!(on(None), Decision::Forbidden);
        assert_eq!(
            authorise(&ada, Op::DeleteGroup, Target::Group { owner: Some("ada") }),
            Decision::Forbidden
        );
    }
}
