//! `rust-eland download`.

use std::fs;
use std::path::PathBuf;

use clap::Args;

use super::source::{Source, SourceArguments, fetch};
use crate::error::Error;
use crate::observer::Progress;

#[derive(Debug, Args)]
#[command(mut_arg("hub_model_id", |argument| argument.required(true)))]
pub(super) struct DownloadArguments {
    #[command(flatten)]
    source: SourceArguments,
    /// Write the files to a new folder too, without links, to be copied to where there is no network
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,
}

impl DownloadArguments {
    pub(super) async fn execute(self, progress: &Progress) -> Result<(), Error> {
        let Source::Hub(hub, id, revision) = self.source.source()? else {
            return Err(Error::Usage(format!(
                "{} is a folder here already; there is nothing to download",
                self.source.name()?
            )));
        };
        // Said before the long work.
        if let Some(output) = &self.output
            && (output.is_file() || fs::read_dir(output).is_ok_and(|mut all| all.next().is_some()))
        {
            let message =
                format!("{} is there and not empty; name another folder", output.display());
            return Err(Error::Usage(message));
        }
        let snapshot = fetch(&hub, &id, &revision, progress).await?;
        let folder = match &self.output {
            Some(output) => {
                snapshot.copy_to(output)?;
                output
            }
            None => &snapshot.folder,
        };
        tracing::info!("{} is in {}", snapshot.origin, folder.display());
        println!("{}", folder.display());
        Ok(())
    }
}
