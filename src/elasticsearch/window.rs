//! Number of parts of an upload that are sent at a time.

/// The number of requests in flight. It grows by one after each round without push-back, and is halved after a push-back (additive
/// increase, multiplicative decrease).
#[derive(Debug)]
pub(super) struct Window {
    most: usize,
    width: f64,
    /// Push-backs of requests before this one are ignored, because these requests were sent with another window.
    narrowed_at: u64,
}

impl Window {
    pub(super) fn new(most: usize) -> Self {
        let most = most.max(1);
        Self { most, width: most as f64, narrowed_at: 0 }
    }

    /// Maximum number of requests in flight.
    pub(super) fn width(&self) -> usize {
        (self.width as usize).clamp(1, self.most)
    }

    pub(super) fn succeeded(&mut self) {
        self.width = (self.width + 1. / self.width).min(self.most as f64);
    }

    /// Narrows the window after a push-back of the request with index `request`, when `sent` requests had been sent.
    pub(super) fn pushed_back(&mut self, request: u64, sent: u64) {
        if request >= self.narrowed_at {
            self.width = (self.width / 2.).max(1.);
            self.narrowed_at = sent;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_halves_once_per_round_and_grows_on_success() {
        let mut window = Window::new(8);
        // Eight requests are in flight, numbers 0 to 7; three of them are pushed back.
        for request in [0, 3, 5] {
            window.pushed_back(request, 8);
        }
        assert_eq!(window.width(), 4);
        window.pushed_back(8, 9);
        window.pushed_back(9, 10);
        window.pushed_back(10, 11);
        assert_eq!(window.width(), 1);
        window.succeeded();
        assert_eq!(window.width(), 2);
        for _ in 0..100 {
            window.succeeded();
        }
        assert_eq!(window.width(), 8);
    }
}
