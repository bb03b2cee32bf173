//! Rows that are written before something happens, and all there afterwards.

use rhumb_e2e::Client;
use serde_json::json;

use super::database::READY;
use super::{Database, wait_for};

const ROWS: usize = 200;

pub async fn fill(client: &Client, collection: &str) {
    let rows: Vec<_> = (0..ROWS)
        .map(|n| json!({ "id": format!("r{n}"), "n": n }))
        .collect();
    client
        .write(collection, &json!({ "upsert": rows }))
        .await
        .expect("written");
}

pub async fn assert_full(database: &Database<'_>, collection: &str) {
    let client = database.client().await;
    let rows = wait_for("all rows are read", READY, async || {
        client.scan(collection, "limit=1000").await
    })
    .await;
    assert_eq!(rows.len(), ROWS);
}
