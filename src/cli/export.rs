//! `rust-eland export`.

use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args};
use serde::Serialize;

use super::arguments::ModelArguments;
use super::bundle_report::BundleReport;
use super::command_error::CommandError;
use super::definition::DefinitionArguments;
use super::report::{Report, ReportArguments};
use super::tree_model::{TREE_MODEL_CONFLICTS, TreeModelArguments};
use super::tree_model_report::TreeModelReport;
use super::upload::interruption;
use crate::observer::Progress;
use crate::trees::TreeError;
use crate::version::Target;
use crate::workflow::{ExportRequest, Exported, ImportInput, StopSignal};

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("source").required(true).args(["hub_model_id", "definition", "tree_model"]))]
#[command(mut_arg("output", |argument| argument.long("format")))]
#[command(mut_arg("tree_model", |argument| argument.conflicts_with_all(TREE_MODEL_CONFLICTS)))]
pub(super) struct ExportArguments {
    #[command(flatten)]
    model: ModelArguments,
    #[command(flatten)]
    definition: DefinitionArguments,
    #[command(flatten)]
    tree: TreeModelArguments,
    /// Folder for the files: ID.pt, ID.vocab.json and ID.metadata.json, or ID.tree_model.json
    #[arg(long = "output", value_name = "FOLDER")]
    folder: PathBuf,
    // `--output` already names the folder, so the format has the name `--format`.
    #[command(flatten)]
    report: ReportArguments,
    /// Elasticsearch version to convert the model for, such as 8.17.0, or serverless [default: all versions from 8.7.0]
    #[arg(long, value_name = "VERSION")]
    target_version: Option<Target>,
}

/// A bundle that was written.
#[derive(Debug, Serialize)]
struct ExportReport<'a> {
    #[serde(flatten)]
    report: BundleReport,
    /// Path of its ID.metadata.json.
    bundle: &'a Path,
}

impl Report for ExportReport<'_> {
    fn text(&self) -> String {
        self.bundle.display().to_string()
    }
}

impl ExportArguments {
    pub(super) async fn execute(self, progress: &Progress) -> Result<(), CommandError> {
        let target = self.target_version.unwrap_or_default();
        if self.tree.is_set() {
            return self.export_tree_model(target, progress).await;
        }
        let (input, model_id) = match self.definition.read(self.model.es_model_id.as_ref())? {
            Some(definition) => {
                let model_id = definition.model_id.clone();
                (ImportInput::Prebuilt(Box::new(definition)), model_id)
            }
            None => (self.model.input()?, self.model.model_id()?),
        };
        let mut export = ExportRequest::new(input, model_id, self.folder);
        export.target = target;
        let Exported { bundle, metadata } =
            export.run(StopSignal::Always(interruption()?), progress).await?;
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
        self.report.print(&ExportReport { report: BundleReport::of(&bundle), bundle: &metadata })
    }

    /// Writes the body of the request that creates a tree model.
    async fn export_tree_model(
        self,
        target: Target,
        progress: &Progress,
    ) -> Result<(), CommandError> {
        let model_id = self.tree.model_id(self.model.es_model_id.as_ref())?;
        let read = self.tree.read(&self.model.tree_source(), progress).await?;
        let model = read.model(model_id, self.model.is_verified())?;
        let path = self.folder.join(format!("{}.tree_model.json", model.model_id));
        let body = serde_json::to_vec(&model.body(target)).map_err(std::io::Error::from)?;
        std::fs::create_dir_all(&self.folder)
            .and_then(|()| std::fs::write(&path, body))
            .map_err(|source| TreeError::Io { path: path.clone(), source })?;
        tracing::info!(
            "create the model with PUT _ml/trained_models/{} and this file as the body",
            model.model_id
        );
        let mut report = TreeModelReport::of(&read, &model);
        report.file = Some(path);
        self.report.print(&report)
    }
}
