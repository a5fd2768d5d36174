//! The command line: the same nouns as the API.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use linkspan_model::units::Duration;

/// Self-hosted HTTP connectors: receive webhooks, call APIs, run recipes, load tables.
#[derive(Debug, Parser)]
#[command(name = "linkspan", version, propagate_version = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) connect: Connect,
    /// How to write answers.
    #[arg(short, long, global = true, value_enum, default_value = "table")]
    pub(crate) output: Output,
}

/// How to write answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// The API's own body.
    Json,
}

/// Where the server is, and the token for it.
#[derive(Debug, Clone, Args)]
pub(crate) struct Connect {
    /// The server's operator listener.
    #[arg(long, global = true, env = "LINKSPAN_URL", default_value = "http://127.0.0.1:8081", hide_env_values = true)]
    pub(crate) url: String,
    /// The operator token; left out: the data folder's operator-token.
    #[arg(long, global = true, env = "LINKSPAN_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// The data folder.
    #[arg(long, global = true, env = "LINKSPAN_DATA", default_value = "./data")]
    pub(crate) data: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start the server.
    Serve(Box<ServeArgs>),
    /// Show what documents would change, and change it.
    Apply(ApplyArgs),
    /// Write every document as YAML, secrets by reference.
    Export(ExportArgs),
    /// Secrets: values by reference.
    Secrets(SecretsArgs),
    /// Accounts: stored credentials.
    Accounts(AccountsArgs),
    /// Connectors: APIs written down, with their actions.
    Connectors(ConnectorsArgs),
    /// Connections: ways to outside APIs.
    Connections(ConnectionsArgs),
    /// Destinations: databases with tables.
    Destinations(ResourceArgs),
    /// Endpoints: the URLs that the world calls.
    Endpoints(EndpointsArgs),
    /// Recipes: triggers and steps.
    Recipes(RecipesArgs),
    /// Events: accepted requests.
    Events(EventsArgs),
    /// Jobs: runs of recipes.
    Jobs(JobsArgs),
    /// Refusals: requests that were not accepted, and why.
    Refusals(ListRefusals),
    /// Syncs: events into tables.
    Syncs(SyncsArgs),
    /// Tables that syncs have loaded.
    Tables(TablesArgs),
    /// Send a test event, signed by the endpoint's own verification.
    Send(SendArgs),
    /// Call an action of a connector, make a request through a connection, or read a list page by page.
    Call(CallArgs),
    /// Follow the events of an endpoint live.
    Listen(ListenArgs),
    /// Check the set-up: configuration, health, exposure.
    Check {
        /// Check the whole database and the destinations too, which reads all of them.
        #[arg(long)]
        integrity: bool,
        /// Say that the clock is right although it went ahead at once, so that what is old expires.
        #[arg(long)]
        confirm_clock: bool,
    },
    /// Write a backup of the running server.
    Backup,
    /// Restore a backup into an empty data folder.
    Restore(RestoreArgs),
    /// The operator token.
    Token(TokenArgs),
    /// Print the JSON Schema of documents, for editors.
    Schema,
    /// Print the versions of this program and of the server.
    Version,
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// The data folder: all state lies in it.
    #[arg(long, env = "LINKSPAN_DATA", default_value = "./data")]
    pub(crate) data: PathBuf,
    /// Address of the public listener: webhooks.
    #[arg(long, env = "LINKSPAN_PUBLIC", default_value = "127.0.0.1:8080")]
    pub(crate) public: SocketAddr,
    /// Address of the operator listener: API and metrics.
    #[arg(long, env = "LINKSPAN_OPERATOR", default_value = "127.0.0.1:8081")]
    pub(crate) operator: SocketAddr,
    /// A name besides localhost by which the operator listener may be addressed. Repeatable.
    #[arg(long = "operator-host", env = "LINKSPAN_OPERATOR_HOST", value_delimiter = ',')]
    pub(crate) operator_host: Vec<String>,
    /// What callers put before /webhooks/…, behind a proxy.
    #[arg(long, env = "LINKSPAN_PUBLIC_URL")]
    pub(crate) public_url: Option<String>,
    /// A private address that recipes may call, as `CIDR[:port]`. Repeatable.
    #[arg(long = "egress-allow", env = "LINKSPAN_EGRESS_ALLOW", value_delimiter = ',')]
    pub(crate) egress_allow: Vec<linkspan_outbound::Allowance>,
    /// A proxy whose X-Forwarded-For is believed, as CIDR. Repeatable.
    #[arg(long = "trusted-proxy", env = "LINKSPAN_TRUSTED_PROXY", value_delimiter = ',')]
    pub(crate) trusted_proxy: Vec<ipnet::IpNet>,
    /// Certificate chain (PEM) of the public listener.
    #[arg(long, env = "LINKSPAN_TLS_CERT", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Private key (PEM) of the public listener.
    #[arg(long, env = "LINKSPAN_TLS_KEY", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// The file with the master key; left out: `LINKSPAN_KEY`, or the data folder's own.
    #[arg(long, env = "LINKSPAN_KEY_FILE")]
    pub(crate) key_file: Option<PathBuf>,
    /// Begin with a new database although the data folder shows that a server has run in it.
    #[arg(long)]
    pub(crate) begin_anew: bool,
    /// Documents to apply when the server starts: a file or a folder. Repeatable; they are applied together.
    #[arg(long, env = "LINKSPAN_APPLY", value_delimiter = ',')]
    pub(crate) apply: Vec<PathBuf>,
    /// How old tokens of OAuth2 accounts become before they are refreshed although nobody uses them.
    #[arg(long, env = "LINKSPAN_TOKEN_KEEPALIVE", default_value = "24h")]
    pub(crate) token_keepalive: Duration,
    /// How long to wait, not ready but still accepting, before draining.
    #[arg(long, env = "LINKSPAN_DRAIN_DELAY", default_value = "0s")]
    pub(crate) drain_delay: Duration,
    /// How long requests and jobs may take to finish when draining.
    #[arg(long, env = "LINKSPAN_DRAIN", default_value = "30s")]
    pub(crate) drain: Duration,
    /// Leave core dumps when it crashes, for debugging: they hold secrets.
    #[arg(long, env = "LINKSPAN_CORE_DUMPS")]
    pub(crate) core_dumps: bool,
    /// How logs are written.
    #[arg(long, env = "LINKSPAN_LOG_FORMAT", value_enum, default_value = "text")]
    pub(crate) log_format: LogFormat,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    #[command(flatten)]
    pub(crate) keep: KeepArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Limits that a server can set.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct LimitArgs {
    /// Longest wait for the first byte, and for a whole request head.
    #[arg(long, env = "LINKSPAN_HEAD_TIMEOUT", default_value = "10s")]
    pub(crate) head_timeout: Duration,
    /// Longest time for a whole body.
    #[arg(long, env = "LINKSPAN_BODY_TIMEOUT", default_value = "30s")]
    pub(crate) body_timeout: Duration,
    /// From when on a body must come with 1 KiB/s.
    #[arg(long, env = "LINKSPAN_BODY_GRACE", default_value = "5s")]
    pub(crate) body_grace: Duration,
    /// Longest time of a connection without a request; on HTTP/2 it then gets GOAWAY.
    #[arg(long, env = "LINKSPAN_IDLE_TIMEOUT", default_value = "60s")]
    pub(crate) idle_timeout: Duration,
    /// Most open connections on the public listener; beyond it the one idle longest goes.
    #[arg(long, env = "LINKSPAN_CONNECTIONS", default_value_t = linkspan_model::limits::CONNECTIONS_MAX)]
    pub(crate) connections: usize,
    /// Free bytes on the disk below which events are refused.
    #[arg(long, env = "LINKSPAN_DISK_MIN_FREE", default_value = "1GiB")]
    pub(crate) disk_min_free: linkspan_model::units::ByteSize,
}

/// How long things are kept.
#[derive(Debug, Args)]
#[command(next_help_heading = "Retention")]
pub(crate) struct KeepArgs {
    /// Events.
    #[arg(long, env = "LINKSPAN_KEEP_EVENTS", default_value = "30d")]
    pub(crate) keep_events: Duration,
    /// Jobs that succeeded or were canceled.
    #[arg(long, env = "LINKSPAN_KEEP_JOBS", default_value = "14d")]
    pub(crate) keep_jobs: Duration,
    /// Jobs that failed.
    #[arg(long, env = "LINKSPAN_KEEP_FAILED_JOBS", default_value = "30d")]
    pub(crate) keep_failed_jobs: Duration,
    /// Refusals.
    #[arg(long, env = "LINKSPAN_KEEP_REFUSALS", default_value = "7d")]
    pub(crate) keep_refusals: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    /// A file, or a folder with .yaml, .yml and .json files. Repeatable; `-` reads standard input.
    #[arg(short, long = "file", required = true, value_name = "PATH")]
    pub(crate) files: Vec<PathBuf>,
    /// Only show the plan.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Delete what an earlier apply of the same set made and this one leaves out.
    #[arg(long, requires = "set")]
    pub(crate) prune: bool,
    /// The name of this set of documents.
    #[arg(long)]
    pub(crate) set: Option<String>,
    /// Do not ask before deleting.
    #[arg(short, long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Write defaults out.
    #[arg(long)]
    pub(crate) defaults: bool,
}

/// How much of a list.
#[derive(Debug, Clone, Args)]
pub(crate) struct Page {
    /// Most items.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) limit: u32,
    /// Where the page begins: `next` of the page before.
    #[arg(long)]
    pub(crate) cursor: Option<String>,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct ResourceArgs {
    #[command(subcommand)]
    pub(crate) command: Option<ResourceCommand>,
    #[command(flatten)]
    pub(crate) page: Page,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ResourceCommand {
    /// List them.
    List(Page),
    /// Show one.
    Show {
        /// Its name.
        name: String,
    },
    /// Delete one.
    Delete {
        /// Its name.
        name: String,
        /// Of a recipe: cancel its jobs that wait; left out, they go on.
        #[arg(long)]
        cancel_jobs: bool,
    },
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct SecretsArgs {
    #[command(subcommand)]
    pub(crate) command: Option<SecretsCommand>,
    #[command(flatten)]
    pub(crate) page: Page,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SecretsCommand {
    #[command(flatten)]
    Any(ResourceCommand),
    /// Set a secret's value, read from standard input.
    Set {
        /// Its name.
        name: String,
    },
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct AccountsArgs {
    #[command(subcommand)]
    pub(crate) command: Option<AccountsCommand>,
    #[command(flatten)]
    pub(crate) page: Page,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AccountsCommand {
    #[command(flatten)]
    Any(ResourceCommand),
    /// Connect an OAuth2 account: print the provider's page, and wait until a user has consented there.
    Connect {
        /// The account.
        name: String,
        /// Open the page in this machine's browser.
        #[arg(long)]
        open: bool,
    },
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct ConnectorsArgs {
    #[command(subcommand)]
    pub(crate) command: Option<ConnectorsCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConnectorsCommand {
    /// List them: those of the workspace, and those that come with the product.
    List,
    /// Show one: its settings, the accounts it takes, and what it offers; or all about one thing that it offers.
    Show {
        /// Its name; with what it offers behind a dot: `github.create_issue`.
        name: String,
        /// Write the whole document instead, to read or to begin another with.
        #[arg(long)]
        document: bool,
    },
    /// Check connector files, without a server.
    Validate {
        /// The files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Run the cases of connectors, without a server and a network.
    Test {
        /// Files, or names of connectors that come with the product.
        #[arg(required = true)]
        connectors: Vec<String>,
    },
    /// Make one of an OpenAPI or Swagger document, of curl commands or of a Postman collection, without a server.
    Import(ImportArgs),
    /// Delete one of the workspace.
    Delete {
        /// Its name.
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The file with the document, the commands or the collection; `-` reads standard input.
    #[arg(required_unless_present = "curl", conflicts_with = "curl")]
    pub(crate) source: Option<PathBuf>,
    /// A curl command, in place of a file.
    #[arg(long, value_name = "COMMAND")]
    pub(crate) curl: Option<String>,
    /// What the source is; left out: as it looks.
    #[arg(long, value_enum)]
    pub(crate) format: Option<ImportFormat>,
    /// The name of the connector; left out: made of the source's title or host.
    #[arg(long)]
    pub(crate) name: Option<linkspan_model::Name>,
    /// Only these operations: an id, an action's name, a tag or folder, or `METHOD /path`; `*` stands for anything.
    /// Repeatable.
    #[arg(long, value_name = "PATTERN")]
    pub(crate) only: Vec<String>,
    /// Write the document into this file instead of standard output.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

/// A kind of source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ImportFormat {
    /// OpenAPI 3.0 or 3.1, or Swagger 2.0, as JSON or YAML.
    Openapi,
    /// One or several curl commands.
    Curl,
    /// A Postman collection of format 2.0 or 2.1.
    Postman,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct ConnectionsArgs {
    #[command(subcommand)]
    pub(crate) command: Option<ConnectionsCommand>,
    #[command(flatten)]
    pub(crate) page: Page,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConnectionsCommand {
    #[command(flatten)]
    Any(ResourceCommand),
    /// Test whether one works; ends with 1 when it does not.
    Test {
        /// The connection.
        name: String,
    },
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct EndpointsArgs {
    #[command(subcommand)]
    pub(crate) command: Option<EndpointsCommand>,
    #[command(flatten)]
    pub(crate) page: Page,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EndpointsCommand {
    #[command(flatten)]
    Any(ResourceCommand),
    /// Print the public URL.
    Url {
        /// The endpoint.
        name: String,
    },
    /// Make a new URL; the old one is dead at once.
    Rotate {
        /// The endpoint.
        name: String,
    },
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct RecipesArgs {
    #[command(subcommand)]
    pub(crate) command: Option<RecipesCommand>,
    #[command(flatten)]
    pub(crate) page: Page,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RecipesCommand {
    #[command(flatten)]
    Any(ResourceCommand),
    /// Start a recipe, at the end of the log.
    Start {
        /// The recipe.
        name: String,
    },
    /// Stop a recipe; jobs that it has started go on.
    Stop {
        /// The recipe.
        name: String,
    },
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct EventsArgs {
    #[command(subcommand)]
    pub(crate) command: Option<EventsCommand>,
    #[command(flatten)]
    pub(crate) list: ListEvents,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ListEvents {
    /// Only of this endpoint.
    #[arg(long)]
    pub(crate) endpoint: Option<String>,
    #[command(flatten)]
    pub(crate) page: Page,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EventsCommand {
    /// List them, newest first.
    List(ListEvents),
    /// Show one.
    Show {
        /// Its id.
        id: String,
    },
    /// Start recipes on it again.
    Replay {
        /// Its id.
        id: String,
        /// Only this recipe, running or not.
        #[arg(long)]
        recipe: Option<String>,
    },
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct JobsArgs {
    #[command(subcommand)]
    pub(crate) command: Option<JobsCommand>,
    #[command(flatten)]
    pub(crate) list: ListJobs,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ListJobs {
    /// Only of this recipe.
    #[arg(long)]
    pub(crate) recipe: Option<String>,
    /// Only in this state: queued, waiting, running, succeeded, failed, canceled.
    #[arg(long)]
    pub(crate) status: Option<String>,
    /// Only those that this event started.
    #[arg(long)]
    pub(crate) event: Option<String>,
    #[command(flatten)]
    pub(crate) page: Page,
}

#[derive(Debug, Subcommand)]
pub(crate) enum JobsCommand {
    /// List them, newest first.
    List(ListJobs),
    /// Show one with the input and output of every step.
    Show {
        /// Its id.
        id: String,
    },
    /// Run its recipe, as it is now, on its stored event again.
    Rerun {
        /// Its id.
        id: String,
        /// Repeat also what it has written already, without being asked.
        #[arg(long, short)]
        yes: bool,
    },
    /// End one that has not ended, or all of a recipe that wait.
    Cancel {
        /// Its id.
        #[arg(required_unless_present = "recipe")]
        id: Option<String>,
        /// All jobs of this recipe that wait.
        #[arg(long, conflicts_with = "id")]
        recipe: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ListRefusals {
    /// Only of this endpoint.
    #[arg(long)]
    pub(crate) endpoint: Option<String>,
    #[command(flatten)]
    pub(crate) page: Page,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct SyncsArgs {
    #[command(subcommand)]
    pub(crate) command: Option<SyncsCommand>,
    #[command(flatten)]
    pub(crate) page: Page,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SyncsCommand {
    #[command(flatten)]
    Any(ResourceCommand),
    /// Run one now, and try again what was set aside.
    Run {
        /// The sync.
        name: String,
        /// Wait for the run to end.
        #[arg(long)]
        wait: bool,
    },
    /// Fill a table again from the bucket: rows that are lost or changed come back.
    Resync {
        /// The sync.
        name: String,
        /// Wait for the run to end.
        #[arg(long)]
        wait: bool,
    },
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct TablesArgs {
    #[command(subcommand)]
    pub(crate) command: Option<TablesCommand>,
    /// Only of this destination.
    #[arg(long)]
    pub(crate) destination: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TablesCommand {
    /// List them.
    List {
        /// Only of this destination.
        #[arg(long)]
        destination: Option<String>,
    },
    /// Show rows of one.
    Show {
        /// The table as schema.table.
        table: String,
        /// The destination; left out: the one that a sync loads this table into.
        #[arg(long)]
        destination: Option<String>,
        #[command(flatten)]
        page: Page,
    },
}

#[derive(Debug, Args)]
pub(crate) struct SendArgs {
    /// The endpoint.
    pub(crate) endpoint: String,
    /// The body.
    #[arg(long, conflicts_with = "file")]
    pub(crate) body: Option<String>,
    /// A file with the body; `-` reads standard input.
    #[arg(short, long)]
    pub(crate) file: Option<PathBuf>,
    /// A header, as `Name: value`. Repeatable.
    #[arg(short = 'H', long = "header")]
    pub(crate) headers: Vec<String>,
    /// The name after the key in the URL.
    #[arg(long)]
    pub(crate) event_name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct CallArgs {
    /// The connection; with an action or a stream of its connector behind a dot: `github.get_issue`.
    pub(crate) connection: String,
    /// The path, appended to the connection's base URL, or a whole URL on one of its hosts. May hold pills:
    /// `/orders/{{ variables.id }}`.
    pub(crate) target: Option<String>,
    /// The method; left out: POST with a body, else GET.
    #[arg(short = 'X', long)]
    pub(crate) method: Option<String>,
    /// A query parameter, as `name=value`. Repeatable.
    #[arg(long = "query", value_name = "NAME=VALUE")]
    pub(crate) query: Vec<String>,
    /// A header, as `Name: value`. Repeatable.
    #[arg(short = 'H', long = "header")]
    pub(crate) headers: Vec<String>,
    /// A JSON body.
    #[arg(long, group = "body")]
    pub(crate) json: Option<String>,
    /// A field of a form body, as `name=value`. Repeatable.
    #[arg(long = "form", value_name = "NAME=VALUE", group = "body")]
    pub(crate) form: Vec<String>,
    /// A text body.
    #[arg(long, group = "body")]
    pub(crate) text: Option<String>,
    /// What the answer is read as: json, xml, text or raw; left out: as it says.
    #[arg(long)]
    pub(crate) response: Option<String>,
    /// Longest time for one exchange: 10s.
    #[arg(long)]
    pub(crate) timeout: Option<String>,
    /// A variable that pills name, or what an action or a stream is given, as `name=value`; the value is JSON where it
    /// reads as JSON and the connector does not ask for a text, else text. Repeatable.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub(crate) variables: Vec<String>,
    /// How a list goes on, in YAML: `{items: body.orders, link: next}`. Its items are written as they come, one a line.
    #[arg(long, value_name = "RULE")]
    pub(crate) paginate: Option<String>,
    /// Of an action that gives a list: only the first page, as the API answers it.
    #[arg(long)]
    pub(crate) first_page: bool,
    /// Of a stream: only what is new since this cursor, with which the reading before has ended.
    #[arg(long, value_name = "CURSOR")]
    pub(crate) since: Option<String>,
    /// A YAML file with `request`, and perhaps `variables` and `paginate`, or with `action` or `stream` and
    /// `input`; options come on top. `-` reads standard input.
    #[arg(short, long)]
    pub(crate) file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ListenArgs {
    /// The endpoint; left out: all.
    pub(crate) endpoint: Option<String>,
    /// Begin with the oldest event instead of the next one.
    #[arg(long)]
    pub(crate) from_start: bool,
    /// End after this many events.
    #[arg(long)]
    pub(crate) count: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// The folder of the backup.
    pub(crate) from: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    pub(crate) command: TokenCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Replace the operator token; the old one is dead at once.
    Rotate,
    /// Replace a lost operator token in the data folder of a stopped server.
    Reset,
}
