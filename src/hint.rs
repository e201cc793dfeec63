//! Suggestions that go with an error: what the user can change or run next.
//!
//! An error's message says what failed and why. Its method `hint` returns a [`Hint`], which says what to do. A hint names settings and
//! commands as typed values, because the library does not know how its caller spells them: the command line renders
//! [`Setting::ModelId`] as `--es-model-id`, and the [`Display`](fmt::Display) form of a hint renders it as `` `model_id` ``.
//!
//! To add a hint to an error, write a method `pub fn hint(&self) -> Option<Hint>` beside it, with the macro `hint!`:
//!
//! ```ignore
//! Some(hint!("Choose another id with ", Setting::ModelId, ", or list the models with ", Command::List, "."))
//! ```
//!
//! To name a setting that is not in [`Setting`] yet, add a variant and its name here, and its option in `cli/hints.rs`.

use std::fmt;

/// A suggestion: whole sentences, in which settings and commands are typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint(Vec<Piece>);

/// A piece of a [`Hint`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Piece {
    /// Literal text.
    Text(String),
    /// The name of a setting.
    Setting(Setting),
    /// The name of a command.
    Command(Command),
}

impl Hint {
    /// Joins pieces into a suggestion. Inside the crate, the macro `hint!` is shorter.
    #[must_use]
    pub fn new(pieces: impl IntoIterator<Item = Piece>) -> Self {
        Self(pieces.into_iter().collect())
    }

    /// The pieces, in the order of the text.
    #[must_use]
    pub fn pieces(&self) -> &[Piece] {
        &self.0
    }

    /// Appends another suggestion, separated by a space.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.0.push(Piece::Text(" ".into()));
        self.0.extend(other.0);
        self
    }
}

impl fmt::Display for Hint {
    /// Writes settings as the library names them: `` `model_id` ``.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|piece| match piece {
            Piece::Text(text) => f.write_str(text),
            Piece::Setting(setting) => write!(f, "`{}`", setting.name()),
            Piece::Command(command) => write!(f, "`{command}`"),
        })
    }
}

impl From<&str> for Piece {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Piece {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Setting> for Piece {
    fn from(setting: Setting) -> Self {
        Self::Setting(setting)
    }
}

impl From<Command> for Piece {
    fn from(command: Command) -> Self {
        Self::Command(command)
    }
}

/// Joins text, [`Setting`]s and [`Command`]s into a [`Hint`].
macro_rules! hint {
    ($($piece:expr),+ $(,)?) => {
        $crate::hint::Hint::new([$($crate::hint::Piece::from($piece)),+])
    };
}
pub(crate) use hint;

/// A command that a hint suggests to run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Command {
    /// Show the models of the cluster.
    List,
    /// Show the deployments of a model.
    Status(Option<String>),
    /// Start a model.
    Start(Option<String>),
    /// Stop a deployment.
    Stop(Option<String>),
    /// Delete a model.
    Delete(Option<String>),
    /// Import a model.
    Import,
    /// Compare the tokens of texts.
    Tokenize,
    /// Download the files of a hub repository.
    Download(Option<String>),
}

impl Command {
    /// The name of the subcommand, and the model or repository to run it for, if the hint names one.
    #[must_use]
    pub fn parts(&self) -> (&'static str, Option<&str>) {
        match self {
            Self::List => ("list", None),
            Self::Status(id) => ("status", id.as_deref()),
            Self::Start(id) => ("start", id.as_deref()),
            Self::Stop(id) => ("stop", id.as_deref()),
            Self::Delete(id) => ("delete", id.as_deref()),
            Self::Import => ("import", None),
            Self::Tokenize => ("tokenize", None),
            Self::Download(id) => ("download", id.as_deref()),
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.parts() {
            (name, Some(argument)) => write!(f, "{name} {argument}"),
            (name, None) => f.write_str(name),
        }
    }
}

macro_rules! settings {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)+) => {
        /// A setting that a hint or an error names.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Setting { $($(#[$doc])* $variant,)+ }

        impl Setting {
            /// The name of the setting in the library, such as `model_id`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

settings! {
    /// The address of the cluster.
    Url = "url",
    /// The address of Kibana.
    KibanaUrl = "kibana_url",
    /// The identifier of an Elastic Cloud deployment.
    CloudId = "cloud_id",
    /// The user name for the cluster.
    Username = "username",
    /// The password for the cluster.
    Password = "password",
    /// A file that contains the password for the cluster.
    PasswordFile = "password_file",
    /// The API key for the cluster.
    ApiKey = "api_key",
    /// The bearer token for the cluster.
    Token = "token",
    /// A header that is sent with every request to the cluster.
    Header = "header",
    /// The certificate authorities that may sign the cluster's certificate.
    CaCertificates = "ca_certificates",
    /// The fingerprint of the cluster's certificate authority.
    CaFingerprint = "ca_fingerprint",
    /// Accept every certificate.
    Insecure = "insecure",
    /// The client certificate.
    ClientCertificate = "client_certificate",
    /// The private key of the client certificate.
    ClientKey = "client_key",
    /// The id of the model in the cluster.
    ModelId = "model_id",
    /// What to do when the cluster already has a model with this id.
    OnConflict = "on_conflict",
    /// Replace an existing model, which is short for a value of [`Setting::OnConflict`].
    ClearPrevious = "clear_previous",
    /// Bytes of one part of an upload.
    PartSize = "part_size",
    /// The number of parts that are uploaded at a time.
    Concurrency = "concurrency",
    /// The directory of the upload journals.
    StateDirectory = "state_directory",
    /// Start the model after the import.
    Start = "start",
    /// The id of the deployment.
    DeploymentId = "deployment_id",
    /// The time to wait for a deployment.
    StartTimeout = "timeout",
    /// The number of allocations of a deployment.
    NumberOfAllocations = "number_of_allocations",
    /// The number of threads of an allocation.
    ThreadsPerAllocation = "threads_per_allocation",
    /// The number of requests that can wait on a node.
    QueueCapacity = "queue_capacity",
    /// The fewest allocations of an adaptive deployment.
    MinAllocations = "min_allocations",
    /// The most allocations of an adaptive deployment.
    MaxAllocations = "max_allocations",
    /// The priority of a deployment.
    Priority = "priority",
    /// Stop or delete a model although something uses it.
    Force = "force",
    /// The feature extractors of learning to rank.
    RankingConfiguration = "ltr_config",
    /// A file of documents for a tree model.
    Data = "data",
    /// The id of the inference endpoint to create.
    CreateEndpoint = "create_endpoint",
    /// The field of documents that an ingest pipeline reads.
    InputField = "input_field",
    /// The field for the result of an ingest pipeline.
    OutputField = "output_field",
    /// Labels to choose from.
    Labels = "labels",
    /// The hub repository or the directory of the model.
    HubModelId = "hub_model_id",
    /// The branch, tag or commit of the hub repository.
    Revision = "revision",
    /// The access token for the hub.
    HubAccessToken = "hub_access_token",
    /// The certificate authorities that may sign the hub's certificate.
    HubCaCertificates = "hub_ca_certificates",
    /// Use only files that are in the cache.
    Offline = "offline",
    /// The directory or file to write.
    Output = "output",
    /// The directory of a bundle to import.
    Bundle = "bundle",
    /// The task of the model.
    Task = "task",
    /// The model of a repository that provides several.
    Part = "part",
    /// The task whose LoRA adapter is merged into the weights.
    LoraTask = "lora_task",
    /// The longest input of the model, in tokens.
    MaxInputLength = "max_model_input_length",
    /// The number of dimensions of embeddings.
    Dimensions = "dimensions",
    /// The scripts of the texts that the model reads.
    Scripts = "scripts",
    /// Quantize the model.
    Quantize = "quantize",
    /// The lowest accepted agreement between the quantized model and the original one.
    QuantizeMinAgreement = "quantize_min_agreement",
    /// The agreement that a search for quantized layers reaches.
    TargetAgreement = "target_agreement",
    /// A file of texts that are used to calibrate and compare a quantized model.
    CalibrationTexts = "calibration_texts",
    /// Use the prompts declared by the model.
    Prompts = "prompts",
    /// Text to prepend to each document at ingest time.
    IngestPrefix = "ingest_prefix",
    /// Text to prepend to each query at search time.
    SearchPrefix = "search_prefix",
    /// Skip the verification of the traced graph.
    NoVerify = "no_verify",
    /// Convert a model whose tokenizer Elasticsearch cannot follow exactly.
    AllowInexactTokenizer = "allow_inexact_tokenizer",
    /// The Elasticsearch version to convert the model for.
    TargetVersion = "target_version",
}

impl fmt::Display for Setting {
    /// Writes the name in words, such as `model id`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ApiKey => f.write_str("API key"),
            Self::Url => f.write_str("URL"),
            Self::KibanaUrl => f.write_str("Kibana URL"),
            Self::CreateEndpoint => f.write_str("inference endpoint"),
            Self::CaCertificates => f.write_str("CA certificates"),
            Self::CaFingerprint => f.write_str("CA fingerprint"),
            _ => f.write_str(&self.name().replace('_', " ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hint_display_uses_library_names() {
        let hint = hint!(
            "Set ",
            Setting::ModelId,
            " or run ",
            Command::Stop(Some("my-model".into())),
            "."
        );
        assert_eq!(hint.to_string(), "Set `model_id` or run `stop my-model`.");
        let both = hint.and(hint!("Retry later."));
        assert_eq!(both.to_string(), "Set `model_id` or run `stop my-model`. Retry later.");
    }
}
