//! Deployments, the state machine of a served model (contract, 7 and 13.1).

pub(crate) mod allocation;
mod load;
pub(crate) mod parameters;
pub(crate) mod stats;

pub(crate) use load::{ServedModel, load};

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::watch;

use crate::configuration::milliseconds_now;
use allocation::{Failures, Layout, Share};
use parameters::Parameters;

/// State of a deployment.
#[derive(Clone)]
pub(crate) enum State {
    Starting,
    /// The model and the time when it was loaded.
    Started(Arc<ServedModel>, Instant),
    /// Reason reported by the node. The deployment must be stopped before it can be started again.
    Failed(String),
    /// Stopped, or removed after a failed start.
    Removed,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl State {
    /// Value of `state` and `routing_state`.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Started(..) => "started",
            Self::Failed(_) => "failed",
            Self::Removed => "stopping",
        }
    }
}

/// Inference counters of a deployment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counters {
    pub(crate) inferences: u64,
    pub(crate) errors: u64,
    pub(crate) timeouts: u64,
    pub(crate) spent: Duration,
    /// Milliseconds since 1970.
    pub(crate) last_access: Option<u64>,
}

/// A deployment of a model.
#[derive(Debug)]
pub(crate) struct Deployment {
    pub(crate) parameters: Parameters,
    pub(crate) model_bytes: u64,
    pub(crate) per_deployment_memory: u64,
    pub(crate) per_allocation_memory: u64,
    /// Milliseconds since 1970.
    pub(crate) start_time: u64,
    layout: Layout,
    /// Reason why no node has been assigned yet.
    pub(crate) unassigned: Option<String>,
    state: watch::Sender<State>,
    counters: Mutex<Counters>,
}

impl Deployment {
    pub(crate) fn new(
        parameters: Parameters,
        model_bytes: u64,
        memory: (u64, u64),
        layout: Layout,
        unassigned: Option<String>,
    ) -> Self {
        Self {
            parameters,
            model_bytes,
            per_deployment_memory: memory.0,
            per_allocation_memory: memory.1,
            start_time: milliseconds_now(),
            layout,
            unassigned,
            state: watch::Sender::new(State::Starting),
            counters: Mutex::default(),
        }
    }

    pub(crate) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Nodes with allocations; empty before a node is assigned.
    pub(crate) fn shares(&self) -> Vec<Share> {
        let since = match self.state() {
            State::Started(_, since) => Some(since),
            _ => None,
        };
        match self.unassigned {
            Some(_) => Vec::new(),
            None => self.layout.shares(self.parameters.number_of_allocations, since),
        }
    }

    /// Nodes whose failure makes a waiting start fail, with their reasons.
    pub(crate) fn failures(&self) -> Vec<(String, String)> {
        match (self.state(), self.layout.failures(self.parameters.number_of_allocations)) {
            (State::Failed(_), Failures::All(failures)) | (_, Failures::Some(failures)) => failures,
            (State::Failed(reason), _) => {
                self.shares().into_iter().map(|share| (share.node, reason.clone())).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Waits until all allocations of a loaded model have started.
    pub(crate) async fn fully_allocated(&self) -> State {
        let state = self.settled().await;
        if let State::Started(_, since) = &state {
            let wanted = self.parameters.number_of_allocations;
            tokio::time::sleep_until((*since + self.layout.complete_after(wanted)).into()).await;
        }
        state
    }

    /// Ends the starting phase, unless the deployment was removed.
    pub(crate) fn finish(&self, result: Result<ServedModel, String>) {
        let result = match self.layout.failures(self.parameters.number_of_allocations) {
            Failures::All(mut failures) => Err(failures.remove(0).1),
            _ => result,
        };
        self.state.send_if_modified(|state| {
            if !matches!(state, State::Starting) {
                return false;
            }
            *state = match result {
                Ok(served) => State::Started(Arc::new(served), Instant::now()),
                Err(reason) => State::Failed(reason),
            };
            true
        });
    }

    /// Waits until the deployment is no longer starting.
    pub(crate) async fn settled(&self) -> State {
        let mut state = self.state.subscribe();
        match state.wait_for(|state| !matches!(state, State::Starting)).await {
            Ok(state) => state.clone(),
            Err(_) => State::Removed,
        }
    }

    pub(crate) fn counters(&self) -> MutexGuard<'_, Counters> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Response of a start.
    pub(crate) fn assignment(&self) -> Value {
        let parameters = &self.parameters;
        let state = self.state();
        let allocations = parameters.number_of_allocations;
        let mut routing_table = json!({});
        for share in self.shares() {
            let (routing, reason) = share.routing(&state);
            routing_table[&share.node] = json!({
                "current_allocations": share.current,
                "target_allocations": share.target,
                "routing_state": routing,
                "reason": reason.unwrap_or_default(),
            });
        }
        let mut task = json!({
            "model_id": parameters.model_id,
            "deployment_id": parameters.deployment_id,
            "model_bytes": self.model_bytes,
            "threads_per_allocation": parameters.threads_per_allocation,
            "number_of_allocations": allocations,
            "queue_capacity": parameters.queue_capacity,
            "cache_size": self.cache_size(),
        });
        if let Some(priority) = &parameters.priority {
            task["priority"] = priority.clone().into();
        }
        task["per_deployment_memory_bytes"] = self.per_deployment_memory.into();
        task["per_allocation_memory_bytes"] = self.per_allocation_memory.into();
        let mut assignment = json!({
            "task_parameters": task,
            "routing_table": routing_table,
            "assignment_state": state.name(),
            "start_time": self.start_time.to_string(),
            "max_assigned_allocations": allocations,
        });
        if let Some(adaptive) = &parameters.adaptive_allocations {
            assignment["adaptive_allocations"] = adaptive.clone();
        }
        json!({"assignment": assignment})
    }

    /// Cache size as returned by the server; defaults to the model's size.
    pub(crate) fn cache_size(&self) -> String {
        self.parameters.cache_size.clone().unwrap_or_else(|| format!("{}b", self.model_bytes))
    }
}

impl Share {
    /// `routing_state` and its reason for a node's share of a deployment in this state.
    pub(crate) fn routing(&self, state: &State) -> (&'static str, Option<String>) {
        match (state, &self.failure) {
            (State::Failed(reason), None) => ("failed", Some(reason.clone())),
            (State::Started(..) | State::Failed(_), Some(reason)) => {
                ("failed", Some(reason.clone()))
            }
            (State::Started(..), None) if self.current == 0 => ("starting", None),
            (state, _) => (state.name(), None),
        }
    }
}

/// All deployments by id.
#[derive(Debug, Default)]
pub(crate) struct Deployments(Mutex<BTreeMap<String, Arc<Deployment>>>);

impl Deployments {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Deployment>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn len(&self) -> usize {
        self.all().len()
    }

    /// All deployments, by id.
    pub(crate) fn list(&self) -> Vec<Arc<Deployment>> {
        self.all().values().cloned().collect()
    }

    pub(crate) fn get(&self, id: &str) -> Option<Arc<Deployment>> {
        self.all().get(id).cloned()
    }

    /// Deployments of a model, by id.
    pub(crate) fn of_model(&self, model_id: &str) -> Vec<Arc<Deployment>> {
        let of = |deployment: &&Arc<Deployment>| deployment.parameters.model_id == model_id;
        self.all().values().filter(of).cloned().collect()
    }

    /// Adds a deployment. Returns false if the id exists.
    pub(crate) fn add(&self, deployment: &Arc<Deployment>) -> bool {
        let mut all = self.all();
        let id = &deployment.parameters.deployment_id;
        if all.contains_key(id) {
            return false;
        }
        all.insert(id.clone(), Arc::clone(deployment));
        true
    }

    /// Removes a deployment and notifies the requests that wait for it.
    pub(crate) fn remove(&self, id: &str) -> bool {
        match self.all().remove(id) {
            Some(deployment) => {
                deployment.state.send_replace(State::Removed);
                true
            }
            None => false,
        }
    }
}
