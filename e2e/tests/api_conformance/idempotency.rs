//! `Idempotency-Key`: the same request once, however often it is sent.

use futures::future::join_all;
use rhumb_e2e::Suite;
use serde_json::{Value, json};

use crate::{document, documents};

#[tokio::test]
async fn a_key_makes_a_write_happen_once() {
    let t = Suite::start("idempotency").await;
    t.create("k", json!({"fields": {"n": "int", "tag": "string"}}))
        .await;
    t.create("other", json!({"fields": {"n": "int"}})).await;
    t.create("parts", json!({"fields": {"n": "int"}, "partitions": 4}))
        .await;
    a_repeat_gets_the_first_answer(&t).await;
    another_body_is_a_mistake(&t).await;
    refusals_are_not_remembered(&t).await;
    keys_have_a_length(&t).await;
    racing_repeats_agree(&t).await;
    single_documents_take_keys_too(&t).await;
    several_partitions_remember_as_one(&t).await;
    keys_survive_settling_and_restart(&t).await;
    t.finish().await;
}

async fn keyed(t: &Suite, collection: &str, key: &str, body: Value) -> Value {
    t.case(format!("key {key}"))
        .post(&documents(collection), body)
        .header("idempotency-key", key)
        .await
        .status(200)
        .json()
}

async fn a_repeat_gets_the_first_answer(t: &Suite) {
    let body =
        || json!({"upsert": [{"id": "a", "n": 1}], "delete": ["nope"], "patch": [{"id": "absent", "n": 1}]});
    let first = keyed(t, "k", "one", body()).await;
    t.write(
        "k",
        json!({"upsert": [{"id": "a", "n": 2}, {"id": "absent", "n": 5}]}),
    )
    .await;
    let again = keyed(t, "k", "one", body()).await;
    t.check("position included", first == again, || {
        format!("{first} against {again}")
    });
    t.case("nothing happened again")
        .get(&document("k", "a"))
        .await
        .at("/document/n", 2);
    t.case("nor did the skipped part")
        .get(&document("k", "absent"))
        .await
        .at("/document/n", 5);

    let deletes = || json!({"delete": ["a"]});
    let first = keyed(t, "k", "two", deletes()).await;
    t.check("one is deleted", first["deleted"] == 1, || first.to_string());
    t.write("k", json!({"upsert": [{"id": "a", "n": 3}]})).await;
    let again = keyed(t, "k", "two", deletes()).await;
    t.check("the first count", again == first, || again.to_string());
    t.case("but not again")
        .get(&document("k", "a"))
        .await
        .at("/document/n", 3);

    let nothing = || json!({"delete": ["never"]});
    let first = keyed(t, "k", "three", nothing()).await;
    t.write("k", json!({"upsert": [{"id": "never", "n": 1}]})).await;
    let again = keyed(t, "k", "three", nothing()).await;
    t.check(
        "a write that changed nothing is remembered",
        again == first,
        || again.to_string(),
    );
    t.case("and changes nothing later")
        .get(&document("k", "never"))
        .await
        .status(200);

    let absent = || json!({"upsert": [{"id": "cond", "n": 1}], "if": {"absent": true}});
    keyed(t, "k", "four", absent()).await;
    let again = keyed(t, "k", "four", absent()).await;
    t.check("a condition is not judged again", again["upserted"] == 1, || {
        again.to_string()
    });
}

async fn another_body_is_a_mistake(t: &Suite) {
    keyed(t, "k", "mismatch", json!({"upsert": [{"id": "m", "n": 1}]})).await;
    for body in [
        json!({"upsert": [{"id": "m", "n": 2}]}),
        json!({"upsert": [{"id": "m2", "n": 1}]}),
        json!({"upsert": [{"id": "m", "n": 1}], "delete": ["z"]}),
        json!({"delete": ["m"]}),
    ] {
        t.case(format!("another body: {body}"))
            .post(&documents("k"), body)
            .header("idempotency-key", "mismatch")
            .await
            .refused(422, "idempotency_mismatch");
    }
    t.case("nothing of it was written")
        .get(&document("k", "m"))
        .await
        .at("/document/n", 1);
    keyed(t, "other", "mismatch", json!({"upsert": [{"id": "m", "n": 7}]})).await;
    t.case("keys are per collection")
        .get(&document("other", "m"))
        .await
        .at("/document/n", 7);
}

async fn refusals_are_not_remembered(t: &Suite) {
    t.case("a refused write")
        .post(&documents("k"), json!({"upsert": [{"id": "r", "n": "x"}]}))
        .header("idempotency-key", "refused")
        .await
        .status(422);
    keyed(t, "k", "refused", json!({"upsert": [{"id": "r", "n": 1}]})).await;
    t.case("the key was free")
        .get(&document("k", "r"))
        .await
        .at("/document/n", 1);
    t.case("to no collection")
        .post(&documents("late"), json!({"upsert": [{"id": "a"}]}))
        .header("idempotency-key", "late")
        .await
        .status(404);
    t.create("late", json!({"fields": {}})).await;
    let answer = keyed(t, "late", "late", json!({"upsert": [{"id": "a"}]})).await;
    t.check("the first real answer", answer["upserted"] == 1, || {
        answer.to_string()
    });
}

async fn keys_have_a_length(t: &Suite) {
    let body = || json!({"upsert": [{"id": "len", "n": 1}]});
    keyed(t, "k", &"x".repeat(128), body()).await;
    for key in ["x".repeat(129), "x".repeat(4000)] {
        t.case(format!("a key of {} bytes", key.len()))
            .post(&documents("k"), body())
            .header("idempotency-key", &key)
            .await
            .status_in(&[422, 400]);
    }
    t.case("an empty key")
        .post(&documents("k"), body())
        .header("idempotency-key", "")
        .await
        .status_in(&[200, 400, 422]);
    keyed(t, "k", "with spaces, and ; odd / characters \"'{}", body()).await;
}

async fn racing_repeats_agree(t: &Suite) {
    for round in 0..5 {
        let body = json!({"upsert": [{"id": "race", "n": round}], "delete": [format!("race-{round}")]});
        t.write("k", json!({"upsert": [{"id": format!("race-{round}"), "n": 0}]}))
            .await;
        let key = format!("race-{round}");
        let answers = join_all((0..8).map(|_| keyed(t, "k", &key, body.clone()))).await;
        let same = answers.iter().all(|answer| *answer == answers[0]);
        t.check("racing repeats get one answer", same, || format!("{answers:?}"));
        t.check("which deleted once", answers[0]["deleted"] == 1, || {
            answers[0].to_string()
        });
        let version = t.case("its version").get(&document("k", "race")).await.json()["version"].clone();
        keyed(t, "k", &key, body).await;
        t.case("a late repeat writes nothing")
            .get(&document("k", "race"))
            .await
            .at("/version", version);
    }
    let bodies = (0..8).map(|n| json!({"upsert": [{"id": "contest", "n": n}]}));
    let sent = bodies.map(|body| {
        t.case("one key, many bodies, at once")
            .post(&documents("k"), body)
            .header("idempotency-key", "contest")
    });
    let seen = join_all(sent.map(|case| async { case.await.status_in(&[200, 422]).json() })).await;
    let winners = seen.iter().filter(|answer| answer["upserted"] == 1).count();
    t.check("one body wins", winners == 1, || format!("{seen:?}"));
}

async fn single_documents_take_keys_too(t: &Suite) {
    let path = document("k", "single");
    let put = || {
        t.case("PUT with a key")
            .put(&path, json!({"n": 1}))
            .header("idempotency-key", "put")
    };
    let first = put().await.status(201).json();
    t.write("k", json!({"patch": [{"id": "single", "n": 2}]})).await;
    put()
        .await
        .status_in(&[200, 201])
        .at("/version", first["version"].clone());
    t.case("PUT once").get(&path).await.at("/document/n", 2);
    let delete = || {
        t.case("DELETE with a key")
            .delete(&path)
            .header("idempotency-key", "delete")
    };
    delete().await.status(204);
    t.write("k", json!({"upsert": [{"id": "single", "n": 3}]})).await;
    delete().await.status(204);
    t.case("DELETE once")
        .get(&path)
        .await
        .status(200)
        .at("/document/n", 3);
}

async fn several_partitions_remember_as_one(t: &Suite) {
    let rows: Vec<Value> = (0..40).map(|n| json!({"id": n, "n": n})).collect();
    let body = || json!({"upsert": rows, "delete": [100, 101]});
    let first = keyed(t, "parts", "all", body()).await;
    t.write("parts", json!({"delete_by_filter": {"n": {"$gte": 0}}}))
        .await;
    let again = keyed(t, "parts", "all", body()).await;
    t.check("over several partitions too", first == again, || {
        format!("{first} against {again}")
    });
    t.case("nothing came back")
        .get(&documents("parts"))
        .await
        .at("/documents", json!([]));
    for id in 1..20 {
        t.case(format!("another body for document {id}"))
            .post(&documents("parts"), json!({"upsert": [{"id": id, "n": 5}]}))
            .header("idempotency-key", "all")
            .await
            .refused(422, "idempotency_mismatch");
    }
    t.case("nothing of it")
        .get(&documents("parts"))
        .await
        .at("/documents", json!([]));
}

async fn keys_survive_settling_and_restart(t: &Suite) {
    let body = || json!({"upsert": [{"id": "kept", "n": 1}]});
    let first = keyed(t, "k", "kept", body()).await;
    t.client().optimize("k").await.expect("optimize works");
    t.write("k", json!({"upsert": [{"id": "kept", "n": 2}]})).await;
    let again = keyed(t, "k", "kept", body()).await;
    t.check("after optimize", first == again, || {
        format!("{first} against {again}")
    });
    if std::env::var("RHUMB_E2E_STORE").as_deref() == Ok("memory") {
        return;
    }
    t.restart().await;
    let again = keyed(t, "k", "kept", body()).await;
    t.check("after a restart", first == again, || {
        format!("{first} against {again}")
    });
    t.case("it did not happen again")
        .get(&document("k", "kept"))
        .await
        .at("/document/n", 2);
    t.case("nor may its body change")
        .post(&documents("k"), json!({"upsert": [{"id": "kept", "n": 9}]}))
        .header("idempotency-key", "kept")
        .await
        .refused(422, "idempotency_mismatch");
}
