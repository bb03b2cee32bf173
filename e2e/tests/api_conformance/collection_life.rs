//! Collections: listed, settled, deleted and re-created.

use rhumb_e2e::Suite;
use rhumb_e2e::compare::ids_at;
use serde_json::{Value, json};

use crate::{collection, document, documents};

#[tokio::test]
async fn collections_are_listed_settled_and_deleted() {
    let t = Suite::start("collection_life").await;
    collections_are_listed_in_pages(&t).await;
    a_deleted_collection_is_gone(&t).await;
    optimize_settles_everything(&t).await;
    t.finish().await;
}

async fn collections_are_listed_in_pages(t: &Suite) {
    for n in 0..7 {
        t.create(&format!("page-{n}"), json!({"fields": {}})).await;
    }
    let names = |json: &Value| -> Vec<String> {
        json["collections"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|c| c["name"].to_string())
            .collect()
    };
    let all = t
        .case("all with a prefix")
        .get("/v1/collections?prefix=page-")
        .await
        .status(200);
    let all = names(&all.lacks("/cursor").json());
    t.check("seven have the prefix", all.len() == 7, || format!("{all:?}"));

    let mut paged = Vec::new();
    let mut path = "/v1/collections?prefix=page-&limit=3".to_owned();
    for page in 0..3 {
        let seen = t.case(format!("page {page}")).get(&path).await.status(200);
        let json = seen.json();
        paged.extend(names(&json));
        match json["cursor"].as_str() {
            Some(cursor) => {
                path = format!(
                    "/v1/collections?prefix=page-&limit=3&cursor={}",
                    crate::escape(cursor)
                )
            }
            None => t.check("only the last page has no cursor", page == 2, || json.to_string()),
        }
    }
    t.check("pages hold each collection once", paged == all, || {
        format!("{paged:?} against {all:?}")
    });
    t.case("a prefix nobody has")
        .get("/v1/collections?prefix=zzz")
        .await
        .status(200)
        .at("/collections", json!([]));
    t.case("limit 0")
        .get("/v1/collections?limit=0")
        .await
        .status_in(&[422, 400]);
    t.case("limit as text")
        .get("/v1/collections?limit=x")
        .await
        .status_in(&[400, 422]);
    t.case("a bad cursor")
        .get("/v1/collections?cursor=%00%01")
        .await
        .status(400);
    t.case("an unknown parameter")
        .get("/v1/collections?prefx=a")
        .await
        .status_in(&[422, 400]);
}

async fn a_deleted_collection_is_gone(t: &Suite) {
    let path = collection("mortal");
    t.create("mortal", json!({"fields": {"n": "int"}})).await;
    t.write(
        "mortal",
        json!({"upsert": [{"id": "a", "n": 1}, {"id": "b", "n": 2}]}),
    )
    .await;
    let first = t.case("before").get(&path).await.json();
    t.case("DELETE").delete(&path).await.status(204);
    t.case("a second DELETE")
        .delete(&path)
        .await
        .refused(404, "collection_not_found");
    t.case("its description")
        .get(&path)
        .await
        .refused(404, "collection_not_found");
    t.case("its documents")
        .get(&documents("mortal"))
        .await
        .refused(404, "collection_not_found");
    t.case("one of them")
        .get(&document("mortal", "a"))
        .await
        .refused(404, "collection_not_found");
    t.case("a write to it")
        .post(&documents("mortal"), json!({"upsert": [{"id": "a"}]}))
        .await
        .refused(404, "collection_not_found");
    t.case("lists forget it")
        .get("/v1/collections?prefix=mortal")
        .await
        .at("/collections", json!([]));

    t.create("mortal", json!({"fields": {"n": "string"}})).await;
    t.case("re-created it is empty")
        .get(&path)
        .await
        .at("/rows", 0)
        .check("another id", |now| now["id"] != first["id"]);
    t.case("and has no documents")
        .get(&documents("mortal"))
        .await
        .at("/documents", json!([]));
    t.write("mortal", json!({"upsert": [{"id": 7, "n": "another type"}]}))
        .await;
    t.case("its types are its own")
        .get(&document("mortal", "7"))
        .await
        .at("/document/n", "another type");
}

async fn optimize_settles_everything(t: &Suite) {
    t.create("settles", json!({"fields": {"v": {"type": "vector", "dim": 2}}}))
        .await;
    let rows: Vec<Value> = (0..50)
        .map(|n| json!({"id": format!("{n:02}"), "v": [n, 1], "n": n}))
        .collect();
    t.write("settles", json!({"upsert": rows})).await;
    t.write(
        "settles",
        json!({"delete": ["07"], "patch": [{"id": "08", "n": 800}]}),
    )
    .await;
    let before = t.case("before").get(&documents("settles")).await.json();
    let path = format!("{}/optimize", collection("settles"));
    for round in 0..2 {
        t.case(format!("optimize {round}"))
            .post(&path, json!({"wait": true}))
            .await
            .status(200);
        t.case("nothing waits for an index")
            .get(&collection("settles"))
            .await
            .at("/index/state", "ready")
            .at("/index/unindexed_rows", 0)
            .at("/rows", 49);
        let seen = t
            .case("the documents are the same")
            .get(&documents("settles"))
            .await;
        seen.check("same ids", |now| {
            ids_at(now, "/documents") == ids_at(&before, "/documents")
        })
        .check("same everything", |now| now["documents"] == before["documents"]);
    }
    t.case("without waiting")
        .post(&path, json!({"wait": false}))
        .await
        .status_in(&[200, 202]);
    t.case("without a word")
        .post(&path, json!({}))
        .await
        .status_in(&[200, 202]);
    t.case("an unknown member")
        .post(&path, json!({"wiat": true}))
        .await
        .refused(422, "unknown_field")
        .hint_names("wait");
    t.case("of an unknown collection")
        .post(&format!("{}/optimize", collection("nope")), json!({"wait": true}))
        .await
        .refused(404, "collection_not_found");
}
