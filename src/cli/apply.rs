//! `rust-eland apply`.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;
use std::time::Instant;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches};
use serde::Serialize;

use super::arguments::ConnectionArguments;
use super::command_error::CommandError;
use super::command_line::Secrecy;
use super::exit_code;
use super::failed::message;
use super::import::ImportArguments;
use super::models_file::{self, Model, ModelsFile, Setting, Value, Wrong};
use super::report::{Report, ReportArguments, cell, table};
use super::similar::similar;
use super::upload::interruption;
use crate::elasticsearch::{Client, Interruption, Outcome};
use crate::observer::Progress;
use crate::secrets::redact;
use crate::workflow::{ImportRequest, Imported, StopSignal, connect};

/// Options of the output of a single import, which a file cannot set.
const NOT_HERE: [&str; 2] = ["output", "dry-run"];

#[derive(Debug, Args)]
#[command(mut_group("cluster", |group| group.required(false)))]
pub(super) struct ApplyArguments {
    /// YAML file that lists the imports, or - for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    report: ReportArguments,
    #[command(flatten)]
    overrides: Overrides,
}

/// The connection options on the command line and in the environment, as arguments for every import. They override the file.
struct Overrides(Vec<(String, Vec<OsString>)>);

/// Shows nothing, because some values are secret.
impl fmt::Debug for Overrides {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Overrides").finish_non_exhaustive()
    }
}

impl Args for Overrides {
    fn augment_args(command: clap::Command) -> clap::Command {
        ConnectionArguments::augment_args(command)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        ConnectionArguments::augment_args_for_update(command)
    }
}

impl FromArgMatches for Overrides {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut overrides = Vec::new();
        for option in options_of::<ConnectionArguments>().get_arguments() {
            let id = option.get_id().as_str();
            let Some(name) = option.get_long() else { continue };
            if !matches!(
                matches.value_source(id),
                Some(ValueSource::CommandLine | ValueSource::EnvVariable)
            ) {
                continue;
            }
            let values = matches.get_raw(id).unwrap_or_default();
            let arguments = if is_switch(option) {
                vec![argument(name, None)]
            } else {
                values.map(|value| argument(name, Some(value))).collect()
            };
            overrides.push((name.to_owned(), arguments));
        }
        Ok(Self(overrides))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// A command that has only these options.
fn options_of<A: Args>() -> clap::Command {
    A::augment_args(clap::Command::new("import").no_binary_name(true).disable_help_flag(true))
}

fn is_switch(option: &Arg) -> bool {
    matches!(option.get_action(), ArgAction::SetTrue)
}

fn argument(name: &str, value: Option<&OsStr>) -> OsString {
    let mut argument = OsString::from(format!("--{name}"));
    if let Some(value) = value {
        argument.push("=");
        argument.push(value);
    }
    argument
}

/// An import that the file lists.
struct Planned {
    line: usize,
    /// The model as the file names it.
    source: String,
    import: ImportArguments,
    /// The arguments of the connection. Imports with the same arguments share a connection.
    connection: Vec<OsString>,
}

/// The result of an import.
#[derive(Debug, Default, Serialize)]
struct Applied {
    line: usize,
    source: String,
    model_id: Option<String>,
    /// `stored`, `unchanged`, `failed`, or `skipped` after an interruption.
    result: &'static str,
    /// The state of the deployment, if one was requested.
    state: Option<&'static str>,
    definition_sha256: Option<String>,
    seconds: f64,
    exit_code: u8,
    error: Option<String>,
}

/// The results of all imports.
#[derive(Debug, Serialize)]
struct AllApplied {
    models: Vec<Applied>,
    failed: usize,
}

impl ApplyArguments {
    pub(super) async fn execute(self, progress: &Progress) -> Result<(), CommandError> {
        let name = self.file.display();
        let text = models_file::text(&self.file).map_err(|error| {
            let advice = super::similar::file_tip(&self.file);
            CommandError::Usage(format!(
                "cannot read {name}: {error}; choose a YAML file of imports{advice}"
            ))
        })?;
        let planned = plan(&text, &self.overrides).map_err(|wrongs| {
            let lines: Vec<_> = wrongs.iter().map(Wrong::to_string).collect();
            CommandError::Usage(format!(
                "{name} is invalid, so nothing was imported:\n{}",
                lines.join("\n")
            ))
        })?;

        let interruption = interruption()?;
        let mut clients = HashMap::new();
        let mut models = Vec::new();
        for one in planned {
            if interruption.is_requested() {
                models.push(Applied::skipped(one));
            } else {
                models.push(apply(one, &mut clients, &interruption, progress).await);
            }
        }

        let failed = models.iter().filter(|one| one.exit_code != 0).count();
        let first = models.iter().map(|one| one.exit_code).find(|code| *code != 0);
        let code = if interruption.is_requested() { Some(130) } else { first };
        let all = models.len();
        self.report.print(&AllApplied { models, failed })?;
        match code {
            None => Ok(()),
            Some(code) => Err(CommandError::Models { failed, all, code }),
        }
    }
}

/// Runs one import.
async fn apply(
    planned: Planned,
    clients: &mut HashMap<Vec<OsString>, Client>,
    interruption: &Interruption,
    progress: &Progress,
) -> Applied {
    let Planned { line, source, import, connection } = planned;
    tracing::info!("line {line}: {source}");
    let begun = Instant::now();
    let model_id = import.model_id();
    let work = async {
        let request = ImportRequest { uses_fingerprint: true, ..import.request()? };
        let validated = request.validate().await?;
        // Imports with the same connection share a client, so that a password is asked for once.
        let client = match clients.get(&connection) {
            Some(client) => client.clone(),
            None => {
                let client = connect(import.connection()?, progress).await?;
                clients.insert(connection, client.clone());
                client
            }
        };
        let stop = StopSignal::Always(interruption.clone());
        Ok::<_, CommandError>(validated.run(&client, stop, progress).await?)
    };
    let done = work.await;
    let seconds = begun.elapsed().as_secs_f64();
    match done {
        Ok(Imported { model_id, outcome, definition_sha256, started, .. }) => Applied {
            line,
            source,
            model_id: Some(model_id.to_string()),
            result: match outcome {
                Outcome::Stored { .. } => "stored",
                Outcome::Unchanged => "unchanged",
            },
            state: started.map(|started| started.deployment.state.name()),
            definition_sha256,
            seconds,
            exit_code: 0,
            error: None,
        },
        Err(error) => {
            let text = redact(&message(&error));
            tracing::error!("line {line}: {source}: {text}");
            Applied {
                line,
                source,
                model_id,
                result: "failed",
                state: None,
                definition_sha256: None,
                seconds,
                exit_code: exit_code::of(&error),
                error: Some(text),
            }
        }
    }
}

impl Applied {
    fn skipped(planned: Planned) -> Self {
        Self {
            line: planned.line,
            source: planned.source,
            model_id: planned.import.model_id(),
            result: "skipped",
            state: None,
            definition_sha256: None,
            seconds: 0.,
            exit_code: 130,
            error: None,
        }
    }
}

impl Report for AllApplied {
    fn text(&self) -> String {
        let rows: Vec<_> = self
            .models
            .iter()
            .map(|one| {
                [
                    one.model_id.clone().unwrap_or_else(|| one.source.clone()),
                    one.result.to_owned(),
                    cell(one.state),
                    format!("{:.1} s", one.seconds),
                    cell(one.error.as_deref().and_then(|text| text.lines().next())),
                ]
            })
            .collect();
        table(["MODEL", "RESULT", "STATE", "TIME", "ERROR"], &rows)
    }
}

/// Reads the file and checks every import of it.
fn plan(text: &str, overrides: &Overrides) -> Result<Vec<Planned>, Vec<Wrong>> {
    let file = ModelsFile::read(text).map_err(|wrong| vec![wrong])?;
    let options = options_of::<ImportArguments>();
    let of_connection = options_of::<ConnectionArguments>();
    let mut wrongs = Vec::new();
    let all = file.defaults.iter().chain(file.models.iter().flat_map(|model| &model.settings));
    wrongs.extend(all.filter_map(|setting| check(setting, &options)));
    if !wrongs.is_empty() {
        return Err(wrongs);
    }
    let mut planned: Vec<Planned> = Vec::new();
    for model in &file.models {
        let arguments = arguments(model, &file.defaults, overrides, &options);
        let connection = arguments.iter().filter(|(name, _)| {
            of_connection.get_arguments().any(|it| it.get_long() == Some(name))
        });
        let connection = connection.flat_map(|(_, arguments)| arguments.clone()).collect();
        let parsed = options
            .clone()
            .try_get_matches_from(arguments.iter().flat_map(|(_, arguments)| arguments))
            .and_then(|matches| ImportArguments::from_arg_matches(&matches));
        let import = match parsed {
            Ok(import) => import,
            Err(error) => {
                wrongs.push(Wrong::new(model.line, brief(&error)));
                continue;
            }
        };
        let source = source(&arguments);
        let id = import.model_id();
        let same =
            |other: &&Planned| other.connection == connection && other.import.model_id() == id;
        if let Some((other, id)) = planned.iter().find(same).zip(id.as_ref()) {
            let problem = format!(
                "the model id {id} is already used in line {}; set another es-model-id for one of them",
                other.line
            );
            wrongs.push(Wrong::new(model.line, problem));
        }
        planned.push(Planned { line: model.line, source, import, connection });
    }
    if wrongs.is_empty() { Ok(planned) } else { Err(wrongs) }
}

/// Checks one option.
fn check(setting: &Setting, options: &clap::Command) -> Option<Wrong> {
    let Setting { line, name, value } = setting;
    let wrong = |problem: String| Some(Wrong::new(*line, problem));
    let names = || {
        options.get_arguments().filter_map(Arg::get_long).filter(|name| !NOT_HERE.contains(name))
    };
    let Some(option) = find(options, name).filter(|_| !NOT_HERE.contains(&&**name)) else {
        let tip = match similar(name, names()).first() {
            Some(meant) => format!(": did you mean {meant}?"),
            None => "; `rust-eland import --help` lists all options".to_owned(),
        };
        return wrong(format!("unknown option {name:?}{tip}"));
    };
    let secrecy = Secrecy::of(option);
    if secrecy == Some(Secrecy::Always) {
        let instead = match option.get_env() {
            Some(variable) => {
                format!("set the environment variable {}", variable.display())
            }
            None => "set it on the command line of apply".to_owned(),
        };
        return wrong(format!("{name} is a secret and cannot be stored in the file; {instead}"));
    }
    match value {
        Value::Text(url) if secrecy.is_some_and(|it| it.applies_to(url.as_ref())) => wrong(
            "the url contains a user name or a password, which cannot be stored in the file; set ES_USERNAME and ES_PASSWORD".into(),
        ),
        Value::Text(text) if is_switch(option) && !["true", "false"].contains(&&**text) => {
            wrong(format!("{name} must be true or false, not {text:?}"))
        }
        Value::List(_) if !matches!(option.get_action(), ArgAction::Append) => {
            wrong(format!("{name} must be one value, not a list"))
        }
        _ => None,
    }
}

fn find<'a>(options: &'a clap::Command, name: &str) -> Option<&'a Arg> {
    options.get_arguments().find(|option| option.get_long() == Some(name))
}

/// The arguments of an import, by option. The overrides come first, then the options of the model, then the defaults.
fn arguments(
    model: &Model,
    defaults: &[Setting],
    overrides: &Overrides,
    options: &clap::Command,
) -> Vec<(String, Vec<OsString>)> {
    const CLUSTER: [&str; 2] = ["url", "cloud-id"];
    let is_cluster = |name: &str| CLUSTER.contains(&name);
    let has_cluster = |settings: &[Setting]| settings.iter().any(|it| is_cluster(&it.name));
    let elsewhere = overrides.0.iter().any(|(name, _)| is_cluster(name));
    let own = |name: &str| model.settings.iter().any(|setting| setting.name == name);
    let inherited = defaults.iter().filter(|setting| {
        !(own(&setting.name) || is_cluster(&setting.name) && has_cluster(&model.settings))
    });
    let mut all = overrides.0.clone();
    for Setting { name, value, .. } in model.settings.iter().chain(inherited) {
        if overrides.0.iter().any(|(other, _)| other == name) || elsewhere && is_cluster(name) {
            continue;
        }
        let is_switch = find(options, name).is_some_and(is_switch);
        let value_of = |text: &String| argument(name, Some(text.as_ref()));
        let arguments = match value {
            Value::Absent => Vec::new(),
            Value::Text(text) if is_switch => {
                if text == "true" {
                    vec![argument(name, None)]
                } else {
                    Vec::new()
                }
            }
            Value::Text(text) => vec![value_of(text)],
            Value::List(values) => values.iter().map(value_of).collect(),
        };
        all.push((name.clone(), arguments));
    }
    let conflict = ["on-conflict", "clear-previous"];
    if !all.iter().any(|(name, values)| conflict.contains(&&**name) && !values.is_empty()) {
        all.push(("on-conflict".into(), vec!["--on-conflict=skip".into()]));
    }
    all
}

/// The model as the file names it.
fn source(arguments: &[(String, Vec<OsString>)]) -> String {
    let named = |wanted: &str| arguments.iter().find(|(name, _)| name == wanted);
    let found = ["hub-model-id", "bundle", "definition"].into_iter().find_map(named);
    let value = found.and_then(|(name, values)| {
        let text = values.first()?.to_string_lossy().into_owned();
        Some(text.strip_prefix(&format!("--{name}="))?.to_owned())
    });
    value.unwrap_or_default()
}

/// clap's message in one line.
fn brief(error: &clap::Error) -> String {
    let text = error.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let lines = text
        .lines()
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"));
    let words: Vec<_> = lines.map(str::trim).filter(|line| !line.is_empty()).collect();
    words.join(" ")
}
