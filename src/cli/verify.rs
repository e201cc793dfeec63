//! `rust-eland verify`.

use std::path::PathBuf;

use clap::Args;

use super::arguments::ConnectionArguments;
use super::command_error::CommandError;
use super::page::PageArguments;
use super::report::ReportArguments;
use super::source::SourceArguments;
use super::tree_model::TreeModelArguments;
use super::tree_predictions;
use crate::elasticsearch::ServedId;
use crate::observer::Progress;

/// Largest accepted difference, unless the user sets another.
pub(super) const TOLERANCE: f64 = 1e-5;

#[derive(Debug, Args)]
#[command(mut_arg("page", |argument| argument.conflicts_with("data")))]
#[command(mut_arg("tree_model", |argument| argument.requires("data").conflicts_with_all(["hub_model_id", "texts"])))]
pub(super) struct VerifyArguments {
    #[command(flatten)]
    connection: ConnectionArguments,
    /// The model in the cluster, one of its deployments, an alias, or an inference endpoint [default for a tree model: derived from the
    /// file's name]
    #[arg(long, value_name = "ID", required_unless_present = "tree_model")]
    es_model_id: Option<ServedId>,
    #[command(flatten)]
    source: SourceArguments,
    /// Texts to compare, instead of the built-in ones: a text per line, .jsonl or .csv as for infer. A tab separates the two texts of a
    /// pair
    #[arg(long, value_name = "FILE")]
    texts: Option<PathBuf>,
    /// Largest accepted difference of two answers, relative to the largest number of an answer, or to 1
    #[arg(long, value_name = "NUMBER", default_value_t = TOLERANCE, value_parser = tolerance)]
    tolerance: f64,
    #[command(flatten)]
    tree: TreeModelArguments,
    /// Documents for a tree model: JSON lines, or a CSV file with a header (.csv); - for JSON lines on standard input
    #[arg(long, value_name = "FILE", requires = "tree_model")]
    data: Option<PathBuf>,
    #[command(flatten)]
    report: ReportArguments,
    #[command(flatten)]
    page: PageArguments,
}

fn tolerance(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number >= 0. => Ok(number),
        _ => Err("expected a number that is not negative, such as 1e-5".into()),
    }
}

impl VerifyArguments {
    /// Compares the model in the cluster with its source. Fails if an answer differs.
    pub(super) async fn execute(self, progress: &Progress) -> Result<(), CommandError> {
        self.page.check()?;
        let id = self.es_model_id.as_ref();
        if let Some(data) = &self.data {
            let tree = &self.tree;
            let (connection, report) = (&self.connection, &self.report);
            return tree_predictions::verify(connection, tree, id, data, report, progress).await;
        }
        let Some(id) = id else {
            return Err(CommandError::Usage("no model is set: set --es-model-id".into()));
        };
        #[cfg(feature = "torch")]
        return self.verify(id, progress).await;
        #[cfg(not(feature = "torch"))]
        {
            tracing::debug!("cannot verify {id}");
            Err(crate::conversion::ConversionError::NoLibtorch.into())
        }
    }

    #[cfg(feature = "torch")]
    async fn verify(&self, id: &ServedId, progress: &Progress) -> Result<(), CommandError> {
        use super::infer_texts;
        use super::verify_report;
        use crate::elasticsearch::{Client, DeployedModel};
        use crate::workflow::verification::VerifyRequest;

        let client = Client::connect(self.connection.connection()?).await?;
        let model = DeployedModel::find(&client, id.clone()).await?;
        VerifyRequest::check(&model)?;
        let source = match self.source.is_set() {
            true => self.source.source()?,
            false => verify_report::source_of(&model, self.source.hub()?)?,
        };
        let source = source.resolve().await?;
        let texts = match &self.texts {
            Some(path) => {
                let setting = infer_texts::first_setting(model.task());
                let lines = infer_texts::read_file(path)?;
                let texts = infer_texts::pairs(lines, setting, None, infer_texts::TAB)?;
                Some(texts.into_iter().map(infer_texts::Text::into_input).collect())
            }
            None => None,
        };
        let request = VerifyRequest { source, texts, tolerance: self.tolerance, max_length: None };
        let verification = request.run(&client, id.as_str(), &model, progress).await?;
        self.report.print(&verification)?;
        let result = verify_report::into_result(&verification, false);
        self.page.write(|| verify_report::page(&verification), result)
    }
}
