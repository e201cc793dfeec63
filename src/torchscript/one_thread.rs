//! The number of threads that libtorch uses.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Limits libtorch to one thread on the calling thread until dropped.
///
/// Passes over short inputs mostly read the weights, which one thread does as fast as several; and on a busy machine several threads
/// wait for each other at every operation (verifying BERT-base beside a dozen other processes took 11.7 s with two threads and 0.8 s
/// with one).
///
/// Several threads may hold one at the same time: libtorch's setting, which is partly process-wide, is back at its original value on
/// each of those threads, and for new threads, when the last one is dropped. A thread may hold several: the last one that it drops ends
/// the limit.
pub(crate) struct OneThread(PhantomData<*const ()>);

/// Guards that exist, with libtorch's number of threads before the first of them.
struct State {
    guards: usize,
    original: i32,
}

thread_local! {
    /// Guards of this thread.
    static OWN: Cell<usize> = const { Cell::new(0) };
}

static STATE: Mutex<State> = Mutex::new(State { guards: 0, original: 0 });

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl OneThread {
    pub(crate) fn begin() -> Self {
        let mut state = state();
        if state.guards == 0 {
            state.original = tch::get_num_threads();
        }
        state.guards += 1;
        OWN.set(OWN.get() + 1);
        tch::set_num_threads(1);
        Self(PhantomData)
    }

    /// libtorch's number of threads without this limit.
    pub(crate) fn original(&self) -> usize {
        usize::try_from(state().original).unwrap_or(1)
    }
}

impl Drop for OneThread {
    fn drop(&mut self) {
        let mut state = state();
        state.guards -= 1;
        OWN.set(OWN.get() - 1);
        if OWN.get() == 0 {
            tch::set_num_threads(state.original);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    #[test]
    fn inner_guard_does_not_end_the_limit() {
        thread::spawn(|| {
            let _outer = OneThread::begin();
            drop(OneThread::begin());
            assert_eq!(tch::get_num_threads(), 1);
        })
        .join()
        .unwrap();
    }

    /// If each guard saved the number that it found, the second would restore the first one's 1. Other tests hold guards at the same
    /// time, so that the original number is any number above 1.
    #[test]
    fn interleaved_guards_do_not_leave_threads_limited_to_one() {
        tch::set_num_threads(3);
        let (first_began, both_began, first_ended) =
            (Barrier::new(2), Barrier::new(2), Barrier::new(2));
        thread::scope(|scope| {
            scope.spawn(|| {
                let guard = OneThread::begin();
                assert_eq!(tch::get_num_threads(), 1);
                first_began.wait();
                both_began.wait();
                drop(guard);
                first_ended.wait();
                assert!(tch::get_num_threads() > 1);
            });
            scope.spawn(|| {
                first_began.wait();
                let guard = OneThread::begin();
                both_began.wait();
                first_ended.wait();
                drop(guard);
                assert!(tch::get_num_threads() > 1);
            });
        });
    }
}
