//! `rust-eland download`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::command_error::CommandError;
use super::report::print;
use super::source::SourceArguments;
use crate::observer::Progress;
use crate::workflow::plan_download;

#[derive(Debug, Args)]
#[command(mut_arg("hub_model_id", |argument| argument.required(true)))]
pub(super) struct DownloadArguments {
    #[command(flatten)]
    source: SourceArguments,
    /// Also copy the files to this folder, without links, for a machine without network access. A folder that already contains the
    /// download is completed or confirmed
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,
}

impl DownloadArguments {
    pub(super) async fn execute(self, progress: &Progress) -> Result<(), CommandError> {
        let name = self.source.name()?;
        // The output folder of an earlier run can have the name of the repository.
        let is_output = self.output.as_deref().is_some_and(|output| is_same_path(output, name));
        if Path::new(name).exists() && !is_output {
            let message =
                format!("{name} is a folder on this machine; there is nothing to download");
            return Err(CommandError::Usage(message));
        }
        let (name, revision) = self.source.hub_name()?;
        let hub = self.source.hub()?;
        let plan = match &name.file {
            Some(file) => hub.plan_file(&name.id, &revision, file).await?,
            None => plan_download(&hub, &name.id, &revision).await?,
        };
        let origin = plan.origin();
        let Some(output) = &self.output else {
            let snapshot = plan.download(progress).await?;
            let path = name.file.map_or(snapshot.folder.clone(), |file| snapshot.folder.join(file));
            tracing::info!("{origin} is in {}", path.display());
            return print(format!("{}\n", path.display()).as_bytes());
        };
        // Checked before the download, so that a folder with other files is rejected immediately.
        let folder = plan.compare_output(output)?;
        if folder.is_complete() {
            tracing::info!(
                "{} is already complete: it contains all files of {origin}",
                output.display()
            );
        } else {
            plan.download(progress).await?.copy_missing(&folder, output)?;
            tracing::info!("{origin} is in {}", output.display());
        }
        if !folder.others.is_empty() {
            let names = folder.others.join(", ");
            tracing::warn!(
                "{} also contains files that are not part of this download, which were kept: {names}",
                output.display()
            );
        }
        print(format!("{}\n", output.display()).as_bytes())
    }
}

/// Whether two paths lead to the same existing file or folder.
fn is_same_path(one: &Path, other: &str) -> bool {
    one.canonicalize()
        .ok()
        .is_some_and(|one| Path::new(other).canonicalize().is_ok_and(|it| it == one))
}
