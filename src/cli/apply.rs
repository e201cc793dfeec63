//! `rust-eland apply`.

use std::path::PathBuf;
use std::time::Instant;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches};
use serde::Serialize;

use super::cluster_arguments::ClusterArguments;
use super::command_error::CommandError;
use super::command_line::Secrecy;
use super::exit_code;
use super::failed::message;
use super::hints;
use super::import::ImportArguments;
use super::models_file::{self, Model, ModelsFile, Setting, Wrong};
use super::option_rules::{self, find};
use super::option_value::{SetOption, Unset, Value};
use super::quantize::QuantizeArguments;
use super::report::{Report, ReportArguments, cell, table};
use super::similar::similar;
use super::start_arguments::StartArguments;
use super::tree_model::{TREE_MODEL_CONFLICTS, TreeModelArguments};
use super::upload::interruption;
use crate::elasticsearch::{Client, Interruption, Outcome};
use crate::error::Error;
use crate::observer::Progress;
use crate::secrets::redact;
use crate::trees::TreeModel;
use crate::workflow::{ImportRequest, Imported, StopSignal, ValidatedImport, connect};

/// Options of `import` that a file cannot set. The first two would change the output of `apply`, which has them itself. `apply` writes no
/// HTML pages and does not verify served models; `verify` does.
pub(super) const NOT_IN_A_FILE: [&str; 4] = ["output", "dry-run", "verify-served", "report"];

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

/// Connection options from the command line and the environment, for every import. They override the file.
#[derive(Debug)]
struct Overrides {
    connection: ClusterArguments,
    /// The names of the options that are set.
    names: Vec<String>,
}

impl Args for Overrides {
    fn augment_args(command: clap::Command) -> clap::Command {
        ClusterArguments::augment_args(command)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        ClusterArguments::augment_args_for_update(command)
    }
}

impl FromArgMatches for Overrides {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let is_set = |option: &&Arg| {
            let source = matches.value_source(option.get_id().as_str());
            matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable))
        };
        let options = options_of::<ClusterArguments>();
        let names = options.get_arguments().filter(is_set).filter_map(Arg::get_long);
        let names = names.map(str::to_owned).collect();
        Ok(Self { connection: ClusterArguments::from_arg_matches(matches)?, names })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// A command that has the options of `A` and no others.
fn options_of<A: Args>() -> clap::Command {
    let mut command = A::augment_args(clap::Command::new("import").disable_help_flag(true));
    // Without this, options cannot be displayed.
    command.build();
    command
}

fn is_switch(option: &Arg) -> bool {
    matches!(option.get_action(), ArgAction::SetTrue)
}

/// An import from the file.
struct Planned {
    line: usize,
    /// The model, with the name in the file.
    source: String,
    import: ImportArguments,
    /// The connection settings of the file. Imports with the same settings share a connection.
    connection: Vec<(String, Value)>,
}

/// Result of an import.
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

/// Results of all imports.
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
        let mut clients: Vec<Connected> = Vec::new();
        let mut models = Vec::new();
        for one in planned {
            if interruption.is_requested() {
                models.push(Applied::skipped(one));
            } else {
                models.push(apply(one, &mut clients, &interruption, progress).await);
            }
        }

        for connected in clients.iter().filter(|connected| connected.is_changed) {
            connected.client.synchronize_kibana().await;
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

/// A connection that imports with the same settings share.
struct Connected {
    settings: Vec<(String, Value)>,
    client: Client,
    /// Whether a model was stored.
    is_changed: bool,
}

/// A model to store, checked without the cluster.
enum Input {
    Tree(Box<TreeModel>),
    Model(Box<ValidatedImport>),
}

/// Runs one import.
async fn apply(
    planned: Planned,
    clients: &mut Vec<Connected>,
    interruption: &Interruption,
    progress: &Progress,
) -> Applied {
    let Planned { line, source, import, connection } = planned;
    tracing::info!("line {line}: {source}");
    let begun = Instant::now();
    let model_id = import.model_id();
    let work = async {
        let input = if import.is_tree_model() {
            Input::Tree(Box::new(import.tree_model(progress).await?.1))
        } else {
            let request = ImportRequest { uses_fingerprint: true, ..import.request()? };
            Input::Model(Box::new(request.validate().await?))
        };
        // Imports with the same connection share a client, so that the user enters a password only once.
        let at = match clients.iter().position(|it| it.settings == connection) {
            Some(at) => at,
            None => {
                let client = connect(import.connection()?, progress).await?;
                clients.push(Connected { settings: connection, client, is_changed: false });
                clients.len() - 1
            }
        };
        let Connected { client, is_changed, .. } = &mut clients[at];
        let imported = match input {
            Input::Tree(model) => import.store_tree_model(&model, client, interruption).await,
            Input::Model(validated) => {
                let stop = StopSignal::Always(interruption.clone());
                validated.run(client, stop, progress).await.map_err(CommandError::from)
            }
        };
        *is_changed |= match &imported {
            Ok(imported) => imported.outcome != Outcome::Unchanged,
            Err(error) => matches!(error, CommandError::Work(Error::Deployment(_))),
        };
        imported
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

/// Parses the file and checks every import in it.
fn plan(text: &str, overrides: &Overrides) -> Result<Vec<Planned>, Vec<Wrong>> {
    let file = ModelsFile::read(text).map_err(|wrong| vec![wrong])?;
    let options = options_of::<ImportArguments>();
    let mut wrongs = Vec::new();
    let all = file.defaults.iter().chain(file.models.iter().flat_map(|model| &model.settings));
    wrongs.extend(all.filter_map(|setting| check(setting, &options)));
    if !wrongs.is_empty() {
        return Err(wrongs);
    }
    let mut planned: Vec<Planned> = Vec::new();
    for model in &file.models {
        let one = match planned_import(model, &file.defaults, overrides, &options) {
            Ok(one) => one,
            Err(problem) => {
                wrongs.push(Wrong::new(model.line, problem));
                continue;
            }
        };
        let id = one.import.model_id();
        let same =
            |other: &&Planned| other.connection == one.connection && other.import.model_id() == id;
        if let Some((other, id)) = planned.iter().find(same).zip(id.as_ref()) {
            let problem = format!(
                "the model id {id} is already used in line {}; set another es-model-id for one of them",
                other.line
            );
            wrongs.push(Wrong::new(model.line, problem));
        }
        planned.push(one);
    }
    if wrongs.is_empty() { Ok(planned) } else { Err(wrongs) }
}

/// The import of one model of the file.
///
/// # Errors
/// The reason why the settings are invalid.
fn planned_import(
    model: &Model,
    defaults: &[Setting],
    overrides: &Overrides,
    options: &clap::Command,
) -> Result<Planned, String> {
    let of_connection = options_of::<ClusterArguments>();
    let settings = effective(model, defaults, overrides);
    let is_set = |value: &Value| !matches!(value, Value::Absent);
    let named = settings.iter().filter(|it| match &it.value {
        Value::Text(text) if text == "false" => !find(options, &it.name).is_some_and(is_switch),
        value => is_set(value),
    });
    let names: Vec<&str> = named.map(|setting| &*setting.name).collect();
    let of_command_line = overrides.names.iter().map(String::as_str);
    let all: Vec<_> = names.iter().copied().chain(of_command_line).collect();

    let mut import = ImportArguments::unset().map_err(|error| error.to_string())?;
    import.set_connection(overrides.connection.clone());
    for Setting { name, value, .. } in settings.iter().filter(|it| is_set(&it.value)) {
        import.set(name, value).map_err(|error| invalid(&error, name, value, options))?;
    }
    if let Some(problem) = option_rules::broken(options, &all) {
        return Err(problem);
    }
    import.check_options().map_err(|error| match error.hint() {
        Some(hint) => format!("{error}. {}", hints::rendered(&hint)),
        None => error.to_string(),
    })?;
    if !names.iter().any(|name| ["on-conflict", "clear-previous"].contains(name)) {
        import.set("on-conflict", &Value::Text("skip".into())).map_err(|_| String::new())?;
    }
    let source = ["hub-model-id", "bundle", "definition", "tree-model"].iter().find_map(|name| {
        let setting = settings.iter().find(|setting| setting.name == *name)?;
        Some(setting.value.text().ok()?.to_owned())
    });
    let connection = settings.iter().filter(|it| find(&of_connection, &it.name).is_some());
    let connection = connection.map(|it| (it.name.clone(), it.value.clone())).collect();
    Ok(Planned { line: model.line, source: source.unwrap_or_default(), import, connection })
}

/// The message for a value that an option does not accept, in the words of clap.
fn invalid(error: &Unset, name: &str, value: &Value, options: &clap::Command) -> String {
    let reason = match error {
        Unset::UnknownName => return format!("the option {name} cannot be set in a file"),
        Unset::Invalid(reason) => reason,
    };
    let shown = value.text().unwrap_or_default();
    let Some(option) = find(options, name) else { return reason.clone() };
    let choices: Vec<_> =
        option.get_possible_values().iter().map(|it| it.get_name().to_owned()).collect();
    let text = if choices.is_empty() || name == "task-type" {
        format!("invalid value '{shown}' for '{option}': {reason}")
    } else {
        format!("invalid value '{shown}' for '{option}' [possible values: {}]", choices.join(", "))
    };
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Checks one option.
fn check(setting: &Setting, options: &clap::Command) -> Option<Wrong> {
    let Setting { line, name, value } = setting;
    let wrong = |problem: String| Some(Wrong::new(*line, problem));
    let names = || {
        options
            .get_arguments()
            .filter_map(Arg::get_long)
            .filter(|name| !NOT_IN_A_FILE.contains(name))
    };
    let Some(option) = find(options, name).filter(|_| !NOT_IN_A_FILE.contains(&&**name)) else {
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

/// The settings of a model and the defaults that it inherits, without those that the command line overrides.
fn effective(model: &Model, defaults: &[Setting], overrides: &Overrides) -> Vec<Setting> {
    const CLUSTER: [&str; 2] = ["url", "cloud-id"];
    let is_cluster = |name: &str| CLUSTER.contains(&name);
    let has_cluster = model.settings.iter().any(|it| is_cluster(&it.name));
    let elsewhere = overrides.names.iter().any(|name| is_cluster(name));
    let own = |name: &str| model.settings.iter().any(|setting| setting.name == name);
    // Defaults for transformers have no effect on tree models, and the other way round.
    let creates_pipeline =
        model.settings.iter().chain(defaults).any(|it| it.name == "create-pipeline");
    let has_effect = |name: &str| {
        if own("tree-model") {
            !is_of_transformers(name)
        } else {
            !is_of_tree_models(name) || name == "force" && creates_pipeline
        }
    };
    let inherited = defaults.iter().filter(|setting| {
        has_effect(&setting.name)
            && !(own(&setting.name) || is_cluster(&setting.name) && has_cluster)
    });
    let is_overridden = |setting: &&Setting| {
        overrides.names.contains(&setting.name) || elsewhere && is_cluster(&setting.name)
    };
    let settings = model.settings.iter().chain(inherited);
    settings.filter(|setting| !is_overridden(setting)).cloned().collect()
}

/// Whether an option has a meaning for tree models only.
fn is_of_tree_models(name: &str) -> bool {
    name == "force" || find(&options_of::<TreeModelArguments>(), name).is_some()
}

/// Whether an option has no meaning for tree models.
fn is_of_transformers(name: &str) -> bool {
    ["start", "create-endpoint", "input-field"].contains(&name)
        || TREE_MODEL_CONFLICTS.contains(&&*name.replace('-', "_"))
        || find(&options_of::<QuantizeArguments>(), name).is_some()
        || find(&options_of::<StartArguments>(), name).is_some()
}
