//! The real binary and real HTTP: a server with a data folder of its own, its client commands, raw requests,
//! and an upstream that does what a test says.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpSocket;

/// Longest wait for anything that should happen at once; long, because the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

const BINARY: &str = env!("CARGO_BIN_EXE_linkspan");

/// What a server is started with.
#[derive(Debug, Default)]
pub(crate) struct Options {
    flags: Vec<String>,
    env: Vec<(String, String)>,
}

impl Options {
    pub(crate) fn flag(mut self, name: &str, value: impl ToString) -> Self {
        self.flags.extend([name.to_owned(), value.to_string()]);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The values of secrets in the environment.
    fn secrets(&self) -> Vec<String> {
        let secrets = self.env.iter().filter(|(name, _)| name.starts_with("LINKSPAN_SECRET_"));
        secrets.map(|(_, value)| value.clone()).collect()
    }

    /// Recipes may call this machine.
    pub(crate) fn egress() -> Self {
        Self::default().flag("--egress-allow", "127.0.0.1/32")
    }
}

/// A running server. Dropped, it is killed; when the test fails, its log is shown.
pub(crate) struct Server {
    child: Child,
    pub(crate) public: SocketAddr,
    pub(crate) operator: SocketAddr,
    pub(crate) data: PathBuf,
    /// The operator token that calls carry.
    pub(crate) token: String,
    folder: Arc<TempDir>,
    /// The id of the refusal that a test has seen last.
    refusals_seen: AtomicU64,
    /// The values of secrets that the server was given; none may stand in anything that it wrote.
    secrets: Mutex<Vec<String>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails only for one that has ended.
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            eprintln!("--- log of the server\n{}", self.log());
        } else {
            self.assert_secrets_kept();
        }
    }
}

/// The binary with an environment that nothing outside the test has a part in.
fn binary() -> Command {
    let mut command = Command::new(BINARY);
    command.env_clear();
    command
}

impl Server {
    /// Starts a server with an empty data folder and waits until it is ready.
    pub(crate) fn start(options: &Options) -> Self {
        let folder = Arc::new(TempDir::new().unwrap());
        let data = folder.path().join("data");
        Self::start_in(folder, data, options)
    }

    /// Starts a server on a data folder that `fill` has filled.
    pub(crate) fn start_on(options: &Options, fill: impl FnOnce(&Path)) -> Self {
        let folder = Arc::new(TempDir::new().unwrap());
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        fill(&data);
        Self::start_in(folder, data, options)
    }

    /// Starts a server on the folder of another one that has ended.
    pub(crate) fn restart(self, options: &Options) -> Self {
        let (folder, data) = (Arc::clone(&self.folder), self.data.clone());
        drop(self);
        Self::start_in(folder, data, options)
    }

    /// Starts a server on the data folder `data` inside this server's temporary folder.
    pub(crate) fn beside(&self, data: &Path, options: &Options) -> Self {
        Self::start_in(Arc::clone(&self.folder), data.to_owned(), options)
    }

    fn start_in(folder: Arc<TempDir>, data: PathBuf, options: &Options) -> Self {
        let log = File::options().create(true).append(true).open(folder.path().join("log")).unwrap();
        Self::start_with_log(folder, data, options, log.into())
    }

    /// Starts a server with an empty data folder whose log goes elsewhere.
    pub(crate) fn start_logging_to(options: &Options, log: Stdio) -> Self {
        let folder = Arc::new(TempDir::new().unwrap());
        let data = folder.path().join("data");
        Self::start_with_log(folder, data, options, log)
    }

    fn start_with_log(folder: Arc<TempDir>, data: PathBuf, options: &Options, log: Stdio) -> Self {
        let mut child = Self::command(&data, options).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut address = |which: &str| -> SocketAddr {
            let line = lines.next().and_then(Result::ok).unwrap_or_else(|| {
                let log = std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
                panic!("the server ended before it was up:\n{log}")
            });
            let url = line.strip_prefix(which).unwrap_or_else(|| panic!("{which} is not announced: {line}")).trim();
            url.rsplit_once("//").unwrap().1.parse().unwrap()
        };
        let (public, operator) = (address("public"), address("operator"));
        let token = std::fs::read_to_string(data.join("operator-token")).unwrap_or_default().trim().to_owned();
        let refusals_seen = AtomicU64::new(0);
        let secrets = Mutex::new(options.secrets());
        let server = Self { child, public, operator, data, token, folder, refusals_seen, secrets };
        eventually("the server is ready", || (server.get("/readyz").status == 200).then_some(()));
        server
    }

    /// `serve` on this folder, not yet started.
    pub(crate) fn command(data: &Path, options: &Options) -> Command {
        let mut command = binary();
        command.args(["serve", "--disk-min-free", "1MiB"]);
        for listener in ["--public", "--operator"] {
            if !options.flags.iter().any(|flag| flag == listener) {
                command.args([listener, "127.0.0.1:0"]);
            }
        }
        command.arg("--data").arg(data).args(&options.flags).stdin(Stdio::null());
        command.envs(options.env.iter().cloned());
        command
    }

    /// The temporary folder round the data folder.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Runs a client command against this server.
    pub(crate) fn cli(&self, args: &[&str]) -> Ran {
        self.cli_with_input(args, "")
    }

    pub(crate) fn cli_with_input(&self, args: &[&str], input: &str) -> Ran {
        self.note_secrets(input);
        let mut command = binary();
        command.args(args).env("LINKSPAN_URL", format!("http://{}", self.operator)).env("LINKSPAN_DATA", &self.data);
        if !self.data.join("operator-token").exists() {
            command.env("LINKSPAN_TOKEN", &self.token);
        }
        Ran::of(&mut command, input)
    }

    /// Runs a client command that must succeed; gives its JSON.
    pub(crate) fn cli_json(&self, args: &[&str]) -> Value {
        let mut args = args.to_vec();
        args.extend(["--output", "json"]);
        serde_json::from_str(&self.cli(&args).success()).unwrap()
    }

    /// Runs a client command that must end with this code; gives its JSON.
    pub(crate) fn cli_json_code(&self, args: &[&str], code: i32) -> Value {
        let mut args = args.to_vec();
        args.extend(["--output", "json"]);
        let ran = self.cli(&args);
        assert_eq!(ran.code, code, "{ran:?}");
        serde_json::from_str(&ran.stdout).unwrap()
    }

    /// Applies documents that must be right.
    pub(crate) fn apply(&self, yaml: &str) {
        self.cli_with_input(&["apply", "-f", "-"], yaml).success();
    }

    /// Notes the values of secrets in documents: `value: …` of each whose kind is secret.
    fn note_secrets(&self, documents: &str) {
        let secrets = documents.split("---\n").filter(|document| document.contains("kind: secret"));
        let values = secrets.filter_map(|document| {
            let value = document.split_once("value:")?.1.lines().next()?;
            Some(value.trim().trim_end_matches('}').trim_matches(['\'', '"', ' ']).to_owned())
        });
        self.secrets.lock().unwrap().extend(values);
    }

    /// No value of a secret stands in the database, the log or any other file, but for those that tests themselves
    /// laid into `secrets/`.
    fn assert_secrets_kept(&self) {
        let secrets = self.secrets.lock().unwrap();
        // Of one with several lines, such as a key, the longest: line breaks are written in many ways.
        let secrets = secrets.iter().filter_map(|secret| secret.lines().max_by_key(|line| line.len()));
        for secret in secrets.filter(|secret| secret.len() >= 8) {
            let mut found = self.files_with(secret);
            found.retain(|file| !file.starts_with(self.data.join("secrets")));
            assert!(found.is_empty(), "the secret {secret} stands in {found:?}");
            assert!(!self.log().contains(secret), "the secret {secret} stands in the log");
        }
    }

    /// Calls the operator API with the token.
    pub(crate) fn api(&self, method: &str, path: &str, body: Option<&Value>) -> Response {
        self.api_with(method, path, &[], body)
    }

    pub(crate) fn api_with(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Response {
        let bearer = format!("Bearer {}", self.token);
        let mut all = vec![("Authorization", bearer.as_str())];
        all.extend_from_slice(headers);
        let body = body.map(|body| serde_json::to_vec(body).unwrap());
        if body.is_some() && !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
            all.push(("Content-Type", "application/json"));
        }
        request(self.operator, method, path, &all, &body.unwrap_or_default())
    }

    /// GET on the operator listener with the token.
    pub(crate) fn get(&self, path: &str) -> Response {
        self.api("GET", path, None)
    }

    /// The `data` of an operator API answer that must be a success.
    pub(crate) fn data(&self, path: &str) -> Value {
        let answer = self.get(path);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()["data"].clone()
    }

    /// The path of an endpoint's public URL.
    pub(crate) fn path_of(&self, endpoint: &str) -> String {
        let data = self.data(&format!("/api/v1/endpoints/{endpoint}"));
        let url = data["status"]["url"].as_str().unwrap();
        url.strip_prefix(&format!("http://{}", self.public)).unwrap_or_else(|| panic!("{url}")).to_owned()
    }

    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a webhook.
    pub(crate) fn post(&self, path: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Response {
        request(self.public, "POST", path, headers, body.as_ref())
    }

    /// Sends a JSON webhook that must be accepted; gives the event's id.
    pub(crate) fn accept(&self, path: &str, body: &Value) -> String {
        let answer = self.post(path, &[("Content-Type", "application/json")], body.to_string());
        assert_eq!(answer.status, 202, "{answer:?}");
        answer.json()["data"]["id"].as_str().unwrap().to_owned()
    }

    /// The newest job of a recipe once it has come to a state that `is_wanted`.
    pub(crate) fn job_when(&self, recipe: &str, is_wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("a job of {recipe} is as wanted"), || {
            let list = self.data(&format!("/api/v1/jobs?recipe={recipe}&limit=1"));
            let id = list[0]["id"].as_str()?.to_owned();
            let job = self.data(&format!("/api/v1/jobs/{id}"));
            is_wanted(&job).then_some(job)
        })
    }

    /// A job once it has ended.
    pub(crate) fn ended_job(&self, id: &str) -> Value {
        eventually(&format!("job {id} has ended"), || {
            let job = self.data(&format!("/api/v1/jobs/{id}"));
            is_ended(&job).then_some(job)
        })
    }

    /// The only job that an event has started, once it has ended.
    pub(crate) fn job_of(&self, event: &str) -> Value {
        let id = eventually("the event has started a job", || {
            let jobs = self.data(&format!("/api/v1/jobs?event={event}"));
            Some(jobs[0]["id"].as_str()?.to_owned())
        });
        self.ended_job(&id)
    }

    /// Waits until every event so far has been looked at for recipes.
    pub(crate) fn dispatched(&self) {
        eventually("every event is dispatched", || {
            let metrics = self.get("/metrics").text();
            metrics.lines().any(|line| line == "linkspan_dispatch_lag_events 0").then_some(())
        });
    }

    /// The newest refusal with this code, once there is one that this did not give before.
    #[track_caller]
    pub(crate) fn refusal(&self, code: &str) -> Value {
        let refusal = eventually(&format!("a refusal {code} is listed"), || {
            let refusals = self.data("/api/v1/refusals");
            let newest = refusals.as_array()?.iter().find(|refusal| refusal["code"] == code)?;
            (newest["id"].as_u64() > Some(self.refusals_seen.load(Ordering::Relaxed))).then(|| newest.clone())
        });
        self.refusals_seen.store(refusal["id"].as_u64().unwrap(), Ordering::Relaxed);
        refusal
    }

    /// What the kernel says of the process in this file below `/proc/PID`.
    pub(crate) fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).unwrap()
    }

    /// Waits for the server's end; whether that left a core dump.
    pub(crate) fn leaves_core_dump(&mut self) -> bool {
        use std::os::unix::process::ExitStatusExt as _;
        eventually("the server has ended", || self.child.try_wait().unwrap()).core_dumped()
    }

    /// Limits the size that files may grow to from now on, in bytes.
    pub(crate) fn limit_files(&self, bytes: u64) {
        use rustix::process::{Pid, Resource, Rlimit, prlimit};
        let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
        prlimit(Some(Pid::from_child(&self.child)), Resource::Fsize, limit).unwrap();
    }

    /// How the server ended, if it has within a moment.
    pub(crate) fn has_ended(&mut self) -> Option<std::process::ExitStatus> {
        std::thread::sleep(Duration::from_secs(1));
        self.child.try_wait().unwrap()
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for the server's own end; gives its exit code.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        eventually("the server has ended", || self.child.try_wait().unwrap()).code()
    }

    /// Every file of the data folder that holds `needle`. By `grep`: the disk reserve alone is 64 MiB, which an
    /// unoptimised search takes seconds for.
    pub(crate) fn files_with(&self, needle: &str) -> Vec<PathBuf> {
        // One that does hold it, searched last: a search that cannot find must not pass for one that found nothing.
        let mut control = tempfile::NamedTempFile::new().unwrap();
        control.write_all(needle.as_bytes()).unwrap();
        let mut search = Command::new("grep");
        search.args(["-rlF", "--", needle]).arg(&self.data).arg(control.path()).env("LC_ALL", "C");
        let output = search.output().unwrap();
        // The server works on, so that files may go away meanwhile; the folder may not.
        let complaints = String::from_utf8(output.stderr).unwrap();
        let are_of_files_gone = complaints.lines().all(|line| line.ends_with(": No such file or directory"));
        assert!(are_of_files_gone && self.data.is_dir(), "{complaints}");
        let mut files: Vec<_> = String::from_utf8(output.stdout).unwrap().lines().map(PathBuf::from).collect();
        assert_eq!(files.pop().as_deref(), Some(control.path()), "{complaints}");
        files
    }
}

pub(crate) fn is_ended(job: &Value) -> bool {
    matches!(job["status"].as_str(), Some("succeeded" | "failed" | "canceled"))
}

/// A command that has run.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    fn of(command: &mut Command, input: &str) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // A command that does not read its input may be gone already.
        drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
        let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: status.code().unwrap_or(-1), stdout: text(stdout), stderr: text(stderr) }
    }

    /// What the command wrote; it must have succeeded.
    #[track_caller]
    pub(crate) fn success(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.stdout
    }

    /// What the command wrote and remarked; it must have succeeded.
    #[track_caller]
    pub(crate) fn success_all(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.stdout + &self.stderr
    }

    /// What the command complained of; it must have ended with this code.
    #[track_caller]
    pub(crate) fn failure(self, code: i32) -> String {
        assert_eq!(self.code, code, "{self:?}");
        self.stderr
    }
}

/// Runs the binary without any server.
pub(crate) fn run(args: &[&str], env: &[(&str, &str)]) -> Ran {
    Ran::of(binary().args(args).envs(env.iter().copied()), "")
}

/// A process that does not outlive the test, also when the test fails.
pub(crate) struct Ending(pub(crate) Child);

impl Drop for Ending {
    fn drop(&mut self) {
        // Fails only for one that has ended.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// An address where nobody listens: bound, so that no other test gets it, as long as the socket lives.
pub(crate) fn unheard() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// Asks again and again until there is an answer.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(15));
    }
}

/// An answer as it came over the wire.
#[derive(Clone)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl std::fmt::Debug for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let body: String = self.text().chars().take(2_000).collect();
        write!(f, "{} {:?}\n{body}", self.status, self.headers)
    }
}

impl Response {
    /// The first value of a header, or nothing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Checks the two-field error body, and that nothing stands beside the two fields.
    #[track_caller]
    pub(crate) fn assert_error(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/json", "{self:?}");
        let body = self.json();
        assert_eq!(body["error"]["code"], code, "{self:?}");
        assert!(body["error"]["description"].as_str().is_some_and(|text| !text.is_empty()), "{self:?}");
        assert_eq!(body.as_object().unwrap().len(), 1, "{self:?}");
        let mut fields: Vec<&String> = body["error"].as_object().unwrap().keys().collect();
        fields.retain(|field| *field != "faults");
        assert_eq!(fields, ["code", "description"], "{self:?}");
    }
}

/// A connection on which bytes are written as they stand.
pub(crate) struct Wire {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Wire {
    pub(crate) fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, read: Vec::new() }
    }

    /// Writes; says whether the other side still takes it.
    pub(crate) fn write(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub(crate) fn end_writing(&self) {
        // Fails only when the other side has closed already.
        drop(self.stream.shutdown(Shutdown::Write));
    }

    /// Reads some bytes; none when the other side has closed.
    fn more(&mut self) -> usize {
        let mut piece = [0; 16 << 10];
        match self.stream.read(&mut piece) {
            Ok(n) => {
                self.read.extend_from_slice(&piece[..n]);
                n
            }
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                panic!("nothing came within {PATIENCE:?}, and the connection is open")
            }
            // A reset ends a connection too.
            Err(_) => 0,
        }
    }

    /// Reads until the other side closes; gives what was not yet taken.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        while self.more() > 0 {}
        std::mem::take(&mut self.read)
    }

    /// Reads until `find` finds something in what came; nothing when the connection is closed before.
    pub(crate) fn until<T>(&mut self, find: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
        loop {
            if let Some(found) = find(&self.read) {
                return Some(found);
            }
            if self.more() == 0 {
                return None;
            }
        }
    }

    /// Reads one answer; nothing when the connection is closed before one is whole.
    pub(crate) fn response(&mut self) -> Option<Response> {
        loop {
            if let Some((response, length)) = parse(&self.read) {
                self.read.drain(..length);
                return Some(response);
            }
            if self.more() == 0 {
                return None;
            }
        }
    }
}

/// An answer at the beginning of `bytes` and its length, when it is whole.
fn parse(bytes: &[u8]) -> Option<(Response, usize)> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length =
        headers.iter().find(|(name, _)| name == "content-length").map_or(0, |(_, value)| value.parse().unwrap());
    if headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked") {
        let (body, length) = unchunk(&bytes[end + 4..])?;
        return Some((Response { status, headers, body }, end + 4 + length));
    }
    let body = bytes.get(end + 4..end + 4 + length)?.to_vec();
    Some((Response { status, headers, body }, end + 4 + length))
}

/// A body in chunks (RFC 9112, section 7.1) without trailers, and its length on the wire, when it is whole.
fn unchunk(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let line = bytes[at..].windows(2).position(|window| window == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[at..at + line]).unwrap(), 16).unwrap();
        at += line + 2;
        body.extend_from_slice(bytes.get(at..at + size)?);
        at += size;
        assert_eq!(bytes.get(at..at + 2)?, b"\r\n", "a chunk ends with its line");
        at += 2;
        if size == 0 {
            return Some((body, at));
        }
    }
}

/// The bytes of a request head and body, `Host` and `Content-Length` added.
pub(crate) fn request_bytes(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Vec<u8> {
    let mut bytes = format!("{method} {path} HTTP/1.1\r\n").into_bytes();
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        bytes.extend(format!("Host: {address}\r\n").bytes());
    }
    for (name, value) in headers {
        bytes.extend(format!("{name}: {value}\r\n").bytes());
    }
    if !body.is_empty() || method != "GET" {
        bytes.extend(format!("Content-Length: {}\r\n", body.len()).bytes());
    }
    bytes.extend(b"\r\n");
    bytes.extend(body);
    bytes
}

/// Sends one request on a connection of its own.
#[track_caller]
pub(crate) fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Response {
    let mut wire = Wire::open(address);
    wire.write(request_bytes(address, method, path, headers, body));
    wire.response().unwrap_or_else(|| panic!("no answer to {method} {path}"))
}

/// Sends bytes as they stand on a connection of their own; gives the answer, if there is one.
pub(crate) fn raw(address: SocketAddr, bytes: impl AsRef<[u8]>) -> Option<Response> {
    let mut wire = Wire::open(address);
    wire.write(bytes);
    wire.response()
}

/// A request that an upstream has received.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// What an upstream does with a request.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// Answers.
    Json(u16, Value),
    /// Answers with these lines in the head and this body.
    Raw(u16, &'static str, Vec<u8>),
    /// Answers 200 once somebody else has come to the barrier.
    At(Arc<Barrier>),
    /// Never answers, and keeps the connection open.
    Hang,
}

type Plan = Box<dyn Fn(usize, &Seen) -> Reply + Send + Sync>;

/// An API that recipes call.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    seen: Arc<(Mutex<Vec<Seen>>, Condvar)>,
}

impl Upstream {
    /// An upstream that replies as `plan` says to the nth request, from 0.
    pub(crate) fn start(plan: impl Fn(usize, &Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        let (plan, log): (Arc<Plan>, _) = (Arc::new(Box::new(plan)), Arc::clone(&seen));
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (plan, log) = (Arc::clone(&plan), Arc::clone(&log));
                std::thread::spawn(move || serve(stream, &plan, &log));
            }
        });
        Self { address, seen }
    }

    /// An upstream that answers 200 to everything.
    pub(crate) fn ok() -> Self {
        Self::start(|_, _| Reply::Json(200, json!({"ok": true})))
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.0.lock().unwrap().clone()
    }

    /// The first `count` requests, once they have come.
    #[track_caller]
    pub(crate) fn wait_for(&self, count: usize) -> Vec<Seen> {
        let (seen, came) = &*self.seen;
        let (seen, _) = came.wait_timeout_while(seen.lock().unwrap(), PATIENCE, |seen| seen.len() < count).unwrap();
        assert!(seen.len() >= count, "{} of {count} requests came", seen.len());
        seen.clone()
    }
}

fn serve(stream: TcpStream, plan: &Plan, log: &(Mutex<Vec<Seen>>, Condvar)) {
    let mut reader = BufReader::new(stream);
    while let Some(seen) = read_request(&mut reader) {
        let reply = {
            let mut all = log.0.lock().unwrap();
            let reply = plan(all.len(), &seen);
            all.push(seen);
            log.1.notify_all();
            reply
        };
        match reply {
            Reply::Json(status, body) => {
                if !answer(reader.get_mut(), status, "Content-Type: application/json\r\n", body.to_string().as_bytes())
                {
                    return;
                }
            }
            Reply::Raw(status, headers, body) => {
                if !answer(reader.get_mut(), status, headers, &body) {
                    return;
                }
            }
            Reply::At(barrier) => {
                barrier.wait();
                if !answer(reader.get_mut(), 200, "Content-Type: application/json\r\n", b"{}") {
                    return;
                }
            }
            Reply::Hang => {
                // Until the caller gives up.
                drop(std::io::copy(&mut reader, &mut std::io::sink()));
                return;
            }
        }
    }
}

/// Writes an answer; whether the other side took it.
fn answer(stream: &mut TcpStream, status: u16, headers: &str, body: &[u8]) -> bool {
    // No length where there can be no body (RFC 9110, section 8.6).
    let length =
        if matches!(status, 204 | 304) { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let head = format!("HTTP/1.1 {status} Whatever\r\n{headers}{length}\r\n");
    stream.write_all(&[head.as_bytes(), body].concat()).is_ok()
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Seen> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let mut words = line.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let mut body = vec![0; length.map_or(0, |(_, value)| value.parse().unwrap())];
    reader.read_exact(&mut body).ok()?;
    Some(Seen { method, target, headers, body })
}

/// HMAC with SHA-256 in hexadecimal.
pub(crate) fn hmac_sha256(key: &str, message: impl AsRef<[u8]>) -> String {
    use hmac::{KeyInit as _, Mac as _};
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(key.as_bytes()).unwrap();
    mac.update(message.as_ref());
    hex::encode(mac.finalize().into_bytes())
}

/// Seconds since the Unix epoch.
#[expect(clippy::disallowed_methods, reason = "the real binary looks at the real clock")]
pub(crate) fn unix_now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

/// The root of the repository.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// An endpoint that accepts whatever JSON comes.
pub(crate) fn open_endpoint(name: &str) -> String {
    format!("kind: endpoint\nname: {name}\nspec: {{format: json, verify: none}}\n")
}

/// A connection to an upstream.
pub(crate) fn connection(name: &str, url: &str) -> String {
    format!("kind: connection\nname: {name}\nspec:\n  base_url: {url}\n  timeout_message: The desk is away.\n")
}
