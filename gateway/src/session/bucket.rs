//! Token bucket of one connection.

/// How a bucket fills.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    per_ms: f32,
    burst: f32,
}

impl Rate {
    /// `per_second` tokens a second, at most `burst` of them saved up.
    #[must_use]
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "rates need no more than f32 holds"
    )]
    pub fn new(per_second: f64, burst: u32) -> Self {
        Self { per_ms: (per_second / 1000.0) as f32, burst: burst as f32 }
    }
}

/// 8 bytes: tokens at a point in time.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    tokens: f32,
    at_ms: u32,
}

impl Bucket {
    /// A full bucket.
    #[must_use]
    pub fn full(rate: &Rate, now_ms: u32) -> Self {
        Self { tokens: rate.burst, at_ms: now_ms }
    }

    /// Takes one token.
    ///
    /// # Errors
    /// None is there; the number is after how many milliseconds one will be.
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "small positive numbers"
    )]
    pub fn take(&mut self, rate: &Rate, now_ms: u32) -> Result<(), u32> {
        // The clock wraps after 49 days: then a connection gets a little less than its due, once.
        let elapsed_ms = now_ms.wrapping_sub(self.at_ms) as f32;
        self.tokens = (self.tokens + elapsed_ms * rate.per_ms).min(rate.burst);
        self.at_ms = now_ms;
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        Err(((1.0 - self.tokens) / rate.per_ms).ceil().max(1.0) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_one_a_second() {
        let rate = Rate::new(1.0, 5);
        let mut bucket = Bucket::full(&rate, 1_000);
        for _ in 0..5 {
            assert_eq!(bucket.take(&rate, 1_000), Ok(()));
        }
        assert_eq!(bucket.take(&rate, 1_000), Err(1_000));
        assert_eq!(bucket.take(&rate, 1_400), Err(600));
        assert_eq!(bucket.take(&rate, 2_000), Ok(()));
        assert_eq!(bucket.take(&rate, 2_000), Err(1_000));
    }

    #[test]
    fn a_long_pause_saves_up_no_more_than_the_burst_and_the_clock_may_wrap() {
        let rate = Rate::new(10.0, 2);
        let mut bucket = Bucket::full(&rate, u32::MAX - 10);
        assert_eq!(bucket.take(&rate, u32::MAX - 10), Ok(()));
        assert_eq!(bucket.take(&rate, 1_000_000), Ok(()));
        assert_eq!(bucket.take(&rate, 1_000_000), Ok(()));
        assert!(bucket.take(&rate, 1_000_000).is_err());
    }

    #[test]
    fn high_rates_are_exact_enough() {
        let rate = Rate::new(50_000.0, 100);
        let mut bucket = Bucket::full(&rate, 0);
        let passed = (0..1_000_u32)
            .flat_map(|ms| (0..100).map(move |_| ms))
            .filter(|&ms| bucket.take(&rate, ms).is_ok())
            .count();
        assert!((49_900..=50_200).contains(&passed), "{passed}");
    }
}
