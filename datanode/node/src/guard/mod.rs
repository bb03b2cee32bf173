//! Who is asking: the directory of identities as this node knows it, and everything that
//! takes or gives proofs of them.
//!
//! The directory is one object, `auth/state.json`, changed by compare-and-swap.  A node
//! looks for a newer one every second, so a key revoked anywhere is refused everywhere
//! within two.  While the store is silent the last known state serves for `PATIENCE`; then
//! nobody is let in any more, since a revocation could not have been seen.

mod admin_key;
mod audit;
mod issuers;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use rhumb_auth::{
    Bound, Buckets, Change, Denied, Directory, DirectoryError, Identity, MintedKey, Over, Pace, Secret,
    Subject, jwt,
};
use rhumb_core::{Code, Problem};
use rhumb_seams::{Clock, Ids, OnExit, Tasks};
use rhumb_store::cas::{Cas, Swap, Versioned};
use rhumb_store::{Bucket, StoreError, Tag};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::settings::Guarded;
pub use admin_key::AdminKeyError;
pub use audit::{
    Audit, Entry as AuditEntry, Query as AuditQuery, Verdict as AuditVerdict, verify as verify_audit,
};
use issuers::Issuers;
pub use issuers::{IssuerSettings, KeysFrom, safe};

const OBJECT: &str = "auth/state.json";
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LOOK_PATIENCE: Duration = Duration::from_secs(3);
/// How old the directory may be before nobody is believed any more.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// Uses of keys are told to the directory this often, and to no finer grain.
const NOTE_EVERY: Duration = Duration::from_secs(60);
/// Others that may come between a look at the directory and its change.
const RACES: u32 = 64;
/// Subjects whose pace is watched.
const WATCHED: usize = 50_000;
/// Passwords that are checked at once: each takes 19 MiB and a core.
const LOGINS: usize = 2;
/// Of one name: a burst of ten, then one in six seconds.
const ATTEMPTS_PER_S: f64 = 1.0 / 6.0;
const ATTEMPTS: f64 = 10.0;

pub struct Guard {
    cas: Cas<Directory>,
    known: RwLock<Arc<Known>>,
    issuers: Issuers,
    pace: Pace,
    buckets: Mutex<Buckets>,
    attempts: Mutex<BTreeMap<String, (f64, Instant)>>,
    uses: Mutex<BTreeMap<String, i64>>,
    pub logins: Semaphore,
    pub audit: Audit,
    pub audit_reads: bool,
    /// The admin key's file, when others write it.
    admin_key: Option<PathBuf>,
    clock: Clock,
    ids: Ids,
}

struct Known {
    directory: Arc<Directory>,
    tag: Tag,
    seen: Instant,
}

#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the identities cannot be changed: {0}")]
    Directory(#[from] DirectoryError),
    #[error("the outcome of writing the identities is unknown")]
    Unknown,
    #[error(transparent)]
    AdminKey(#[from] AdminKeyError),
    #[error("issuers: {0}")]
    Issuers(String),
}

/// Why nobody was let in.
#[derive(Debug)]
pub enum Unlet {
    Denied(Denied),
    Token(jwt::JwtDenied),
    /// Nobody can be believed at the moment.
    Unavailable(&'static str),
}

impl Guard {
    /// The directory, made if there is none, and a valid admin key in its file.  `told` is
    /// what was made, for the one moment it is shown.
    pub async fn open(
        settings: &Guarded,
        bucket: &Bucket,
        node: String,
        clock: &Clock,
        ids: &Ids,
        tasks: &Tasks,
    ) -> Result<(Arc<Self>, Option<MintedKey>), GuardError> {
        let cas = Cas::new(bucket.clone(), bucket.path(OBJECT));
        let found = match cas.load().await? {
            Some(found) => found,
            None => match cas
                .create(Directory::new(Secret::random(), Secret::random()))
                .await?
            {
                Swap::Landed(made) | Swap::Lost(made) => made,
                Swap::Unknown => return Err(GuardError::Unknown),
            },
        };
        let issuers = Issuers::new(settings.issuers.clone()).map_err(GuardError::Issuers)?;
        let audit = Audit::start(
            bucket.clone(),
            node,
            clock.clone(),
            ids.clone(),
            tasks,
            settings.audit_days,
        );
        let guard = Arc::new(Self {
            cas,
            known: RwLock::new(Arc::new(Known::of(found))),
            issuers,
            pace: settings.pace,
            buckets: Mutex::new(Buckets::new(WATCHED)),
            attempts: Mutex::default(),
            uses: Mutex::default(),
            logins: Semaphore::new(LOGINS),
            audit,
            audit_reads: settings.audit_reads,
            admin_key: (!settings.makes_admin_key).then(|| settings.admin_key.clone()),
            clock: clock.clone(),
            ids: ids.clone(),
        });
        let made = admin_key::ensure(&guard, &settings.admin_key, settings.makes_admin_key).await?;
        Ok((guard, made))
    }

    /// Follows the directory and tells it of uses, until `tasks` stop.
    pub fn follow(self: &Arc<Self>, tasks: &Tasks) {
        let (guard, stopping) = (self.clone(), tasks.stopping().clone());
        tasks.spawn("identities", OnExit::Stop, async move {
            tokio::select! {
                () = stopping.cancelled() => {}
                () = guard.look() => {}
            }
        });
        if let Some(path) = self.admin_key.clone() {
            let (guard, stopping) = (self.clone(), tasks.stopping().clone());
            tasks.spawn("admin key", OnExit::Stop, async move {
                tokio::select! {
                    () = stopping.cancelled() => {}
                    () = admin_key::follow(&guard, &path) => {}
                }
            });
        }
        let (guard, stopping) = (self.clone(), tasks.stopping().clone());
        tasks.spawn("uses of keys", OnExit::Stop, async move {
            while !stopping.is_cancelled() {
                tokio::select! {
                    () = stopping.cancelled() => {}
                    () = tokio::time::sleep(NOTE_EVERY) => {}
                }
                guard.note_uses().await;
            }
        });
    }

    pub fn now_ms(&self) -> i64 {
        self.clock.unix_ms()
    }

    pub fn new_id(&self) -> String {
        self.ids.ulid().to_ascii_lowercase()
    }

    pub fn directory(&self) -> Arc<Directory> {
        self.known.read().directory.clone()
    }

    // Who is this?

    pub async fn authenticate(
        &self,
        bearer: Option<&str>,
        certificate: Option<&str>,
    ) -> Result<Identity, Unlet> {
        let known = self.known.read().clone();
        if known.seen.elapsed() > PATIENCE {
            return Err(Unlet::Unavailable(
                "the store has been silent for so long that revoked credentials would not be noticed",
            ));
        }
        let identity = match (bearer, certificate) {
            (Some(token), _) if jwt::is_one(token) => self.token(&known.directory, token).await?,
            (Some(secret), _) => {
                let identity = known
                    .directory
                    .identify(secret, self.now_ms())
                    .map_err(Unlet::Denied)?;
                self.used(&known.directory, &identity.subject);
                identity
            }
            (None, Some(name)) => known
                .directory
                .identify_user(name)
                .ok_or(Unlet::Denied(Denied::Invalid))?,
            (None, None) => return Err(Unlet::Denied(Denied::Missing)),
        };
        Ok(Identity {
            pace: identity.pace.or(self.pace),
            ..identity
        })
    }

    async fn token(&self, directory: &Directory, token: &str) -> Result<Identity, Unlet> {
        let vouched = self
            .issuers
            .verify(token, self.now_ms())
            .await
            .map_err(Unlet::Token)?;
        Ok(directory.identify_token(&vouched.issuer, &vouched.subject, &vouched.roles, vouched.claims))
    }

    fn used(&self, directory: &Directory, subject: &Subject) {
        let Some(id) = subject.as_str().strip_prefix("key:") else {
            return;
        };
        let now = self.now_ms();
        let stale = |at: i64| now - at >= NOTE_EVERY.as_millis() as i64;
        let noted = directory.keys.get(id).and_then(|key| key.last_used_ms);
        if noted.is_some_and(|at| !stale(at)) {
            return;
        }
        let mut uses = self.uses.lock();
        match uses.get_mut(id) {
            Some(at) => *at = now,
            None => drop(uses.insert(id.to_owned(), now)),
        }
    }

    // How much may they?

    pub fn admit(self: &Arc<Self>, identity: &Identity) -> Result<Place, Over> {
        let boundless = identity.pace.is_boundless();
        if !boundless {
            let now = self.clock.steady();
            self.buckets
                .lock()
                .admit(&identity.subject, &identity.pace, now)?;
        }
        Ok(Place {
            guard: (!boundless).then(|| self.clone()),
            subject: identity.subject.clone(),
        })
    }

    /// Of a request that a peer has let in.
    pub fn admit_passed_on(&self, identity: &Identity) -> Result<(), Over> {
        if !identity.pace.counts_where_served() {
            return Ok(());
        }
        let now = self.clock.steady();
        let mut buckets = self.buckets.lock();
        buckets.admit_passed_on(&identity.subject, &identity.pace, now)
    }

    pub fn spend(&self, subject: &Subject, bound: Bound, amount: f64) {
        self.buckets.lock().spend(subject, bound, amount);
    }

    /// Whether one more password may be tried for this name.
    /// The error is how long until it may.
    pub fn may_try(&self, name: &str) -> Result<(), Duration> {
        let now = Instant::now();
        let mut attempts = self.attempts.lock();
        if attempts.len() >= WATCHED {
            // Full again by then: nothing is forgotten that still counts.
            attempts.retain(|_, (_, at)| now.duration_since(*at) < Duration::from_secs(60));
        }
        let (left, at) = attempts.entry(name.to_owned()).or_insert((ATTEMPTS, now));
        *left = (*left + now.duration_since(*at).as_secs_f64() * ATTEMPTS_PER_S).min(ATTEMPTS);
        *at = now;
        if *left < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - *left) / ATTEMPTS_PER_S));
        }
        *left -= 1.0;
        Ok(())
    }

    // Changes.

    /// Makes a change, again on each newer state until nobody came between.
    pub async fn change<T, E: Into<Problem>>(
        &self,
        mut edit: impl FnMut(&Directory) -> Result<Change<T>, E>,
    ) -> Result<T, Problem> {
        let unavailable = |error: StoreError| {
            Problem::new(
                Code::Unavailable,
                format!("the identities cannot be changed: {error}"),
            )
        };
        let mut current = match self.cas.load().await.map_err(unavailable)? {
            Some(current) => current,
            None => {
                return Err(Problem::new(
                    Code::Unavailable,
                    "the identities are gone from the store",
                ));
            }
        };
        for _ in 0..RACES {
            let change = edit(&current.value).map_err(Into::into)?;
            match self
                .cas
                .replace(&current, change.directory)
                .await
                .map_err(unavailable)?
            {
                Swap::Landed(now) => {
                    self.adopt(now);
                    return Ok(change.answer);
                }
                Swap::Lost(now) => current = now,
                Swap::Unknown => {
                    let detail = "whether the identities were changed is not known";
                    return Err(Problem::new(Code::OutcomeUnknown, detail).hint("look, and ask again"));
                }
            }
        }
        Err(Problem::new(
            Code::Unavailable,
            "the identities are being changed by too many others",
        ))
    }

    fn adopt(&self, found: Versioned<Directory>) {
        *self.known.write() = Arc::new(Known::of(found));
    }

    async fn look(&self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            match tokio::time::timeout(LOOK_PATIENCE, self.look_once()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "the identities cannot be looked at"),
                Err(_) => tracing::debug!("the identities cannot be looked at in time"),
            }
        }
    }

    async fn look_once(&self) -> Result<(), StoreError> {
        let known = self.known.read().clone();
        let begin = Instant::now();
        if self.cas.is_still(&known.tag).await? {
            let same = Known {
                directory: known.directory.clone(),
                tag: known.tag.clone(),
                seen: begin,
            };
            let mut now = self.known.write();
            // A change of our own may have come in between.
            if now.tag.etag == same.tag.etag {
                *now = Arc::new(same);
            }
        } else if let Some(found) = self.cas.load().await? {
            self.adopt(found);
        }
        Ok(())
    }

    async fn note_uses(&self) {
        let uses = std::mem::take(&mut *self.uses.lock());
        if uses.is_empty() {
            return;
        }
        let noted = self.change(|directory| {
            Ok::<_, Problem>(Change {
                directory: directory.note_uses(&uses),
                answer: (),
            })
        });
        if let Err(error) = noted.await {
            tracing::debug!(%error, "uses of keys are not noted yet");
            let mut newer = self.uses.lock();
            for (id, at) in uses {
                newer.entry(id).or_insert(at);
            }
        }
    }
}

impl Known {
    fn of(found: Versioned<Directory>) -> Self {
        Self {
            directory: Arc::new(found.value),
            tag: found.tag,
            seen: Instant::now(),
        }
    }
}

/// A request's place among those of its subject; free again when dropped.
pub struct Place {
    guard: Option<Arc<Guard>>,
    subject: Subject,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(guard) = &self.guard {
            guard.buckets.lock().release(&self.subject);
        }
    }
}

/// A refusal of the rules, in the words of the API.
pub fn problem_of(error: &DirectoryError) -> Problem {
    let code = match error {
        DirectoryError::NotFound(..) => Code::IdentityNotFound,
        DirectoryError::Full(..) => Code::LimitExceeded,
        DirectoryError::UnknownRole(_)
        | DirectoryError::UnknownUser(_)
        | DirectoryError::UnknownGroup(_)
        | DirectoryError::BuiltIn(_)
        | DirectoryError::Role(_)
        | DirectoryError::Invalid(_) => Code::InvalidValue,
    };
    let problem = Problem::new(code, error.to_string());
    match error.field() {
        Some(field) => problem.field(field),
        None => problem,
    }
}
