//! `rust-eland man`.

use std::fs;
use std::path::PathBuf;

use clap::Args;
use clap_mangen::Man;

use super::command_error::CommandError;
use super::report;
use super::similar::similar;

#[derive(Debug, Args)]
pub(super) struct ManArguments {
    /// Command whose page to print, such as import or pipeline-create [default: the page of rust-eland]
    #[arg(value_name = "COMMAND", conflicts_with = "output")]
    command: Option<String>,
    /// Write all pages to a folder, such as /usr/local/share/man/man1
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,
}

impl ManArguments {
    pub(super) fn execute(self) -> Result<(), CommandError> {
        // `build` sets the full names of the commands and the global options.
        let mut program = super::definition().disable_help_subcommand(true);
        program.build();
        if let Some(folder) = self.output {
            let usage = |error| {
                let advice = "choose a writable folder";
                CommandError::Usage(format!(
                    "cannot write to {}: {error}; {advice}",
                    folder.display()
                ))
            };
            fs::create_dir_all(&folder).map_err(usage)?;
            clap_mangen::generate_to(program, &folder).map_err(usage)?;
            return report::print(format!("{}\n", folder.display()).as_bytes());
        }
        let command = match &self.command {
            None => program,
            Some(name) => find(&program, name).cloned().ok_or_else(|| {
                let names: Vec<_> =
                    program.get_subcommands().map(clap::Command::get_name).collect();
                let meant = similar(name, names.iter().copied());
                let meant = if meant.is_empty() { names } else { meant };
                CommandError::Usage(format!("unknown command {name:?}; try {}", meant.join(", ")))
            })?,
        };
        let mut page = Vec::new();
        Man::new(command).render(&mut page)?;
        report::print(&page)
    }
}

/// The command with a name. A hyphen separates the names of nested commands.
fn find<'a>(program: &'a clap::Command, name: &str) -> Option<&'a clap::Command> {
    program.find_subcommand(name).or_else(|| {
        let (outer, inner) = name.split_once('-')?;
        find(program.find_subcommand(outer)?, inner)
    })
}
