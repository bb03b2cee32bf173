//! The object store: a map, changed one request at a time, so linearizable by construction.
//!
//! A request is a task of its own.  Whoever sent it may be killed, paused or out of
//! patience: the request goes on, is applied when it arrives, and its answer goes to
//! whoever still listens.  That is what makes lost responses, delayed PUTs that land after
//! GC, and duplicates possible.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    Attributes, CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;
use rhumb_seams::{Clock, OnExit, Tasks};
use tokio::sync::oneshot;

use crate::network::{End, Fate, Line, SILENCE};
use crate::trace::Trace;
use crate::watch::Watch;

#[derive(Clone)]
pub struct World(Arc<Shared>);

struct Shared {
    objects: Mutex<Objects>,
    watch: Mutex<Watch>,
    trace: Trace,
    clock: Clock,
    /// Requests under way.
    tasks: Tasks,
}

#[derive(Default)]
struct Objects {
    map: BTreeMap<Path, Object>,
    written: u64,
    requests: u64,
}

#[derive(Clone)]
struct Object {
    bytes: Bytes,
    attributes: Attributes,
    meta: ObjectMeta,
}

#[derive(Clone)]
enum Request {
    Put {
        path: Path,
        bytes: Bytes,
        options: PutOptions,
    },
    Get {
        path: Path,
        options: GetOptions,
    },
    Delete {
        path: Path,
    },
    List {
        prefix: Option<Path>,
        after: Option<Path>,
    },
}

enum Answer {
    Put(PutResult),
    Get(Box<Object>, GetOptions),
    Deleted,
    Listed(Vec<ObjectMeta>),
}

#[derive(Debug, thiserror::Error)]
#[error("simulated: {0}")]
struct Injected(&'static str);

fn injected(what: &'static str) -> Error {
    Error::Generic {
        store: "sim",
        source: Box::new(Injected(what)),
    }
}

fn denied() -> Error {
    Error::PermissionDenied {
        path: String::new(),
        source: Box::new(Injected("403")),
    }
}

impl World {
    pub fn new(clock: Clock, trace: Trace) -> Self {
        let (objects, watch) = (Mutex::default(), Mutex::new(Watch::default()));
        Self(Arc::new(Shared {
            objects,
            watch,
            trace,
            clock,
            tasks: Tasks::new(),
        }))
    }

    pub fn store(&self, line: Line) -> Arc<SimStore> {
        Arc::new(SimStore {
            world: self.clone(),
            line,
        })
    }

    /// What must never happen to an object, and happened.
    pub fn violations(&self) -> Vec<String> {
        self.0.watch.lock().violations.clone()
    }

    pub fn requests(&self) -> u64 {
        self.0.objects.lock().requests
    }

    /// Paths below `prefix`, as they are.
    pub fn paths(&self, prefix: &str) -> Vec<Path> {
        let objects = self.0.objects.lock();
        objects
            .map
            .keys()
            .filter(|path| path.as_ref().contains(prefix))
            .cloned()
            .collect()
    }

    async fn send(&self, line: &Line, request: Request) -> Result<Answer> {
        let fate = line.draw(&request.to_string(), request.is_write());
        let (answer_to, answer) = oneshot::channel();
        let (world, name) = (self.clone(), line.name.clone());
        drop(self.0.tasks.spawn("request", OnExit::Fine, async move {
            world.carry(&name, request, fate, answer_to).await;
        }));
        answer
            .await
            .unwrap_or_else(|_| Err(injected("the network is gone")))
    }

    async fn carry(&self, from: &str, request: Request, fate: Fate, to: oneshot::Sender<Result<Answer>>) {
        tokio::time::sleep(fate.there).await;
        // Whether anybody still listens is no concern of the network.
        let answer = |answer| drop(to.send(answer));
        match fate.end {
            End::Refused { silent } | End::Lost { silent } => {
                if matches!(fate.end, End::Lost { .. }) {
                    drop(self.apply(from, "", &request));
                }
                if silent {
                    tokio::time::sleep(SILENCE).await;
                }
                answer(Err(injected("connection reset")));
            }
            End::Denied => {
                tokio::time::sleep(fate.back).await;
                answer(Err(denied()));
            }
            End::Late(wait) => {
                answer(Err(injected("timed out")));
                self.later(from, &request, wait).await;
            }
            End::Answered | End::Damaged { .. } => {
                let found = self.apply(from, "", &request);
                tokio::time::sleep(fate.back).await;
                answer(if let End::Damaged { flip } = fate.end {
                    found.map(|a| damage(a, flip))
                } else {
                    found
                });
            }
        }
        if let Some(wait) = fate.again {
            self.later(from, &request, wait).await;
        }
    }

    async fn later(&self, from: &str, request: &Request, wait: Duration) {
        tokio::time::sleep(wait).await;
        drop(self.apply(from, "late ", request));
    }

    fn apply(&self, from: &str, how: &str, request: &Request) -> Result<Answer> {
        let now = DateTime::<Utc>::from_timestamp_millis(self.0.clock.unix_ms()).unwrap_or_default();
        let mut objects = self.0.objects.lock();
        objects.requests += 1;
        let answer = match request {
            Request::Put { path, bytes, options } => {
                let before = objects.map.get(path).map(|o| o.bytes.clone());
                let put = objects.put(path, bytes, options, now);
                if put.is_ok() {
                    self.0.watch.lock().saw_put(path, before.as_ref(), bytes);
                }
                put.map(Answer::Put)
            }
            Request::Get { path, options } => objects.get(path, options),
            Request::Delete { path } => {
                if let Some(gone) = objects.map.remove(path) {
                    self.0.watch.lock().saw_delete(path, &gone.bytes);
                }
                Ok(Answer::Deleted)
            }
            Request::List { prefix, after } => {
                Ok(Answer::Listed(objects.list(prefix.as_ref(), after.as_ref())))
            }
        };
        let end = if answer.is_ok() { "ok" } else { "no" };
        self.0.trace.note(format_args!("{from} {how}{request} {end}"));
        answer
    }
}

impl Objects {
    fn put(
        &mut self,
        path: &Path,
        bytes: &Bytes,
        options: &PutOptions,
        now: DateTime<Utc>,
    ) -> Result<PutResult> {
        let there = self.map.get(path).map(|o| &o.meta.e_tag);
        let name = || path.to_string();
        match (&options.mode, there) {
            (PutMode::Overwrite, _) | (PutMode::Create, None) => {}
            (PutMode::Create, Some(_)) => {
                return Err(Error::AlreadyExists {
                    path: name(),
                    source: Box::new(Injected("412")),
                });
            }
            (PutMode::Update(expected), there) => {
                if there.is_none_or(|tag| *tag != expected.e_tag) {
                    return Err(Error::Precondition {
                        path: name(),
                        source: Box::new(Injected("412")),
                    });
                }
            }
        }
        self.written += 1;
        let e_tag = Some(format!("\"{}\"", self.written));
        let meta = ObjectMeta {
            location: path.clone(),
            last_modified: now,
            size: bytes.len() as u64,
            e_tag: e_tag.clone(),
            version: None,
        };
        let object = Object {
            bytes: bytes.clone(),
            attributes: options.attributes.clone(),
            meta,
        };
        self.map.insert(path.clone(), object);
        Ok(PutResult {
            e_tag,
            version: None,
            extensions: Default::default(),
        })
    }

    fn get(&self, path: &Path, options: &GetOptions) -> Result<Answer> {
        let missing = || Error::NotFound {
            path: path.to_string(),
            source: Box::new(Injected("404")),
        };
        let object = self.map.get(path).ok_or_else(missing)?;
        options.check_preconditions(&object.meta)?;
        Ok(Answer::Get(Box::new(object.clone()), options.clone()))
    }

    fn list(&self, prefix: Option<&Path>, after: Option<&Path>) -> Vec<ObjectMeta> {
        let inside = |path: &Path| {
            prefix.is_none_or(|p| path.prefix_match(p).is_some_and(|mut rest| rest.next().is_some()))
        };
        let listed = self
            .map
            .iter()
            .filter(|(path, _)| inside(path) && after.is_none_or(|a| *path > a));
        listed.map(|(_, object)| object.meta.clone()).collect()
    }
}

/// Flips a bit of the body, or loses its last byte, under an unchanged length.
fn damage(answer: Answer, flip: bool) -> Answer {
    let Answer::Get(mut object, options) = answer else {
        return answer;
    };
    let mut bytes = object.bytes.to_vec();
    if flip {
        let at = bytes.len() / 2;
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 0x20;
        }
    } else {
        bytes.pop();
    }
    object.bytes = bytes.into();
    Answer::Get(object, options)
}

impl Request {
    fn is_write(&self) -> bool {
        matches!(self, Self::Put { .. } | Self::Delete { .. })
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put { path, bytes, .. } => write!(f, "put {path} {}", xxhash_rust::xxh3::xxh3_64(bytes)),
            Self::Get { path, options } if options.head => write!(f, "head {path}"),
            Self::Get { path, .. } => write!(f, "get {path}"),
            Self::Delete { path } => write!(f, "delete {path}"),
            Self::List { prefix, .. } => write!(f, "list {}", prefix.as_ref().map_or("", Path::as_ref)),
        }
    }
}

/// The store as one process reaches it.
pub struct SimStore {
    world: World,
    line: Line,
}

impl fmt::Debug for SimStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimStore({})", self.line.name)
    }
}

impl fmt::Display for SimStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl SimStore {
    fn listing(&self, prefix: Option<&Path>, after: Option<Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (world, line, prefix) = (self.world.clone(), self.line.clone(), prefix.cloned());
        stream::once(async move {
            match world.send(&line, Request::List { prefix, after }).await? {
                Answer::Listed(all) => Ok(stream::iter(all).map(Ok)),
                _ => Err(injected("an answer to another question")),
            }
        })
        .try_flatten()
        .boxed()
    }
}

#[async_trait]
impl ObjectStore for SimStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let request = Request::Put {
            path: path.clone(),
            bytes: payload.into(),
            options,
        };
        match self.world.send(&self.line, request).await? {
            Answer::Put(put) => Ok(put),
            _ => Err(injected("an answer to another question")),
        }
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(Error::NotImplemented {
            operation: "put_multipart".into(),
            implementer: self.to_string(),
        })
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let request = Request::Get {
            path: path.clone(),
            options,
        };
        let Answer::Get(object, options) = self.world.send(&self.line, request).await? else {
            return Err(injected("an answer to another question"));
        };
        let size = object.meta.size;
        let range = match &options.range {
            Some(range) => range.as_range(size).map_err(|e| Error::Generic {
                store: "sim",
                source: Box::new(e),
            })?,
            None => 0..size,
        };
        // A cut body is shorter than its meta data say.
        let end = (range.end as usize).min(object.bytes.len());
        let body = if options.head {
            Bytes::new()
        } else {
            object.bytes.slice((range.start as usize).min(end)..end)
        };
        Ok(GetResult {
            payload: GetResultPayload::Stream(stream::once(async { Ok(body) }).boxed()),
            meta: object.meta,
            range,
            attributes: object.attributes,
            extensions: Default::default(),
        })
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (world, line) = (self.world.clone(), self.line.clone());
        paths
            .then(move |path| {
                let (world, line) = (world.clone(), line.clone());
                async move {
                    let path = path?;
                    world.send(&line, Request::Delete { path: path.clone() }).await?;
                    Ok(path)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listing(prefix, None)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        after: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listing(prefix, Some(after.clone()))
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        Err(Error::NotImplemented {
            operation: "list_with_delimiter".into(),
            implementer: self.to_string(),
        })
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(Error::NotImplemented {
            operation: "copy".into(),
            implementer: self.to_string(),
        })
    }
}
