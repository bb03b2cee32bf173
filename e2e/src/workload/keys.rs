//! A client that fights with others over a few documents, one at a time, with every verb
//! and condition the API has.

use std::sync::Arc;

use crate::client::{Answer, Client, Request};
use crate::history::{Action, Content, Op, Told};
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::attempt::{Outcome, read, write};
use super::repeats::Repeats;
use super::world::{HOT_KEYS, Sighting, World, document, hot_key, lock};

pub struct KeyWriter {
    world: Arc<World>,
    client: usize,
    rng: StdRng,
}

/// A verb with all it needs; sent as often as necessary.
struct Plan {
    action: Action,
    how: &'static str,
    method: &'static str,
    /// Of the document, or of the collection's documents.
    single: bool,
    body: Option<Value>,
    header: Option<(&'static str, String)>,
}

impl KeyWriter {
    pub fn new(world: &Arc<World>, client: usize, rng: StdRng) -> Self {
        Self {
            world: Arc::clone(world),
            client,
            rng,
        }
    }

    pub async fn run(mut self) {
        while !self.world.stopping() {
            let id = hot_key(self.rng.random_range(0..HOT_KEYS));
            let plan = match self.rng.random_range(0..12) {
                0..=7 => Some(self.blind_plan(&id)),
                _ => self.informed_plan(&id).await,
            };
            if let Some(plan) = plan {
                self.execute(&id, plan).await;
            }
            self.world.pause(&mut self.rng, 6).await;
        }
    }

    /// Writes that need no knowledge of what is there.
    fn blind_plan(&mut self, id: &str) -> Plan {
        let content = self.world.fresh_content();
        let whole = document(id, content);
        let n = content.n;
        let posted = |action, how, body| Plan {
            action,
            how,
            method: "POST",
            single: false,
            body: Some(body),
            header: None,
        };
        let single = |action, how, method, body| Plan {
            action,
            how,
            method,
            single: true,
            body,
            header: None,
        };
        match self.rng.random_range(0..9) {
            0 => posted(Action::Put(content), "upsert", json!({"upsert": [whole]})),
            1 | 2 => single(Action::Put(content), "PUT", "PUT", Some(whole)),
            3 => single(Action::Patch(n), "PATCH", "PATCH", Some(json!({"n": n}))),
            4 => posted(Action::Patch(n), "patch", json!({"patch": [{"id": id, "n": n}]})),
            5 => single(Action::Delete, "DELETE", "DELETE", None),
            6 => posted(Action::Delete, "delete", json!({"delete": [id]})),
            7 => posted(
                Action::CreateIfAbsent(content),
                "upsert if absent",
                json!({"upsert": [whole], "if": {"absent": true}}),
            ),
            _ => Plan {
                header: Some(("if-none-match", "*".to_owned())),
                ..single(
                    Action::CreateIfAbsent(content),
                    "PUT If-None-Match",
                    "PUT",
                    Some(whole),
                )
            },
        }
    }

    /// Writes on condition that the document is still as it was just read.
    async fn informed_plan(&mut self, id: &str) -> Option<Plan> {
        let (from, version) = self.look(id).await?;
        let to = self.world.fresh_content();
        let whole = document(id, to);
        let swap = |to| Action::Swap { from, to };
        let etag = Some(("if-match", format!("\"{version}\"")));
        let plan = match self.rng.random_range(0..4) {
            0 => Plan {
                action: swap(Some(to)),
                how: "PUT If-Match",
                method: "PUT",
                single: true,
                body: Some(whole),
                header: etag,
            },
            1 => Plan {
                action: swap(None),
                how: "DELETE If-Match",
                method: "DELETE",
                single: true,
                body: None,
                header: etag,
            },
            2 => Plan {
                action: swap(Some(to)),
                how: "upsert if version",
                method: "POST",
                single: false,
                body: Some(json!({"upsert": [whole], "if": {"version": version}})),
                header: None,
            },
            _ => Plan {
                action: Action::SwapTag { tag: from.tag, to },
                how: "upsert if filter",
                method: "POST",
                single: false,
                body: Some(json!({"upsert": [whole], "if": {"filter": {"tag": from.tag}}})),
                header: None,
            },
        };
        Some(plan)
    }

    /// A strong read; what it saw and its version, when there is a document.
    async fn look(&mut self, id: &str) -> Option<(Content, u64)> {
        let invoked = self.world.history.now();
        let client = self.world.client(&mut self.rng);
        let answer = read(
            &self.world,
            client.get(&format!("{}/{id}", self.world.documents())),
        )
        .await?;
        let (state, version) = seen_in(&self.world, id, &answer, invoked);
        self.world
            .record_read(self.client, id, state, invoked, "GET before a write");
        Some((state?, version?))
    }

    async fn execute(&mut self, id: &str, plan: Plan) {
        let Self { world, client, rng } = self;
        let key = rng
            .random_bool(0.4)
            .then(|| format!("key-{}-{}", world.collection, world.unique()));
        let path = if plan.single {
            format!("{}/{id}", world.documents())
        } else {
            world.documents()
        };
        let invoked = world.history.now();
        let request = |to: &Client| request(to, &path, &plan);
        let outcome = write(world, rng, key.as_deref(), request).await;
        let told = match &outcome {
            Outcome::Done(answer) => told_by(&plan, answer),
            Outcome::Declined => Told::Declined,
            Outcome::Refused => return,
            Outcome::Unknown => Told::Unknown,
        };
        let returned = world.history.now();
        if let Outcome::Done(answer) = &outcome {
            if let (Action::Put(content), "PUT", Some(version)) =
                (plan.action, plan.method, answer.json()["version"].as_u64())
            {
                world.saw(Sighting {
                    key: id.to_owned(),
                    content,
                    version,
                    invoked,
                    returned,
                });
            }
            if let (Some(key), false, Some(body)) = (&key, plan.single, &plan.body) {
                lock(&world.repeats).keep(rng, Repeats::of(key, body, answer));
            }
        }
        let how = if key.is_some() {
            format!("{} with a key", plan.how)
        } else {
            plan.how.to_owned()
        };
        world.history.record(
            id,
            Op {
                client: *client,
                action: plan.action,
                told,
                invoked,
                returned,
                how,
            },
        );
    }
}

fn request(to: &Client, path: &str, plan: &Plan) -> Request {
    let method = plan.method.parse().expect("a method");
    let mut request = to.request(method, path);
    if let Some(body) = &plan.body {
        request = request.json(body);
    }
    if let Some((name, value)) = &plan.header {
        request = request.header(name, value);
    }
    request
}

/// What a success tells about the state before.
fn told_by(plan: &Plan, answer: &Answer) -> Told {
    let json = answer.json();
    if plan.single {
        let existed = match (plan.method, answer.status) {
            ("PUT", 201) => Some(false),
            ("PUT", 200) => Some(true),
            _ => None,
        };
        return Told::Applied { existed };
    }
    match plan.action {
        Action::Delete => Told::Applied {
            existed: Some(json["deleted"] == 1),
        },
        _ if json["skipped"] == 1 => Told::Declined,
        _ => Told::Applied { existed: None },
    }
}

/// State and version of a document in the answer to a GET; notes the sighting.
pub fn seen_in(world: &World, id: &str, answer: &Answer, invoked: u64) -> (Option<Content>, Option<u64>) {
    if answer.status != 200 {
        return (None, None);
    }
    let json = answer.json();
    let content = world.content_of(id, &json["document"]);
    let version = json["version"].as_u64();
    if let (Some(content), Some(version)) = (content, version) {
        let returned = world.history.now();
        world.saw(Sighting {
            key: id.to_owned(),
            content,
            version,
            invoked,
            returned,
        });
    }
    (content, version)
}
