//! N1 and N2: the Numenta Anomaly Benchmark. A sample is a row of a file, at the file's own interval.
//!
//! In: the benchmark's folder; a detector sees a file once, in order, as a level without a kind, a unit or a calendar.
//! Out: the benchmark's scores of its three profiles, each at its best threshold, as its rules say.
//! Track C is strictly causal; in track H a detector is told the range of the values beforehand, as a plugin would declare
//! it. The baselines read none, so they are in track C only.
//!
//! Source: Lavin and Ahmad 2015, "Evaluating real-time anomaly detection algorithms"; NAB v1.1.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, bail};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use tillwatch_core::detect::{Judge, Shape, Slot};

use super::detectors::{Detector, Make};
use super::{Options, Row, Section, in_parallel};

/// Values of unknown unit are told to detectors in so small parts of it.
const PARTS: f64 = 1e4;

/// Weights of a profile: a window that is found, one that is not, a false alarm.
#[derive(Clone, Copy)]
struct Profile {
    name: &'static str,
    found: f64,
    missed: f64,
    wrong: f64,
}

const PROFILES: [Profile; 3] = [
    Profile {
        name: "standard",
        found: 1.0,
        missed: 1.0,
        wrong: 0.11,
    },
    Profile {
        name: "low_fp",
        found: 1.0,
        missed: 1.0,
        wrong: 0.22,
    },
    Profile {
        name: "low_fn",
        found: 1.0,
        missed: 2.0,
        wrong: 0.11,
    },
];

/// A file: its rows, and the windows that its labels say.
struct File {
    path: String,
    times: Vec<DateTime>,
    values: Vec<f64>,
    windows: usize,
    /// What an alarm in the row is worth, without weights.
    worth: Vec<f64>,
    /// The row's window.
    window: Vec<Option<usize>>,
}

pub(crate) fn measure(folder: &Path, options: &Options) -> Result<Section> {
    let files = read(folder)?;
    let mut rows = Vec::new();
    for make in Make::chosen(options.alone) {
        rows.extend(rows_of(&files, *make, Track::Causal, options)?);
    }
    rows.extend(rows_of(&files, Make::Tillwatch, Track::Declared, options)?);
    rows.extend(
        PUBLISHED
            .iter()
            .map(|(case, score)| Row::new("published", case, &[("standard", *score)])),
    );
    let kinds = files.len();
    Ok(Section {
        name: "nab",
        goal: "track C, standard: 66; track H, standard: 73 (both on the 35 files)",
        how: format!(
            "{kinds} files, a family left out is scored at the threshold of the others; published: the project's own scores"
        ),
        rows,
    })
}

/// What a detector knows beforehand.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Track {
    Causal,
    Declared,
}

impl Track {
    fn name(self) -> &'static str {
        match self {
            Track::Causal => "C",
            Track::Declared => "H",
        }
    }
}

/// Of detectors that others published, on the same 35 files, at the best threshold.
/// Source: the outputs in `results/` of github.com/numenta/NAB at ea702d75, and those that ARTime published.
const PUBLISHED: [(&str, f64); 6] = [
    ("H: ARTime", 70.9),
    ("H: Numenta HTM", 69.5),
    ("H: CAD OSE", 69.5),
    ("H: KNN-CAD", 60.1),
    ("C: Skyline (earthgecko)", 51.9),
    ("C: Windowed Gaussian", 44.8),
];

fn rows_of(files: &[File], make: Make, track: Track, options: &Options) -> Result<Vec<Row>> {
    let scores = in_parallel(files, |file| scores(file, make, track));
    if let Some(out) = options.nab_scores.as_deref().filter(|_| make == Make::Tillwatch) {
        write(&out.join(track.name()), files, &scores)?;
    }
    let mut rows = Vec::new();
    for (case, picked) in [("all", &[0, 1][..]), ("half A", &[0]), ("half B", &[1])] {
        let of_half: Vec<(&File, &Vec<f64>)> = pick(files, &scores, picked);
        let figures = PROFILES.map(|profile| (profile.name, best(&of_half, profile).0));
        rows.push(Row::new(make.name(), &format!("{}: {case}", track.name()), &figures));
    }
    let all = pick(files, &scores, &[0, 1]);
    let figures = PROFILES.map(|profile| (profile.name, left_out(&all, profile)));
    rows.push(Row::new(
        make.name(),
        &format!("{}: family left out", track.name()),
        &figures,
    ));
    for (file, scores) in all.iter().filter(|_| options.alone) {
        let (score, threshold) = best(&[(file, scores)], PROFILES[0]);
        let case = format!("{}: {}", track.name(), file.path);
        rows.push(Row::new(
            make.name(),
            &case,
            &[("alone", score), ("threshold", threshold)],
        ));
    }
    Ok(rows)
}

/// Each family of files at the threshold that is best for all the others.
fn left_out(files: &[(&File, &Vec<f64>)], profile: Profile) -> f64 {
    let families: BTreeSet<&str> = files.iter().map(|(file, _)| file.family()).collect();
    let (mut sum, mut base, mut perfect) = (0.0, 0.0, 0.0);
    for family in families {
        let (own, others): (Vec<_>, Vec<_>) = files.iter().copied().partition(|(file, _)| file.family() == family);
        let threshold = best(&others, profile).1;
        for (file, scores) in own {
            let mut steps = Vec::new();
            base -= steps_of(file, scores, profile, &mut steps);
            perfect += file.windows as f64 * profile.found;
            let beyond = steps.iter().filter(|(score, _)| *score >= threshold);
            sum += beyond.map(|(_, gain)| gain).sum::<f64>();
        }
    }
    100.0 * sum / (perfect - base)
}

/// Every other file is of the half that nobody tunes to.
fn pick<'a>(files: &'a [File], scores: &'a [Vec<f64>], halves: &[usize]) -> Vec<(&'a File, &'a Vec<f64>)> {
    let all = files.iter().zip(scores).enumerate();
    all.filter(|(at, _)| halves.contains(&(at % 2)))
        .map(|(_, both)| both)
        .collect()
}

fn scores(file: &File, make: Make, track: Track) -> Vec<f64> {
    let times: Vec<u64> = file.times.iter().map(millisecond).collect();
    let mut steps: Vec<u64> = times.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect();
    steps.sort_unstable();
    let step = steps.get(steps.len() / 2).copied().unwrap_or(300_000);
    let window_ms = u32::try_from(step).unwrap_or(300_000).max(1_000);
    let mut detector = match track {
        Track::Causal => make.detector(Shape::Level, window_ms),
        Track::Declared => {
            let (low, high) = file.range();
            Detector::Tillwatch(Box::new(Judge::of_range(low * PARTS, high * PARTS, window_ms)))
        }
    };
    let step = |(at, value): (&u64, &f64)| {
        let said = detector.step(Slot::at(*at, &TimeZone::UTC), *at, Some((value * PARTS).round()));
        said.map_or(0.0, |said| f64::from(said.anomaly_score))
    };
    times.iter().zip(&file.values).map(step).collect()
}

fn millisecond(time: &DateTime) -> u64 {
    let zoned = TimeZone::UTC.to_timestamp(*time).unwrap_or_default();
    u64::try_from(zoned.as_millisecond()).unwrap_or(0)
}

fn read(folder: &Path) -> Result<Vec<File>> {
    let text = |path: &Path| std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()));
    let labels: BTreeMap<String, Vec<[String; 2]>> = serde_json::from_str(&text(&folder.join("windows.json"))?)?;
    let file = |(path, windows): (&String, &Vec<[String; 2]>)| {
        let rows = text(&folder.join("data").join(path))?;
        File::new(path, &rows, windows).with_context(|| path.clone())
    };
    labels.iter().map(file).collect()
}

fn time(text: &str) -> Result<DateTime> {
    text.parse().with_context(|| format!("{text} is no time"))
}

/// 1 well before the end of a window, -1 far behind it.
fn sigmoid(at: f64) -> f64 {
    if at > 3.0 {
        -1.0
    } else {
        2.0 / (1.0 + libm::exp(5.0 * at)) - 1.0
    }
}

impl File {
    fn new(path: &str, text: &str, windows: &[[String; 2]]) -> Result<File> {
        let mut file = File {
            path: path.to_owned(),
            times: Vec::new(),
            values: Vec::new(),
            windows: windows.len(),
            worth: Vec::new(),
            window: Vec::new(),
        };
        for line in text.lines().skip(1) {
            let Some((at, value)) = line.split_once(',') else {
                bail!("a row of one column: {line}");
            };
            file.times.push(time(at)?);
            file.values.push(value.trim().parse().context("a value")?);
        }
        let windows = windows
            .iter()
            .map(|[from, to]| Ok((time(from)?, time(to)?)))
            .collect::<Result<Vec<_>>>()?;
        file.label(&windows)?;
        Ok(file)
    }

    fn family(&self) -> &str {
        self.path.split('/').next().unwrap_or_default()
    }

    fn range(&self) -> (f64, f64) {
        let both = |(low, high): (f64, f64), value: &f64| (low.min(*value), high.max(*value));
        self.values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), both)
    }

    fn row(&self, time: DateTime) -> Result<usize> {
        self.times
            .iter()
            .position(|other| *other == time)
            .context("a label without a row")
    }

    fn label(&mut self, windows: &[(DateTime, DateTime)]) -> Result<()> {
        let (mut next, mut current, mut last) = (0, None, None);
        for at in 0..self.times.len() {
            if let Some((from, to)) = windows.get(next).filter(|(from, _)| *from == self.times[at]) {
                let right = self.row(*to)?;
                current = Some((next, right, (right + 1 - self.row(*from)?) as f64));
                next += 1;
            }
            let (mut worth, mut window) = (-1.0, None);
            if let Some((which, right, width)) = current {
                worth = sigmoid((at as f64 - right as f64 - 1.0) / width);
                window = Some(which);
                if self.times[at] == windows[which].1 {
                    (last, current) = (Some((at, width)), None);
                }
            } else if let Some((end, width)) = last {
                worth = sigmoid((at - end) as f64 / (width - 1.0));
            }
            self.worth.push(worth);
            self.window.push(window);
        }
        Ok(())
    }

    /// Rows before it are not scored.
    fn start(&self) -> usize {
        ((0.15 * self.times.len() as f64) as usize).min(750)
    }
}

/// The best score of all thresholds in percent, and that threshold.
fn best(files: &[(&File, &Vec<f64>)], profile: Profile) -> (f64, f64) {
    let (mut steps, mut base, mut perfect) = (Vec::new(), 0.0, 0.0);
    for (file, scores) in files {
        perfect += file.windows as f64 * profile.found;
        base -= steps_of(file, scores, profile, &mut steps);
    }
    steps.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (mut sum, mut top, mut threshold) = (0.0, f64::NEG_INFINITY, 1.1);
    for (at, (score, gain)) in steps.iter().enumerate() {
        sum += gain;
        let last = steps.get(at + 1).is_none_or(|next| next.0 < *score);
        if last && sum > top {
            (top, threshold) = (sum, *score);
        }
    }
    if top < 0.0 {
        (0.0, 1.1)
    } else {
        (100.0 * top / (perfect - base), threshold)
    }
}

/// What lowering the threshold to a row's score gains; and what it costs to find none of the windows.
fn steps_of(file: &File, scores: &[f64], profile: Profile, steps: &mut Vec<(f64, f64)>) -> f64 {
    let highest = sigmoid(-1.0);
    let mut windows: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (at, score) in scores.iter().enumerate().skip(file.start()) {
        match file.window[at] {
            Some(window) => windows.entry(window).or_default().push(at),
            None => steps.push((*score, file.worth[at] * profile.wrong)),
        }
    }
    for rows in windows.values_mut() {
        rows.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
        let mut so_far = -profile.missed;
        for at in rows {
            let worth = (file.worth[*at] * profile.found / highest).max(so_far);
            steps.push((scores[*at], worth - so_far));
            so_far = worth;
        }
    }
    windows.len() as f64 * profile.missed
}

fn write(folder: &Path, files: &[File], scores: &[Vec<f64>]) -> Result<()> {
    for (file, scores) in files.iter().zip(scores) {
        let path = folder.join(&file.path);
        std::fs::create_dir_all(path.parent().unwrap_or(folder))?;
        let rows = file
            .times
            .iter()
            .zip(scores)
            .map(|(time, score)| format!("{time},{score}\n"));
        let text: String = std::iter::once("timestamp,anomaly_score\n".to_owned())
            .chain(rows)
            .collect();
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The file and scores that the figures below were computed from: rows of a minute, two windows, scores in steps.
    fn sample(rows: u32, shift: u32) -> (File, Vec<f64>) {
        let time = |row: u32| format!("2026-01-05 {:02}:{:02}:00", row / 60, row % 60);
        let text: String = (0..rows).map(|row| format!("{},{}\n", time(row), row % 7)).collect();
        let windows = [(rows / 3, rows / 3 + 30), (rows / 2 + 50, rows / 2 + 75)];
        let windows = windows.map(|(from, to)| [time(from), time(to)]);
        let file = File::new("sample", &format!("timestamp,value\n{text}"), &windows).unwrap();
        let inside =
            |row: u32| (rows / 3..=rows / 3 + 30).contains(&row) || (rows / 2 + 50..=rows / 2 + 75).contains(&row);
        let score =
            |row: u32| f64::from((row * 7_919 + shift * 613) % 251 / 5 + if inside(row) { 3 } else { 0 }) / 53.0;
        (file, (0..rows).map(score).collect())
    }

    /// Of `sample` by the Python scorer that comes with the files: profile, score, threshold.
    const EXPECTED: [(usize, f64, f64); 3] = [
        (0, 89.472_470_761_444_82, 50.0 / 53.0),
        (1, 82.180_941_923_667_56, 50.0 / 53.0),
        (2, 92.981_647_174_296_55, 50.0 / 53.0),
    ];

    #[test]
    fn scores_are_those_of_the_benchmarks_own_scorer() {
        let samples = [sample(400, 1), sample(700, 2), sample(1_000, 3)];
        let all: Vec<(&File, &Vec<f64>)> = samples.iter().map(|(file, scores)| (file, scores)).collect();
        for (profile, score, threshold) in EXPECTED {
            let (ours, at) = best(&all, PROFILES[profile]);
            assert!(
                (ours - score).abs() < 1e-9 && (at - threshold).abs() < 1e-12,
                "{profile}: {ours} at {at}"
            );
        }
    }
}
