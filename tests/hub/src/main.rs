//! The stand-in as a program, for other clients to try: prints one line when it is ready, and ends when standard input does.

use std::io::{Read, stdin};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use hub::{Hub, Options, Repository};

/// A stand-in for the Hugging Face hub, on the loopback interface.
#[derive(Debug, Parser)]
struct Arguments {
    /// The port to listen on; 0 takes a free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// A repository: its id and a folder with its files.
    #[arg(long, value_name = "ID=FOLDER")]
    repository: Vec<String>,
    /// A token that may read everything.
    #[arg(long)]
    token: Option<String>,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hub: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> std::io::Result<()> {
    let mut repositories = Vec::new();
    for named in &arguments.repository {
        let (id, folder) = named.split_once('=').ok_or(std::io::ErrorKind::InvalidInput)?;
        repositories.push(Repository::of_folder(id, &PathBuf::from(folder))?);
    }
    let hub = Hub::try_start(Options {
        port: arguments.port,
        repositories,
        token: arguments.token,
        ..Options::default()
    })?;
    println!("listening on {}", hub.url());
    stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
