//! API keys from their making to their end, and what is recorded of it.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use rhumb_e2e::TempDir;
use rhumb_e2e::server::rhumb_binary;
use rhumb_e2e::suite::eventually;
use serde_json::{Value, json};

use crate::home::Guarded;

async fn status(server: &Guarded, key: &str) -> u16 {
    server.ask(Some(key), "GET", "/v1/whoami", None).await.status
}

#[tokio::test]
async fn the_first_start_makes_what_is_missing_and_the_second_keeps_it() {
    let mut server = Guarded::start("first-start").await;
    let key = server.admin_key();
    // It tells what it serves once it does, so whoever asks may be faster.
    let is_shown = || async { server.process.log().matches(&key).count() == 1 };
    assert!(eventually(Duration::from_secs(10), is_shown).await, "shown once");
    for name in ["admin.key", "tls/server.key"] {
        let mode = std::fs::metadata(server.home(name))
            .expect(name)
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    server.restart().await;
    assert_eq!(server.admin_key(), key);
    assert_eq!(server.process.log().matches(&key).count(), 1, "not again");
    assert_eq!(status(&server, &key).await, 200);
    // Lost: a new one is made, the old one stays until somebody revokes it.
    std::fs::remove_file(server.home("admin.key")).expect("removed");
    server.restart().await;
    assert_ne!(server.admin_key(), key);
    assert_eq!(status(&server, &server.admin_key()).await, 200);
    assert_eq!(status(&server, &key).await, 200);
}

#[tokio::test]
async fn a_key_is_made_used_rotated_and_revoked() {
    let server = Guarded::start("key-life").await;
    let (id, key) = server.key(&["reader"], json!({"expires_in_s": 3600})).await;
    assert!(key.starts_with(&format!("rhk_{id}_")), "{key}");
    let who = server.ask(Some(&key), "GET", "/v1/whoami", None).await.ok();
    assert_eq!(
        (&who["subject"], &who["roles"]),
        (&json!(format!("key:{id}")), &json!(["reader"]))
    );
    let listed = server.admin("GET", "/v1/keys", None).await;
    assert!(
        !listed.to_string().contains(&key[key.len() - 40..]),
        "no secret in the list"
    );
    let path = format!("/v1/keys/{id}/rotate");
    let newer = server.admin("POST", &path, Some(&json!({"overlap_s": 2}))).await;
    let newer = newer["key"].as_str().expect("shown").to_owned();
    assert_eq!(
        (status(&server, &key).await, status(&server, &newer).await),
        (200, 200)
    );
    let begin = Instant::now();
    while status(&server, &key).await == 200 {
        assert!(
            begin.elapsed() < Duration::from_secs(10),
            "the overlap has an end"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(status(&server, &newer).await, 200);
    let told = server
        .ask(
            Some(&server.admin_key()),
            "DELETE",
            &format!("/v1/keys/{id}"),
            None,
        )
        .await;
    assert_eq!(told.status, 204);
    assert_eq!(status(&server, &newer).await, 401);
    let again = server
        .ask(
            Some(&server.admin_key()),
            "DELETE",
            &format!("/v1/keys/{id}"),
            None,
        )
        .await;
    assert_eq!((again.status, again.code()), (404, "identity_not_found"));
}

/// As a Secret is mounted and changed while the server runs.
#[tokio::test]
async fn a_key_that_is_put_into_the_admin_keys_file_is_valid_without_a_restart() {
    let dir = TempDir::new("handed").expect("a folder");
    let file = dir.path().join("api-key");
    let key = |letter: &str| format!("rhk_admin_{}", letter.repeat(43));
    let (first, second) = (key("A"), key("E"));
    std::fs::write(&file, &first).expect("written");
    let config = format!("[security]\nadmin_key_file = {file:?}\n");
    let server = Guarded::start_with("handed-key", Some(config)).await;
    assert_eq!(
        (status(&server, &first).await, status(&server, &second).await),
        (200, 401)
    );
    std::fs::write(&file, "half a k").expect("written");
    std::fs::write(&file, format!("{second}\n")).expect("written");
    let begin = Instant::now();
    while status(&server, &second).await != 200 {
        assert!(begin.elapsed() < Duration::from_secs(20), "it is not taken");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(status(&server, &first).await, 200, "for a minute");
    // Revoked by somebody, it stays so: the file says nothing new.
    let gone = server.ask(Some(&second), "DELETE", "/v1/keys/admin", None).await;
    assert_eq!(gone.status, 204);
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(8) {
        assert_eq!(status(&server, &second).await, 401);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_named() {
    let server = Guarded::start("identity-input").await;
    let key = server.admin_key();
    for (method, path, body, status, code) in [
        ("POST", "/v1/keys", json!({}), 400, "malformed"),
        (
            "POST",
            "/v1/keys",
            json!({"name": "a", "role": []}),
            422,
            "unknown_field",
        ),
        (
            "POST",
            "/v1/keys",
            json!({"name": "a", "roles": ["nope"]}),
            422,
            "invalid_value",
        ),
        (
            "POST",
            "/v1/keys",
            json!({"name": "a", "expires_in_s": 0}),
            422,
            "invalid_value",
        ),
        ("POST", "/v1/keys", json!({"name": 7}), 400, "malformed"),
        ("POST", "/v1/keys", json!([]), 400, "malformed"),
        ("PUT", "/v1/users/a%20b", json!({}), 422, "invalid_name"),
        (
            "PUT",
            "/v1/users/ada",
            json!({"password": "short"}),
            422,
            "invalid_value",
        ),
        (
            "PUT",
            "/v1/users/ada",
            json!({"groups": ["nope"]}),
            422,
            "invalid_value",
        ),
        (
            "PUT",
            "/v1/groups/g",
            json!({"members": ["nobody"]}),
            422,
            "invalid_value",
        ),
        (
            "PUT",
            "/v1/roles/admin",
            json!({"grants": []}),
            422,
            "invalid_value",
        ),
        ("PUT", "/v1/roles/r", json!({"grants": []}), 422, "invalid_value"),
        (
            "PUT",
            "/v1/roles/r",
            json!({"grants": [{"collections": "a", "operations": ["admin"]}]}),
            422,
            "invalid_value",
        ),
        (
            "PUT",
            "/v1/roles/r",
            json!({"grants": [{"collections": "a", "operations": ["read"], "row_filter": "a = 1"}]}),
            422,
            "invalid_value",
        ),
        (
            "GET",
            "/v1/audit?since=yesterday",
            Value::Null,
            422,
            "type_mismatch",
        ),
        ("GET", "/v1/audit?cursor=x", Value::Null, 400, "bad_cursor"),
    ] {
        let body = (!body.is_null()).then_some(body);
        let told = server.ask(Some(&key), method, path, body.as_ref()).await;
        assert_eq!(
            (told.status, told.code()),
            (status, code),
            "{method} {path} {body:?}: {told:?}"
        );
    }
}

#[tokio::test]
async fn the_audit_tells_who_did_what_and_shows_when_it_was_changed() {
    let mut server = Guarded::start("audit").await;
    server
        .admin("PUT", "/v1/collections/c", Some(&json!({"fields": {}})))
        .await;
    let (id, key) = server.key(&["reader"], json!({})).await;
    assert_eq!(
        server
            .ask(Some(&key), "DELETE", "/v1/collections/c", None)
            .await
            .status,
        403
    );
    assert_eq!(
        server.ask(None, "DELETE", "/v1/collections/c", None).await.status,
        401
    );
    let audit = server.admin("GET", "/v1/audit", None).await;
    let records = audit["records"].as_array().expect("records");
    let has = |action: &str, outcome: &str, subject: &str| {
        records
            .iter()
            .any(|r| r["action"] == action && r["outcome"] == outcome && r["subject"] == subject)
    };
    let reader = format!("key:{id}");
    assert!(has("delete_collection", "denied", &reader), "{audit}");
    assert!(has("delete_collection", "denied", "nobody"), "{audit}");
    assert!(
        records
            .iter()
            .any(|r| r["action"] == "put_collection" && r["target"] == "c"),
        "{audit}"
    );
    let own = server
        .admin("GET", &format!("/v1/audit?subject={reader}&limit=1"), None)
        .await;
    assert_eq!(own["records"].as_array().map(Vec::len), Some(1));
    let secret = &key[key.len() - 43..];
    assert!(!audit.to_string().contains(secret));
    server.stop().await;
    assert!(!server.process.log().contains(secret), "no secret in the log");
    let store = server.dir.path().join("store");
    let verify = || {
        let url = format!("file://{}", store.display());
        let output = Command::new(rhumb_binary().expect("a binary"))
            .args(["audit", "verify", "--store", &url])
            .output();
        output.expect("it runs")
    };
    let whole = verify();
    assert!(
        whole.status.success(),
        "{}",
        String::from_utf8_lossy(&whole.stderr)
    );
    assert!(String::from_utf8_lossy(&whole.stderr).contains("ended"));
    let segments = std::fs::read_dir(store.join("audit")).expect("a folder");
    let mut changed = false;
    for segment in segments {
        let path = segment.expect("an entry").path();
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        if text.contains("denied") {
            std::fs::write(&path, text.replace("denied", "done")).expect("written");
            changed = true;
        }
    }
    assert!(changed, "there was something to change");
    assert!(!verify().status.success());
}

#[tokio::test]
async fn no_secret_is_anywhere_in_the_bucket() {
    let mut server = Guarded::start("bucket").await;
    let (_, key) = server.key(&["reader"], json!({})).await;
    let password = "correct horse battery";
    server
        .admin("PUT", "/v1/users/ada", Some(&json!({"password": password})))
        .await;
    let login = json!({"user": "ada", "password": password});
    let tokens = server.ask(None, "POST", "/v1/login", Some(&login)).await.ok();
    server.stop().await;
    let secrets = [
        key[key.len() - 43..].to_owned(),
        password.to_owned(),
        tokens["token"].as_str().expect("a token").to_owned(),
        tokens["refresh_token"].as_str().expect("a token").to_owned(),
    ];
    let files = server.dir.files("store").expect("a folder");
    for path in &files {
        let text = String::from_utf8_lossy(&std::fs::read(path).expect("a file")).into_owned();
        for secret in &secrets {
            assert!(!text.contains(secret.as_str()), "{}", path.display());
        }
    }
    assert!(files.len() >= 3, "{} files", files.len());
}
