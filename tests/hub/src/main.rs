//! The stand-in as a program, for other clients. It prints one line when it is ready, and ends when standard input ends.

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
    /// A token that can read all repositories.
    #[arg(long)]
    token: Option<String>,
    /// Serve large files as files in Xet.
    #[arg(long)]
    xet: bool,
    /// Limit each connection to this many bytes per second.
    #[arg(long)]
    bytes_per_second: Option<u64>,
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
        let repository = Repository::of_folder(id, &PathBuf::from(folder))?;
        repositories.push(if arguments.xet { repository.all_in_xet() } else { repository });
    }
    let hub = Hub::try_start(Options {
        port: arguments.port,
        repositories,
        token: arguments.token,
        bytes_per_second: arguments.bytes_per_second,
        ..Options::default()
    })?;
    println!("listening on {}", hub.url());
    stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
