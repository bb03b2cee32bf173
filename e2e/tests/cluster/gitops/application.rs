//! An Application of Argo CD and the repository that it follows.

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use futures::{FutureExt, StreamExt};
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::{WatchStreamExt, watcher};
use rhumb_e2e::Client;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::task::AbortHandle;

use super::cluster_with_argo;
use crate::harness::scenario::{Scenario, scenario};
use crate::harness::wait::expect_eq;
use crate::harness::wait_for;

/// As argocd.sh starts them.
const SERVER: &str = "http://127.0.0.1:18080";
const REPOSITORIES: &str = "git://127.0.0.1";
const NAMESPACE: &str = "argocd";
/// A database's start or change, and the rounds of Argo CD that tell of it.
const PATIENCE: Duration = Duration::from_secs(180);

/// Of one Application, at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    pub sync: String,
    pub health: String,
    /// Of Git, as last compared with.
    pub revision: String,
    /// Of the last sync: how it went, what it said, when it ended.
    pub phase: String,
    pub message: String,
    pub finished: String,
    /// With Git, the last time.
    pub compared: String,
}

impl Seen {
    fn of(application: &DynamicObject) -> Self {
        let status = &application.data["status"];
        let text = |pointer: &str| {
            let found = status.pointer(pointer).and_then(Value::as_str);
            found.unwrap_or_default().to_owned()
        };
        Self {
            sync: text("/sync/status"),
            health: text("/health/status"),
            revision: text("/sync/revision"),
            phase: text("/operationState/phase"),
            message: text("/operationState/message"),
            finished: text("/operationState/finishedAt"),
            compared: text("/reconciledAt"),
        }
    }
}

pub struct Application {
    name: String,
    repository: PathBuf,
    api: Api<DynamicObject>,
    seen: Arc<Mutex<Vec<Seen>>>,
    witness: AbortHandle,
}

/// Runs `body` with an Application for a namespace of its own, where there is an Argo CD.  It
/// syncs by itself, prunes and heals; its repository has nothing of Rhumb yet.
pub async fn under_argo(name: &str, body: impl AsyncFnOnce(&Scenario<'_>, &Application)) {
    let Some(cluster) = cluster_with_argo().await else {
        return;
    };
    scenario(&cluster, name, async |scenario| {
        let application = Application::start(scenario, "", json!({})).await;
        application
            .watched(async || body(scenario, &application).await)
            .await;
    })
    .await;
}

impl Application {
    /// `more` is merged into the manifest.
    pub async fn start(scenario: &Scenario<'_>, suffix: &str, more: Value) -> Self {
        let name = format!("{}{suffix}", scenario.namespace);
        let repository = scenario.cluster.machine().repositories().join(&name);
        std::fs::create_dir_all(&repository).expect("a folder");
        let mut manifest = json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Application",
            "metadata": { "name": name, "namespace": NAMESPACE },
            "spec": {
                "project": "default",
                "source": { "repoURL": format!("{REPOSITORIES}/{name}"), "targetRevision": "main", "path": "." },
                "destination": { "server": "https://kubernetes.default.svc", "namespace": scenario.namespace },
                "syncPolicy": { "automated": { "prune": true, "selfHeal": true } }
            }
        });
        merge(&mut manifest, more);
        let kind = GroupVersionKind::gvk("argoproj.io", "v1alpha1", "Application");
        let api: Api<DynamicObject> = Api::namespaced_with(
            scenario.cluster.client.clone(),
            NAMESPACE,
            &ApiResource::from_gvk(&kind),
        );
        let seen = Arc::default();
        let witness = tokio::spawn(watch(api.clone(), name.clone(), Arc::clone(&seen))).abort_handle();
        let application = Self {
            name,
            repository,
            api,
            seen,
            witness,
        };
        application.git(&["init", "-q", "-b", "main"]).await;
        // Argo CD syncs no Application of nothing.
        let note =
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": application.name } });
        std::fs::write(application.repository.join("note.json"), note.to_string()).expect("written");
        application.git(&["add", "."]).await;
        application.git(&["commit", "-q", "-m", "An empty team"]).await;
        scenario.cluster.apply(&manifest).await.expect("an Application");
        application
    }

    /// Shows the Application when `body` panics.  It goes in the end, and leaves its objects:
    /// the namespace of a scenario that failed stays as it was.
    pub async fn watched(&self, body: impl AsyncFnOnce()) {
        let ended = AssertUnwindSafe(body()).catch_unwind().await;
        self.witness.abort();
        if ended.is_err() {
            let application = self.api.get_opt(&self.name).await.ok().flatten();
            let status = application.map(|application| application.data["status"].clone());
            eprintln!(
                "--- Application {} ---\n{:#}",
                self.name,
                status.unwrap_or_default()
            );
            eprintln!("{:#?}\n{:#}", self.seen(), self.tree().await.unwrap_or_default());
        }
        let deleted = self.api.delete(&self.name, &DeleteParams::default()).await;
        if let Err(panic) = ended {
            resume_unwind(panic);
        }
        deleted.expect("the Application can be deleted");
        std::fs::remove_dir_all(&self.repository).expect("removed");
    }

    /// Puts an object into Git, or takes it out; its revision.
    pub async fn commit(&self, changes: &[(&str, Option<&Value>)]) -> String {
        for (name, object) in changes {
            let file = self.repository.join(format!("{name}.json"));
            match object {
                Some(object) => std::fs::write(file, format!("{object:#}")),
                None => std::fs::remove_file(file),
            }
            .expect("the repository can be written");
        }
        self.git(&["add", "--all", "."]).await;
        self.git(&["commit", "-q", "-m", "What the team wants"]).await;
        self.head().await
    }

    /// Undoes the last commits by others; the revision.
    pub async fn revert(&self, commits: usize) -> String {
        let undone = format!("HEAD~{commits}..HEAD");
        self.git(&["revert", "--no-edit", &undone]).await;
        self.head().await
    }

    /// Tells Argo CD of what was pushed, as a webhook of the repository would.
    async fn head(&self) -> String {
        let refresh = json!({ "metadata": { "annotations": { "argocd.argoproj.io/refresh": "normal" } } });
        let refreshed = self
            .api
            .patch(&self.name, &PatchParams::default(), &Patch::Merge(refresh))
            .await;
        refreshed.expect("refreshed");
        self.git(&["rev-parse", "HEAD"]).await.trim().to_owned()
    }

    async fn git(&self, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .args(["-c", "user.name=e2e", "-c", "user.email=e2e@example.com", "-C"])
            .arg(&self.repository)
            .args(arguments)
            .output()
            .await
            .expect("git runs");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {arguments:?}: {complaint}");
        String::from_utf8(output.stdout).expect("text")
    }

    pub async fn now(&self) -> Result<Seen> {
        Ok(Seen::of(&self.api.get(&self.name).await?))
    }

    /// All that was seen so far, each change once.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What was seen from a moment on that `now` returned.
    pub fn since(&self, moment: &Seen) -> Vec<Seen> {
        let since: Vec<Seen> = self
            .seen()
            .into_iter()
            .skip_while(|seen| seen != moment)
            .collect();
        assert!(!since.is_empty(), "{moment:?} was never seen");
        since
    }

    /// From that moment on it was as Git has it, and nothing was synced.
    pub fn assert_left_alone_since(&self, moment: &Seen) {
        for seen in self.since(moment) {
            let now = (seen.sync.as_str(), &seen.finished);
            assert_eq!(now, ("Synced", &moment.finished), "{seen:?}");
        }
    }

    pub async fn healthy_at(&self, revision: &str) -> Seen {
        wait_for("Argo CD says Synced and Healthy", PATIENCE, async || {
            let seen = self.now().await?;
            let found = (seen.revision.as_str(), seen.sync.as_str(), seen.health.as_str());
            expect_eq(found, (revision, "Synced", "Healthy"))
                .with_context(|| format!("{}: {}", seen.phase, seen.message))?;
            // The cluster is as Git has it; Argo CD may not have written down how it came to that.
            expect_eq(seen.phase == "Running", false)?;
            Ok(seen)
        })
        .await
    }

    /// Waits until Argo CD says this of the whole Application.
    pub async fn becomes(&self, health: &str) {
        wait_for(&format!("Argo CD says {health}"), PATIENCE, async || {
            expect_eq(self.now().await?.health.as_str(), health)
        })
        .await;
    }

    /// What its page shows of an object: health and message.
    pub async fn shown(&self, kind: &str, name: &str) -> Result<(String, String)> {
        let tree = self.tree().await?;
        let nodes = tree["nodes"].as_array().context("no tree")?;
        let node = nodes
            .iter()
            .find(|node| node["kind"] == kind && node["name"] == name);
        let health = &node.context("not shown")?["health"];
        let text = |key: &str| health[key].as_str().unwrap_or_default().to_owned();
        Ok((text("status"), text("message")))
    }

    async fn tree(&self) -> Result<Value> {
        let path = format!("/api/v1/applications/{}/resource-tree", self.name);
        Ok(server().get(&path).send().await?.expect(200)?.json())
    }

    /// The actions that a database offers: name, and whether it may be run now.
    pub async fn actions(&self, database: &str, namespace: &str) -> Result<Vec<(String, bool)>> {
        let path = format!(
            "/api/v1/applications/{}/resource/actions?namespace={namespace}&resourceName={database}\
             &group=rhumb.dev&version=v1alpha1&kind=VectorDatabase",
            self.name
        );
        let answer = server().get(&path).send().await?.expect(200)?.json();
        let actions = answer["actions"].as_array().context("no actions")?;
        let mut actions: Vec<_> = actions
            .iter()
            .map(|action| {
                let name = action["name"].as_str().unwrap_or_default().to_owned();
                (name, action["disabled"] != true)
            })
            .collect();
        actions.sort();
        Ok(actions)
    }

    pub async fn act(&self, database: &str, namespace: &str, action: &str) {
        let path = format!("/api/v1/applications/{}/resource/actions/v2", self.name);
        let request = json!({
            "name": self.name, "namespace": namespace, "resourceName": database, "group": "rhumb.dev",
            "version": "v1alpha1", "kind": "VectorDatabase", "action": action
        });
        let answer = server().post(&path, &request).send().await.expect("an answer");
        answer.expect(200).expect("the action is run");
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        self.witness.abort();
    }
}

fn server() -> Client {
    Client::new(SERVER).expect("a client")
}

async fn watch(api: Api<DynamicObject>, name: String, seen: Arc<Mutex<Vec<Seen>>>) {
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut changes = watcher(api, config).default_backoff().applied_objects().boxed();
    while let Some(change) = changes.next().await {
        // The watch is taken up again by itself.
        let Ok(application) = change else { continue };
        let now = Seen::of(&application);
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.last() != Some(&now) {
            seen.push(now);
        }
    }
}

fn merge(into: &mut Value, more: Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more,
    }
}
