"""The standard figures of a trace, at 300 dpi, in DIR/analysis."""
import json
from html import escape

import matplotlib
matplotlib.use("Agg")
import matplotlib.animation as animation  # noqa: E402
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
from matplotlib.colors import LogNorm  # noqa: E402

from .trace import ROUTE, Trace, load  # noqa: E402

DPI = 300
HEAT, TIMELINE = "YlOrRd", "viridis"


def _bins(n, most):
    """Width of bins so that n things fill at most `most`."""
    return max(1, -(-n // most))


class TraceAnalyzer:
    """Figures of one trace. Each method writes one file and returns its path, or None where the run
    has nothing of the kind; `all` writes them all."""

    def __init__(self, folder):
        self.trace = Trace(folder)
        self.out = self.trace.dir / "analysis"
        self.out.mkdir(exist_ok=True)
        self.df = load(folder)
        self._tokens = None

    @property
    def tokens(self):
        """The table with batches expanded; made when it is first needed."""
        if self._tokens is None:
            self._tokens = load(self.trace.dir, expand_tokens=True)
        return self._tokens

    @property
    def title(self):
        return str(self.trace.meta.get("model_file", "")).rsplit("/", 1)[-1]

    def all(self):
        makers = [self.heatmap_token_layer, self.heatmap_token_tensor, self.timeline_offset, self.hot_tensors,
                  self.layer_accesses, self.operation_types, self.moe_expert_heatmap, self.attention_heads,
                  self.timeline_interactive, self.heatmap_interactive, self.animation]
        if self.df.empty:  # level stats: sums of tensors are all there is
            makers = [self.hot_tensors, self.layer_accesses] if self.trace.sums() is not None else []
        return [path for path in (make() for make in makers) if path]

    # ---- helpers ----

    def _save(self, figure, name):
        path = self.out / name
        figure.savefig(path, dpi=DPI, bbox_inches="tight")
        plt.close(figure)
        return path

    def _grid(self, rows, row_count, columns=400):
        """Bytes by (row, bin of tokens); `rows`: the row of each record of self.tokens, -1: none."""
        token = self.tokens["token_id"].to_numpy(dtype=float, na_value=-1).astype(np.int64)
        ok = (token >= 0) & (rows >= 0)
        width = _bins(int(token.max(initial=0)) + 1, columns)
        n = int(token.max(initial=0)) // width + 1
        grid = np.zeros((row_count, n))
        np.add.at(grid, (rows[ok], token[ok] // width), self.tokens["size_bytes"].to_numpy()[ok].astype(float))
        return grid, width

    def _heat(self, grid, width, names, ylabel, name, palette=HEAT):
        figure, ax = plt.subplots(figsize=(11, max(3, min(9, len(names) * 0.16 + 1))))
        shown = np.ma.masked_equal(grid, 0)
        norm = LogNorm() if grid.max(initial=0) > 0 else None
        image = ax.imshow(shown, aspect="auto", cmap=palette, norm=norm, interpolation="nearest",
                          extent=(0, grid.shape[1] * width, len(names), 0))
        step = _bins(len(names), 40)
        ax.set_yticks(np.arange(0, len(names), step) + 0.5, names[::step], fontsize=6)
        ax.set(xlabel="token", ylabel=ylabel, title=self.title)
        figure.colorbar(image, ax=ax, label="bytes")
        return self._save(figure, name)

    # ---- figures ----

    def heatmap_token_layer(self):
        n = self.trace.meta["model_metadata"]["num_layers"]
        layer = self.tokens["layer_id"].to_numpy(dtype=float, na_value=n).astype(np.int64)
        grid, width = self._grid(np.minimum(layer, n), n + 1)
        return self._heat(grid, width, [str(i) for i in range(n)] + ["outside"], "layer", "heatmap_token_layer.png")

    def heatmap_token_tensor(self):
        names = self.tokens["tensor_name"].cat
        grid, width = self._grid(names.codes.to_numpy().astype(np.int64), len(names.categories))
        return self._heat(grid, width, list(names.categories), "tensor", "heatmap_token_tensor.png")

    def _places(self):
        """Accesses to the file: ms, MiB, MiB of size."""
        df = self.df[self.df["file_offset"].notna()]
        return (df["timestamp_ns"].to_numpy() / 1e6, df["file_offset"].to_numpy(dtype=float) / 2**20,
                df["size_bytes"].to_numpy() / 2**20, df)

    def timeline_offset(self):
        ms, at, size, df = self._places()
        figure, ax = plt.subplots(figsize=(12, 6))
        every = _bins(len(df), 200_000)
        token = df["token_id"].to_numpy(dtype=float, na_value=-1)[::every]
        lines = ax.vlines(ms[::every], at[::every], (at + size)[::every], linewidth=0.6, array=token, cmap=TIMELINE)
        ax.invert_yaxis()
        ax.set(xlabel="ms", ylabel="file offset, MiB", title=self.title)
        figure.colorbar(lines, ax=ax, label="token")
        return self._save(figure, "timeline_offset.png")

    def hot_tensors(self, n=30):
        if self.df.empty:
            sums = self.trace.sums().set_index("tensor_name")["bytes"]
        else:
            sums = self.df.groupby("tensor_name", observed=True)["size_bytes"].sum()
        sums = sums.sort_values(ascending=False)[:n]
        figure, ax = plt.subplots(figsize=(9, 0.22 * len(sums) + 1))
        ax.barh(sums.index[::-1], sums.to_numpy()[::-1] / 2**20, color=plt.get_cmap(HEAT)(0.7))
        ax.set(xlabel="MiB accessed", title=self.title)
        ax.tick_params(axis="y", labelsize=6)
        return self._save(figure, "hot_tensors.png")

    def layer_accesses(self):
        if self.df.empty:
            sums, keys = self.trace.sums().groupby("layer_id").agg(records=("accesses", "sum"), mib=("bytes", "sum")), 2
        else:
            in_layers, keys = self.df[self.df["layer_id"].notna()], 3
            sums = in_layers.groupby("layer_id").agg(records=("size_bytes", "size"), mib=("size_bytes", "sum"),
                                                     ms=("duration_ns", "sum"))
        figure, axes = plt.subplots(keys, 1, figsize=(10, 7), sharex=True)
        for ax, key, scale in zip(axes, ("records", "mib", "ms"), (1, 2**20, 1e6)):
            ax.bar(sums.index.astype(int), sums[key].to_numpy(dtype=float) / scale, color=plt.get_cmap(HEAT)(0.7))
            ax.set_ylabel({"records": "records", "mib": "MiB", "ms": "ms"}[key])
        axes[0].set_title(self.title)
        axes[-1].set_xlabel("layer")
        return self._save(figure, "layer_accesses.png")

    def operation_types(self):
        sums = self.df.groupby("operation_type", observed=True).agg(mib=("size_bytes", "sum"), ms=("duration_ns", "sum"))
        figure, axes = plt.subplots(1, 2, figsize=(11, 0.3 * len(sums) + 1.5), sharey=True)
        for ax, key, scale in zip(axes, ("mib", "ms"), (2**20, 1e6)):
            ax.barh(sums.index.astype(str), sums[key].to_numpy(dtype=float) / scale, color=plt.get_cmap(HEAT)(0.7))
            ax.set_xlabel({"mib": "MiB", "ms": "ms"}[key])
        figure.suptitle(self.title)
        return self._save(figure, "operation_types.png")

    def moe_expert_heatmap(self):
        m = self.trace.meta["model_metadata"]
        routes = self.trace.of_kind(ROUTE)
        if not m.get("num_experts") or not len(routes):
            return None
        grid = np.zeros((m["num_layers"], m["num_experts"]))
        ok = (routes["layer_id"] < m["num_layers"]) & (routes["expert_id"] < m["num_experts"])
        np.add.at(grid, (routes["layer_id"][ok], routes["expert_id"][ok]), 1)
        figure, ax = plt.subplots(figsize=(10, max(3, m["num_layers"] * 0.2 + 1)))
        image = ax.imshow(grid, aspect="auto", cmap=HEAT, interpolation="nearest")
        ax.set(xlabel="expert", ylabel="layer", title=self.title)
        figure.colorbar(image, ax=ax, label="tokens")
        return self._save(figure, "moe_expert_heatmap.png")

    def attention_heads(self):
        heads = self.df[self.df["attention_head"].notna() & (self.df["size_bytes"] > 0)]
        if heads.empty:
            return None
        kinds = [("weights of " + q, heads["file_offset"].notna() & (heads["qkv_type"] == q)) for q in "QKVO"]
        kinds += [("cache of " + q, heads["file_offset"].isna() & (heads["qkv_type"] == q)) for q in "KV"]
        figure, axes = plt.subplots(2, 3, figsize=(13, 7))
        for ax, (name, which) in zip(axes.flat, kinds):
            table = heads[which].pivot_table(index="layer_id", columns="attention_head", values="size_bytes", aggfunc="sum")
            if table.empty:
                ax.set_axis_off()
                continue
            image = ax.imshow(table.to_numpy(dtype=float) / 2**20, aspect="auto", cmap=HEAT, interpolation="nearest")
            ax.set(title=name, xlabel="head", ylabel="layer")
            figure.colorbar(image, ax=ax, label="MiB")
        figure.suptitle(self.title)
        figure.tight_layout()
        return self._save(figure, "attention_heads.png")

    def _place_grid(self, rows=256, columns=512):
        """Bytes of accesses by (place in the file, time): each access at its first byte."""
        ms, at, size, _ = self._places()
        return np.histogram2d(at, ms, bins=(rows, columns), weights=size) if len(ms) else \
            (np.zeros((1, 1)), np.array([0, 1.0]), np.array([0, 1.0]))

    def timeline_interactive(self):
        grid, at, ms = self._place_grid()
        return self._page("timeline_interactive.html", grid, TIMELINE, [f"{v:.1f} MiB" for v in at[:-1]],
                          [f"{v:.2f} ms" for v in ms[:-1]], "MiB", "file offset", "time")

    def heatmap_interactive(self):
        names = self.tokens["tensor_name"].cat
        grid, width = self._grid(names.codes.to_numpy().astype(np.int64), len(names.categories))
        return self._page("heatmap_interactive.html", grid / 2**20, HEAT, list(names.categories),
                          [f"token {i * width}" for i in range(grid.shape[1])], "MiB", "tensor", "token")

    def _page(self, name, grid, palette, rows, columns, unit, ylabel, xlabel):
        """A heatmap to hover and zoom, in one file without a network."""
        colours = (np.array(plt.get_cmap(palette)(np.linspace(0, 1, 64)))[:, :3] * 255).astype(int).tolist()
        data = {"rows": rows, "columns": columns, "unit": unit, "colours": colours,
                "values": [[float(f"{v:.4g}") for v in line] for line in grid.tolist()]}
        text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
        path = self.out / name
        path.write_text(PAGE.replace("@TITLE@", escape(f"{self.title}: {ylabel} by {xlabel}")).replace("@DATA@", text))
        return path

    def animation(self, frames=60):
        """The wave of accesses through the file, token by token, as a GIF."""
        ms, at, size, df = self._places()
        token = df["token_id"].to_numpy(dtype=float, na_value=-1)
        chosen = np.unique(token[token >= 0])[:frames]
        if not len(chosen):
            return None
        lines, wide = 40, 160
        total = (at + size).max()
        figure, ax = plt.subplots(figsize=(8, 4))
        image = ax.imshow(np.zeros((lines, wide)), aspect="auto", cmap=HEAT, vmin=0, vmax=1, interpolation="nearest")
        ax.set_axis_off()
        heat = np.zeros(lines * wide)

        def draw(i):
            nonlocal heat
            heat *= 0.5
            here = token == chosen[i]
            for a, s in zip(at[here], size[here]):
                heat[int(a / total * (lines * wide - 1)):int((a + s) / total * (lines * wide - 1)) + 1] = 1
            image.set_data(heat.reshape(lines, wide))
            ax.set_title(f"{self.title}: token {int(chosen[i])}", fontsize=8)
            return [image]

        path = self.out / "accesses.gif"
        animation.FuncAnimation(figure, draw, frames=len(chosen)).save(path, writer=animation.PillowWriter(fps=8), dpi=100)
        plt.close(figure)
        return path


PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>@TITLE@</title><link rel="icon" href="data:,">
<style>body{font:14px system-ui,sans-serif;margin:16px}canvas{width:100%;height:75vh;background:#eee;touch-action:none}</style>
<h1 style="font-size:18px">@TITLE@</h1><p id="tip" role="status">Hover, or focus and use the arrows; + and - zoom, 0 shows all.</p>
<canvas id="c" tabindex="0"></canvas>
<script type="application/json" id="d">@DATA@</script><script>
"use strict";
const D = JSON.parse(document.getElementById("d").textContent), c = document.getElementById("c"), tip = document.getElementById("tip");
const W = D.columns.length, H = D.rows.length, max = Math.max(...D.values.map((l) => Math.max(...l)));
let x0 = 0, x1 = W, y0 = 0, y1 = H, at = [0, 0];
const image = document.createElement("canvas");
image.width = W; image.height = H;
const pixels = image.getContext("2d").createImageData(W, H);
D.values.forEach((line, j) => line.forEach((v, i) => {
  if (!v) return;
  const rgb = D.colours[Math.min(63, Math.round(63 * Math.log1p((1000 * v) / max) / Math.log1p(1000)))], k = 4 * (j * W + i);
  pixels.data.set([...rgb, 255], k);
}));
image.getContext("2d").putImageData(pixels, 0, 0);
function draw() {
  c.width = c.clientWidth; c.height = c.clientHeight;
  const g = c.getContext("2d");
  g.imageSmoothingEnabled = false;
  g.drawImage(image, x0, y0, x1 - x0, y1 - y0, 0, 0, c.width, c.height);
}
function tell(i, j) {
  at = [Math.max(0, Math.min(W - 1, i)), Math.max(0, Math.min(H - 1, j))];
  tip.textContent = D.rows[at[1]] + ", " + D.columns[at[0]] + ": " + D.values[at[1]][at[0]] + " " + D.unit;
}
function zoom(f, x, y) {
  x0 = x - (x - x0) * f; x1 = x + (x1 - x) * f; y0 = y - (y - y0) * f; y1 = y + (y1 - y) * f;
  x0 = Math.max(0, x0); x1 = Math.min(W, x1); y0 = Math.max(0, y0); y1 = Math.min(H, y1);
  draw();
}
const place = (e) => [x0 + (e.offsetX / c.clientWidth) * (x1 - x0), y0 + (e.offsetY / c.clientHeight) * (y1 - y0)];
c.onpointermove = (e) => tell(...place(e).map(Math.floor));
c.onwheel = (e) => { e.preventDefault(); zoom(Math.exp(e.deltaY / 400), ...place(e)); };
c.onkeydown = (e) => {
  const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[e.key];
  if (move) tell(at[0] + move[0], at[1] + move[1]);
  else if (e.key === "+" || e.key === "=") zoom(1 / 1.5, at[0] + 0.5, at[1] + 0.5);
  else if (e.key === "-") zoom(1.5, at[0] + 0.5, at[1] + 0.5);
  else if (e.key === "0") { x0 = 0; x1 = W; y0 = 0; y1 = H; draw(); } else return;
  e.preventDefault();
};
onresize = draw;
draw();
</script></html>
"""
