//! The bucket is away for a while.  The server says so, stays, and goes on by itself.

use std::time::{Duration, Instant};

use rhumb_e2e::suite::eventually;
use rhumb_e2e::{FaultProxy, Faults, Outage, S3Server, Server, Spec, TempDir, s3};
use serde_json::json;

const AWAY: Duration = Duration::from_secs(4);
const RECOVERY: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_is_answered_with_503_and_passes_by_itself() {
    let home = TempDir::new("outage").expect("a folder");
    let s3_server = S3Server::start(home.path()).await.expect("an S3 server");
    let proxy = FaultProxy::start(&s3_server.address(), 1).await.expect("a proxy");
    let spec = Spec::new(s3::store_at(&proxy.endpoint(), "outage"), home.path()).expect("a port");
    let mut server = Server::start(spec).await.expect("the server starts");
    let client = server.client().clone();
    client
        .create("c", &json!({"fields": {"n": "int"}}))
        .await
        .expect("created");
    client
        .write("c", &json!({"upsert": [{"id": "before", "n": 1}]}))
        .await
        .expect("written");
    for kind in [Outage::Refuse, Outage::Hang] {
        proxy.set(Faults {
            outage: Some(kind),
            ..Faults::default()
        });
        let begin = Instant::now();
        let mut answers = 0;
        while begin.elapsed() < AWAY {
            let body = json!({"upsert": [{"id": "during", "n": answers}]});
            let answer = client
                .post("/v1/collections/c/documents", &body)
                .timeout(RECOVERY)
                .send()
                .await;
            let answer = answer.expect("an answer, within half a minute");
            assert_eq!(answer.status, 503, "{answer}");
            assert!(answer.header("retry-after").is_some(), "{answer}");
            answers += 1;
        }
        let healthy = client.get("/healthz").send().await.expect("an answer");
        assert_eq!(healthy.status, 200, "alive, though the bucket is not: {healthy}");
        assert!(
            server.process().ended().expect("a child").is_none(),
            "the server stays\n{}",
            server.log_tail()
        );
        proxy.calm();
        let back = Instant::now();
        let body = json!({"upsert": [{"id": "after", "n": 1}]});
        let recovered = eventually(RECOVERY, || async { client.write("c", &body).await.is_ok() }).await;
        assert!(
            recovered,
            "no write succeeds {RECOVERY:?} after the outage ({kind:?})\n{}",
            server.log_tail()
        );
        eprintln!(
            "outage ({kind:?}): {answers} refusals, back after {:.2?}",
            back.elapsed()
        );
        let kept = client
            .get("/v1/collections/c/documents/before")
            .send()
            .await
            .expect("an answer");
        assert_eq!(kept.status, 200, "{kept}");
    }
    assert!(server.process().panics().is_empty(), "{}", server.log_tail());
}
