//! `rust-eland import` without arguments on a terminal: asks for everything that an import needs, shows the plan and the equivalent
//! command, and imports the model after a confirmation.

use std::ffi::OsString;
use std::io::{IsTerminal, stderr, stdin};
use std::path::Path;

use dialoguer::{Confirm, Input, Password, Select};

use super::NAME;
use super::command_error::CommandError;
use super::command_line::CommandLine;
use super::failed::message;
use super::import::ImportArguments;
use super::option_value::{SetOption, Unset, Value};
use super::output::Session;
use super::plan_report::PlanReport;
use super::report::{Report, print_error};
use super::tree_model_report::TreeModelReport;
use super::upload::interruption;
use crate::conversion::{ConversionError, Plan};
use crate::elasticsearch::{Client, ClientError};
use crate::error::Error;
use crate::observer::Progress;
use crate::secrets::{Secret, redact};
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
        let imported = resolved.run(&client, stop, &session.progress).await?;
        self.import.report(&imported, session)
    }
}

/// The answers: options with their values.
#[derive(Debug, Clone, Default)]
struct Answers {
    open: Vec<(&'static str, Option<String>)>,
    /// Secret options, which are never printed.
    secret: Vec<(&'static str, Secret)>,
}

impl Answers {
    fn set(&mut self, name: &'static str, value: impl Into<String>) {
        self.open.retain(|(other, _)| *other != name);
        self.open.push((name, Some(value.into())));
    }

    /// The import that the answers describe.
    fn import(&self) -> Result<ImportArguments, CommandError> {
        let mut import = ImportArguments::unset()?;
        let open = self.open.iter().map(|(name, value)| (name, value.as_deref().unwrap_or("true")));
        let secret = self.secret.iter().map(|(name, secret)| (name, secret.expose()));
        for (name, value) in open.chain(secret) {
            let set = import.set(name.trim_start_matches('-'), &Value::Text(value.to_owned()));
            set.map_err(|error| {
                CommandError::Usage(match error {
                    Unset::Invalid(reason) => reason,
                    Unset::UnknownName => format!("unknown option {name}"),
                })
            })?;
        }
        Ok(import)
    }

    /// The command line, without secrets.
    fn shown(&self) -> String {
        let mut line = CommandLine(format!("{NAME} import"));
        for (name, value) in &self.open {
            match value {
                Some(value) => line.option(name, Some(value)),
                None => line.flag(name, true),
            }
        }
        line.0
    }

    /// A note about the secrets that the command line does not contain.
    fn note(&self) -> Option<String> {
        let (option, _) = self.secret.first()?;
        Some(match *option {
            "--es-api-key" => "set the API key in the environment variable ES_API_KEY".to_owned(),
            _ => "set the password in the environment variable ES_PASSWORD, or enter it when asked"
                .to_owned(),
        })
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
        Chosen::Model(model) => part(&mut answers, &client, *model).await?,
    };
    task(&mut answers, &plan)?;
    model_id(&mut answers)?;
    if confirm(
        "Quantize the model to 8-bit integers (smaller and faster, slightly less exact)?",
        false,
    )? {
        answers.open.push(("--quantize", None));
    }
    if confirm("Start the model after the upload?", true)? {
        answers.open.push(("--start", None));
    }

    let import = answers.import()?;
    let planned = resolved(&import, &source).await?.plan(&client).await?;
    let page = PlanReport::of(planned, &client).await;
    say(&format!("\n{}\n", escape(&page.text())));
    let problem = page.into_result().err();
    if let Some(error) = &problem {
        report(error);
    }
    let (mut import, mut problem) = (import, problem);
    if problem.as_ref().is_some_and(is_inexact_tokenizer)
        && confirm("Import the model with this tokenizer?", false)?
    {
        answers.open.push(("--allow-inexact-tokenizer", None));
        (import, problem) = (answers.import()?, None);
    }
    say(&command(&answers));
    let question = if problem.is_some() { "Import anyway?" } else { "Import the model?" };
    if confirm(question, problem.is_none())? {
        let resolved = resolved(&import, &source).await?;
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
        let input = Input::<String>::new().with_prompt(prompt).allow_empty(true).interact_text();
        let value = input.map_err(gone)?;
        if value.trim().is_empty() {
            return Ok(());
        }
        let mut trial = answers.clone();
        trial.set(option, value.trim());
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
    let given = Input::<String>::new().with_prompt(prompt).allow_empty(true).interact_text();
    let given = given.map_err(gone)?;
    let is_fingerprint =
        given.len() >= 64 && given.chars().all(|c| c.is_ascii_hexdigit() || c == ':');
    match given.trim() {
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
        let prompt = "Model: its hub id, a folder, or the file of a tree model";
        let name: String = Input::new().with_prompt(prompt).interact_text().map_err(gone)?;
        let name = name.trim();
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
    let import = answers.import()?;
    let source = import.model().source()?.resolve().await?;
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
    let import = answers.import()?;
    let plan = import.model().request(source.clone())?.plan(client.target()).await?;
    Ok((source, plan))
}

/// Asks for the task. The guessed task is the default.
fn task(answers: &mut Answers, plan: &Plan) -> Result<(), CommandError> {
    let mut tasks = plan.tasks.clone().unwrap_or_else(|| Task::ALL.to_vec());
    tasks.sort_by_key(|task| Some(*task) != plan.task);
    let names: Vec<String> = tasks
        .iter()
        .map(|task| match &plan.task_reason {
            Some(reason) if Some(*task) == plan.task => escape(&format!("{task} ({reason})")),
            _ => task.to_string(),
        })
        .collect();
    let chosen = select("Task", &names, 0)?;
    if let Some(task) = tasks.get(chosen) {
        answers.set("--task-type", task.name());
    }
    Ok(())
}

fn text(prompt: &str, default: &str) -> Result<String, CommandError> {
    let input = Input::<String>::new().with_prompt(prompt).default(default.to_owned());
    input.interact_text().map(|text| text.trim().to_owned()).map_err(gone)
}

fn hidden(prompt: &str) -> Result<Secret, CommandError> {
    Password::new().with_prompt(prompt).interact().map(Secret::new).map_err(gone)
}

fn select(prompt: &str, items: &[String], default: usize) -> Result<usize, CommandError> {
    Select::new().with_prompt(prompt).items(items).default(default).interact().map_err(gone)
}

fn confirm(prompt: &str, default: bool) -> Result<bool, CommandError> {
    Confirm::new().with_prompt(prompt).default(default).interact().map_err(gone)
}

/// The error for a closed terminal or Ctrl-C.
fn gone(error: dialoguer::Error) -> CommandError {
    let dialoguer::Error::IO(error) = error;
    match error.kind() {
        std::io::ErrorKind::Interrupted => ClientError::Interrupted.into(),
        _ => CommandError::Usage(format!("cannot read from the terminal: {error}")),
    }
}

fn say(text: &str) {
    print_error(text);
}

fn report(error: &CommandError) {
    print_error(&format!("  {}\n", escape(&redact(&message(error)))));
}
