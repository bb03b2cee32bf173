//! Where the database lives, as a user writes it: `file:///srv/db`, `file://./rhumb-data`,
//! `s3://bucket/prefix`, `memory://`.  Parsed once; what parses can be opened.

use std::fmt;
use std::path::{Component, PathBuf};
use std::str::FromStr;

use object_store::path::Path;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUrl {
    /// A folder; a relative one is relative to the working directory of the process.
    File {
        folder: PathBuf,
    },
    S3 {
        bucket: String,
        prefix: Path,
    },
    /// Lives and dies with the process.
    Memory,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlProblem {
    #[error("`{0}` is not a store: write file:///folder, file://./folder, s3://bucket/prefix or memory://")]
    NoScheme(String),
    #[error("`{0}://` is not a store this server knows: use file://, s3:// or memory://")]
    UnknownScheme(String),
    #[error("`file://` needs a folder: file:///srv/rhumb or file://./rhumb-data")]
    NoFolder,
    #[error("the folder must not go up with `..`: {0}")]
    FolderGoesUp(String),
    #[error(
        "`{0}` is not a bucket name: 3 to 63 of a-z, 0-9, `.` and `-`, starting and ending with a letter or digit"
    )]
    BadBucket(String),
    #[error("`{prefix}` cannot be a prefix in a bucket: {reason}")]
    BadPrefix { prefix: String, reason: String },
    #[error("`memory://` takes no path, got `{0}`")]
    MemoryPath(String),
    #[error("a store URL takes no query, fragment or password; credentials come from the environment")]
    Extras,
}

impl StoreUrl {
    /// Whether a read costs a system call and not a network round trip.
    pub fn is_local(&self) -> bool {
        matches!(self, Self::File { .. } | Self::Memory)
    }
}

impl FromStr for StoreUrl {
    type Err = UrlProblem;

    fn from_str(text: &str) -> Result<Self, UrlProblem> {
        let text = text.trim();
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| UrlProblem::NoScheme(text.to_owned()))?;
        match scheme {
            "file" => parse_folder(rest),
            "s3" => parse_s3(rest),
            "memory" if rest.is_empty() || rest == "/" => Ok(Self::Memory),
            "memory" => Err(UrlProblem::MemoryPath(rest.to_owned())),
            _ => Err(UrlProblem::UnknownScheme(scheme.to_owned())),
        }
    }
}

/// The text after `file://` is the folder as typed: percent signs, spaces and `?` are
/// legal in folder names and mean themselves.
fn parse_folder(rest: &str) -> Result<StoreUrl, UrlProblem> {
    if rest.is_empty() || rest.contains('\0') {
        return Err(UrlProblem::NoFolder);
    }
    let folder = PathBuf::from(rest);
    if folder.components().any(|c| c == Component::ParentDir) {
        return Err(UrlProblem::FolderGoesUp(rest.to_owned()));
    }
    Ok(StoreUrl::File { folder })
}

fn parse_s3(rest: &str) -> Result<StoreUrl, UrlProblem> {
    if rest.contains(['?', '#', '@']) {
        return Err(UrlProblem::Extras);
    }
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if !is_bucket(bucket) {
        return Err(UrlProblem::BadBucket(bucket.to_owned()));
    }
    let bad = |reason: String| UrlProblem::BadPrefix {
        prefix: prefix.to_owned(),
        reason,
    };
    let prefix_path = Path::parse(prefix).map_err(|e| bad(e.to_string()))?;
    // Room for our own names below it: S3 keys end at 1,024 bytes.
    if prefix.len() > 512 {
        return Err(bad("longer than 512 bytes".into()));
    }
    Ok(StoreUrl::S3 {
        bucket: bucket.to_owned(),
        prefix: prefix_path,
    })
}

fn is_bucket(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    let ends = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    (3..=63).contains(&name.len())
        && name.bytes().all(inner)
        && ends(name.bytes().next())
        && ends(name.bytes().next_back())
        && !name.contains("..")
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { folder } => write!(f, "file://{}", folder.display()),
            Self::S3 { bucket, prefix } if prefix.is_root() => write!(f, "s3://{bucket}"),
            Self::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
            Self::Memory => f.write_str("memory://"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<StoreUrl, UrlProblem> {
        text.parse()
    }

    fn folder(path: &str) -> Result<StoreUrl, UrlProblem> {
        Ok(StoreUrl::File { folder: path.into() })
    }

    #[test]
    fn every_documented_form_parses() {
        assert_eq!(parse("file:///srv/db"), folder("/srv/db"));
        assert_eq!(parse("file://./rhumb-data"), folder("./rhumb-data"));
        assert_eq!(parse("file://rhumb-data/a b"), folder("rhumb-data/a b"));
        assert_eq!(parse("memory://"), Ok(StoreUrl::Memory));
        let s3 = StoreUrl::S3 {
            bucket: "my-bucket".into(),
            prefix: Path::from("prod/db"),
        };
        assert_eq!(parse("s3://my-bucket/prod/db"), Ok(s3.clone()));
        assert_eq!(parse("s3://my-bucket/prod/db/"), Ok(s3));
        let bare = StoreUrl::S3 {
            bucket: "my-bucket".into(),
            prefix: Path::default(),
        };
        assert_eq!(parse("s3://my-bucket"), Ok(bare.clone()));
        assert_eq!(parse(" s3://my-bucket/ "), Ok(bare));
    }

    #[test]
    fn what_is_printed_parses_back() {
        for text in [
            "file:///srv/db",
            "file://./x",
            "s3://bucket",
            "s3://bucket/a/b",
            "memory://",
        ] {
            assert_eq!(parse(text).map(|url| url.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn bad_urls_say_what_is_wrong() {
        assert!(matches!(parse("/srv/db"), Err(UrlProblem::NoScheme(_))));
        assert!(matches!(parse(""), Err(UrlProblem::NoScheme(_))));
        assert!(matches!(parse("gs://b/p"), Err(UrlProblem::UnknownScheme(s)) if s == "gs"));
        assert_eq!(parse("file://"), Err(UrlProblem::NoFolder));
        assert!(matches!(
            parse("file:///srv/../etc"),
            Err(UrlProblem::FolderGoesUp(_))
        ));
        assert!(matches!(parse("memory://x"), Err(UrlProblem::MemoryPath(_))));
        for bucket in ["", "ab", "Upper", "-a-b", "a..b", "a_b", "abc."] {
            assert!(
                matches!(parse(&format!("s3://{bucket}/p")), Err(UrlProblem::BadBucket(_))),
                "{bucket}"
            );
        }
        for prefix in ["a//b", "a/../b", "./a", "a\u{7}b"] {
            let refused = parse(&format!("s3://bucket/{prefix}"));
            assert!(matches!(refused, Err(UrlProblem::BadPrefix { .. })), "{prefix}");
        }
        assert!(matches!(
            parse(&format!("s3://bucket/{}", "p".repeat(513))),
            Err(UrlProblem::BadPrefix { .. })
        ));
        assert_eq!(parse("s3://key:secret@bucket/p"), Err(UrlProblem::Extras));
        assert_eq!(parse("s3://bucket/p?region=x"), Err(UrlProblem::Extras));
    }
}
