//! Number of parts of an upload that are sent at a time.

use std::time::Duration;

/// Number of requests in flight at first.
const FIRST: usize = 4;

/// Maximum number of bytes of the definition in flight, before encoding. The server holds the requests in memory.
const MOST_BYTES: usize = 16 << 20;

/// Number of requests in flight.
///
/// A round is as many responses as the window is wide, to requests that were sent since the last change. The window doubles after each
/// round while the server responds as fast as in its fastest round, so that a distant cluster does not cost a wait for every few parts.
/// After the first round that is slower, the window grows by one. It is narrowed to three quarters, but not below its first width, by a
/// round that takes more than twice as long, and halved by a push-back.
#[derive(Debug)]
pub(super) struct Window {
    most: usize,
    width: f64,
    /// Index of the first request that was sent with this width. Responses to earlier requests say nothing about the width.
    changed_at: u64,
    /// Response times of this round.
    round: Vec<Duration>,
    /// Shortest median response time of a round.
    fastest: Duration,
    doubles: bool,
}

impl Window {
    /// A window of at most `most` requests with `part_size` bytes each.
    pub(super) fn new(most: usize, part_size: usize) -> Self {
        let most = most.min(MOST_BYTES / part_size.max(1)).max(1);
        Self {
            most,
            width: most.min(FIRST) as f64,
            changed_at: 0,
            round: Vec::new(),
            fastest: Duration::MAX,
            doubles: true,
        }
    }

    /// Maximum number of requests in flight.
    pub(super) fn width(&self) -> usize {
        (self.width as usize).clamp(1, self.most)
    }

    /// Counts a success of the request with index `request`, which took `time`, when `sent` requests had been sent.
    pub(super) fn succeeded(&mut self, request: u64, sent: u64, time: Duration) {
        if request < self.changed_at {
            return;
        }
        self.round.push(time);
        if self.round.len() < self.width() {
            return;
        }
        self.round.sort_unstable();
        let median = self.round.get(self.round.len() / 2).copied().unwrap_or(time);
        self.fastest = self.fastest.min(median);
        let slower = median.as_secs_f64() / self.fastest.as_secs_f64().max(1e-6);
        let least = self.most.min(FIRST) as f64;
        if self.width < least {
            // The server has recovered from a push-back.
            self.change(self.width + 1., sent);
        } else if slower <= 1.5 {
            self.change(if self.doubles { self.width * 2. } else { self.width + 1. }, sent);
        } else if slower <= 2. {
            self.doubles = false;
            self.change(self.width, sent);
        } else {
            self.doubles = false;
            self.change((self.width * 0.75).max(least), sent);
        }
    }

    /// Narrows the window after a push-back of the request with index `request`, when `sent` requests had been sent.
    pub(super) fn pushed_back(&mut self, request: u64, sent: u64) {
        if request >= self.changed_at {
            self.doubles = false;
            self.change(self.width / 2., sent);
        }
    }

    fn change(&mut self, width: f64, sent: u64) {
        self.round.clear();
        let width = width.clamp(1., self.most as f64);
        // Without a change, the requests in flight belong to the next round.
        if width != self.width {
            (self.width, self.changed_at) = (width, sent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A window with the index of its next request.
    struct Sender(Window, u64);

    impl Sender {
        fn new(most: usize, part_size: usize) -> Self {
            Self(Window::new(most, part_size), 0)
        }

        /// Sends as many requests as the window allows, which all take `milliseconds`. Returns the width after that.
        fn round(&mut self, milliseconds: u64) -> usize {
            let first = self.1;
            self.1 += self.0.width() as u64;
            for request in first..self.1 {
                self.0.succeeded(request, self.1, Duration::from_millis(milliseconds));
            }
            self.0.width()
        }
    }

    #[test]
    fn window_doubles_while_responses_stay_as_fast() {
        let mut sender = Sender::new(16, 1 << 20);
        assert_eq!(sender.0.width(), 4);
        assert_eq!([20, 21, 20, 20].map(|time| sender.round(time)), [8, 16, 16, 16]);
        assert_eq!(Sender::new(7, 1 << 20).round(1), 7);
        assert_eq!(Sender::new(2, 1 << 20).round(1), 2);
    }

    #[test]
    fn window_narrows_to_its_first_width_when_responses_are_slow() {
        let mut sender = Sender::new(16, 1 << 20);
        assert_eq!([20, 20].map(|time| sender.round(time)), [8, 16]);
        assert_eq!([35, 50, 50, 50, 50, 50].map(|time| sender.round(time)), [16, 12, 9, 6, 5, 4]);
        assert_eq!([50, 29, 29, 31].map(|time| sender.round(time)), [4, 5, 6, 6]);
    }

    #[test]
    fn window_holds_at_most_16_mib() {
        for (size, most) in [(1 << 20, 16), (3 << 20, 5), (8 << 20, 2), (32 << 20, 1), (1024, 64)] {
            let mut sender = Sender::new(64, size);
            (0..8).for_each(|_| _ = sender.round(20));
            assert_eq!(sender.0.width(), most, "{size}");
        }
    }

    #[test]
    fn window_halves_once_per_round_of_push_backs_and_recovers() {
        let mut sender = Sender::new(8, 1 << 20);
        assert_eq!(sender.round(20), 8);
        // Eight requests are in flight, numbers 4 to 11; three of them are pushed back.
        for request in [4, 7, 9] {
            sender.0.pushed_back(request, 12);
        }
        assert_eq!(sender.0.width(), 4);
        sender.0.pushed_back(12, 13);
        sender.0.pushed_back(13, 14);
        sender.0.pushed_back(14, 15);
        assert_eq!(sender.0.width(), 1);
        sender.1 = 15;
        assert_eq!([90, 90, 90, 90, 20, 20].map(|time| sender.round(time)), [2, 3, 4, 4, 5, 6]);
    }

    #[test]
    fn responses_to_requests_of_an_earlier_width_are_ignored() {
        let mut window = Window::new(16, 1 << 20);
        let time = Duration::from_millis(20);
        (0..4).for_each(|request| window.succeeded(request, 6, time));
        assert_eq!(window.width(), 8);
        // Requests 4 and 5 were sent while four were allowed.
        (4..6).for_each(|request| window.succeeded(request, 14, 9 * time));
        (6..14).for_each(|request| window.succeeded(request, 14, time));
        assert_eq!(window.width(), 16);
    }
}
