//! The process contract: flags, environment, exit statuses, signals, the folder's lock.
#![allow(
    clippy::disallowed_methods,
    reason = "a black box lives in real time, with real chance and real processes: nothing here is simulated"
)]

mod erase;

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use rhumb_e2e::process::{Process, free_port};
use rhumb_e2e::server::rhumb_binary;
use rhumb_e2e::suite::eventually;
use rhumb_e2e::{Client, S3Server, Server, Spec, Store, TempDir};
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(30);

fn spec(home: &TempDir) -> Spec {
    let store = Store::Folder(home.folder("store").expect("a folder"));
    Spec::new(store, home.path()).expect("a port")
}

fn rhumb(args: &[&str], in_folder: &Path) -> Command {
    let mut command = Command::new(rhumb_binary().expect("a binary"));
    command.args(args).current_dir(in_folder);
    command
}

fn output_of(args: &[&str], in_folder: &Path) -> Output {
    rhumb(args, in_folder).output().expect("it runs")
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Ends by itself, with a failure and a reason; how it failed.
async fn refuses(spec: Spec) -> (i32, String) {
    let mut server = Server::spawn(spec).expect("spawned");
    let end = server.process().end_within(PATIENCE).await;
    let end = end.unwrap_or_else(|error| panic!("it should have refused: {error}\n{}", server.log_tail()));
    let log = server.process().log();
    assert!(!log.contains("panicked at"), "{log}");
    assert!(!end.success(), "a refusal is no success\n{log}");
    (end.code().unwrap_or(-1), log)
}

#[tokio::test]
async fn a_second_server_on_a_folder_refuses_and_names_the_holder() {
    let home = TempDir::new("lock").expect("a folder");
    let mut first = Server::start(spec(&home)).await.expect("the first server starts");
    let second = Spec::new(first.spec().store.clone(), home.path()).expect("a port");
    let begin = Instant::now();
    let (code, log) = refuses(second.clone()).await;
    assert!(
        begin.elapsed() < Duration::from_secs(10),
        "a held lock is seen at once"
    );
    assert_ne!(code, 3, "3 is for the fenced");
    let pid = first.process().pid().to_string();
    assert!(log.contains(&pid), "the holder {pid} is not named:\n{log}");
    first
        .client()
        .create("c", &json!({"fields": {}}))
        .await
        .expect("the first is undisturbed");

    first.kill().expect("killed");
    let second = Server::start(second).await.expect("a dead holder holds nothing");
    let found = second
        .client()
        .get("/v1/collections/c")
        .send()
        .await
        .expect("an answer");
    assert_eq!(found.status, 200, "{found}");
}

#[tokio::test]
async fn it_listens_only_once_it_can_serve() {
    let home = TempDir::new("listens").expect("a folder");
    let mut server = Server::spawn(spec(&home)).expect("spawned");
    let address = server.client().address().to_owned();
    let listens = || async { tokio::net::TcpStream::connect(&address).await.is_ok() };
    assert!(eventually(PATIENCE, listens).await, "{}", server.log_tail());
    let ready = server.client().get("/readyz").send().await.expect("an answer");
    assert_eq!(ready.status, 200, "{ready}");
    server
        .client()
        .create("c", &json!({"fields": {}}))
        .await
        .expect("it serves");
    assert!(server.terminate().await.expect("it ends").success());
}

#[tokio::test]
async fn dev_mode_is_for_loopback_only() {
    let home = TempDir::new("loopback").expect("a folder");
    let store = format!("file://{}", home.path().join("store").display());
    for listen in ["0.0.0.0", "[::]"] {
        let listen = format!("{listen}:{}", free_port().expect("a port"));
        let log = home.path().join("log");
        let command = rhumb(
            &["serve", "--dev", "--store", &store, "--listen", &listen],
            home.path(),
        );
        let mut process = Process::spawn(command, &log).expect("spawned");
        let end = process.end_within(PATIENCE).await.expect("it refuses");
        assert!(!end.success(), "{}", process.log());
        assert!(!process.log().contains("panicked"), "{}", process.log());
    }
}

#[tokio::test]
async fn flags_may_come_from_the_environment_and_the_store_has_a_default() {
    let home = TempDir::new("environment").expect("a folder");
    let port = free_port().expect("a port");
    let mut command = rhumb(&["serve"], home.path());
    command
        .env("RHUMB_LISTEN", format!("127.0.0.1:{port}"))
        .env("RHUMB_DEV", "true");
    command
        .env("RHUMB_CACHE_DIR", home.path().join("my-cache"))
        .env("RHUMB_MEMORY_LIMIT", "512MiB");
    let process = Process::spawn(command, &home.path().join("log")).expect("spawned");
    let client = Client::new(&format!("http://127.0.0.1:{port}")).expect("a client");
    let ready = || async {
        client
            .get("/readyz")
            .send()
            .await
            .is_ok_and(|answer| answer.status == 200)
    };
    assert!(eventually(PATIENCE, ready).await, "{}", process.log());
    client
        .create("c", &json!({"fields": {}}))
        .await
        .expect("it serves");
    assert!(
        home.path().join("rhumb-data").is_dir(),
        "the default store is ./rhumb-data"
    );
    drop(process);
}

#[tokio::test]
async fn nonsense_on_the_command_line_is_refused_with_a_reason() {
    let home = TempDir::new("nonsense").expect("a folder");
    let listen = format!("127.0.0.1:{}", free_port().expect("a port"));
    let with = |more: &[&'static str]| -> Vec<String> {
        let mut args: Vec<String> = ["serve", "--dev", "--listen", &listen]
            .map(str::to_owned)
            .to_vec();
        args.extend(more.iter().map(|arg| (*arg).to_owned()));
        args
    };
    let cases: [&[&str]; 9] = [
        &["--store", "ftp://x/y"],
        &["--store", "s3://"],
        &["--store", "nonsense"],
        &["--store", "memory://", "--memory-limit", "lots"],
        &["--store", "memory://", "--memory-limit", "-1"],
        &["--store", "memory://", "--cache-size", "x"],
        &["--store", "memory://", "--config", "/does/not/exist.toml"],
        &["--store", "memory://", "--no-such-flag"],
        &["--store", "file:///proc/version/store"],
    ];
    for case in cases {
        let args = with(case);
        let log = home.path().join("log");
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut process = Process::spawn(rhumb(&args, home.path()), &log).expect("spawned");
        let end = process
            .end_within(PATIENCE)
            .await
            .unwrap_or_else(|error| panic!("{case:?}: {error}"));
        assert!(!end.success(), "{case:?}");
        let said = process.log();
        assert!(
            !said.trim().is_empty() && !said.contains("panicked"),
            "{case:?}: {said}"
        );
        std::fs::remove_file(&log).expect("a log");
    }
    for args in [&["--help"][..], &["serve", "--help"], &["--version"]] {
        assert!(output_of(args, home.path()).status.success(), "{args:?}");
    }
    assert!(!output_of(&["no-such-command"], home.path()).status.success());
}

#[tokio::test]
async fn a_port_in_use_is_a_reason_to_refuse() {
    let home = TempDir::new("port").expect("a folder");
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let mut spec = spec(&home);
    spec.port = taken.local_addr().expect("bound").port();
    let (_, log) = refuses(spec).await;
    assert!(
        log.contains(&taken.local_addr().expect("bound").port().to_string()),
        "the address is not named:\n{log}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_loses_nothing() {
    let home = TempDir::new("sigterm").expect("a folder");
    let mut server = Server::start(spec(&home)).await.expect("the server starts");
    server
        .client()
        .create("c", &json!({"fields": {"n": "int"}}))
        .await
        .expect("created");
    let writers: Vec<_> = (0..8_u64)
        .map(|writer| {
            let client = server.client().clone();
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                for n in 0.. {
                    let id = format!("{writer}-{n}");
                    let body = json!({"upsert": [{"id": id, "n": n}]});
                    match client.post("/v1/collections/c/documents", &body).send().await {
                        Ok(answer) if answer.status == 200 => acknowledged.push(id),
                        // A refusal or a closed connection: it is going away.
                        Ok(answer) if answer.status == 503 => break,
                        Ok(answer) => panic!("{answer}"),
                        Err(_) => break,
                    }
                }
                acknowledged
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let end = server.terminate().await.expect("it ends");
    assert_eq!(end.code(), Some(0), "{}", server.log_tail());
    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged.extend(writer.await.expect("a writer"));
    }
    assert!(
        acknowledged.len() > 20,
        "only {} writes: this run shows nothing",
        acknowledged.len()
    );
    server.restart().await.expect("it starts again");
    let stored = server.client().scan("c", "limit=10000").await.expect("a scan");
    let stored: std::collections::BTreeSet<&str> = stored.iter().filter_map(|d| d["id"].as_str()).collect();
    let lost: Vec<&String> = acknowledged
        .iter()
        .filter(|id| !stored.contains(id.as_str()))
        .collect();
    assert!(
        lost.is_empty(),
        "{} acknowledged, lost {lost:?}",
        acknowledged.len()
    );
}

#[tokio::test]
async fn memory_is_a_store_too() {
    let home = TempDir::new("memory").expect("a folder");
    let server = Server::start(Spec::new(Store::Memory, home.path()).expect("a port"))
        .await
        .expect("it starts");
    server
        .client()
        .create("c", &json!({"fields": {}}))
        .await
        .expect("created");
    server
        .client()
        .write("c", &json!({"upsert": [{"id": "a"}]}))
        .await
        .expect("written");
    server.client().optimize("c").await.expect("settled");
    let all = server.client().scan("c", "").await.expect("a scan");
    assert_eq!(all.len(), 1);
}

#[tokio::test]
async fn the_doctor_looks_at_a_store_and_tells() {
    let home = TempDir::new("doctor").expect("a folder");
    let good = format!("file://{}", home.folder("good").expect("a folder").display());
    let healthy = output_of(&["doctor", "--store", &good], home.path());
    assert!(healthy.status.success(), "{}", said(&healthy));
    assert!(!said(&healthy).trim().is_empty());
    let ill = output_of(&["doctor", "--store", "file:///proc/version/store"], home.path());
    assert!(!ill.status.success(), "{}", said(&ill));
    assert!(!said(&ill).contains("panicked"), "{}", said(&ill));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_databases_share_a_bucket_and_see_nothing_of_each_other() {
    let home = TempDir::new("prefixes").expect("a folder");
    let s3 = S3Server::start(home.path()).await.expect("an S3 server");
    let start = |prefix: &str| Server::start(Spec::new(s3.store(prefix), home.path()).expect("a port"));
    let (one, mut two) = (
        start("one").await.expect("starts"),
        start("one-more").await.expect("starts"),
    );
    for (server, n) in [(&one, 1), (&two, 2)] {
        server
            .client()
            .create("c", &json!({"fields": {"n": "int"}}))
            .await
            .expect("created");
        server
            .client()
            .write("c", &json!({"upsert": [{"id": "a", "n": n}]}))
            .await
            .expect("written");
    }
    two.kill().expect("killed");
    two.restart().await.expect("restarted");
    for (server, n) in [(&one, 1), (&two, 2)] {
        let document = server
            .client()
            .get("/v1/collections/c/documents/a")
            .send()
            .await
            .expect("an answer")
            .json();
        assert_eq!(document["document"], json!({"n": n}));
        let list = server
            .client()
            .get("/v1/collections")
            .send()
            .await
            .expect("an answer")
            .json();
        assert_eq!(list["collections"].as_array().map(Vec::len), Some(1), "{list}");
    }
}
