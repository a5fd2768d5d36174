//! Limits and defaults, with their units and where they come from. One place, so that docs and code agree.

use std::time::Duration;

/// Longest webhook body by default: 5 MiB. Above the endpoint's limit: 413. GitHub sends up to 25 MB and has
/// its own limit in its example; most senders stay below 1 MB.
pub const BODY_DEFAULT_BYTES: u64 = 5 << 20;
/// Longest webhook body that an endpoint may allow: 64 MiB.
pub const BODY_MAX_BYTES: u64 = 64 << 20;
/// Bodies above this stand in a spool file beside the database, so that its log keeps small pages: 64 KiB.
pub const INLINE_BODY_BYTES: usize = 64 << 10;
/// Longest request head: 32 KiB. Above: 431.
pub const HEAD_MAX_BYTES: usize = 32 << 10;
/// Most header fields: 100. Above: 431.
pub const HEADERS_MAX: usize = 100;
/// Longest request target: 8 KiB. Above: 414.
pub const URI_MAX_BYTES: usize = 8 << 10;
/// Memory that bodies of all requests in flight may take: 256 MiB. Above: 503.
pub const IN_FLIGHT_BYTES: usize = 256 << 20;
/// Requests that are being stored: 2,048. Above: 503.
pub const IN_FLIGHT_REQUESTS: usize = 2_048;
/// Requests of one endpoint that are being stored: 256, as many as one commit takes. Above they wait.
pub const IN_FLIGHT_PER_ENDPOINT: usize = 256;
/// Requests that wait to be stored at one endpoint: 4,096, what is stored within a second on most disks. Above: 503.
pub const WAITING_PER_ENDPOINT: usize = 4_096;
/// Open connections: 16,384; beyond it the one that was idle longest is closed.
pub const CONNECTIONS_MAX: usize = 16_384;
/// Longest wait for the first byte, for a whole request head, for a TLS handshake: 10 s each.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for a whole body: 30 s; and from 5 s on at least 1 KiB/s on average. Else 408.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// From when on a body's average rate counts.
pub const BODY_RATE_GRACE: Duration = Duration::from_secs(5);
/// Least average rate of a body, in bytes a second.
pub const BODY_RATE_BYTES: u64 = 1 << 10;
/// Longest idle time of a kept-alive connection: 60 s.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of log lines that wait to be written: 1 MiB, some thousand lines. Above, lines are dropped and counted.
pub const LOG_BUFFER_BYTES: usize = 1 << 20;
/// Longest wait for the commit that holds an event: 2 s. Slack and Pusher give up after 3 s.
pub const COMMIT_DEADLINE: Duration = Duration::from_secs(2);
/// How long an event id is remembered by default: 14 days.
pub const DEDUPE_DEFAULT: Duration = Duration::from_secs(14 * 86_400);
/// How long an event id can be remembered: 90 days.
pub const DEDUPE_MAX: Duration = Duration::from_secs(90 * 86_400);
/// JSON deeper than this is kept raw, without a parsed view.
pub const TREE_DEPTH: usize = 64;
/// JSON with more values than this is kept raw, without a parsed view (measured: up to 95 bytes of memory
/// per byte of JSON when values are tiny).
pub const TREE_NODES: usize = 200_000;
/// Outbound: longest wait for a connection, and for its TLS handshake: 5 s each.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Outbound: longest wait for the first byte of an answer: 15 s.
pub const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(15);
/// Outbound: longest time for a whole exchange by default: 30 s.
pub const TOTAL_TIMEOUT: Duration = Duration::from_secs(30);
/// Outbound: longest time for a whole exchange that a connection may ask for: 120 s.
pub const TOTAL_TIMEOUT_MAX: Duration = Duration::from_secs(120);
/// Outbound: longest answer by default: 10 MiB.
pub const RESPONSE_DEFAULT_BYTES: u64 = 10 << 20;
/// Outbound: longest answer that a connection may allow: 64 MiB.
pub const RESPONSE_MAX_BYTES: u64 = 64 << 20;
/// Outbound: most pages of one reading of a list.
pub const PAGES_MAX: u32 = 10_000;
/// Longest text of certificates in a document: 256 KiB, about what a system's whole bundle takes.
pub const CERTIFICATES_BYTES: usize = 256 << 10;
/// How long before the end of a certificate it is warned of: 30 days, a month's notice to renew it.
pub const CERTIFICATE_NOTICE: Duration = Duration::from_secs(30 * 86_400);
/// How long a token that is signed here lives by default: 5 min, within what GitHub (10 min) and others allow.
pub const JWT_LIFETIME_DEFAULT: Duration = Duration::from_secs(5 * 60);
/// Longest token that is taken from an OAuth2 provider: 16 KiB. Servers take heads of 8 to 32 KiB, so that a longer
/// one could not be sent to most of them.
pub const TOKEN_BYTES: usize = 16 << 10;
/// Longest value of a secret: 64 KiB. The longest that we know are keys and their certificates, of 32 KiB.
pub const SECRET_BYTES: usize = 64 << 10;
/// Shortest and longest life of a token that is signed here: 1 min, 24 h.
pub const JWT_LIFETIME: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(86_400));
/// Outbound: most redirects that a connection may allow.
pub const REDIRECTS_MAX: u8 = 5;
/// How much of a request or response body a job's history keeps: 64 KiB; more is cut and marked.
pub const HISTORY_BODY_BYTES: usize = 64 << 10;
/// How much of a refused body is kept: 64 KiB.
pub const REFUSAL_BODY_BYTES: usize = 64 << 10;
/// Refusals kept per endpoint.
pub const REFUSALS_KEPT: u64 = 1_000;
/// Refusals kept per second and endpoint.
pub const REFUSALS_PER_SECOND: u32 = 10;
/// Longest pill or expression: 4 KiB.
pub const EXPRESSION_BYTES: usize = 4 << 10;
/// Fuel of one expression, in instructions of its evaluator. What its filters and operators work on is paid for with
/// the same fuel, by the two limits that follow.
pub const EXPRESSION_FUEL: u64 = 50_000;
/// What the filters of one expression may work on and make, in bytes: 12 MiB, which is some ten of the longest texts
/// that a template may give.
pub const EXPRESSION_MADE_BYTES: usize = 12 << 20;
/// What the comparisons and searches of one expression may look at, in bytes: 128 MiB, twice the longest body. Each
/// value counts 128 bytes beside its length, so that this is a million values, or some tens of milliseconds.
pub const EXPRESSION_READ_BYTES: usize = 128 << 20;
/// Longest name that a near match is offered for, and longest that is offered, in bytes: authors write no longer
/// ones, but senders do.
pub const NEAR_MATCH_BYTES: usize = 64;
/// Most names that are looked at for a near match: as many as the largest connectors have actions and more.
pub const NEAR_MATCH_NAMES: usize = 10_000;
/// Most of them that are measured, which are those with about the same letters: some milliseconds.
pub const NEAR_MATCH_MEASURED: usize = 256;
/// Longest text that a template may give: 1 MiB.
pub const RENDERED_BYTES: usize = 1 << 20;
/// Most parts of a multipart body that a step sends: 100, what common servers take without being told otherwise.
pub const MULTIPART_PARTS: usize = 100;
/// Most faults of one input or of settings that are named: 100. An input may hold what a sender chose, and each of its
/// values may be wrong.
pub const INPUT_FAULTS: usize = 100;
/// What the patterns of one JSON Schema may be, in letters with all repetitions written out: 100,000, which take some
/// ten milliseconds and MiB to be compiled.
pub const SCHEMA_PATTERNS: u64 = 100_000;
/// What the patterns of all schemas of a connector may be together, likewise.
pub const CONNECTOR_PATTERNS: u64 = 500_000;
/// Most actions of a connector.
pub const ACTIONS_MAX: usize = 5_000;
/// Records of a stream that a reading tells from those that follow: 24 MiB of memory at most.
pub const STREAM_REMEMBERED: usize = 200_000;
/// Longest source of an import: 64 MiB. The largest description of an API that we know, Microsoft Graph's, has 47 MB.
pub const IMPORT_SOURCE_BYTES: usize = 64 << 20;
/// Longest connector document that an import makes, as JSON: 7 MiB, so that it fits into one apply.
pub const IMPORTED_BYTES: usize = 7 << 20;
/// Most documents in one apply.
pub const APPLY_DOCUMENTS: usize = 2_000;
/// Longest body of an operator API request: 8 MiB.
pub const API_BODY_BYTES: usize = 8 << 20;
/// A job's lease, which its worker renews every 30 s: 90 s.
pub const LEASE: Duration = Duration::from_secs(90);
/// Attempts of one step by default.
pub const STEP_ATTEMPTS: u32 = 5;
/// Attempts that a step may ask for, and so the attempts that its record lists: 20, as many as common job queues make.
pub const STEP_ATTEMPTS_MAX: u32 = 20;
/// Longest record, in bytes, of a request or an answer in the list of a step's attempts; longer ones lose their body.
pub const ATTEMPT_RECORD_BYTES: usize = 4 << 10;
/// Time within which the attempts of one step happen by default.
pub const STEP_WINDOW: Duration = Duration::from_secs(15 * 60);
/// The longest such time that a step may ask for: 24 h.
pub const STEP_WINDOW_MAX: Duration = Duration::from_secs(86_400);
/// Bound of the first wait between attempts by default; each further one is twice as long.
pub const BACKOFF_FROM: Duration = Duration::from_secs(1);
/// Longest bound of a wait by default.
pub const BACKOFF_TO: Duration = Duration::from_secs(5 * 60);
/// The longest bound that may be asked for: as long as a server may ask us to wait.
pub const BACKOFF_MAX: Duration = Duration::from_secs(6 * 3_600);
/// Most requests that a rate may name.
pub const RATE_LIMIT_MAX: u32 = 100_000;
/// Shortest and longest span of a rate.
pub const RATE_PER: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(86_400));
/// Most requests under way that a connection may name.
pub const CONCURRENCY_MAX: u32 = 10_000;
/// Failures in a row that open a connection's breaker by default.
pub const BREAKER_OPEN_AFTER: u32 = 10;
/// How long a breaker stays open by default before it probes.
pub const BREAKER_PROBE_AFTER: Duration = Duration::from_secs(30);
/// Shortest and longest time before a breaker probes.
pub const PROBE_AFTER: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(6 * 3_600));
/// Most retries of a connection by default, in a hundred of its requests.
pub const RETRY_BUDGET_PERCENT: u8 = 20;
/// Longest time that a step waits for its connection with a worker in hand; beyond it the job is put off.
pub const TURN_PATIENCE: Duration = Duration::from_secs(5);
/// Longest time that a call, or the first page of a list, waits in all for its turn and between its attempts, besides
/// the requests themselves: 20 s, because somebody sits at a prompt. For an open breaker it is `TURN_PATIENCE`.
pub const CALL_WAITS: Duration = Duration::from_secs(20);
/// The same for each further page of a list, whose items so far are with the reader: 90 s. APIs count by the minute, and
/// a long reading should outlast that.
pub const PAGE_WAITS: Duration = Duration::from_secs(90);
/// Most columns of a table beside the system's: 1,000. SQLite takes 2,000, PostgreSQL 1,600. Keys beyond it have none:
/// their values stay in the row's JSON.
pub const COLUMNS_MAX: usize = 1_000;
/// Longest key, in bytes of UTF-8, that gets a column: 256. The catalogue of columns, which every run and every page of
/// a table reads, then has half a MiB at most. A longer key is handled like one beyond the most columns.
pub const COLUMN_KEY_BYTES: usize = 256;
/// Keys without a column that the status of a sync names.
pub const LEFT_OUT_KEYS: usize = 100;
/// How often a batch of a sync is tried when the process dies each time: twice. Then it is set aside, so that it cannot
/// keep a server from coming up.
pub const SYNC_BATCH_ATTEMPTS: u32 = 2;
