//! `rust-eland inspect`.

use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args};

use super::arguments::{ConnectionArguments, ModelArguments};
use super::command_error::CommandError;
use super::infer_texts;
use super::page::{Page, PageArguments};
use super::plan_report::PlanReport;
use super::report::{Report, ReportArguments};
use super::tree_model::{TREE_MODEL_CONFLICTS, TreeModelArguments};
use super::tree_model_report::TreeModelReport;
use crate::conversion::Options;
use crate::elasticsearch::Client;
use crate::observer::Progress;
use crate::tasks::Task;
use crate::version::Target;
use crate::workflow::ModelRequest;
use crate::workflow::token_comparison::{Text, TextsSummary, TokenComparison};

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("source").required(true).args(["hub_model_id", "tree_model"]))]
#[command(mut_arg("tree_model", |argument| argument.conflicts_with_all(TREE_MODEL_CONFLICTS)))]
#[command(mut_group("cluster", |group| group.required(false)))]
pub(super) struct InspectArguments {
    #[command(flatten)]
    connection: ConnectionArguments,
    #[command(flatten)]
    model: ModelArguments,
    /// Show which texts of this file Elasticsearch tokenizes differently from the model's own tokenizer. The file has a text per line, or
    /// is .jsonl or .csv as for infer; a tab separates the two texts of a pair. Different tokens lead to a comparison of the answers, which
    /// downloads the weights
    #[arg(long, value_name = "FILE")]
    texts: Option<PathBuf>,
    #[command(flatten)]
    tree: TreeModelArguments,
    #[command(flatten)]
    report: ReportArguments,
    #[command(flatten)]
    page: PageArguments,
}

impl InspectArguments {
    /// Prints what an import would do. Then returns an error if the import would fail.
    pub(super) async fn execute(self, progress: &Progress) -> Result<(), CommandError> {
        self.page.check()?;
        if self.tree.is_set() {
            let model_id = self.tree.model_id(self.model.es_model_id.as_ref())?;
            let read = self.tree.read(&self.model.tree_source(), progress).await?;
            let model = read.model(model_id, self.model.is_verified())?;
            let report = TreeModelReport::of(&read, &model);
            self.report.print(&report)?;
            return self.page.write(|| Page::of_text(&report.text()), Ok(()));
        }
        let source = self.model.source()?;
        let model_id = self.model.model_id()?;
        let client = match self.connection.is_set() {
            true => Some(Client::connect(self.connection.connection()?).await?),
            false => None,
        };
        let target = client.as_ref().map_or(Target::Any, Client::target);
        let model = self.model.request(source.resolve().await?)?;
        let (plan, origin) = (model.plan(target).await?, model.source.origin());
        let texts = match &self.texts {
            Some(path) => {
                let texts = texts(path, plan.task.map(Task::name))?;
                Some(summary(&model, texts, target, progress).await?)
            }
            None => None,
        };
        let options = self.model.as_options();
        let command = format!("rust-eland import{options}{}", self.connection.as_option());
        let mut report = PlanReport::of_plan(model_id, model.title, origin, plan);
        report.next = Some(command);
        report.texts = texts;
        if let Some(client) = &client {
            report.add_cluster_checks(client, None).await;
        }
        self.report.print(&report)?;
        let page = report.page();
        self.page.write(|| page, report.into_result())
    }
}

/// The texts of a file, each with its line. A task that reads pairs has no single texts.
fn texts(path: &Path, task: Option<&str>) -> Result<Vec<(usize, Text)>, CommandError> {
    let lines = infer_texts::read_file(path)?;
    if let Some(setting) = task.and_then(infer_texts::first_setting) {
        let pairs = infer_texts::pairs(lines, Some(setting), None, infer_texts::TAB)?;
        let pair = |it: infer_texts::Text| match it.first {
            Some(first) => (it.line, Text::Pair(first, it.text)),
            None => (it.line, Text::Single(it.text)),
        };
        return Ok(pairs.into_iter().map(pair).collect());
    }
    Ok(lines.into_iter().map(|it| (it.line, Text::of_line(&it.text))).collect())
}

/// Compares the tokens of texts, and the answers where tokens differ.
async fn summary(
    model: &ModelRequest,
    texts: Vec<(usize, Text)>,
    target: Target,
    progress: &Progress,
) -> Result<TextsSummary, CommandError> {
    let tokenizers = TokenComparison::of_model(&model.source, model.options.clone()).await?;
    if !tokenizers.has_model() {
        let message = "the model has no tokenizer.json to compare the texts with; remove --texts";
        return Err(CommandError::Usage(message.into()));
    }
    let mut summary = tokenizers.summary(texts)?;
    let options = Options { target, ..model.options.clone() };
    summary.compare_answers(&model.source, options, progress).await?;
    Ok(summary)
}
