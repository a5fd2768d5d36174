//! The server itself: probes, metrics, its API's description, check, backup, token.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use linkspan_model::Name;
use linkspan_model::job::JobStatus;
use linkspan_model::verify::{Algorithm, Verify};
use linkspan_store::JobFilter;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

use super::Api;
use super::call::{Answer, Call};
use super::route::{AnswerSpec, ParameterKind, Route, data, run};
use crate::problem::Problem;

/// The server's version.
#[derive(Serialize, JsonSchema)]
struct VersionAnswer {
    data: Version,
}

#[derive(Serialize, JsonSchema)]
struct Version {
    /// The version of the program.
    version: String,
    /// What callers put before `/webhooks/…`.
    public_url: String,
}

/// What a check found.
#[derive(Serialize, JsonSchema)]
struct CheckAnswer {
    data: Check,
}

#[derive(Serialize, JsonSchema)]
struct Check {
    /// Whether nothing is an error.
    ok: bool,
    /// What was found, the worst first.
    findings: Vec<Finding>,
}

#[derive(Serialize, JsonSchema)]
struct Finding {
    level: Level,
    /// What it is about: `endpoint/github`, `disk`.
    subject: String,
    /// What is so, and what to do.
    message: String,
}

#[derive(Serialize, JsonSchema, PartialEq, Eq, PartialOrd, Ord, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Level {
    Error,
    Warning,
    Ok,
}

/// A finished backup.
#[derive(Serialize, JsonSchema)]
struct BackupAnswer {
    data: Backup,
}

#[derive(Serialize, JsonSchema)]
struct Backup {
    /// The folder, on the server's machine.
    path: String,
    /// Events in it.
    events: u64,
    /// Jobs in it.
    jobs: u64,
    /// Objects of the bucket in it.
    objects: u64,
    /// SQLite destinations in it.
    destinations: u64,
    /// What of the data folder is not in it.
    left_out: Vec<NotBackedUp>,
}

#[derive(Serialize, JsonSchema)]
struct NotBackedUp {
    /// Its name in the data folder.
    name: String,
    /// Why.
    reason: String,
}

/// A new operator token, shown only here.
#[derive(Serialize, JsonSchema)]
struct TokenAnswer {
    data: Token,
}

#[derive(Serialize, JsonSchema)]
struct Token {
    token: String,
}

pub(super) fn routes() -> Vec<Route> {
    let text = |mut route: Route| {
        route.answer = AnswerSpec::Text;
        route
    };
    vec![
        text(Route::new(Method::GET, "/livez", "livez", run!(livez)).about("probes", "Whether the process answers."))
            .open(),
        text(
            Route::new(Method::GET, "/readyz", "readyz", run!(readyz))
                .about("probes", "Whether events can be stored now."),
        )
        .open(),
        text(Route::new(Method::GET, "/metrics", "metrics", run!(metrics)).about("probes", "Metrics for Prometheus."))
            .open(),
        Route::new(Method::GET, "/openapi.json", "openapi", run!(openapi))
            .about("server", "This description.")
            .gives::<serde_json::Map<String, serde_json::Value>>()
            .open(),
        Route::new(Method::GET, "/api/v1/version", "version", run!(version))
            .about("server", "The version, and where the world reaches this server.")
            .gives::<VersionAnswer>(),
        Route::new(Method::GET, "/api/v1/check", "check", run!(check))
            .about("server", "Configuration and health of the set-up, and what to better.")
            .query(
                "integrity",
                "Check the whole database and the destinations too, which reads all of them.",
                ParameterKind::Flag,
            )
            .gives::<CheckAnswer>(),
        Route::new(Method::POST, "/api/v1/clock/confirm", "confirm_clock", run!(confirm_clock))
            .about("server", "Says that the clock is right although it went ahead at once, so that expiry goes on.")
            .with_status(StatusCode::NO_CONTENT),
        Route::new(Method::POST, "/api/v1/backup", "backup", run!(backup))
            .about("server", "Writes a backup of everything but keys and secret files into the data folder's backups/.")
            .gives::<BackupAnswer>()
            .problems(&[409]),
        Route::new(Method::POST, "/api/v1/token/rotate", "rotate_token", run!(rotate_token))
            .about("server", "Replaces the operator token; the old one is dead at once.")
            .gives::<TokenAnswer>(),
    ]
}

async fn livez(_: Api, _: Call) -> Result<Answer, Problem> {
    Ok(Answer::text(StatusCode::OK, "ok\n".to_owned(), "text/plain; charset=utf-8"))
}

async fn readyz(api: Api, _: Call) -> Result<Answer, Problem> {
    let not_ready = |why: &str| Problem::unavailable("server.not_ready", why, 5);
    if api.is_draining() {
        return Err(not_ready("the server is shutting down"));
    }
    if api.store.disk_free().1 {
        return Err(not_ready("the disk is full"));
    }
    api.readiness().ask(&api.store).await.map_err(|why| not_ready(&why))?;
    Ok(Answer::text(StatusCode::OK, "ready\n".to_owned(), "text/plain; charset=utf-8"))
}

async fn metrics(api: Api, _: Call) -> Result<Answer, Problem> {
    crate::metrics::observe(&api.store, &api.traffic).await;
    Ok(Answer::text(StatusCode::OK, api.metrics.render(), "text/plain; version=0.0.4; charset=utf-8"))
}

async fn openapi(_: Api, _: Call) -> Result<Answer, Problem> {
    Ok(Answer::json(StatusCode::OK, super::openapi_document()))
}

async fn version(api: Api, _: Call) -> Result<Answer, Problem> {
    data(Version { version: env!("CARGO_PKG_VERSION").to_owned(), public_url: api.exposure.public_url.clone() })
}

async fn check(api: Api, call: Call) -> Result<Answer, Problem> {
    let mut findings = vec![check_disk(&api).await, check_store(&api).await];
    findings.extend(check_log(&api));
    findings.extend(check_clock(&api));
    if call.flag("integrity") {
        findings.push(check_integrity(&api).await);
        findings.extend(check_destinations(&api).await);
    }
    findings.extend(check_syncs(&api).await?);
    findings.extend(check_failures(&api).await?);
    findings.extend(check_exposure(&api));
    findings.extend(check_documents(&api));
    let of_accounts = super::accounts::findings(&api).await?;
    for (subject, message) in super::connections::findings(&api).await?.into_iter().chain(of_accounts) {
        findings.push(finding(Level::Warning, subject, message));
    }
    findings.sort_by(|a, b| (a.level, &a.subject).cmp(&(b.level, &b.subject)));
    let ok = findings.iter().all(|finding| finding.level != Level::Error);
    data(Check { ok, findings })
}

async fn confirm_clock(api: Api, _: Call) -> Result<Answer, Problem> {
    api.store.confirm_clock();
    Ok(Answer::nothing())
}

fn finding(level: Level, subject: impl Into<String>, message: impl Into<String>) -> Finding {
    Finding { level, subject: subject.into(), message: message.into() }
}

async fn check_disk(api: &Api) -> Finding {
    match api.store.check_disk().await {
        Ok(disk) if disk.full => finding(
            Level::Error,
            "disk",
            format!("{} MiB are free; events are refused until there is more room", disk.free >> 20),
        ),
        Ok(disk) if disk.warn => finding(
            Level::Warning,
            "disk",
            format!("{} MiB are free; make room before events are refused", disk.free >> 20),
        ),
        Ok(disk) => finding(Level::Ok, "disk", format!("{} MiB are free", disk.free >> 20)),
        Err(error) => finding(Level::Error, "disk", format!("the file system does not answer: {error}")),
    }
}

async fn check_store(api: &Api) -> Finding {
    match api.store.heartbeat().await {
        Ok(()) => finding(Level::Ok, "store", "commits are durable: write-ahead log, synced at every commit"),
        Err(error) => finding(Level::Error, "store", format!("nothing can be stored: {error}")),
    }
}

fn check_log(api: &Api) -> Option<Finding> {
    let lost = api.store.lost_events()?;
    let message = format!(
        "{} acknowledged events are missing at the end of the log ({} to {}): its file was damaged, or an older one put \
         in its place; have their senders send them again",
        lost.last - lost.first + 1,
        lost.first,
        lost.last
    );
    Some(finding(Level::Error, "store", message))
}

fn check_clock(api: &Api) -> Option<Finding> {
    let ahead = api.store.clock_doubt()?;
    let message = format!(
        "it went ahead by {} hours at once, so nothing expires until it has run for a day; if it is right, say so with \
         check --confirm-clock",
        ahead.as_secs() / 3_600
    );
    Some(finding(Level::Error, "clock", message))
}

async fn check_integrity(api: &Api) -> Finding {
    match api.store.check_integrity().await {
        Ok(faults) if faults.is_empty() => finding(Level::Ok, "integrity", "the database is whole"),
        Ok(faults) => {
            let message = format!("the database is damaged; restore a backup: {}", faults.join("; "));
            finding(Level::Error, "integrity", message)
        }
        Err(error) => finding(Level::Error, "integrity", format!("the database cannot be checked: {error}")),
    }
}

async fn check_destinations(api: &Api) -> Vec<Finding> {
    let names: Vec<Name> = api.store.snapshot().destinations().map(|found| found.name.clone()).collect();
    let mut findings = Vec::new();
    for name in names {
        let subject = format!("destination/{name}");
        findings.push(match api.tables.check(name).await.map(Option::unwrap_or_default) {
            Ok(faults) if faults.is_empty() => finding(Level::Ok, subject, "it is whole"),
            Ok(faults) => {
                let message = format!(
                    "it is damaged; move its file away, and the next runs fill its tables again from the bucket: {}",
                    faults.join("; ")
                );
                finding(Level::Error, subject, message)
            }
            Err(error) => {
                finding(Level::Error, subject, format!("it cannot be checked: {}", Problem::from(error).description))
            }
        });
    }
    findings
}

/// Syncs whose last run failed, that have set something aside, or whose table has keys without a column.
async fn check_syncs(api: &Api) -> Result<Vec<Finding>, Problem> {
    let states = api.store.sync_states().await?;
    let snapshot = api.store.snapshot();
    let mut findings = Vec::new();
    for (sync, state) in snapshot.syncs().filter_map(|sync| Some((sync, states.get(&sync.row)?))) {
        let mut find = |level, message| findings.push(finding(level, format!("sync/{}", sync.name), message));
        if let Some(reason) = &state.error {
            find(Level::Error, format!("its last run failed: {reason}"));
        }
        if state.aside > 0 {
            let reason = state.aside_reason.as_deref().unwrap_or_default();
            let message = format!(
                "{} batches were set aside and are not in its table; syncs run {} tries them again: {reason}",
                state.aside, sync.name
            );
            find(Level::Error, message);
        }
        if state.left_out > 0 {
            let keys = &state.left_out_keys;
            let some: Vec<String> = keys.iter().take(3).map(|key| format!("{key:?}")).collect();
            let more = if keys.len() > some.len() { ", …" } else { "" };
            let message = format!(
                "{} values have no column of their own and stand in _rest; their keys: {}{more}",
                state.left_out,
                some.join(", ")
            );
            find(Level::Warning, message);
        }
    }
    Ok(findings)
}

/// Recipes of the newest failed jobs, and how many of these each has.
async fn check_failures(api: &Api) -> Result<Vec<Finding>, Problem> {
    let filter = JobFilter { status: Some(JobStatus::Failed), limit: FAILED_JOBS, ..JobFilter::default() };
    let since = api.clock.now().before(Duration::from_secs(86_400));
    let mut failed: BTreeMap<Name, usize> = BTreeMap::new();
    for job in api.store.jobs(filter).await?.jobs.into_iter().filter(|job| job.finished_at > Some(since)) {
        *failed.entry(job.recipe).or_default() += 1;
    }
    let about = |(name, count): (Name, usize)| {
        let count = if count == FAILED_JOBS as usize { format!("{count} or more") } else { count.to_string() };
        let message = format!("{count} jobs failed in the last 24 hours; see jobs --recipe {name} --status failed");
        finding(Level::Warning, format!("recipe/{name}"), message)
    };
    Ok(failed.into_iter().map(about).collect())
}

/// Most failed jobs that the check counts.
const FAILED_JOBS: u32 = 1_000;

fn check_exposure(api: &Api) -> Vec<Finding> {
    let exposure = &api.exposure;
    let mut findings = Vec::new();
    if exposure.key_in_data_folder {
        findings.push(finding(
            Level::Warning,
            "key",
            "the master key lies beside the database, so whoever copies the folder can read secrets; move it out with --key-file or LINKSPAN_KEY",
        ));
    }
    if !exposure.operator.ip().is_loopback() {
        findings.push(finding(
            Level::Warning,
            "operator",
            format!("the operator listener is reachable from outside on {}", exposure.operator),
        ));
    }
    if !exposure.public.ip().is_loopback() && !exposure.tls && exposure.public_url.starts_with("http://") {
        findings.push(finding(
            Level::Warning,
            "public",
            "webhooks come in without TLS; give --tls-cert and --tls-key, or put a proxy in front and name --public-url",
        ));
    }
    for allowance in &exposure.egress_allow {
        findings.push(finding(Level::Warning, "egress", format!("recipes may call the private address {allowance}")));
    }
    findings
}

fn check_documents(api: &Api) -> Vec<Finding> {
    let snapshot = api.store.snapshot();
    let mut findings = Vec::new();
    for (kind, name, reason) in snapshot.all_unusable() {
        findings.push(finding(Level::Error, format!("{kind}/{name}"), format!("it cannot be used: {reason}")));
    }
    for (name, value) in snapshot.secrets() {
        if let Err(reason) = value {
            findings.push(finding(Level::Error, format!("secret/{name}"), reason));
        }
    }
    for endpoint in snapshot.endpoints() {
        let subject = format!("endpoint/{}", endpoint.name);
        match (&endpoint.verifier, &endpoint.spec.verify) {
            (Err(reason), _) => {
                findings.push(finding(Level::Error, subject, format!("it refuses every request: {reason}")))
            }
            (Ok(_), Some(_)) if !snapshot.missing_secrets(endpoint).is_empty() => {
                let missing: Vec<&str> = snapshot.missing_secrets(endpoint).into_iter().map(Name::as_str).collect();
                let message = format!("it verifies without these secrets, which have no value: {}", missing.join(", "));
                findings.push(finding(Level::Warning, subject, message));
            }
            (Ok(_), Some(Verify::None)) => {
                findings.push(finding(Level::Warning, subject, "whoever knows its URL can send; add a verification"));
            }
            (Ok(_), Some(Verify::Hmac(hmac))) if matches!(hmac.algorithm, Algorithm::MD5 | Algorithm::SHA_1) => {
                findings.push(finding(Level::Warning, subject, "its hash is weak; use SHA_256 where the sender can"));
            }
            (Ok(_), _) => findings.push(finding(Level::Ok, subject, "it verifies its callers")),
        }
    }
    for recipe in snapshot.recipes().filter(|recipe| !recipe.spec.is_enabled()) {
        findings.push(finding(Level::Warning, format!("recipe/{}", recipe.name), "it is stopped"));
    }
    findings
}

async fn backup(api: Api, _: Call) -> Result<Answer, Problem> {
    let folder = api.exposure.data.join("backups");
    let stamp = api.clock.now().to_string().replace([':', '.'], "-");
    let path = folder.join(stamp);
    let report = api.store.backup(path.clone()).await?;
    let (objects, destinations) = (report.objects(), report.destinations());
    let left_out = report.left_out.into_iter().map(|left| NotBackedUp { name: left.name, reason: left.reason });
    data(Backup {
        path: path.display().to_string(),
        events: report.events,
        jobs: report.jobs,
        objects,
        destinations,
        left_out: left_out.collect(),
    })
}

async fn rotate_token(api: Api, _: Call) -> Result<Answer, Problem> {
    let token = api.store.rotate_operator_token().await?;
    // The first run's file would only mislead now; that it is gone is not worth failing for.
    let file: Arc<std::path::Path> = api.exposure.data.join("operator-token").into();
    if let Err(error) = std::fs::remove_file(&file)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "the old operator-token file could not be removed");
    }
    Ok(Answer::json(StatusCode::OK, json!({"data": {"token": token}})))
}
