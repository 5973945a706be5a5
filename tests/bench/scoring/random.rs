//! Random numbers that are the same on every machine: xorshift64* and libm.

/// A stream of numbers.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        let mut random = Random(seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        (0..8).for_each(|_| _ = random.bits());
        random
    }

    fn bits(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 12
    }

    /// Above 0 and below 1.
    pub(crate) fn uniform(&mut self) -> f64 {
        (self.bits() as f64 + 0.5) / (1_u64 << 52) as f64
    }

    pub(crate) fn normal(&mut self) -> f64 {
        libm::sqrt(-2.0 * libm::log(self.uniform())) * libm::cos(std::f64::consts::TAU * self.uniform())
    }

    /// From 30 on by the normal distribution.
    pub(crate) fn poisson(&mut self, mean: f64) -> f64 {
        if mean <= 0.0 {
            return 0.0;
        }
        if mean > 30.0 {
            return (mean + mean.sqrt() * self.normal()).round().max(0.0);
        }
        let (mut product, mut n) = (self.uniform(), 0.0);
        let limit = libm::exp(-mean);
        while product > limit {
            product *= self.uniform();
            n += 1.0;
        }
        n
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_mean_and_the_spread_they_should() {
        let mut random = Random::new(7);
        for mean in [0.1, 3.0, 40.0] {
            let values: Vec<f64> = (0..50_000).map(|_| random.poisson(mean)).collect();
            let average = values.iter().sum::<f64>() / 5e4;
            let variance = values
                .iter()
                .map(|value| (value - average) * (value - average))
                .sum::<f64>()
                / 5e4;
            assert!(
                (average / mean - 1.0).abs() < 0.05 && (variance / mean - 1.0).abs() < 0.08,
                "{mean}"
            );
        }
        let square: f64 = (0..50_000).map(|_| random.normal()).map(|normal| normal * normal).sum();
        assert!((square / 5e4 - 1.0).abs() < 0.03);
    }
}
