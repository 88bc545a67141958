// report_view.js -- canvases: a plane that zooms and pans, with a cross for the keyboard; heatmaps and
// bars on it; colours. What a canvas shows can be asked for as rows of a table (CSV).

const stops = {
  YlOrRd: ["#ffffcc", "#ffeda0", "#fed976", "#feb24c", "#fd8d3c", "#fc4e2a", "#e31a1c", "#bd0026", "#800026"],
  viridis: ["#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30", "#fde725"],
};
function palette(name) {
  const rgb = stops[name].map((h) => [1, 3, 5].map((i) => parseInt(h.slice(i, i + 2), 16)));
  return Array.from({ length: 256 }, (_, i) => {
    const x = (i / 255) * (rgb.length - 1), k = Math.min(rgb.length - 2, Math.floor(x)), f = x - k;
    return rgb[k].map((c, j) => Math.round(c + (rgb[k + 1][j] - c) * f));
  });
}
const palettes = { YlOrRd: palette("YlOrRd"), viridis: palette("viridis") };
// Of n series the kth: to be told from a light and from a dark ground.
const seriesColour = (k, n) => `rgb(${palettes.viridis[Math.round(80 + (k * 135) / Math.max(1, n - 1))].join()})`;
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

const tip = document.getElementById("tip");
function showTip(text, x, y) {
  tip.hidden = !text;
  if (!text) return;
  tip.textContent = text;
  tip.style.left = Math.min(x + 14, innerWidth - tip.offsetWidth - 8) + "px";
  tip.style.top = Math.min(y + 14, innerHeight - tip.offsetHeight - 8) + "px";
}

// A canvas over the plane [0, width) x [0, height): paint(view) draws, tell(x, y) says what is there.
class Plane {
  constructor(canvas, pixels, paint, tell) {
    Object.assign(this, { canvas, pixels, paint, tell, width: 1, height: 1, left: 64, bottom: 22, cross: null });
    this.ctx = canvas.getContext("2d");
    canvas.tabIndex = 0;
    this.all();
    canvas.addEventListener("wheel", (e) => { e.preventDefault(); this.zoomAt(e.offsetX, e.offsetY, Math.exp(e.deltaY / 400), e.shiftKey); }, { passive: false });
    canvas.addEventListener("pointerdown", (e) => { this.drag = [e.offsetX, e.offsetY]; canvas.setPointerCapture(e.pointerId); });
    canvas.addEventListener("pointerup", () => { this.drag = null; });
    canvas.addEventListener("dblclick", () => { this.all(); this.draw(); });
    canvas.addEventListener("pointerleave", () => showTip(""));
    canvas.addEventListener("pointermove", (e) => this.moved(e));
    canvas.addEventListener("keydown", (e) => this.key(e));
    canvas.addEventListener("blur", () => { this.cross = null; showTip(""); this.draw(); });
  }
  size(width, height) {
    if (width !== this.width || height !== this.height) { this.width = width; this.height = height; this.all(); }
  }
  all() { this.x0 = 0; this.x1 = this.width; this.y0 = 0; this.y1 = this.height; }
  get plotWidth() { return this.canvas.clientWidth - this.left - 4; }
  get plotHeight() { return this.pixels - this.bottom - 4; }
  toX(px) { return this.x0 + ((px - this.left) / this.plotWidth) * (this.x1 - this.x0); }
  toY(py) { return this.y0 + ((py - 4) / this.plotHeight) * (this.y1 - this.y0); }
  px(x) { return this.left + ((x - this.x0) / (this.x1 - this.x0)) * this.plotWidth; }
  py(y) { return 4 + ((y - this.y0) / (this.y1 - this.y0)) * this.plotHeight; }
  keep() {
    for (const [a, b, max] of [["x0", "x1", this.width], ["y0", "y1", this.height]]) {
      const span = Math.min(max, Math.max(max / 1e6, this[b] - this[a]));
      this[a] = Math.max(0, Math.min(max - span, this[a]));
      this[b] = this[a] + span;
    }
  }
  zoomAt(px, py, factor, onlyX) {
    const x = this.toX(px), y = this.toY(py);
    this.x0 = x - (x - this.x0) * factor; this.x1 = x + (this.x1 - x) * factor;
    if (!onlyX) { this.y0 = y - (y - this.y0) * factor; this.y1 = y + (this.y1 - y) * factor; }
    this.keep();
    this.draw();
  }
  moved(e) {
    if (this.drag) {
      const dx = ((this.drag[0] - e.offsetX) / this.plotWidth) * (this.x1 - this.x0);
      const dy = ((this.drag[1] - e.offsetY) / this.plotHeight) * (this.y1 - this.y0);
      this.x0 += dx; this.x1 += dx; this.y0 += dy; this.y1 += dy;
      this.drag = [e.offsetX, e.offsetY];
      this.keep();
      this.draw();
    }
    const x = this.toX(e.offsetX), y = this.toY(e.offsetY);
    const inside = x >= this.x0 && x < this.x1 && y >= this.y0 && y < this.y1;
    showTip(inside ? this.tell(x, y) : "", e.clientX, e.clientY);
  }
  key(e) {
    const w = this.x1 - this.x0, h = this.y1 - this.y0;
    const mid = this.cross || [(this.x0 + this.x1) / 2, (this.y0 + this.y1) / 2];
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (steps[e.key]) {
      mid[0] = Math.max(0, Math.min(this.width * (1 - 1e-9), mid[0] + steps[e.key][0] * Math.max(w / 40, w < this.width ? 0 : Math.min(1, w / 40))));
      mid[1] = Math.max(0, Math.min(this.height * (1 - 1e-9), mid[1] + steps[e.key][1] * h / 40));
      if (mid[0] < this.x0 || mid[0] >= this.x1) { const d = steps[e.key][0] * w / 4; this.x0 += d; this.x1 += d; }
      if (mid[1] < this.y0 || mid[1] >= this.y1) { const d = steps[e.key][1] * h / 4; this.y0 += d; this.y1 += d; }
    } else if (e.key === "+" || e.key === "=" || e.key === "-") {
      this.zoomAt(this.px(mid[0]), this.py(mid[1]), e.key === "-" ? 1.5 : 1 / 1.5, e.shiftKey && e.key === "-");
    } else if (e.key === "0") {
      this.all();
    } else if (e.key !== "Enter") return;
    e.preventDefault();
    this.cross = mid;
    this.keep();
    this.draw();
    const box = this.canvas.getBoundingClientRect();
    showTip(this.tell(mid[0], mid[1]), box.left + this.px(mid[0]), box.top + this.py(mid[1]));
  }
  draw() {
    const ratio = devicePixelRatio || 1, c = this.canvas, w = c.clientWidth;
    if (!w) return;
    c.style.height = this.pixels + "px";
    c.width = w * ratio; c.height = this.pixels * ratio;
    this.ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.ctx.font = "11px system-ui, sans-serif";
    this.ctx.fillStyle = css("--empty");
    this.ctx.fillRect(this.left, 4, this.plotWidth, this.plotHeight);
    this.ctx.save();
    this.ctx.beginPath();
    this.ctx.rect(this.left, 4, this.plotWidth, this.plotHeight);
    this.ctx.clip();
    this.paint(this);
    if (this.cross) this.drawCross();
    this.ctx.restore();
  }
  drawCross() {
    const x = this.px(this.cross[0]), y = this.py(this.cross[1]);
    this.ctx.strokeStyle = css("--ink");
    this.ctx.beginPath();
    this.ctx.moveTo(x - 8, y); this.ctx.lineTo(x + 8, y); this.ctx.moveTo(x, y - 8); this.ctx.lineTo(x, y + 8);
    this.ctx.stroke();
  }
  // Labels along the axes, outside of the plot. `cells`: there is one row to a unit of y.
  axes(textX, textY, cells) {
    const c = this.ctx;
    c.restore(); c.save();
    c.fillStyle = css("--soft");
    c.textBaseline = "top";
    const nx = Math.max(2, Math.floor(this.plotWidth / 110));
    for (let i = 0, free = -1; i <= nx; i++) {
      const x = this.x0 + ((this.x1 - this.x0) * i) / nx, text = textX(Math.min(x, this.width * (1 - 1e-9))), w = c.measureText(text).width;
      const at = i === 0 ? this.px(x) : i === nx ? this.px(x) - w : this.px(x) - w / 2;
      if (at < free) continue;
      c.fillText(text, at, this.pixels - this.bottom + 6);
      free = at + w + 8;
    }
    c.textAlign = "right"; c.textBaseline = "middle";
    const label = (y) => {
      let text = textY(y);
      const full = text.length, room = this.left - 10, wide = c.measureText(text).width;
      // Names differ at their ends: what is cut comes out of the middle.
      if (wide > room) text = text.slice(0, 4) + "…" + text.slice(6 - Math.floor((full * room) / wide));
      while (c.measureText(text).width > room && text.length > 6) text = text.slice(0, 5) + text.slice(6);
      c.fillText(text, this.left - 6, this.py(y));
    };
    const perRow = this.plotHeight / (this.y1 - this.y0), step = Math.max(1, Math.ceil(13 / perRow));
    if (cells)
      for (let row = Math.floor(this.y0 / step) * step; row < this.y1; row += step) { if (row + 0.5 >= this.y0 && row + 0.5 < this.y1) label(row + 0.5); }
    else
      for (let i = 0, n = Math.max(2, Math.floor(this.plotHeight / 32)); i < n; i++) label(this.y0 + ((this.y1 - this.y0) * (i + 0.5)) / n);
  }
  image(nx, ny, colour) { // one pixel of an off-screen image for each cell that is in sight
    const i0 = Math.max(0, Math.floor(this.x0)), i1 = Math.min(nx, Math.ceil(this.x1));
    const j0 = Math.max(0, Math.floor(this.y0)), j1 = Math.min(ny, Math.ceil(this.y1));
    if (i1 <= i0 || j1 <= j0) return;
    const off = document.createElement("canvas");
    off.width = i1 - i0; off.height = j1 - j0;
    const image = off.getContext("2d").createImageData(off.width, off.height);
    for (let j = j0, k = 0; j < j1; j++)
      for (let i = i0; i < i1; i++, k += 4) {
        const rgb = colour(i, j);
        if (!rgb) continue;
        image.data[k] = rgb[0]; image.data[k + 1] = rgb[1]; image.data[k + 2] = rgb[2]; image.data[k + 3] = 255;
      }
    off.getContext("2d").putImageData(image, 0, 0);
    this.ctx.imageSmoothingEnabled = off.width > this.plotWidth || off.height > this.plotHeight;
    this.ctx.imageSmoothingQuality = "high";
    this.ctx.drawImage(off, this.px(i0), this.py(j0), this.px(i1) - this.px(i0), this.py(j1) - this.py(j0));
  }
}

// data(): {rows: [names], columns: n, column(i), value(row, column), text(v)}
function heatmap(canvas, pixels, data, options = {}) {
  let d = null, most = 0;
  const colours = palettes[options.palette || "YlOrRd"];
  const plane = new Plane(canvas, pixels, (p) => {
    p.image(d.columns, d.rows.length, (i, j) => {
      const v = d.value(j, i);
      return v > 0 ? colours[Math.max(0, Math.round((255 * (options.linear ? v / most : Math.log1p(v) / Math.log1p(most)))))] : null;
    });
    p.axes((x) => (d.short || d.column)(Math.floor(x)), (y) => d.rows[Math.floor(y)] || "", true);
  }, (x, y) => {
    const i = Math.floor(x), j = Math.floor(y);
    return d.rows[j] === undefined ? "" : d.rows[j] + "\n" + d.column(i) + "\n" + d.text(d.value(j, i));
  });
  plane.left = options.left || 64;
  return {
    plane,
    update() {
      d = data();
      most = 0;
      for (let j = 0; j < d.rows.length; j++) for (let i = 0; i < d.columns; i++) most = Math.max(most, d.value(j, i));
      plane.size(Math.max(1, d.columns), Math.max(1, d.rows.length));
      plane.draw();
      return most > 0;
    },
    csv() {
      const lines = [["row", ...Array.from({ length: d.columns }, (_, i) => d.column(i))]];
      d.rows.forEach((name, j) => lines.push([name, ...Array.from({ length: d.columns }, (_, i) => d.value(j, i))]));
      return lines;
    },
  };
}

// data(): {bars: [{name, values: [..]}], series: [names], text(v)}; drawn lying, the first on top.
function bars(canvas, data, options = {}) {
  let d = null, most = 0;
  const colour = (k) => seriesColour(k, d.series.length);
  const plane = new Plane(canvas, 200, (p) => {
    const h = p.plotHeight / (p.y1 - p.y0), lane = Math.max(1, h * 0.78);
    d.bars.forEach((bar, j) => {
      let from = 0;
      const y = p.py(j) + (h - lane) / 2, side = options.sideBySide ? lane / bar.values.length : 0;
      bar.values.forEach((v, k) => {
        p.ctx.fillStyle = d.series.length > 1 ? colour(k) : css("--accent");
        p.ctx.fillRect(p.px(from), y + k * side, Math.max(v > 0 ? 1 : 0, p.px(from + v) - p.px(from)), side || lane);
        from = side ? 0 : from + v;
      });
      if (h >= 11 && bar.values.length < 4) {
        p.ctx.fillStyle = css("--ink");
        p.ctx.textBaseline = "middle"; p.ctx.textAlign = "left";
        p.ctx.fillText(side ? bar.values.map(d.text).join(", ") : d.text(from), p.px(side ? Math.max(...bar.values) : from) + 5, y + lane / 2);
      }
    });
    p.axes((x) => d.text(x), (y) => (d.bars[Math.floor(y)] || { name: "" }).name, true);
  }, (x, y) => {
    const bar = d.bars[Math.floor(y)];
    return bar ? bar.name + "\n" + d.series.map((s, k) => s + ": " + d.text(bar.values[k])).join("\n") : "";
  });
  plane.left = options.left || 130;
  const legend = document.createElement("div");
  legend.className = "legend";
  canvas.before(legend);
  return {
    plane,
    update() {
      d = data();
      most = Math.max(0, ...d.bars.map((b) => (options.sideBySide ? Math.max(...b.values) : b.values.reduce((a, v) => a + v, 0))));
      legend.textContent = "";
      if (d.series.length > 1)
        d.series.forEach((name, k) => {
          const mark = document.createElement("span");
          mark.style.background = colour(k);
          legend.append(mark, name);
        });
      const lane = options.sideBySide ? 6 + 7 * d.series.length : d.bars.length > 40 ? 12 : 18;
      plane.pixels = Math.min(options.sideBySide ? 1200 : 560, Math.max(90, d.bars.length * lane + 30));
      plane.size(most * (options.sideBySide ? 1.45 : 1.25) || 1, Math.max(1, d.bars.length));
      plane.draw();
      return most > 0;
    },
    csv: () => [["name", ...d.series], ...d.bars.map((b) => [b.name, ...b.values])],
  };
}

// data(): {labels: [x, ...series], rows: [[x, ...]], options}
function lines(div, data) {
  let d = null, graph = null;
  const legend = document.createElement("div");
  legend.className = "legend";
  div.before(legend);
  return {
    update() {
      d = data();
      if (graph) graph.destroy();
      graph = null;
      if (!d.rows.length) return false;
      if (!window.Dygraph) {
        div.textContent = "ttx was built without dygraphs, which draws lines; the numbers are in the CSV.";
        return true;
      }
      graph = new Dygraph(div, d.rows, Object.assign({
        labels: d.labels, colors: ["#e6550d", "#2c728e", "#5ec962", "#9e6ebd"], strokeWidth: 1.5,
        gridLineColor: css("--line"), axisLineColor: css("--line"), legend: "always", labelsSeparateLines: false, labelsDiv: legend,
        axes: { x: { axisLabelFormatter: d.x, valueFormatter: d.x }, y: { axisLabelFormatter: d.y, valueFormatter: d.y, axisLabelWidth: 70 } },
      }, d.options));
      return d.rows.some((r) => r.slice(1).some((v) => v > 0));
    },
    csv: () => [d.labels, ...d.rows],
  };
}

// data(): {columns: [[field, text(v)]], heads: [titles], words: [fields that are text], rows: [objects], mark(row): class,
// ends: the first and the last rows are shown, all: every one}
function table(box, data) {
  const MOST = 60, scroll = document.createElement("div");
  let d = null;
  scroll.className = "scroll";
  scroll.tabIndex = 0;
  box.append(scroll);
  return {
    update() {
      d = data();
      const t = document.createElement("table"), head = t.createTHead().insertRow(), body = t.createTBody(), n = d.rows.length;
      const words = (i) => (d.words || []).includes(d.columns[i][0]);
      d.columns.forEach(([field], i) => {
        const th = document.createElement("th");
        th.textContent = d.heads ? d.heads[i] : field;
        th.scope = "col";
        if (words(i)) th.className = "words";
        head.append(th);
      });
      const add = (r) => {
        const line = body.insertRow();
        if (d.mark) line.className = d.mark(r);
        d.columns.forEach(([field, text], i) => {
          const cell = line.insertCell();
          cell.textContent = r[field] === undefined || r[field] === null ? "" : text(r[field]);
          if (words(i)) cell.className = "words";
        });
      };
      if (n <= MOST || d.all) d.rows.forEach(add);
      else {
        const first = d.ends ? MOST / 2 : MOST;
        d.rows.slice(0, first).forEach(add);
        body.insertRow().insertCell().textContent = "... " + (n - MOST) + " more (CSV has all)";
        if (d.ends) d.rows.slice(first - MOST).forEach(add);
      }
      scroll.replaceChildren(t);
      return n > 0;
    },
    csv: () => [d.columns.map((c) => c[0]), ...d.rows.map((r) => d.columns.map(([field]) => (r[field] === undefined || r[field] === null ? "" : r[field])))],
  };
}
