//! A caller without manners: writes any bytes to a socket and reads whatever answer comes.
//! A well-behaved HTTP library would refuse to send most of what is sent through here.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::http1::{Message, read_response};

/// What the server did with the bytes.
#[derive(Debug)]
pub enum Reaction {
    Answered(Message),
    /// The connection was closed without an answer, which a server may do to garbage.
    Closed,
    /// Neither answered nor closed in time.
    Silent,
}

impl Reaction {
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Answered(message) => message.status(),
            Self::Closed | Self::Silent => None,
        }
    }
}

/// `then_close`: the sending half is closed after the bytes, so that a server that waits
/// for more learns that there is none.
pub async fn send(address: &str, bytes: &[u8], then_close: bool, patience: Duration) -> io::Result<Reaction> {
    let (reading, mut writing) = TcpStream::connect(address).await?.into_split();
    let mut reading = BufReader::new(reading);
    let write = async {
        // A server may answer and close before it has read everything.
        let written = writing.write_all(bytes).await;
        if then_close && written.is_ok() {
            let _ = writing.shutdown().await;
        }
        std::future::pending::<()>().await
    };
    tokio::select! {
        () = write => unreachable!("the writer only ends with the connection"),
        answer = tokio::time::timeout(patience, read_response(&mut reading, false)) => Ok(match answer {
            Ok(Ok(message)) => Reaction::Answered(message),
            Ok(Err(_)) => Reaction::Closed,
            Err(_) => Reaction::Silent,
        }),
    }
}

/// A request with a body whose length is true.
pub fn request(method: &str, target: &[u8], headers: &[&str], body: &[u8]) -> Vec<u8> {
    let mut wire = format!("{method} ").into_bytes();
    wire.extend_from_slice(target);
    wire.extend_from_slice(b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
    for header in headers {
        wire.extend_from_slice(header.as_bytes());
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
    wire.extend_from_slice(body);
    wire
}
