//! Data keys: one set per collection and one, `root`, for everything else.
//!
//! A set is one small object, `keys/<scope>.json`, changed by compare-and-swap.  Its newest
//! key seals what is written, the older ones open what was.  In the object the keys are
//! wrapped by the master key; in memory they are in the clear, and wiped when dropped.
//!
//! A set that was destroyed stays behind as an empty one: were the object deleted, a PUT
//! that arrives late could bring the keys back, and a writer that does not know yet would
//! make new ones.
//!
//! When the bucket or the key command does not answer, sets that are known serve on, and
//! what needs another one fails with kind `Retry` before anything is written.

use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use object_store::path::Path;
use parking_lot::Mutex;
use rhumb_core::CollectionId;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::format::{DataKey, KeyId};
use super::master::{Context, MasterKey, Wrapped};
use super::problem::KeyProblem;
use super::{KEYS, is_plain};
use crate::cas::{Cas, Swap, Versioned};
use crate::{Bucket, Result, StoreError};

/// After this long a process learns that a collection's keys were destroyed by another one.
const FRESH_FOR: Duration = Duration::from_secs(3_600);
const MOST_SCOPES: u64 = 50_000;
/// Keys of one set: what a century of yearly renewals makes.
const MOST_KEYS: usize = 100;
/// Others that may come between one change of a set.
const RACES: u32 = 64;

/// Whose data key an object is sealed with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Scope {
    Root,
    Collection(CollectionId),
}

impl Scope {
    /// Of an object, by its path relative to the prefix of the database.
    pub(super) fn of(relative: &str) -> Self {
        let mut parts = relative.split('/');
        match (parts.next(), parts.next(), parts.next()) {
            (Some("c"), Some(id), Some(_)) => CollectionId::parse(id).map_or(Self::Root, Self::Collection),
            _ => Self::Root,
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Root => "root".into(),
            Self::Collection(id) => format!("c-{id}"),
        }
    }

    fn named(name: &str) -> Option<Self> {
        match name.strip_prefix("c-") {
            Some(id) => CollectionId::parse(id).ok().map(Self::Collection),
            None => (name == "root").then_some(Self::Root),
        }
    }
}

/// A set as it lies in the bucket, oldest key first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeySet {
    database: String,
    scope: String,
    keys: Vec<KeyEntry>,
    destroyed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyEntry {
    /// 32 hex digits.
    id: String,
    wrapped: Wrapped,
}

/// A set in the clear.
#[derive(Debug)]
pub(crate) struct OpenKeys {
    scope: Scope,
    keys: Vec<Arc<DataKey>>,
    checked: Mutex<Instant>,
}

impl OpenKeys {
    pub(crate) fn newest(&self) -> Result<Arc<DataKey>> {
        self.keys.last().cloned().ok_or_else(|| {
            KeyProblem::Destroyed {
                scope: self.scope.name(),
            }
            .into()
        })
    }

    pub(crate) fn by_id(&self, id: KeyId) -> Option<Arc<DataKey>> {
        self.keys.iter().find(|key| key.id == id).cloned()
    }

    /// True for one caller per `FRESH_FOR`; the others go on with what they have.
    fn must_be_checked(&self) -> bool {
        let mut checked = self.checked.lock();
        let stale = checked.elapsed() > FRESH_FOR;
        if stale {
            *checked = Instant::now();
        }
        stale
    }
}

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Keyring(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// The bucket without encryption, where the sets lie.
    plain: Bucket,
    master: Arc<MasterKey>,
    known: moka::sync::Cache<Scope, Arc<OpenKeys>>,
}

impl Keyring {
    /// Opens the root set, or makes it when the database is new: a master key that is not
    /// the right one fails here.
    pub(crate) async fn open(plain: Bucket, master: Arc<MasterKey>) -> Result<Self> {
        let keyring = Self(Arc::new(Inner {
            plain,
            master,
            known: moka::sync::Cache::new(MOST_SCOPES),
        }));
        let root = Scope::Root;
        if keyring.keys(&root).await?.is_none() {
            // Looked up again: another first start may have come between.
            if keyring.anything_is_sealed().await? && keyring.keys(&root).await?.is_none() {
                return Err(StoreError::Corrupt {
                    path: keyring.path(&root),
                    reason: "it is missing, and the database has objects that its keys sealed".into(),
                });
            }
            keyring.newest(&root).await?;
        }
        Ok(keyring)
    }

    pub(crate) fn uid(&self) -> &str {
        self.0.plain.uid()
    }

    pub(crate) fn master(&self) -> &MasterKey {
        &self.0.master
    }

    /// The path below the prefix of the database.
    pub(super) fn relative<'a>(&self, location: &'a Path) -> &'a str {
        let (whole, prefix) = (location.as_ref(), self.0.plain.prefix().as_ref());
        if prefix.is_empty() {
            return whole;
        }
        let below = whole.strip_prefix(prefix);
        below.and_then(|rest| rest.strip_prefix('/')).unwrap_or(whole)
    }

    pub(super) fn scope_of(&self, location: &Path) -> Scope {
        Scope::of(self.relative(location))
    }

    /// The key that seals what is written now; made when there is none.
    pub(crate) async fn newest(&self, scope: &Scope) -> Result<Arc<DataKey>> {
        match self.keys(scope).await? {
            Some(keys) => keys.newest(),
            None => self.create(scope).await?.newest(),
        }
    }

    /// The key that sealed an object.  `None` when `scope` never had it.
    pub(crate) async fn key(&self, scope: &Scope, id: KeyId) -> Result<Option<Arc<DataKey>>> {
        let Some(keys) = self.keys(scope).await? else {
            return Ok(None);
        };
        keys.newest()?;
        if let Some(key) = keys.by_id(id) {
            return Ok(Some(key));
        }
        // Another process may have renewed the key since.
        let Some(keys) = self.load(scope).await? else {
            return Ok(None);
        };
        keys.newest()?;
        Ok(keys.by_id(id))
    }

    /// `None` when nothing was ever sealed in `scope`.
    pub(crate) async fn keys(&self, scope: &Scope) -> Result<Option<Arc<OpenKeys>>> {
        let Some(known) = self.0.known.get(scope) else {
            return self.load(scope).await;
        };
        if !known.must_be_checked() {
            return Ok(Some(known));
        }
        match self.load(scope).await {
            Ok(Some(fresh)) => Ok(Some(fresh)),
            Ok(None) => {
                tracing::warn!(
                    scope = scope.name(),
                    "the data keys in use are gone from the bucket"
                );
                Ok(Some(known))
            }
            Err(error) => {
                tracing::warn!(%error, scope = scope.name(), "the data keys in use could not be looked up");
                Ok(Some(known))
            }
        }
    }

    /// Adds a key that seals what is written from now on.
    pub(crate) async fn renew(&self, scope: &Scope) -> Result<()> {
        self.newest(scope).await?;
        let entry = self.mint(scope).await?;
        self.change(scope, |set| {
            if set.destroyed {
                return Err(KeyProblem::Destroyed { scope: scope.name() }.into());
            }
            if set.keys.iter().any(|known| known.id == entry.id) {
                return Ok(None);
            }
            if set.keys.len() >= MOST_KEYS {
                return Err(KeyProblem::Unusable(format!("{MOST_KEYS} data keys are enough")).into());
            }
            let mut next = set.clone();
            next.keys.push(entry.clone());
            Ok(Some(next))
        })
        .await?;
        self.load(scope).await.map(drop)
    }

    /// Destroys the keys of a collection.  Whatever they sealed is noise from here on,
    /// wherever a copy of it lies.  Repeating it is fine.
    pub(crate) async fn destroy(&self, collection: &CollectionId) -> Result<()> {
        let scope = Scope::Collection(collection.clone());
        let empty = KeySet {
            database: self.uid().to_owned(),
            scope: scope.name(),
            keys: Vec::new(),
            destroyed: true,
        };
        if self.cas(&scope).load().await?.is_none() {
            match self.cas(&scope).create(empty.clone()).await? {
                Swap::Landed(_) => return Ok(()),
                Swap::Lost(_) => {}
                Swap::Unknown => return Err(self.unknown(&scope)),
            }
        }
        self.change(&scope, |set| Ok((!set.destroyed).then(|| empty.clone())))
            .await?;
        self.0.known.invalidate(&scope);
        Ok(())
    }

    /// Wraps every data key by `to`, or anew by the first key of it, and says how many sets
    /// changed.  No data is touched; servers that hold the old and the new key run on.
    pub(crate) async fn rewrap(&self, to: &MasterKey) -> Result<usize> {
        let folder = self.0.plain.path(KEYS);
        let listed: Vec<_> = self.0.plain.list(&folder).try_collect().await?;
        let mut changed = 0;
        for object in listed {
            let name = object
                .location
                .filename()
                .and_then(|name| name.strip_suffix(".json"));
            if let Some(scope) = name.and_then(Scope::named) {
                changed += usize::from(self.rewrap_one(&scope, to).await?);
            }
        }
        Ok(changed)
    }

    async fn rewrap_one(&self, scope: &Scope, to: &MasterKey) -> Result<bool> {
        let cas = self.cas(scope);
        for _ in 0..RACES {
            let Some(found) = cas.load().await? else {
                return Ok(false);
            };
            let mut next = self.checked(scope, &found.value)?.clone();
            for entry in &mut next.keys {
                if to.is_newest(&entry.wrapped) {
                    continue;
                }
                let secret = self.unwrap(scope, entry).await?;
                entry.wrapped = to.wrap(&secret, &self.context(&scope.name(), &entry.id)).await?;
            }
            if next == found.value {
                return Ok(false);
            }
            match cas.replace(&found, next).await? {
                Swap::Landed(_) => return Ok(true),
                Swap::Lost(_) => {}
                Swap::Unknown => return Err(self.unknown(scope)),
            }
        }
        Err(StoreError::Conflict {
            path: self.path(scope),
        })
    }

    /// Changes a set that is there, unless `edit` has nothing to change.
    async fn change(&self, scope: &Scope, edit: impl Fn(&KeySet) -> Result<Option<KeySet>>) -> Result<()> {
        let cas = self.cas(scope);
        for _ in 0..RACES {
            let found = cas.load().await?.ok_or_else(|| StoreError::NotFound {
                path: self.path(scope),
            })?;
            let Some(next) = edit(self.checked(scope, &found.value)?)? else {
                return Ok(());
            };
            match cas.replace(&found, next).await? {
                Swap::Landed(_) => return Ok(()),
                Swap::Lost(_) => {}
                Swap::Unknown => return Err(self.unknown(scope)),
            }
        }
        Err(StoreError::Conflict {
            path: self.path(scope),
        })
    }

    /// A root set is made for an empty database only: in any other one it was lost, and a
    /// new one would hide that until somebody reads.
    async fn anything_is_sealed(&self) -> Result<bool> {
        let mut listed = self.0.plain.list(self.0.plain.prefix());
        while let Some(object) = listed.try_next().await? {
            if !is_plain(self.relative(&object.location)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn create(&self, scope: &Scope) -> Result<Arc<OpenKeys>> {
        let entry = self.mint(scope).await?;
        let set = KeySet {
            database: self.uid().to_owned(),
            scope: scope.name(),
            keys: vec![entry],
            destroyed: false,
        };
        match self.cas(scope).create(set).await? {
            // Whoever made it: it is the set of everybody.
            Swap::Landed(found) | Swap::Lost(found) => self.unlock(scope, found).await,
            Swap::Unknown => Err(self.unknown(scope)),
        }
    }

    async fn load(&self, scope: &Scope) -> Result<Option<Arc<OpenKeys>>> {
        match self.cas(scope).load().await? {
            Some(found) => self.unlock(scope, found).await.map(Some),
            None => Ok(None),
        }
    }

    /// Unwraps what is not known in the clear yet.
    async fn unlock(&self, scope: &Scope, found: Versioned<KeySet>) -> Result<Arc<OpenKeys>> {
        let set = self.checked(scope, &found.value)?;
        let known = self.0.known.get(scope);
        let mut keys = Vec::with_capacity(set.keys.len());
        for entry in &set.keys {
            let id = self.id_of(scope, entry)?;
            let key = match known.as_ref().and_then(|known| known.by_id(id)) {
                Some(key) => key,
                None => Arc::new(DataKey::new(id, self.unwrap(scope, entry).await?)),
            };
            keys.push(key);
        }
        let open = Arc::new(OpenKeys {
            scope: scope.clone(),
            keys,
            checked: Mutex::new(Instant::now()),
        });
        self.0.known.insert(scope.clone(), open.clone());
        Ok(open)
    }

    /// A set of another database or scope does not even get to the master key.
    fn checked<'a>(&self, scope: &Scope, set: &'a KeySet) -> Result<&'a KeySet> {
        if set.database == self.uid() && set.scope == scope.name() && set.destroyed == set.keys.is_empty() {
            return Ok(set);
        }
        Err(StoreError::Corrupt {
            path: self.path(scope),
            reason: format!("it is the key set `{}` of database {}", set.scope, set.database),
        })
    }

    async fn mint(&self, scope: &Scope) -> Result<KeyEntry> {
        let key = DataKey::mint();
        let id = format!("{:?}", key.id);
        let scope = scope.name();
        let wrapped = self
            .0
            .master
            .wrap(key.secret(), &self.context(&scope, &id))
            .await?;
        Ok(KeyEntry { id, wrapped })
    }

    async fn unwrap(&self, scope: &Scope, entry: &KeyEntry) -> Result<Zeroizing<[u8; 32]>> {
        let scope = scope.name();
        let context = self.context(&scope, &entry.id);
        Ok(self.0.master.unwrap(&entry.wrapped, &context).await?)
    }

    fn context<'a>(&'a self, scope: &'a str, key: &'a str) -> Context<'a> {
        Context {
            database: self.uid(),
            scope,
            key,
        }
    }

    fn id_of(&self, scope: &Scope, entry: &KeyEntry) -> Result<KeyId> {
        let plain = entry.id.len() == 32 && entry.id.bytes().all(|b| b.is_ascii_hexdigit());
        let id = u128::from_str_radix(&entry.id, 16).ok().filter(|_| plain);
        id.map(|id| KeyId(id.to_be_bytes()))
            .ok_or_else(|| StoreError::Corrupt {
                path: self.path(scope),
                reason: "the name of a key is not one".into(),
            })
    }

    fn cas(&self, scope: &Scope) -> Cas<KeySet> {
        Cas::new(self.0.plain.clone(), self.path(scope))
    }

    pub(super) fn path(&self, scope: &Scope) -> Path {
        self.0.plain.path(&format!("{KEYS}/{}.json", scope.name()))
    }

    fn unknown(&self, scope: &Scope) -> StoreError {
        StoreError::Unknown {
            path: self.path(scope),
        }
    }
}
