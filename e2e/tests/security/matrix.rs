//! Every route the server says it has, asked by everybody.

use serde_json::{Value, json};

use crate::home::{Guarded, Told};

/// What a route is, told from its path alone: this does not read the server's own table.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Open,
    Anyone,
    Monitor,
    Read,
    Write,
    Schema,
    Admin,
}

fn kind(method: &str, path: &str) -> Kind {
    match (method, path) {
        (_, "/healthz" | "/readyz" | "/v1/login" | "/v1/token/refresh") => Kind::Open,
        (_, "/openapi.json" | "/v1/whoami" | "/v1/collections") => Kind::Anyone,
        (_, "/metrics" | "/v1/status") => Kind::Monitor,
        (_, path) if !path.starts_with("/v1/collections/") => Kind::Admin,
        ("get", _) => Kind::Read,
        ("post", path) if path.ends_with("/optimize") || path.ends_with("/erase") => Kind::Schema,
        ("post", path) if path.ends_with("/documents") || path.ends_with("/import") => Kind::Write,
        ("post", _) => Kind::Read,
        (_, path) if path.ends_with("/{collection}") => Kind::Schema,
        _ => Kind::Write,
    }
}

/// Routes in an order that leaves the collection there until the end.
async fn routes(server: &Guarded) -> Vec<(String, String)> {
    let api = server.admin("GET", "/openapi.json", None).await;
    let mut routes: Vec<(String, String)> = Vec::new();
    for (path, item) in api["paths"].as_object().expect("paths") {
        for method in item.as_object().expect("methods").keys() {
            routes.push((method.clone(), path.clone()));
        }
    }
    assert!(routes.len() >= 40, "{} routes", routes.len());
    routes
}

/// A body that says nothing: whoever is let in gets at least a refusal of its own.
async fn ask(server: &Guarded, key: Option<&str>, method: &str, path: &str) -> Told {
    let path = path
        .replace("{collection}", "team-a-1")
        .replace("{id}", "no-such")
        .replace("{name}", "no-such");
    let body = json!({});
    let sends = matches!(method, "post" | "put" | "patch");
    server
        .ask(key, &method.to_uppercase(), &path, sends.then_some(&body))
        .await
}

fn let_in(told: &Told) -> bool {
    !matches!(told.status, 401 | 403) && told.code() != "collection_not_found"
}

#[tokio::test]
async fn every_route_lets_in_whom_it_is_for_and_nobody_else() {
    let server = Guarded::start("matrix").await;
    server
        .admin(
            "PUT",
            "/v1/collections/team-a-1",
            Some(&json!({"fields": {"tenant": "string"}})),
        )
        .await;
    let all = json!(["read", "write", "schema"]);
    server
        .role("team-a", json!([{"collections": "team-a-*", "operations": all}]))
        .await;
    server
        .role("team-b", json!([{"collections": "team-b-*", "operations": all}]))
        .await;
    let rows = json!([{"collections": "*", "operations": all, "row_filter": {"tenant": "$claims.org"}}]);
    server.role("rows", rows).await;
    let (_, reader) = server.key(&["reader"], json!({})).await;
    let (_, editor) = server.key(&["editor"], json!({})).await;
    let (_, own) = server.key(&["team-a"], json!({})).await;
    let (_, other) = server.key(&["team-b"], json!({})).await;
    let (_, filtered) = server.key(&["rows"], json!({"claims": {"org": "x"}})).await;
    let (_, claimless) = server.key(&["rows"], json!({})).await;
    let (_, expired) = server.key(&["admin"], json!({"expires_in_s": 1})).await;
    let (id, revoked) = server.key(&["admin"], json!({})).await;
    server.admin("DELETE", &format!("/v1/keys/{id}"), None).await;
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    let wrong = format!("{}x", &reader[..reader.len() - 1]);
    let strangers = [
        None,
        Some("nonsense"),
        Some(wrong.as_str()),
        Some(expired.as_str()),
        Some(revoked.as_str()),
        Some("rhs_e30.AAAA"),
        Some("eyJhbGciOiJub25lIn0.e30."),
    ];
    for (method, path) in routes(&server).await {
        let kind = kind(&method, &path);
        for key in strangers {
            let told = ask(&server, key, &method, &path).await;
            let wanted = kind != Kind::Open;
            assert_eq!(
                told.status == 401 && path != "/v1/token/refresh",
                wanted,
                "{key:?} {method} {path}: {told:?}"
            );
            if wanted {
                assert!(
                    told.challenge
                        .as_ref()
                        .is_some_and(|text| text.starts_with("Bearer")),
                    "{told:?}"
                );
                assert_eq!(told.code(), "unauthenticated");
                says_nothing(&told);
            }
        }
        for (who, key, may) in [
            (
                "reader",
                &reader,
                !matches!(kind, Kind::Write | Kind::Schema | Kind::Admin),
            ),
            ("editor", &editor, kind != Kind::Admin),
            ("own", &own, !matches!(kind, Kind::Monitor | Kind::Admin)),
            ("other", &other, matches!(kind, Kind::Open | Kind::Anyone)),
            ("claimless", &claimless, matches!(kind, Kind::Open | Kind::Anyone)),
        ] {
            // The last to come deletes it; those before must not.
            if kind == Kind::Schema && method == "delete" && may {
                continue;
            }
            let told = ask(&server, Some(key), &method, &path).await;
            let is_open = path == "/v1/token/refresh";
            assert_eq!(let_in(&told) || is_open, may, "{who} {method} {path}: {told:?}");
            assert!(told.status < 500, "{who} {method} {path}: {told:?}");
            if !may {
                let of_collection = path.contains("{collection}");
                let hidden = of_collection && matches!(who, "other" | "claimless");
                assert_eq!(
                    told.status,
                    if hidden { 404 } else { 403 },
                    "{who} {method} {path}"
                );
                says_nothing(&told);
            }
        }
        let of_all = path.ends_with("/optimize") || path.ends_with("/erase");
        let whole = of_all || (method == "delete" && path.ends_with("/{collection}"));
        if kind != Kind::Open {
            let told = ask(&server, Some(&filtered), &method, &path).await;
            // The empty document lies outside the rows that the key may write.
            let outside = method == "put" && path.ends_with("/documents/{id}");
            let may = !matches!(kind, Kind::Monitor | Kind::Admin) && !whole && !outside;
            assert_eq!(let_in(&told), may, "filtered {method} {path}: {told:?}");
        }
    }
}

/// A refusal carries a problem and nothing else.
fn says_nothing(told: &Told) {
    let known = [
        "type",
        "title",
        "status",
        "detail",
        "code",
        "hint",
        "field",
        "request_id",
    ];
    let members = told.body.as_object().expect("a problem");
    assert!(
        members.keys().all(|name| known.contains(&name.as_str())),
        "{told:?}"
    );
}

#[tokio::test]
async fn a_collection_without_a_grant_is_as_if_it_were_not_there() {
    let server = Guarded::start("hidden").await;
    for name in ["team-a-1", "team-b-1"] {
        server
            .admin(
                "PUT",
                &format!("/v1/collections/{name}"),
                Some(&json!({"fields": {}})),
            )
            .await;
    }
    server
        .role(
            "team-a",
            json!([{"collections": "team-a-*", "operations": ["read"]}]),
        )
        .await;
    let (_, key) = server.key(&["team-a"], json!({})).await;
    let listed = server.ask(Some(&key), "GET", "/v1/collections", None).await.ok();
    let names: Vec<&Value> = listed["collections"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|c| &c["name"])
        .collect();
    assert_eq!(names, ["team-a-1"]);
    assert_eq!(listed["cursor"], Value::Null);
    let there = server
        .ask(Some(&key), "GET", "/v1/collections/team-b-1", None)
        .await;
    let nowhere = server
        .ask(Some(&key), "GET", "/v1/collections/team-b-2", None)
        .await;
    let plain = |told: &Told| {
        let mut body = told.body.clone();
        body["request_id"] = Value::Null;
        (told.status, body.to_string().replace("team-b-2", "team-b-1"))
    };
    assert_eq!(plain(&there), plain(&nowhere));
    // The same name in another spelling, and a path that climbs.
    for path in [
        "/v1/collections/team%2Db-1",
        "/v1/collections/team-a-1/../team-b-1",
    ] {
        let told = server.ask(Some(&key), "GET", path, None).await;
        assert!(matches!(told.status, 404 | 405), "{path}: {told:?}");
    }
}

#[tokio::test]
async fn headers_of_other_kinds_make_nobody_known() {
    let server = Guarded::start("headers").await;
    let key = server.admin_key();
    let passport = "eyJzdWJqZWN0IjoidXNlcjphZG1pbiIsInJvd19maWx0ZXIiOm51bGx9";
    for headers in [
        vec![("rhumb-caller", passport.to_owned())],
        vec![("x-forwarded-user", "admin".to_owned())],
        vec![("authorization", format!("Basic {key}"))],
        vec![
            ("authorization", format!("Bearer {key}")),
            ("authorization", "Bearer x".to_owned()),
        ],
        vec![("x-api-key", key.clone())],
        vec![("cookie", format!("key={key}"))],
    ] {
        let mut request = server.http().get(server.url("/v1/whoami"));
        for (name, value) in &headers {
            request = request.header(*name, value);
        }
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), 401, "{headers:?}");
    }
    let query = format!("/v1/whoami?key={key}");
    assert_eq!(server.ask(None, "GET", &query, None).await.status, 401);
}
