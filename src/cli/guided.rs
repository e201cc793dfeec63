//! `rust-eland import` without arguments on a terminal: asks for everything that an import needs, shows the plan and the equivalent
//! command, and imports the model after a confirmation.

use std::ffi::OsString;
use std::io::{IsTerminal, stderr, stdin};
use std::path::Path;

use super::command_error::CommandError;
use super::failed::message;
use super::guided_answers::Answers;
use super::guided_options::{checked, kibana, languages, pipeline, quantization, verification};
use super::import::ImportArguments;
use super::output::Session;
use super::plan_report::PlanReport;
use super::questions::{confirm, hidden, optional_text, required_text, select, text};
use super::report::{Report, print_error};
use super::tree_model_report::TreeModelReport;
use super::upload::interruption;
use crate::conversion::{ConversionError, Plan};
use crate::elasticsearch::Client;
use crate::error::Error;
use crate::observer::Progress;
use crate::secrets::redact;
use crate::source::hub::HubName;
use crate::tasks::Task;
use crate::terminal_text::escape;
use crate::workflow::{ImportInput, ModelSource, ResolvedSource, StopSignal, ValidatedImport};

/// Whether to ask questions: the program has no arguments, and runs on a terminal.
pub(super) fn is_wanted(arguments: &[OsString]) -> bool {
    matches!(arguments, [_, command] if command == "import")
        && stdin().is_terminal()
        && stderr().is_terminal()
}

/// An import that the user confirmed.
pub(super) struct Guided {
    import: ImportArguments,
    /// The connection and the model; `None` for a tree model, which takes so little time that its import starts from the options.
    resolved: Option<(Client, ValidatedImport)>,
}

impl Guided {
    /// Imports the model.
    pub(super) async fn execute(self, session: &Session) -> Result<(), CommandError> {
        let Some((client, resolved)) = self.resolved else {
            return self.import.execute(session).await;
        };
        let stop = StopSignal::WhileStoring(interruption);
        let imported = resolved.run(&client, stop, &session.progress).await;
        self.import.finish(&client, imported, session).await
    }
}

/// Asks the questions and shows the plan. `None` if the user declines.
///
/// # Errors
/// When the terminal is closed.
pub(super) async fn ask(progress: &Progress) -> Result<Option<Guided>, CommandError> {
    say(
        "Import a model into Elasticsearch. Press Ctrl-C to quit. Nothing is stored until you confirm.\n",
    );
    let (mut answers, client) = cluster().await?;
    let (source, plan) = match model(&mut answers, &client, progress).await? {
        Chosen::Tree => return ask_about_tree(answers, &client, progress).await,
        Chosen::Model(model) => {
            let model = part(&mut answers, &client, *model).await?;
            adapter(&mut answers, &client, model).await?
        }
    };
    task(&mut answers, &plan)?;
    let is_planned = plan.task.is_some_and(|it| answers.has_value("--task-type", it.name()));
    let (source, plan) = match is_planned {
        true => (source, plan),
        false => plan_of(&answers, &client, source).await?,
    };
    if answers.has_value("--task-type", Task::TextEmbedding.name()) {
        dimensions(&mut answers, &plan)?;
        prompts(&mut answers, &plan)?;
    }
    languages(&mut answers, &plan)?;
    model_id(&mut answers)?;
    quantization(&mut answers, &plan)?;
    if confirm("Start the model after the upload?", true)? {
        answers.open.push(("--start", None));
        verification(&mut answers)?;
        pipeline(&mut answers)?;
    }
    kibana(&mut answers)?;

    let import = answers.import()?;
    let planned = resolved(&import, &source).await?.plan(&client).await?;
    let page = PlanReport::of(planned, &client).await;
    say(&format!("\n{}\n", escape(&page.text())));
    let problem = page.into_result().err();
    if let Some(error) = &problem {
        report(error);
    }
    let (mut import, mut problem) = (import, problem);
    if problem.as_ref().is_some_and(is_inexact_tokenizer) {
        if !confirm("Import the model with this tokenizer?", false)? {
            say("Nothing was stored.");
            return Ok(None);
        }
        answers.open.push(("--allow-inexact-tokenizer", None));
        (import, problem) = (answers.import()?, None);
    }
    say(&command(&answers));
    let question = if problem.is_some() { "Import anyway?" } else { "Import the model?" };
    if confirm(question, problem.is_none())? {
        let resolved = resolved(&import, &source).await?;
        // Kibana is part of the connection, and was not known when the cluster was asked for.
        let client = match answers.is_set("--kibana-url") {
            true => Client::connect(import.connection()?).await?,
            false => client,
        };
        return Ok(Some(Guided { import, resolved: Some((client, resolved)) }));
    }
    say("Nothing was stored.");
    Ok(None)
}

/// Whether a model is refused only because Elasticsearch cannot follow its tokenizer exactly.
fn is_inexact_tokenizer(error: &CommandError) -> bool {
    matches!(
        error,
        CommandError::Work(Error::Conversion(
            ConversionError::InexactTokenizer(_) | ConversionError::UnmeasuredTokenizer
        ))
    )
}

/// Asks for the id of the model until it is valid.
fn model_id(answers: &mut Answers) -> Result<(), CommandError> {
    let derived = answers.import()?.model_id().unwrap_or_default();
    loop {
        answers.set("--es-model-id", text("Id of the model in Elasticsearch", &derived)?);
        match answers.import() {
            Ok(_) => return Ok(()),
            Err(error) => report(&error),
        }
    }
}

/// Asks the questions of a tree model and shows what it is.
async fn ask_about_tree(
    mut answers: Answers,
    client: &Client,
    progress: &Progress,
) -> Result<Option<Guided>, CommandError> {
    model_id(&mut answers)?;
    let (read, _) = answers.import()?.tree_model(progress).await?;
    if !read.has_names() {
        let names = read.names();
        let first: Vec<_> = names.iter().take(3).map(String::as_str).collect();
        let prompt = format!(
            "Names of the document fields of the {} features, separated by commas (empty: {})",
            names.len(),
            shortened(&first, names.len())
        );
        list(&mut answers, "--feature-names", &prompt, progress).await?;
    }
    if read.ensemble.prediction.is_classification() && read.ensemble.labels.is_none() {
        let prompt = "Labels of the classes, separated by commas (empty: 0, 1, …)";
        list(&mut answers, "--classification-labels", prompt, progress).await?;
    }
    // A model for learning to rank has no pipeline.
    let (_, model) = answers.import()?.tree_model(progress).await?;
    if model.pipeline().is_some() {
        let prompt = "Ingest pipeline to create, which adds the prediction to each document: its id (empty: none)";
        checked(&mut answers, "--create-pipeline", prompt)?;
    }
    kibana(&mut answers)?;
    let import = answers.import()?;
    let (read, model) = import.tree_model(progress).await?;
    say(&format!("\n{}\n", escape(&TreeModelReport::of(&read, &model).text())));
    let problem = import.check_tree_model(&model, client).await.err();
    if let Some(error) = &problem {
        report(error);
    }
    say(&command(&answers));
    let question = if problem.is_some() { "Import anyway?" } else { "Import the model?" };
    if confirm(question, problem.is_none())? {
        return Ok(Some(Guided { import, resolved: None }));
    }
    say("Nothing was stored.");
    Ok(None)
}

/// The first names of a list, with an ellipsis if there are others.
fn shortened(first: &[&str], count: usize) -> String {
    let more = if count > first.len() { ", …" } else { "" };
    escape(&format!("{}{more}", first.join(", ")))
}

/// Asks for a list, until the model accepts it. An empty answer leaves the option out.
async fn list(
    answers: &mut Answers,
    option: &'static str,
    prompt: &str,
    progress: &Progress,
) -> Result<(), CommandError> {
    loop {
        let value = optional_text(prompt)?;
        if value.is_empty() {
            return Ok(());
        }
        let mut trial = answers.clone();
        trial.set(option, value);
        let checked = match trial.import() {
            Ok(import) => import.tree_model(progress).await.map(drop),
            Err(error) => Err(error),
        };
        match checked {
            Ok(()) => {
                *answers = trial;
                return Ok(());
            }
            Err(error) => report(&error),
        }
    }
}

/// The command line of an import, without secrets.
fn command(answers: &Answers) -> String {
    let note = answers.note().map(|note| format!("\n({note})")).unwrap_or_default();
    let line = redact(&answers.shown());
    format!("To run this import without questions:\n\n  {line}\n{note}")
}

/// Asks for the address of the cluster and the credentials, until the connection works.
async fn cluster() -> Result<(Answers, Client), CommandError> {
    let known = std::env::var("ES_URL").ok().filter(|url| !url.contains('@') && !url.is_empty());
    let mut url = known.unwrap_or_else(|| "http://localhost:9200".to_owned());
    loop {
        url = text("Address or cloud ID of the cluster", &url)?;
        let mut answers = Answers::default();
        // A Cloud ID consists of a name, a colon and Base64.
        let is_address = url.contains("://") || !url.contains(':');
        answers.set(if is_address { "--url" } else { "--cloud-id" }, url.as_str());
        if url.starts_with("https://") {
            authority(&mut answers)?;
        }
        log_in(&mut answers)?;
        let connected = match answers.import().and_then(|import| import.connection()) {
            Ok(connection) => Client::connect(connection).await.map_err(CommandError::from),
            Err(error) => Err(error),
        };
        match connected {
            Ok(client) => {
                say(&format!("  connected to Elasticsearch {}", client.target()));
                return Ok((answers, client));
            }
            Err(error) => report(&error),
        }
    }
}

/// Asks for the certificate authority.
fn authority(answers: &mut Answers) -> Result<(), CommandError> {
    let prompt =
        "Certificate authority: a PEM file or a SHA-256 fingerprint (empty: trust the system)";
    let given = optional_text(prompt)?;
    let is_fingerprint =
        given.len() >= 64 && given.chars().all(|c| c.is_ascii_hexdigit() || c == ':');
    match given.as_str() {
        "" => {}
        given if is_fingerprint => answers.set("--ca-fingerprint", given),
        given => answers.set("--ca-certs", given),
    }
    Ok(())
}

fn log_in(answers: &mut Answers) -> Result<(), CommandError> {
    let is_set = |name: &&str| std::env::var(name).is_ok_and(|value| !value.is_empty());
    let variables = ["ES_API_KEY", "ES_TOKEN", "ES_USERNAME"].into_iter().find(is_set);
    let mut ways =
        vec!["user name and password".to_owned(), "API key".into(), "no authentication".into()];
    if let Some(name) = variables {
        ways.insert(0, format!("environment variable {name}"));
    }
    let chosen = select("How do you log in?", &ways, 0)?;
    match chosen + usize::from(variables.is_none()) {
        1 => {
            answers.set("--es-username", text("User name", "elastic")?);
            answers.secret.push(("--es-password", hidden("Password")?));
        }
        2 => answers.secret.push(("--es-api-key", hidden("API key")?)),
        _ => {}
    }
    Ok(())
}

/// The model that the user names.
enum Chosen {
    /// A tree model.
    Tree,
    /// A transformer, and what it is.
    Model(Box<(ResolvedSource, Plan)>),
}

/// Asks for the model, until it can be read.
async fn model(
    answers: &mut Answers,
    client: &Client,
    progress: &Progress,
) -> Result<Chosen, CommandError> {
    loop {
        let name = required_text("Model: its hub id, a folder, or the file of a tree model")?;
        let name = name.as_str();
        answers.open.retain(|(option, _)| !["--hub-model-id", "--tree-model"].contains(option));
        if is_file(name) {
            answers.set("--tree-model", name);
            match answers.import() {
                Ok(import) => match import.tree_model(progress).await {
                    Ok(_) => return Ok(Chosen::Tree),
                    Err(error) => report(&error),
                },
                Err(error) => report(&error),
            }
            continue;
        }
        answers.set("--hub-model-id", name);
        match plan(answers, client).await {
            // A problem with one task remains part of the plan, because another task may work.
            Ok((source, plan))
                if plan.problem.is_none()
                    || plan.tasks.as_ref().is_some_and(|it| !it.is_empty()) =>
            {
                return Ok(Chosen::Model(Box::new((source, plan))));
            }
            Ok((_, Plan { problem: Some(problem), .. })) => report(&problem.into()),
            Ok(resolved) => return Ok(Chosen::Model(Box::new(resolved))),
            Err(error) => report(&error),
        }
    }
}

/// Whether a name is that of a file on this machine or on the hub.
fn is_file(name: &str) -> bool {
    let path = Path::new(name);
    path.is_file()
        || !path.exists() && name.parse::<HubName>().is_ok_and(|name| name.file.is_some())
}

/// Resolves the model that the answers name, and plans its import.
async fn plan(answers: &Answers, client: &Client) -> Result<(ResolvedSource, Plan), CommandError> {
    let source = answers.import()?.model().source()?.resolve().await?;
    plan_of(answers, client, source).await
}

/// Plans the import of a model that is already resolved.
async fn plan_of(
    answers: &Answers,
    client: &Client,
    source: ResolvedSource,
) -> Result<(ResolvedSource, Plan), CommandError> {
    let import = answers.import()?;
    let plan = import.model().request(source.clone())?.plan(client.target()).await?;
    Ok((source, plan))
}

/// The import of a model that is already resolved.
async fn resolved(
    import: &ImportArguments,
    source: &ResolvedSource,
) -> Result<ValidatedImport, CommandError> {
    let mut request = import.request()?;
    if let ImportInput::Model { source: unresolved, .. } = &mut request.input {
        **unresolved = ModelSource::Resolved(source.clone());
    }
    Ok(request.validate().await?)
}

/// Asks which model of a repository to import, if it provides several.
async fn part(
    answers: &mut Answers,
    client: &Client,
    (source, default): (ResolvedSource, Plan),
) -> Result<(ResolvedSource, Plan), CommandError> {
    let mut parts = default.parts.clone();
    if parts.is_empty() {
        return Ok((source, default));
    }
    parts.sort_by_key(|part| !part.is_chosen);
    let names: Vec<_> =
        parts.iter().map(|it| escape(&format!("{} ({})", it.part, it.task))).collect();
    let chosen = select("Model of the repository", &names, 0)?;
    match parts.get(chosen) {
        Some(part) if !part.is_chosen => answers.set("--part", part.part.as_str()),
        _ => return Ok((source, default)),
    }
    plan_of(answers, client, source).await
}

/// Asks which LoRA adapter to merge into the weights, if the model has adapters.
async fn adapter(
    answers: &mut Answers,
    client: &Client,
    (source, default): (ResolvedSource, Plan),
) -> Result<(ResolvedSource, Plan), CommandError> {
    if default.lora_tasks.is_empty() {
        return Ok((source, default));
    }
    let mut names = vec!["none: the weights without an adapter".to_owned()];
    names.extend(default.lora_tasks.iter().map(|task| escape(task)));
    let chosen = select("LoRA adapter for the task", &names, 0)?;
    let Some(task) = chosen.checked_sub(1).and_then(|at| default.lora_tasks.get(at)) else {
        return Ok((source, default));
    };
    answers.set("--lora-task", task.as_str());
    plan_of(answers, client, source).await
}

/// Asks for the number of dimensions of the embeddings, if the model declares that they can be cut.
fn dimensions(answers: &mut Answers, plan: &Plan) -> Result<(), CommandError> {
    let Some(embedding) = plan.embedding.as_ref().filter(|it| !it.matryoshka_dimensions.is_empty())
    else {
        return Ok(());
    };
    let mut steps = embedding.matryoshka_dimensions.clone();
    let size = i64::try_from(embedding.size).unwrap_or(i64::MAX);
    steps.retain(|step| *step < size);
    steps.sort_unstable_by(|one, other| other.cmp(one));
    let mut names = vec![format!("all ({size})")];
    names.extend(steps.iter().map(i64::to_string));
    let chosen = select("Dimensions of the embeddings", &names, 0)?;
    if let Some(step) = chosen.checked_sub(1).and_then(|at| steps.get(at)) {
        answers.set("--dimensions", step.to_string());
    }
    Ok(())
}

/// Asks whether the server should prepend the prompts that the model declares.
fn prompts(answers: &mut Answers, plan: &Plan) -> Result<(), CommandError> {
    let usage = &plan.usage;
    if usage.query_prompt.is_none() && usage.document_prompt.is_none() {
        return Ok(());
    }
    let shown =
        |prompt: &Option<String>| escape(&format!("{:?}", prompt.as_deref().unwrap_or_default()));
    let question = format!(
        "Let Elasticsearch prepend the model's prompts, {} to queries and {} to documents?",
        shown(&usage.query_prompt),
        shown(&usage.document_prompt)
    );
    if confirm(&question, false)? {
        answers.open.push(("--prompts", None));
    }
    Ok(())
}

/// Asks for the task. The guessed task is the default; the others are shown with their pipeline tags on the hub.
fn task(answers: &mut Answers, plan: &Plan) -> Result<(), CommandError> {
    let mut tasks = plan.tasks.clone().unwrap_or_else(|| Task::ALL.to_vec());
    tasks.sort_by_key(|task| Some(*task) != plan.task);
    let names: Vec<String> = tasks
        .iter()
        .map(|task| match &plan.task_reason {
            Some(reason) if Some(*task) == plan.task => escape(&format!("{task} ({reason})")),
            _ => {
                let tags: Vec<_> = task.pipeline_tags().collect();
                let tags =
                    if tags.is_empty() { String::new() } else { format!(" ({})", tags.join(", ")) };
                format!("{task}{tags}")
            }
        })
        .collect();
    let chosen = select("Task", &names, 0)?;
    if let Some(task) = tasks.get(chosen) {
        answers.set("--task-type", task.name());
    }
    Ok(())
}

fn say(text: &str) {
    print_error(text);
}

pub(super) fn report(error: &CommandError) {
    print_error(&format!("  {}\n", escape(&redact(&message(error)))));
}
