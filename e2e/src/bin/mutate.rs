//! Asks every route for odd things: requests that hold, bent at random in body, path, query
//! and headers.  Whatever comes, the answer is no 5xx, a refusal says what is wrong, nobody
//! panics and memory stays where it was.
//!
//! `mutate [minutes=60] [seed=1]`
//!
//! Starts a server of its own.  Prints each violation with the bytes that were sent.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a program for an hour: real time, real connections, and a report on standard output"
)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rhumb_e2e::client::Client;
use rhumb_e2e::raw::{self, Reaction};
use rhumb_e2e::server::{Server, Spec, Store};
use rhumb_e2e::temp::TempDir;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);
/// What bent upserts leave behind goes after so many requests.
const ANEW: u64 = 5_000;
const REPORT: u64 = 20_000;

#[derive(Clone, Debug)]
struct Asked {
    method: String,
    target: Vec<u8>,
    headers: Vec<String>,
    body: Vec<u8>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let option = |name: &str, default: f64| {
        let given = std::env::args().find_map(|arg| arg.strip_prefix(name)?.strip_prefix('=')?.parse().ok());
        given.unwrap_or(default)
    };
    let length = Duration::from_secs_f64(option("minutes", 60.0) * 60.0);
    let mut rng = StdRng::seed_from_u64(option("seed", 1.0) as u64);
    let home = TempDir::new("mutate")?;
    let mut spec = Spec::new(Store::Folder(home.folder("store")?), home.path())?;
    spec.memory_limit = Some("1GiB".to_owned());
    let mut server = Server::start(spec).await?;
    let client = server.client().clone();
    prepare(&client).await?;
    let routes = routes(&client).await?;
    let (begin, mut sent, mut violations) = (Instant::now(), 0_u64, 0_u64);
    let mut statuses: BTreeMap<u16, u64> = BTreeMap::new();
    let mut resident = Vec::new();
    while begin.elapsed() < length {
        let asked = bent(&mut rng, &routes);
        sent += 1;
        match violation(&client, &asked, &mut statuses).await? {
            Some(what) => {
                violations += 1;
                println!("VIOLATION {what}\n  {}", shown(&asked));
            }
            None if sent.is_multiple_of(ANEW) => prepare(&client).await?,
            None => {}
        }
        ensure!(
            server.process().ended()?.is_none(),
            "the server ended after {}",
            shown(&asked)
        );
        if sent.is_multiple_of(REPORT) {
            resident.push(server.process().status_bytes("VmRSS")? >> 20);
            println!(
                "{sent} requests, {statuses:?}, {} MB resident",
                resident[resident.len() - 1]
            );
        }
    }
    let panics = server.process().panics();
    println!("{sent} requests in {:?}: {statuses:?}", begin.elapsed());
    println!("resident MB by and by: {resident:?}");
    println!("{violations} violations, {} panics", panics.len());
    ensure!(violations == 0 && panics.is_empty(), "{panics:?}");
    Ok(())
}

/// The collections that requests are about, with some rows.
async fn prepare(client: &Client) -> Result<()> {
    for name in ["c", "d"] {
        let path = format!("/v1/collections/{name}");
        client.delete(&path).send().await?;
        let fields = json!({"fields": {
            "e": {"type": "vector", "dim": 4, "metric": "cosine"}, "t": "text", "n": "int", "s": "string",
            "b": "bool", "x": "float", "when": "timestamp", "sp": "sparse_vector",
        }});
        client.put(&path, &fields).send().await?.expect(201)?;
        let row = |id: usize| {
            json!({
                "id": id, "e": [id, 1, 2, 3], "t": format!("the {id} quick foxes"), "n": id, "s": format!("s{}", id % 7),
                "b": id.is_multiple_of(2), "x": 0.5, "when": "2026-01-01T00:00:00Z",
                "sp": {"indices": [id % 5, 7], "values": [0.5, 1.0]},
            })
        };
        let rows: Vec<Value> = (0..200).map(row).collect();
        let answer = client
            .post(&format!("{path}/documents"), &json!({"upsert": rows}))
            .send()
            .await?;
        answer.expect(200).context("the rows to ask about")?;
    }
    Ok(())
}

/// Every operation of the OpenAPI, with bodies that hold.
async fn routes(client: &Client) -> Result<Vec<(String, String, Vec<Value>)>> {
    let openapi = client.get("/openapi.json").send().await?.expect(200)?.json();
    let paths = openapi["paths"].as_object().context("paths of the OpenAPI")?;
    let mut routes = Vec::new();
    for (path, operations) in paths {
        for method in operations
            .as_object()
            .into_iter()
            .flatten()
            .map(|(method, _)| method)
        {
            let plain = path
                .replace("{collection}", "c")
                .replace("{id}", "7")
                .replace("{name}", "ada");
            routes.push((method.to_uppercase(), plain, bodies(method, path)));
        }
    }
    ensure!(routes.len() > 20, "the OpenAPI has {} operations", routes.len());
    Ok(routes)
}

fn bodies(method: &str, path: &str) -> Vec<Value> {
    let vector = json!([0.1, -0.2, 0.3, 0.4]);
    match (method, path) {
        ("post", "/v1/collections/{collection}/query") => vec![
            json!({"vector": vector, "k": 5, "filter": {"n": {"$lt": 50}}, "include": ["s"], "explain": true}),
            json!({"vector": vector, "k": 3, "recall": 0.9, "filter": "n < 20 AND s = 's1'"}),
            json!({"text": {"query": "quick fox", "fields": {"t": 2.0}}, "k": 4, "highlight": true}),
            json!({"legs": [{"vector": vector, "field": "e"}, {"text": {"query": "foxes"}, "field": "t"}], "k": 5}),
            json!({"sparse": {"indices": [1, 7], "values": [1.0, 0.5]}, "field": "sp", "k": 2}),
            json!({"queries": [{"vector": vector, "k": 1}, {"vector": vector, "k": 2}]}),
            json!({"vector": vector, "k": 5, "group_by": {"field": "s", "limit": 2}}),
        ],
        ("post", "/v1/collections/{collection}/recall") => vec![json!({"queries": 5, "k": 5})],
        ("post", "/v1/collections/{collection}/aggregate") => {
            vec![json!({"filter": {"n": {"$gte": 3}}, "group_by": ["s"], "aggregates": {"m": {"avg": "n"}}})]
        }
        ("post", "/v1/collections/{collection}/documents/get") => vec![json!({"ids": [1, 2, "x"]})],
        ("post", "/v1/collections/{collection}/documents") => vec![
            json!({"upsert": [{"id": 3, "e": vector, "n": 1, "t": "a b c"}], "delete": [4]}),
            json!({"patch": [{"id": 5, "n": 2}], "if": {"n": {"$lt": 100}}}),
            json!({"upsert_columns": {"id": [1, 2], "n": [1, 2], "e": "b64:AACAPwAAAAAAAAAAAAAAAAAAgD8AAAAAAAAAAAAAAAA="}}),
            json!({"delete_by_filter": {"n": 199}}),
        ],
        ("put" | "patch", "/v1/collections/{collection}") => vec![json!({"fields": {"extra": "int"}})],
        ("put", "/v1/collections/{collection}/documents/{id}") => vec![json!({"n": 3, "e": vector})],
        ("patch", "/v1/collections/{collection}/documents/{id}") => vec![json!({"n": 4})],
        ("post", "/v1/collections/{collection}/optimize") => vec![json!({"wait": false})],
        ("post" | "put" | "patch", _) => vec![
            json!({"name": "ada", "password": "correct horse battery", "roles": ["reader"]}),
            json!({"grants": [{"collections": "c*", "operations": ["read"], "filter": {"s": "s1"}}]}),
            json!({}),
        ],
        _ => vec![Value::Null],
    }
}

fn bent(rng: &mut StdRng, routes: &[(String, String, Vec<Value>)]) -> Asked {
    let Some((method, path, bodies)) = routes.choose(rng) else {
        unreachable!("there are routes")
    };
    let mut body = bodies.choose(rng).cloned().unwrap_or_default();
    let mut asked = Asked {
        method: method.clone(),
        target: path.clone().into_bytes(),
        headers: vec!["content-type: application/json".to_owned()],
        body: Vec::new(),
    };
    // What takes a collection away takes the one that nobody else asks about.
    if method == "DELETE" && path == "/v1/collections/c" {
        asked.target = b"/v1/collections/d".to_vec();
    }
    for _ in 0..rng.random_range(0..4) {
        bend_value(rng, &mut body);
    }
    if !body.is_null() {
        asked.body = body.to_string().into_bytes();
    }
    match rng.random_range(0..8) {
        0 => bend_bytes(rng, &mut asked.body),
        1 => bend_target(rng, &mut asked.target),
        2 => bend_headers(rng, &mut asked.headers),
        3 => {
            asked.method = (*[
                "GET", "PUT", "POST", "DELETE", "PATCH", "HEAD", "OPTIONS", "PROPFIND",
            ]
            .choose(rng)
            .unwrap_or(&"GET"))
            .to_owned()
        }
        _ => {}
    }
    asked
}

fn odd(rng: &mut StdRng) -> Value {
    match rng.random_range(0..22) {
        0 => Value::Null,
        1 => json!(-1),
        2 => json!(0),
        3 => json!(u64::MAX),
        4 => json!(i64::MIN),
        5 => json!(1e308),
        6 => json!(-0.0),
        7 => json!(5e-324),
        8 => json!(""),
        9 => json!("\u{0}\u{202e}\u{1F600}'\"\\%00../"),
        10 => json!("x".repeat(rng.random_range(1..70_000))),
        11 => json!([]),
        12 => json!({}),
        13 => json!(true),
        14 => (0..rng.random_range(1..200)).fold(json!(1), |inner, _| json!([inner])),
        15 => (0..rng.random_range(1..80)).fold(json!({"n": 1}), |inner, _| json!({"$not": inner})),
        16 => json!((0..rng.random_range(1..2_000)).collect::<Vec<i32>>()),
        17 => json!("b64:AAAA"),
        18 => json!({"$in": (0..rng.random_range(1..500)).collect::<Vec<i32>>()}),
        19 => json!({"$gt": [], "$lt": {"a": 1}}),
        20 => json!("b64:AADAfwAAwH8AAMB/AADAfw=="),
        _ => json!("n > 1 OR (((((s LIKE '%a%')))) AND NOT b"),
    }
}

/// One place of the value becomes something else, goes, or comes twice under a new name.
fn bend_value(rng: &mut StdRng, value: &mut Value) {
    let deeper = rng.random_bool(0.75);
    match value {
        Value::Object(members) if deeper && !members.is_empty() => {
            let names: Vec<String> = members.keys().cloned().collect();
            let Some(name) = names.choose(rng) else { return };
            match rng.random_range(0..6) {
                0 => drop(members.remove(name)),
                1 => {
                    let copy = members[name].clone();
                    members.insert(
                        format!(
                            "{name}{}",
                            ["_", ".x", "$", "\u{0}", " "].choose(rng).unwrap_or(&"")
                        ),
                        copy,
                    );
                }
                2 => {
                    let with = [
                        "k",
                        "filter",
                        "vector",
                        "$and",
                        "id",
                        "timeout_ms",
                        "recall",
                        "effort",
                        "include",
                        "cursor",
                    ];
                    members.insert((*with.choose(rng).unwrap_or(&"k")).to_owned(), odd(rng));
                }
                _ => bend_value(rng, &mut members[name.as_str()]),
            }
        }
        Value::Array(items) if deeper && !items.is_empty() => {
            let at = rng.random_range(0..items.len());
            match rng.random_range(0..4) {
                0 => drop(items.remove(at)),
                1 => items.insert(at, odd(rng)),
                _ => bend_value(rng, &mut items[at]),
            }
        }
        value => *value = odd(rng),
    }
}

fn bend_bytes(rng: &mut StdRng, bytes: &mut Vec<u8>) {
    for _ in 0..rng.random_range(1..6) {
        if bytes.is_empty() {
            return bytes.extend((0..rng.random_range(0..64)).map(|_| rng.random::<u8>()));
        }
        let at = rng.random_range(0..bytes.len());
        match rng.random_range(0..5) {
            0 => bytes[at] ^= 1 << rng.random_range(0..8),
            1 => bytes.truncate(at),
            2 => bytes.insert(at, rng.random()),
            3 => drop(bytes.remove(at)),
            _ => {
                let copy = bytes[at..(at + 40).min(bytes.len())].to_vec();
                bytes.splice(at..at, copy);
            }
        }
    }
}

fn bend_target(rng: &mut StdRng, target: &mut Vec<u8>) {
    let tails = [
        "?limit=0",
        "?limit=99999999999999999999",
        "?cursor=AAAA",
        "?consistency=verified",
        "?consistency=",
        "?filter=%7B%7D",
        "?include=",
        "?%00=%ff",
        "?a=b&a=c",
        "/",
        "//",
        "/..",
        "/%2e%2e",
        "/%00",
        "#x",
        "?timeout_ms=-1",
        "?order=n&order=",
    ];
    match rng.random_range(0..3) {
        0 => target.extend_from_slice(tails.choose(rng).unwrap_or(&"").as_bytes()),
        1 => {
            let long = "y".repeat(rng.random_range(1..4_000));
            target.extend_from_slice(format!("/{long}").as_bytes());
        }
        _ => {
            // Bytes that a request line cannot hold are no request at all.
            let at = rng.random_range(1..target.len());
            target[at] = *b"%./?&=+~:@!$'()*,;".choose(rng).unwrap_or(&b'%');
        }
    }
}

fn bend_headers(rng: &mut StdRng, headers: &mut Vec<String>) {
    let odd = [
        "content-type: text/plain",
        "content-type: application/json; charset=latin1",
        "content-type: multipart/form-data",
        "content-encoding: gzip",
        "content-encoding: zstd",
        "content-encoding: br",
        "if-match: \"0:1.1\"",
        "if-match: *",
        "if-none-match: *",
        "idempotency-key: ",
        "idempotency-key: k1",
        "rhumb-session: AAAA",
        "rhumb-session: 0:9.999999",
        "authorization: Bearer eyJhbGciOiJub25lIn0.e30.",
        "authorization: Basic Og==",
        "authorization: rhk_x_y",
        "accept: text/html",
        "accept-encoding: gzip, br",
        "x-request-id: \u{7f}",
        "expect: 100-continue",
        "te: trailers",
        "origin: http://evil.example",
        "range: bytes=0-0",
        "x-forwarded-for: 1.1.1.1",
        "rhumb-caller: e30",
    ];
    let many = rng.random_range(1..4);
    headers.extend(odd.choose_multiple(rng, many).map(|header| (*header).to_owned()));
}

/// What is wrong with the answer, if anything.
async fn violation(
    client: &Client,
    asked: &Asked,
    statuses: &mut BTreeMap<u16, u64>,
) -> Result<Option<String>> {
    let headers: Vec<&str> = asked.headers.iter().map(String::as_str).collect();
    let wire = raw::request(&asked.method, &asked.target, &headers, &asked.body);
    let reaction = raw::send(client.address(), &wire, false, PATIENCE).await?;
    let message = match reaction {
        Reaction::Answered(message) => message,
        // Garbage in the head may end a connection; of a head that holds nothing is left unsaid.
        Reaction::Closed => return Ok(None),
        Reaction::Silent => return Ok(Some("no answer".to_owned())),
    };
    let status = message.status().unwrap_or_default();
    *statuses.entry(status).or_default() += 1;
    // A time that somebody set may run out.
    let timed = asked.body.windows(7).any(|bytes| bytes == b"timeout")
        || asked.target.windows(7).any(|bytes| bytes == b"timeout");
    if status == 0 || status >= 500 && !(status == 504 && timed) {
        return Ok(Some(format!(
            "{} {}",
            message.first_line(),
            String::from_utf8_lossy(&message.body)
        )));
    }
    let is_told = message
        .header("content-type")
        .is_some_and(|ty| ty.starts_with("application/problem+json"));
    let is_ours = message.header("x-request-id").is_some();
    if status >= 400 && is_ours && asked.method != "HEAD" {
        let problem: Value = serde_json::from_slice(&message.body).unwrap_or_default();
        let says = ["code", "detail", "title"]
            .iter()
            .all(|member| problem[member].is_string());
        if !(is_told && says) {
            return Ok(Some(format!(
                "{status} without a problem: {}",
                String::from_utf8_lossy(&message.body)
            )));
        }
    }
    Ok(None)
}

fn shown(asked: &Asked) -> String {
    let body = String::from_utf8_lossy(&asked.body);
    let body: String = body.chars().take(600).collect();
    format!(
        "{} {} {:?} {body}",
        asked.method,
        String::from_utf8_lossy(&asked.target),
        asked.headers
    )
}
