//! A `VectorDatabase`: asked for, waited for, looked into.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};
use rhumb_crds::{Shard, VectorDatabase, conditions, names};
use rhumb_e2e::process::free_port;
use rhumb_e2e::{Client, Secured};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

use super::wait::expect_eq;
use super::{Cluster, objects, wait_for};

/// How far proxies of Services may be behind.
const PROXIES: Duration = Duration::from_secs(3);
/// From nothing to serving, on two busy cores.
pub const READY: Duration = Duration::from_secs(120);
/// For what an operator does at once.
pub const SOON: Duration = Duration::from_secs(30);
/// A client that does not wait for machines that are gone.
const PATIENCE: Duration = Duration::from_secs(5);
const DEFAULT_ENDPOINT: &str = "http://s3.s3.svc:9000";

pub struct Database<'a> {
    pub cluster: &'a Cluster,
    pub namespace: String,
    pub name: String,
    /// What is applied.
    pub manifest: Value,
    forwards: std::sync::Mutex<BTreeMap<String, Forward>>,
}

impl<'a> Database<'a> {
    /// Two data nodes over a folder of its own, open unless it says otherwise; nothing is
    /// applied yet.
    pub async fn new(cluster: &'a Cluster, namespace: &str, name: &str) -> Self {
        let endpoint = std::env::var("RHUMB_E2E_S3").unwrap_or(DEFAULT_ENDPOINT.into());
        let image = cluster
            .data_node_image()
            .await
            .expect("the operator's default image");
        let manifest = json!({
            "apiVersion": "rhumb.dev/v1alpha1", "kind": "VectorDatabase",
            "metadata": { "name": name, "namespace": namespace },
            "spec": {
                "image": image,
                "objectStore": {
                    "bucket": "rhumb", "prefix": format!("e2e/{namespace}/{name}"), "endpoint": endpoint,
                    "credentials": { "secretRef": { "name": "s3-credentials" } }
                },
                "dataNodes": { "replicas": 2, "terminationGracePeriodSeconds": 10, "cache": { "size": "256Mi" } },
                "sharding": { "count": 2 },
                "security": { "clients": "Open" }
            }
        });
        Self {
            cluster,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            manifest,
            forwards: std::sync::Mutex::default(),
        }
    }

    /// `path` with dots; not applied yet.
    pub fn with(mut self, path: &str, value: Value) -> Self {
        put(&mut self.manifest, path, value);
        self
    }

    /// As the default has it.
    pub fn secured(self) -> Self {
        self.with("spec.security", json!({ "clients": "Secured" }))
    }

    pub async fn apply(&self) {
        self.cluster
            .apply(&self.manifest)
            .await
            .expect("the database is accepted");
    }

    pub async fn change(&mut self, path: &str, value: Value) {
        put(&mut self.manifest, path, value);
        self.apply().await;
    }

    /// All pods follow one after the other.
    pub async fn restart(&mut self) {
        let at = format!("{:x}", rand::random_range(0..u64::MAX));
        self.manifest["metadata"]["annotations"][names::RESTARTED_AT] = at.into();
        self.apply().await;
    }

    pub async fn delete(&self) {
        let deleted = self.api().delete(&self.name, &DeleteParams::default()).await;
        deleted.expect("the database can be deleted");
        wait_for("the database and its pods are gone", READY, async || {
            expect_eq(self.api().get_opt(&self.name).await?.is_none(), true)?;
            expect_eq(self.pods().await?.len(), 0)
        })
        .await;
    }

    pub fn api(&self) -> Api<VectorDatabase> {
        self.cluster.namespaced(&self.namespace)
    }

    /// Ready for the spec that was applied last, all pods in the Service.
    pub async fn ready(&self) -> VectorDatabase {
        wait_for("the database is Ready", READY, async || self.is_ready().await).await
    }

    pub async fn is_ready(&self) -> Result<VectorDatabase> {
        let database = self.api().get(&self.name).await?;
        let status = database.status.as_ref().context("no status")?;
        let ready = conditions::find(&status.conditions, conditions::READY).context("no Ready")?;
        if ready.status != "True" || ready.observed_generation != database.metadata.generation {
            bail!("Ready is {} ({}): {}", ready.status, ready.reason, ready.message);
        }
        expect_eq(status.ready_replicas, database.spec.data_nodes.replicas)?;
        Ok(database)
    }

    pub async fn condition(&self, kind: &str) -> Result<Condition> {
        let database = self.api().get(&self.name).await?;
        let status = database.status.context("no status")?;
        conditions::find(&status.conditions, kind)
            .cloned()
            .with_context(|| format!("no {kind} among {:?}", status.conditions))
    }

    /// Waits until a condition has this status and reason; its message.
    pub async fn says(&self, kind: &str, status: &str, reason: &str) -> String {
        let what = format!("{kind} is {status} for {reason}");
        wait_for(&what, READY, async || {
            let found = self.condition(kind).await?;
            if found.status != status || found.reason != reason {
                bail!("{} {}: {}", found.status, found.reason, found.message);
            }
            Ok(found.message)
        })
        .await
    }

    /// Waits until nothing is said of it any more.
    pub async fn says_nothing(&self, kind: &str) {
        wait_for(&format!("{kind} is gone"), SOON, async || {
            let status = self.api().get(&self.name).await?.status.unwrap_or_default();
            let found = conditions::find(&status.conditions, kind).cloned();
            expect_eq(found, None)
        })
        .await;
    }

    pub async fn pods(&self) -> Result<Vec<Pod>> {
        let params = ListParams::default().labels(&format!("{}={}", names::DATABASE, self.name));
        Ok(self.pod_api().list(&params).await?.items)
    }

    pub async fn ready_pods(&self) -> Result<Vec<Pod>> {
        let pods = self.pods().await?;
        Ok(pods.into_iter().filter(objects::is_ready).collect())
    }

    pub async fn pod_uids(&self) -> Vec<String> {
        let mut uids: Vec<String> = self
            .pods()
            .await
            .expect("pods are listed")
            .iter()
            .map(objects::uid)
            .collect();
        uids.sort();
        uids
    }

    /// Told to go, with time to hand over.
    pub async fn dismiss(&self, pod: &Pod) {
        let params = DeleteParams::default();
        let deleted = self.pod_api().delete(&pod.name_any(), &params).await;
        deleted.expect("the pod can be deleted");
    }

    /// Gone without a word.
    pub async fn remove(&self, pod: &Pod) {
        let params = DeleteParams::default().grace_period(0);
        let deleted = self.pod_api().delete(&pod.name_any(), &params).await;
        deleted.expect("the pod can be deleted");
    }

    pub async fn remove_all(&self) {
        for pod in self.pods().await.expect("pods are listed") {
            self.remove(&pod).await;
        }
    }

    pub fn pod_api(&self) -> Api<Pod> {
        self.cluster.namespaced(&self.namespace)
    }

    pub fn shard_api(&self) -> Api<Shard> {
        self.cluster.namespaced(&self.namespace)
    }

    pub fn lease_api(&self) -> Api<Lease> {
        self.cluster.namespaced(&self.namespace)
    }

    pub fn shard_count(&self) -> u32 {
        self.manifest["spec"]["sharding"]["count"].as_u64().unwrap_or(4) as u32
    }

    /// Shard by shard, the pod that holds its Lease and exists.
    pub async fn leaders(&self) -> Result<Vec<Pod>> {
        let pods = self.pods().await?;
        let mut leaders = Vec::new();
        for index in 0..self.shard_count() {
            let name = names::shard(&self.name, index);
            let lease = self.lease_api().get(&name).await?;
            let (pod, uid) = objects::holder(&lease).with_context(|| format!("nobody holds {name}"))?;
            let leader = pods
                .iter()
                .find(|p| p.name_any() == pod && objects::uid(p) == uid);
            leaders.push(
                leader
                    .with_context(|| format!("{pod}, which holds {name}, is gone"))?
                    .clone(),
            );
        }
        Ok(leaders)
    }

    /// Waits until every shard is led by the pod that shall lead it: nothing is about to move.
    pub async fn settled(&self) {
        wait_for("leaders are where they shall be", READY, async || {
            for (index, leader) in (0..).zip(self.leaders().await?) {
                let shard = self.shard_api().get(&names::shard(&self.name, index)).await?;
                expect_eq(shard.spec.nodes.first(), Some(&leader.name_any()))?;
                let said = shard.status.and_then(|status| status.leader);
                expect_eq(said.map(|said| said.pod_uid), Some(objects::uid(&leader)))?;
            }
            Ok(())
        })
        .await;
    }

    /// The pod that leads most shards: whose loss is felt most.
    pub async fn busiest(&self) -> Pod {
        let leaders = wait_for("every shard has a leader", SOON, async || self.leaders().await).await;
        let led_by = |pod: &Pod| leaders.iter().filter(|l| l.name_any() == pod.name_any()).count();
        leaders
            .iter()
            .max_by_key(|pod| led_by(pod))
            .expect("there are shards")
            .clone()
    }

    /// Through the Service; with the admin key where keys are asked for.
    pub async fn client(&self) -> Client {
        let at = wait_for("the Service has an address", SOON, async || self.address().await).await;
        // The proxies of Services hear of a pod that is ready a moment after everybody else.
        let connected = async {
            while TcpStream::connect(at).await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        // Some want to see that nobody serves.
        let _ = tokio::time::timeout(PROXIES, connected).await;
        self.client_at(at).await
    }

    /// Past the Service, at one pod.
    pub async fn client_of(&self, pod: &Pod) -> Client {
        let at = if self.cluster.has_machine() {
            let ip = objects::ip(pod).expect("a pod that runs has an address");
            format!("{ip}:{}", names::CLIENT_PORT)
                .parse()
                .expect("an address")
        } else {
            self.forward(&format!("pod/{}", pod.name_any()))
                .expect("forwarded")
        };
        self.client_at(at).await
    }

    async fn client_at(&self, at: SocketAddr) -> Client {
        let client = match self.access(at).await.expect("the Secrets of a secured database") {
            Some(secured) => Client::secured(secured, PATIENCE),
            None => Client::impatient(&format!("http://{at}"), PATIENCE),
        };
        client.expect("a client")
    }

    /// What the operator gives to whoever shall speak to it; `None` when it is open.
    async fn access(&self, at: SocketAddr) -> Result<Option<Secured>> {
        if self.manifest["spec"]["security"]["clients"] != "Secured" {
            return Ok(None);
        }
        Ok(Some(Secured {
            ca: self.secret(&names::ca(&self.name), names::CA_CERTIFICATE).await?,
            name: format!("{}.{}.svc", self.name, self.namespace),
            at,
            key: Some(self.admin_key().await?),
        }))
    }

    pub async fn admin_key(&self) -> Result<String> {
        let key = self.secret(&names::admin(&self.name), names::ADMIN_KEY).await?;
        Ok(String::from_utf8(key)?)
    }

    pub async fn secret(&self, name: &str, key: &str) -> Result<Vec<u8>> {
        let secrets: Api<Secret> = self.cluster.namespaced(&self.namespace);
        let data = secrets.get(name).await?.data.unwrap_or_default();
        let value = data.get(key).with_context(|| format!("{name} has no {key}"))?;
        Ok(value.0.clone())
    }

    /// One for each pod that is ready.
    pub async fn clients(&self) -> Vec<Client> {
        let pods = self.ready_pods().await.expect("pods are listed");
        let mut clients = Vec::new();
        for pod in &pods {
            clients.push(self.client_of(pod).await);
        }
        clients
    }

    pub async fn address(&self) -> Result<SocketAddr> {
        if !self.cluster.has_machine() {
            return self.forward(&format!("service/{}", self.name));
        }
        let services: Api<Service> = self.cluster.namespaced(&self.namespace);
        let spec = services.get(&self.name).await?.spec.context("no spec")?;
        let ip = spec.cluster_ip.context("no address yet")?;
        Ok(format!("{ip}:{}", names::CLIENT_PORT).parse()?)
    }

    /// For clusters whose network is not this machine's.
    fn forward(&self, target: &str) -> Result<SocketAddr> {
        let mut forwards = self.forwards.lock().expect("nobody panics with it");
        if let Some(known) = forwards.get(target) {
            return Ok(known.at);
        }
        let forward = Forward::start(self.cluster, &self.namespace, target)?;
        let at = forward.at;
        forwards.insert(target.to_owned(), forward);
        Ok(at)
    }
}

/// `kubectl port-forward`, started again whenever it ends.
struct Forward {
    at: SocketAddr,
    task: AbortHandle,
}

impl Forward {
    fn start(cluster: &Cluster, namespace: &str, target: &str) -> Result<Self> {
        let port = free_port()?;
        let mut command = tokio::process::Command::new("kubectl");
        command
            .env("KUBECONFIG", cluster.kubeconfig())
            .args(["port-forward", "-n", namespace, target])
            .arg(format!("{port}:{}", names::CLIENT_PORT))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let task = tokio::spawn(async move {
            loop {
                // It ends with its pod; how does not matter.
                let _ = command.status().await;
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        Ok(Self {
            at: SocketAddr::from(([127, 0, 0, 1], port)),
            task: task.abort_handle(),
        })
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Sets what a path with dots names, making objects on the way.
pub fn put(object: &mut Value, path: &str, value: Value) {
    let mut at = object;
    for key in path.split('.') {
        at = &mut at[key];
    }
    *at = value;
}
