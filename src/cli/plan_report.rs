//! What an import would do, as text and as JSON.

use std::fmt::Display;

use indicatif::{HumanBytes, HumanCount};
use serde::Serialize;
use serde_json::{Map, Value};

use super::command_error::CommandError;
use super::memory_suggestions::memory_suggestions;
use super::page::Page;
use super::report::Report;
use super::sheet::Sheet;
use crate::bundle::{Bundle, required_memory};
use crate::conversion::{
    MemoryAtLength, Plan, PlannedPart, PlannedScripts, SIMILARITY, common_ends,
};
use crate::elasticsearch::{Client, ClientError, Room};
use crate::model_id::ModelId;
use crate::source::Origin;
use crate::version::Version;
use crate::workflow::token_comparison::{DifferentText, Text, TextsSummary};
use crate::workflow::{PlannedContent, PlannedImport};

/// What an import would do.
#[derive(Debug, Serialize)]
pub(super) struct PlanReport {
    /// The id of the model in the cluster.
    model_id: String,
    /// The name of the model.
    title: String,
    hub_model_id: Option<String>,
    hub_commit: Option<String>,
    #[serde(flatten)]
    content: Content,
    /// Memory of one allocation on a node, in bytes.
    required_memory_bytes: Option<u64>,
    cluster: Option<Cluster>,
    /// Comparison of the tokens of the user's texts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) texts: Option<TextsSummary>,
    /// The command that runs the import.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Content {
    Plan(Box<Plan>),
    Bundle(Finished),
}

/// A bundle that is ready.
#[derive(Debug, Serialize)]
struct Finished {
    definition_bytes: u64,
    sha256: String,
    vocabulary_size: usize,
    #[serde(serialize_with = "as_text")]
    minimum_version: Version,
    configuration: Map<String, Value>,
}

fn as_text<S: serde::Serializer>(what: &impl Display, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(what)
}

/// The checks against the cluster.
#[derive(Debug, Serialize)]
struct Cluster {
    version: String,
    #[serde(flatten)]
    room: Option<Room>,
    /// Why the import would fail.
    #[serde(serialize_with = "as_problem")]
    problem: Option<CommandError>,
}

fn as_problem<S: serde::Serializer>(
    problem: &Option<CommandError>,
    to: S,
) -> Result<S::Ok, S::Error> {
    problem.as_ref().map(ToString::to_string).serialize(to)
}

impl PlanReport {
    pub(super) fn of_plan(
        model_id: ModelId,
        title: String,
        origin: Option<Origin>,
        plan: Plan,
    ) -> Self {
        let memory = plan.memory;
        let metadata = plan.configuration.as_ref().and_then(|body| body.get("metadata"));
        let required_memory_bytes = memory.map(|memory| {
            required_memory(memory.definition_bytes, metadata.and_then(Value::as_object))
        });
        let (hub_model_id, hub_commit) =
            origin.map(|origin| (origin.model_id, origin.commit)).unzip();
        Self {
            model_id: model_id.to_string(),
            title,
            hub_model_id,
            hub_commit,
            content: Content::Plan(Box::new(plan)),
            required_memory_bytes,
            cluster: None,
            texts: None,
            next: None,
        }
    }

    fn of_bundle(bundle: &Bundle) -> Self {
        let length = bundle.artifact.bytes.len() as u64;
        let metadata = bundle.configuration.get("metadata").and_then(Value::as_object);
        let text = |key: &str| Some(metadata?.get(key)?.as_str()?.to_owned());
        Self {
            model_id: bundle.model_id.to_string(),
            title: bundle.model_id.to_string(),
            hub_model_id: text("hub_model_id"),
            hub_commit: text("hub_commit"),
            required_memory_bytes: Some(required_memory(length, metadata)),
            content: Content::Bundle(Finished {
                definition_bytes: length,
                sha256: bundle.artifact.sha256.clone(),
                vocabulary_size: bundle.vocabulary.as_ref().map_or(0, |it| it.vocabulary.len()),
                minimum_version: bundle.minimum_version,
                configuration: bundle.configuration.clone(),
            }),
            cluster: None,
            texts: None,
            next: None,
        }
    }

    /// Report of a planned import, including the checks against the cluster.
    pub(super) async fn of(planned: PlannedImport, client: &Client) -> Self {
        let PlannedImport { model_id, content, problem } = planned;
        let mut report = match content {
            PlannedContent::Model { plan, title, origin } => {
                Self::of_plan(model_id, title, origin, *plan)
            }
            PlannedContent::Bundle(bundle) => Self::of_bundle(&bundle),
        };
        report.add_cluster_checks(client, problem.map(CommandError::from)).await;
        report
    }

    /// Adds the checks against the cluster. `problem` is the result of earlier checks.
    pub(super) async fn add_cluster_checks(
        &mut self,
        client: &Client,
        problem: Option<CommandError>,
    ) {
        let (definition, needed, configuration) = match &self.content {
            Content::Plan(plan) => (
                plan.memory.map(|memory| memory.definition_bytes),
                plan.minimum_version,
                plan.configuration.as_ref(),
            ),
            Content::Bundle(bundle) => (
                Some(bundle.definition_bytes),
                Some(bundle.minimum_version),
                Some(&bundle.configuration),
            ),
        };
        let metadata = configuration.and_then(|body| body.get("metadata")?.as_object());
        let room = match definition {
            Some(definition) => client.room(definition, metadata).await,
            None => None,
        };
        if let Some(room) = &room {
            self.required_memory_bytes = Some(room.required_bytes);
        }
        let unsupported = || {
            let error: Result<(), ClientError> = needed.map_or(Ok(()), |it| client.require(it));
            error.err().map(CommandError::from)
        };
        self.cluster = Some(Cluster {
            version: client.target().to_string(),
            room,
            problem: problem.or_else(unsupported),
        });
    }

    /// Fails if the import would fail.
    pub(super) fn into_result(self) -> Result<(), CommandError> {
        if let Content::Plan(plan) = self.content
            && let Some(problem) = plan.problem
        {
            return Err(problem.into());
        }
        self.cluster.and_then(|cluster| cluster.problem).map_or(Ok(()), Err)
    }
}

/// A text with different tokens: its line, the causes and the text.
fn different_text(text: &DifferentText) -> String {
    let causes = match &text.causes[..] {
        [] => "other differences".to_owned(),
        causes => causes.join(", "),
    };
    let shown = match &text.comparison.text {
        Text::Single(text) => format!("{text:?}"),
        Text::Pair(first, second) => format!("{first:?} and {second:?}"),
    };
    format!("line {}: {causes}: {shown}", text.line)
}

/// Adds the comparison of the user's texts.
fn describe_texts(texts: &TextsSummary, sheet: &mut Sheet) {
    sheet.heading("Your texts");
    let TextsSummary { total, equal, different, answers, .. } = texts;
    sheet.line(
        "same tokens",
        format!("{equal} of {total} texts, compared with the model's own tokenizer"),
    );
    sheet.some("answers", answers.as_ref());
    different.iter().for_each(|text| sheet.item(different_text(text)));
    let more = total - equal - different.len();
    if more > 0 {
        sheet.item(format!("and {more} more"));
    }
}

impl Report for PlanReport {
    fn text(&self) -> String {
        self.sheet().text()
    }
}

impl PlanReport {
    /// The report as a page, with the sizes as bars.
    pub(super) fn page(&self) -> Page {
        let mut page = Page::of_sheet(&self.sheet());
        let (definition, by_length) = match &self.content {
            Content::Plan(plan) => {
                (plan.memory.map(|it| it.definition_bytes), &plan.memory_by_length[..])
            }
            Content::Bundle(bundle) => (Some(bundle.definition_bytes), &[][..]),
        };
        let bar =
            |name: &str, bytes: u64| (name.to_owned(), bytes as f64, HumanBytes(bytes).to_string());
        let mut bars = Vec::new();
        bars.extend(definition.map(|bytes| bar("definition", bytes)));
        bars.extend(self.required_memory_bytes.map(|bytes| bar("memory on one node", bytes)));
        let at = |it: &MemoryAtLength| {
            bar(&format!("pass over {} tokens", HumanCount(it.tokens.into())), it.bytes)
        };
        bars.extend(by_length.iter().map(at));
        if !bars.is_empty() {
            page.heading("Sizes");
            page.bars(&bars);
        }
        if let Some(texts) = self.texts.as_ref().filter(|it| !it.different.is_empty()) {
            page.heading("Different tokens");
            for text in &texts.different {
                page.paragraph(&different_text(text));
                let (server, model) = (&text.server_tokens[..], &text.model_tokens[..]);
                page.tokens(
                    [("Elasticsearch", server), ("model", model)],
                    common_ends(server, model),
                );
            }
        }
        page
    }

    /// The report as sections.
    pub(super) fn sheet(&self) -> Sheet {
        let mut sheet = Sheet::new(&self.title);
        if let (Some(id), Some(commit)) = (&self.hub_model_id, &self.hub_commit) {
            sheet.code(&format!("{id} at commit {commit}"));
        }
        match &self.content {
            Content::Plan(plan) => {
                describe(plan, &mut sheet);
                self.needs(
                    plan.minimum_version,
                    plan.memory.map(|it| it.definition_bytes),
                    true,
                    &mut sheet,
                );
            }
            Content::Bundle(bundle) => {
                sheet.heading("Model");
                sheet.line("bundle", "ready to import");
                sheet.line("sha256", &bundle.sha256);
                sheet.line(
                    "vocabulary",
                    format!("{} tokens", HumanCount(bundle.vocabulary_size as u64)),
                );
                self.needs(
                    Some(bundle.minimum_version),
                    Some(bundle.definition_bytes),
                    false,
                    &mut sheet,
                );
            }
        }
        if let Some(cluster) = &self.cluster {
            sheet.heading("Cluster");
            sheet.line("version", &cluster.version);
            sheet.some("memory", cluster.room.as_ref());
            let accepted = if cluster.problem.is_some() { "no (see below)" } else { "yes" };
            sheet.line("accepts it", accepted);
        }
        let (configuration, warnings, is_estimated) = match &self.content {
            Content::Plan(plan) => (plan.configuration.as_ref(), &plan.warnings[..], true),
            Content::Bundle(bundle) => (Some(&bundle.configuration), &[][..], false),
        };
        if !warnings.is_empty() {
            sheet.heading("Warnings");
            warnings.iter().for_each(|warning| sheet.item(warning));
        }
        if let Some(texts) = &self.texts {
            describe_texts(texts, &mut sheet);
        }
        if let Content::Plan(plan) = &self.content
            && !plan.not_understood.is_empty()
        {
            sheet.heading("Not understood");
            plan.not_understood.iter().for_each(|key| sheet.item(key));
        }
        if let Some(body) = configuration {
            let note = if is_estimated { ", memory estimated" } else { "" };
            let id = &self.model_id;
            sheet.heading(&format!("Configuration (PUT _ml/trained_models/{id}{note})"));
            sheet.code(&serde_json::to_string_pretty(body).unwrap_or_default());
        }
        if let Some(next) = self.next.as_ref().filter(|_| configuration.is_some()) {
            sheet.heading("Suggestions");
            sheet.code(next);
        }
        sheet
    }

    fn needs(
        &self,
        oldest: Option<Version>,
        definition: Option<u64>,
        is_estimated: bool,
        sheet: &mut Sheet,
    ) {
        let Some(oldest) = oldest else { return };
        let note = if is_estimated { " (estimated; the import measures them)" } else { "" };
        sheet.heading(&format!("Requirements{note}"));
        sheet.line("Elasticsearch", format!("{oldest} or later"));
        sheet.some("definition", definition.map(HumanBytes));
        if let Content::Plan(plan) = &self.content
            && let Some(memory) = plan.memory
        {
            let per_allocation = HumanBytes(memory.per_allocation_bytes);
            sheet.line(
                "per allocation",
                format!("{per_allocation} in addition to the model, at the maximum input length"),
            );
            let at = |it: &MemoryAtLength| {
                format!("{} at {} tokens", HumanBytes(it.bytes), HumanCount(it.tokens.into()))
            };
            let by_length: Vec<_> = plan.memory_by_length.iter().map(at).collect();
            if !by_length.is_empty() {
                sheet.line("by input length", by_length.join(", "));
            }
        }
        if let Some(required) = self.required_memory_bytes {
            sheet.line(
                "memory",
                format!("{} on one node for the first allocation", HumanBytes(required)),
            );
            if let Content::Plan(plan) = &self.content {
                memory_suggestions(plan, required).iter().for_each(|line| sheet.line("", line));
            }
        }
    }
}

fn describe(plan: &Plan, sheet: &mut Sheet) {
    sheet.heading("Model");
    let classes = match &plan.classes[..] {
        [] => String::new(),
        classes => format!(" ({})", classes.join(", ")),
    };
    let model_type = plan.model_type.as_deref().unwrap_or("not set in config.json");
    if plan.is_token_table {
        sheet.line("architecture", "a table with one weight for each token");
    } else if plan.is_static_embedding {
        sheet.line("architecture", "static embeddings, a table with one vector for each token");
    } else {
        let built = plan.architecture.filter(|name| *name != model_type);
        let built = built.map(|name| format!(", built as {name}")).unwrap_or_default();
        sheet.line("architecture", format!("{model_type}{classes}{built}"));
    }
    let by = |name: &str| format!(" ({name} in config_sentence_transformers.json)");
    if let Some(parameters) = plan.parameters {
        let text = match parameters.stored {
            None => format!(
                "{} (from {})",
                million(parameters.used),
                if plan.is_token_table { "the vocabulary" } else { "config.json" }
            ),
            Some(stored) if stored > parameters.used && plan.task.is_some() => {
                format!("{}, of which the task uses {}", million(stored), million(parameters.used))
            }
            Some(stored) => million(stored),
        };
        sheet.line("parameters", text);
    }
    if let Some(weights) = &plan.weights {
        let files = match weights.files {
            1 => String::new(),
            files => format!(" in {files} files"),
        };
        let kind = weights.number_type.map(|kind| format!("{kind}, ")).unwrap_or_default();
        let size = HumanBytes(weights.bytes);
        let note =
            if weights.looked_at { "" } else { " (not read, because the format has no header)" };
        sheet.line("weights", format!("{}, {kind}{size}{files}{note}", weights.format));
    }
    if let Some(tokenizer) = &plan.tokenizer {
        let case = match tokenizer.lower_case {
            Some(true) => ", lower case",
            Some(false) => ", case-sensitive",
            None => "",
        };
        let size = HumanCount(tokenizer.vocabulary_size as u64);
        sheet.line("tokenizer", format!("{}, {size} tokens{case}", tokenizer.kind));
    }
    if let Some(scripts) = &plan.scripts {
        sheet.line("scripts", kept_tokens(scripts));
    }
    if let Some(difference) = &plan.tokenizer_difference {
        let is_any = difference.is_any() || !difference.left_out.is_empty();
        let same = "same tokens as the model's own tokenizer";
        let shown = if is_any { difference.to_string() } else { same.to_owned() };
        sheet.line("built-in texts", shown);
    }
    if let (Some(tokens), Some(reason)) = (plan.max_length, plan.max_length_reason) {
        sheet.line("maximum input", format!("{} tokens ({reason})", HumanCount(tokens.into())));
    }
    if !plan.languages.is_empty() {
        sheet.line("languages", shortened(&plan.languages));
    }

    if !plan.parts.is_empty() {
        sheet.heading("Models of the repository");
        for PlannedPart { part, task, is_chosen } in &plan.parts {
            let note =
                if *is_chosen { " (chosen)".to_owned() } else { format!(" (--part {part})") };
            sheet.line(part, format!("{task}{note}"));
        }
    }

    if !plan.lora_tasks.is_empty() {
        sheet.heading("LoRA adapters");
        for task in &plan.lora_tasks {
            let is_chosen = plan.lora_task.as_ref() == Some(task);
            let note = if is_chosen { "chosen".to_owned() } else { format!("--lora-task {task}") };
            sheet.line(task, note);
        }
    }

    sheet.heading("Tasks");
    let names = |tasks: &[crate::tasks::Task]| {
        let names: Vec<_> = tasks.iter().map(|task| task.name()).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    };
    match &plan.tasks {
        Some(tasks) => sheet.line("tasks", names(tasks)),
        None if plan.weights.is_some() && plan.tokenizer.is_some() => {
            sheet.line("tasks", "unknown until the weights are downloaded");
        }
        None => {}
    }
    match (plan.task, &plan.task_reason) {
        (Some(task), Some(reason)) => sheet.line("chosen", format!("{task}: {reason}")),
        _ => sheet.line("chosen", "none (see below)"),
    }
    if let Some(embedding) = &plan.embedding {
        let steps = match &embedding.pooling[..] {
            [] => "output of the model".to_owned(),
            steps => steps.join(", then "),
        };
        sheet.line("embedding", format!("{} dimensions: {steps}", embedding.size));
        if !embedding.matryoshka_dimensions.is_empty() {
            let listed: Vec<_> =
                embedding.matryoshka_dimensions.iter().map(i64::to_string).collect();
            sheet.line("matryoshka", format!("{} (--dimensions)", listed.join(", ")));
        }
        let similarity = match (embedding.similarity, &plan.usage.similarity) {
            (Some(similarity), Some(named)) if similarity == named => {
                similarity.to_owned() + &by("similarity_fn_name")
            }
            (Some(similarity), Some(named)) => {
                format!("{similarity} for {named}{}", by("similarity_fn_name"))
            }
            _ => "cosine (not set in the model's files)".to_owned(),
        };
        sheet.line(SIMILARITY, similarity);
    }
    let quoted = |prompt: &Option<String>| prompt.as_ref().map(|prompt| format!("{prompt:?}"));
    let usage = &plan.usage;
    if usage.query_prompt.is_some() || usage.document_prompt.is_some() {
        sheet.some("query prompt", quoted(&usage.query_prompt));
        sheet.some("document prompt", quoted(&usage.document_prompt));
        let sent = plan.configuration.as_ref().is_some_and(|it| it.contains_key("prefix_strings"));
        let note = if sent { "sent as prefix_strings" } else { "not sent without --prompts" };
        sheet.line("prompts", note);
    }
}

/// The tokens that are kept for texts of some scripts.
fn kept_tokens(scripts: &PlannedScripts) -> String {
    let PlannedScripts { names, kept, of, left_out_bytes } = scripts;
    let (names, kept, of) = (names.join(", "), HumanCount(*kept as u64), HumanCount(*of as u64));
    // The server reserves twice the size of the definition.
    let saved = HumanBytes(2 * left_out_bytes);
    format!("{names}: {kept} of {of} tokens, {saved} less memory on a node (float32)")
}

/// Number of parameters, in millions if there are at least one million.
pub(super) fn million(count: u64) -> String {
    if count < 1_000_000 {
        return HumanCount(count).to_string();
    }
    format!("{:.1} million", count as f64 / 1e6)
}

/// The first names of a long list, with a mark for omitted names.
fn shortened(names: &[String]) -> String {
    const SHOWN: usize = 12;
    let mut text = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text += &format!(" and {} more", names.len() - SHOWN);
    }
    text
}
