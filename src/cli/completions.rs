//! `rust-eland completions`.

use clap::Args;
use clap_complete::Shell;

use super::command_error::CommandError;
use super::report;

#[derive(Debug, Args)]
pub(super) struct CompletionsArguments {
    /// Shell to print the script for. In bash, run: source <(rust-eland completions bash)
    #[arg(value_name = "SHELL", value_enum)]
    shell: Shell,
}

impl CompletionsArguments {
    pub(super) fn execute(self) -> Result<(), CommandError> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut super::definition(), super::NAME, &mut script);
        report::print(&script)
    }
}
