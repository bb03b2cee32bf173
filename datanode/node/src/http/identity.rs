//! Keys, users, groups and roles.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use rhumb_auth::{
    Change, Claims, Directory, Group, KeySpec, MintedKey, Name, Operation, PASSWORD_BYTES, Pace, Password,
    Role, Secret, User, hash_password, random,
};
use rhumb_core::{Code, Json, Problem, time};
use serde::de::DeserializeOwned;
use tokio::sync::SemaphorePermit;

use super::access::forbidden;
use super::answer::{self, Answer};
use super::call::Call;
use super::members::Members;
use super::problem::Refused;
use crate::guard::{Guard, problem_of};

/// Longest that a key may be told to live, or its old secret to overlap: ten years.
const LONGEST_S: u64 = 10 * 366 * 24 * 60 * 60;

/// Of what the audit says about roles, in bytes.
const LONGEST_DETAIL: usize = 256;
/// How long a password waits for its turn to be hashed.
const TURN: Duration = Duration::from_secs(5);

pub async fn whoami(call: &mut Call) -> Refused<Answer> {
    let who = &call.caller.identity;
    let shown = rhumb_api::Whoami {
        subject: who.subject.to_string(),
        roles: who.roles.clone(),
        grants: grants(&Role {
            grants: who.grants.clone(),
        }),
        claims: who.claims.clone().into_iter().collect(),
    };
    Ok(answer::json(StatusCode::OK, &shown))
}

// Keys.

pub async fn create_key(call: &mut Call) -> Refused<Answer> {
    let guard = guard(call)?;
    let now = guard.now_ms();
    let spec = key_spec(call.json_body().await?, now)?;
    let key = MintedKey::new(guard.new_id(), Secret::random());
    call.detail = Some(format!("key {} with {}", key.id, roles_text(&spec.roles)));
    let expires_at = spec.expires_at_ms.map(time::format);
    change(&guard, |directory| directory.add_key(spec.clone(), &key, now)).await?;
    let created = rhumb_api::CreatedKey {
        id: key.id.clone(),
        key: key.reveal().to_string(),
        expires_at,
    };
    Ok(answer::json(StatusCode::CREATED, &created))
}

/// For the audit: what somebody was given.
fn roles_text(roles: &[Name]) -> String {
    let mut text = String::from("roles");
    for role in roles {
        if text.len() > LONGEST_DETAIL {
            return text + " …";
        }
        text.push(' ');
        text.push_str(role.as_str());
    }
    text
}

fn key_spec(body: Json, now_ms: i64) -> Result<KeySpec, Problem> {
    let mut members = Members::of("a key", body)?;
    let name = members.str("name")?;
    let roles = names(&mut members, "roles")?;
    let expires_in_s = members.number("expires_in_s", 1..=LONGEST_S, Code::InvalidValue)?;
    let (claims, pace) = (claims(&mut members)?, pace(&mut members)?);
    members.finish()?;
    let name = name.ok_or_else(|| Problem::new(Code::Malformed, "a key has a name").field("name"))?;
    Ok(KeySpec {
        name: name.as_ref().to_owned(),
        roles,
        claims: claims.unwrap_or_default(),
        pace: pace.unwrap_or_default(),
        expires_at_ms: expires_in_s.map(|s| now_ms + s as i64 * 1_000),
    })
}

pub async fn list_keys(call: &mut Call) -> Refused<Answer> {
    let directory = guard(call)?.directory();
    let keys = directory.keys.iter().map(|(id, key)| rhumb_api::KeyInfo {
        id: id.clone(),
        name: key.name.clone(),
        roles: texts(&key.roles),
        created_at: time::format(key.created_at_ms),
        expires_at: key.expires_at_ms.map(time::format),
        last_used_at: key.last_used_ms.map(time::format),
        claims: shown_claims(&key.claims),
        limits: shown_pace(key.pace),
    });
    let list = rhumb_api::KeyList { keys: keys.collect() };
    Ok(answer::json(StatusCode::OK, &list))
}

pub async fn delete_key(call: &mut Call) -> Refused<Answer> {
    let (guard, id) = (guard(call)?, call.path(0).to_owned());
    change(&guard, |directory| directory.delete_key(&id)).await?;
    Ok(answer::empty(StatusCode::NO_CONTENT))
}

pub async fn rotate_key(call: &mut Call) -> Refused<Answer> {
    let (guard, id) = (guard(call)?, call.path(0).to_owned());
    let overlap_s = overlap(call.optional_json_body().await?)?;
    let key = MintedKey::new(id, Secret::random());
    let now = guard.now_ms();
    change(&guard, |directory| {
        directory.rotate_key(&key, now, overlap_s as i64 * 1_000)
    })
    .await?;
    let rotated = rhumb_api::RotatedKey {
        key: key.reveal().to_string(),
    };
    Ok(answer::json(StatusCode::OK, &rotated))
}

fn overlap(body: Json) -> Result<u64, Problem> {
    let mut members = Members::of("the body", body)?;
    let overlap_s = members.number("overlap_s", 0..=LONGEST_S, Code::InvalidValue)?;
    members.finish()?;
    Ok(overlap_s.unwrap_or_default())
}

// Users.

/// A user as it was asked for; the password is not hashed yet.
struct AskedUser {
    password: Option<Arc<str>>,
    roles: Vec<Name>,
    groups: Option<BTreeSet<Name>>,
    claims: Option<Claims>,
    pace: Option<Pace>,
}

pub async fn put_user(call: &mut Call) -> Refused<Answer> {
    let (guard, name) = (guard(call)?, name(call)?);
    let asked = asked_user(call.json_body().await?)?;
    let password = match asked.password.clone() {
        Some(password) => Some(hashed(call, &guard, password).await?),
        None => None,
    };
    call.detail = Some(roles_text(&asked.roles));
    let is_new = change(&guard, |directory| {
        let user = User {
            password: password.clone(),
            roles: asked.roles.clone(),
            claims: asked.claims.clone().unwrap_or_default(),
            pace: asked.pace.unwrap_or_default(),
        };
        let made = directory.put_user(name.clone(), user)?;
        match &asked.groups {
            None => Ok(made),
            Some(groups) => Ok(Change {
                directory: made.directory.set_groups_of(&name, groups)?.directory,
                answer: made.answer,
            }),
        }
    });
    let status = created(is_new.await?);
    shown_user(&guard.directory(), &name, status)
}

/// Off the request threads, and not too many at once: it is slow on purpose.
async fn hashed(call: &Call, guard: &Guard, password: Arc<str>) -> Refused<Password> {
    let _place = turn(guard).await?;
    let salt = random();
    Ok(call
        .app
        .tasks
        .compute(move || hash_password(&password, salt))
        .await?)
}

/// A turn to have a password hashed; the queue for it is no place to wait for ever.
pub async fn turn(guard: &Guard) -> Result<SemaphorePermit<'_>, Problem> {
    let turn = tokio::time::timeout(TURN, guard.logins.acquire()).await;
    turn.map_err(|_| busy())?.map_err(|_| busy())
}

fn busy() -> Problem {
    Problem::new(Code::TooManyRequests, "too many passwords are being checked")
}

fn asked_user(body: Json) -> Result<AskedUser, Problem> {
    let mut members = Members::of("a user", body)?;
    let password = members.str("password")?;
    let roles = names(&mut members, "roles")?;
    let groups = match members.take("groups") {
        Some(groups) => Some(name_list("groups", groups)?.into_iter().collect()),
        None => None,
    };
    let (claims, pace) = (claims(&mut members)?, pace(&mut members)?);
    members.finish()?;
    if password
        .as_ref()
        .is_some_and(|password| !PASSWORD_BYTES.contains(&password.len()))
    {
        return Err(Problem::new(Code::InvalidValue, "a password has 8 to 1,024 bytes").field("password"));
    }
    Ok(AskedUser {
        password,
        roles,
        groups,
        claims,
        pace,
    })
}

pub async fn get_user(call: &mut Call) -> Refused<Answer> {
    let (guard, name) = (guard(call)?, name(call)?);
    shown_user(&guard.directory(), &name, StatusCode::OK)
}

fn shown_user(directory: &Directory, name: &Name, status: StatusCode) -> Refused<Answer> {
    let user = directory.users.get(name).ok_or_else(|| missing("user", name))?;
    let shown = rhumb_api::UserInfo {
        name: name.to_string(),
        roles: texts(&user.roles),
        groups: directory
            .groups_of(name)
            .into_iter()
            .map(Name::to_string)
            .collect(),
        has_password: user.password.is_some(),
        claims: shown_claims(&user.claims),
        limits: shown_pace(user.pace),
    };
    Ok(answer::json(status, &shown))
}

pub async fn delete_user(call: &mut Call) -> Refused<Answer> {
    let (guard, name) = (guard(call)?, name(call)?);
    change(&guard, |directory| directory.delete_user(name.as_str())).await?;
    Ok(answer::empty(StatusCode::NO_CONTENT))
}

// Groups.

pub async fn put_group(call: &mut Call) -> Refused<Answer> {
    let (guard, name) = (guard(call)?, name(call)?);
    let group = asked_group(call.json_body().await?)?;
    call.detail = Some(roles_text(&group.roles));
    let is_admin = call.caller.identity.is_admin();
    let is_new = guard.change(|directory: &Directory| {
        let old = directory.groups.get(&name);
        // An owner keeps the list of members; who owns a group and what it may do is not theirs.
        let same = |old: &Group| old.owner == group.owner && old.roles == group.roles;
        if !is_admin && !old.is_some_and(same) {
            return Err(forbidden());
        }
        directory
            .put_group(name.clone(), group.clone())
            .map_err(|e| problem_of(&e))
    });
    let status = created(is_new.await?);
    shown_group(&guard.directory(), &name, status)
}

fn asked_group(body: Json) -> Result<Group, Problem> {
    let mut members = Members::of("a group", body)?;
    let owner = match members.str("owner")? {
        Some(owner) => Some(parse_name("owner", &owner)?),
        None => None,
    };
    let list = names(&mut members, "members")?;
    let roles = names(&mut members, "roles")?;
    members.finish()?;
    Ok(Group {
        owner,
        members: list.into_iter().collect(),
        roles,
    })
}

pub async fn get_group(call: &mut Call) -> Refused<Answer> {
    let (guard, name) = (guard(call)?, name(call)?);
    shown_group(&guard.directory(), &name, StatusCode::OK)
}

fn shown_group(directory: &Directory, name: &Name, status: StatusCode) -> Refused<Answer> {
    let group = directory.groups.get(name).ok_or_else(|| missing("group", name))?;
    let shown = rhumb_api::GroupInfo {
        name: name.to_string(),
        owner: group.owner.as_ref().map(Name::to_string),
        members: group.members.iter().map(Name::to_string).collect(),
        roles: texts(&group.roles),
    };
    Ok(answer::json(status, &shown))
}

pub async fn delete_group(call: &mut Call) -> Refused<Answer> {
    let (guard, name) = (guard(call)?, name(call)?);
    change(&guard, |directory| directory.delete_group(name.as_str())).await?;
    Ok(answer::empty(StatusCode::NO_CONTENT))
}

// Roles.

pub async fn put_role(call: &mut Call) -> Refused<Answer> {
    let (guard, name) = (guard(call)?, name(call)?);
    let role = asked_role(call.json_body().await?)?;
    let is_new = change(&guard, |directory| directory.put_role(name.clone(), role.clone())).await?;
    shown_role(&guard.directory(), &name, created(is_new))
}

fn asked_role(body: Json) -> Result<Role, Problem> {
    let mut members = Members::of("a role", body)?;
    let grants = members.list("grants")?;
    members.finish()?;
    let grants = grants.ok_or_else(|| Problem::new(Code::Malformed, "a role has grants").field("grants"))?;
    let each = grants.into_iter().enumerate().map(|(at, json)| grant(at, json));
    Ok(Role {
        grants: each.collect::<Result<_, Problem>>()?,
    })
}

fn grant(at: usize, json: Json) -> Result<rhumb_auth::Grant, Problem> {
    let inside = |problem: Problem| problem.within(&format!("grants[{at}]"));
    let mut members = Members::of("a grant", json).map_err(inside)?;
    let collections = members.str("collections").map_err(inside)?;
    let operations = members.take("operations");
    let row_filter = members.take("row_filter");
    members.finish().map_err(inside)?;
    let malformed = |field: &str, detail: &str| inside(Problem::new(Code::Malformed, detail).field(field));
    let collections = collections.ok_or_else(|| malformed("collections", "a grant names collections"))?;
    let pattern = rhumb_auth::Pattern::parse(&collections).ok_or_else(|| {
        inside(
            Problem::new(
                Code::InvalidValue,
                "collections is a name, in which * stands for any letters",
            )
            .field("collections"),
        )
    })?;
    let operations = operations.ok_or_else(|| malformed("operations", "a grant names operations"))?;
    let operations: Vec<Operation> = shaped(operations).map_err(|_| {
        let known = "operations are read, write, schema and admin";
        inside(Problem::new(Code::InvalidValue, known).field("operations"))
    })?;
    Ok(rhumb_auth::Grant {
        collections: pattern,
        operations,
        row_filter: row_filter.map(Json::into_serde),
    })
}

pub async fn get_role(call: &mut Call) -> Refused<Answer> {
    let (guard, name) = (guard(call)?, name(call)?);
    shown_role(&guard.directory(), &name, StatusCode::OK)
}

fn shown_role(directory: &Directory, name: &Name, status: StatusCode) -> Refused<Answer> {
    let role = Role::built_in(name.as_str()).or_else(|| directory.roles.get(name).cloned());
    let role = role.ok_or_else(|| missing("role", name))?;
    let shown = rhumb_api::RoleInfo {
        name: name.to_string(),
        grants: grants(&role),
    };
    Ok(answer::json(status, &shown))
}

pub async fn delete_role(call: &mut Call) -> Refused<Answer> {
    let (guard, name) = (guard(call)?, name(call)?);
    change(&guard, |directory| directory.delete_role(name.as_str())).await?;
    Ok(answer::empty(StatusCode::NO_CONTENT))
}

// What they have in common.

/// A server without identities has none of these routes.
pub fn guard(call: &Call) -> Result<Arc<Guard>, Problem> {
    call.app.guard.clone().ok_or_else(|| {
        Problem::new(Code::RouteNotFound, "this server was started without identities")
            .hint("start it without --dev and --unsafe-public")
    })
}

async fn change<T>(
    guard: &Guard,
    mut edit: impl FnMut(&Directory) -> Result<Change<T>, rhumb_auth::DirectoryError>,
) -> Result<T, Problem> {
    guard
        .change(|directory: &Directory| edit(directory).map_err(|error| problem_of(&error)))
        .await
}

fn created(is_new: bool) -> StatusCode {
    match is_new {
        true => StatusCode::CREATED,
        false => StatusCode::OK,
    }
}

fn name(call: &Call) -> Result<Name, Problem> {
    parse_name("name", call.path(0))
}

fn parse_name(field: &str, text: &str) -> Result<Name, Problem> {
    Name::parse(text).ok_or_else(|| {
        let detail = format!("'{}' is not a name", rhumb_core::problem::shorten(text));
        Problem::new(Code::InvalidName, detail)
            .field(field)
            .hint("a name is [A-Za-z0-9][A-Za-z0-9._@-]{0,127}")
    })
}

fn missing(what: &str, name: &Name) -> Problem {
    Problem::new(Code::IdentityNotFound, format!("there is no {what} '{name}'"))
}

fn names(members: &mut Members, field: &'static str) -> Result<Vec<Name>, Problem> {
    members
        .take(field)
        .map_or(Ok(Vec::new()), |json| name_list(field, json))
}

fn name_list(field: &str, json: Json) -> Result<Vec<Name>, Problem> {
    let texts: Vec<String> = shaped(json)
        .map_err(|_| Problem::new(Code::Malformed, format!("{field} is a list of names")).field(field))?;
    texts.iter().map(|text| parse_name(field, text)).collect()
}

fn claims(members: &mut Members) -> Result<Option<Claims>, Problem> {
    let claims = members.take("claims").map(shaped);
    claims
        .transpose()
        .map_err(|_| Problem::new(Code::Malformed, "claims is an object").field("claims"))
}

fn pace(members: &mut Members) -> Result<Option<Pace>, Problem> {
    let pace: Option<Pace> = members.take("limits").map(shaped).transpose().map_err(|_| {
        let detail = "limits has requests_per_s, concurrent, bytes_per_s, rows_per_s and server_ms_per_s, \
            each a whole number";
        Problem::new(Code::InvalidValue, detail).field("limits")
    })?;
    match pace.is_some_and(|pace| pace.is_shut()) {
        true => {
            Err(Problem::new(Code::InvalidValue, "a limit of 0 would let nothing through").field("limits"))
        }
        false => Ok(pace),
    }
}

fn shaped<T: DeserializeOwned>(json: Json) -> Result<T, serde_json::Error> {
    serde_json::from_value(json.into_serde())
}

fn texts(names: &[Name]) -> Vec<String> {
    names.iter().map(Name::to_string).collect()
}

fn shown_claims(claims: &Claims) -> Option<rhumb_api::Claims> {
    (!claims.is_empty()).then(|| claims.clone().into_iter().collect::<BTreeMap<_, _>>())
}

fn shown_pace(pace: Pace) -> Option<rhumb_api::Pace> {
    (!pace.is_boundless()).then_some(rhumb_api::Pace {
        requests_per_s: pace.requests_per_s,
        concurrent: pace.concurrent,
        bytes_per_s: pace.bytes_per_s,
        rows_per_s: pace.rows_per_s,
        server_ms_per_s: pace.server_ms_per_s,
    })
}

fn grants(role: &Role) -> Vec<rhumb_api::Grant> {
    let shown = |operation: &Operation| match operation {
        Operation::Read => rhumb_api::GrantedOperation::Read,
        Operation::Write => rhumb_api::GrantedOperation::Write,
        Operation::Schema => rhumb_api::GrantedOperation::Schema,
        Operation::Admin => rhumb_api::GrantedOperation::Admin,
    };
    let each = role.grants.iter().map(|grant| rhumb_api::Grant {
        collections: grant.collections.as_str().to_owned(),
        operations: grant.operations.iter().map(shown).collect(),
        row_filter: grant.row_filter.clone(),
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use rhumb_core::Limits;

    use super::super::members::tests::known_to;
    use super::*;

    fn json(text: &str) -> Json {
        Json::parse(text.as_bytes(), &Limits::default()).expect("json")
    }

    #[test]
    fn the_parsers_know_what_the_openapi_says() {
        assert_eq!(
            known_to(|body| key_spec(body, 0)),
            rhumb_api::properties::<rhumb_api::NewKey>()
        );
        assert_eq!(known_to(overlap), rhumb_api::properties::<rhumb_api::RotateKey>());
        assert_eq!(
            known_to(asked_user),
            rhumb_api::properties::<rhumb_api::UserDefinition>()
        );
        assert_eq!(
            known_to(asked_group),
            rhumb_api::properties::<rhumb_api::GroupDefinition>()
        );
        assert_eq!(
            known_to(asked_role),
            rhumb_api::properties::<rhumb_api::RoleDefinition>()
        );
        assert_eq!(
            known_to(|body| grant(0, body)),
            rhumb_api::properties::<rhumb_api::Grant>()
        );
    }

    #[test]
    fn what_is_wrong_with_a_role_is_named_by_its_place() {
        for (text, code, field) in [
            (r#"{"grants": {}}"#, Code::Malformed, "grants"),
            (r#"{}"#, Code::Malformed, "grants"),
            (
                r#"{"grants": [{"operations": ["read"]}]}"#,
                Code::Malformed,
                "grants[0].collections",
            ),
            (
                r#"{"grants": [{"collections": "A", "operations": ["read"]}]}"#,
                Code::InvalidValue,
                "grants[0].collections",
            ),
            (
                r#"{"grants": [{"collections": "a", "operations": ["fly"]}]}"#,
                Code::InvalidValue,
                "grants[0].operations",
            ),
        ] {
            let problem = asked_role(json(text)).expect_err(text);
            assert_eq!(
                (problem.code, problem.field.as_deref()),
                (code, Some(field)),
                "{text}"
            );
        }
    }

    #[test]
    fn a_short_password_and_a_limit_of_nothing_are_refused() {
        assert_eq!(
            asked_user(json(r#"{"password": "short"}"#)).err().map(|p| p.code),
            Some(Code::InvalidValue)
        );
        for bound in rhumb_api::properties::<rhumb_api::Pace>() {
            let limited = |most: u32| {
                let body = format!(r#"{{"name": "a", "limits": {{"{bound}": {most}}}}}"#);
                key_spec(json(&body), 0)
            };
            assert_eq!(limited(0).err().and_then(|p| p.field), Some("limits".to_owned()));
            let pace = limited(7).expect(&bound).pace;
            let shown = serde_json::json!(shown_pace(pace));
            assert_eq!(shown, serde_json::json!({ bound: 7 }));
        }
        let odd = key_spec(json(r#"{"name": "a", "limits": {"qps": 1}}"#), 0);
        assert_eq!(odd.err().map(|p| p.code), Some(Code::InvalidValue));
    }
}
