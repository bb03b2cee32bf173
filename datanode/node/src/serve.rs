//! From settings to a running server, and back to a stopped one.
//!
//! It listens only once it can serve: until the store answers, the start is tried again
//! and again.  Stopping goes from the outside in: no new connections, running requests
//! finish, the database closes, background work ends.  A server that was fenced stops at
//! once, with a status of its own.  In a cluster it first hands over what it leads, and goes
//! on passing requests to their new leaders until nobody sends it any.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rhumb_auth::MintedKey;
use rhumb_cluster::{Cluster, ClusterError, Identity, Peers, Tls, TlsError, World};
use rhumb_engine::{Database, EngineError, Sharing};
use rhumb_seams::{Clock, Ids, OnExit, Rand, Tasks};
use rhumb_store::{Bucket, BucketOptions, ErrorKind, StoreError};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::guard::{Guard, GuardError};
use crate::http::{App, Listener, body_budget, listen, listen_to_peers};
use crate::member::{Collections, Member};
use crate::readiness::Readiness;
use crate::settings::Settings;
use crate::tls::{ServerTls, ServerTlsError};

/// How a server ended; the process exits with this status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It was told to.
    Told = 0,
    /// Something it cannot do without ended; the log says what.
    Broken = 1,
    /// Another server took over.  Nothing was acknowledged since.
    Fenced = 3,
}

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the database cannot be opened: {0}")]
    Database(EngineError),
    #[error("cannot listen on {address}: {source}")]
    Listen {
        address: SocketAddr,
        source: std::io::Error,
    },
    #[error("cannot wait for signals: {0}")]
    Signals(std::io::Error),
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    ServerTls(#[from] ServerTlsError),
    #[error(transparent)]
    Guard(#[from] GuardError),
}

/// What is told once the server serves.
#[derive(Debug)]
pub struct Ready {
    pub address: SocketAddr,
    /// Under TLS, what clients on this machine trust, if it is this server's own.
    pub tls: Option<Option<PathBuf>>,
    /// A first key that was made just now: where it is, and itself.
    pub admin_key: Option<(PathBuf, MintedKey)>,
}

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long closing the database may take: what is not flushed by then is in the log.
const CLOSING: Duration = Duration::from_secs(10);
const SWEEP: Duration = Duration::from_secs(30);
/// How long handing all slots over may take.
const HAND_OVER: Duration = Duration::from_secs(12);
/// Services go on sending here for a moment after the node said that it leaves.
const LINGER: Duration = Duration::from_secs(3);
/// Of blocks over a folder: below it lies the page cache, and nobody needs a block twice.
const LOCAL_CACHE: u64 = 8 << 20;
/// Parts of the memory limit: blocks of immutable objects, and what the process needs
/// before it holds any data.
const CACHE_SHARE: u64 = 16;
const BASE: u64 = 64 << 20;

/// Runs until a signal, or until it cannot go on.  `ready` is told once it serves.
pub async fn serve(settings: Settings, ready: impl FnOnce(Ready)) -> Result<Exit, ServeError> {
    rhumb_formats::foreign::hush();
    let mut signals = Signals::new().map_err(ServeError::Signals)?;
    let clock = Clock::system();
    let rand = Rand::from_entropy();
    let ids = Ids::new(clock.clone(), rand.clone());
    let tasks = Tasks::new();
    let me = settings.cluster.as_ref().map(|cluster| Identity {
        pod: cluster.pod.clone(),
        uid: cluster.pod_uid.clone(),
        boot: ids.ulid(),
    });
    let holder = me.as_ref().map_or_else(|| holder(&ids), Identity::to_string);
    // Before the store is waited for: what is wrong with files is known at once.
    let tls = match &settings.guarded {
        Some(guarded) => Some(ServerTls::load(guarded, &clock)?),
        None => None,
    };
    let opening = open(&settings, &holder, &clock, &rand, &ids, &tasks);
    let (bucket, db) = tokio::select! {
        opened = opening => opened?,
        () = signals.any() => return Ok(Exit::Told),
    };
    let listener = bind(settings.listen).await?;
    let address = listener.address;
    let (requests, membership) = (Tasks::new(), Tasks::new());
    // They outlive the requests, whose last deeds they record.
    let guarding = Tasks::new();
    let (guard, admin_key) = match &settings.guarded {
        Some(guarded) => {
            let opening = Guard::open(guarded, &bucket, holder.clone(), &clock, &ids, &guarding);
            let (guard, made) = opening.await?;
            guard.follow(&guarding);
            (Some(guard), made.map(|key| (guarded.admin_key.clone(), key)))
        }
        None => (None, None),
    };
    if let Some(tls) = tls.clone() {
        let stopping = guarding.stopping().clone();
        guarding.spawn("server certificate", OnExit::Stop, async move {
            tokio::select! {
                () = tls.watch() => {}
                () = stopping.cancelled() => {}
            }
        });
    }
    let told = Ready {
        address,
        tls: settings.guarded.as_ref().map(|guarded| guarded.ca.clone()),
        admin_key,
    };
    let readiness = Arc::new(Readiness::default());
    let joined = match (&settings.cluster, me) {
        (Some(cluster), Some(me)) => {
            let world = World {
                clock: clock.clone(),
                rand: rand.clone(),
                tasks: membership.clone(),
            };
            Some(join(cluster, me, &db, &bucket, &readiness, world).await?)
        }
        _ => None,
    };
    let member = joined.as_ref().map(|joined| joined.member.clone());
    let app = App::new(
        db.clone(),
        bucket,
        settings,
        holder,
        clock,
        rand,
        ids,
        requests.clone(),
        readiness,
        member.clone(),
        guard,
        tls,
    );
    let app = Arc::new(app);
    listen(listener, app.clone());
    if let Some(joined) = joined {
        listen_to_peers(joined.listener, joined.tls, app.clone());
    }
    requests.spawn("cursor sweep", OnExit::Stop, sweep(app.clone()));
    ready(told);
    let exit = tokio::select! {
        biased;
        () = db.fenced().cancelled() => Exit::Fenced,
        () = tasks.stopping().cancelled() => Exit::Broken,
        () = requests.stopping().cancelled() => Exit::Broken,
        () = membership.stopping().cancelled() => Exit::Broken,
        () = guarding.stopping().cancelled() => Exit::Broken,
        () = signals.any() => Exit::Told,
    };
    tracing::info!(?exit, "stopping");
    let stopping = async {
        app.leaving.cancel();
        if let Some(member) = &member {
            leave(&member.cluster).await;
        }
        stop(exit, &requests, &db, &tasks).await;
        guarding.shut_down().await;
        membership.shut_down().await;
    };
    tokio::select! {
        () = stopping => {}
        () = signals.any() => tracing::warn!("told twice to stop: stopping now"),
    }
    Ok(exit)
}

struct Joined {
    member: Member,
    tls: Tls,
    listener: Listener,
}

/// From here on this node contends for what it may lead.
async fn join(
    settings: &rhumb_cluster::Settings,
    me: Identity,
    db: &Database,
    bucket: &Bucket,
    readiness: &Arc<Readiness>,
    world: World,
) -> Result<Joined, ServeError> {
    let tls = Tls::load(&settings.tls_dir, &settings.peer_name)?;
    // Peers send requests as soon as the first Lease is taken.
    let listener = bind(settings.peer_listen).await?;
    let collections = Collections {
        db: db.clone(),
        bucket: bucket.clone(),
        readiness: readiness.clone(),
        slots: settings.shards,
    };
    let tasks = world.tasks.clone();
    let watched = tls.clone();
    let stopping = tasks.stopping().clone();
    tasks.spawn("certificates", OnExit::Stop, async move {
        tokio::select! {
            () = watched.watch() => {}
            () = stopping.cancelled() => {}
        }
    });
    let uid = bucket.uid().to_owned();
    let cluster = Cluster::join(settings, me, uid, Arc::new(collections), world)?;
    let member = Member {
        cluster,
        peers: Peers::new(tls.clone(), tasks),
        peer_name: settings.peer_name.as_str().into(),
    };
    Ok(Joined {
        member,
        tls,
        listener,
    })
}

async fn bind(address: SocketAddr) -> Result<Listener, ServeError> {
    let bound = Listener::bind(address).await;
    bound.map_err(|source| ServeError::Listen { address, source })
}

/// Hands over what this node leads; meanwhile, and a little longer, it serves and passes on.
async fn leave(cluster: &Cluster) {
    let handed_over = tokio::time::timeout(HAND_OVER, cluster.drain());
    let (handed_over, ()) = tokio::join!(handed_over, tokio::time::sleep(LINGER));
    if handed_over.is_err() {
        tracing::warn!("handing over took too long: the next leaders wait for the Leases to expire");
    }
}

async fn stop(exit: Exit, requests: &Tasks, db: &Database, tasks: &Tasks) {
    if exit == Exit::Fenced {
        // Who is fenced has nothing to flush; answers that are being written may leave.
        requests.stopping().cancel();
        tasks.stopping().cancel();
        let _ = tokio::time::timeout(Duration::from_secs(1), requests.shut_down()).await;
        return;
    }
    requests.shut_down().await;
    let closed = tokio::time::timeout(CLOSING, async {
        db.close().await;
        tasks.shut_down().await;
    });
    if closed.await.is_err() {
        tracing::warn!("closing took too long: the next start replays the log");
    }
}

/// The bucket and the database in it.  An unreachable store is waited for.
async fn open(
    settings: &Settings,
    holder: &str,
    clock: &Clock,
    rand: &Rand,
    ids: &Ids,
    tasks: &Tasks,
) -> Result<(Bucket, Database), ServeError> {
    let cache = match settings.store.is_local() {
        true => LOCAL_CACHE,
        false => settings.memory_limit.0 / CACHE_SHARE,
    };
    let options = BucketOptions {
        ram_cache_bytes: cache,
        disk_cache: Some((settings.cache_dir.clone(), settings.cache_size.0)),
        master_key: settings.master_key.clone(),
        ..BucketOptions::default()
    };
    let mut pause = FIRST_PAUSE;
    let bucket = loop {
        let opened = Bucket::open(
            &settings.store,
            options.clone(),
            clock.clone(),
            rand.clone(),
            ids.clone(),
        )
        .await;
        match opened {
            Ok(bucket) => break bucket,
            Err(error) if error.kind() == ErrorKind::Retry => wait(&mut pause, &error).await,
            Err(error) => return Err(error.into()),
        }
    };
    let taken = cache + body_budget(settings) + BASE;
    let engine = rhumb_engine::Settings {
        limits: settings.limits.clone(),
        memory_limit: settings.memory_limit.0.saturating_sub(taken) as usize,
        sharing: match (&settings.cluster, settings.store.is_local()) {
            (Some(_), _) => Sharing::Terms,
            (None, true) => Sharing::Locked,
            (None, false) => Sharing::LastComer,
        },
    };
    loop {
        let parts = (clock.clone(), ids.clone(), tasks.clone());
        let opened = Database::open(
            bucket.clone(),
            engine.clone(),
            holder.to_owned(),
            parts.0,
            parts.1,
            parts.2,
        );
        match opened.await {
            Ok(db) => return Ok((bucket, db)),
            Err(EngineError::Store(error)) if error.kind() == ErrorKind::Retry => {
                wait(&mut pause, &error).await
            }
            Err(error) => return Err(ServeError::Database(error)),
        }
    }
}

async fn wait(pause: &mut Duration, error: &StoreError) {
    tracing::warn!(%error, again_in = ?pause, "the store cannot be reached");
    tokio::time::sleep(*pause).await;
    *pause = (*pause * 2).min(LONGEST_PAUSE);
}

async fn sweep(app: Arc<App>) {
    let stopping = app.tasks.stopping().clone();
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(SWEEP) => app.sweep(),
        }
    }
}

/// Names this process where others may meet its traces: host, process, and a word that no
/// other start has.
fn holder(ids: &Ids) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = match host.trim() {
        "" => "unknown",
        host => host,
    };
    format!("{host} pid {} boot {}", std::process::id(), ids.ulid())
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
