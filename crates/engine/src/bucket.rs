//! Buckets: where raw events are archived, each in exactly one object.
//!
//! An object holds the events of one batch as newline-delimited JSON, compressed with zstd. Its name follows from
//! the batch's bounds, and an object is put whole or not at all and never replaced: putting a batch again after a
//! crash finds the object of before. Bucket code knows nothing of how far a sync has come.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{BufWriter, Read as _, Write};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
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

impl BucketError {
    /// Whether the object is gone or not what was put, and not merely out of reach for now.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        match self {
            Self::Damaged { .. } => true,
            Self::Io { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
            Self::Name(_) | Self::Other(_) => false,
        }
    }
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

    /// The body, byte for byte. [`Bucket::read`] has seen that base64 is such.
    #[must_use]
    pub fn bytes(&self) -> Cow<'_, [u8]> {
        match &self.body {
            ArchivedBody::Text(text) => Cow::Borrowed(text.as_bytes()),
            ArchivedBody::Base64(text) => Cow::Owned(STANDARD.decode(text).unwrap_or_default()),
        }
    }

    fn check(self) -> Result<Self, String> {
        if let ArchivedBody::Base64(text) = &self.body {
            STANDARD.decode(text).map_err(|error| error.to_string())?;
        }
        Ok(self)
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

/// Writes the content of an object with these events, before compression.
///
/// # Errors
/// What the writer says.
pub fn write_lines<'a>(events: impl IntoIterator<Item = &'a Event>, to: &mut dyn Write) -> std::io::Result<()> {
    for event in events {
        serde_json::to_writer(&mut *to, &ArchivedEvent::new(event))?;
        to.write_all(b"\n")?;
    }
    Ok(())
}

/// What writes the content of an object, as often as it is asked to.
pub type Content<'a> = &'a dyn Fn(&mut dyn Write) -> std::io::Result<()>;

impl Bucket {
    /// The bucket in the folder `root`, which is made when the first object comes.
    #[must_use]
    pub fn own(root: PathBuf) -> Self {
        Self { root }
    }

    /// Puts an object durably, unless it is there already with the same content; gives the SHA-256 of the object.
    /// The content is never held in memory. Blocks on the disk.
    ///
    /// # Errors
    /// `Other` when an object with other content has the name, `Damaged` when one cannot be read.
    pub fn put(&self, name: &str, content: Content<'_>) -> Result<[u8; 32], BucketError> {
        let path = self.path(name)?;
        let io = |source| BucketError::Io { name: name.to_owned(), source };
        let mut wanted = Sha256::new();
        if path.exists() {
            content(&mut HashWriter(&mut wanted)).map_err(io)?;
        } else {
            self.write_new(&path, content, &mut wanted).map_err(io)?;
        }
        // Read back as it stands there: also when another hand put it in the meantime. The content is compared, not
        // the compressed bytes, which another version of the compressor may make otherwise.
        let mut there = Sha256::new();
        let sha256 = self.each_block(name, &path, |block| there.update(block))?;
        if there.finalize() == wanted.finalize() { Ok(sha256) } else { Err(BucketError::Other(name.to_owned())) }
    }

    /// Puts an object in the place of one that is lost or damaged, which is kept beside it as `NAME.damaged`.
    /// Blocks on the disk.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn put_again(&self, name: &str, content: Content<'_>) -> Result<[u8; 32], BucketError> {
        let path = self.path(name)?;
        let mut damaged = path.clone().into_os_string();
        damaged.push(".damaged");
        match fs::rename(&path, damaged) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(BucketError::Io { name: name.to_owned(), source: error })
            }
            _ => self.put(name, content),
        }
    }

    /// The events of an object whose SHA-256 is `sha256`, where that is known. Blocks on the disk.
    ///
    /// # Errors
    /// When the object is not there or not what we put.
    pub fn read(&self, name: &str, sha256: Option<&[u8]>) -> Result<Vec<ArchivedEvent>, BucketError> {
        let damaged = |reason: String| BucketError::Damaged { name: name.to_owned(), reason };
        let (mut events, mut line, mut fault) = (Vec::new(), Vec::new(), None);
        let found = self.each_block(name, &self.path(name)?, |mut block| {
            while let Some(end) = block.iter().position(|byte| *byte == b'\n') {
                line.extend_from_slice(&block[..end]);
                block = &block[end + 1..];
                let event = serde_json::from_slice(&line).map_err(|error| error.to_string());
                match event.and_then(ArchivedEvent::check) {
                    Ok(event) => events.push(event),
                    Err(error) => fault = fault.take().or(Some(error)),
                }
                line.clear();
            }
            line.extend_from_slice(block);
        })?;
        if sha256.is_some_and(|sha256| sha256 != found) {
            return Err(damaged("its bytes are not those that were put".to_owned()));
        }
        match fault {
            Some(error) => Err(damaged(error)),
            None if !line.is_empty() => Err(damaged("it ends within an event".to_owned())),
            None => Ok(events),
        }
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

    /// Goes over the content of an object block by block; gives the SHA-256 of the object.
    fn each_block(&self, name: &str, path: &Path, mut see: impl FnMut(&[u8])) -> Result<[u8; 32], BucketError> {
        let io = |source| BucketError::Io { name: name.to_owned(), source };
        let damaged = |reason: String| BucketError::Damaged { name: name.to_owned(), reason };
        let mut hasher = Sha256::new();
        let mut packed = HashReader { file: File::open(path).map_err(io)?, hasher: &mut hasher };
        let mut seen = 0;
        let mut read = || {
            let mut content = zstd::stream::Decoder::new(&mut packed)?;
            let mut block = vec![0; 64 << 10];
            loop {
                match content.read(&mut block)? {
                    0 => return Ok(()),
                    count => {
                        seen += count as u64;
                        if seen > OBJECT_MAX_BYTES {
                            return Err(std::io::Error::other(format!("it holds more than {OBJECT_MAX_BYTES} bytes")));
                        }
                        see(&block[..count]);
                    }
                }
            }
        };
        read().map_err(|error: std::io::Error| damaged(error.to_string()))?;
        Ok(hasher.finalize().into())
    }

    fn write_new(&self, path: &Path, content: Content<'_>, hasher: &mut Sha256) -> std::io::Result<()> {
        let folder = path.parent().unwrap_or(&self.root);
        make_folders(folder)?;
        // One sync has one run at a time, so nobody else writes this file; what a crash left in it is overwritten.
        let partial = path.with_extension("part");
        let mut packed = zstd::stream::Encoder::new(File::create(&partial)?, LEVEL)?;
        packed.include_checksum(true)?;
        let mut tee = BufWriter::new(Tee { to: &mut packed, hasher });
        content(&mut tee)?;
        tee.flush()?;
        drop(tee);
        packed.finish()?.sync_all()?;
        match fs::hard_link(&partial, path) {
            Ok(()) => fs::remove_file(&partial)?,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => fs::remove_file(&partial)?,
            // A file system without hard links.
            Err(_) => fs::rename(&partial, path)?,
        }
        File::open(folder)?.sync_all()
    }
}

/// Hashes what is written to it.
struct HashWriter<'a>(&'a mut Sha256);

impl Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Hashes what is written through it.
struct Tee<'a, W> {
    to: W,
    hasher: &'a mut Sha256,
}

impl<W: Write> Write for Tee<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.to.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.to.flush()
    }
}

/// Hashes what is read through it.
struct HashReader<'a> {
    file: File,
    hasher: &'a mut Sha256,
}

impl std::io::Read for HashReader<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        let count = self.file.read(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
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
    use bytes::Bytes;
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

    fn content(bytes: &'static [u8]) -> impl Fn(&mut dyn Write) -> std::io::Result<()> {
        move |to| to.write_all(bytes)
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
        let sha256 = bucket.put("a/b.zst", &|to| write_lines(&events, to)).unwrap();
        let archived = bucket.read("a/b.zst", Some(&sha256)).unwrap();
        assert_eq!(archived, events.iter().map(ArchivedEvent::new).collect::<Vec<_>>());
        for (archived, event) in archived.iter().zip(&events) {
            assert_eq!(archived.bytes(), event.body.as_ref());
        }
        let mut first = Vec::new();
        write_lines(&events[..1], &mut first).unwrap();
        let first = String::from_utf8(first).unwrap();
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
        let first = bucket.put("a/b.zst", &content(b"one\n")).unwrap();
        assert_eq!(bucket.put("a/b.zst", &content(b"one\n")).unwrap(), first);
        assert!(matches!(bucket.put("a/b.zst", &content(b"two\n")), Err(BucketError::Other(_))));
        let path = bucket.path("a/b.zst").unwrap();
        assert_eq!(first, <[u8; 32]>::from(Sha256::digest(fs::read(&path).unwrap())));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        // Compressed otherwise, it says the same.
        fs::write(&path, zstd::bulk::compress(b"one\n", 19).unwrap()).unwrap();
        bucket.put("a/b.zst", &content(b"one\n")).unwrap();
    }

    #[test]
    fn overwrites_what_a_crash_left_half_written() {
        let (_folder, bucket) = bucket();
        let path = bucket.path("a/b.ndjson.zst").unwrap();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path.with_extension("part"), "half").unwrap();
        bucket.put("a/b.ndjson.zst", &content(b"whole\n")).unwrap();
        assert_eq!(zstd::stream::decode_all(fs::File::open(&path).unwrap()).unwrap(), b"whole\n");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn says_what_is_wrong_with_an_object() {
        let (_folder, bucket) = bucket();
        assert!(matches!(bucket.read("gone", None), Err(BucketError::Io { .. })));
        bucket.put("a", &content(b"no json\n")).unwrap();
        assert!(matches!(bucket.read("a", None), Err(BucketError::Damaged { .. })));
        fs::write(bucket.path("a").unwrap(), "no zstd").unwrap();
        assert!(matches!(bucket.read("a", None), Err(BucketError::Damaged { .. })));
    }

    #[test]
    fn notices_every_bit_that_is_flipped() {
        let (_folder, bucket) = bucket();
        let events = [event(1, b"{\"a\": 1}"), event(2, b"some more text")];
        let sha256 = bucket.put("a", &|to| write_lines(&events, to)).unwrap();
        let path = bucket.path("a").unwrap();
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (at % 8);
            fs::write(&path, flipped).unwrap();
            assert!(matches!(bucket.read("a", Some(&sha256)), Err(BucketError::Damaged { .. })), "byte {at}");
        }
        fs::write(&path, [whole.as_slice(), b"more"].concat()).unwrap();
        assert!(matches!(bucket.read("a", Some(&sha256)), Err(BucketError::Damaged { .. })));
        bucket.put_again("a", &|to| write_lines(&events, to)).unwrap();
        assert_eq!(bucket.read("a", Some(&sha256)).unwrap().len(), 2);
        assert!(path.with_extension("damaged").exists());
    }

    #[test]
    fn stays_in_its_folder() {
        let (_folder, bucket) = bucket();
        for name in ["", "/a", "a/", "..", "a/../b", "a//b", ".", "a\\b", "a\0"] {
            assert!(matches!(bucket.put(name, &content(b"")), Err(BucketError::Name(_))), "{name}");
            assert!(matches!(bucket.read(name, None), Err(BucketError::Name(_))), "{name}");
        }
    }
}
