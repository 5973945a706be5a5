// Keeps the page up to date: swaps the server's fragments when there is a new picture, and draws the charts of one incident.
import uPlot from "/assets/vendor/uplot.js";

const overview = document.getElementById("overview");
const detail = document.getElementById("detail");
const connection = document.getElementById("connection");

let chosen = new URLSearchParams(location.search).get("incident");
let plots = [];
let busy = false;
let again = false;

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const shownId = () => detail.querySelector("[data-incident]")?.dataset.incident;
// As the server writes times: in the chain's time zone, not the reader's.
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", timeZone: document.documentElement.dataset.timeZone });

async function text(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`${answer.status} from ${url}`);
  return answer.text();
}

async function refresh() {
  if (busy) {
    again = true;
    return;
  }
  busy = true;
  try {
    const query = chosen ? `?incident=${encodeURIComponent(chosen)}` : "";
    overview.innerHTML = await text(`/fragments/overview${query}`);
    const current = overview.querySelector("tr[aria-current] [data-select]")?.dataset.select;
    if (current) await show(current);
    else detail.innerHTML = "<p class=\"empty\">Nothing is unusual.</p>";
  } finally {
    busy = false;
  }
  if (again) {
    again = false;
    setTimeout(refresh, 250);
  }
}

async function show(id) {
  const path = encodeURIComponent(id);
  const opened = [...detail.querySelectorAll("details[open] > summary")].map((summary) => summary.textContent);
  const [html, json] = await Promise.all([text(`/fragments/incidents/${path}`), text(`/api/v1/incidents/${path}`)]);
  plots.forEach((plot) => plot.destroy());
  plots = [];
  detail.innerHTML = html;
  for (const summary of detail.querySelectorAll("summary"))
    if (opened.includes(summary.textContent)) summary.parentElement.open = true;
  const chart = JSON.parse(json).chart;
  const place = document.getElementById("charts");
  if (chart && place) draw(place, chart);
}

function draw(place, chart) {
  const seconds = chart.times_ms.map((ms) => ms / 1000);
  const perMinute = (values) => values.map((value) => (value === null ? null : value / (chart.step_ms / 60000)));
  plots.push(
    plot(place, "Sales per minute", chart, [seconds, ...["upper", "lower", "expected", "actual"].map((key) => perMinute(chart.sales[key]))], [
      { label: "90 % at most", stroke: "transparent" },
      { label: "90 % at least", stroke: "transparent" },
      { label: "expected", stroke: color("--quiet"), dash: [5, 4], width: 1.5 },
      { label: "sold", stroke: color("--brand"), width: 2.2 },
    ], true),
  );
  for (const service of chart.services) {
    const tint = service.role === "queue" ? "--warm" : "--hot";
    const unit = service.unit.replace(/[{}]/g, "");
    const title = `${service.name}: ${service.metric}${unit && unit !== "1" ? ` (${unit})` : ""}`;
    plots.push(plot(place, title, chart, [seconds, service.values], [{ label: service.metric, stroke: color(tint), width: 2 }], false));
  }
}

function plot(place, title, chart, data, series, band) {
  const figure = document.createElement("div");
  figure.className = "chart";
  const heading = document.createElement("h3");
  heading.textContent = title;
  figure.append(heading);
  place.append(figure);
  const axis = { stroke: color("--quiet"), grid: { stroke: color("--line"), width: 1 }, ticks: { show: false } };
  const number = (value) => (value === null || value === undefined ? "–" : value.toFixed(Math.abs(value) < 10 ? 2 : 0));
  const key = legend(series);
  const options = {
    width: figure.clientWidth,
    height: band ? 210 : 140,
    cursor: { sync: { key: "incident" } },
    scales: { y: { range: (_, low, high) => [0, (high || 1) * 1.08] } },
    legend: { show: false },
    axes: [{ ...axis, space: 80, size: 28, values: (_, ticks) => ticks.map((tick) => clock.format(tick * 1000)) }, { ...axis, size: 48 }],
    series: [
      {},
      ...series.map((each) => ({ points: { show: false }, ...each })),
    ],
    bands: band ? [{ series: [1, 2], fill: `color-mix(in srgb, ${color("--quiet")} 18%, transparent)` }] : [],
    hooks: { drawClear: [(drawn) => shade(drawn, chart)], setCursor: [(drawn) => tell(key, data, drawn.cursor.idx, number)] },
  };
  const drawn = new uPlot(options, data, figure);
  tell(key, data, null, number);
  figure.append(key, twin(data, series, number));
  return drawn;
}

// What the lines mean, with the figures under the cursor, else the newest.
function legend(series) {
  const key = document.createElement("p");
  key.className = "key";
  key.append(document.createElement("time"));
  for (const { label, stroke, dash } of series) {
    const item = document.createElement("span");
    const swatch = document.createElement("i");
    if (stroke === "transparent") swatch.className = "band";
    else swatch.style.borderTop = `2px ${dash ? "dashed" : "solid"} ${stroke}`;
    item.append(swatch, `${label} `, document.createElement("b"));
    key.append(item);
  }
  return key;
}

function tell(key, data, cursor, number) {
  const index = cursor ?? data.at(-1).findLastIndex((value) => value !== null);
  if (index < 0) return;
  key.querySelector("time").textContent = clock.format(data[0][index] * 1000);
  key.querySelectorAll("b").forEach((cell, line) => (cell.textContent = number(data[line + 1][index])));
}

// The time of the incident, behind the lines.
function shade(drawn, chart) {
  const { ctx, bbox } = drawn;
  const end = chart.end_ms ?? chart.times_ms.at(-1) + chart.step_ms;
  const left = Math.max(drawn.valToPos(chart.start_ms / 1000, "x", true), bbox.left);
  const right = Math.min(drawn.valToPos(end / 1000, "x", true), bbox.left + bbox.width);
  ctx.save();
  ctx.fillStyle = color("--hot-soft");
  ctx.fillRect(left, bbox.top, Math.max(right - left, 0), bbox.height);
  ctx.restore();
}

// The same figures as a table.
function twin(data, series, number) {
  const details = document.createElement("details");
  const summary = document.createElement("summary");
  summary.textContent = "as a table";
  details.append(summary);
  details.addEventListener("toggle", () => {
    if (details.querySelector("table")) return;
    const table = document.createElement("table");
    const line = (cells, tag) => {
      const row = table.insertRow();
      for (const cell of cells) {
        const element = document.createElement(tag);
        element.textContent = cell;
        row.append(element);
      }
    };
    line(["time", ...series.map((each) => each.label)], "th");
    data[0].forEach((second, index) => line([clock.format(second * 1000), ...data.slice(1).map((values) => number(values[index]))], "td"));
    details.append(table);
  });
  return details;
}

overview.addEventListener("click", (event) => {
  const id = event.target.closest("tr")?.querySelector("[data-select]")?.dataset.select;
  if (!id || event.metaKey || event.ctrlKey) return;
  event.preventDefault();
  chosen = id;
  history.replaceState(null, "", `/?incident=${encodeURIComponent(id)}`);
  refresh();
});

let width = innerWidth;
addEventListener("resize", () => {
  if (innerWidth === width) return;
  width = innerWidth;
  const id = shownId();
  if (id) show(id);
});

function listen() {
  refresh();
  const events = new EventSource("/api/v1/events");
  events.addEventListener("view", refresh);
  events.addEventListener("open", () => {
    connection.textContent = "live";
    connection.classList.remove("lost");
  });
  events.addEventListener("error", () => {
    connection.textContent = "connection lost, trying again";
    connection.classList.add("lost");
    // The browser tries again by itself unless it was refused, such as when too many pages listen.
    if (events.readyState === EventSource.CLOSED) setTimeout(listen, 15000);
  });
}

listen();
