//! Environment variables that libtorch's OpenMP runtime reads when it is loaded.
//!
//! By default, OpenMP starts one thread for each processor that the process may run on, without regard to the quota of a container, and
//! its threads spin while they wait for each other. Beside other busy processes, a spinning thread takes the processor from the thread
//! that it waits for: quantizing MiniLM beside two busy loops took 20.7 s with spinning threads and 5.5 s with waiting ones.

use std::num::NonZeroUsize;
use std::thread::available_parallelism;

/// Number of threads of OpenMP, and of libtorch.
const THREADS: &str = "OMP_NUM_THREADS";

/// Whether waiting threads of OpenMP spin.
const WAIT_POLICY: &str = "OMP_WAIT_POLICY";

/// How long waiting threads of GNU's OpenMP spin. It takes precedence over the policy.
const SPIN_COUNT: &str = "GOMP_SPINCOUNT";

/// Names and values to set before libtorch is loaded. Variables that the user set are not in the list.
///
/// The number of threads is that of the processors that this process may use: its affinity and, on Linux, the CPU quota of its control
/// group limit it. Tokio and rayon compute the number of their threads in the same way.
#[must_use]
pub fn libtorch_environment() -> Vec<(&'static str, String)> {
    let processors = available_parallelism().map_or(1, NonZeroUsize::get);
    missing(processors, |name| std::env::var_os(name).is_some())
}

fn missing(processors: usize, is_set: impl Fn(&str) -> bool) -> Vec<(&'static str, String)> {
    let mut variables = Vec::new();
    if !is_set(THREADS) {
        variables.push((THREADS, processors.to_string()));
    }
    if !is_set(WAIT_POLICY) && !is_set(SPIN_COUNT) {
        variables.push((WAIT_POLICY, "PASSIVE".to_owned()));
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmp_waits_passively_on_the_available_processors_unless_the_user_decides() {
        let names = |set: &[&str]| {
            let variables = missing(3, |name| set.contains(&name)).into_iter();
            variables.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>()
        };
        assert_eq!(names(&[]), ["OMP_NUM_THREADS=3", "OMP_WAIT_POLICY=PASSIVE"]);
        assert_eq!(names(&["GOMP_SPINCOUNT"]), ["OMP_NUM_THREADS=3"]);
        assert_eq!(names(&["OMP_WAIT_POLICY"]), ["OMP_NUM_THREADS=3"]);
        assert_eq!(names(&["OMP_NUM_THREADS"]), ["OMP_WAIT_POLICY=PASSIVE"]);
    }
}
