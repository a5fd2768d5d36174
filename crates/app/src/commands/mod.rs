//! The client commands, each a call or a few of the operator API.

mod accounts;
mod apply;
mod calls;
mod connectors;
mod events;
mod jobs;
mod resources;
mod server;
mod syncs;

use anyhow::Result;
use serde_json::Value;

use crate::cli::{Command, Connect, Output, Page, TokenCommand};
use crate::client::{Client, with_query};
use crate::output;

/// Runs a client command.
pub(crate) fn run(command: Command, connect: Connect, output: Output) -> Result<()> {
    let server = || Ok::<_, anyhow::Error>(Commands { client: Client::new(&connect)?, output });
    match command {
        Command::Serve(_) => unreachable!("the server is started before"),
        Command::Apply(args) => server()?.apply(&args),
        Command::Export(args) => server()?.export(args.defaults),
        Command::Secrets(args) => server()?.secrets(args),
        Command::Accounts(args) => server()?.accounts(args),
        Command::Connectors(args) => connectors::run(args, server, output),
        Command::Connections(args) => server()?.connections(args),
        Command::Destinations(args) => server()?.resources("destinations", args.command, &args.page),
        Command::Endpoints(args) => server()?.endpoints(args),
        Command::Recipes(args) => server()?.recipes(args),
        Command::Events(args) => server()?.events(args),
        Command::Jobs(args) => server()?.jobs(args),
        Command::Refusals(args) => server()?.refusals(&args),
        Command::Syncs(args) => server()?.syncs(args),
        Command::Tables(args) => server()?.tables(args),
        Command::Send(args) => server()?.send(&args),
        Command::Call(args) => server()?.call(args),
        Command::Listen(args) => server()?.listen(&args),
        Command::Check { integrity, confirm_clock } => server()?.check(integrity, confirm_clock),
        Command::Backup => server()?.backup(),
        Command::Restore(args) => server::restore(&args.from, &connect.data, output),
        Command::Token(args) => match args.command {
            TokenCommand::Rotate => server()?.rotate_token(),
            TokenCommand::Reset => server::reset_token(&connect.data, output),
        },
        Command::Schema => {
            output::json(&linkspan_model::document::schema());
            Ok(())
        }
        Command::Version => server::version(&connect, output),
        Command::Completions { shell } => {
            server::completions(shell);
            Ok(())
        }
    }
}

/// A server and how its answers are written.
pub(crate) struct Commands {
    client: Client,
    output: Output,
}

impl Commands {
    /// Writes an answer: the API's own body, or what `people` makes of its data.
    fn show(&self, answer: &Value, people: impl FnOnce(&Value)) {
        match self.output {
            Output::Json => output::json(answer),
            Output::Table => people(&answer["data"]),
        }
    }

    /// Lists a collection as a table with these columns, each a JSON pointer into an item.
    fn list(
        &self,
        path: &str,
        parameters: &[(&str, Option<String>)],
        page: &Page,
        columns: &[(&str, &str)],
    ) -> Result<()> {
        let mut all = parameters.to_vec();
        all.push(("limit", Some(page.limit.to_string())));
        all.push(("cursor", page.cursor.clone()));
        let answer = self.client.get(&with_query(path, &all))?;
        self.show(&answer, |items| {
            let headings: Vec<&str> = columns.iter().map(|(heading, _)| *heading).collect();
            output::table(&headings, rows(items, columns));
        });
        if let (Output::Table, Some(next)) = (self.output, answer["next"].as_str()) {
            output::note(&format!("more: --cursor {next}"));
        }
        Ok(())
    }
}

/// The rows of a table: for each item the values at these pointers.
fn rows(items: &Value, columns: &[(&str, &str)]) -> Vec<Vec<String>> {
    let row = |item: &Value| {
        columns.iter().map(|(_, pointer)| item.pointer(pointer).map(output::cell).unwrap_or_default()).collect()
    };
    items.as_array().into_iter().flatten().map(row).collect()
}
