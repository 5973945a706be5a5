//! Broken copies of good input, the same at each run: what a parser's door is held against.

/// `count` inputs made from the corpus by a few random edits each; the same seed gives the same inputs.
///
/// ```
/// use tillwatch_sdk::testing::mutated;
///
/// for input in mutated(&[br#"{"time":1}"#, b""], 7, 1_000) {
///     // A parser may refuse it, and must not panic.
///     let _refused = tillwatch_sdk::parse::FieldMap::new(["time"]).read(&input).is_err();
/// }
/// ```
pub fn mutated(corpus: &[&[u8]], seed: u64, count: usize) -> impl Iterator<Item = Vec<u8>> {
    let corpus: Vec<Vec<u8>> = corpus.iter().map(|input| input.to_vec()).collect();
    let mut random = Random(seed | 1);
    (0..count).map(move |_| {
        let mut input = random.pick(&corpus).cloned().unwrap_or_default();
        for _ in 0..=random.below(3) {
            edit(&mut input, &corpus, &mut random);
        }
        input
    })
}

fn edit(input: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut Random) {
    /// Bytes that mean something to a parser.
    const SPECIAL: &[u8] = b"\"\\{}[]<>&;:/=-+.,eE0 \n\t\0\xff\xc3";
    let at = random.below(input.len() + 1);
    match random.below(6) {
        0 if at < input.len() => input[at] ^= 1 << random.below(8),
        1 => input.insert(at, random.pick(SPECIAL).copied().unwrap_or(b' ')),
        2 => input.truncate(at),
        3 => drop(input.drain(at..(at + random.below(20)).min(input.len()))),
        4 => {
            let again = input[at..(at + random.below(40)).min(input.len())].to_vec();
            input.splice(at..at, again);
        }
        _ => {
            let other = random.pick(corpus).cloned().unwrap_or_default();
            input.truncate(at);
            input.extend_from_slice(&other[random.below(other.len() + 1)..]);
        }
    }
}

/// xorshift64. Source: Marsaglia, "Xorshift RNGs", 2003.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33)
            .unwrap_or(0)
            .checked_rem(limit)
            .unwrap_or(0)
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_inputs_and_most_differ_from_the_corpus() {
        let corpus: [&[u8]; 2] = [b"first line of a corpus", b"and a second one"];
        let inputs: Vec<_> = mutated(&corpus, 7, 500).collect();
        assert_eq!(inputs, mutated(&corpus, 7, 500).collect::<Vec<_>>());
        assert_ne!(inputs, mutated(&corpus, 9, 500).collect::<Vec<_>>());
        let changed = inputs
            .iter()
            .filter(|input| !corpus.contains(&input.as_slice()))
            .count();
        assert!(changed > 450, "{changed} of 500 changed");
    }
}
