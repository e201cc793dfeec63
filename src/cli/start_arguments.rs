//! Options of a deployment, for `import --start` and `start`.

use std::time::Duration;

use clap::{Arg, Args, ValueEnum};

use super::option_value::{SetOption, Unset, Value};
use super::report::Report;
use super::units;
use crate::elasticsearch::{
    ByteSize, Deployment, DeploymentError, Priority, ServedId, StartOptions, WaitFor,
};
use crate::hint::hint;
use crate::workflow::{StartRequest, Started};

/// The heading of the options in a help text.
pub(super) const HEADING: &str = "Starting";

/// The largest number of allocations, and of requests in a queue: Elasticsearch reads them as 32-bit integers.
const LARGEST: u32 = 2_147_483_647;

/// Maximum value of a timeout.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Wait {
    /// The cluster has accepted the request
    Starting,
    /// One allocation is running
    Started,
    /// All allocations are running
    FullyAllocated,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PriorityName {
    Normal,
    /// One allocation with one thread, which is stopped first if memory is short
    Low,
}

/// The options of a deployment.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = HEADING)]
pub(super) struct StartArguments {
    /// State of the deployment to wait for
    #[arg(long, value_name = "STATE", value_enum, default_value = "started")]
    wait_for: Wait,
    /// How long to wait for this state, such as 90s, 5m or 1h
    #[arg(long, value_name = "TIME", value_parser = timeout, default_value = "60s")]
    start_timeout: Duration,
    /// Id of the deployment (Elasticsearch 8.8 and later) [default: the id of the model]
    #[arg(long, value_name = "ID")]
    deployment_id: Option<ServedId>,
    /// Number of allocations: copies of the model that work in parallel
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(LARGEST)))]
    number_of_allocations: Option<u32>,
    /// Threads per allocation: 1, 2, 4, 8, 16 or 32. More threads lower the latency; more allocations raise the throughput
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=32))]
    threads_per_allocation: Option<u32>,
    /// Priority of the deployment when memory is short
    #[arg(long, value_name = "PRIORITY", value_enum)]
    priority: Option<PriorityName>,
    /// Number of requests that can wait in the queue
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(LARGEST)))]
    queue_capacity: Option<u32>,
    /// Memory per node for cached results, such as 100mb; 0b disables the cache [default: the size of the model]
    #[arg(long, value_name = "SIZE")]
    cache_size: Option<ByteSize>,
    /// Scale the number of allocations with the load, with at least this many (Elasticsearch 8.16 and later)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=i64::from(LARGEST)))]
    min_allocations: Option<u32>,
    /// Scale the number of allocations with the load, with at most this many (Elasticsearch 8.16 and later)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(LARGEST)))]
    max_allocations: Option<u32>,
    /// Send one example text to the started model and print the result
    #[arg(long)]
    smoke_test: bool,
}

impl Report for Started {
    fn text(&self) -> String {
        let Deployment { deployment_id, state, .. } = &self.deployment;
        let mut text = format!("{deployment_id} {}", state.name());
        if let Some(test) = &self.smoke_test {
            text += &format!("\nsmoke test ({}): {}", test.task, test.summary);
        }
        text
    }
}

impl SetOption for StartArguments {
    fn set(&mut self, name: &str, value: &Value) -> Result<(), Unset> {
        match name {
            "wait-for" => self.wait_for = value.read(|it| Wait::from_str(it, false))?,
            "start-timeout" => self.start_timeout = value.read(timeout)?,
            "deployment-id" => self.deployment_id = Some(value.parsed()?),
            "number-of-allocations" => {
                self.number_of_allocations = Some(value.integer(1..=LARGEST)?);
            }
            "threads-per-allocation" => self.threads_per_allocation = Some(value.integer(1..=32)?),
            "priority" => {
                self.priority = Some(value.read(|it| PriorityName::from_str(it, false))?);
            }
            "queue-capacity" => self.queue_capacity = Some(value.integer(1..=LARGEST)?),
            "cache-size" => self.cache_size = Some(value.parsed()?),
            "min-allocations" => self.min_allocations = Some(value.integer(0..=LARGEST)?),
            "max-allocations" => self.max_allocations = Some(value.integer(1..=LARGEST)?),
            "smoke-test" => self.smoke_test = value.switch()?,
            _ => return Err(Unset::UnknownName),
        }
        Ok(())
    }
}

impl StartArguments {
    /// Makes an option of a deployment require `--start`.
    pub(super) fn requiring_start(argument: Arg) -> Arg {
        if argument.get_help_heading() == Some(HEADING) {
            argument.requires("start")
        } else {
            argument
        }
    }

    /// The settings, validated as far as possible without a cluster.
    pub(super) fn request(&self) -> Result<StartRequest, DeploymentError> {
        let options = StartOptions {
            deployment_id: self.deployment_id.clone(),
            wait_for: match self.wait_for {
                Wait::Starting => WaitFor::Starting,
                Wait::Started => WaitFor::Started,
                Wait::FullyAllocated => WaitFor::FullyAllocated,
            },
            timeout: self.start_timeout,
            number_of_allocations: self.number_of_allocations,
            threads_per_allocation: self.threads_per_allocation,
            priority: self.priority.map(|priority| match priority {
                PriorityName::Normal => Priority::Normal,
                PriorityName::Low => Priority::Low,
            }),
            queue_capacity: self.queue_capacity,
            cache_size: self.cache_size.clone(),
            min_allocations: self.min_allocations,
            max_allocations: self.max_allocations,
            adopt: false,
        };
        options.check()?;
        if self.smoke_test && options.wait_for == WaitFor::Starting {
            return Err(DeploymentError::Settings {
                reason: "the smoke test needs a deployment that answers".into(),
                hint: hint!(
                    "Set --wait-for to started or fully_allocated, or leave out --smoke-test."
                ),
            });
        }
        Ok(StartRequest { options, smoke_test: self.smoke_test })
    }
}

/// Parses a timeout.
fn timeout(text: &str) -> Result<Duration, String> {
    match units::duration(text)? {
        Duration::ZERO => Err("the time must not be 0".into()),
        time if time > LONGEST => Err("the time must not be longer than 7 days".into()),
        time => Ok(time),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeout_out_of_range_is_rejected() {
        assert_eq!(timeout("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(timeout("168h"), Ok(LONGEST));
        for text in ["0", "0s", "169h", "18446744073709551615", "soon"] {
            assert!(timeout(text).is_err(), "{text}");
        }
    }
}
