//! Sessions: a password for tokens, a refresh token for the next ones.
//!
//! Both routes are open, so both are slow to guess at: a name may be tried ten times at once
//! and then once in six seconds, from each address; two passwords are checked at a time.

use std::sync::Arc;

use axum::http::StatusCode;
use rhumb_auth::{Change, Denied, Directory, Name, PASSWORD_BYTES, Subject, Tokens, verify_nobody};
use rhumb_core::{Code, Json, Problem};

use super::access::{Acted, Wire, too_many, unauthenticated};
use super::answer::{self, Answer};
use super::call::Call;
use super::identity::{guard, turn};
use super::members::Members;
use super::problem::{Refusal, Refused};

pub async fn login(call: &mut Call) -> Refused<Answer> {
    let guard = guard(call)?;
    let (user, password) = asked_login(call.json_body().await?)?;
    let from = call.wire.as_ref().map(|wire: &Wire| wire.address.to_string());
    let (from, user_text) = (from.unwrap_or_default(), rhumb_core::problem::shorten(&user));
    call.detail = Some(format!("user {user_text} from {from}"));
    let who = format!("{from} {user_text}");
    guard
        .may_try(&who)
        .map_err(|wait| too_many(wait, "too many logins of this user were tried"))?;
    let wrong = || unauthenticated("the user or the password is wrong");
    // Longer is no password of ours, and hashing it would only cost.
    let most = *PASSWORD_BYTES.end();
    let name = Name::parse(&user).filter(|_| password.len() <= most);
    let known = name
        .clone()
        .and_then(|name| guard.directory().users.get(&name)?.password.clone());
    let place = turn(&guard).await?;
    let right = call.app.tasks.compute(move || match known {
        Some(hash) => hash.is(&password),
        None => verify_nobody(&password[..password.floor_char_boundary(most)]),
    });
    let right = right.await?;
    drop(place);
    let Some(name) = name.filter(|_| right) else {
        return Err(wrong());
    };
    let (family, now) = (guard.new_id(), guard.now_ms());
    let opened = guard.change(|directory: &Directory| {
        let opened = directory.open_session(&name, family.clone(), now);
        // Deleted since: as if never there.
        opened.map_err(|_| Problem::new(Code::Unauthenticated, "the user or the password is wrong"))
    });
    Ok(handed_out(&opened.await?, Subject::user(name.as_str())))
}

fn asked_login(body: Json) -> Result<(Arc<str>, Arc<str>), Problem> {
    let mut members = Members::of("the body", body)?;
    let (user, password) = (members.str("user")?, members.str("password")?);
    members.finish()?;
    let needed =
        |field: &'static str| Problem::new(Code::Malformed, format!("{field} is needed")).field(field);
    Ok((
        user.ok_or_else(|| needed("user"))?,
        password.ok_or_else(|| needed("password"))?,
    ))
}

pub async fn refresh(call: &mut Call) -> Refused<Answer> {
    let guard = guard(call)?;
    let token = asked_refresh(call.json_body().await?)?;
    // None at all is no credential: 401, as everywhere.
    let token = token.ok_or_else(|| unauthenticated("there is no refresh_token"))?;
    let now = guard.now_ms();
    let renewed = guard.change(|directory: &Directory| match directory.refresh(&token, now) {
        Ok(change) => Ok(Change {
            directory: change.directory,
            answer: change.answer,
        }),
        Err(denied) => Err(Problem::new(Code::Unauthenticated, denied.to_string())),
    });
    match renewed.await? {
        Ok(tokens) => {
            let who = guard.directory().identify(&tokens.token, now);
            let subject = who.map_or_else(|_| Subject::anybody(), |who| who.subject);
            Ok(handed_out(&tokens, subject))
        }
        Err(denied @ Denied::Reused) => {
            tracing::warn!("a refresh token was used twice: its session has ended");
            Err(unauthenticated(&denied.to_string()))
        }
        Err(denied) => Err(Refusal::from(Problem::new(
            Code::Unauthenticated,
            denied.to_string(),
        ))),
    }
}

fn asked_refresh(body: Json) -> Result<Option<Arc<str>>, Problem> {
    let mut members = Members::of("the body", body)?;
    let token = members.str("refresh_token")?;
    members.finish()?;
    Ok(token)
}

fn handed_out(tokens: &Tokens, subject: Subject) -> Answer {
    let shown = rhumb_api::TokenAnswer {
        token: tokens.token.to_string(),
        refresh_token: tokens.refresh_token.to_string(),
        expires_in_s: tokens.expires_in_s,
    };
    let mut answer = answer::json(StatusCode::OK, &shown);
    answer.extensions_mut().insert(Acted(subject));
    answer
}

#[cfg(test)]
mod tests {
    use super::super::members::tests::known_to;
    use super::*;

    #[test]
    fn the_parsers_know_what_the_openapi_says() {
        assert_eq!(
            known_to(asked_login),
            rhumb_api::properties::<rhumb_api::LoginRequest>()
        );
        assert_eq!(
            known_to(asked_refresh),
            rhumb_api::properties::<rhumb_api::RefreshRequest>()
        );
    }
}
