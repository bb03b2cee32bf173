//! Valid requests, broken in every way a client could break them.  Whatever is sent: an
//! answer below 500, a well-formed problem when refused, and the server lives on.

use futures::stream::{self, StreamExt};
use rhumb_e2e::client::{NoAnswer, shown};
use rhumb_e2e::rules::rule_broken_by;
use rhumb_e2e::{Answer, Client, Suite};
use serde_json::{Value, json};

use crate::{collection, documents, query};

/// Requests under way at once.
const WIDTH: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_mutation_of_a_valid_request_yields_a_5xx() {
    let t = Suite::start("mutation").await;
    let fields = json!({"v": {"type": "vector", "dim": 2}, "s": "string", "n": "int", "f": "float", "b": "bool", "at": "timestamp",
        "tags": ["string"], "j": "json"});
    t.create("m", json!({"fields": fields, "partitions": 2})).await;
    t.write(
        "m",
        json!({"upsert": [{"id": "a", "v": [1, 0], "s": "x", "n": 1, "tags": ["t"], "j": {"k": 1}}]}),
    )
    .await;
    let mut mutants = Vec::new();
    for (method, path, body) in valid_requests() {
        let text = body.to_string();
        mutants.extend(
            wrong_values(&body)
                .into_iter()
                .map(|mutant| (method, path.clone(), mutant.into_bytes())),
        );
        mutants.extend(
            wrong_bytes(&text)
                .into_iter()
                .map(|mutant| (method, path.clone(), mutant)),
        );
    }
    let count = mutants.len();
    let client = t.client();
    let failures: Vec<String> = stream::iter(mutants)
        .map(|(method, path, body)| async move { flaw(client, method, &path, body).await })
        .buffer_unordered(WIDTH)
        .filter_map(|flaw| async { flaw })
        .collect()
        .await;
    t.note(count, failures);
    t.finish().await;
}

fn valid_requests() -> Vec<(&'static str, String, Value)> {
    let write = json!({
        "upsert": [{"id": "a", "v": [0.5, 1], "s": "x", "n": 3, "f": 0.5, "b": true, "at": "2024-01-01T00:00:00Z", "tags": ["t"], "j": {"k": [1]}}],
        "patch": [{"id": "b", "n": 1}], "delete": ["c"], "delete_by_filter": {"n": {"$gt": 1000}}, "if": {"filter": {"s": "x"}},
    });
    let columns = json!({"upsert_columns": {"id": ["a", "b"], "v": [[1, 2], [3, 4]], "n": [1, 2]}});
    let ask = json!({
        "vector": {"field": "v", "value": [1, 0]}, "k": 3, "include": ["s"], "recall": 0.9, "consistency": "strong", "timeout_ms": 1000,
        "explain": true, "filter": {"$and": [{"s": {"$in": ["x"]}}, {"$not": {"n": {"$lt": 0}}}, {"j.k": {"$exists": true}}]},
    });
    let batch = json!({"queries": [{"vector": [1, 0], "k": 1, "exact": true}, {"vector": "b64:AACAPwAAAAA=", "filter": "s = 'x'"}]});
    vec![
        (
            "PUT",
            collection("new"),
            json!({"fields": {"v": {"type": "vector", "dim": 3, "metric": "l2", "element": "f32", "index": "flat"}, "l": ["int"]}, "partitions": 1}),
        ),
        ("PATCH", collection("m"), json!({"fields": {"extra": "int"}})),
        ("POST", documents("m"), write),
        ("POST", documents("m"), columns),
        (
            "PUT",
            format!("{}/p", documents("m")),
            json!({"id": "p", "s": "x", "v": [1, 2], "tags": ["a"]}),
        ),
        (
            "PATCH",
            format!("{}/p", documents("m")),
            json!({"s": null, "n": 5}),
        ),
        (
            "POST",
            format!("{}/get", documents("m")),
            json!({"ids": ["a", "b"], "include": ["s"], "consistency": "strong"}),
        ),
        ("POST", query("m"), ask),
        ("POST", query("m"), batch),
        (
            "POST",
            format!("{}/recall", collection("m")),
            json!({"queries": 3, "k": 2, "filter": {"n": 1}}),
        ),
        (
            "POST",
            format!("{}/aggregate", collection("m")),
            json!({"filter": {"n": 1}, "by": ["s"], "metrics": {"n": {"count": true}, "p": {"avg": "f"}}}),
        ),
        (
            "POST",
            format!("{}/optimize", collection("m")),
            json!({"wait": false}),
        ),
    ]
}

/// Every value of the body replaced by every odd one, removed, and given a sibling.
fn wrong_values(body: &Value) -> Vec<String> {
    let mut mutants = Vec::new();
    let mut pointers = vec![String::new()];
    collect_pointers(body, "", &mut pointers);
    for pointer in &pointers {
        for odd in odd_values() {
            let mut mutant = body.clone();
            if let Some(place) = mutant.pointer_mut(pointer) {
                *place = json!("\u{1}ODD\u{1}");
            }
            // Some odd values are no `Value`: they are put in as text.
            mutants.push(mutant.to_string().replace("\"\\u0001ODD\\u0001\"", &odd));
        }
        let Some((parent, key)) = pointer.rsplit_once('/') else {
            continue;
        };
        let mut mutant = body.clone();
        match mutant.pointer_mut(parent) {
            Some(Value::Object(members)) => {
                members.remove(key);
                mutants.push(mutant.to_string());
            }
            Some(Value::Array(items)) => {
                let again = items[0].clone();
                items.push(again);
                mutants.push(mutant.to_string());
            }
            _ => {}
        }
    }
    mutants
}

fn collect_pointers(value: &Value, at: &str, into: &mut Vec<String>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(members) => members
            .iter()
            .map(|(key, member)| (key.clone(), member))
            .collect(),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .map(|(n, item)| (n.to_string(), item))
            .collect(),
        _ => return,
    };
    for (key, child) in children {
        let pointer = format!("{at}/{key}");
        into.push(pointer.clone());
        collect_pointers(child, &pointer, into);
    }
}

fn odd_values() -> Vec<String> {
    let long = format!("\"{}\"", "x".repeat(100_000));
    let deep = format!("{}1{}", "[".repeat(500), "]".repeat(500));
    let deep_object = format!("{}1{}", "{\"a\":".repeat(500), "}".repeat(500));
    let fixed = [
        "null",
        "true",
        "false",
        "0",
        "-0",
        "-1",
        "1",
        "1.5",
        "1e308",
        "-1e-320",
        "1e400",
        "-1e400",
        "9223372036854775808",
        "18446744073709551616",
        "99999999999999999999999999999999",
        "0.1e1",
        "\"\"",
        "\"x\"",
        "\"id\"",
        "\"\\u0000\"",
        "\"\\ud800\"",
        "\"\\udc00\\ud800\"",
        "\"b64:\"",
        "\"b64:AA==\"",
        "\"b64:////\"",
        "\"lex = \"",
        "[]",
        "[[]]",
        "[null]",
        "[1,2]",
        "[1e39,0]",
        "[\"a\",1]",
        "{}",
        "{\"a\":1}",
        "{\"\":1}",
        "{\"$gt\":1}",
        "{\"$or\":[]}",
        "{\"$regex\":\"(\"}",
        "{\"id\":\"x\",\"id\":\"y\"}",
        "NaN",
        "Infinity",
        "undefined",
        "'x'",
        "01",
        "+1",
        ".5",
        "1.",
        "0x1",
        "\"\t\"",
        "",
    ];
    fixed
        .into_iter()
        .map(str::to_owned)
        .chain([long, deep, deep_object])
        .collect()
}

/// The text cut, with bytes changed, doubled and surrounded.
fn wrong_bytes(text: &str) -> Vec<Vec<u8>> {
    let bytes = text.as_bytes();
    let mut mutants: Vec<Vec<u8>> = (0..bytes.len())
        .step_by(7)
        .map(|end| bytes[..end].to_vec())
        .collect();
    for at in (0..bytes.len()).step_by(5) {
        for odd in [0, b'"', b'\\', b'{', b'}', b'[', b',', b':', 0x80, 0xff] {
            let mut mutant = bytes.to_vec();
            mutant[at] = odd;
            mutants.push(mutant);
        }
    }
    let first_key = text.split('"').nth(1).unwrap_or_default();
    mutants.push(
        text.replacen('{', &format!("{{\"{first_key}\": null, "), 1)
            .into_bytes(),
    );
    mutants.push(format!("{text}{text}").into_bytes());
    mutants.push(format!("\u{feff}{text}").into_bytes());
    mutants.push(format!("[{text}]").into_bytes());
    mutants.push(bytes.iter().flat_map(|b| [*b, 0]).collect());
    mutants.push([bytes, &[0; 1000]].concat());
    mutants.push([&[b' '; 100_000], bytes].concat());
    mutants
}

async fn flaw(client: &Client, method: &str, path: &str, body: Vec<u8>) -> Option<String> {
    let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
    let label = format!("{method} {path} {}", shown(&body));
    let answer: Result<Answer, NoAnswer> = client
        .request(method, path)
        .body(body, "application/json")
        .send()
        .await;
    match answer {
        // A query that was given a timeout may meet it.
        Ok(answer) if answer.status == 504 && label.contains("timeout_ms") => None,
        Ok(answer) => rule_broken_by(&answer, false).map(|rule| format!("{rule}\n  {answer}")),
        Err(error) => Some(format!("{error}\n  {label}")),
    }
}
