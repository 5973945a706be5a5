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
    /// Expected minus actual, in the metric's whole numbers, over the interval; an estimate of [`MISSING_BITS`] bits.
    pub missing: i64,
}

/// The smallest `log10_p` that the wire can say.
pub const LOG10_P_MIN: f32 = -25.5;

/// Bits of `missing` that travel: a relative error of at most 1/64.
pub const MISSING_BITS: u32 = 6;

/// The largest absolute effect that the wire can say.
pub const EFFECT_MAX: f32 = 3276.7;

impl Score {
    /// The score as the receiver will read it: `log10_p` and `effect` in tenths and within their bounds, `missing` rounded.
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
            missing: missing(code_of_missing(self.missing)),
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

/// Values of at most 6 bits as they are, then 32 codes for each power of two: the 6 upper bits, rounded.
pub(crate) fn code_of_missing(missing: i64) -> i64 {
    let shift_of = |size: u64| (u64::BITS - size.leading_zeros()).saturating_sub(MISSING_BITS);
    let exact = missing.unsigned_abs();
    let size = exact + ((1 << shift_of(exact)) >> 1);
    let shift = shift_of(size);
    let code = (u64::from(shift) << (MISSING_BITS - 1)) + (size >> shift);
    let code = i64::try_from(code).unwrap_or(i64::MAX);
    if missing < 0 { -code } else { code }
}

/// The value of a code, cut to an `i64`.
pub(crate) fn missing(code: i64) -> i64 {
    let size = code.unsigned_abs();
    let shift = (size >> (MISSING_BITS - 1)).saturating_sub(1).min(64);
    let bits = size - (shift << (MISSING_BITS - 1));
    let value = (u128::from(bits) << shift).min(1 << 63);
    let value = i128::try_from(value).unwrap_or(i128::MAX);
    let value = if code < 0 { -value } else { value };
    i64::try_from(value).unwrap_or(i64::MAX)
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
    fn what_is_missing_keeps_its_upper_bits() {
        for (missing_before, after) in [
            (0, 0),
            (-63, -63),
            (64, 64),
            (65, 66),
            (129, 128),
            (131, 132),
            (127, 128),
            (-1_204_551, -1_212_416),
            (i64::MAX, i64::MAX),
            (i64::MIN, i64::MIN),
        ] {
            let code = code_of_missing(missing_before);
            assert_eq!(missing(code), after, "{missing_before} as {code}");
            assert_eq!(code_of_missing(after), code);
        }
        assert_eq!((missing(i64::MAX), missing(i64::MIN)), (i64::MAX, i64::MIN));
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
