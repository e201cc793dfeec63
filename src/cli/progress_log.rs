//! Progress as lines of the log.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::byte_count::ByteCount;
use crate::observer::{Event, Observer, Stage};

/// Logs the end of every stage that is measured in bytes or texts and of every wait, and each new state of a wait.
#[derive(Debug)]
pub(super) struct ProgressLog {
    /// Whether to log the states of waits. If a bar shows them, they are not logged.
    logs_waits: bool,
    running: Mutex<HashMap<Stage, Running>>,
}

#[derive(Debug)]
struct Running {
    started: Instant,
    is_measured: bool,
    /// Bytes that an earlier run completed.
    resumed: u64,
    state: String,
}

impl ProgressLog {
    pub(super) fn new(logs_waits: bool) -> Self {
        Self { logs_waits, running: Mutex::default() }
    }
}

impl Observer for ProgressLog {
    fn observe(&self, event: &Event) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Started { stage, total } => {
                let (started, is_measured) = (Instant::now(), total.is_some());
                let new = Running { started, is_measured, resumed: 0, state: String::new() };
                running.insert(stage.clone(), new);
            }
            Event::Resumed { stage, done } => {
                if let Some(running) = running.get_mut(stage) {
                    running.resumed = *done;
                }
            }
            Event::Waiting { stage, state } => {
                if let Some(running) = running.get_mut(stage)
                    && self.logs_waits
                    && running.state != *state
                {
                    tracing::info!("{stage}: {state}");
                    running.state.clone_from(state);
                }
            }
            Event::Finished { stage, done, completed } => {
                let Some(Running { started, is_measured, resumed, .. }) = running.remove(stage)
                else {
                    return;
                };
                if !completed {
                    return;
                }
                let seconds = started.elapsed().as_secs_f64();
                let resumed = match resumed {
                    0 => String::new(),
                    bytes => format!(" ({} were already done)", ByteCount(bytes)),
                };
                if *stage == Stage::Infer {
                    let texts = if *done == 1 { "text" } else { "texts" };
                    tracing::info!("{stage}: {done} {texts} in {seconds:.1} s");
                } else if is_measured {
                    let done = ByteCount(*done);
                    tracing::info!("{stage}: {done} in {seconds:.1} s{resumed}");
                } else if *stage == Stage::Start {
                    tracing::info!("{stage}: {seconds:.1} s");
                }
            }
            Event::Advanced { .. } => {}
        }
    }
}
