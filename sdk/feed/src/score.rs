//! What the edge thinks of one summary: how unlikely, how far off, how much is missing.
//!
//! A score travels in few bits, so it has a resolution: [`Score::quantized`] gives the nearest value that survives the wire.

/// How much a detector knows of its series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ScoreState {
    /// Too young: `log10_p` is 0 and says nothing.
    #[default]
    Warming,
    /// The score means what it says.
    Ok,
    /// No recent data, or data that arrived too late to be judged.
    Stale,
}

/// The score of one row.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Score {
    /// How much the detector knows.
    pub state: ScoreState,
    /// The alarm stage is on.
    pub alarm: bool,
    /// Decimal logarithm of the p-value, [`LOG10_P_MIN`] to 0.
    pub log10_p: f32,
    /// Distance from the expected value in robust standard deviations; negative when below.
    pub effect: f32,
    /// Expected minus actual, in the metric's whole numbers, over the interval.
    pub missing: i64,
}

/// The smallest `log10_p` that the wire can say.
pub const LOG10_P_MIN: f32 = -25.5;

/// The largest absolute effect that the wire can say.
pub const EFFECT_MAX: f32 = 3276.7;

impl Score {
    /// The score as the receiver will read it: `log10_p` and `effect` in tenths and within their bounds.
    ///
    /// Not-a-number becomes 0, and a detector that is warming up has no numbers at all.
    pub fn quantized(self) -> Score {
        if self.state == ScoreState::Warming {
            return Score {
                alarm: self.alarm,
                ..Score::default()
            };
        }
        Score {
            log10_p: log10_p(tenths_of_p(self.log10_p)),
            effect: effect(tenths_of_effect(self.effect)),
            ..self
        }
    }
}

/// `-10 * log10 p`, 0 to 255.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped; a cast from NaN gives 0"
)]
pub(crate) fn tenths_of_p(log10_p: f32) -> u8 {
    (log10_p * -10.0).round().clamp(0.0, 255.0) as u8
}

pub(crate) fn log10_p(tenths: u8) -> f32 {
    // Adding zero turns -0.0 into 0.0, so that equal scores have equal bits.
    f32::from(tenths) / -10.0 + 0.0
}

#[expect(clippy::cast_possible_truncation, reason = "clamped; a cast from NaN gives 0")]
pub(crate) fn tenths_of_effect(effect: f32) -> i16 {
    (effect * 10.0).round().clamp(-32767.0, 32767.0) as i16
}

pub(crate) fn effect(tenths: i16) -> f32 {
    f32::from(tenths) / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantizing_keeps_what_the_wire_can_say() {
        let score = Score {
            state: ScoreState::Ok,
            alarm: true,
            log10_p: -3.12,
            effect: -2.26,
            missing: 7,
        };
        let wire = score.quantized();
        assert_eq!(
            wire,
            Score {
                log10_p: -3.1,
                effect: -2.3,
                ..score
            }
        );
        assert_eq!(wire.quantized(), wire);
    }

    #[test]
    fn a_warming_detector_has_no_numbers() {
        let score = Score {
            log10_p: -3.0,
            effect: 2.0,
            missing: 7,
            alarm: true,
            ..Score::default()
        };
        assert_eq!(
            score.quantized(),
            Score {
                alarm: true,
                ..Score::default()
            }
        );
    }

    #[test]
    fn wild_values_are_brought_into_bounds() {
        let wild = |log10_p, effect| {
            Score {
                log10_p,
                effect,
                ..Score::default()
            }
            .quantized()
        };
        assert_eq!(wild(f32::NEG_INFINITY, f32::INFINITY), wild(LOG10_P_MIN, EFFECT_MAX));
        assert_eq!(wild(f32::NAN, f32::NAN), wild(0.0, 0.0));
        assert_eq!(wild(1.0, -1e9).log10_p.to_bits(), 0.0_f32.to_bits());
    }
}
