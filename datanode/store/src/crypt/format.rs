//! A sealed object, byte for byte:
//!
//! ```text
//! chunk 0 | … | chunk n-1 | footer
//! chunk   AES-256-GCM of 16 KiB of the body, the last one of what is left, and its tag 16
//! footer  magic 8 | data key id 16 | salt 32 | body length 8 | tag 16
//! ```
//!
//! Each object has a key of its own: HKDF-SHA256 of the data key over the salt, bound to what
//! it is, to the database and to its path.  So an object under another name, of another
//! database, or with chunks of another version of itself does not open.  Within the object
//! the nonce is the chunk's number, which is what keeps chunks in their places; the footer
//! has the last number there is, and its tag covers all of it, so the length is known to be
//! the length that was written.  The footer comes last because the length of a multipart
//! upload is known last.
//!
//! A salt is random, or for a write with a put-id made from the put-id and the body under
//! the data key: the same write repeated is the same bytes again, and another body under
//! the same put-id has another key, never the same nonce under the same key.

use std::ops::Range;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::{hkdf, hmac};
use object_store::PutPayload;
use zeroize::Zeroizing;

/// A row fetched alone drags in little, and it divides every block size of the read cache.
pub(super) const CHUNK: u64 = 16 << 10;
const TAG: usize = 16;
pub(super) const SEALED_CHUNK: u64 = CHUNK + TAG as u64;
const MAGIC: &[u8; 8] = b"rhcrypt1";
const FOOTER_BODY: usize = 8 + 16 + 32 + 8;
pub(super) const FOOTER: u64 = (FOOTER_BODY + TAG) as u64;
/// The chunk number that no chunk has.
const FOOTER_NUMBER: u64 = u64::MAX;

/// What is sealed.  An object never opens as a block of a cache, nor the other way round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Object,
    CacheBlock,
}

impl Purpose {
    fn label(self) -> &'static [u8] {
        match self {
            Self::Object => b"rhumb object 1",
            Self::CacheBlock => b"rhumb cache block 1",
        }
    }
}

/// Where sealed bytes belong.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub purpose: Purpose,
    /// Uid of the database.
    pub uid: &'a str,
    /// Relative to the prefix of the database, so that a copied database can be read.
    pub path: &'a str,
}

/// The name of a data key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KeyId(pub [u8; 16]);

impl std::fmt::Debug for KeyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// A data key in the clear, wiped when dropped.
pub(crate) struct DataKey {
    pub id: KeyId,
    secret: Zeroizing<[u8; 32]>,
}

impl std::fmt::Debug for DataKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DataKey({:?})", self.id)
    }
}

pub(super) type Salt = [u8; 32];

/// The bytes are not what was sealed for this place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotSealed;

/// From the operating system and not from the seeded `Rand` of the seams: nothing that a
/// simulation can see depends on these bytes, and a key must not come from a seed.
pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the generator of the system works");
    bytes
}

impl DataKey {
    pub(super) fn new(id: KeyId, secret: Zeroizing<[u8; 32]>) -> Self {
        Self { id, secret }
    }

    pub(super) fn mint() -> Self {
        Self::new(KeyId(random()), Zeroizing::new(random()))
    }

    pub(super) fn secret(&self) -> &[u8; 32] {
        &self.secret
    }

    pub(super) fn random_salt() -> Salt {
        random()
    }

    /// The salt of the write `put_id`: a keyed hash of all that the write is.
    pub(super) fn salt_of(&self, put_id: &str, place: &Place<'_>, body: &PutPayload) -> Salt {
        let mut hmac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, self.secret()));
        for part in [
            b"rhumb salt 1".as_slice(),
            put_id.as_bytes(),
            place.path.as_bytes(),
        ] {
            hmac.update(&(part.len() as u64).to_be_bytes());
            hmac.update(part);
        }
        body.iter().for_each(|piece| hmac.update(piece));
        let mut salt = Salt::default();
        salt.copy_from_slice(hmac.sign().as_ref());
        salt
    }

    fn object_key(&self, salt: Salt, place: &Place<'_>) -> ObjectKey {
        let info = [
            place.purpose.label(),
            b"\0",
            place.uid.as_bytes(),
            b"\0",
            place.path.as_bytes(),
        ];
        let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, &salt).extract(self.secret());
        let derived = secret
            .expand(&info, &AES_256_GCM)
            .expect("32 bytes are well below what HKDF gives");
        ObjectKey(LessSafeKey::new(UnboundKey::from(derived)))
    }
}

/// "Less safe" because the caller picks the nonces: they are the chunk numbers, each used
/// once under a key that one object has alone.
struct ObjectKey(LessSafeKey);

impl std::fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ObjectKey")
    }
}

impl ObjectKey {
    fn seal(&self, number: u64, associated: &[u8], plain: &[u8], out: &mut Vec<u8>) {
        let from = out.len();
        out.extend_from_slice(plain);
        let tag = self
            .0
            .seal_in_place_separate_tag(nonce(number), Aad::from(associated), &mut out[from..])
            .expect("a chunk is far below the limit of the cipher");
        out.extend_from_slice(tag.as_ref());
    }

    fn open(
        &self,
        number: u64,
        associated: &[u8],
        sealed: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), NotSealed> {
        let (body, tag) = sealed.split_last_chunk::<TAG>().ok_or(NotSealed)?;
        let from = out.len();
        out.extend_from_slice(body);
        self.0
            .open_in_place_separate_tag(nonce(number), Aad::from(associated), tag, &mut out[from..])
            .map(drop)
            .map_err(|_| NotSealed)
    }
}

fn nonce(number: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

/// How large a body of `length` bytes is when it is sealed.
pub(crate) fn sealed_size(length: u64) -> u64 {
    length + length.div_ceil(CHUNK) * TAG as u64 + FOOTER
}

/// How long the body of a sealed object is.  `None` for a size that none has.
pub(crate) fn body_size(sealed: u64) -> Option<u64> {
    let chunks = sealed.checked_sub(FOOTER)?;
    let last = chunks % SEALED_CHUNK;
    let whole = last == 0 || last > TAG as u64;
    whole.then(|| chunks - chunks.div_ceil(SEALED_CHUNK) * TAG as u64)
}

/// What says how to open an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Footer {
    pub key: KeyId,
    salt: Salt,
    pub length: u64,
    tag: [u8; TAG],
}

impl Footer {
    /// The footer at the end of `bytes`.  Nothing of it is to be believed yet.
    pub(super) fn at_end_of(bytes: &[u8]) -> Result<Self, NotSealed> {
        let (rest, tag) = bytes.split_last_chunk::<TAG>().ok_or(NotSealed)?;
        let (rest, length) = rest.split_last_chunk::<8>().ok_or(NotSealed)?;
        let (rest, salt) = rest.split_last_chunk::<32>().ok_or(NotSealed)?;
        let (rest, key) = rest.split_last_chunk::<16>().ok_or(NotSealed)?;
        let (_, magic) = rest.split_last_chunk::<8>().ok_or(NotSealed)?;
        if magic != MAGIC {
            return Err(NotSealed);
        }
        Ok(Self {
            key: KeyId(*key),
            salt: *salt,
            length: u64::from_be_bytes(*length),
            tag: *tag,
        })
    }

    fn covered(key: KeyId, salt: &Salt, length: u64) -> [u8; FOOTER_BODY] {
        let mut covered = [0; FOOTER_BODY];
        covered[..8].copy_from_slice(MAGIC);
        covered[8..24].copy_from_slice(&key.0);
        covered[24..56].copy_from_slice(salt);
        covered[56..].copy_from_slice(&length.to_be_bytes());
        covered
    }
}

/// Opens the chunks of one object.
#[derive(Debug)]
pub(crate) struct Opener {
    key: ObjectKey,
    pub length: u64,
}

impl Opener {
    /// Believes the footer: it is of this place and of an object of this size.
    pub(super) fn new(
        data: &DataKey,
        footer: &Footer,
        place: &Place<'_>,
        sealed: u64,
    ) -> Result<Self, NotSealed> {
        if data.id != footer.key || body_size(sealed) != Some(footer.length) {
            return Err(NotSealed);
        }
        let key = data.object_key(footer.salt, place);
        let covered = Footer::covered(footer.key, &footer.salt, footer.length);
        key.open(FOOTER_NUMBER, &covered, &footer.tag, &mut Vec::new())?;
        Ok(Self {
            key,
            length: footer.length,
        })
    }

    /// Where the whole chunks that hold `range` of the body lie.
    pub(super) fn around(&self, range: &Range<u64>) -> Range<u64> {
        let chunks = range.start / CHUNK..range.end.div_ceil(CHUNK);
        let end = self.length + self.length.div_ceil(CHUNK) * TAG as u64;
        chunks.start * SEALED_CHUNK..(chunks.end * SEALED_CHUNK).min(end)
    }

    /// `range` of the body, from `sealed`, which is what lies at `around(range)`.
    pub(super) fn open(&self, range: &Range<u64>, sealed: &[u8]) -> Result<Vec<u8>, NotSealed> {
        let at = self.around(range);
        if sealed.len() as u64 != at.end - at.start {
            return Err(NotSealed);
        }
        let first = at.start / SEALED_CHUNK;
        let mut out = Vec::with_capacity(sealed.len());
        for (number, chunk) in (first..).zip(sealed.chunks(SEALED_CHUNK as usize)) {
            self.key.open(number, &[], chunk, &mut out)?;
        }
        let skipped = (range.start - first * CHUNK) as usize;
        out.truncate(skipped + (range.end - range.start) as usize);
        out.drain(..skipped);
        Ok(out)
    }
}

/// Seals a body that comes in pieces.
#[derive(Debug)]
pub(crate) struct Sealer {
    id: KeyId,
    salt: Salt,
    key: ObjectKey,
    /// Of the chunk that is not whole yet.
    open: Vec<u8>,
    chunks: u64,
    length: u64,
    sealed: Vec<u8>,
}

impl Sealer {
    pub(super) fn new(data: &DataKey, salt: Salt, place: &Place<'_>) -> Self {
        Self {
            id: data.id,
            salt,
            key: data.object_key(salt, place),
            open: Vec::new(),
            chunks: 0,
            length: 0,
            sealed: Vec::new(),
        }
    }

    pub(super) fn reserve(&mut self, length: u64) {
        self.sealed.reserve_exact(sealed_size(length) as usize);
    }

    pub(super) fn update(&mut self, mut piece: &[u8]) {
        self.length += piece.len() as u64;
        if !self.open.is_empty() {
            let room = CHUNK as usize - self.open.len();
            let (now, later) = piece.split_at(piece.len().min(room));
            self.open.extend_from_slice(now);
            piece = later;
            if self.open.len() as u64 == CHUNK {
                let whole = std::mem::take(&mut self.open);
                self.seal(&whole);
            }
        }
        let (whole, rest) = piece.as_chunks::<{ CHUNK as usize }>();
        whole.iter().for_each(|chunk| self.seal(chunk));
        self.open.extend_from_slice(rest);
    }

    /// What is sealed so far and was not taken yet.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.sealed)
    }

    /// The rest, with the footer.
    pub(super) fn finish(mut self) -> Vec<u8> {
        if !self.open.is_empty() {
            let last = std::mem::take(&mut self.open);
            self.seal(&last);
        }
        let covered = Footer::covered(self.id, &self.salt, self.length);
        self.sealed.extend_from_slice(&covered);
        self.key.seal(FOOTER_NUMBER, &covered, &[], &mut self.sealed);
        self.sealed
    }

    fn seal(&mut self, chunk: &[u8]) {
        self.key.seal(self.chunks, &[], chunk, &mut self.sealed);
        self.chunks += 1;
    }
}

/// Bytes sealed in one go.
pub(crate) fn seal(data: &DataKey, salt: Salt, place: &Place<'_>, body: &PutPayload) -> Vec<u8> {
    let mut sealer = Sealer::new(data, salt, place);
    sealer.reserve(body.content_length() as u64);
    body.iter().for_each(|piece| sealer.update(piece));
    sealer.finish()
}

#[cfg(test)]
mod tests;
