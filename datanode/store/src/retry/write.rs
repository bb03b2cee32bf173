//! Conditional PUTs: repeated under one put-id until it is known whose object is there.

use object_store::path::Path;
use object_store::{
    Error as OsError, GetOptions, ObjectStore, PutMode, PutOptions, PutPayload, PutResult, Result,
};

use super::Shared;
use super::attempts::Attempts;
use crate::failure::Failure;
use crate::metrics::Event;
use crate::put_id::PutId;

enum Whose {
    Ours(PutResult),
    Theirs,
    /// The condition would hold: the refusal was of the moment (S3's 409), or the object
    /// went away since.
    Nobody,
}

impl Shared {
    pub(super) async fn put_conditional(
        &self,
        location: &Path,
        payload: PutPayload,
        mut opts: PutOptions,
    ) -> Result<PutResult> {
        let id = PutId::of(&opts.attributes).unwrap_or_else(|| PutId::mint(&self.ids));
        id.attach(&mut opts.attributes);
        let bytes = payload.content_length() as u64;
        let mut attempts = Attempts::new(self);
        let mut in_doubt = false;
        loop {
            let error = match self
                .timed(
                    bytes,
                    self.inner.put_opts(location, payload.clone(), opts.clone()),
                )
                .await
            {
                Ok(put) => return Ok(put),
                Err(error) => error,
            };
            let failure = Failure::of(&error);
            in_doubt |= failure.may_have_applied();
            // A PUT that finds no bucket is no matter of whose object is there.
            let contested = failure == Failure::Answer && !matches!(error, OsError::NotFound { .. });
            if contested {
                match self.whose(location, &id, &opts.mode).await {
                    Ok(Whose::Ours(put)) => {
                        self.metrics.count(Event::Resolved);
                        return Ok(put);
                    }
                    Ok(Whose::Theirs) => return Err(lost(location, &opts.mode, error)),
                    Ok(Whose::Nobody) => {}
                    // Something is there and nobody says whose: it may be ours.
                    Err(unreadable) => return Err(self.unknown(attempts.made(), unreadable)),
                }
            }
            let repeatable = contested || failure != Failure::Answer;
            if !repeatable || !attempts.again(failure).await {
                return Err(if in_doubt {
                    self.unknown(attempts.made(), error)
                } else {
                    error
                });
            }
        }
    }

    async fn whose(&self, location: &Path, id: &PutId, mode: &PutMode) -> Result<Whose> {
        let head = || self.inner.get_opts(location, GetOptions::new().with_head(true));
        let found = match self.idempotent(0, head).await {
            Ok(found) => found,
            Err(OsError::NotFound { .. }) => {
                return Ok(if *mode == PutMode::Create {
                    Whose::Nobody
                } else {
                    Whose::Theirs
                });
            }
            Err(e) => return Err(e),
        };
        if PutId::of(&found.attributes).as_ref() == Some(id) {
            let (e_tag, version) = (found.meta.e_tag, found.meta.version);
            return Ok(Whose::Ours(PutResult {
                e_tag,
                version,
                extensions: Default::default(),
            }));
        }
        match mode {
            PutMode::Update(expected) if found.meta.e_tag == expected.e_tag => Ok(Whose::Nobody),
            PutMode::Update(_) | PutMode::Create | PutMode::Overwrite => Ok(Whose::Theirs),
        }
    }
}

/// One error per kind of PUT, whatever the store called it.
fn lost(location: &Path, mode: &PutMode, error: OsError) -> OsError {
    let (path, source) = (location.to_string(), Box::new(error));
    match mode {
        PutMode::Update(_) => OsError::Precondition { path, source },
        PutMode::Create | PutMode::Overwrite => OsError::AlreadyExists { path, source },
    }
}
