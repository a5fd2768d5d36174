//! The executable: one binary for the server and for its operator.

mod certificate;
mod cli;
mod client;
mod commands;
mod connections;
mod core_dumps;
mod documents;
mod lifecycle;
mod logs;
mod output;
mod places;
mod secrets;
mod serve;
mod tables;
mod threads;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Cli, Command};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        Command::Serve(args) => {
            return serve::run(*args).map_or_else(
                |error| {
                    logs::say_at_the_end(format!("{error:#}"));
                    client::exit_code(&error)
                },
                |()| ExitCode::SUCCESS,
            );
        }
        command => {
            // They hold an operator token, and some of them the values of secrets.
            core_dumps::forbid();
            commands::run(command, cli.connect, cli.output)
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&format!("{error:#}"));
            client::exit_code(&error)
        }
    }
}
