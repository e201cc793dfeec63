//! The addresses of a cluster: which one is in use, and which ones are known to belong to the cluster.

use std::sync::{Mutex, MutexGuard, PoisonError};

use reqwest::Url;

/// What the client learned about an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AddressState {
    /// No request was sent to this address yet.
    Unchecked,
    /// The server belongs to the cluster.
    Checked,
    /// The server belongs to another cluster, or is not Elasticsearch.
    Excluded,
}

/// The addresses of one cluster, of which one is in use.
#[derive(Debug)]
pub(super) struct Addresses {
    urls: Vec<Url>,
    state: Mutex<(usize, Vec<AddressState>)>,
}

impl Addresses {
    /// Uses the first address. None has been checked.
    pub(super) fn new(urls: Vec<Url>) -> Self {
        let states = vec![AddressState::Unchecked; urls.len()];
        Self { urls, state: Mutex::new((0, states)) }
    }

    fn lock(&self) -> MutexGuard<'_, (usize, Vec<AddressState>)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn urls(&self) -> &[Url] {
        &self.urls
    }

    /// The index of the address in use.
    pub(super) fn current(&self) -> usize {
        self.lock().0
    }

    /// Uses the address at `index`.
    pub(super) fn select(&self, index: usize) {
        self.lock().0 = index;
    }

    /// Whether the address at `index` belongs to the cluster.
    pub(super) fn is_checked(&self, index: usize) -> bool {
        self.lock().1.get(index) == Some(&AddressState::Checked)
    }

    /// Records that the address at `index` belongs to the cluster.
    pub(super) fn set_checked(&self, index: usize) {
        if let Some(state) = self.lock().1.get_mut(index) {
            *state = AddressState::Checked;
        }
    }

    /// Never uses the address at `index` again. Returns whether it was used until now.
    pub(super) fn exclude(&self, index: usize) -> bool {
        let mut guard = self.lock();
        let is_new = match guard.1.get_mut(index) {
            Some(state) => {
                std::mem::replace(state, AddressState::Excluded) != AddressState::Excluded
            }
            None => false,
        };
        drop(guard);
        self.leave(index);
        is_new
    }

    /// Switches to the next address, if the one at `index` is in use. Excluded addresses are skipped.
    pub(super) fn leave(&self, index: usize) {
        let mut guard = self.lock();
        let (current, states) = &mut *guard;
        if *current != index {
            return;
        }
        let others = (1..states.len()).map(|step| (index + step) % states.len());
        if let Some(next) = others.into_iter().find(|next| states[*next] != AddressState::Excluded)
        {
            *current = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leave_skips_excluded_addresses() {
        let url = |port: u16| format!("http://h:{port}/").parse().unwrap();
        let addresses = Addresses::new(vec![url(1), url(2), url(3)]);
        addresses.set_checked(0);
        assert!(addresses.is_checked(0) && !addresses.is_checked(1));
        addresses.leave(0);
        assert_eq!(addresses.current(), 1);
        // Another request failed earlier and already switched to the next address.
        addresses.leave(0);
        assert_eq!(addresses.current(), 1);
        assert!(addresses.exclude(1) && !addresses.exclude(1));
        assert_eq!(addresses.current(), 2);
        addresses.leave(2);
        assert_eq!(addresses.current(), 0);
        addresses.exclude(2);
        addresses.leave(0);
        assert_eq!(addresses.current(), 0);
    }
}
