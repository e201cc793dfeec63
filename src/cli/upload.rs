//! Options of the upload.

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::{PossibleValuesParser, RangedU64ValueParser, TypedValueParser};

use super::option_value::{SetOption, Unset, Value};
use super::{signals, units};
use crate::elasticsearch::{
    ClientError, Import, Interruption, LARGEST_PART, OnConflict, SMALLEST_PART,
};
use crate::retry::RetryPolicy;

/// Starts to handle Ctrl-C and SIGTERM. The first signal prints how to stop immediately.
pub(super) fn interruption() -> Result<Interruption, ClientError> {
    signals::interruption(|| tracing::warn!("stopping; press Ctrl-C once more to stop immediately"))
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Upload")]
pub(super) struct UploadArguments {
    /// What to do if the cluster already has a model with this id. fail: report an error. replace: replace it when the new model is ready.
    /// skip: keep it, and fail if its definition differs. update: replace it if anything differs
    #[arg(
        long,
        value_name = "WHAT",
        default_value = "fail",
        value_parser = PossibleValuesParser::new(OnConflict::NAMES).try_map(|name| name.parse::<OnConflict>())
    )]
    on_conflict: OnConflict,
    /// Same as --on-conflict replace
    #[arg(long, conflicts_with = "on_conflict")]
    clear_previous: bool,
    /// Maximum number of parts to upload in parallel. An upload begins with 4 and sends more while the cluster responds as fast as
    /// before, up to 16 MiB at a time
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = RangedU64ValueParser::<usize>::new().range(1..=64))]
    upload_concurrency: usize,
    /// Size of a part, such as 512KiB or 4MiB. It is increased automatically if the model would need more than 10,000 parts
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = part_size)]
    part_size: usize,
    /// Number of times to retry a request when the cluster is busy or unreachable
    #[arg(long, value_name = "N", default_value_t = RetryPolicy::default().retries)]
    retries: u32,
    /// How long to retry a request after its first failure, such as 90s or 15m
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = units::duration)]
    timeout: Duration,
    /// Folder for upload journals. With its journal, an interrupted upload resumes [default: rust-eland in $XDG_STATE_HOME or
    /// ~/.local/state]
    #[arg(long, value_name = "FOLDER", env = "RUST_ELAND_STATE_DIR")]
    state_dir: Option<PathBuf>,
}

impl SetOption for UploadArguments {
    fn set(&mut self, name: &str, value: &Value) -> Result<(), Unset> {
        match name {
            "on-conflict" => self.on_conflict = value.parsed()?,
            "clear-previous" => self.clear_previous = value.switch()?,
            "upload-concurrency" => self.upload_concurrency = value.integer(1..=64)?,
            "part-size" => self.part_size = value.read(part_size)?,
            "retries" => self.retries = value.parsed()?,
            "timeout" => self.timeout = value.read(units::duration)?,
            "state-dir" => self.state_dir = Some(value.parsed()?),
            _ => return Err(Unset::UnknownName),
        }
        Ok(())
    }
}

impl UploadArguments {
    pub(super) fn import(&self) -> Import {
        let retry =
            RetryPolicy { retries: self.retries, timeout: self.timeout, ..RetryPolicy::default() };
        Import {
            on_conflict: if self.clear_previous { OnConflict::Replace } else { self.on_conflict },
            concurrency: self.upload_concurrency,
            part_size: self.part_size,
            retry,
            state_folder: self.state_dir.clone().or_else(state_folder).or_else(|| {
                tracing::warn!(
                    "an interrupted import cannot be resumed, because neither --state-dir nor HOME is set"
                );
                None
            }),
            ..Import::default()
        }
    }
}

/// The XDG base directory for state. Relative paths in the variable are ignored, as the specification requires.
fn state_folder() -> Option<PathBuf> {
    let absolute =
        |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_STATE_HOME")
        .or_else(|| Some(absolute("HOME")?.join(".local/state")))
        .map(|folder| folder.join("rust-eland"))
}

fn part_size(text: &str) -> Result<usize, String> {
    let size = units::bytes(text)?;
    match usize::try_from(size) {
        Ok(size) if (SMALLEST_PART..=LARGEST_PART).contains(&size) => Ok(size),
        _ => Err("the size of a part must be from 1 KiB to 35 MiB".into()),
    }
}
