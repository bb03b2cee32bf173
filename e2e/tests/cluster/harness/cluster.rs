//! The control plane under test, by whatever kubeconfig was given.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DynamicObject, Patch, PatchParams, ValidationDirective};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::NamespaceResourceScope;
use kube::discovery::{Scope, pinned_kind};
use kube::{Api, Client, Config, Resource};
use serde_json::Value;

use super::Machine;

/// The operator's release: `make cluster` and the manual install it like this.
pub const OPERATOR_NAMESPACE: &str = "rhumb-system";
pub const OPERATOR: &str = "rhumb-operator";
pub const MANAGER: &str = "rhumb-e2e";
const CALL: Duration = Duration::from_secs(15);

pub struct Cluster {
    pub client: Client,
    kubeconfig: PathBuf,
    machine: Option<Machine>,
}

impl Cluster {
    /// `None`, said loudly, where there is no cluster to test.
    pub async fn connect() -> Option<Self> {
        let Some(path) = std::env::var_os("RHUMB_E2E_KUBECONFIG") else {
            eprintln!(
                "E2E SKIPPED: RHUMB_E2E_KUBECONFIG names no cluster; `make e2e` boots one and runs this"
            );
            return None;
        };
        Some(Self::of(Path::new(&path)).await.expect("a usable kubeconfig"))
    }

    /// `None`, said loudly, where the processes of the cluster are out of reach.
    pub async fn connect_with_machine() -> Option<Self> {
        let cluster = Self::connect().await?;
        if cluster.machine.is_none() {
            eprintln!("E2E SKIPPED: this scenario breaks processes, and RHUMB_E2E_MACHINE names none");
            return None;
        }
        Some(cluster)
    }

    async fn of(kubeconfig: &Path) -> Result<Self> {
        // Both ring and aws-lc may be in the tree; a second call finds the first one's choice.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let read = Kubeconfig::read_from(kubeconfig)?;
        let mut config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?;
        // Scenarios take the API server away: whoever calls decides what to try again.
        config.default_retry = false;
        config.connect_timeout = Some(CALL);
        config.read_timeout = Some(CALL);
        Ok(Self {
            client: Client::try_from(config)?,
            kubeconfig: kubeconfig.to_owned(),
            machine: std::env::var_os("RHUMB_E2E_MACHINE").map(|work| Machine::new(work.into())),
        })
    }

    pub fn machine(&self) -> &Machine {
        self.machine.as_ref().expect("asked for by connect_with_machine")
    }

    pub fn has_machine(&self) -> bool {
        self.machine.is_some()
    }

    pub fn all<K: Resource<DynamicType = ()>>(&self) -> Api<K> {
        Api::all(self.client.clone())
    }

    pub fn namespaced<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// As `kubectl apply --server-side --force-conflicts` does it, with unknown fields
    /// refused.
    pub async fn apply(&self, object: &Value) -> kube::Result<DynamicObject> {
        self.patch(object, false).await
    }

    /// The same up to the point where it would be stored: defaults, rules, admission.
    pub async fn try_apply(&self, object: &Value) -> kube::Result<DynamicObject> {
        self.patch(object, true).await
    }

    async fn patch(&self, object: &Value, dry_run: bool) -> kube::Result<DynamicObject> {
        let object: DynamicObject =
            serde_json::from_value(object.clone()).map_err(kube::Error::SerdeError)?;
        let types = object.types.clone().unwrap_or_default();
        let gvk = kube::core::GroupVersionKind::try_from(types)
            .map_err(|error| kube::Error::Service(Box::new(error)))?;
        let (resource, capabilities) = pinned_kind(&self.client, &gvk).await?;
        let namespace = object.metadata.namespace.as_deref().unwrap_or("default");
        let api: Api<DynamicObject> = match capabilities.scope {
            Scope::Cluster => Api::all_with(self.client.clone(), &resource),
            Scope::Namespaced => Api::namespaced_with(self.client.clone(), namespace, &resource),
        };
        let params = PatchParams {
            dry_run,
            force: true,
            field_manager: Some(MANAGER.into()),
            field_validation: Some(ValidationDirective::Strict),
        };
        let name = object.metadata.name.clone().unwrap_or_default();
        api.patch(&name, &params, &Patch::Apply(&object)).await
    }

    /// What the operator gives to databases that name no image.
    pub async fn data_node_image(&self) -> Result<String> {
        let operator: Deployment = self.namespaced(OPERATOR_NAMESPACE).get(OPERATOR).await?;
        let pod = operator.spec.template.spec;
        let env = pod.and_then(|mut pod| pod.containers.remove(0).env);
        env.into_iter()
            .flatten()
            .find(|variable| variable.name == "RHUMB_DATA_NODE_IMAGE")
            .and_then(|variable| variable.value)
            .context("the operator has no default image")
    }

    /// Access key and secret key, as the samples have them: Secret `s3-credentials`.
    pub async fn s3_keys(&self) -> Result<(String, String)> {
        let secret: Secret = self.namespaced("default").get("s3-credentials").await?;
        let data = secret.data.context("an empty Secret")?;
        let text = |key: &str| -> Result<String> {
            let ByteString(bytes) = data.get(key).with_context(|| format!("no {key}"))?;
            Ok(String::from_utf8(bytes.clone())?)
        };
        Ok((text("access-key-id")?, text("secret-access-key")?))
    }

    pub async fn kubectl(&self, arguments: &[&str]) -> Result<Output> {
        let output = tokio::process::Command::new("kubectl")
            .env("KUBECONFIG", &self.kubeconfig)
            .args(arguments)
            .output();
        tokio::time::timeout(Duration::from_secs(120), output)
            .await
            .with_context(|| format!("kubectl {arguments:?} hangs"))?
            .context("cannot run kubectl")
    }

    /// What a successful kubectl says.
    pub async fn kubectl_says(&self, arguments: &[&str]) -> Result<String> {
        let output = self.kubectl(arguments).await?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            bail!(
                "kubectl {arguments:?}: {said}{}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(said)
    }

    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }
}
