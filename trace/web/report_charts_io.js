// report_charts_io.js -- more charts: where the bytes were, reads and faults, reuse, experts.

// ---- residency ----

const stateNames = ["resident", "prefetched", "late", "missed", "unknown"];
barChart("residency", "Where the bytes were", "Accesses to weights: in memory, read ahead in time, read ahead but late, not there; unknown where nobody looked.", () => ({
  bars: stateNames.map((k) => ({ name: k, values: [S.residency[k].accesses] })).filter((b) => b.values[0]), series: ["accesses"], text: asCount }));
barChart("waits", "Between launches, by layer", "Time between launches: waits of late or missed operands, and everything else that is not computing.", () => ({
  bars: statLayers().map((l) => ({ name: statName(l), values: [l.waited_ns, Math.max(0, l.gap_ns - l.waited_ns)] })), series: ["waits", "other"], text: asTime }));
// ---- reads and faults ----

// What can be asked of a layer, a tensor, an expert. `again`: how many times a byte was read.
const readFields = { read_bytes: ["bytes that ttx read", asBytes], reads: ["reads by ttx", asCount], reread_factor: ["re-reads by ttx", asTimes],
  device_bytes: ["bytes that the disk read", asBytes], device_reads: ["reads of the disk", asCount], device_reread_factor: ["re-reads of the disk", asTimes],
  minor_faults: ["minor faults", asCount], major_faults: ["major faults", asCount] };
const readsKnown = Object.keys(readFields).filter((f) => S.layers.some((l) => l[f] > 0));
const noReads = () => (readsKnown.length ? "" : "No reads and no faults were recorded (they need --trace-level io, a load mode that reads, or `ttx trace import-blktrace`).");

charts.push({ id: "events", title: "Reads and faults over time", wide: true, sums: true, note: "Reads (by ttx or, where it asked for none, of the disk), minor and major page faults, in each bin of time.", make: (box) => {
  const chart = lines(linesIn(box), () => {
    const rows = [];
    for (let t = 0; t < T.n_time; t++) rows.push([t * T.ns_a_time, times.reads[t], times.minor[t], times.major[t]]);
    return { labels: ["time", "reads", "minor faults", "major faults"], rows, x: asTime, y: asCount };
  });
  chart.empty = noReads;
  return chart;
} });
charts.push({ id: "token-disk", title: "Disk bytes of a token", sums: true, note: "What block devices gave the process while the token's batch ran (at the batch's first token).", make: (box) => {
  const chart = lines(linesIn(box), () => {
    const [b0, b1] = binRange(), rows = [];
    for (let b = b0; b <= b1; b++) if (tokenBins.n[b]) rows.push([b * T.tokens_a_bin, tokenBins.bytes[b] / tokenBins.n[b]]);
    return { labels: ["token", "bytes"], rows, x: asCount, y: asBytes };
  });
  chart.empty = () => (S.totals.prompt.device_bytes + S.totals.decode.device_bytes ? "" :
    "No bytes from block devices on record (they are asked for at --trace-level io; what is in the page cache costs none).");
  return chart;
} });
charts.push({ id: "disk", title: "Disk reads and faults by layer", sums: true, note: "Whole run; the filter of layers applies. Re-reads: bytes read for each byte that was read at all.", make: (box) => {
  const choose = document.createElement("select");
  choose.setAttribute("aria-label", "what of reads");
  for (const f of readsKnown) choose.add(new Option(readFields[f][0], f));
  box.append(choose);
  const chart = bars(canvasIn(box, "Disk reads and faults by layer"), () => {
    const f = choose.value;
    return { bars: statLayers().map((l) => ({ name: statName(l), values: [l[f]] })), series: [f && readFields[f][0]], text: f && readFields[f][1] };
  });
  choose.onchange = () => chart.update();
  chart.empty = noReads;
  return chart;
} });
charts.push({ id: "reads", title: "Reads and faults by tensor", wide: true, sums: true, note: "Tensors with most bytes from the disk first, then those with most faults.", make: (box) => {
  const fields = readsKnown, v = (t, f) => t[f] || 0;
  const chart = table(box, () => ({
    columns: [["tensor_name", String], ...fields.map((f) => [f, readFields[f][1]])], heads: ["tensor", ...fields.map((f) => readFields[f][0])],
    rows: tensors.filter((t) => tensorShown(t) && fields.some((f) => v(t, f) > 0))
      .sort((a, b) => v(b, "read_bytes") + v(b, "device_bytes") - v(a, "read_bytes") - v(a, "device_bytes") ||
        v(b, "major_faults") - v(a, "major_faults") || v(b, "minor_faults") - v(a, "minor_faults")) }));
  chart.empty = noReads;
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

const expertFields = { tokens: asCount, tokens_decode: asCount, bytes: asBytes, reads: asCount, read_bytes: asBytes, "re-reads": asTimes,
  device_bytes: asBytes, "re-reads of the disk": asTimes, faults: asCount, late_or_missed: asCount };
for (const l of S.experts || []) {
  l["re-reads"] = l.read_bytes.map((v, e) => v / (l.read_distinct_bytes[e] || 1));
  l["re-reads of the disk"] = l.device_bytes.map((v, e) => v / (l.device_distinct_bytes[e] || 1));
}
const expertFieldKnown = (f) => f.startsWith("tokens") || (S.experts || []).some((l) => l[f].some((v) => v > 0));
function expertLayers(field) {
  const from = field.startsWith("tokens") ? S.routes.layers : S.experts;
  return from.filter((l) => layerShown(l.layer_id));
}
const noExperts = () => (S.experts && S.routes && S.routes.layers && S.routes.layers.length ? "" : "This run used no experts.");
charts.push({ id: "experts", title: "Experts", note: "Each layer's experts: tokens routed to them, bytes, reads and re-reads, faults. Of the whole run; the filter of layers applies.", make(box) {
  const choose = document.createElement("select");
  choose.setAttribute("aria-label", "what of experts");
  for (const f in expertFields) if (expertFieldKnown(f)) choose.add(new Option(f.replaceAll("_", " "), f));
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
  const choose = document.createElement("select");
  choose.setAttribute("aria-label", "layer of experts");
  for (const l of (S.routes && S.routes.layers) || []) choose.add(new Option(layerName(l.layer_id), l.layer_id));
  box.append(choose);
  const word = (f) => (f.text === null ? "#" + f.vocab_id : JSON.stringify(f.text));
  const chart = table(box, () => {
    const layer = S.routes.layers.find((l) => String(l.layer_id) === choose.value);
    return { columns: [["expert", (e) => "expert " + e], ["tokens", asCount], ["favours", (list) => list.map((f) => `${word(f)} ${f.n} (x${f.lift.toFixed(1)})`).join("   ")]],
             words: ["favours"], rows: layer.favoured_tokens.map((favours, expert) => ({ expert, tokens: layer.tokens[expert], favours })), all: true };
  });
  choose.onchange = () => chart.update();
  chart.csv = () => [["layer", "expert", "vocab_id", "text", "n", "lift"], ...S.routes.layers.flatMap((l) => l.favoured_tokens.flatMap((list, e) => list.map((f) => [l.layer_id, e, f.vocab_id, f.text || "", f.n, f.lift])))];
  chart.empty = noExperts;
  return chart;
} });
