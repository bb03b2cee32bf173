//! The REST API, asked at any pod: who leads must not be seen.

mod agreement;
mod pods;
mod secured;
mod sessions;

use rhumb_e2e::Client;
use serde_json::json;

use crate::harness::Database;

/// A collection of a scenario's own in the shared database, and a client of every pod.
pub struct Ground {
    pub name: String,
    pub clients: Vec<Client>,
}

impl Ground {
    /// `partitions` spread it over several shards.
    pub async fn new(database: &Database<'_>, partitions: u32) -> Self {
        let name = format!("api-{:08x}", rand::random_range(0..u32::MAX));
        let clients = database.clients().await;
        assert!(clients.len() >= 2, "one pod shows nothing");
        let fields = json!({"v": {"type": "vector", "dim": 2, "metric": "l2"}, "n": "int"});
        clients[0]
            .create(&name, &json!({"fields": fields, "partitions": partitions}))
            .await
            .expect("created");
        Self { name, clients }
    }

    pub fn path(&self) -> String {
        format!("/v1/collections/{}", self.name)
    }

    pub fn documents(&self) -> String {
        format!("{}/documents", self.path())
    }

    /// Rows `d00`, `d01`, ..., written through the pods in turn.
    pub async fn fill(&self, rows: usize) {
        for n in 0..rows {
            let row = json!({"id": format!("d{n:02}"), "v": [n, 1], "n": n});
            self.clients[n % self.clients.len()]
                .write(&self.name, &json!({"upsert": [row]}))
                .await
                .expect("written");
        }
    }

    pub async fn done(self) {
        let deleted = self.clients[0].delete(&self.path()).send().await;
        let deleted = deleted.expect("an answer");
        assert!(matches!(deleted.status, 200..=204), "{deleted}");
    }
}
