// compare_main.js -- several runs side by side: figures, sequences, hot sets, layers, reuse, experts. Runs are
// called A, B, ... in the order of the command line; `pair` chooses two of them.

const C = JSON.parse(document.getElementById("comparison").textContent);
const D = JSON.parse(document.getElementById("runs").textContent);
const runs = C.runs.map((r, i) => ({ ...r, ...D[i], name: runName(i) }));
const chosen = { measure: "share", pair: 0 };

function runName(i) { return (i < 26 ? "" : String.fromCharCode(64 + Math.floor(i / 26))) + String.fromCharCode(65 + (i % 26)); }
const base = (path) => String(path || "").replace(/\/+$/, "").split("/").pop();
const colours = runs.map((_, k) => seriesColour(k, runs.length));
const tokensOf = (r) => Math.max(1, r.prompt_tokens + r.decode_tokens);
const pairOf = () => C.pairs[chosen.pair];
const sides = () => [runs[pairOf().a], runs[pairOf().b]];
const asShare = (v) => (v === null ? "none" : percent(v));
const asCorrelation = (v) => (v === null || v === undefined ? "none" : v.toFixed(3));

// A row of statistics in the measure that is chosen; `all`: the sum that shares are of.
function measured(run, row, all) {
  if (!row) return 0;
  return chosen.measure === "ns" ? row.ns : chosen.measure === "bytes" ? row.bytes : chosen.measure === "token" ? row.bytes / tokensOf(run) : row.bytes / (all || 1);
}
const asMeasured = (v) => (chosen.measure === "ns" ? asTime(v) : chosen.measure === "share" ? percent(v) : asBytes(v));

// Bars of every run for each key that any of them has.
function sideBySide(list, key, name) {
  return () => {
    const keys = [...new Set(runs.flatMap((r) => list(r).map(key)))];
    const all = runs.map((r) => list(r).reduce((sum, x) => sum + x.bytes, 0));
    const found = runs.map((r) => {
      const by = new Map();
      for (const x of list(r)) { const b = by.get(key(x)) || { bytes: 0, ns: 0 }; by.set(key(x), { bytes: b.bytes + x.bytes, ns: b.ns + x.ns }); }
      return by;
    });
    return { series: runs.map((r) => r.name), text: asMeasured,
             bars: keys.map((k) => ({ name: name(k), values: runs.map((r, i) => measured(r, found[i].get(k), all[i])) })) };
  };
}

// ---- figures ----

const figures = [["records", asCount], ["prompt_tokens", asCount], ["decode_tokens", asCount], ["decode_tokens_per_second", (v) => v.toFixed(2)],
  ["weight_bytes", asBytes], ["sequential_share", percent], ["reuse_factor", (v) => v.toFixed(2) + " times"], ["mean_reuse_distance", asBytes],
  ["same_tensor_sequence", percent], ["same_object_sequence", percent]];
charts.push({ id: "figures", title: "Figures", wide: true, note: "Of each run. Sequences: decode tokens whose accesses equal those of the run's first one, by tensors, and by tensors and experts.",
  make: (box) => table(box, () => ({
    columns: [["figure", String], ...runs.map((r) => [r.name, String])], heads: ["", ...runs.map((r) => r.name)],
    rows: [["trace", (r) => base(r.trace)], ["model", (r) => base(r.model_file)], ["level", (r) => r.level],
      ...figures.map(([f, text]) => [f.replaceAll("_", " "), (r) => (r[f] === null ? "none" : text(r[f]))])]
      .map(([figure, value]) => ({ figure, ...Object.fromEntries(runs.map((r) => [r.name, value(r)])) })), all: true })) });

const pairFields = [["same_sequence", "sequence equal", asShare], ["hot_overlap", "hot sets overlap", asShare],
  ["bytes_correlation", "bytes correlate", asCorrelation], ["expert_correlation", "experts correlate", asCorrelation]];
charts.push({ id: "pairs", title: "Pairs", wide: true,
  note: "Sequence: the part of a decode token's accesses, from the first on, that name the same tensors. Hot sets: tensors hot in both, of those hot in either. Correlation: of the bytes of tensors of the same name; of the shares of experts in their layers.",
  make: (box) => table(box, () => ({
    columns: [["pair", String], ["same_model", (v) => (v ? "yes" : "no")], ["shared_tensors", asCount], ...pairFields.map(([f, , text]) => [f, text])],
    heads: ["", "same model", "tensors of the same name", ...pairFields.map((f) => f[1])],
    rows: C.pairs.map((p) => ({ ...p, pair: runs[p.a].name + ", " + runs[p.b].name })), all: true })) });
charts.push({ id: "matrix", title: "Every run with every other", note: "How alike two runs are: 1 is equal.", make: (box) => {
  const choose = document.createElement("select");
  choose.setAttribute("aria-label", "what is compared");
  for (const [f, title] of pairFields) choose.add(new Option(title, f));
  box.append(choose);
  const chart = heatmap(canvasIn(box, "Every run with every other"), 280, () => {
    const f = choose.value, found = new Map(C.pairs.flatMap((p) => [[p.a + "," + p.b, p[f]], [p.b + "," + p.a, p[f]]]));
    return { rows: runs.map((r) => r.name), columns: runs.length, column: (i) => runs[i].name, value: (j, i) => (i === j ? 1 : Math.max(0, found.get(j + "," + i) || 0)), text: (v) => v.toFixed(3) };
  }, { linear: true });
  choose.onchange = () => chart.update();
  chart.empty = () => (runs.length > 2 ? "" : "Two runs are one pair: see above.");
  return chart;
} });

// ---- order ----

charts.push({ id: "sequence", title: "Order of a decode token", wide: true,
  note: "The accesses of each run's first decode token, in order; dark where they name the same tensor as the first run's at that place.", make: (box) => {
  const chart = heatmap(canvasIn(box, "Order of a decode token"), 40 + 22 * runs.length, () => {
    const name = (r, i) => (r.sequence[i] === undefined ? undefined : r.tensors[r.sequence[i]].tensor_name);
    return { rows: runs.map((r) => r.name), columns: Math.max(0, ...runs.map((r) => r.sequence.length)), short: String,
             column: (i) => "access " + i + ": " + runs.map((r) => r.name + " " + (name(r, i) || "nothing")).join(", "),
             value: (j, i) => { const n = name(runs[j], i); return n === undefined ? 0 : n === name(runs[0], i) ? 1 : 0.2; },
             text: (v) => (v === 1 ? "as in " + runs[0].name : v ? "another tensor" : "nothing") };
  }, { linear: true });
  chart.empty = () => (runs.some((r) => r.sequence.length) ? "" : "No decode token on record.");
  return chart;
} });
lineChart("token-time", "Time of a token", "By position, of each run.", () => {
  const at = [...new Set(runs.flatMap((r) => r.tokens.map((t) => t.token)))].sort((a, b) => a - b);
  const by = runs.map((r) => new Map(r.tokens.map((t) => [t.token, t.ns])));
  return { labels: ["token", ...runs.map((r) => r.name)], rows: at.map((t) => [t, ...by.map((m) => m.get(t) ?? null)]), x: asCount, y: asTime,
           options: { colors: colours, connectSeparatedPoints: true } };
});

// ---- where the bytes go ----

barChart("layers", "Layers", "What each layer costs, as chosen above.", sideBySide((r) => r.layers, (l) => (l.layer_id === null ? -1 : l.layer_id), (l) => (l < 0 ? "outside" : "layer " + l)), { sideBySide: true });
barChart("components", "Components", "Weights by what they are for, keys and values, activations.", sideBySide((r) => r.components, (c) => c.component, String), { sideBySide: true });
barChart("operations", "Operations", "ggml's names.", sideBySide((r) => r.operations, (o) => o.operation_type, String), { sideBySide: true });
charts.push({ id: "tensors", title: "Tensors", wide: true, note: "Each tensor's share of the bytes of weights in the two runs of the pair, largest difference first; hot in one, both or neither.",
  make: (box) => table(box, () => {
    const [a, b] = sides(), all = [a, b].map((r) => r.tensors.reduce((sum, t) => sum + t.bytes, 0) || 1), names = new Map();
    [a, b].forEach((r, k) => r.tensors.forEach((t) => names.set(t.tensor_name, { ...names.get(t.tensor_name), ["v" + k]: t.bytes / all[k], ["hot" + k]: t.hot })));
    const rows = [...names].map(([tensor, v]) => ({ tensor, a: v.v0, b: v.v1, difference: (v.v1 || 0) - (v.v0 || 0),
      hot: [v.hot0 && a.name, v.hot1 && b.name].filter(Boolean).join(", ") }));
    rows.sort((x, y) => Math.abs(y.difference) - Math.abs(x.difference) || (y.a || 0) - (x.a || 0));
    return { columns: [["tensor", String], ["a", percent], ["b", percent], ["difference", (v) => (Math.abs(v) < 5e-5 ? "same" : (v > 0 ? "+" : "") + percent(v))], ["hot", String]],
             heads: ["tensor", a.name, b.name, "difference", "hot in"], rows };
  }) });

// ---- reuse ----

// Lines of each run over the union of their sizes.
function overSizes(points) {
  const at = [...new Set([0, ...runs.flatMap((r) => points(r).map((p) => p[0]))])].sort((a, b) => a - b);
  at.push(at[at.length - 1] * 1.02); // so that a last step has a width
  return at.map((size) => [size, ...runs.map((r) => {
    const v = points(r);
    let low = 0, high = v.length;
    while (low < high) { const mid = (low + high) >> 1; if (v[mid][0] <= size) low = mid + 1; else high = mid; }
    return low ? v[low - 1][1] : 0;
  })]);
}
const shareAxes = { x: { axisLabelFormatter: asBytes, valueFormatter: asBytes }, y: { axisLabelFormatter: percent, valueFormatter: percent, axisLabelWidth: 70 } };
lineChart("reuse", "Reuse distance", "Share of accesses whose object was used again within so many bytes of other objects.", () => ({
  labels: ["bytes", ...runs.map((r) => r.name)], rows: overSizes((r) => {
    const all = r.reuse.first_uses + r.reuse.reuses || 1;
    let n = 0;
    return r.reuse.histogram.map((h) => [Math.max(1, h.upto), (n += h.accesses) / all]);
  }), x: asBytes, y: percent, options: { colors: colours, stepPlot: true, valueRange: [0, 1.02], axes: shareAxes } }));
for (const [id, title, field] of [["lru", "What an LRU cache would remove", "lru_bytes"], ["pinned", "What pinning would remove", "pinned_bytes"]])
  lineChart(id, title, "Share of the bytes accessed that need no read, by size.", () => ({
    labels: ["size", ...runs.map((r) => r.name)], rows: overSizes((r) => (r.reuse.cache || []).map((p) => [p.size, p[field]])),
    x: asBytes, y: percent, options: { colors: colours, valueRange: [0, 1.02], axes: shareAxes } }));

// ---- experts ----

function sharesOfExperts(r) {
  return new Map(r.experts.map((l) => { const all = l.tokens.reduce((a, v) => a + v, 0) || 1; return [l.layer_id, l.tokens.map((v) => v / all)]; }));
}
function expertPoints() {
  const [a, b] = sides().map(sharesOfExperts), out = [];
  for (const [layer, v] of a) if (b.has(layer)) v.forEach((x, e) => out.push({ layer, expert: e, x, y: b.get(layer)[e] || 0 }));
  return out;
}
const noExperts = () => (sides().every((r) => r.experts.length) ? "" : "A run of this pair used no experts.");
charts.push({ id: "experts", title: "Experts of a pair", note: "Each dot is an expert of a layer: its share of the layer's activations in the one run (right) and in the other (down). On the line, both use it alike.", make: (box) => {
  let points = [], most = 1;
  const plane = new Plane(canvasIn(box, "Experts of a pair"), 420, (p) => {
    p.ctx.strokeStyle = css("--soft");
    p.ctx.beginPath();
    p.ctx.moveTo(p.px(0), p.py(0)); p.ctx.lineTo(p.px(most), p.py(most));
    p.ctx.stroke();
    p.ctx.fillStyle = css("--accent");
    p.ctx.globalAlpha = 0.6;
    for (const q of points) { p.ctx.beginPath(); p.ctx.arc(p.px(q.x), p.py(q.y), 2.5, 0, 7); p.ctx.fill(); }
    p.ctx.globalAlpha = 1;
    p.axes(percent, percent);
  }, (x, y) => {
    let best = null, near = 12;
    for (const q of points) { const d = Math.hypot(plane.px(q.x) - plane.px(x), plane.py(q.y) - plane.py(y)); if (d < near) { near = d; best = q; } }
    const [a, b] = sides();
    return best ? `layer ${best.layer}, expert ${best.expert}\n${a.name}: ${percent(best.x)}\n${b.name}: ${percent(best.y)}` : "";
  });
  return { plane, empty: noExperts,
    update() {
      points = expertPoints();
      most = Math.max(1e-9, ...points.map((q) => Math.max(q.x, q.y))) * 1.02;
      plane.size(most, most);
      plane.draw();
      return points.length > 0;
    },
    csv: () => [["layer_id", "expert_id", "a", "b"], ...points.map((q) => [q.layer, q.expert, q.x, q.y])] };
} });
charts.push({ id: "expert-overlap", title: "Experts by layer", note: "Correlation of a layer's shares of experts, and the part of activations that both runs have in common.", make: (box) => {
  const chart = bars(canvasIn(box, "Experts by layer"), () => {
    const [a, b] = sides().map(sharesOfExperts), list = [];
    for (const [layer, x] of a) {
      const y = b.get(layer);
      if (!y) continue;
      const n = x.length, mean = 1 / n, dot = (u, v) => u.reduce((s, w, e) => s + (w - mean) * ((v[e] || 0) - mean), 0);
      list.push({ name: "layer " + layer, values: [Math.max(0, dot(x, y) / (Math.sqrt(dot(x, x) * dot(y, y)) || 1)), x.reduce((s, w, e) => s + Math.min(w, y[e] || 0), 0)] });
    }
    return { bars: list, series: ["correlation", "in common"], text: (v) => v.toFixed(2) };
  }, { sideBySide: true });
  chart.empty = noExperts;
  return chart;
} });

// ---- the page ----

function drawAll() {
  for (const c of charts) c.draw();
}
function start() {
  theme(firstTheme());
  document.title = "ttx report: " + runs.length + " runs";
  document.getElementById("summary").textContent = runs.map((r) => r.name + ": " + base(r.trace) + " (" + base(r.model_file) + ")").join(" · ");
  const measure = document.getElementById("measure"), pair = document.getElementById("pair");
  C.pairs.forEach((p, i) => pair.add(new Option(runs[p.a].name + " and " + runs[p.b].name, i)));
  for (const c of charts) addChart(c);
  drawAll();
  document.getElementById("filters").addEventListener("change", () => { chosen.measure = measure.value; chosen.pair = Number(pair.value); drawAll(); });
  document.getElementById("filters").addEventListener("submit", (e) => e.preventDefault());
  startFrame(drawAll, "measure");
  window.ttxReport = { charts, runs, comparison: C };
}
start();
