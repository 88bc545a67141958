// report_charts.js -- what the page shows: each chart is {id, title, note, make(element), wide}.

const charts = [];
const byLayerKeys = () => {
  const keys = [];
  for (let l = 0; l < nLayer; l++) if (layerShown(l)) keys.push(l);
  if (filter.outside) keys.push(-1);
  return keys;
};
const shownBins = () => { const [a, b] = binRange(); return b - a + 1; };
const binName = (i) => binTokens(binRange()[0] + i);
const binShort = (i) => "token " + (binRange()[0] + i) * T.tokens_a_bin;
const statLayers = () => S.layers.filter((l) => layerShown(l.layer_id === null ? -1 : l.layer_id));
const statName = (l) => layerName(l.layer_id === null ? -1 : l.layer_id);

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
  charts.push({ id, title, note, make: (box) => bars(canvasIn(box, title), data, options) });
}
function lineChart(id, title, note, data, options) {
  charts.push({ id, title, note, wide: options && options.wide, make: (box) => lines(linesIn(box), data) });
}

// ---- tokens ----

heat("token-layer", "Tokens by layers", "What each token took from each layer. A batch is shared evenly by its tokens.", () => {
  const sums = sumByBin(rowLayer, filter.metric), keys = byLayerKeys();
  return { rows: keys.map(layerName), columns: shownBins(), column: binName, short: binShort,
           value: (j, i) => (sums.get(keys[j]) || [])[i] || 0, text: (v) => asMetric(v, filter.metric) };
});

heat("token-tensor", "Tokens by tensors", "Tensors in the order of the file, then the caches of keys and values. Zoom with the wheel or +.", () => {
  const sums = sumByBin((i) => (rowTensor(i) < 0 ? undefined : rowTensor(i)), filter.metric);
  const keys = [...sums.keys()].sort((a, b) => a - b);
  return { rows: keys.map(tensorName), columns: shownBins(), column: binName, short: binShort,
           value: (j, i) => sums.get(keys[j])[i], text: (v) => asMetric(v, filter.metric) };
}, { left: 150 });

lineChart("token-time", "Time of a token", "Time of its batch, divided by the tokens in it.", () => {
  const [b0, b1] = binRange(), rows = [];
  for (let b = b0; b <= b1; b++) if (tokenBins.n[b]) rows.push([b * T.tokens_a_bin, tokenBins.ns[b] / tokenBins.n[b]]);
  return { labels: ["token", "ns"], rows, x: (v) => asCount(v), y: asTime };
});

lineChart("token-cache", "Keys and values by token", "Bytes of the KV cache that a token reads and writes: what grows with the context.", () => {
  const sums = sumByBin((i) => (component(i) === "kv_cache" ? "kv" : rowTensor(i) >= 0 ? "weights" : undefined), "bytes");
  const kv = sums.get("kv"), weights = sums.get("weights"), [b0] = binRange(), rows = [];
  const per = (line, b) => (line ? line[b] : 0) / Math.max(1, tokenBins.n[b0 + b]);
  for (let b = 0; b < shownBins(); b++)
    if (tokenBins.n[b0 + b]) rows.push([(b0 + b) * T.tokens_a_bin, per(kv, b), per(weights, b)]);
  return { labels: ["token", "KV cache", "weights"], rows, x: (v) => asCount(v), y: asBytes, options: { logscale: rows.every((r) => r[1] > 0 && r[2] > 0) } };
});

// ---- the file over time ----

function tellPlace(t, at) {
  const bin = Math.min(T.n_time - 1, Math.floor(t / T.ns_a_time)), tensor = tensorAt(at);
  const lines = [asTime(t) + ", offset " + asBytes(at)];
  if (tensor) lines.push(tensor.tensor_name, layerName(tensor.layer_id === null ? -1 : tensor.layer_id) + ", " + [...(opsOfTensor.get(tensor.tensor_idx) || [])].join(" "));
  const hit = nearest(t, at);
  if (hit) {
    lines.push(tokenText(hit.token) + ", " + T.operations[hit.op] + (hit.expert ? ", expert " + (hit.expert - 1) : ""));
  } else if (times.first_token[bin]) {
    const a = times.first_token[bin] - 1, b = times.last_token[bin] - 1;
    lines.push(a === b ? tokenText(a) : "tokens " + a + " to " + b);
  }
  const reads = times.reads[bin], faults = times.minor[bin] + times.major[bin];
  if (reads || faults) lines.push(reads + " reads, " + faults + " faults in this time");
  return lines.join("\n");
}

// An access kept one by one that covers a place, at most a hundredth of a time bin away.
function nearest(t, at) {
  for (const w of [windows.prompt, windows.decode]) {
    let low = 0, high = w.n;
    while (low < high) {
      const mid = (low + high) >> 1;
      if (w.time[mid] <= t) low = mid + 1; else high = mid;
    }
    for (let i = low - 1; i >= 0 && i > low - 400; i--)
      if (at >= w.at[i] && at < w.at[i] + w.size[i] && t - w.time[i] < T.ns_a_time)
        return { token: w.token[i], op: w.op[i], expert: w.expert[i] };
  }
  return null;
}

function offsetMap(box) {
  const canvas = canvasIn(box, "File offset over time");
  let shown = false;
  const placeShown = [];
  const plane = new Plane(canvas, 460, (p) => {
    p.ctx.fillStyle = stops.viridis[0];
    p.ctx.fillRect(p.left, 0, p.plotWidth, p.pixels);
    const nOff = T.n_offset, perOff = T.file_bytes / nOff, draw = (v, step, colour) => {
      const n = Math.ceil(T.n_time / step);
      const stretch = { ...p, x0: p.x0 / step / T.ns_a_time, x1: p.x1 / step / T.ns_a_time, y0: p.y0 / perOff, y1: p.y1 / perOff };
      Object.setPrototypeOf(stretch, planeOf(p, step * T.ns_a_time, perOff));
      stretch.image(n, nOff, (i, j) => (placeShown[j] && v[i * nOff + j] ? colour(v[i * nOff + j]) : null));
    };
    let low = 255, high = 1;
    for (const v of maps.accesses) if (v) { low = Math.min(low, v); high = Math.max(high, v); }
    const shade = (v) => palettes.viridis[Math.round(90 + (165 * (v - low)) / Math.max(1, high - low))];
    draw(maps.accesses, T.step_accesses, shade);
    draw(maps.reads, T.step_reads, () => [230, 60, 40]);
    draw(maps.faults, T.step_faults, () => [255, 60, 220]);
    drawWindow(p);
    p.axes(asTime, asBytes);
  }, tellPlace);
  return {
    plane,
    update() {
      for (let j = 0; j < T.n_offset; j++) {
        const t = tensorAt(((j + 0.5) * T.file_bytes) / T.n_offset);
        placeShown[j] = !t || layerShown(t.layer_id === null ? -1 : t.layer_id);
      }
      plane.size(T.n_time * T.ns_a_time, T.file_bytes);
      timesOfTokens(plane);
      plane.draw();
      shown = maps.accesses.some((v) => v) || maps.reads.some((v) => v);
      return shown;
    },
    csv() {
      const out = [["time_ns", "file_offset", "shade"]];
      maps.accesses.forEach((v, k) => {
        if (v && placeShown[k % T.n_offset])
          out.push([Math.floor(k / T.n_offset) * T.step_accesses * T.ns_a_time, Math.floor(((k % T.n_offset) * T.file_bytes) / T.n_offset), v]);
      });
      return out;
    },
  };
}
// The plane in other units, for images whose cells are not the plane's.
function planeOf(p, unitX, unitY) {
  return {
    ctx: p.ctx, left: p.left, plotWidth: p.plotWidth, plotHeight: p.plotHeight, image: p.image,
    px: (x) => p.px(x * unitX), py: (y) => p.py(y * unitY),
  };
}
// The filter of tokens is one of time here.
function timesOfTokens(plane) {
  if (filter.tokens[0] === 0 && filter.tokens[1] >= T.n_token - 1) return;
  let from = Infinity, to = -1;
  for (let t = 0; t < T.n_time; t++)
    if (times.first_token[t] && times.last_token[t] - 1 >= filter.tokens[0] && times.first_token[t] - 1 <= filter.tokens[1]) {
      from = Math.min(from, t);
      to = Math.max(to, t);
    }
  if (to >= 0) { plane.x0 = from * T.ns_a_time; plane.x1 = (to + 1) * T.ns_a_time; plane.keep(); }
}
// Close enough, accesses that were kept one by one are drawn as what they were.
function drawWindow(p) {
  if ((p.x1 - p.x0) / p.plotWidth > T.ns_a_time / 8) return;
  for (const w of [windows.prompt, windows.decode])
    for (let i = 0; i < w.n; i++) {
      if (w.time[i] < p.x0 || w.time[i] > p.x1 || w.at[i] > p.y1 || w.at[i] + w.size[i] < p.y0) continue;
      if (!filter.ops.has(w.op[i])) continue;
      const next = i + 1 < w.n ? w.time[i + 1] : w.time[i];
      p.ctx.fillStyle = "#fd8d3c";
      p.ctx.fillRect(p.px(w.time[i]), p.py(w.at[i]), Math.max(1.5, p.px(Math.min(next, p.x1)) - p.px(w.time[i]) - 0.5), Math.max(1.5, p.py(w.at[i] + w.size[i]) - p.py(w.at[i])));
    }
}
charts.push({ id: "map", title: "File offset over time", wide: true, make: offsetMap,
  note: "Brighter: more bytes of that place accessed. Red: reads of the file; pink: page faults. Close up, the first accesses of the prompt and of decoding are drawn one by one. Wheel zooms (with shift: time only), drag pans." });

lineChart("rates", "Over time", "Bytes of the file accessed, and bytes read from it, per second.", () => {
  const rows = [];
  for (let t = 0; t < T.n_time; t++) rows.push([t * T.ns_a_time, (times.bytes[t] * 1e9) / T.ns_a_time, (times.read_bytes[t] * 1e9) / T.ns_a_time]);
  return { labels: ["time", "accessed", "read"], rows, x: asTime, y: (v) => asBytes(v) + "/s" };
}, { wide: true });

charts.push({ id: "events", title: "Reads and faults over time", wide: true, note: "Reads that ttx asked for, minor and major page faults, in each bin of time.", make: (box) => {
  const chart = lines(linesIn(box), () => {
    const rows = [];
    for (let t = 0; t < T.n_time; t++) rows.push([t * T.ns_a_time, times.reads[t], times.minor[t], times.major[t]]);
    return { labels: ["time", "reads", "minor faults", "major faults"], rows, x: asTime, y: asCount };
  });
  chart.empty = () => (S.io.reads + S.faults.minor + S.faults.major ? "" : "No reads and no faults were recorded (they need --trace-level io, or a load mode that reads).");
  return chart;
} });

// ---- tensors ----

charts.push({ id: "hot", title: "Hot and cold tensors", wide: true,
  note: "Hot: the top 10% by " + (S.hot_by === "bytes" ? "bytes" : "accesses") + " (heads put together); cold: the bottom 50%. " +
    (S.hot_cut_among_equals ? "The cut falls among tensors that are used equally: which of them is hot is only their order. " : "") + "Of the whole run; the filter of layers applies.",
  make(box) {
    const scroll = document.createElement("div");
    scroll.className = "scroll";
    scroll.tabIndex = 0;
    box.append(scroll);
    const list = () => tensors.filter((t) => t.rank !== undefined && layerShown(t.layer_id === null ? -1 : t.layer_id)).sort((a, b) => a.rank - b.rank);
    const fields = ["tensor_name", "category", "accesses", "records", "bytes", "size_bytes", "ns", "reads", "minor_faults", "major_faults"];
    return {
      update() {
        const v = list(), some = v.length > 60 ? [...v.slice(0, 30), null, ...v.slice(-30)] : v;
        const table = document.createElement("table"), add = (parent, tag, text, cls) => {
          const e = document.createElement(tag);
          e.textContent = text;
          if (cls) e.className = cls;
          parent.append(e);
        };
        const head = table.createTHead().insertRow();
        ["tensor", "", "accesses", "records", "bytes", "size", "time", "reads", "faults", "saved a pinned MiB"].forEach((h) => add(head, "th", h));
        const body = table.createTBody();
        for (const t of some) {
          const line = body.insertRow();
          if (!t) { add(line, "td", "... " + (v.length - 60) + " more (CSV has all)"); continue; }
          add(line, "td", t.tensor_name);
          add(line, "td", t.category, t.category);
          [asCount(t.accesses), asCount(t.records), asBytes(t.bytes), asBytes(t.size_bytes), asTime(t.ns), asCount(t.reads || 0),
            asCount((t.minor_faults || 0) + (t.major_faults || 0)), asBytes(t.saved_per_pinned_mib)].forEach((x) => add(line, "td", x));
        }
        scroll.replaceChildren(table);
        return v.length > 0;
      },
      csv: () => [fields, ...list().map((t) => fields.map((f) => (t[f] === undefined ? "" : t[f])))],
    };
  } });

function sorted(sums, name) {
  return [...sums].sort((a, b) => b[1] - a[1]).map(([k, v]) => ({ name: name(k), values: [v] }));
}
const metricBars = (key, name) => () => ({ bars: sorted(sumBy(key, filter.metric), name), series: [metricName[filter.metric]], text: (v) => asMetric(v, filter.metric) });
barChart("components", "Components", "Weights by what they are for, keys and values, activations.", metricBars(component, (k) => k));
barChart("operations", "Operations", "ggml's names.", metricBars((i) => row.op[i], (op) => T.operations[op]));
barChart("layers", "Layers", "What each layer costs: choose bytes, records or time above.", () => {
  const sums = sumBy(rowLayer, filter.metric), keys = byLayerKeys();
  return { bars: keys.map((l) => ({ name: layerName(l), values: [sums.get(l) || 0] })), series: [metricName[filter.metric]], text: (v) => asMetric(v, filter.metric) };
});

// ---- attention ----

barChart("qkv", "Q, K, V and O", "Projections of attention.", metricBars((i) => { const t = tensors[rowTensor(i)]; return t && t.component_type !== "kv_cache" && t.qkv_type ? t.qkv_type : undefined; }, (k) => k));

function headMap(id, title, note, fields, text) {
  const lists = () => S.heads.filter((l) => layerShown(l.layer_id));
  const widths = fields.map((f) => Math.max(0, ...S.heads.map((l) => l[f[1]].length)));
  charts.push({ id, title, note, make: (box) => {
    const chart = heatmap(canvasIn(box, title), 320, () => {
      const v = lists(), starts = [], columns = widths.reduce((a, w) => (starts.push(a), a + w), 0);
      const at = (i) => { let k = starts.length - 1; while (starts[k] > i) k--; return [k, i - starts[k]]; };
      return { rows: v.map((l) => layerName(l.layer_id)), columns,
               column: (i) => { const [k, h] = at(i); return fields[k][0] + " head " + h; },
               short: (i) => { const [k, h] = at(i); return fields[k][0] + " " + h; },
               value: (j, i) => { const [k, h] = at(i); return v[j][fields[k][1]][h] || 0; }, text };
    });
    chart.empty = () => (S.heads.length ? "" : "No record of a head (they need --trace-level head).");
    return chart;
  } });
}
headMap("heads", "Weights of each head", "Bytes of q, k, v and o projections, by head, whole run.",
        [["q", "q_bytes"], ["k", "k_bytes"], ["v", "v_bytes"], ["o", "o_bytes"]], asBytes);
headMap("cache-heads", "Keys and values of each head", "Bytes read from the cache and written to it by KV head, whole run.",
        [["keys read", "cache_k_read"], ["values read", "cache_v_read"], ["keys written", "cache_k_written"], ["values written", "cache_v_written"]], asBytes);

// ---- residency ----

const stateNames = ["resident", "prefetched", "late", "missed", "unknown"];
barChart("residency", "Where the bytes were", "Accesses to weights: in memory, read ahead in time, read ahead but late, not there; unknown where nobody looked.", () => ({
  bars: stateNames.map((k) => ({ name: k, values: [S.residency[k].accesses] })).filter((b) => b.values[0]), series: ["accesses"], text: asCount }));
barChart("waits", "Between launches, by layer", "Time between launches: waits of late or missed operands, and everything else that is not computing.", () => ({
  bars: statLayers().map((l) => ({ name: statName(l), values: [l.waited_ns, Math.max(0, l.gap_ns - l.waited_ns)] })), series: ["waits", "other"], text: asTime }));
charts.push({ id: "disk", title: "Disk reads and faults by layer", note: "Reads that ttx asked for, minor and major faults.", make: (box) => {
  const chart = bars(canvasIn(box, "Disk reads and faults by layer"), () => ({
    bars: statLayers().map((l) => ({ name: statName(l) + (l.reread_factor > 1 ? " (read " + l.reread_factor.toFixed(2) + " times)" : ""), values: [l.reads, l.minor_faults, l.major_faults] })),
    series: ["reads", "minor faults", "major faults"], text: asCount }), { left: 190 });
  chart.empty = () => (S.io.reads + S.faults.minor + S.faults.major ? "" : "No reads and no faults were recorded (they need --trace-level io, or a load mode that reads).");
  return chart;
} });

// ---- reuse ----

lineChart("reuse", "Reuse distance", "Share of accesses whose object was used again within so many bytes of other objects: the hits of an LRU cache of that size.", () => {
  const all = S.reuse.first_uses + S.reuse.reuses;
  let n = 0;
  const rows = S.reuse.histogram.map((h) => [Math.max(1, h.upto), (n += h.accesses) / all]);
  if (rows.length) rows.unshift([Math.max(1, rows[0][0] / 2), 0]);
  return { labels: ["bytes", "share"], rows, x: asBytes, y: percent, options: { stepPlot: true, valueRange: [0, 1.02], axes: { x: { axisLabelFormatter: asBytes, valueFormatter: asBytes }, y: { axisLabelFormatter: percent, valueFormatter: percent, axisLabelWidth: 70 } } } };
});
lineChart("cache", "What a cache would remove", "Share of the bytes accessed that need no read: an LRU cache, and pinning the most used. Bends: LRU " + asBytes(S.reuse.lru_knee || 0) + ", pinning " + asBytes(S.reuse.pinned_knee || 0) + ".", () => ({
  labels: ["size", "LRU", "pinned"], rows: (S.reuse.cache || []).map((p) => [p.size, p.lru_bytes, p.pinned_bytes]), x: asBytes, y: percent }));

// ---- experts ----

const expertFields = { tokens: asCount, tokens_decode: asCount, bytes: asBytes, reads: asCount, read_bytes: asBytes, faults: asCount, late_or_missed: asCount };
function expertLayers(field) {
  const from = field.startsWith("tokens") ? S.routes.layers : S.experts;
  return from.filter((l) => layerShown(l.layer_id));
}
const noExperts = () => (S.experts && S.routes && S.routes.layers && S.routes.layers.length ? "" : "This run used no experts.");
charts.push({ id: "experts", title: "Experts", note: "Each layer's experts: tokens routed to them, bytes, reads, faults.", make(box) {
  const choose = document.createElement("select");
  choose.setAttribute("aria-label", "what of experts");
  for (const f in expertFields) choose.add(new Option(f.replaceAll("_", " "), f));
  box.append(choose);
  const chart = heatmap(canvasIn(box, "Experts"), 340, () => {
    const f = choose.value, v = expertLayers(f);
    return { rows: v.map((l) => layerName(l.layer_id)), columns: S.model.num_experts, column: (i) => "expert " + i, value: (j, i) => v[j][f][i] || 0, text: expertFields[f] };
  }, { linear: true });
  choose.onchange = () => chart.update();
  chart.empty = noExperts;
  return chart;
} });
charts.push({ id: "specialisation", title: "Specialisation", note: "How much of the choice of experts the word alone explains: mutual information of words and experts over the entropy of experts (large in short runs, where most words come once); and how often the next token takes the same expert again.", make(box) {
  const chart = bars(canvasIn(box, "Specialisation"), () => ({
    bars: expertLayers("tokens").map((l) => ({ name: layerName(l.layer_id), values: [l.specialisation, l.predicted_by_previous_token] })),
    series: ["explained by the word", "as the token before"], text: percent }), { sideBySide: true });
  chart.empty = noExperts;
  return chart;
} });
charts.push({ id: "favours", title: "Tokens that experts favour", wide: true, note: "Words that come to an expert more often than to its layer's others: how often, and how many times as often as by chance.", make(box) {
  const choose = document.createElement("select"), scroll = document.createElement("div");
  choose.setAttribute("aria-label", "layer of experts");
  for (const l of (S.routes && S.routes.layers) || []) choose.add(new Option(layerName(l.layer_id), l.layer_id));
  scroll.className = "scroll";
  scroll.tabIndex = 0;
  box.append(choose, scroll);
  const layer = () => S.routes.layers.find((l) => String(l.layer_id) === choose.value);
  const word = (f) => (f.text === null ? "#" + f.vocab_id : JSON.stringify(f.text));
  const chart = {
    update() {
      const table = document.createElement("table"), head = table.createTHead().insertRow(), body = table.createTBody();
      for (const h of ["expert", "tokens", "favours"]) { const e = document.createElement("th"); e.textContent = h; if (h === "favours") e.className = "words"; head.append(e); }
      layer().favoured_tokens.forEach((list, e) => {
        const line = body.insertRow();
        line.insertCell().textContent = "expert " + e;
        line.insertCell().textContent = layer().tokens[e];
        const words = line.insertCell();
        words.className = "words";
        words.textContent = list.map((f) => `${word(f)} ${f.n} (x${f.lift.toFixed(1)})`).join("   ");
      });
      scroll.replaceChildren(table);
      return true;
    },
    csv: () => [["layer", "expert", "vocab_id", "text", "n", "lift"], ...S.routes.layers.flatMap((l) => l.favoured_tokens.flatMap((list, e) => list.map((f) => [l.layer_id, e, f.vocab_id, f.text || "", f.n, f.lift])))],
  };
  choose.onchange = () => chart.update();
  chart.empty = noExperts;
  return chart;
} });
