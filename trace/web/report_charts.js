// report_charts.js -- what the page shows: each chart is {id, title, note, make(element), wide, sums}; `sums`: it
// has something to say about a trace without records (level stats).

const byLayerKeys = () => {
  const keys = [];
  for (let l = 0; l < nLayer; l++) if (layerShown(l)) keys.push(l);
  if (filter.outside) keys.push(-1);
  return keys;
};
const shownBins = () => { const [a, b] = binRange(); return b - a + 1; };
const binName = (i) => binTokens(binRange()[0] + i);
const binShort = (i) => "token " + (binRange()[0] + i) * T.tokens_a_bin;
const tensorShown = (t) => layerShown(t.layer_id === null ? -1 : t.layer_id);
const statLayers = () => S.layers.filter((l) => layerShown(l.layer_id === null ? -1 : l.layer_id));
const statName = (l) => layerName(l.layer_id === null ? -1 : l.layer_id);

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
  return { labels: ["token", "time"], rows, x: (v) => asCount(v), y: asTime };
}, { sums: true });

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
    lines.push(tokenText(hit.token) + ", " + T.operations[hit.op] + (hit.expert ? ", expert " + (hit.expert - 1) : "") + (hit.state ? ", " + hit.state : ""));
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
        return { token: w.token[i], op: w.op[i], expert: w.expert[i], state: stateWords[w.residency[i]] };
  }
  return null;
}

// One pixel for each cell of a map, where the filter of layers shows it; made when that changes, not when the view does.
function mapImage(v, step, shown, colour) {
  const n = Math.ceil(T.n_time / step), off = document.createElement("canvas"), g = off.getContext("2d");
  off.width = n;
  off.height = T.n_offset;
  const image = g.createImageData(n, T.n_offset);
  for (let i = 0; i < n; i++)
    for (let j = 0; j < T.n_offset; j++) {
      const shade = v[i * T.n_offset + j];
      if (!shade || !shown[j]) continue;
      const rgb = colour(shade), k = 4 * (j * n + i);
      image.data[k] = rgb[0]; image.data[k + 1] = rgb[1]; image.data[k + 2] = rgb[2]; image.data[k + 3] = 255;
    }
  g.putImageData(image, 0, 0);
  return { off, perX: step * T.ns_a_time, perY: T.file_bytes / T.n_offset };
}
function drawMapImage(p, { off, perX, perY }) {
  const w = (p.x1 - p.x0) / perX, h = (p.y1 - p.y0) / perY;
  p.ctx.imageSmoothingEnabled = w > p.plotWidth || h > p.plotHeight;
  p.ctx.imageSmoothingQuality = "high";
  p.ctx.drawImage(off, p.x0 / perX, p.y0 / perY, w, h, p.left, 4, p.plotWidth, p.plotHeight);
}
const mapShade = (() => {
  let low = 255, high = 1;
  for (const v of maps.accesses) if (v) { low = Math.min(low, v); high = Math.max(high, v); }
  return (v) => palettes.viridis[Math.round(90 + (165 * (v - low)) / Math.max(1, high - low))];
})();

function offsetMap(box) {
  const canvas = canvasIn(box, "File offset over time");
  let shown = false, images = [];
  const placeShown = [];
  const plane = new Plane(canvas, 460, (p) => {
    p.ctx.fillStyle = stops.viridis[0];
    p.ctx.fillRect(p.left, 0, p.plotWidth, p.pixels);
    for (const i of images) drawMapImage(p, i);
    drawWindow(p);
    p.axes(asTime, asBytes);
  }, tellPlace);
  return {
    plane,
    update() {
      for (let j = 0; j < T.n_offset; j++) {
        const t = tensorAt(((j + 0.5) * T.file_bytes) / T.n_offset);
        placeShown[j] = !t || tensorShown(t);
      }
      images = [mapImage(maps.accesses, T.step_accesses, placeShown, mapShade),
        mapImage(maps.reads, T.step_reads, placeShown, () => [230, 60, 40]),
        mapImage(maps.faults, T.step_faults, placeShown, () => [255, 60, 220])];
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
const stateColours = ["#fd8d3c", "#fd8d3c", "#5ec962", "#ff5c8a", "#e31a1c"]; // unknown, resident, prefetched, late, missed
const stateWords = ["", "in memory", "read ahead", "read ahead, but late", "missed"];
// Close enough, accesses that were kept one by one are drawn as what they were.
function drawWindow(p) {
  if ((p.x1 - p.x0) / p.plotWidth > T.ns_a_time / 8) return;
  for (const w of [windows.prompt, windows.decode])
    for (let i = 0; i < w.n; i++) {
      if (w.time[i] < p.x0 || w.time[i] > p.x1 || w.at[i] > p.y1 || w.at[i] + w.size[i] < p.y0) continue;
      if (!filter.ops.has(w.op[i])) continue;
      const next = i + 1 < w.n ? w.time[i + 1] : w.time[i];
      p.ctx.fillStyle = stateColours[w.residency[i]] || stateColours[0];
      p.ctx.fillRect(p.px(w.time[i]), p.py(w.at[i]), Math.max(1.5, p.px(Math.min(next, p.x1)) - p.px(w.time[i]) - 0.5), Math.max(1.5, p.py(w.at[i] + w.size[i]) - p.py(w.at[i])));
    }
}
charts.push({ id: "map", title: "File offset over time", wide: true, make: offsetMap,
  note: "Brighter: more bytes of that place accessed. Red: reads of the file (those that ttx asked for; where it did not, those of the disk, if they were imported); pink: page faults. Close up, the first accesses of the prompt and of decoding are drawn one by one (green: read ahead; pink: read ahead, but late; red: missed). Wheel zooms (with shift: time only), drag pans." });

lineChart("rates", "Over time", "Bytes of the file accessed, and bytes read from it, per second.", () => {
  const rows = [];
  for (let t = 0; t < T.n_time; t++) rows.push([t * T.ns_a_time, (times.bytes[t] * 1e9) / T.ns_a_time, (times.read_bytes[t] * 1e9) / T.ns_a_time]);
  return { labels: ["time", "accessed", "read"], rows, x: asTime, y: (v) => asBytes(v) + "/s" };
}, { wide: true });

// ---- tensors ----

charts.push({ id: "hot", title: "Hot and cold tensors", wide: true, sums: true,
  note: "Hot: the top 10% by " + (S.hot_by === "bytes" ? "bytes" : "accesses") + " (heads put together); cold: the bottom 50%. " +
    (S.hot_cut_among_equals ? "The cut falls among tensors that are used equally: which of them is hot is only their order. " : "") + "Of the whole run; the filter of layers applies.",
  make: (box) => table(box, () => ({
    columns: [["tensor_name", String], ["category", String], ["accesses", asCount], ["records", asCount], ["bytes", asBytes],
      ["size_bytes", asBytes], ["ns", asTime], ["saved_per_pinned_mib", asBytes]],
    heads: ["tensor", "", "accesses", "records", "bytes", "size", "time", "saved a pinned MiB"],
    rows: tensors.filter((t) => t.rank !== undefined && tensorShown(t)).sort((a, b) => a.rank - b.rank), ends: true,
    mark: (t) => (t.category === "hot" ? "hot" : "") })) });

function sorted(sums, name) {
  return [...sums].sort((a, b) => b[1] - a[1]).map(([k, v]) => ({ name: name(k), values: [v] }));
}
const metricBars = (key, name) => () => ({ bars: sorted(sumBy(key, filter.metric), name), series: [metricName[filter.metric]], text: (v) => asMetric(v, filter.metric) });
barChart("components", "Components", "Weights by what they are for, keys and values, activations.", metricBars(component, (k) => k), { sums: true });
barChart("operations", "Operations", "ggml's names.", metricBars((i) => row.op[i], (op) => T.operations[op]));
barChart("layers", "Layers", "What each layer costs: choose bytes, records or time above.", () => {
  const sums = sumBy(rowLayer, filter.metric), keys = byLayerKeys();
  return { bars: keys.map((l) => ({ name: layerName(l), values: [sums.get(l) || 0] })), series: [metricName[filter.metric]], text: (v) => asMetric(v, filter.metric) };
}, { sums: true });

// ---- attention ----

barChart("qkv", "Q, K, V and O", "Projections of attention.", metricBars((i) => { const t = tensors[rowTensor(i)]; return t && t.component_type !== "kv_cache" && t.qkv_type ? t.qkv_type : undefined; }, (k) => k), { sums: true });

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
