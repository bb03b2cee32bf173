//! From flags to a running operator: elect, then control, then hand over.

use std::fmt::Debug;
use std::future::Future;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::utils::Backoff;
use kube::runtime::{Controller, controller, watcher};
use kube::{Api, Client, Config, Resource};
use rhumb_crds::names;
use rhumb_crds::{Collection, Shard, VectorDatabase};
use rhumb_seams::{CancellationToken, Clock, OnExit, Rand, Tasks};
use serde::de::DeserializeOwned;
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::args::Args;
use crate::context::{CONNECT_TIMEOUT, Context, Error, Settings};
use crate::election::{Elector, TIMING};
use crate::{collection, database, http};

const LEASE: &str = "rhumb-operator";
/// Objects that are reconciled at once.
const CONCURRENCY: u16 = 16;
/// Every write of a reconcile may be repeated, so it can be cut off anywhere.
const LONGEST: Duration = Duration::from_secs(30);
/// A connection that died in silence is noticed this late.
const WATCH_SECONDS: u32 = 25;
/// After a watch was interrupted: all of a controller's wait for each other, and the pauses of
/// the default grow to half a minute.
const PAUSE: Duration = Duration::from_secs(1);
/// A burst of events about one object is one reconcile.
const DEBOUNCE: Duration = Duration::from_millis(50);

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("kubernetes: {0}")]
    Kubernetes(#[from] kube::Error),
    #[error("kubernetes configuration: {0}")]
    Config(#[from] kube::config::InferConfigError),
    #[error("cannot listen: {0}")]
    Listen(#[from] std::io::Error),
    #[error("http client: {0}")]
    Http(#[from] reqwest::Error),
}

pub async fn run(args: Args) -> Result<ExitCode, StartError> {
    let mut config = Config::infer().await?;
    // The client would go on for minutes, with ever longer pauses: a renewal is a lost lease
    // by then, and a reconcile reports what was true before an outage.
    config.default_retry = false;
    let settings = Settings {
        namespace: args.namespace.clone(),
        data_node_image: args.data_node_image.clone(),
        pull_policy: args.pull_policy.clone(),
    };
    let data_nodes = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .build()?;
    let (clock, rand) = (Clock::system(), Rand::from_entropy());
    let context = Arc::new(Context::new(
        Client::try_from(config.clone())?,
        settings,
        data_nodes,
        clock.clone(),
    ));
    let tasks = Tasks::new();
    let stop = tasks.stopping().clone();
    stop_on_signal(&tasks);
    let listener = TcpListener::bind(args.listen).await?;
    tasks.spawn(
        "http",
        OnExit::Stop,
        http::serve(listener, context.clone(), stop.clone()),
    );

    let me = format!("{}_{:016x}", args.pod_name, rand.u64());
    let election_client = Client::try_from(config)?;
    let mut elector = Elector::new(election_client, &args.namespace, LEASE, me, TIMING, clock, rand);
    tracing::info!("waiting for the lease");
    tokio::select! {
        biased;
        () = stop.cancelled() => {
            tasks.shut_down().await;
            return Ok(ExitCode::SUCCESS);
        }
        () = elector.acquire() => {}
    }
    tracing::info!("leading");
    context.metrics.leads(true);
    let controllers = control(args.namespaces(), &context, &stop);
    tokio::select! {
        biased;
        () = elector.keep(&stop) => {}
        () = controllers => {}
    }
    // The controllers were dropped with whatever they were at: each write of theirs is
    // repeatable, and none is under way when the lease goes.
    context.metrics.leads(false);
    let told_to = stop.is_cancelled();
    if told_to {
        elector.release().await;
    }
    tasks.shut_down().await;
    // Without its lease an operator must not go on, nor try again with what it has cached.
    Ok(if told_to {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn stop_on_signal(tasks: &Tasks) {
    use tokio::signal::unix::{SignalKind, signal};
    let stop = tasks.stopping().clone();
    tasks.spawn("signals", OnExit::Fine, async move {
        let mut terminate = match signal(SignalKind::terminate()) {
            Ok(terminate) => terminate,
            Err(error) => {
                tracing::error!(%error, "no signals can be received");
                return stop.cancel();
            }
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
            () = stop.cancelled() => {}
        }
        stop.cancel();
    });
}

/// One set of controllers for the whole cluster, or one per namespace.
async fn control(namespaces: Option<Vec<String>>, context: &Arc<Context>, stop: &CancellationToken) {
    let scopes: Vec<Option<String>> = match namespaces {
        None => vec![None],
        Some(names) => names.into_iter().map(Some).collect(),
    };
    let controllers = scopes.iter().map(|scope| async {
        let databases = databases(scope.as_deref(), context, stop);
        let collections = collections(scope.as_deref(), context, stop);
        tokio::join!(databases, collections);
    });
    join_all(controllers).await;
}

fn api<K>(scope: Option<&str>, client: &Client) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
{
    match scope {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

fn settings() -> controller::Config {
    controller::Config::default()
        .concurrency(CONCURRENCY)
        .debounce(DEBOUNCE)
}

fn watching() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS)
}

/// The same pause each time.
struct Pauses;

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(PAUSE)
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {}
}

async fn databases(scope: Option<&str>, context: &Arc<Context>, stop: &CancellationToken) {
    let client = &context.client;
    let ours = || watching().labels(names::DATABASE);
    let controller = Controller::new(api::<VectorDatabase>(scope, client), watching())
        .with_config(settings())
        .trigger_backoff(Pauses)
        .owns(api::<Deployment>(scope, client), ours())
        .owns(api::<Shard>(scope, client), ours())
        .owns(api::<Service>(scope, client), ours())
        .watches(api::<Pod>(scope, client), ours(), |pod| database_of(&pod))
        .graceful_shutdown_on(stop.clone().cancelled_owned());
    drive(controller, database::reconcile, context).await;
}

async fn collections(scope: Option<&str>, context: &Arc<Context>, stop: &CancellationToken) {
    let controller = Controller::new(api::<Collection>(scope, &context.client), watching())
        .with_config(settings())
        .trigger_backoff(Pauses)
        .graceful_shutdown_on(stop.clone().cancelled_owned());
    drive(controller, collection::reconcile, context).await;
}

/// Pods are owned by ReplicaSets; their label says whose they are.
fn database_of(pod: &Pod) -> Option<ObjectRef<VectorDatabase>> {
    let name = pod.metadata.labels.as_ref()?.get(names::DATABASE)?;
    Some(ObjectRef::new(name).within(pod.metadata.namespace.as_deref()?))
}

/// An API server that went away over a request may never answer it, and nothing else would
/// look at the object meanwhile.
async fn bounded(reconciling: impl Future<Output = Result<Action, Error>>) -> Result<Action, Error> {
    match timeout(LONGEST, reconciling).await {
        Ok(done) => done,
        Err(_) => Err(Error::TooLong(LONGEST)),
    }
}

async fn drive<K, F>(
    controller: Controller<K>,
    reconcile: fn(Arc<K>, Arc<Context>) -> F,
    context: &Arc<Context>,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    F: Future<Output = Result<Action, Error>> + Send + 'static,
{
    controller
        .run(
            move |object, context| Box::pin(bounded(reconcile(object, context))),
            database::error_policy,
            context.clone(),
        )
        .for_each(|result| async move {
            // Errors of reconciles were handled by the policy; a watch that fails, as
            // before the CRDs are there, is tried again.
            if let Err(error @ controller::Error::QueueError(_)) = result {
                tracing::warn!(%error, "watch failed");
            }
        })
        .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reconcile_that_is_never_answered_ends() {
        let ended = bounded(std::future::pending()).await;
        assert!(matches!(ended, Err(Error::TooLong(_))));
        let done = bounded(std::future::ready(Ok(Action::await_change()))).await;
        assert_eq!(done.expect("done"), Action::await_change());
    }
}
