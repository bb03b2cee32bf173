//! Just enough HTTP/1.1 to pass messages on unchanged, or broken on purpose: a head, and a
//! body kept as the bytes that were on the wire (chunk framing included).

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

const HEAD_LIMIT: usize = 256 << 10;

#[derive(Clone, Debug)]
pub struct Message {
    /// Up to and including the empty line.
    pub head: Vec<u8>,
    pub body: Vec<u8>,
}

impl Message {
    /// `GET /key HTTP/1.1` or `HTTP/1.1 200 OK`.
    pub fn first_line(&self) -> String {
        let end = self
            .head
            .iter()
            .position(|b| *b == b'\r')
            .unwrap_or(self.head.len());
        String::from_utf8_lossy(&self.head[..end]).into_owned()
    }

    pub fn method(&self) -> String {
        self.first_line().split(' ').next().unwrap_or_default().to_owned()
    }

    pub fn target(&self) -> String {
        self.first_line().split(' ').nth(1).unwrap_or_default().to_owned()
    }

    pub fn status(&self) -> Option<u16> {
        self.first_line().split(' ').nth(1)?.parse().ok()
    }

    pub fn header(&self, name: &str) -> Option<String> {
        let head = String::from_utf8_lossy(&self.head);
        head.split("\r\n").skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    }

    /// The same message with another body, and a `Content-Length` that says so.
    pub fn with_body(&self, body: Vec<u8>) -> Self {
        let head = String::from_utf8_lossy(&self.head);
        let kept = head
            .trim_end_matches("\r\n")
            .split("\r\n")
            .filter(|line| !line.to_ascii_lowercase().starts_with("content-length:"));
        let mut lines: Vec<String> = kept.map(str::to_owned).collect();
        lines.push(format!("Content-Length: {}", body.len()));
        Self {
            head: format!("{}\r\n\r\n", lines.join("\r\n")).into_bytes(),
            body,
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        [self.head.as_slice(), self.body.as_slice()].concat()
    }

    fn chunked(&self) -> bool {
        self.header("transfer-encoding")
            .is_some_and(|value| value.to_ascii_lowercase().contains("chunked"))
    }

    fn content_length(&self) -> Option<usize> {
        self.header("content-length")?.parse().ok()
    }
}

/// `None` when the peer closed before a new request began.
pub async fn read_request<R: AsyncBufRead + Unpin>(from: &mut R) -> io::Result<Option<Message>> {
    let Some(head) = read_head(from).await? else {
        return Ok(None);
    };
    let mut message = Message {
        head,
        body: Vec::new(),
    };
    if message.chunked() {
        message.body = read_chunks(from).await?;
    } else if let Some(length) = message.content_length() {
        message.body = read_exactly(from, length).await?;
    }
    Ok(Some(message))
}

/// `to_head`: the request was a HEAD, so whatever length is announced, nothing follows.
pub async fn read_response<R: AsyncBufRead + Unpin>(from: &mut R, to_head: bool) -> io::Result<Message> {
    let head = read_head(from).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let mut message = Message {
        head,
        body: Vec::new(),
    };
    let bodiless = to_head || matches!(message.status(), Some(100..=199 | 204 | 304));
    if bodiless {
        return Ok(message);
    }
    if message.chunked() {
        message.body = read_chunks(from).await?;
    } else if let Some(length) = message.content_length() {
        message.body = read_exactly(from, length).await?;
    } else {
        from.read_to_end(&mut message.body).await?;
    }
    Ok(message)
}

async fn read_head<R: AsyncBufRead + Unpin>(from: &mut R) -> io::Result<Option<Vec<u8>>> {
    let mut head = Vec::new();
    loop {
        let before = head.len();
        if from.read_until(b'\n', &mut head).await? == 0 {
            return if before == 0 {
                Ok(None)
            } else {
                Err(io::ErrorKind::UnexpectedEof.into())
            };
        }
        if &head[before..] == b"\r\n" {
            return Ok(Some(head));
        }
        if head.len() > HEAD_LIMIT {
            return Err(io::Error::other("endless head"));
        }
    }
}

async fn read_exactly<R: AsyncBufRead + Unpin>(from: &mut R, length: usize) -> io::Result<Vec<u8>> {
    let mut body = vec![0; length];
    from.read_exact(&mut body).await?;
    Ok(body)
}

async fn read_chunks<R: AsyncBufRead + Unpin>(from: &mut R) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line_start = body.len();
        if from.read_until(b'\n', &mut body).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = String::from_utf8_lossy(&body[line_start..]).into_owned();
        let digits = line.trim().split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(digits, 16).map_err(io::Error::other)?;
        if size == 0 {
            return read_trailers(from, body).await;
        }
        let chunk = read_exactly(from, size + 2).await?;
        body.extend_from_slice(&chunk);
    }
}

async fn read_trailers<R: AsyncBufRead + Unpin>(from: &mut R, mut body: Vec<u8>) -> io::Result<Vec<u8>> {
    loop {
        let start = body.len();
        if from.read_until(b'\n', &mut body).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if &body[start..] == b"\r\n" {
            return Ok(body);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_chunked_body_keeps_its_framing_and_the_next_message_is_found() {
        let wire = b"PUT /k HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /n HTTP/1.1\r\n\r\n";
        let mut from = &wire[..];
        let first = read_request(&mut from)
            .await
            .expect("readable")
            .expect("a message");
        assert_eq!(first.body, b"3\r\nabc\r\n0\r\n\r\n");
        let second = read_request(&mut from)
            .await
            .expect("readable")
            .expect("a message");
        assert_eq!(
            (second.method().as_str(), second.target().as_str()),
            ("GET", "/n")
        );
        assert!(read_request(&mut from).await.expect("readable").is_none());
    }

    #[tokio::test]
    async fn the_answer_to_a_head_request_has_no_body_whatever_its_length_says() {
        let wire = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n";
        let answer = read_response(&mut &wire[..], true).await.expect("readable");
        assert!(answer.body.is_empty());
        assert!(
            read_response(&mut &wire[..], false).await.is_err(),
            "five bytes are missing"
        );
    }

    #[test]
    fn a_replaced_body_comes_with_its_own_length() {
        let message = Message {
            head: b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: x\r\n\r\n".to_vec(),
            body: vec![0; 5],
        };
        let cut = message.with_body(vec![0; 2]);
        assert_eq!(cut.header("content-length").as_deref(), Some("2"));
        assert_eq!(cut.header("etag").as_deref(), Some("x"));
        assert!(cut.head.ends_with(b"\r\n\r\n"));
    }
}
