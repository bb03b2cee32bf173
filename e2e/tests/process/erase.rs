//! What was erased is in no file of the store: not in the log, not in old versions of the
//! table, not in what was made from it.

use std::path::PathBuf;

use rhumb_e2e::{Client, Server, TempDir};
use serde_json::{Value, json};

use crate::spec;

/// In the text, the ids and an attribute of what is going to be erased.
const SECRET: &str = "xylophonequartz";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_an_erased_document_is_in_any_file() {
    for partitions in [1, 3] {
        let home = TempDir::new("erase").expect("a folder");
        let mut server = Server::start(spec(&home)).await.expect("started");
        let client = server.client().clone();
        plant(&client, partitions).await;
        assert!(!holders(&home).is_empty(), "nothing was planted");
        let before = scan(&client).await;

        let erased = json!({"filter": {"who": format!("{SECRET} who")}, "ids": [format!("{SECRET}-gone")]});
        let certificate = erase(&client, &erased).await;
        assert_eq!(certificate["deleted"], 40, "{certificate}");
        assert_eq!(
            certificate["ids"].as_array().map(Vec::len),
            Some(41),
            "{certificate}"
        );
        assert_eq!(certificate["complete"], true, "{certificate}");
        let parts = certificate["partitions"].as_array().expect("partitions");
        assert_eq!(parts.len(), partitions);
        let read: u64 = parts.iter().filter_map(|p| p["rows_read"].as_u64()).sum();
        assert_eq!(read, 400, "every row that is left was read: {certificate}");
        nowhere(&home);

        let without: Vec<Value> = before
            .iter()
            .filter(|d| !d["id"].as_str().is_some_and(|id| id.starts_with(SECRET)))
            .cloned()
            .collect();
        assert_eq!(scan(&client).await, without);
        server.kill().expect("killed");
        server.restart().await.expect("back");
        let client = server.client().clone();
        assert_eq!(scan(&client).await, without);
        nowhere(&home);

        // Once more is nothing new, and the collection takes writes as before.
        let again = erase(&client, &erased).await;
        assert_eq!(
            (again["deleted"].as_u64(), &again["complete"]),
            (Some(0), &json!(true))
        );
        write(&client, json!({"upsert": [document("after", 1, "plain")]})).await;
        server.kill().expect("killed");
        server.restart().await.expect("back");
        assert_eq!(scan(server.client()).await.len(), 401);
    }
}

/// Erasing what somebody writes again is no lie: it is found.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erasure_among_writers_loses_nothing_of_others() {
    let home = TempDir::new("erase-busy").expect("a folder");
    let mut server = Server::start(spec(&home)).await.expect("started");
    let client = server.client().clone();
    plant(&client, 2).await;
    let writer = {
        let client = client.clone();
        tokio::spawn(async move {
            for n in 0..300 {
                let id = format!("busy-{n:04}");
                write(&client, json!({"upsert": [document(&id, n, "plain")]})).await;
            }
        })
    };
    for _ in 0..3 {
        let erased = erase(&client, &json!({"filter": {"who": format!("{SECRET} who")}})).await;
        assert_eq!(erased["complete"], true, "{erased}");
    }
    writer.await.expect("every write was acknowledged");
    let last = json!({"ids": [format!("{SECRET}-gone")]});
    assert_eq!(erase(&client, &last).await["complete"], true);
    nowhere(&home);
    server.kill().expect("killed");
    server.restart().await.expect("back");
    let all = scan(server.client()).await;
    let busy = all
        .iter()
        .filter(|d| d["id"].as_str().is_some_and(|id| id.starts_with("busy-")));
    assert_eq!(busy.count(), 300);
}

/// Rows in the log, in the table, overwritten, patched and deleted.
async fn plant(client: &Client, partitions: usize) {
    let fields = json!({"text": "text", "who": "string", "v": {"type": "vector", "dim": 3}});
    client
        .create("c", &json!({"fields": fields, "partitions": partitions}))
        .await
        .expect("created");
    let others: Vec<Value> = (0..400)
        .map(|n| document(&format!("other-{n:04}"), n, "plain"))
        .collect();
    write(client, json!({"upsert": others})).await;
    let secret = |n: u64| document(&format!("{SECRET}-{n:02}"), n, SECRET);
    write(client, json!({"upsert": (0..30).map(secret).collect::<Vec<_>>()})).await;
    write(
        client,
        json!({"upsert": [document(&format!("{SECRET}-gone"), 1, SECRET)]}),
    )
    .await;
    // Once it told of them, and no more.
    write(client, json!({"upsert": [document("other-0001", 1, SECRET)]})).await;
    client.optimize("c").await.expect("optimized");
    write(client, json!({"upsert": [document("other-0001", 1, "plain")]})).await;
    write(client, json!({"delete": [format!("{SECRET}-gone")]})).await;
    let patched = json!({"id": format!("{SECRET}-03"), "text": format!("{SECRET} again")});
    write(client, json!({"patch": [patched]})).await;
    write(
        client,
        json!({"upsert": (30..40).map(secret).collect::<Vec<_>>()}),
    )
    .await;
}

fn document(id: &str, n: u64, word: &str) -> Value {
    json!({"id": id, "v": [n, 1, 2], "who": format!("{word} who"), "text": format!("{word} words number{n}")})
}

async fn write(client: &Client, body: Value) {
    client.write("c", &body).await.expect("acknowledged");
}

async fn erase(client: &Client, body: &Value) -> Value {
    let answer = client
        .post("/v1/collections/c/erase", body)
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.status, 200, "{answer}");
    let named = answer
        .header("rhumb-certificate")
        .expect("it is named")
        .to_owned();
    let certificate = answer.json();
    let id = certificate["id"].as_str().expect("an id");
    assert!(named.starts_with(&format!("{id} sha256:")), "{named}");
    certificate
}

/// Documents and their versions.
async fn scan(client: &Client) -> Vec<Value> {
    client.scan("c", "limit=1000").await.expect("all of them")
}

fn nowhere(home: &TempDir) {
    let found = holders(home);
    assert!(found.is_empty(), "{SECRET} is still in {found:?}");
}

/// Files that have the secret anywhere in them.
fn holders(home: &TempDir) -> Vec<PathBuf> {
    let mut files = home.files("store").expect("a folder");
    files.retain(|path| {
        let bytes = std::fs::read(path).expect("read");
        bytes.windows(SECRET.len()).any(|part| part == SECRET.as_bytes())
    });
    files
}
