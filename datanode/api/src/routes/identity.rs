//! Routes of identities and the audit.

use rhumb_core::Code;

use super::parts::*;
use super::{JSON, Method, Op, Param, Place, Route, SchemaOf, of};
use crate::{
    AuditPage, CreatedKey, GroupDefinition, GroupInfo, KeyList, LoginRequest, NewKey, RefreshRequest,
    RoleDefinition, RoleInfo, RotateKey, RotatedKey, TokenAnswer, UserDefinition, UserInfo, Whoami,
};

const KEY_ID: &[Param] = &[text("id", Place::Path, "The key's id")];
const NAME: &[Param] = &[text("name", Place::Path, "`[A-Za-z0-9][A-Za-z0-9._@-]{0,127}`")];
const KEY_PATH: &str = "/v1/keys/{id}";
const USER_PATH: &str = "/v1/users/{name}";
const GROUP_PATH: &str = "/v1/groups/{name}";
const ROLE_PATH: &str = "/v1/roles/{name}";
const AUDIT: &[Param] = &[
    text("since", Place::Query, "RFC 3339; from then on"),
    text("until", Place::Query, "RFC 3339; before then"),
    text(
        "subject",
        Place::Query,
        "Of this subject alone, such as `key:…` or `user:ada`",
    ),
];

const CHANGES: &[Code] = &[
    Code::IdentityNotFound,
    Code::InvalidName,
    Code::InvalidValue,
    Code::LimitExceeded,
    Code::UnknownField,
    Code::Unavailable,
];
const LOOKS: &[Code] = &[Code::IdentityNotFound, Code::InvalidName, Code::Unavailable];

/// A route without a body.
const fn plain_route(
    op: Op,
    method: Method,
    path: &'static str,
    summary: &'static str,
    params: &'static [&'static [Param]],
    answers: &'static [super::Answer],
) -> Route {
    Route {
        op,
        method,
        path,
        summary,
        params,
        request: None,
        answers,
        refusals: LOOKS,
    }
}

const fn with_body(
    route: Route,
    about: &'static str,
    types: &'static [(&'static str, Option<SchemaOf>)],
) -> Route {
    Route {
        request: takes(about, types),
        refusals: CHANGES,
        ..route
    }
}

const INFO: &str = "As it is now";

pub(super) const ROUTES: [Route; 17] = [
    with_body(
        plain_route(
            Op::Login,
            Method::Post,
            "/v1/login",
            "A session of a user, for a password",
            &[],
            &[json(200, "The tokens", &[of::<TokenAnswer>])],
        ),
        "Name and password",
        &[(JSON, Some(of::<LoginRequest>))],
    ),
    with_body(
        plain_route(
            Op::RefreshToken,
            Method::Post,
            "/v1/token/refresh",
            "The next tokens of a session",
            &[],
            &[json(200, "The tokens", &[of::<TokenAnswer>])],
        ),
        "The refresh token, which is used up",
        &[(JSON, Some(of::<RefreshRequest>))],
    ),
    plain_route(
        Op::Whoami,
        Method::Get,
        "/v1/whoami",
        "Who is asking, and what they may do",
        &[],
        &[json(200, "The identity", &[of::<Whoami>])],
    ),
    with_body(
        plain_route(
            Op::CreateKey,
            Method::Post,
            "/v1/keys",
            "Makes an API key",
            &[],
            &[json(201, "The key, shown this once", &[of::<CreatedKey>])],
        ),
        "What the key may do",
        &[(JSON, Some(of::<NewKey>))],
    ),
    plain_route(
        Op::ListKeys,
        Method::Get,
        "/v1/keys",
        "The API keys, without their secrets",
        &[],
        &[json(200, "All keys", &[of::<KeyList>])],
    ),
    plain_route(
        Op::DeleteKey,
        Method::Delete,
        KEY_PATH,
        "Revokes a key; every node knows within two seconds",
        &[KEY_ID],
        &[DONE],
    ),
    with_body(
        plain_route(
            Op::RotateKey,
            Method::Post,
            "/v1/keys/{id}/rotate",
            "Gives a key another secret",
            &[KEY_ID],
            &[json(200, "The key, shown this once", &[of::<RotatedKey>])],
        ),
        "How long the old secret stays valid",
        &[(JSON, Some(of::<RotateKey>))],
    ),
    with_body(
        plain_route(
            Op::PutUser,
            Method::Put,
            USER_PATH,
            "Makes or replaces a user",
            &[NAME],
            &[
                json(200, INFO, &[of::<UserInfo>]),
                json(201, "New", &[of::<UserInfo>]),
            ],
        ),
        "The user; a password that is left out stays",
        &[(JSON, Some(of::<UserDefinition>))],
    ),
    plain_route(
        Op::GetUser,
        Method::Get,
        USER_PATH,
        "A user",
        &[NAME],
        &[json(200, INFO, &[of::<UserInfo>])],
    ),
    plain_route(
        Op::DeleteUser,
        Method::Delete,
        USER_PATH,
        "Deletes a user and ends their sessions",
        &[NAME],
        &[DONE],
    ),
    with_body(
        plain_route(
            Op::PutGroup,
            Method::Put,
            GROUP_PATH,
            "Makes or replaces a group; its owner may change the members",
            &[NAME],
            &[
                json(200, INFO, &[of::<GroupInfo>]),
                json(201, "New", &[of::<GroupInfo>]),
            ],
        ),
        "The group",
        &[(JSON, Some(of::<GroupDefinition>))],
    ),
    plain_route(
        Op::GetGroup,
        Method::Get,
        GROUP_PATH,
        "A group",
        &[NAME],
        &[json(200, INFO, &[of::<GroupInfo>])],
    ),
    plain_route(
        Op::DeleteGroup,
        Method::Delete,
        GROUP_PATH,
        "Deletes a group",
        &[NAME],
        &[DONE],
    ),
    with_body(
        plain_route(
            Op::PutRole,
            Method::Put,
            ROLE_PATH,
            "Makes or replaces a role",
            &[NAME],
            &[
                json(200, INFO, &[of::<RoleInfo>]),
                json(201, "New", &[of::<RoleInfo>]),
            ],
        ),
        "Its grants",
        &[(JSON, Some(of::<RoleDefinition>))],
    ),
    plain_route(
        Op::GetRole,
        Method::Get,
        ROLE_PATH,
        "A role, built-in ones too",
        &[NAME],
        &[json(200, INFO, &[of::<RoleInfo>])],
    ),
    plain_route(
        Op::DeleteRole,
        Method::Delete,
        ROLE_PATH,
        "Deletes a role; whoever had it has it no longer",
        &[NAME],
        &[DONE],
    ),
    plain_route(
        Op::Audit,
        Method::Get,
        "/v1/audit",
        "What was done, by whom, in the order of time within each process",
        &[AUDIT, PAGE],
        &[json(200, "A page of records", &[of::<AuditPage>])],
    ),
];
