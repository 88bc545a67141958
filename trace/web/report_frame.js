// report_frame.js -- what every page has: numbers for people, charts in boxes, export as CSV, dark and light.

const charts = [];

// ---- numbers for people ----

function human(v, units, step) {
  let u = 0;
  while (Math.abs(v) >= step && u < units.length - 1) { v /= step; u++; }
  return (v >= 100 || v === Math.round(v) ? v.toFixed(0) : v >= 10 ? v.toFixed(1) : v.toFixed(2)) + " " + units[u];
}
const asBytes = (v) => human(v, ["B", "KiB", "MiB", "GiB", "TiB"], 1024);
const asTime = (ns) => human(ns, ["ns", "us", "ms", "s"], 1000);
const asCount = (v) => human(v, ["", "k", "M", "G"], 1000).trim();
const asTimes = (v) => v.toFixed(2) + " times";
const asMetric = (v, m) => (m === "bytes" ? asBytes(v) : m === "ns" ? asTime(v) : asCount(v));
const metricName = { bytes: "bytes", n: "records", ns: "time" };
const percent = (v) => (100 * v).toFixed(v && v < 0.1 ? 2 : 1) + "%";

// ---- charts ----

function canvasIn(box, label) {
  const c = document.createElement("canvas");
  c.setAttribute("role", "img");
  c.setAttribute("aria-label", label);
  box.append(c);
  return c;
}
function linesIn(box) {
  const div = document.createElement("div");
  div.className = "lines";
  box.append(div);
  return div;
}
function heat(id, title, note, data, options) {
  charts.push({ id, title, note, wide: options && options.wide,
                make: (box) => heatmap(canvasIn(box, title), (options && options.pixels) || 320, data, options) });
}
function barChart(id, title, note, data, options) {
  charts.push({ id, title, note, wide: options && options.wide, sums: options && options.sums, make: (box) => bars(canvasIn(box, title), data, options) });
}
function lineChart(id, title, note, data, options) {
  charts.push({ id, title, note, wide: options && options.wide, sums: options && options.sums, make: (box) => lines(linesIn(box), data) });
}

function saveCsv(name, lines) {
  const quote = (v) => { const s = String(v); return /[",\r\n]/.test(s) ? '"' + s.replaceAll('"', '""') + '"' : s; };
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([lines.map((l) => l.map(quote).join(",")).join("\r\n") + "\r\n"], { type: "text/csv" }));
  link.download = name + ".csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// why(chart): what keeps it from being drawn, or "".
function addChart(chart, whyNot) {
  const box = document.createElement("section"), head = document.createElement("div"), title = document.createElement("h2");
  box.id = chart.id;
  if (chart.wide) box.className = "wide";
  head.className = "head";
  title.textContent = chart.title;
  const tools = document.createElement("div"), csv = document.createElement("button");
  tools.className = "tools";
  csv.type = "button";
  csv.textContent = "CSV";
  csv.title = "save what is shown";
  tools.append(csv);
  head.append(title, tools);
  const note = document.createElement("p"), body = document.createElement("div"), none = document.createElement("div");
  note.className = "note";
  note.textContent = chart.note;
  none.className = "none";
  none.hidden = true;
  box.append(head, note, body, none);
  document.getElementById("charts").append(box);
  chart.it = chart.make(body);
  csv.onclick = () => saveCsv(chart.id, chart.it.csv());
  chart.draw = () => {
    const why = (whyNot && whyNot(chart)) || (chart.it.empty ? chart.it.empty() : "");
    body.hidden = Boolean(why);
    csv.hidden = Boolean(why);
    const full = !why && chart.it.update();
    none.hidden = Boolean(full);
    none.textContent = why || "Nothing to show with these filters.";
    box.dataset.state = why ? "none" : full ? "full" : "empty";
  };
}

// ---- dark and light, keys ----

function theme(name) {
  document.documentElement.dataset.theme = name;
  try { localStorage.setItem("ttx-theme", name); } catch (e) { /* a page from a file may have no storage */ }
}
function firstTheme() {
  let kept = null;
  try { kept = localStorage.getItem("ttx-theme"); } catch (e) { /* see above */ }
  return kept || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
}

// The button and key that turn the theme, the key to the filters (an element's id), and a new size of the window.
function startFrame(drawAll, filters) {
  const turn = () => { theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"); drawAll(); };
  document.getElementById("theme").onclick = turn;
  document.addEventListener("keydown", (e) => {
    if (/^(INPUT|SELECT|TEXTAREA)$/.test(e.target.tagName) || e.ctrlKey || e.metaKey || e.altKey) return;
    if (e.key === "t") turn();
    if (e.key === "/" && filters) { e.preventDefault(); document.getElementById(filters).focus(); }
  });
  let wait = 0;
  addEventListener("resize", () => { clearTimeout(wait); wait = setTimeout(drawAll, 100); });
}
