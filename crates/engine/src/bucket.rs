//! Buckets: where raw events are archived, each in exactly one object.
//!
//! An object holds the events of one batch as newline-delimited JSON, compressed with zstd. Its name follows from
//! the batch's bounds, and an object is put whole or not at all and never replaced: putting a batch again after a
//! crash finds the object of before. Bucket code knows nothing of how far a sync has come.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use linkspan_model::event::{Event, Headers};
use linkspan_model::{EventId, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Most bytes that an object may hold uncompressed: a batch of 8 MiB and one more body of 64 MiB, in base64 or with
/// every byte escaped (six to one). What is larger is not ours.
const OBJECT_MAX_BYTES: u64 = 512 << 20;
/// The compressor's level: its default, which webhook JSON hardly gains above.
const LEVEL: i32 = 3;

/// Why an object cannot be put or read.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    /// The name would lead out of the bucket.
    #[error("`{0}` is not the name of an object")]
    Name(String),
    /// An object with other content has this name.
    #[error("object {0} is there already and holds other events; the bucket belongs to another server or was changed")]
    Other(String),
    /// The object is not what we put.
    #[error("object {name} cannot be read: {reason}")]
    Damaged {
        /// The object.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The disk refused.
    #[error("object {name}: {source}")]
    Io {
        /// The object.
        name: String,
        /// What the disk said.
        source: std::io::Error,
    },
}

/// The bucket `own`: a folder in the data folder.
#[derive(Debug, Clone)]
pub struct Bucket {
    root: PathBuf,
}

/// An event as it stands in an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchivedEvent {
    /// Its id.
    pub id: EventId,
    /// When it was accepted.
    pub received_at: Timestamp,
    /// The name after the key in the URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_name: Option<String>,
    /// The method.
    pub method: String,
    /// The query string as sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// The headers.
    pub headers: Headers,
    /// The body, as `body` where it is UTF-8 and as `body_base64` where not.
    #[serde(flatten)]
    pub body: ArchivedBody,
}

/// A body in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ArchivedBody {
    /// A text.
    #[serde(rename = "body")]
    Text(String),
    /// Base64 of bytes that are no text.
    #[serde(rename = "body_base64")]
    Base64(String),
}

impl ArchivedEvent {
    /// The event as it is archived.
    #[must_use]
    pub fn new(event: &Event) -> Self {
        let body = match std::str::from_utf8(&event.body) {
            Ok(text) => ArchivedBody::Text(text.to_owned()),
            Err(_) => ArchivedBody::Base64(STANDARD.encode(&event.body)),
        };
        Self {
            id: event.id,
            received_at: event.received_at,
            event_name: event.head.event_name.clone(),
            method: event.head.method.clone(),
            query: event.head.query.clone(),
            headers: event.head.headers.clone(),
            body,
        }
    }

    /// The body, byte for byte.
    ///
    /// # Errors
    /// When it is not base64.
    pub fn bytes(&self) -> Result<Bytes, base64::DecodeError> {
        match &self.body {
            ArchivedBody::Text(text) => Ok(Bytes::copy_from_slice(text.as_bytes())),
            ArchivedBody::Base64(text) => STANDARD.decode(text).map(Bytes::from),
        }
    }
}

/// The name of the object with the events of one sync after position `after` up to `last`, the first of which came
/// at `first_at`. Positions have as many digits as any can have, so that names sort as the log does.
#[must_use]
pub fn object_name(endpoint: &str, sync: &str, first_at: Timestamp, after: u64, last: u64) -> String {
    let day = first_at.to_string();
    let day = day.get(..10).unwrap_or("0000-00-00").replace('-', "/");
    format!("endpoints/{}/syncs/{}/{day}/{after:020}-{last:020}.ndjson.zst", segment(endpoint), segment(sync))
}

/// A text as one segment of a name: nothing in it separates, climbs or hides.
fn segment(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    if encoded.is_empty() { "%".to_owned() } else { encoded }
}

/// The content of an object with these events, before compression.
#[must_use]
pub fn lines<'a>(events: impl IntoIterator<Item = &'a Event>) -> Vec<u8> {
    let mut lines = Vec::new();
    for event in events {
        // Writing to memory what has text keys cannot fail.
        if serde_json::to_writer(&mut lines, &ArchivedEvent::new(event)).is_ok() {
            lines.push(b'\n');
        }
    }
    lines
}

impl Bucket {
    /// The bucket in the folder `root`, which is made when the first object comes.
    #[must_use]
    pub fn own(root: PathBuf) -> Self {
        Self { root }
    }

    /// Puts an object durably, unless it is there already with the same content; gives the SHA-256 of the object.
    /// Blocks on the disk.
    ///
    /// # Errors
    /// `Other` when an object with other content has the name.
    pub fn put(&self, name: &str, content: &[u8]) -> Result<[u8; 32], BucketError> {
        let path = self.path(name)?;
        if path.exists() {
            return self.compare(name, &path, content);
        }
        self.write_new(&path, content).map_err(|source| BucketError::Io { name: name.to_owned(), source })?;
        // Read back as it stands there: also when another hand put it in the meantime.
        self.compare(name, &path, content)
    }

    /// The events of an object. Blocks on the disk.
    ///
    /// # Errors
    /// When the object is not there or not what we put.
    pub fn read(&self, name: &str) -> Result<Vec<ArchivedEvent>, BucketError> {
        let (content, _) = self.content(name, &self.path(name)?)?;
        let damaged =
            |reason: &dyn std::fmt::Display| BucketError::Damaged { name: name.to_owned(), reason: reason.to_string() };
        let lines = content.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).map_err(|error| damaged(&error))).collect()
    }

    fn path(&self, name: &str) -> Result<PathBuf, BucketError> {
        let is_plain = |part: &str| {
            !matches!(part, "" | "." | "..")
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.%".contains(&byte))
        };
        if name.split('/').all(is_plain) {
            Ok(self.root.join(name))
        } else {
            Err(BucketError::Name(name.chars().take(300).collect()))
        }
    }

    /// What is there is fine when it says the same. The content is compared, not the compressed bytes, which
    /// another version of the compressor may make otherwise.
    fn compare(&self, name: &str, path: &Path, content: &[u8]) -> Result<[u8; 32], BucketError> {
        let (there, sha256) = self.content(name, path)?;
        if there == content { Ok(sha256) } else { Err(BucketError::Other(name.to_owned())) }
    }

    fn content(&self, name: &str, path: &Path) -> Result<(Vec<u8>, [u8; 32]), BucketError> {
        let io = |source| BucketError::Io { name: name.to_owned(), source };
        let compressed = fs::read(path).map_err(io)?;
        let damaged = |reason: String| BucketError::Damaged { name: name.to_owned(), reason };
        let mut content = Vec::new();
        zstd::stream::Decoder::new(compressed.as_slice())
            .and_then(|decoder| decoder.take(OBJECT_MAX_BYTES + 1).read_to_end(&mut content))
            .map_err(|error| damaged(error.to_string()))?;
        if content.len() as u64 > OBJECT_MAX_BYTES {
            return Err(damaged(format!("it holds more than {OBJECT_MAX_BYTES} bytes")));
        }
        Ok((content, Sha256::digest(&compressed).into()))
    }

    fn write_new(&self, path: &Path, content: &[u8]) -> std::io::Result<()> {
        let folder = path.parent().unwrap_or(&self.root);
        make_folders(folder)?;
        // One sync has one run at a time, so nobody else writes this file; what a crash left in it is overwritten.
        let partial = path.with_extension("part");
        let mut file = File::create(&partial)?;
        file.write_all(&zstd::bulk::compress(content, LEVEL)?)?;
        file.sync_all()?;
        drop(file);
        match fs::hard_link(&partial, path) {
            Ok(()) => fs::remove_file(&partial)?,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => fs::remove_file(&partial)?,
            // A file system without hard links.
            Err(_) => fs::rename(&partial, path)?,
        }
        File::open(folder)?.sync_all()
    }
}

/// Makes a folder and those above it, each durable in the one above.
fn make_folders(folder: &Path) -> std::io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let Some(above) = folder.parent() else { return fs::create_dir(folder) };
    make_folders(above)?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        made => made.and_then(|()| File::open(above)?.sync_all()),
    }
}

#[cfg(test)]
mod tests {
    use linkspan_model::event::{EventHead, HeaderText, VerifiedBy};

    use super::*;

    const AT: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

    fn event(seq: u64, body: &'static [u8]) -> Event {
        Event {
            id: EventId::new(AT, seq, 7),
            endpoint: "in".parse().unwrap(),
            received_at: AT,
            head: EventHead {
                method: "POST".to_owned(),
                event_name: Some("order".to_owned()),
                query: None,
                headers: vec![
                    ("content-type".to_owned(), HeaderText::new("text/plain")),
                    ("x-bytes".to_owned(), HeaderText::new(vec![0xff])),
                ],
                remote: None,
                verified: VerifiedBy { by: "none".to_owned(), ok: false },
            },
            body: Bytes::from_static(body),
        }
    }

    fn bucket() -> (tempfile::TempDir, Bucket) {
        let folder = tempfile::tempdir().unwrap();
        let bucket = Bucket::own(folder.path().join("bucket"));
        (folder, bucket)
    }

    #[test]
    fn names_objects_after_their_bounds() {
        assert_eq!(
            object_name("github", "sync_0190", AT, 7, 12),
            "endpoints/github/syncs/sync_0190/2023/11/14/00000000000000000007-00000000000000000012.ndjson.zst"
        );
        assert!(object_name("../x", "", AT, 0, 1).starts_with("endpoints/%2E%2E%2Fx/syncs/%/2023/"));
    }

    #[test]
    fn gives_back_what_was_put() {
        let (_folder, bucket) = bucket();
        let events = [event(1, b"{\"a\": 1}\n"), event(2, b""), event(3, b"\xff\x00")];
        bucket.put("a/b.zst", &lines(&events)).unwrap();
        let archived = bucket.read("a/b.zst").unwrap();
        assert_eq!(archived, events.iter().map(ArchivedEvent::new).collect::<Vec<_>>());
        for (archived, event) in archived.iter().zip(&events) {
            assert_eq!(archived.bytes().unwrap(), event.body);
        }
        let first = String::from_utf8(lines(&events[..1])).unwrap();
        assert_eq!(
            first,
            format!(
                "{{\"id\":\"{}\",\"received_at\":\"2023-11-14T22:13:20.000000Z\",\"event_name\":\"order\",\
                 \"method\":\"POST\",\"headers\":[[\"content-type\",\"text/plain\"],[\"x-bytes\",{{\"base64\":\"/w==\"}}]],\
                 \"body\":\"{{\\\"a\\\": 1}}\\n\"}}\n",
                events[0].id
            )
        );
    }

    #[test]
    fn puts_an_object_once() {
        let (_folder, bucket) = bucket();
        let first = bucket.put("a/b.zst", b"one\n").unwrap();
        assert_eq!(bucket.put("a/b.zst", b"one\n").unwrap(), first);
        assert!(matches!(bucket.put("a/b.zst", b"two\n"), Err(BucketError::Other(_))));
        let path = bucket.path("a/b.zst").unwrap();
        assert_eq!(first, <[u8; 32]>::from(Sha256::digest(fs::read(&path).unwrap())));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        // Compressed otherwise, it says the same.
        fs::write(&path, zstd::bulk::compress(b"one\n", 19).unwrap()).unwrap();
        bucket.put("a/b.zst", b"one\n").unwrap();
    }

    #[test]
    fn overwrites_what_a_crash_left_half_written() {
        let (_folder, bucket) = bucket();
        let path = bucket.path("a/b.ndjson.zst").unwrap();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path.with_extension("part"), "half").unwrap();
        bucket.put("a/b.ndjson.zst", b"whole\n").unwrap();
        assert_eq!(bucket.content("a/b.ndjson.zst", &path).unwrap().0, b"whole\n");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn says_what_is_wrong_with_an_object() {
        let (_folder, bucket) = bucket();
        assert!(matches!(bucket.read("gone"), Err(BucketError::Io { .. })));
        bucket.put("a", b"no json\n").unwrap();
        assert!(matches!(bucket.read("a"), Err(BucketError::Damaged { .. })));
        fs::write(bucket.path("a").unwrap(), "no zstd").unwrap();
        assert!(matches!(bucket.read("a"), Err(BucketError::Damaged { .. })));
    }

    #[test]
    fn stays_in_its_folder() {
        let (_folder, bucket) = bucket();
        for name in ["", "/a", "a/", "..", "a/../b", "a//b", ".", "a\\b", "a\0"] {
            assert!(matches!(bucket.put(name, b""), Err(BucketError::Name(_))), "{name}");
            assert!(matches!(bucket.read(name), Err(BucketError::Name(_))), "{name}");
        }
    }
}
