//! Sessions, and tokens of others.

use serde_json::{Value, json};

use crate::home::Guarded;
use crate::issuer::{Issuer, b64, now_s};

async fn login(server: &Guarded, password: &str) -> crate::home::Told {
    let body = json!({"user": "ada", "password": password});
    server.ask(None, "POST", "/v1/login", Some(&body)).await
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().expect(name).to_owned()
}

#[tokio::test]
async fn a_user_logs_in_and_a_refresh_token_is_good_for_one_use() {
    let server = Guarded::start("login").await;
    let user = json!({"password": "correct horse", "roles": ["reader"], "claims": {"org": "x"}});
    server.admin("PUT", "/v1/users/ada", Some(&user)).await;
    let wrong = login(&server, "wrong horse").await;
    let nobody = server
        .ask(
            None,
            "POST",
            "/v1/login",
            Some(&json!({"user": "bob", "password": "wrong horse"})),
        )
        .await;
    assert_eq!((wrong.status, nobody.status), (401, 401));
    assert_eq!(
        wrong.body["detail"], nobody.body["detail"],
        "who exists does not show"
    );
    let first = login(&server, "correct horse").await.ok();
    assert_eq!(first["expires_in_s"], 900);
    let whoami = |token: String| {
        let server = &server;
        async move { server.ask(Some(&token), "GET", "/v1/whoami", None).await }
    };
    let who = whoami(text(&first, "token")).await.ok();
    assert_eq!(
        (&who["subject"], &who["claims"]),
        (&json!("user:ada"), &json!({"org": "x"}))
    );
    let refresh = |token: String| {
        let server = &server;
        async move {
            let body = json!({"refresh_token": token});
            server.ask(None, "POST", "/v1/token/refresh", Some(&body)).await
        }
    };
    let second = refresh(text(&first, "refresh_token")).await.ok();
    assert_eq!(whoami(text(&second, "token")).await.status, 200);
    // Used twice: both the thief and the owner are out.
    assert_eq!(refresh(text(&first, "refresh_token")).await.status, 401);
    assert_eq!(whoami(text(&second, "token")).await.status, 401);
    assert_eq!(refresh(text(&second, "refresh_token")).await.status, 401);
    assert_eq!(refresh("rhr_x_0_AAAA".into()).await.status, 401);
}

#[tokio::test]
async fn passwords_cannot_be_guessed_at_speed() {
    let server = Guarded::start("guessing").await;
    server
        .admin(
            "PUT",
            "/v1/users/ada",
            Some(&json!({"password": "correct horse"})),
        )
        .await;
    let mut told = Vec::new();
    for _ in 0..14 {
        told.push(login(&server, "wrong horse").await.status);
    }
    assert!(told.contains(&429), "{told:?}");
    assert!(told.iter().all(|status| matches!(status, 401 | 429)), "{told:?}");
}

#[tokio::test]
async fn members_have_their_groups_roles_and_its_owner_keeps_the_list() {
    let server = Guarded::start("groups").await;
    for name in ["ada", "bob"] {
        let user = json!({"password": "correct horse"});
        server
            .admin("PUT", &format!("/v1/users/{name}"), Some(&user))
            .await;
    }
    let group = json!({"owner": "ada", "members": ["ada"], "roles": ["editor"]});
    server.admin("PUT", "/v1/groups/team", Some(&group)).await;
    let ada = text(&login(&server, "correct horse").await.ok(), "token");
    let who = server.ask(Some(&ada), "GET", "/v1/whoami", None).await.ok();
    assert_eq!(who["roles"], json!(["editor"]));
    let put = |body: Value| {
        let (server, ada) = (&server, &ada);
        async move { server.ask(Some(ada), "PUT", "/v1/groups/team", Some(&body)).await }
    };
    put(json!({"owner": "ada", "members": ["ada", "bob"], "roles": ["editor"]}))
        .await
        .ok();
    let more = put(json!({"owner": "ada", "members": ["ada"], "roles": ["admin"]})).await;
    assert_eq!((more.status, more.code()), (403, "forbidden"));
    let given = put(json!({"owner": "bob", "members": ["ada"], "roles": ["editor"]})).await;
    assert_eq!(given.status, 403);
    let other = server
        .ask(
            Some(&ada),
            "PUT",
            "/v1/groups/mine",
            Some(&json!({"owner": "ada"})),
        )
        .await;
    assert_eq!(other.status, 403);
}

#[tokio::test]
async fn a_token_of_a_known_issuer_is_taken_and_attacks_on_it_are_not() {
    let mut issuer = Issuer::start().await;
    let server = Guarded::start_with("jwt", Some(issuer.config())).await;
    let ask = |token: String| {
        let server = &server;
        async move { server.ask(Some(&token), "GET", "/v1/whoami", None).await }
    };
    let who = ask(issuer.token(&issuer.claims())).await.ok();
    assert_eq!(who["roles"], json!(["editor", "reader"]), "{who}");
    assert_eq!(who["subject"], format!("jwt:{}#ada", issuer.name));
    assert_eq!(who["claims"]["org"], "x");
    let with = |name: &str, value: Value| {
        let mut claims = issuer.claims();
        claims[name] = value;
        claims
    };
    let said = |header: Value| format!("{}.{}", b64(header.to_string()), b64(issuer.claims().to_string()));
    let attacks = [
        ("none", format!("{}.", said(json!({"alg": "none"})))),
        ("None", format!("{}.", said(json!({"alg": "None", "kid": "k1"})))),
        (
            "hmac",
            format!("{}.{}", said(json!({"alg": "HS256", "kid": "k1"})), b64([0; 32])),
        ),
        (
            "kid",
            issuer.signed(
                &json!({"alg": "ES256", "kid": "../../dev/null"}),
                &issuer.claims(),
            ),
        ),
        (
            "jwk",
            issuer.signed(&json!({"alg": "ES384", "kid": "k1"}), &issuer.claims()),
        ),
        (
            "crit",
            issuer.signed(
                &json!({"alg": "ES256", "kid": "k1", "crit": ["x"]}),
                &issuer.claims(),
            ),
        ),
        ("aud", issuer.token(&with("aud", json!("other")))),
        ("iss", issuer.token(&with("iss", json!("http://127.0.0.1:1")))),
        ("exp", issuer.token(&with("exp", json!(now_s() - 120)))),
        ("forever", issuer.token(&with("exp", Value::Null))),
        ("nbf", issuer.token(&with("nbf", json!(now_s() + 3_600)))),
        ("huge", issuer.token(&with("x", json!("y".repeat(20_000))))),
        (
            "cut",
            issuer
                .token(&issuer.claims())
                .rsplit_once('.')
                .expect("parts")
                .0
                .to_owned()
                + ".",
        ),
    ];
    for (name, token) in attacks {
        let told = ask(token).await;
        assert!(matches!(told.status, 401 | 431), "{name}: {told:?}");
    }
    let escalated = ask(issuer.token(&with("groups", json!(["admin"])))).await.ok();
    assert_eq!(escalated["roles"], json!(["reader"]), "a claim is no role");
    // Keys that were fetched a moment ago are not fetched again for every odd token.
    issuer.rotate("k2");
    let early = ask(issuer.token(&issuer.claims())).await;
    assert_eq!(early.status, 401);
    assert_eq!(server.ask(None, "GET", "/healthz", None).await.status, 200);
}
