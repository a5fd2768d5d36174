//! Accounts, and users' consents to their tokens.

use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::Value;

use super::Commands;
use crate::cli::{AccountsArgs, AccountsCommand};
use crate::client::encoded;
use crate::output;

/// How often the state is looked at while a user consents.
const POLL: Duration = Duration::from_millis(500);
/// Longest wait: a consent is taken for ten minutes, and its token may take a moment.
const PATIENCE: Duration = Duration::from_secs(11 * 60);

impl Commands {
    pub(super) fn accounts(&self, args: AccountsArgs) -> Result<()> {
        match args.command {
            None => self.resources("accounts", None, &args.page),
            Some(AccountsCommand::Any(command)) => self.resources("accounts", Some(command), &args.page),
            Some(AccountsCommand::Connect { name, open }) => self.connect_account(&name, open),
        }
    }

    fn connect_account(&self, name: &str, open: bool) -> Result<()> {
        let path = format!("/api/v1/accounts/{}", encoded(name));
        let status = || -> Result<Value> { Ok(self.client.get(&path)?["data"]["status"].clone()) };
        let before = status()?;
        let answer = self.client.post(&format!("{path}/connect"), None)?;
        let url = output::plain(answer["data"]["authorize_url"].as_str().unwrap_or_default());
        self.show(&answer, |_| output::line(&url));
        output::note("open this page and consent; waiting");
        if open && !opened(&url) {
            output::note("no browser could be opened here; open the page yourself");
        }
        let bar = output::progress(&format!("waiting for the consent to {name}"));
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            let now = status()?;
            if now["consented_at"].is_string() && now["consented_at"] != before["consented_at"] {
                bar.finish_and_clear();
                let scopes = now["scopes"].as_str().map(|scopes| format!(", scopes: {}", output::plain(scopes)));
                output::note(&format!("connected{}", scopes.unwrap_or_default()));
                return Ok(());
            }
            if now["consent_failed_at"].is_string() && now["consent_failed_at"] != before["consent_failed_at"] {
                bar.finish_and_clear();
                bail!("not connected: {}", output::plain(now["consent_error"].as_str().unwrap_or_default()));
            }
            if std::time::Instant::now() >= deadline {
                bar.finish_and_clear();
                bail!("nobody consented within ten minutes; connect again");
            }
            std::thread::sleep(POLL);
        }
    }
}

/// Opens a page in the browser of this machine; false when there is no program for it.
fn opened(url: &str) -> bool {
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let quiet = std::process::Stdio::null;
    std::process::Command::new(program).arg(url).stdin(quiet()).stdout(quiet()).stderr(quiet()).spawn().is_ok()
}
