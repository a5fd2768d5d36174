//! Syncs and the tables that they load.

use anyhow::{Result, bail};
use serde_json::Value;

use super::Commands;
use crate::cli::{SyncsArgs, SyncsCommand, TablesArgs, TablesCommand};
use crate::client::{encoded, with_query};
use crate::output;

impl Commands {
    pub(super) fn syncs(&self, args: SyncsArgs) -> Result<()> {
        match args.command {
            None => self.resources("syncs", None, &args.page),
            Some(SyncsCommand::Any(command)) => self.resources("syncs", Some(command), &args.page),
            Some(SyncsCommand::Run { name, wait }) => self.request_sync(&name, "run", wait),
            Some(SyncsCommand::Resync { name, wait }) => self.request_sync(&name, "resync", wait),
        }
    }

    fn request_sync(&self, name: &str, what: &str, wait: bool) -> Result<()> {
        let bar = output::progress(&format!("running sync {name}"));
        let seconds = wait.then(|| "600".to_owned());
        let path = format!("/api/v1/syncs/{}/{what}", encoded(name));
        let answer = self.client.post(&with_query(&path, &[("wait", seconds)]), None);
        bar.finish_and_clear();
        let answer = answer?;
        let data = &answer["data"];
        self.show(&answer, |data| {
            if wait {
                output::line(&format!("{} events and {} rows loaded so far", data["events"], data["rows"]));
            } else {
                output::note(&format!("sync {name} is asked to {what}"));
            }
            if let Some(note) = data["note"].as_str().filter(|_| wait) {
                output::note(note);
            }
        });
        match data["error"].as_str() {
            Some(error) if wait => bail!("the run failed: {error}"),
            _ if wait && data["running"] == true => bail!("the run goes on; it did not end within 600 seconds"),
            _ if wait && data["aside"].as_u64() > Some(0) => {
                let reason = data["aside_reason"].as_str().unwrap_or_default();
                bail!("{} batches are set aside and not in the table: {reason}", data["aside"])
            }
            _ => Ok(()),
        }
    }

    pub(super) fn tables(&self, args: TablesArgs) -> Result<()> {
        match args.command {
            None => self.list_tables(args.destination),
            Some(TablesCommand::List { destination }) => self.list_tables(destination),
            Some(TablesCommand::Show { table, destination, page }) => {
                let path = with_query(
                    &format!("/api/v1/tables/{}", encoded(&table)),
                    &[("destination", destination), ("limit", Some(page.limit.to_string())), ("cursor", page.cursor)],
                );
                let answer = self.client.get(&path)?;
                self.show(&answer, show_table);
                if let (crate::cli::Output::Table, Some(next)) = (self.output, answer["next"].as_str()) {
                    output::note(&format!("{} rows in all; more: --cursor {next}", answer["data"]["total"]));
                }
                Ok(())
            }
        }
    }

    fn list_tables(&self, destination: Option<String>) -> Result<()> {
        let answer = self.client.get(&with_query("/api/v1/tables", &[("destination", destination)]))?;
        self.show(&answer, |tables| {
            let columns =
                [("destination", "/destination"), ("schema", "/schema"), ("table", "/table"), ("rows", "/rows")];
            output::table(&columns.map(|(heading, _)| heading), super::rows(tables, &columns));
        });
        Ok(())
    }
}

fn show_table(data: &Value) {
    let columns: Vec<&str> =
        data["columns"].as_array().into_iter().flatten().filter_map(|column| column["name"].as_str()).collect();
    let rows = data["rows"].as_array().into_iter().flatten();
    let rows = rows.map(|row| columns.iter().map(|column| output::cell(&row[*column])).collect()).collect();
    output::table(&columns, rows);
}
