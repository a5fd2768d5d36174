//! `serve`: settings, wiring, and the order in which things start and stop.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use linkspan_engine::oauth::keep_alive;
use linkspan_engine::sync::{SyncRunner, schedule};
use linkspan_engine::{
    CredentialCache, Engine, LargeBodies, TokenCache, TransportCache, dispatch, lines, upkeep, worker,
};
use linkspan_model::{Clock, Document, Timestamp};
use linkspan_outbound::{Outbound, Policy, Traffic};
use linkspan_server::accept::{AcceptLimits, Listener};
use linkspan_server::callback::PublicHandler;
use linkspan_server::ingress::{Ingress, IngressLimits, RefusalLog, TrustedProxies};
use linkspan_server::staged::StageLimits;
use linkspan_server::{Api, Connections, Exposure, OperatorHandler, Parts};
use linkspan_store::{Beginning, DataFolder, Durability, MasterKey, Retention, Settings, Store};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::certificate::Certificate;
use crate::cli::ServeArgs;
use crate::client::Invalid;
use crate::lifecycle::Running;
use crate::logs::{self, Logs};
use crate::places::Places;
use crate::threads::ServingThreads;
use crate::{connections, core_dumps, documents, lifecycle, output, secrets, tables};

/// Bounds of the histogram of acknowledgement times, in seconds; 0.25 and 1 are the targets at p99 and p99.9.
const ACK_BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0];

/// The one real clock.
pub(crate) struct WallClock;

impl Clock for WallClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that everything else asks")]
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(jiff::Timestamp::now().as_microsecond())
    }
}

/// Starts the server and runs it until it is asked to stop.
pub(crate) fn run(args: ServeArgs) -> Result<()> {
    // Dropped last: it waits for the last lines.
    let _logs = Logs::start(args.log_format)?;
    // Before there is a secret to be read.
    if !args.core_dumps {
        core_dumps::forbid();
    }
    if tokio_rustls::rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        bail!("another TLS provider was installed before ours");
    }
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let stopped = runtime.block_on(serve(args));
    // Reads that block on the disk must not hold up the end.
    runtime.shutdown_timeout(Duration::from_secs(2));
    match stopped? {
        lifecycle::Stop::Asked => Ok(()),
        lifecycle::Stop::Poisoned => bail!(
            "a write to the disk failed, and what it left there is unknown; start again, and the store recovers from its log"
        ),
    }
}

/// Every connection takes a file descriptor, and the usual soft limit of 1,024 is for programs that use select.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
}

async fn serve(args: ServeArgs) -> Result<lifecycle::Stop> {
    let _file_limit = lifecycle::survive_file_limit()?;
    let clock: Arc<dyn Clock> = Arc::new(WallClock);
    let metrics = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full("linkspan_ack_seconds".to_owned()), &ACK_BUCKETS)
        .and_then(PrometheusBuilder::install_recorder)
        .context("metrics")?;
    metrics::counter!(logs::DROPPED).absolute(0);
    let folder = DataFolder::lock(&args.data)?;
    folder.check_beginning(if args.begin_anew { Beginning::Anew } else { Beginning::Usual })?;
    let (key, key_in_data_folder) = master_key(&folder, args.key_file.as_deref())?;
    let store = open_store(&args, &folder, key, Arc::clone(&clock)).await?;
    folder.settle_key()?;
    if !args.apply.is_empty() {
        apply_at_start(&store, &args.apply).await?;
    }
    store.ensure_operator_token(&folder).await?;

    let public = bind(args.public, "public").await?;
    let operator = bind(args.operator, "operator").await?;
    let (public_address, operator_address) = (public.local_addr()?, operator.local_addr()?);
    let certificate = args.tls_cert.clone().zip(args.tls_key.clone());
    let certificate = certificate.map(|(chain, key)| Certificate::read(chain, key)).transpose()?;
    let exposure =
        exposure(&args, &folder, public_address, operator_address, certificate.is_some(), key_in_data_folder);

    let outbound = Outbound::new(Policy::new(args.egress_allow.clone(), vec![operator_address]));
    let traffic = Traffic::default();
    let engine = Engine {
        store: store.clone(),
        outbound,
        traffic: traffic.clone(),
        clock: Arc::clone(&clock),
        own_url: own_url(public_address, exposure.tls).into(),
        credentials: CredentialCache::default(),
        transports: TransportCache::default(),
        tokens: TokenCache::default(),
        large_bodies: LargeBodies::default(),
    };
    let running = Running::new();
    let draining = Arc::new(AtomicBool::new(false));

    let (refusals, write_refusals) = RefusalLog::new(store.clone(), running.stop_serving.clone());
    running.serving.spawn(write_refusals);
    let ingress = Ingress::new(
        store.clone(),
        Arc::clone(&clock),
        refusals,
        TrustedProxies::new(args.trusted_proxy.clone()),
        ingress_limits(&args),
    );
    let connections: Arc<dyn Connections> =
        Arc::new(connections::EngineConnections { engine: engine.clone(), tasks: running.serving.clone() });
    let api = Api::new(Parts {
        store: store.clone(),
        ingress: ingress.clone(),
        traffic,
        clock,
        connections: Arc::clone(&connections),
        tables: Box::new(tables::DestinationTables::new(store.clone(), folder.destinations())),
        exposure: exposure.clone(),
        metrics: metrics.clone(),
        draining: Arc::clone(&draining),
    });

    start_engine(&engine, &folder, retention(&args), &running, lifecycle::for_jobs(args.drain.get()));
    running.work.spawn(keep_alive(engine.clone(), args.token_keepalive.get(), running.stop_work.clone()));
    running.serving.spawn(tidy(metrics, store.clone(), engine.traffic.clone(), running.stop_serving.clone()));
    let accept_limits = accept_limits(&args);
    let threads = ServingThreads::start(&store, &running.serving, &running.stop_serving)?;
    let tls = certificate.as_ref().map(Certificate::acceptor);
    let public = Listener { socket: public, tls, limits: accept_limits, runtimes: threads.runtimes() };
    let operator = Listener { socket: operator, tls: None, limits: AcceptLimits::default(), runtimes: Vec::new() };
    let handler = PublicHandler::new(ingress, connections, &exposure.public_url);
    running.serve(public, handler);
    running.serve(operator, OperatorHandler::new(api));
    if let Some(certificate) = &certificate {
        running.serving.spawn(certificate.clone().watch(running.stop_serving.clone()));
    }
    let mut signals = lifecycle::Signals::listen()?;
    announce(&exposure, &folder);

    let why = signals.wait(&store, certificate.as_ref()).await;
    if why == lifecycle::Stop::Poisoned {
        return Ok(why);
    }
    tracing::info!("draining");
    running.drain(&mut signals, &draining, args.drain_delay.get(), args.drain.get()).await;
    Ok(why)
}

/// The master key: from `LINKSPAN_KEY`, from the named file, or from the data folder; and whether it lies there.
#[expect(clippy::disallowed_methods, reason = "this is the executable")]
fn master_key(folder: &DataFolder, key_file: Option<&Path>) -> Result<(MasterKey, bool)> {
    match (std::env::var("LINKSPAN_KEY"), key_file) {
        (Ok(text), None) => Ok((MasterKey::from_hex(&text).context("LINKSPAN_KEY")?, false)),
        (_, key_file) => Ok((folder.master_key(key_file)?, key_file.is_none())),
    }
}

async fn open_store(args: &ServeArgs, folder: &DataFolder, key: MasterKey, clock: Arc<dyn Clock>) -> Result<Store> {
    let settings = Settings {
        database: folder.database(),
        spool: folder.spool(),
        key,
        secrets: Arc::new(secrets::Outside { folder: folder.secrets() }),
        clock,
        durability: durability()?,
        disk_min_free: args.limits.disk_min_free.get(),
        statements: None,
    };
    let store = tokio::task::spawn_blocking(move || Store::open(settings)).await??;
    Ok(store)
}

/// Full, unless the crash check asks for less to prove that it would notice.
#[expect(clippy::disallowed_methods, reason = "this is the executable")]
fn durability() -> Result<Durability> {
    let Ok(text) = std::env::var("LINKSPAN_UNSAFE_DURABILITY") else { return Ok(Durability::Full) };
    tracing::warn!(durability = text, "events are acknowledged before they are durable; never do this outside a test");
    match text.as_str() {
        "full" => Ok(Durability::Full),
        "normal" => Ok(Durability::Normal),
        "off" => Ok(Durability::Off),
        _ => bail!("LINKSPAN_UNSAFE_DURABILITY is full, normal or off"),
    }
}

async fn apply_at_start(store: &Store, paths: &[PathBuf]) -> Result<()> {
    let sources = documents::read_all(paths)?;
    let mut read = Vec::with_capacity(sources.len());
    for source in &sources {
        match Document::read(&source.value) {
            Ok(document) => read.push(document),
            Err(faults) => {
                let places = Places::of(source);
                let faults: Vec<String> = faults.iter().map(|fault| places.say(fault)).collect();
                return Err(invalid(&faults));
            }
        }
    }
    match store.apply(read, Some("start".to_owned()), false, false).await {
        Ok(changes) => tracing::info!(documents = changes.len(), "applied documents"),
        Err(linkspan_store::StoreError::Invalid(faults)) => {
            let placed = |fault: &linkspan_model::Fault| match fault.document.and_then(|n| sources.get(n)) {
                Some(source) => Places::of(source).say(fault),
                None => fault.to_string(),
            };
            return Err(invalid(&faults.iter().map(placed).collect::<Vec<_>>()));
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

fn invalid(faults: &[String]) -> anyhow::Error {
    Invalid(format!("documents to apply at the start:\n  {}", faults.join("\n  "))).into()
}

async fn bind(address: SocketAddr, which: &str) -> Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}; give another address with --{which}"))
}

/// Where this server reaches its own public listener.
fn own_url(public: SocketAddr, tls: bool) -> String {
    let scheme = if tls { "https" } else { "http" };
    match public {
        SocketAddr::V4(address) if address.ip().is_unspecified() => format!("{scheme}://127.0.0.1:{}", address.port()),
        SocketAddr::V6(address) if address.ip().is_unspecified() => format!("{scheme}://[::1]:{}", address.port()),
        address => format!("{scheme}://{address}"),
    }
}

fn exposure(
    args: &ServeArgs,
    folder: &DataFolder,
    public: SocketAddr,
    operator: SocketAddr,
    tls: bool,
    key_in_data_folder: bool,
) -> Exposure {
    let scheme = if tls { "https" } else { "http" };
    Exposure {
        public_url: args.public_url.clone().unwrap_or_else(|| format!("{scheme}://{public}")),
        public,
        operator,
        operator_hosts: args.operator_host.clone(),
        tls,
        egress_allow: args.egress_allow.iter().map(ToString::to_string).collect(),
        key_in_data_folder,
        data: folder.path().to_owned(),
    }
}

fn ingress_limits(args: &ServeArgs) -> IngressLimits {
    IngressLimits {
        body_total: args.limits.body_timeout.get(),
        body_grace: args.limits.body_grace.get(),
        ..IngressLimits::default()
    }
}

fn accept_limits(args: &ServeArgs) -> AcceptLimits {
    let head = args.limits.head_timeout.get();
    AcceptLimits {
        stages: StageLimits { head, idle: args.limits.idle_timeout.get(), write: args.limits.body_timeout.get() },
        handshake: head,
        connections: args.limits.connections,
    }
}

fn retention(args: &ServeArgs) -> Retention {
    Retention {
        events: args.keep.keep_events.get(),
        jobs: args.keep.keep_jobs.get(),
        failed_jobs: args.keep.keep_failed_jobs.get(),
        refusals: args.keep.keep_refusals.get(),
    }
}

fn start_engine(engine: &Engine, folder: &DataFolder, keep: Retention, running: &Running, drain: Duration) {
    let Running { work, stop_work: stop, .. } = running;
    work.spawn(dispatch::run(engine.clone(), stop.clone()));
    work.spawn(worker::run(engine.clone(), stop.clone(), drain));
    work.spawn(lines::run(engine.clone(), stop.clone()));
    work.spawn(upkeep::expire(engine.store.clone(), keep, stop.clone()));
    work.spawn(upkeep::watch_disk(engine.store.clone(), stop.clone()));
    let syncs = SyncRunner::new(engine.store.clone(), folder, Arc::clone(&engine.clock));
    work.spawn(schedule::run(syncs, stop.clone()));
}

/// Between two looks at what grows.
const TIDY: Duration = Duration::from_secs(5);

/// Folds histograms, so that they do not grow between scrapes, and forgets the traffic of connections that a change of
/// the configuration took away.
async fn tidy(metrics: PrometheusHandle, store: Store, traffic: Traffic, stop: CancellationToken) {
    let mut revision = None;
    while stop.run_until_cancelled(tokio::time::sleep(TIDY)).await.is_some() {
        metrics.run_upkeep();
        let snapshot = Arc::clone(&store.snapshot());
        if revision.replace(snapshot.revision) != Some(snapshot.revision) {
            traffic.keep(|name| snapshot.connection(name).is_some());
        }
    }
}

fn announce(exposure: &Exposure, folder: &DataFolder) {
    output::announce(&format!("public    {}", exposure.public_url));
    output::announce(&format!("operator  http://{}", exposure.operator));
    let token = folder.operator_token();
    if token.exists() {
        output::announce(&format!("token     {}", token.display()));
    }
    tracing::info!(public = %exposure.public, operator = %exposure.operator, "linkspan is up");
}
