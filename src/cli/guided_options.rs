//! Questions of a guided import about the languages of the texts and quantization, and about what comes after the upload: a verification,
//! an ingest pipeline, and Kibana.

use indicatif::HumanBytes;

use super::command_error::CommandError;
use super::guided::report;
use super::guided_answers::Answers;
use super::questions::{confirm, optional_text, select};
use crate::conversion::{Plan, QuantizeScheme};
use crate::elasticsearch::KibanaAddress;
use crate::tasks::Task;

/// Asks for the languages of the texts, if a model with a large vocabulary has many tokens for texts in other scripts.
pub(super) fn languages(answers: &mut Answers, plan: &Plan) -> Result<(), CommandError> {
    let Some(scripts) = &plan.suggested_scripts else { return Ok(()) };
    // These tasks need all tokens.
    let needs_all = [Task::FillMask, Task::TextExpansion];
    if needs_all.iter().any(|task| answers.has_value("--task-type", task.name())) {
        return Ok(());
    }
    // The server reserves twice the size of the definition.
    let prompt = format!(
        "Languages of your texts, such as en,de, to leave out the tokens of other scripts ({} alone: {} less memory on a node; empty: all tokens)",
        scripts.names.join(", "),
        HumanBytes(2 * scripts.left_out_bytes)
    );
    checked(answers, "--languages", &prompt).map(drop)
}

/// Asks whether to quantize the model, and which weights if the word embedding table is a large part of it.
pub(super) fn quantization(answers: &mut Answers, plan: &Plan) -> Result<(), CommandError> {
    let question =
        "Quantize the model to 8-bit integers (smaller and faster, slightly less exact)?";
    if !confirm(question, false)? {
        return Ok(());
    }
    let option = "--quantize";
    if plan.memory_by_scheme.is_empty() {
        answers.open.push((option, None));
        return Ok(());
    }
    let items = [
        (QuantizeScheme::All, "smallest and fastest"),
        (QuantizeScheme::Embeddings, "only the word embeddings; results hardly change"),
    ];
    let names = items.map(|(scheme, use_of_it)| format!("{scheme}: {use_of_it}"));
    if let Some((scheme, _)) = items.get(select("Weights to quantize", &names, 0)?) {
        answers.set(option, scheme.to_string());
    }
    Ok(())
}

/// Asks whether to verify the model after its start.
pub(super) fn verification(answers: &mut Answers) -> Result<(), CommandError> {
    let question = "Compare the answers of the started model with those of its source?";
    if confirm(question, false)? {
        answers.open.push(("--verify-served", None));
    }
    Ok(())
}

/// Asks for the ingest pipeline of a model that is started, if its task needs only a text.
pub(super) fn pipeline(answers: &mut Answers) -> Result<(), CommandError> {
    let needs_more = [Task::TextSimilarity, Task::QuestionAnswering, Task::ZeroShotClassification];
    if needs_more.iter().any(|task| answers.has_value("--task-type", task.name())) {
        return Ok(());
    }
    let prompt =
        "Ingest pipeline to create, which adds the result to each document: its id (empty: none)";
    if !checked(answers, "--create-pipeline", prompt)? {
        return Ok(());
    }
    checked(answers, "--input-field", "Field of the documents with the text (empty: body)")
        .map(drop)
}

/// Asks for Kibana, unless the environment names it.
pub(super) fn kibana(answers: &mut Answers) -> Result<(), CommandError> {
    if std::env::var("KIBANA_URL").is_ok_and(|url| !url.is_empty()) {
        return Ok(());
    }
    let prompt = "Address of Kibana, which then lists the model at once (empty: none)";
    loop {
        let address = optional_text(prompt)?;
        if address.is_empty() {
            return Ok(());
        }
        match KibanaAddress::read(&address) {
            Ok(_) => {
                answers.set("--kibana-url", address);
                return Ok(());
            }
            Err(error) => report(&error.into()),
        }
    }
}

/// Asks for the value of an option until the value is valid. An empty answer leaves the option out. Returns whether the option is set.
pub(super) fn checked(
    answers: &mut Answers,
    option: &'static str,
    prompt: &str,
) -> Result<bool, CommandError> {
    loop {
        let value = optional_text(prompt)?;
        if value.is_empty() {
            return Ok(false);
        }
        let mut trial = answers.clone();
        trial.set(option, value);
        match trial.import() {
            Ok(_) => {
                *answers = trial;
                return Ok(true);
            }
            Err(error) => report(&error),
        }
    }
}
