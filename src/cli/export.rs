//! `rust-eland export`.

use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args};
use serde::Serialize;

use super::arguments::ModelArguments;
use super::bundle_report::BundleReport;
use super::command_error::CommandError;
use super::definition::DefinitionArguments;
use super::report::{Report, ReportArguments};
use crate::observer::{Progress, Stage};
use crate::version::Target;

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("source").required(true).args(["hub_model_id", "definition"]))]
#[command(mut_arg("output", |argument| argument.long("format")))]
pub(super) struct ExportArguments {
    #[command(flatten)]
    model: ModelArguments,
    #[command(flatten)]
    definition: DefinitionArguments,
    /// Folder for ID.pt, ID.vocab.json and ID.metadata.json
    #[arg(long = "output", value_name = "FOLDER")]
    folder: PathBuf,
    // The name --output is taken by the folder.
    #[command(flatten)]
    report: ReportArguments,
    /// Elasticsearch version to convert the model for, such as 8.17.0, or serverless [default: all versions from 8.7.0]
    #[arg(long, value_name = "VERSION")]
    target_version: Option<Target>,
}

/// A bundle that was written.
#[derive(Debug, Serialize)]
struct Exported<'a> {
    #[serde(flatten)]
    made: BundleReport,
    /// The path of its ID.metadata.json.
    bundle: &'a Path,
}

impl Report for Exported<'_> {
    fn text(&self) -> String {
        self.bundle.display().to_string()
    }
}

impl ExportArguments {
    pub(super) async fn execute(self, progress: &Progress) -> Result<(), CommandError> {
        let target = self.target_version.unwrap_or_default();
        let (bundle, metadata) = match self.definition.read(self.model.es_model_id.as_ref())? {
            Some(given) => {
                let bundle = given.bundle(target)?;
                let write = || bundle.write(&self.folder);
                let metadata = progress.run(Stage::WriteBundle, write)?;
                (bundle, metadata)
            }
            None => {
                let model_id = self.model.model_id()?;
                let source = self.model.source()?.resolve().await?;
                let model = self.model.request(source)?;
                model.export(model_id, target, &self.folder, progress).await?
            }
        };
        let oldest = bundle.minimum_version;
        match bundle.target {
            Target::Any => tracing::info!(
                "the model runs on Elasticsearch {oldest} and later; set --target-version to convert it for one version"
            ),
            target => tracing::info!(
                "converted for Elasticsearch {target}; the model runs on {oldest} and later"
            ),
        }
        tracing::info!("SHA-256 of the definition: {}", bundle.artifact.sha256);
        self.report.print(&Exported { made: BundleReport::of(&bundle), bundle: &metadata })
    }
}
