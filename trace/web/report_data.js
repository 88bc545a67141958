// report_data.js -- the data of the page: unpacked tables, the filters, sums over what they let through.

const S = JSON.parse(document.getElementById("statistics").textContent);
const T = JSON.parse(document.getElementById("tables").textContent);

// Streams of trace/report_pack.c: differences with repetitions, LEB128, base64.
function unpack(text, n) {
  const bytes = atob(text), out = new Float64Array(n);
  let at = 0, value = 0, k = 0;
  const number = () => {
    let v = 0, scale = 1, b;
    do {
      b = bytes.charCodeAt(at++);
      v += (b & 127) * scale;
      scale *= 128;
    } while (b > 127);
    return v;
  };
  while (at < bytes.length && k < n) {
    let v = number();
    const repeats = v % 2;
    v = (v - repeats) / 2;
    value += v % 2 ? -(v + 1) / 2 : v / 2;
    out[k++] = value;
    if (repeats) for (let more = number() + 1; more > 0 && k < n; more--) out[k++] = value;
  }
  return out;
}

const nRow = T.n_row, nBin = T.n_bin;
const row = { tensor: unpack(T.row_tensor, nRow), layer: unpack(T.row_layer, nRow),
              op: unpack(T.row_op, nRow), phase: unpack(T.row_phase, nRow) };
const cell = { n: unpack(T.cell_n, nRow * nBin), bytes: unpack(T.cell_bytes, nRow * nBin),
               ns: unpack(T.cell_ns, nRow * nBin) };
const tokenBins = { n: unpack(T.token_n, nBin), ns: unpack(T.token_ns, nBin), bytes: unpack(T.token_bytes, nBin) };
const times = {};
for (const k in T.times) times[k] = unpack(T.times[k], T.n_time);
const maps = {
  accesses: unpack(T.map_accesses, Math.ceil(T.n_time / T.step_accesses) * T.n_offset),
  reads: unpack(T.map_reads, Math.ceil(T.n_time / T.step_reads) * T.n_offset),
  faults: unpack(T.map_faults, Math.ceil(T.n_time / T.step_faults) * T.n_offset),
};
function windowOf(w) {
  const out = { n: w.n };
  for (const k in w) if (k !== "n") out[k] = unpack(w[k], w.n);
  return out;
}
const windows = { prompt: windowOf(T.prompt_window), decode: windowOf(T.decode_window) };

const recorded = S.level !== "stats"; // or sums of the whole run alone
const nLayer = S.model.num_layers;
const tensors = S.tensors;
const tensorName = (i) => (tensors[i] ? tensors[i].tensor_name : "tensor " + i);
const placed = tensors.filter((t) => t.file_offset !== null)
  .map((t) => ({ t, at: T.shard_at[t.shard || 0] + t.file_offset })).sort((a, b) => a.at - b.at);

// The tensor at a place of the file, or null.
function tensorAt(at) {
  let low = 0, high = placed.length;
  while (low < high) {
    const mid = (low + high) >> 1;
    if (placed[mid].at <= at) low = mid + 1; else high = mid;
  }
  const p = placed[low - 1];
  return p && at < p.at + p.t.size_bytes ? p.t : null;
}

const layerName = (l) => (l < 0 ? "outside" : "layer " + l);
const rowLayer = (i) => row.layer[i] - 1;
const rowTensor = (i) => row.tensor[i] - 1;
const opsOfTensor = new Map();
for (let i = 0; i < nRow; i++)
  if (rowTensor(i) >= 0) {
    const list = opsOfTensor.get(rowTensor(i)) || new Set();
    opsOfTensor.set(rowTensor(i), list.add(T.operations[row.op[i]]));
  }
function component(i) {
  const t = tensors[rowTensor(i)];
  return t ? t.component_type || "other" : "activation";
}

// ---- filters ----

const filter = { layers: [0, Math.max(0, nLayer - 1)], outside: true, tokens: [0, Math.max(0, T.n_token - 1)],
                 phase: -1, ops: null, metric: "bytes" };
const usedOps = [...new Set(row.op)].filter((op) => {
  for (let i = 0; i < nRow; i++)
    if (row.op[i] === op) for (let b = 0; b < nBin; b++) if (cell.n[i * nBin + b] || cell.bytes[i * nBin + b]) return true;
  return false;
}).sort((a, b) => a - b);
filter.ops = new Set(usedOps);

const layerShown = (l) => (l < 0 ? filter.outside : l >= filter.layers[0] && l <= filter.layers[1]);
const rowShown = (i) => layerShown(rowLayer(i)) && filter.ops.has(row.op[i]) &&
  (filter.phase < 0 || filter.phase === row.phase[i]);
function binRange() {
  const last = Math.max(0, nBin - 1), a = T.tokens_a_bin;
  return [Math.min(last, Math.floor(filter.tokens[0] / a)), Math.min(last, Math.floor(filter.tokens[1] / a))];
}

// Sums of a metric over what the filters show, by a key of the row (undefined: left out).
function sumBy(key, metric) {
  const out = new Map(), [b0, b1] = binRange(), v = cell[metric];
  for (let i = 0; i < nRow; i++) {
    if (!rowShown(i)) continue;
    const k = key(i);
    if (k === undefined) continue;
    let s = 0;
    for (let b = b0; b <= b1; b++) s += v[i * nBin + b];
    if (s) out.set(k, (out.get(k) || 0) + s);
  }
  return out;
}

// The same by key and bin of tokens: Map from key to an array over the bins shown.
function sumByBin(key, metric) {
  const out = new Map(), [b0, b1] = binRange(), v = cell[metric];
  for (let i = 0; i < nRow; i++) {
    if (!rowShown(i)) continue;
    const k = key(i);
    if (k === undefined) continue;
    let line = out.get(k);
    if (!line) out.set(k, (line = new Float64Array(b1 - b0 + 1)));
    for (let b = b0; b <= b1; b++) line[b - b0] += v[i * nBin + b];
  }
  return out;
}

// ---- tokens ----

function tokenText(p) {
  const text = T.texts[p];
  return text === null || text === undefined ? "token " + p : "token " + p + " " + JSON.stringify(text);
}
const binTokens = (b) => {
  const a = T.tokens_a_bin, from = b * a, to = Math.min(T.n_token - 1, from + a - 1);
  return from === to ? tokenText(from) : "tokens " + from + " to " + to;
};
