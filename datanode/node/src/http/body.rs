//! Reading request bodies: decoded, counted, timed.
//!
//! The cap counts decoded bytes, while they arrive, so a compressed bomb costs no more
//! than the cap.  Large bodies share one budget: whoever finds it spent waits a little and
//! is told 429.  A body that trickles is given up on (408), and what is refused before it
//! was read is still drained for a while, or the client would see a broken connection
//! instead of the answer.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use async_compression::tokio::bufread::GzipDecoder;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Request, Response, header};
use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt};
use http_body_util::{BodyExt, BodyStream};
use rhumb_core::problem::shorten;
use rhumb_core::{Code, Problem};
use rhumb_seams::{OnExit, Tasks};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::io::{ReaderStream, StreamReader};
use tower::ServiceExt;
use tower_http::decompression::RequestDecompression;

/// Without a byte for so long, the sender is taken for gone.
pub const IDLE: Duration = Duration::from_secs(30);
/// A body has this long plus its size at `SLOWEST` bytes per second.
const PATIENCE: Duration = Duration::from_secs(60);
const SLOWEST: u64 = 16 << 10;
/// How long a large body waits for others to be done.
const WAIT_FOR_ROOM: Duration = Duration::from_secs(10);
/// Bodies up to here do not count.
const SMALL: usize = 256 << 10;
/// What one permit of the budget stands for.
const PERMIT: usize = 64 << 10;
/// How long, and how much of, a refused body is read and dropped.
const DRAIN_TIME: Duration = Duration::from_secs(30);
const DRAIN_BYTES: usize = 1 << 30;

/// Bytes of request bodies that may be in memory together.
#[derive(Clone, Debug)]
pub struct Budget {
    permits: Arc<Semaphore>,
}

/// A whole body, and its place in the budget for as long as it is worked on.
#[derive(Debug, Default)]
pub struct Whole {
    pub bytes: Bytes,
    /// Held for as long as the bytes are.
    _room: Room,
}

#[derive(Debug, Default)]
struct Room {
    held: Option<OwnedSemaphorePermit>,
}

impl Budget {
    /// At least one body of the largest allowed size always fits.
    pub fn new(bytes: u64, largest: usize) -> Self {
        let permits = (bytes.max(largest as u64) as usize).div_ceil(PERMIT) + 1;
        Self {
            permits: Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS))),
        }
    }

    async fn grow(&self, room: &mut Room, bytes: usize) -> Result<(), Problem> {
        if bytes <= SMALL {
            return Ok(());
        }
        let held = room.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let wanted = bytes.div_ceil(PERMIT).saturating_sub(held);
        if wanted == 0 {
            return Ok(());
        }
        let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
        let more = tokio::time::timeout(WAIT_FOR_ROOM, self.permits.clone().acquire_many_owned(wanted)).await;
        match more {
            Ok(Ok(more)) => {
                match &mut room.held {
                    Some(held) => held.merge(more),
                    None => room.held = Some(more),
                }
                Ok(())
            }
            // Closed never; the other is the timeout.
            Ok(Err(_)) | Err(_) => Err(Problem::new(
                Code::TooManyRequests,
                "too many large bodies are being read at once",
            )),
        }
    }
}

/// A body as it arrives: decoded, and given up on when it stalls.
pub struct Incoming {
    frames: BodyStream<Body>,
    begin: Instant,
    received: u64,
    idle: Duration,
    /// An import may stream for hours, as slowly as its source does.
    hurry: bool,
}

/// What a body that comes in pieces is given at first, and later for each byte that came.
const FIRST_ROOM: usize = 64 << 10;
const GROWTH: usize = 2;
/// Decoded bytes in a piece.
const DECODED: usize = 64 << 10;

impl Incoming {
    pub fn new(headers: &HeaderMap, body: Body) -> Result<Self, Problem> {
        match encoding(headers)? {
            None => Ok(Self::raw(body)),
            Some(encoding) => Ok(Self::raw(decoded(encoding, body)?)),
        }
    }

    /// Not decoded.
    pub fn raw(body: Body) -> Self {
        Self {
            frames: BodyStream::new(body),
            begin: Instant::now(),
            received: 0,
            idle: IDLE,
            hurry: true,
        }
    }

    /// Something of it has arrived.
    pub fn has_begun(&self) -> bool {
        self.received > 0
    }

    pub fn patient(mut self, idle: Duration) -> Self {
        self.idle = idle;
        self.hurry = false;
        self
    }

    /// The next piece, `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        loop {
            let Ok(frame) = tokio::time::timeout(self.idle, self.frames.next()).await else {
                return Err(too_slow());
            };
            let frame = match frame {
                None => return Ok(None),
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Err(broken(&error)),
            };
            // The other kind of frame is trailers.
            let Ok(data) = frame.into_data() else { continue };
            self.received += data.len() as u64;
            let allowed = PATIENCE + Duration::from_secs(self.received / SLOWEST);
            if self.hurry && self.begin.elapsed() > allowed {
                return Err(too_slow());
            }
            if !data.is_empty() {
                return Ok(Some(data));
            }
        }
    }

    pub async fn whole(
        &mut self,
        headers: &HeaderMap,
        cap: usize,
        budget: &Budget,
    ) -> Result<Whole, Problem> {
        let announced = announced(headers);
        if announced.is_some_and(|length| length > cap as u64) {
            return Err(too_large(cap));
        }
        let mut room = Room::default();
        let expected = announced.map_or(cap, |length| length as usize);
        let Some(first) = self.next().await? else {
            return Ok(Whole {
                bytes: Bytes::new(),
                _room: room,
            });
        };
        let mut all: Vec<u8> = Vec::new();
        let mut last = first;
        loop {
            let length = all.len() + last.len();
            if length > cap {
                return Err(too_large(cap));
            }
            budget.grow(&mut room, length).await?;
            let next = self.next().await?;
            if all.is_empty() && next.is_none() {
                return Ok(Whole {
                    bytes: last,
                    _room: room,
                });
            }
            if all.capacity() < length {
                // Paid for, and by what has come: whoever only announces a large body takes no
                // room from others.
                let capacity = expected.min(FIRST_ROOM.max(GROWTH * length)).max(length);
                budget.grow(&mut room, capacity).await?;
                all.reserve_exact(capacity - all.len());
            }
            all.extend_from_slice(&last);
            match next {
                Some(next) => last = next,
                None => {
                    return Ok(Whole {
                        bytes: all.into(),
                        _room: room,
                    });
                }
            }
        }
    }

    /// Reads on and forgets, in the background, so that the answer can be received.
    pub fn drain(mut self, tasks: &Tasks) {
        tasks.spawn("body drain", OnExit::Fine, async move {
            let deadline = Instant::now() + DRAIN_TIME;
            let mut drained = 0;
            while let Ok(Some(Ok(frame))) = tokio::time::timeout_at(deadline, self.frames.next()).await {
                drained += frame.data_ref().map_or(0, Bytes::len);
                if drained > DRAIN_BYTES {
                    return;
                }
            }
        });
    }
}

/// The announced length, when what is announced is what will be decoded.
fn announced(headers: &HeaderMap) -> Option<u64> {
    if headers.contains_key(header::CONTENT_ENCODING) {
        return None;
    }
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// `gzip`, `zstd`, or `None` when the bytes are what they seem.
pub fn encoding(headers: &HeaderMap) -> Result<Option<HeaderValue>, Problem> {
    let Some(given) = headers.get(header::CONTENT_ENCODING) else {
        return Ok(None);
    };
    match given.to_str().unwrap_or("?").trim().to_ascii_lowercase().as_str() {
        "" | "identity" => Ok(None),
        "gzip" | "x-gzip" => Ok(Some(HeaderValue::from_static("gzip"))),
        "zstd" => Ok(Some(HeaderValue::from_static("zstd"))),
        other => {
            let detail = format!("bodies may be encoded with gzip or zstd, not {}", shorten(other));
            Err(Problem::new(Code::UnsupportedMediaType, detail).field("Content-Encoding"))
        }
    }
}

fn decoded(encoding: HeaderValue, body: Body) -> Result<Body, Problem> {
    if encoding == "gzip" {
        let frames = TryStreamExt::map_err(body.into_data_stream(), std::io::Error::other);
        let mut decoder = GzipDecoder::new(StreamReader::new(frames));
        // Of files that were appended to each other, every one counts.
        decoder.multiple_members(true);
        return Ok(Body::from_stream(ReaderStream::with_capacity(decoder, DECODED)));
    }
    // The layer hands the decoded body to the service it wraps; ours hands it back.
    let back = tower::service_fn(|request: Request<_>| async move {
        Ok::<_, Infallible>(Response::new(request.into_body()))
    });
    let mut request = Request::new(body);
    request.headers_mut().insert(header::CONTENT_ENCODING, encoding);
    match RequestDecompression::new(back)
        .zstd(true)
        .oneshot(request)
        .now_or_never()
    {
        Some(Ok(answer)) => Ok(Body::new(answer.into_body().map_err(axum::Error::new))),
        Some(Err(never)) => match never {},
        None => Err(Problem::new(Code::Internal, "wrapping a body had to wait")),
    }
}

fn too_large(cap: usize) -> Problem {
    Problem::new(
        Code::BodyTooLarge,
        format!("the body is larger than {cap} bytes, decoded"),
    )
    .hint("send several requests, or stream through /import")
}

fn too_slow() -> Problem {
    Problem::new(Code::RequestTimeout, "the body did not arrive in time")
}

fn broken(error: &axum::Error) -> Problem {
    Problem::new(
        Code::Malformed,
        format!("the body could not be read to its end: {error}"),
    )
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use axum::http::HeaderValue;
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    async fn read(
        encoding: Option<&'static str>,
        chunks: Vec<Vec<u8>>,
        cap: usize,
    ) -> Result<Bytes, Problem> {
        let mut headers = HeaderMap::new();
        if let Some(encoding) = encoding {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
        }
        let chunks = chunks
            .into_iter()
            .map(|chunk| Ok::<_, std::io::Error>(Bytes::from(chunk)));
        let body = Body::from_stream(futures::stream::iter(chunks));
        let budget = Budget::new(1 << 20, cap);
        let mut incoming = Incoming::new(&headers, body)?;
        Ok(incoming.whole(&headers, cap, &budget).await?.bytes)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).expect("memory takes it");
        encoder.finish().expect("memory takes it")
    }

    #[tokio::test]
    async fn chunks_become_one_body_up_to_the_cap() {
        let chunks = vec![b"ab".to_vec(), Vec::new(), b"cd".to_vec(), b"e".to_vec()];
        assert_eq!(read(None, chunks.clone(), 5).await.expect("fits"), "abcde");
        assert_eq!(
            read(None, chunks, 4).await.expect_err("one too many").code,
            Code::BodyTooLarge
        );
        assert_eq!(read(None, Vec::new(), 4).await.expect("empty"), "");
    }

    #[tokio::test]
    async fn a_compressed_body_is_decoded_and_its_cap_counts_decoded_bytes() {
        let bomb = gzip(&vec![b' '; 50 << 20]);
        assert!(bomb.len() < 100 << 10);
        assert_eq!(
            read(Some("gzip"), vec![bomb], 1 << 20)
                .await
                .expect_err("a bomb")
                .code,
            Code::BodyTooLarge
        );
        let small = gzip(b"{}");
        let halves = vec![small[..7].to_vec(), small[7..].to_vec()];
        assert_eq!(read(Some("GZIP"), halves, 10).await.expect("fits"), "{}");
    }

    #[tokio::test]
    async fn files_appended_to_each_other_are_read_to_the_end() {
        let both = [gzip(b"one "), gzip(b"two")].concat();
        let cut = vec![both[..30].to_vec(), both[30..].to_vec()];
        assert_eq!(read(Some("gzip"), cut, 100).await.expect("fits"), "one two");
        let junk = [gzip(b"one "), b"and no more".to_vec()].concat();
        let problem = read(Some("gzip"), vec![junk], 100).await.expect_err("no gzip");
        assert_eq!(problem.code, Code::Malformed);
        let torn = gzip(b"one two three");
        let problem = read(Some("gzip"), vec![torn[..15].to_vec()], 100).await;
        assert_eq!(problem.expect_err("cut off").code, Code::Malformed);
    }

    #[tokio::test]
    async fn a_body_of_unknown_length_never_takes_more_room_than_the_cap() {
        let chunks = vec![vec![b'x'; 300_000]; 5];
        let body = read(None, chunks, 1_500_000).await.expect("fits");
        let body = Vec::from(body);
        assert_eq!((body.len(), body.capacity()), (1_500_000, 1_500_000));
    }

    fn dripping(every: Duration) -> Incoming {
        let drops = futures::stream::unfold((), move |()| async move {
            tokio::time::sleep(every).await;
            Some((Ok::<_, std::io::Error>(Bytes::from_static(b" ")), ()))
        });
        Incoming::raw(Body::from_stream(drops))
    }

    async fn whole(mut incoming: Incoming, budget: &Budget) -> Result<Whole, Problem> {
        incoming.whole(&HeaderMap::new(), 1 << 20, budget).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_or_trickles_is_given_up_on() {
        let budget = Budget::new(1 << 20, 1 << 20);
        for (every, until) in [(IDLE * 100, IDLE), (IDLE / 2, PATIENCE + IDLE)] {
            let begin = Instant::now();
            let refused = whole(dripping(every), &budget).await.expect_err("too slow");
            assert_eq!(refused.code, Code::RequestTimeout);
            assert!(begin.elapsed() <= until, "{every:?}: {:?}", begin.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_import_may_be_as_slow_as_its_source() {
        let mut incoming = dripping(IDLE / 2).patient(IDLE);
        for _ in 0..100 {
            incoming.next().await.expect("slow is fine").expect("a drop");
        }
        let mut stalled = dripping(IDLE * 2).patient(IDLE);
        let refused = stalled.next().await.expect_err("nothing came");
        assert_eq!(refused.code, Code::RequestTimeout);
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_body_waits_for_room_and_is_turned_away_when_there_is_none() {
        let large = || Incoming::raw(Body::from(vec![b' '; 1 << 20]));
        let budget = Budget::new(1 << 20, 1 << 20);
        let first = whole(large(), &budget).await.expect("alone it fits");
        let refused = whole(large(), &budget).await.expect_err("no room");
        assert_eq!(refused.code, Code::TooManyRequests);
        let small = Incoming::raw(Body::from("{}"));
        whole(small, &budget).await.expect("small ones do not count");
        let second = whole(large(), &budget);
        let later = async {
            tokio::time::sleep(WAIT_FOR_ROOM / 2).await;
            drop(first);
        };
        let (second, ()) = tokio::join!(second, later);
        second.expect("room in time");
    }

    #[tokio::test]
    async fn what_cannot_be_decoded_is_refused() {
        let half = gzip(b"some text that is cut")[..12].to_vec();
        assert_eq!(
            read(Some("gzip"), vec![half], 100).await.expect_err("cut").code,
            Code::Malformed
        );
        assert_eq!(
            read(Some("zstd"), vec![b"{}".to_vec()], 9)
                .await
                .expect_err("plain")
                .code,
            Code::Malformed
        );
        assert_eq!(
            read(Some("br"), vec![], 9).await.expect_err("unknown").code,
            Code::UnsupportedMediaType
        );
    }
}
