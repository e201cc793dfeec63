//! `rust-eland import` without a single argument, on a terminal: asks for all that an import needs, shows the plan and the command line
//! that says the same, and goes on if told to.

use std::ffi::OsString;
use std::io::{IsTerminal, stderr, stdin};

use clap::Parser;
use dialoguer::{Confirm, Input, Password, Select};

use super::command_error::CommandError;
use super::command_line::CommandLine;
use super::failed::message;
use super::import::ImportArguments;
use super::output::Session;
use super::plan_report::PlanReport;
use super::report::Report;
use super::upload::interruption;
use super::{Cli, Command, NAME};
use crate::conversion::Plan;
use crate::elasticsearch::{Client, ClientError};
use crate::secrets::{Secret, redact};
use crate::tasks::Task;
use crate::terminal_text::escape;
use crate::workflow::{ImportInput, ModelSource, ResolvedSource, StopSignal, ValidatedImport};

/// Whether to ask: nothing is said, and somebody is there to answer.
pub(super) fn is_wanted(arguments: &[OsString]) -> bool {
    matches!(arguments, [_, command] if command == "import")
        && stdin().is_terminal()
        && stderr().is_terminal()
}

/// An import that was agreed on.
pub(super) struct Guided {
    import: ImportArguments,
    client: Client,
    resolved: ValidatedImport,
}

impl Guided {
    /// Imports the model.
    pub(super) async fn execute(self, session: &Session) -> Result<(), CommandError> {
        let stop = StopSignal::WhileStoring(interruption);
        let imported = self.resolved.run(&self.client, stop, &session.progress).await?;
        self.import.report(&imported, session)
    }
}

/// What has been answered: options with their values.
#[derive(Debug, Clone, Default)]
struct Answers {
    open: Vec<(&'static str, Option<String>)>,
    /// Not to be shown, in any form.
    secret: Vec<(&'static str, Secret)>,
}

impl Answers {
    fn set(&mut self, name: &'static str, value: impl Into<String>) {
        self.open.retain(|(other, _)| *other != name);
        self.open.push((name, Some(value.into())));
    }

    /// An import with these options.
    fn import(&self) -> Result<ImportArguments, CommandError> {
        let mut words = vec![OsString::from(NAME), "import".into()];
        for (name, value) in &self.open {
            words.push(name.into());
            words.extend(value.as_ref().map(OsString::from));
        }
        for (name, secret) in &self.secret {
            words.extend([OsString::from(name), secret.expose().into()]);
        }
        let usage = |error: &clap::Error| {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            CommandError::Usage(line.trim_start_matches("error: ").to_owned())
        };
        match Cli::try_parse_from(words).map_err(|error| usage(&error))?.command {
            Command::Import(import) => Ok(*import),
            _ => Err(CommandError::Usage("that is no import".into())),
        }
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

    /// What goes before the command line, for the secrets that it does not hold.
    fn note(&self) -> Option<String> {
        let (option, _) = self.secret.first()?;
        Some(match *option {
            "--es-api-key" => "with the API key in the variable ES_API_KEY".to_owned(),
            _ => "it asks for the password, or takes it from the variable ES_PASSWORD".to_owned(),
        })
    }
}

/// Asks, and shows what would be done. Nothing if the user does not want it.
///
/// # Errors
/// When the terminal goes away.
pub(super) async fn ask() -> Result<Option<Guided>, CommandError> {
    say(
        "Import a model into Elasticsearch. Ctrl-C ends it; nothing is stored before you say so.\n",
    );
    let (mut answers, client) = cluster().await?;
    let (source, plan) = model(&mut answers, &client).await?;
    task(&mut answers, &plan)?;
    let derived = answers.import()?.model_id().unwrap_or_default();
    loop {
        answers.set("--es-model-id", text("Its id in Elasticsearch", &derived)?);
        match answers.import() {
            Ok(_) => break,
            Err(error) => tell(&error),
        }
    }
    if confirm("Store its linear layers as 8-bit integers (smaller, a little less exact)?", false)?
    {
        answers.open.push(("--quantize", None));
    }
    if confirm("Start it after the upload?", true)? {
        answers.open.push(("--start", None));
    }

    let import = answers.import()?;
    let planned = resolved(&import, &source).await?.plan(&client).await?;
    let page = PlanReport::of(planned, &client).await;
    say(&format!("\n{}\n", escape(&page.text())));
    let problem = page.into_result().err();
    if let Some(error) = &problem {
        tell(error);
    }
    let note = answers.note().map(|note| format!("\n({note})")).unwrap_or_default();
    say(&format!("The same without questions:\n\n  {}\n{note}", redact(&answers.shown())));
    let question = if problem.is_some() { "Try it all the same?" } else { "Go on?" };
    if confirm(question, problem.is_none())? {
        let resolved = resolved(&import, &source).await?;
        return Ok(Some(Guided { import, client, resolved }));
    }
    say("Nothing has been stored.");
    Ok(None)
}

/// Where the cluster is, and how to log in. Tried at once, and asked again until it works.
async fn cluster() -> Result<(Answers, Client), CommandError> {
    let known = std::env::var("ES_URL").ok().filter(|url| !url.contains('@') && !url.is_empty());
    let mut url = known.unwrap_or_else(|| "http://localhost:9200".to_owned());
    loop {
        url = text("Where is the cluster? Its address, or its cloud id", &url)?;
        let mut answers = Answers::default();
        // A cloud id is a name, a colon and Base64.
        let is_address = url.contains("://") || !url.contains(':');
        answers.set(if is_address { "--url" } else { "--cloud-id" }, url.as_str());
        if url.starts_with("https://") {
            authority(&mut answers)?;
        }
        log_in(&mut answers)?;
        // What is asked about the model needs one to be named.
        let mut trial = answers.clone();
        trial.set("--hub-model-id", "model");
        let connected = match trial.import().and_then(|import| Ok(import.connection()?)) {
            Ok(connection) => Client::connect(connection).await.map_err(CommandError::from),
            Err(error) => Err(error),
        };
        match connected {
            Ok(client) => {
                say(&format!("  connected to Elasticsearch {}", client.target()));
                return Ok((answers, client));
            }
            Err(error) => tell(&error),
        }
    }
}

/// Whom to trust.
fn authority(answers: &mut Answers) -> Result<(), CommandError> {
    let prompt = "Its certificate authority: a PEM file, or the fingerprint that Elasticsearch printed (empty: the system's)";
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
    let mut ways = vec!["user and password".to_owned(), "API key".into(), "not at all".into()];
    if let Some(name) = variables {
        ways.insert(0, format!("as the variable {name} says"));
    }
    let chosen = select("How to log in?", &ways, 0)?;
    match chosen + usize::from(variables.is_none()) {
        1 => {
            answers.set("--es-username", text("User", "elastic")?);
            answers.secret.push(("--es-password", hidden("Password")?));
        }
        2 => answers.secret.push(("--es-api-key", hidden("API key")?)),
        _ => {}
    }
    Ok(())
}

/// Which model: looked at at once, and asked again until it is one.
async fn model(
    answers: &mut Answers,
    client: &Client,
) -> Result<(ResolvedSource, Plan), CommandError> {
    loop {
        let prompt = "Which model? Its id on the hub, or a folder";
        let name: String = Input::new().with_prompt(prompt).interact_text().map_err(gone)?;
        answers.set("--hub-model-id", name.trim());
        match plan(answers, client).await {
            // What is in the way of a task need not be in the way of another.
            Ok((source, plan))
                if plan.problem.is_none()
                    || plan.tasks.as_ref().is_some_and(|it| !it.is_empty()) =>
            {
                return Ok((source, plan));
            }
            Ok((_, Plan { problem: Some(problem), .. })) => tell(&problem.into()),
            Ok(resolved) => return Ok(resolved),
            Err(error) => tell(&error),
        }
    }
}

/// The model that the answers name, and what it is.
async fn plan(answers: &Answers, client: &Client) -> Result<(ResolvedSource, Plan), CommandError> {
    let import = answers.import()?;
    let source = import.model().source()?.resolve().await?;
    let plan = import.model().request(source.clone())?.plan(client.target()).await?;
    Ok((source, plan))
}

/// The import of a model that is resolved already.
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

/// Which task, the guess first.
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
    let chosen = select("What is it to do?", &names, 0)?;
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

/// The terminal does not answer any more, or Ctrl-C was typed.
fn gone(error: dialoguer::Error) -> CommandError {
    let dialoguer::Error::IO(error) = error;
    match error.kind() {
        std::io::ErrorKind::Interrupted => ClientError::Interrupted.into(),
        _ => CommandError::Usage(format!("the terminal does not answer: {error}")),
    }
}

fn say(text: &str) {
    eprintln!("{text}");
}

fn tell(error: &CommandError) {
    eprintln!("  {}\n", escape(&redact(&message(error))));
}
