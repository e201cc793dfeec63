//! Parameters of a start (contract, 7.1).

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::errors::ApiError;
use crate::json::Object;
use crate::query::{Query, byte_size, time_value};
use crate::version::{Version, since};

const PARSER: &str = "start_trained_model_deployment_request";

/// Parameters of a deployment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Parameters {
    pub(crate) model_id: String,
    pub(crate) deployment_id: String,
    pub(crate) number_of_allocations: u32,
    pub(crate) threads_per_allocation: u32,
    pub(crate) queue_capacity: u32,
    /// Cache size as returned by the server; `None` for the model's size.
    pub(crate) cache_size: Option<String>,
    pub(crate) priority: Option<String>,
    pub(crate) adaptive_allocations: Option<Value>,
}

/// State to wait for, and the timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wait {
    pub(crate) until: WaitFor,
    pub(crate) timeout: Duration,
}

/// State in which a start returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitFor {
    Starting,
    Started,
    FullyAllocated,
}

/// A parameter of the query or the body; the query takes precedence.
struct Either<'a> {
    query: &'a mut Query,
    body: &'a mut Object,
}

impl Either<'_> {
    fn string(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        let body = self.body.string(name)?;
        Ok(self.query.take(name).or(body))
    }

    fn int(&mut self, names: [&str; 2]) -> Result<Option<i32>, ApiError> {
        let mut found = None;
        for name in names {
            let body = self.body.int(name)?;
            found = found.or(self.query.int(name)?.or(body));
        }
        Ok(found)
    }
}

impl Parameters {
    /// Parses and validates the parameters of a start.
    pub(crate) fn parse(
        model_id: &str,
        mut query: Query,
        body: Option<Value>,
        version: Version,
    ) -> Result<(Self, Wait), ApiError> {
        let mut body = Object::new(PARSER, body.unwrap_or_else(|| json!({})))?;
        let adaptive = if version >= since::ADAPTIVE_ALLOCATIONS {
            match body.take("adaptive_allocations") {
                None | Some(Value::Null) => None,
                Some(value) => Some(Adaptive::parse(value)?),
            }
        } else {
            None
        };
        if let Some(supplied) = body.string("model_id")?.filter(|supplied| supplied != model_id) {
            return Err(ApiError::illegal_argument(format!(
                "Inconsistent model_id; '{supplied}' specified in the body differs from '{model_id}' specified as a URL argument"
            )));
        }
        let mut deployment_id = model_id.to_owned();
        if version >= since::DEPLOYMENT_ID {
            // The REST layer overwrites the value in the body.
            body.string("deployment_id")?;
            deployment_id = query.take("deployment_id").unwrap_or(deployment_id);
        }
        let mut either = Either { query: &mut query, body: &mut body };
        let timeout = match either.string("timeout")? {
            Some(text) => time_value("timeout", &text)?,
            None => Duration::from_secs(30),
        };
        let wait_for = either.string("wait_for")?;
        let allocations = either.int(["number_of_allocations", "model_threads"])?;
        let threads = either.int(["threads_per_allocation", "inference_threads"])?.unwrap_or(1);
        let queue = either.int(["queue_capacity", "queue_capacity"])?.unwrap_or(1024);
        let cache_size =
            if version >= since::CACHE_SIZE { either.string("cache_size")? } else { None };
        let priority = if version >= since::PRIORITY { either.string("priority")? } else { None };
        body.finish()?;
        query.finish()?;

        let cache_size = cache_size.map(|text| byte_size("cache_size", &text)).transpose()?;
        let low = match priority.as_deref().map(str::to_ascii_lowercase).as_deref() {
            None | Some("normal") => false,
            Some("low") => true,
            Some(other) => {
                return Err(ApiError::illegal_argument(format!(
                    "No enum constant org.elasticsearch.xpack.core.ml.inference.assignment.Priority.{}",
                    other.to_ascii_uppercase()
                )));
            }
        };
        let mut complaints = Vec::new();
        let mut check = |holds: bool, complaint: &str| {
            if !holds {
                complaints.push(complaint.to_owned());
            }
        };
        let until = match wait_for.as_deref() {
            Some("starting") => WaitFor::Starting,
            None | Some("started") => WaitFor::Started,
            Some("fully_allocated") => WaitFor::FullyAllocated,
            Some(other) => {
                check(
                    false,
                    &format!(
                        "invalid [wait_for] state [{other}]; must be one of [started,starting,fully_allocated"
                    ),
                );
                WaitFor::Started
            }
        };
        check(timeout > Duration::ZERO, "[timeout] must be positive");
        let is_adaptive = adaptive.is_some_and(|adaptive| adaptive.enabled);
        check(
            !is_adaptive || allocations.is_none(),
            "[number_of_allocations] cannot be set if adaptive allocations is enabled",
        );
        let minimum = adaptive.filter(|_| is_adaptive).and_then(|adaptive| adaptive.minimum);
        let allocations = allocations.unwrap_or_else(|| minimum.unwrap_or(1).max(1));
        check(allocations >= 1, "[number_of_allocations] must be a positive integer");
        check(threads >= 1, "[threads_per_allocation] must be a positive integer");
        check(
            threads < 1 || (threads <= 32 && threads.unsigned_abs().is_power_of_two()),
            "[threads_per_allocation] must be a power of 2 less than or equal to 32",
        );
        check(queue >= 1, "[queue_capacity] must be a positive integer");
        let limit = if version >= since::SMALLER_QUEUE { 100_000 } else { 1_000_000 };
        check(queue < limit, &format!("[queue_capacity] must be less than {limit}"));
        if low {
            check(allocations <= 1, "[number_of_allocations] must be 1 when [priority] is low");
            check(threads <= 1, "[threads_per_allocation] must be 1 when [priority] is low");
        }
        if let Some(adaptive) = adaptive {
            adaptive.check(&mut check);
        }
        if !complaints.is_empty() {
            return Err(ApiError::validation(&complaints));
        }
        let parameters = Self {
            model_id: model_id.to_owned(),
            deployment_id,
            number_of_allocations: allocations.unsigned_abs(),
            threads_per_allocation: threads.unsigned_abs(),
            queue_capacity: queue.unsigned_abs(),
            cache_size,
            priority: (version >= since::PRIORITY)
                .then(|| if low { "low".to_owned() } else { "normal".to_owned() }),
            adaptive_allocations: adaptive.map(Adaptive::to_json),
        };
        Ok((parameters, Wait { until, timeout }))
    }
}

/// Settings of adaptive allocations.
#[derive(Debug, Clone, Copy)]
struct Adaptive {
    enabled: bool,
    minimum: Option<i32>,
    maximum: Option<i32>,
}

impl Adaptive {
    fn parse(value: Value) -> Result<Self, ApiError> {
        let mut fields = Object::new("adaptive_allocations", value)?;
        let enabled = fields.boolean("enabled")?;
        let mut nullable = |name: &str| match fields.take(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                value.as_i64().and_then(|n| i32::try_from(n).ok()).map(Some).ok_or_else(|| {
                    ApiError::parse(format!(
                        "[1:1] [adaptive_allocations] failed to parse field [{name}]"
                    ))
                })
            }
        };
        let minimum = nullable("min_number_of_allocations")?;
        let maximum = nullable("max_number_of_allocations")?;
        fields.finish()?;
        Ok(Self { enabled: enabled.unwrap_or(false), minimum, maximum })
    }

    fn check(self, check: &mut impl FnMut(bool, &str)) {
        check(
            self.minimum.is_none_or(|n| n >= 0),
            "[min_number_of_allocations] must be a non-negative integer or null",
        );
        check(
            self.maximum.is_none_or(|n| n >= 1),
            "[max_number_of_allocations] must be a positive integer or null",
        );
        check(
            self.minimum.zip(self.maximum).is_none_or(|(least, most)| least <= most),
            "[min_number_of_allocations] must not be larger than [max_number_of_allocations]",
        );
    }

    fn to_json(self) -> Value {
        let mut object = json!({"enabled": self.enabled});
        if let Some(n) = self.minimum {
            object["min_number_of_allocations"] = n.into();
        }
        if let Some(n) = self.maximum {
            object["max_number_of_allocations"] = n.into();
        }
        object
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str, body: Value) -> Result<(Parameters, Wait), ApiError> {
        let query = Query::parse("/x", Some(query)).unwrap();
        Parameters::parse("m", query, Some(body), Version::default())
    }

    #[test]
    fn query_overrides_the_body() {
        let (parameters, wait) = parse(
            "number_of_allocations=2&deployment_id=d&timeout=1m",
            json!({"number_of_allocations": 3, "threads_per_allocation": 4, "deployment_id": "e",
                "wait_for": "fully_allocated", "cache_size": "10kb"}),
        )
        .unwrap();
        assert_eq!(parameters.deployment_id, "d");
        assert_eq!((parameters.number_of_allocations, parameters.threads_per_allocation), (2, 4));
        assert_eq!(parameters.cache_size.as_deref(), Some("10kb"));
        assert_eq!(wait, Wait { until: WaitFor::FullyAllocated, timeout: Duration::from_secs(60) });
    }

    #[test]
    fn invalid_parameters_are_rejected_with_the_contract_message() {
        for (query, body, text) in [
            ("wait_for=soon", json!({}), "invalid [wait_for] state [soon]"),
            ("timeout=0", json!({}), "[timeout] must be positive"),
            (
                "number_of_allocations=0",
                json!({}),
                "[number_of_allocations] must be a positive integer",
            ),
            (
                "threads_per_allocation=3",
                json!({}),
                "must be a power of 2 less than or equal to 32",
            ),
            (
                "threads_per_allocation=64",
                json!({}),
                "must be a power of 2 less than or equal to 32",
            ),
            ("queue_capacity=0", json!({}), "[queue_capacity] must be a positive integer"),
            ("queue_capacity=100000", json!({}), "[queue_capacity] must be less than 100000"),
            (
                "priority=low&number_of_allocations=2",
                json!({}),
                "[number_of_allocations] must be 1 when [priority] is low",
            ),
            (
                "number_of_allocations=2",
                json!({"adaptive_allocations": {"enabled": true}}),
                "[number_of_allocations] cannot be set if adaptive allocations is enabled",
            ),
            (
                "",
                json!({"adaptive_allocations": {"enabled": true, "min_number_of_allocations": 3,
                    "max_number_of_allocations": 2}}),
                "[min_number_of_allocations] must not be larger than [max_number_of_allocations]",
            ),
            (
                "adaptive_allocations=true",
                json!({}),
                "unrecognized parameter: [adaptive_allocations]",
            ),
            ("", json!({"allocations": 2}), "unknown field [allocations]"),
        ] {
            let complaint = parse(query, body).unwrap_err().everything();
            assert!(complaint.contains(text), "{complaint}");
        }
    }

    #[test]
    fn newer_parameters_are_rejected_by_older_servers() {
        let query = || Query::parse("/x", Some("deployment_id=d")).unwrap();
        assert!(Parameters::parse("m", query(), None, Version::new(8, 7, 0)).is_err());
        assert!(Parameters::parse("m", query(), None, Version::new(8, 8, 0)).is_ok());
        let adaptive = Some(json!({"adaptive_allocations": {"enabled": true}}));
        let none = Query::parse("/x", None).unwrap();
        assert!(Parameters::parse("m", none, adaptive, Version::new(8, 15, 0)).is_err());
    }
}
