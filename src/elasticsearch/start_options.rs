//! [`StartOptions`]: the settings of a deployment, and their validation (contract 7.1).

use std::str::FromStr;
use std::time::Duration;

use serde_json::{Value, json};

use super::stats::Deployment;
use super::{Client, DeploymentError, ServedId};
use crate::hint::{Hint, Setting, hint};
use crate::version::Version;

/// Maximum wait of a single request, as in eland. For longer waits the stats are polled, because proxies close idle connections.
const LONGEST_REQUEST: Duration = Duration::from_secs(60);

/// State of a deployment to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WaitFor {
    /// The server has accepted the start.
    Starting,
    /// One allocation responds.
    #[default]
    Started,
    /// All allocations respond.
    FullyAllocated,
}

impl WaitFor {
    /// The name in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Started => "started",
            Self::FullyAllocated => "fully_allocated",
        }
    }

    pub(super) fn is_reached_by(self, deployment: &Deployment) -> bool {
        match self {
            Self::Starting => true,
            Self::Started => deployment.answers(),
            Self::FullyAllocated => {
                deployment.answers() && deployment.allocations >= deployment.target_allocations
            }
        }
    }
}

/// Priority of a deployment on a node without enough memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// The default.
    Normal,
    /// Stopped before other deployments, and limited to one allocation with one thread.
    Low,
}

/// A number of bytes in the server's format: `512mb`, `0b`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByteSize(String);

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.trim().to_ascii_lowercase();
        let digits = lower.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = lower.split_at(digits);
        let shift = match unit.trim_start() {
            // The server accepts a number without a unit only if it is 0.
            "b" => 0,
            "" if number.bytes().all(|digit| digit == b'0') => 0,
            "k" | "kb" => 10,
            "m" | "mb" => 20,
            "g" | "gb" => 30,
            "t" | "tb" => 40,
            "p" | "pb" => 50,
            _ => {
                return Err(
                    "write a whole number with a unit, such as 0b, 512kb, 100mb or 2gb".into()
                );
            }
        };
        let fits = number.parse::<u64>().ok().filter(|n| *n <= i64::MAX.unsigned_abs() >> shift);
        let number = fits.ok_or("write a number with a unit, such as 0b, 100mb or 2gb")?;
        let unit = match shift {
            0 => "b",
            10 => "kb",
            20 => "mb",
            30 => "gb",
            40 => "tb",
            _ => "pb",
        };
        Ok(Self(format!("{number}{unit}")))
    }
}

/// The settings of a deployment. The server chooses those that are not set.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StartOptions {
    /// The id of the deployment; by default the id of the model.
    pub deployment_id: Option<ServedId>,
    /// State to wait for.
    pub wait_for: WaitFor,
    /// Maximum wait, at least 1 ms.
    pub timeout: Duration,
    /// Number of copies of the model that work in parallel.
    pub number_of_allocations: Option<u32>,
    /// Number of threads of each copy: a power of two up to 32.
    pub threads_per_allocation: Option<u32>,
    /// Priority on a node without enough memory.
    pub priority: Option<Priority>,
    /// Number of requests that can wait on a node.
    pub queue_capacity: Option<u32>,
    /// Size of the cache of results on each node.
    pub cache_size: Option<ByteSize>,
    /// Minimum number of copies, if the number follows the load.
    pub min_allocations: Option<u32>,
    /// Maximum number of copies, if the number follows the load.
    pub max_allocations: Option<u32>,
    /// Whether an existing deployment with this id counts as success.
    pub adopt: bool,
}

impl Default for StartOptions {
    /// Waits up to 60 s for one allocation, as eland does.
    fn default() -> Self {
        Self {
            deployment_id: None,
            wait_for: WaitFor::default(),
            timeout: Duration::from_secs(60),
            number_of_allocations: None,
            threads_per_allocation: None,
            priority: None,
            queue_capacity: None,
            cache_size: None,
            min_allocations: None,
            max_allocations: None,
            adopt: false,
        }
    }
}

impl StartOptions {
    /// Checks the settings against the rules of all server versions (contract 7.1).
    ///
    /// # Errors
    /// [`DeploymentError::Settings`] for the first setting that is not valid.
    pub fn check(&self) -> Result<(), DeploymentError> {
        let change = |setting: Setting| hint!("Change ", setting, ".");
        let leave_out = |setting: Setting| hint!("Leave out ", setting, ".");
        let is_low = self.priority == Some(Priority::Low);
        let count = self.number_of_allocations;
        let limits = self.min_allocations.zip(self.max_allocations);
        let checks: [(bool, &str, Hint); 9] = [
            (
                self.timeout < Duration::from_millis(1),
                "the timeout must be at least 1 ms",
                change(Setting::StartTimeout),
            ),
            (
                count == Some(0),
                "the number of allocations must not be 0",
                change(Setting::NumberOfAllocations),
            ),
            (
                self.threads_per_allocation.is_some_and(|n| n > 32 || !n.is_power_of_two()),
                "the threads per allocation must be 1, 2, 4, 8, 16 or 32",
                change(Setting::ThreadsPerAllocation),
            ),
            (
                self.queue_capacity == Some(0),
                "the queue capacity must not be 0",
                change(Setting::QueueCapacity),
            ),
            (
                self.max_allocations == Some(0),
                "the maximum number of allocations must not be 0",
                change(Setting::MaxAllocations),
            ),
            (
                limits.is_some_and(|(least, most)| least > most),
                "the minimum number of allocations must not be larger than the maximum",
                hint!("Change ", Setting::MinAllocations, " or ", Setting::MaxAllocations, "."),
            ),
            (
                self.is_adaptive() && count.is_some(),
                "a deployment has either a fixed number of allocations or adaptive limits",
                hint!(
                    "Leave out ",
                    Setting::NumberOfAllocations,
                    ", or both ",
                    Setting::MinAllocations,
                    " and ",
                    Setting::MaxAllocations,
                    "."
                ),
            ),
            (
                is_low && count.or(self.min_allocations).is_some_and(|n| n > 1),
                "a deployment with low priority can have only one allocation",
                hint!(
                    "Leave out ",
                    Setting::NumberOfAllocations,
                    " and ",
                    Setting::MinAllocations,
                    ", or change ",
                    Setting::Priority,
                    "."
                ),
            ),
            (
                is_low && self.threads_per_allocation.is_some_and(|n| n > 1),
                "a deployment with low priority can have only one thread",
                leave_out(Setting::ThreadsPerAllocation),
            ),
        ];
        match checks.into_iter().find(|(is_wrong, ..)| *is_wrong) {
            Some((_, reason, hint)) => Err(DeploymentError::settings(reason, hint)),
            None => Ok(()),
        }
    }

    /// Also checks the settings against the rules of the cluster's version.
    ///
    /// # Errors
    /// [`DeploymentError::Settings`] or [`DeploymentError::Unsupported`].
    pub fn check_for(&self, client: &Client) -> Result<(), DeploymentError> {
        self.check()?;
        for (setting, is_set, needed) in [
            (Setting::DeploymentId, self.deployment_id.is_some(), Version::DEPLOYMENT_ID),
            (
                Setting::MinAllocations,
                self.min_allocations.is_some(),
                Version::ADAPTIVE_ALLOCATIONS,
            ),
            (
                Setting::MaxAllocations,
                self.max_allocations.is_some(),
                Version::ADAPTIVE_ALLOCATIONS,
            ),
        ] {
            if is_set && !client.supports(needed) {
                let found = client.version();
                return Err(DeploymentError::Unsupported { setting, found, needed });
            }
        }
        let is_newer = client.supports(Version::SMALLER_QUEUE);
        let limit = if is_newer { 100_000 } else { 1_000_000 };
        match self.queue_capacity {
            Some(capacity) if capacity >= limit => Err(DeploymentError::settings(
                format!("the queue capacity must be less than {limit} on this cluster"),
                hint!("Change ", Setting::QueueCapacity, "."),
            )),
            _ => Ok(()),
        }
    }

    fn is_adaptive(&self) -> bool {
        self.min_allocations.is_some() || self.max_allocations.is_some()
    }

    /// The query of the request.
    pub(super) fn query(&self) -> String {
        let milliseconds = self.timeout.min(LONGEST_REQUEST).as_millis().max(1);
        let mut query = match milliseconds % 1000 {
            0 => format!("timeout={}s", milliseconds / 1000),
            _ => format!("timeout={milliseconds}ms"),
        };
        query += &format!("&wait_for={}", self.wait_for.name());
        if let Some(id) = &self.deployment_id {
            query += &format!("&deployment_id={}", id.segment());
        }
        for (name, number) in [
            ("number_of_allocations", self.number_of_allocations),
            ("threads_per_allocation", self.threads_per_allocation),
            ("queue_capacity", self.queue_capacity),
        ] {
            if let Some(number) = number {
                query += &format!("&{name}={number}");
            }
        }
        if let Some(priority) = self.priority {
            let name = if priority == Priority::Low { "low" } else { "normal" };
            query += &format!("&priority={name}");
        }
        if let Some(ByteSize(size)) = &self.cache_size {
            query += &format!("&cache_size={size}");
        }
        query
    }

    /// The body of the request. Adaptive allocations can only be set there.
    pub(super) fn body(&self) -> Option<Value> {
        if !self.is_adaptive() {
            return None;
        }
        let mut adaptive = json!({"enabled": true});
        if let Some(least) = self.min_allocations {
            adaptive["min_number_of_allocations"] = least.into();
        }
        if let Some(most) = self.max_allocations {
            adaptive["max_number_of_allocations"] = most.into();
        }
        Some(json!({"adaptive_allocations": adaptive}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> StartOptions {
        StartOptions::default()
    }

    #[test]
    fn default_options_pass_the_check() {
        StartOptions::default().check().unwrap();
        StartOptions { timeout: Duration::MAX, ..options() }.check().unwrap();
    }

    #[test]
    fn check_refuses_what_every_server_refuses() {
        for (options, text) in [
            (StartOptions { timeout: Duration::ZERO, ..options() }, "at least 1 ms"),
            (
                StartOptions { number_of_allocations: Some(0), ..options() },
                "number of allocations must not",
            ),
            (StartOptions { threads_per_allocation: Some(3), ..options() }, "1, 2, 4, 8, 16 or 32"),
            (StartOptions { threads_per_allocation: Some(64), ..options() }, "16 or 32"),
            (StartOptions { threads_per_allocation: Some(0), ..options() }, "16 or 32"),
            (StartOptions { queue_capacity: Some(0), ..options() }, "queue capacity"),
            (StartOptions { max_allocations: Some(0), ..options() }, "maximum number"),
            (
                StartOptions { min_allocations: Some(3), max_allocations: Some(2), ..options() },
                "must not be larger than",
            ),
            (
                StartOptions {
                    min_allocations: Some(0),
                    number_of_allocations: Some(1),
                    ..options()
                },
                "adaptive limits",
            ),
            (
                StartOptions {
                    priority: Some(Priority::Low),
                    number_of_allocations: Some(2),
                    ..options()
                },
                "only one allocation",
            ),
            (
                StartOptions {
                    priority: Some(Priority::Low),
                    min_allocations: Some(2),
                    ..options()
                },
                "only one allocation",
            ),
            (
                StartOptions {
                    priority: Some(Priority::Low),
                    threads_per_allocation: Some(2),
                    ..options()
                },
                "only one thread",
            ),
        ] {
            let error = options.check().unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
        let low = StartOptions {
            priority: Some(Priority::Low),
            number_of_allocations: Some(1),
            threads_per_allocation: Some(1),
            ..options()
        };
        low.check().unwrap();
        StartOptions { threads_per_allocation: Some(32), ..options() }.check().unwrap();
    }

    #[test]
    fn request_contains_what_is_set() {
        assert_eq!(options().query(), "timeout=60s&wait_for=started");
        assert!(options().body().is_none());
        let all = StartOptions {
            deployment_id: Some("for search!".replace(' ', "-").parse().unwrap()),
            wait_for: WaitFor::FullyAllocated,
            timeout: Duration::from_millis(1500),
            threads_per_allocation: Some(4),
            priority: Some(Priority::Normal),
            queue_capacity: Some(5),
            cache_size: Some("10KB".parse().unwrap()),
            min_allocations: Some(0),
            max_allocations: Some(3),
            ..options()
        };
        assert_eq!(
            all.query(),
            "timeout=1500ms&wait_for=fully_allocated&deployment_id=for-search%21&threads_per_allocation=4&queue_capacity=5\
             &priority=normal&cache_size=10kb"
        );
        let body = all.body().unwrap();
        let adaptive = json!({"enabled": true, "min_number_of_allocations": 0,
            "max_number_of_allocations": 3});
        assert_eq!(body, json!({"adaptive_allocations": adaptive}));
        let patient = StartOptions { timeout: Duration::from_secs(3600), ..options() };
        assert!(patient.query().starts_with("timeout=60s&"));
    }

    #[test]
    fn byte_sizes_have_units() {
        for (text, read) in [
            ("0", "0b"),
            ("0b", "0b"),
            ("10KB", "10kb"),
            ("2 gb", "2gb"),
            ("1m", "1mb"),
            ("8191pb ", "8191pb"),
        ] {
            assert_eq!(text.parse::<ByteSize>().unwrap().0, read);
        }
        for text in ["", "10", "kb", "-1b", "1.5gb", "1x", "99999999999999999999b", "8192pb"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }
}
