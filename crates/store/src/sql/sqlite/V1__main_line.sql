-- One main line: documents, events, jobs, refusals, syncs.
-- Times are microseconds since the Unix epoch. Every table that a workspace owns carries its number.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value ANY NOT NULL
) WITHOUT ROWID, STRICT;

-- Documents. A deleted one stays as a row without a document, so that its events and jobs keep their name.
CREATE TABLE resources (
    id          INTEGER PRIMARY KEY,
    workspace   INTEGER NOT NULL DEFAULT 1,
    kind        TEXT    NOT NULL,
    name        TEXT    NOT NULL,
    public_id   TEXT    NOT NULL UNIQUE,
    document    TEXT    NOT NULL,
    applied_set TEXT,
    revision    INTEGER NOT NULL,
    from_seq    INTEGER NOT NULL DEFAULT 0,   -- recipes: events up to here came before it ran
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    deleted_at  INTEGER
) STRICT;
CREATE UNIQUE INDEX resources_by_name ON resources (workspace, kind, name) WHERE deleted_at IS NULL;

-- What each revision of a recipe said, so that a job goes on with the revision it began with.
CREATE TABLE recipe_revisions (
    recipe   INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    document TEXT    NOT NULL,
    PRIMARY KEY (recipe, revision)
) WITHOUT ROWID, STRICT;

CREATE TABLE secret_values (
    resource   INTEGER PRIMARY KEY,
    sealed     BLOB    NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

CREATE TABLE endpoint_keys (
    resource   INTEGER PRIMARY KEY,
    key        TEXT    NOT NULL UNIQUE,
    created_at INTEGER NOT NULL
) STRICT;

-- What the last test of a connection has shown, and the revisions of the documents that it was made with.
CREATE TABLE connection_tests (
    connection  INTEGER PRIMARY KEY,
    basis       TEXT    NOT NULL,
    tested_at   INTEGER NOT NULL,
    duration_us INTEGER NOT NULL,
    http_status INTEGER,
    code        TEXT,              -- none when it works
    reason      TEXT,
    answer      TEXT
) STRICT;

-- Tokens of OAuth2 accounts. Who holds the lease asks the provider; `lease` counts the turns.
CREATE TABLE oauth_tokens (
    account     INTEGER PRIMARY KEY,
    generation  INTEGER NOT NULL,
    identity    TEXT    NOT NULL,
    basis       TEXT    NOT NULL,
    state       TEXT    NOT NULL,
    since       INTEGER NOT NULL,
    reason      TEXT,
    sealed      BLOB,
    scopes      TEXT,
    obtained_at INTEGER,
    refresh_at  INTEGER,
    expires_at  INTEGER,
    lease       INTEGER NOT NULL,
    lease_until INTEGER,
    lost        INTEGER NOT NULL,
    consented_at      INTEGER,     -- grant authorization_code: when a user last consented
    consent_failed_at INTEGER,
    consent_error     TEXT
) STRICT;

-- Consents that were asked for and not given yet: the hash of the state that goes through the browser.
CREATE TABLE oauth_consents (
    hash       BLOB PRIMARY KEY,
    account    INTEGER NOT NULL,
    basis      TEXT    NOT NULL,
    sealed     BLOB    NOT NULL,   -- PKCE verifier and redirect URI
    expires_at INTEGER NOT NULL
) WITHOUT ROWID, STRICT;

-- Operator tokens: only their SHA-256.
CREATE TABLE tokens (
    hash       BLOB PRIMARY KEY,
    name       TEXT    NOT NULL,
    created_at INTEGER NOT NULL
) WITHOUT ROWID, STRICT;

-- The log. No other index and no flag: an insert here is what a webhook's 2xx waits for.
CREATE TABLE events (
    seq         INTEGER PRIMARY KEY,
    endpoint    INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    salt        INTEGER NOT NULL,
    spool       TEXT,
    head        BLOB    NOT NULL,
    body        BLOB
) STRICT;

-- Written by dispatch, behind the answer's path: finds the events of one endpoint. A row is a stretch of the log
-- whose events all belong to it. The columns stand in the order of the key: older releases of SQLite misread
-- others when they check the integrity of a table without rowids.
CREATE TABLE event_runs (
    endpoint INTEGER NOT NULL,
    last     INTEGER NOT NULL,
    first    INTEGER NOT NULL,
    PRIMARY KEY (endpoint, last)
) WITHOUT ROWID, STRICT;

CREATE TABLE dedupe (
    endpoint    INTEGER NOT NULL,
    key         BLOB    NOT NULL,
    event_id    BLOB    NOT NULL,
    expires_at  INTEGER NOT NULL,
    PRIMARY KEY (endpoint, key)
) WITHOUT ROWID, STRICT;

CREATE TABLE spool (
    name TEXT PRIMARY KEY,
    size INTEGER NOT NULL
) WITHOUT ROWID, STRICT;

CREATE TABLE positions (
    consumer TEXT PRIMARY KEY,
    seq      INTEGER NOT NULL
) WITHOUT ROWID, STRICT;

CREATE TABLE jobs (
    seq             INTEGER PRIMARY KEY,
    workspace       INTEGER NOT NULL DEFAULT 1,
    salt            INTEGER NOT NULL,
    recipe          INTEGER NOT NULL,
    recipe_revision INTEGER NOT NULL,
    event_id        BLOB    NOT NULL,
    event_seq       INTEGER NOT NULL,
    status          TEXT    NOT NULL,
    run_at          INTEGER NOT NULL,
    claims          INTEGER NOT NULL DEFAULT 0,
    lease           INTEGER NOT NULL DEFAULT 0,
    lease_until     INTEGER,
    rerun_of        BLOB,
    created_at      INTEGER NOT NULL,
    started_at      INTEGER,
    finished_at     INTEGER,
    error           TEXT
) STRICT;
CREATE INDEX jobs_due     ON jobs (run_at, seq) WHERE status IN ('queued', 'waiting');
CREATE INDEX jobs_running ON jobs (lease_until) WHERE status = 'running';
CREATE INDEX jobs_by_recipe ON jobs (recipe, seq);
CREATE INDEX jobs_by_event  ON jobs (event_seq);

CREATE TABLE steps (
    job              INTEGER NOT NULL,
    position         INTEGER NOT NULL,
    id               TEXT    NOT NULL,
    status           TEXT    NOT NULL,
    attempts         INTEGER NOT NULL,
    resumed          INTEGER NOT NULL,
    started_at       INTEGER,
    finished_at      INTEGER,
    retry_at         INTEGER,
    error            TEXT,
    input            TEXT,              -- as shown: secrets masked, long bodies cut
    output           TEXT,
    result           BLOB,              -- the whole output, sealed, for later steps, until the job ends
    result_spool     TEXT,
    attempt_log      TEXT,              -- the attempts one by one, as JSON
    PRIMARY KEY (job, position)
) STRICT;

CREATE TABLE refusals (
    seq       INTEGER PRIMARY KEY,
    endpoint  INTEGER,
    at        INTEGER NOT NULL,
    status    INTEGER NOT NULL,
    code      TEXT    NOT NULL,
    cause     TEXT    NOT NULL,
    method    TEXT    NOT NULL,
    remote    TEXT,
    headers   BLOB    NOT NULL,
    body      BLOB,
    body_size INTEGER NOT NULL
) STRICT;
CREATE INDEX refusals_by_endpoint ON refusals (endpoint, seq);

CREATE TABLE sync_states (
    sync         INTEGER PRIMARY KEY,
    position     INTEGER NOT NULL,
    batch        INTEGER NOT NULL DEFAULT 0,
    events       INTEGER NOT NULL DEFAULT 0,
    rows         INTEGER NOT NULL DEFAULT 0,
    unparsed     INTEGER NOT NULL DEFAULT 0,
    requests     INTEGER NOT NULL DEFAULT 0,   -- runs asked for, ever; a run answers all before its start
    taken        INTEGER NOT NULL DEFAULT 0,
    answered     INTEGER NOT NULL DEFAULT 0,
    started_at   INTEGER,
    finished_at  INTEGER,
    succeeded_at INTEGER,
    failed_at    INTEGER,
    error        TEXT
) STRICT;

-- A batch's bounds stand here before its object is put, so that the object's name is the same after a crash.
CREATE TABLE sync_batches (
    sync      INTEGER NOT NULL,
    batch     INTEGER NOT NULL,
    after_seq INTEGER NOT NULL,
    last_seq  INTEGER NOT NULL,
    object    TEXT    NOT NULL,
    sha256    BLOB,
    state     TEXT    NOT NULL,
    PRIMARY KEY (sync, batch)
) WITHOUT ROWID, STRICT;
