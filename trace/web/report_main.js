// report_main.js -- puts the page of one run together: header, filters, charts.

function header() {
  const file = S.model.file ? S.model.file.split("/").pop() : "a model";
  document.getElementById("model-name").textContent = file;
  document.title = "ttx report: " + file;
  const t = S.totals, parts = [
    S.model.architecture, S.start_time_utc, "level " + S.level, asCount(t.records) + " records", t.prompt.tokens + " prompt tokens",
    t.decode.tokens + " generated at " + t.decode.tokens_per_second.toFixed(2) + " tokens/s",
    asBytes(t.weight_bytes) + " of weights accessed" + (recorded ? ", " + asBytes(t.distinct_bytes) + " of them different" : ""),
    recorded && percent(S.sequential.share) + " sequential",
    recorded && percent(S.predictability.same_tensor_sequence) + " of decode tokens in the same order",
  ];
  document.getElementById("summary").textContent = parts.filter(Boolean).join(" · ");
  const warning = document.getElementById("warning");
  warning.hidden = !S.warning;
  warning.textContent = S.warning || "";
}

const $ = (id) => document.getElementById(id);
function showFilters() {
  $("layer-from").value = filter.layers[0];
  $("layer-to").value = filter.layers[1];
  $("token-from").value = filter.tokens[0];
  $("token-to").value = filter.tokens[1];
  $("phase").value = filter.phase;
  $("metric").value = filter.metric;
  $("outside").checked = filter.outside;
  for (const box of $("ops").querySelectorAll("input")) box.checked = filter.ops.has(Number(box.value));
}
function readFilters() {
  const range = (from, to, max) => {
    const a = Math.max(0, Math.min(max, Number($(from).value) || 0)), b = Math.max(0, Math.min(max, Number($(to).value) || 0));
    return [Math.min(a, b), Math.max(a, b)];
  };
  filter.layers = range("layer-from", "layer-to", Math.max(0, nLayer - 1));
  filter.tokens = range("token-from", "token-to", Math.max(0, T.n_token - 1));
  filter.phase = Number($("phase").value);
  filter.metric = $("metric").value;
  filter.outside = $("outside").checked;
  if (recorded) filter.ops = new Set([...$("ops").querySelectorAll("input:checked")].map((b) => Number(b.value)));
  drawAll();
}
function resetFilters() {
  Object.assign(filter, { layers: [0, Math.max(0, nLayer - 1)], tokens: [0, Math.max(0, T.n_token - 1)], phase: -1, outside: true, ops: new Set(usedOps), metric: "bytes" });
  showFilters();
  for (const c of charts) if (c.it.plane && c.it.plane.all) c.it.plane.all();
  drawAll();
}
function drawAll() {
  for (const c of charts) c.draw();
  const rest = [...sumBy(() => 0, filter.metric).values()][0] || 0;
  $("filtered").textContent = asMetric(rest, filter.metric) + " shown";
}

function start() {
  theme(firstTheme());
  header();
  for (const id of ["token-from", "token-to", "phase", "metric"]) $(id).disabled = !recorded;
  $("ops").hidden = !recorded;
  for (const op of recorded ? usedOps : []) {
    const label = document.createElement("label"), box = document.createElement("input");
    box.type = "checkbox";
    box.value = op;
    label.append(box, " " + T.operations[op]);
    $("ops").append(label);
  }
  for (const c of charts) addChart(c, () => (recorded || c.sums ? "" : "Not on record at --trace-level stats."));
  showFilters();
  drawAll();
  $("filters").addEventListener("change", readFilters);
  $("filters").addEventListener("submit", (e) => { e.preventDefault(); readFilters(); });
  $("reset").onclick = resetFilters;
  startFrame(drawAll, "layer-from");
  window.ttxReport = { charts, filter, readFilters, statistics: S, tables: T };
}
start();
