//! The report of `rust-eland verify`.

use super::command_error::CommandError;
use super::infer_report::quoted;
use super::page::Page;
use super::report::Report;
use crate::conversion::common_ends;
use crate::elasticsearch::DeployedModel;
use crate::source::hub::Hub;
use crate::workflow::ModelSource;
use crate::workflow::verification::{Cause, DifferentAnswer, Verification};

/// Texts that are shown. JSON has all of them.
const SHOWN: usize = 10;

/// Texts that are shown on a page.
const SHOWN_ON_PAGE: usize = 200;

/// Tokens of a text that are shown around the first difference.
const TOKENS: usize = 12;

/// The source that the metadata of a model names.
pub(super) fn source_of(model: &DeployedModel, hub: Hub) -> Result<ModelSource, CommandError> {
    let metadata = &model.configuration()["metadata"];
    let (Some(id), Some(commit)) =
        (metadata["hub_model_id"].as_str(), metadata["hub_commit"].as_str())
    else {
        return Err(CommandError::Usage(
            "the metadata of the model in the cluster does not name its source: set --hub-model-id"
                .into(),
        ));
    };
    Ok(ModelSource::Hub { hub, id: id.parse()?, revision: commit.parse()? })
}

/// An error if an answer differs. `accepts_quantization` accepts the differences that 8-bit weights cause.
pub(super) fn into_result(
    verification: &Verification,
    accepts_quantization: bool,
) -> Result<(), CommandError> {
    let is_accepted =
        |it: &DifferentAnswer| accepts_quantization && it.cause == Cause::Quantization;
    if verification.different.iter().all(is_accepted) {
        return Ok(());
    }
    let (all, tolerance) = (verification.texts, verification.tolerance);
    Err(CommandError::Verification { different: all - verification.equal, all, tolerance })
}

/// The result in one line, for the summary of an import.
pub(super) fn summary(verification: &Verification) -> String {
    let figures = match agreement(verification) {
        Some(figures) if verification.is_quantized => {
            format!("; {figures} against the float32 model")
        }
        _ => String::new(),
    };
    format!("{}{figures}", verification.summary())
}

/// The figures of the agreement with the float32 model.
fn agreement(verification: &Verification) -> Option<String> {
    let figures: Vec<_> =
        verification.agreement.iter().map(|it| format!("{} {:.4}", it.name, it.value)).collect();
    (!figures.is_empty()).then(|| figures.join(", "))
}

/// The report without the texts that differ.
fn overview(verification: &Verification) -> Vec<String> {
    let Verification { model_id, task, source, largest_difference, .. } = verification;
    let mut lines = vec![
        format!("{model_id} ({task}), compared with {source}"),
        format!("verified: {}", verification.summary()),
        format!("largest difference: {largest_difference:.1e}"),
    ];
    lines.push(match agreement(verification) {
        Some(figures) => format!("agreement with the float32 model: {figures}"),
        None => "no text has an answer on both sides".into(),
    });
    if verification.is_quantized {
        lines.push("the model is quantized, so its answers differ by more than rounding".into());
    }
    for setting in &verification.settings {
        lines.push(format!(
            "setting {}: {} in the cluster, {} for the model",
            setting.name, setting.cluster, setting.model
        ));
    }
    lines.extend(verification.findings.iter().map(|finding| format!("found {finding}")));
    lines
}

impl Report for Verification {
    fn text(&self) -> String {
        let mut lines = overview(self);
        for answer in self.different.iter().take(SHOWN) {
            lines.push(String::new());
            lines.extend(of_answer(answer));
        }
        if self.different.len() > SHOWN {
            let more = self.different.len() - SHOWN;
            lines.push(format!("\n{more} more texts differ; --output json lists them"));
        }
        lines.join("\n")
    }
}

/// The report as a page.
pub(super) fn page(verification: &Verification) -> Page {
    let mut page = Page::new(&format!("Verification of {}", verification.model_id));
    add_to(&mut page, verification);
    page
}

/// Adds the report to a page.
pub(super) fn add_to(page: &mut Page, verification: &Verification) {
    page.heading("Verification");
    page.code(&overview(verification).join("\n"));
    if !verification.agreement.is_empty() {
        page.heading("Cluster and model");
        page.agreement(&verification.samples, ["model", "cluster"]);
    }
    if !verification.different.is_empty() {
        page.heading("Texts that differ");
    }
    for answer in verification.different.iter().take(SHOWN_ON_PAGE) {
        page.paragraph(&without_tokens(answer).join("\n"));
        if let (Some(server), Some(model)) = (&answer.server_tokens, &answer.model_tokens) {
            page.tokens([("Elasticsearch", server), ("model", model)], common_ends(server, model));
        }
    }
    let more = verification.different.len().saturating_sub(SHOWN_ON_PAGE);
    if more > 0 {
        page.paragraph(&format!("{more} more texts differ; --output json lists them"));
    }
}

/// A text whose answers differ, with the errors of both sides.
fn without_tokens(answer: &DifferentAnswer) -> Vec<String> {
    let difference = answer.difference.map(|it| format!("{it:.1e}  ")).unwrap_or_default();
    let first =
        answer.first.as_ref().map(|first| format!("{} ", quoted(first))).unwrap_or_default();
    let text = quoted(&answer.text);
    let mut lines = vec![format!("{difference}{}  {first}{text}", answer.cause.name())];
    lines.extend(answer.error.iter().map(|error| format!("  cluster  {error}")));
    lines.extend(answer.model_error.iter().map(|error| format!("  model    {error}")));
    lines
}

/// A text whose answers differ, with the tokens of both sides if they differ.
fn of_answer(answer: &DifferentAnswer) -> Vec<String> {
    let mut lines = without_tokens(answer);
    if let (Some(server), Some(model)) = (&answer.server_tokens, &answer.model_tokens) {
        lines.push(format!("  server  {}", marked(server, model)));
        lines.push(format!("  model   {}", marked(model, server)));
    }
    lines
}

/// Tokens with arrows around those that differ, from a few tokens before the first difference.
fn marked(tokens: &[String], others: &[String]) -> String {
    let (before, after) = common_ends(tokens, others);
    let (from, end) = (before.saturating_sub(2), tokens.len() - after);
    let mut words = Vec::new();
    if from > 0 {
        words.push("…".to_owned());
    }
    for (at, token) in tokens.iter().enumerate().skip(from).take(TOKENS) {
        let open = if at == before && before < end { "»" } else { "" };
        let close = if at + 1 == end && before < end { "«" } else { "" };
        words.push(format!("{open}{token}{close}"));
    }
    if from + TOKENS < tokens.len() {
        words.push("…".to_owned());
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differing_tokens_stand_between_arrows() {
        let tokens = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(marked(&tokens("a b c d e"), &tokens("a b x e")), "a b »c d« e");
        assert_eq!(marked(&tokens("1 2 3 a b"), &tokens("1 2 3 x")), "… 2 3 »a b«");
        assert_eq!(marked(&tokens("a b"), &tokens("a b")), "a b");
    }
}
