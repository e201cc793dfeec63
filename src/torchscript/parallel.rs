//! Passes on several threads.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::OneThread;

/// Calls `run` for each item on as many threads as libtorch uses, and returns the results in the order of the items.
///
/// libtorch computes each item on one thread, so results do not depend on the number of threads. This is also faster for passes over few
/// tokens than several threads for each pass.
///
/// # Errors
/// The first error of `run`. No further item begins after an error.
pub(crate) fn in_parallel<I: Sync, R: Send, E: Send>(
    items: &[I],
    run: impl Fn(&I) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    let one = OneThread::begin();
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<(usize, R)>, E> {
        let _one = OneThread::begin();
        let mut done = Vec::new();
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(place) else { return Ok(done) };
            match run(item) {
                Ok(result) => done.push((place, result)),
                Err(error) => {
                    next.store(items.len(), Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
    };
    let mut results = thread::scope(|scope| {
        let others: Vec<_> =
            (1..one.original().min(items.len())).map(|_| scope.spawn(work)).collect();
        let mut results = work();
        for other in others {
            let found = other.join().unwrap_or_else(|panic| resume_unwind(panic));
            results = results.and_then(|mut results| {
                results.extend(found?);
                Ok(results)
            });
        }
        results
    })?;
    results.sort_by_key(|(place, _)| *place);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_the_order_of_the_items_and_an_error_ends_the_work() {
        let items: Vec<usize> = (0..100).collect();
        let doubled = in_parallel(&items, |item| Ok::<_, String>(item * 2)).unwrap();
        assert_eq!(doubled, items.iter().map(|item| item * 2).collect::<Vec<_>>());
        let failed = in_parallel(&items, |item| if *item == 3 { Err(*item) } else { Ok(()) });
        assert_eq!(failed, Err(3));
        assert_eq!(in_parallel(&[], |(): &()| Ok::<_, String>(())), Ok(Vec::new()));
    }
}
