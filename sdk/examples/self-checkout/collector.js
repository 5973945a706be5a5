// How often and for how long customers at self-checkouts wait for the staff.

import { nowMs } from 'tillwatch:collector/clock@0.1.0';
import { readLines } from 'tillwatch:collector/source@0.1.0';

const READ_BYTES_MAX = 64 * 1024;
const REASONS = ['age', 'weight', 'payment', 'voucher'];

// As plugin.toml lists them: a series names its metric by this order.
const WAIT = 0;
const PARSE_ERRORS = 1;
const METRICS = [
  { name: 'checkout.assistance.wait', unit: 'ms', kind: 'distribution', role: 'latency', labelKeys: ['station', 'reason'],
    help: 'How long a customer waited until the staff came.' },
  { name: 'source.parse_errors', unit: '{line}', kind: 'sum', role: '', labelKeys: [],
    help: 'Lines that were not understood.' },
];

let longestMs = 1_800_000;

export function describe() {
  const metrics = METRICS.map((metric) => ({ ...metric, decimals: 0, currency: undefined }));
  return { name: 'self-checkout', version: '0.1.0', metrics, minIntervalMs: 1000, attrs: [] };
}

export function configure(settings) {
  const read = JSON.parse(settings);
  if (read?.constructor !== Object) refuse('the settings are no object');
  const { longest_ms = longestMs, ...unknown } = read;
  if (Object.keys(unknown).length > 0) refuse(`unknown settings: ${Object.keys(unknown)}`);
  if (!Number.isInteger(longest_ms) || longest_ms <= 0) refuse('longest_ms must be a positive integer');
  longestMs = longest_ms;
}

export function collect() {
  const { bytes, more } = read();
  const waits = new Map();
  let problems = 0;
  for (const line of linesOf(bytes)) {
    const wait = parse(line);
    if (wait === undefined) problems += 1;
    else if (wait !== null) {
      const labels = [wait.station, wait.reason];
      const key = labels.join(' ');
      if (!waits.has(key)) waits.set(key, { metric: WAIT, labels, values: [], times: [] });
      waits.get(key).values.push(BigInt(wait.ms));
      waits.get(key).times.push(BigInt(wait.timeMs));
    }
  }
  const found = [...waits.values()];
  if (problems > 0) found.push({ metric: PARSE_ERRORS, labels: [], values: [BigInt(problems)], times: [nowMs()] });
  return { series: found.map(series), more };
}

// Whole lines; what a source of the contract throws has the fault in `payload`.
function read() {
  try {
    return readLines('events', READ_BYTES_MAX);
  } catch (error) {
    throw { kind: 'transient', message: `events: ${error.payload}` };
  }
}

function* linesOf(bytes) {
  const text = new TextDecoder().decode(bytes);
  for (const line of text.split('\n')) if (line !== '') yield line;
}

// undefined: not understood; null: an event of another kind.
function parse(line) {
  let event;
  try {
    event = JSON.parse(line);
  } catch {
    return undefined;
  }
  if (typeof event?.event !== 'string') return undefined;
  if (event.event !== 'assistance') return null;
  const timeMs = typeof event.at === 'string' && event.at.endsWith('Z') ? Date.parse(event.at) : NaN;
  const isWait = Number.isInteger(event.waited_ms) && event.waited_ms >= 0 && event.waited_ms <= longestMs;
  if (!Number.isFinite(timeMs) || !isWait || typeof event.station !== 'string') return undefined;
  const reason = REASONS.includes(event.reason) ? event.reason : '_other';
  return { timeMs, station: event.station, reason, ms: event.waited_ms };
}

function series({ metric, labels, values, times }) {
  return { metric, labels, values: { tag: 'integers', val: BigInt64Array.from(values) }, timesMs: BigUint64Array.from(times) };
}

function refuse(message) {
  throw { kind: 'config', message };
}
