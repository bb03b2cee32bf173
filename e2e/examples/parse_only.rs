//! The least that a server of queries can do: an axum handler that parses the body and
//! answers ten hits.  What Rhumb costs beyond its search is measured beside it:
//!
//!     taskset -c 0 parse_only 127.0.0.1:17481
//!     taskset -c 1 replay 127.0.0.1:17481 /query queries.jsonl connections=4 seconds=5 rate=0
//!
//! and the same against a collection with hardly a row.

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use serde_json::{Value, json};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:17481".into());
    let listener = tokio::net::TcpListener::bind(&address).await?;
    axum::serve(listener, Router::new().route("/query", post(query))).await?;
    Ok(())
}

async fn query(body: Bytes) -> String {
    let Ok(Value::Object(query)) = serde_json::from_slice(&body) else {
        return json!({"error": "no object"}).to_string();
    };
    let numbers = query.get("vector").and_then(Value::as_array);
    let vector: Vec<f32> = numbers
        .into_iter()
        .flatten()
        .filter_map(Value::as_f64)
        .map(|x| x as f32)
        .collect();
    let score = vector.iter().sum::<f32>();
    let hits: Vec<Value> = (0..10).map(|id| json!({"id": id, "score": score})).collect();
    json!({"hits": hits}).to_string()
}
