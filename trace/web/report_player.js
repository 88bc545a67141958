// report_player.js -- the wave of accesses, played: the file as lines of cells that light up and fade.

const LINES = 40;
charts.push({ id: "player", title: "The wave of accesses", wide: true,
  note: "The file in " + LINES + " lines, top left its first byte. Accesses are played one after the other; colour fades with the accesses since.",
  make(box) {
    const tools = document.createElement("div");
    tools.className = "player";
    tools.innerHTML = `<button type="button" class="play">Play</button>
      <select aria-label="which accesses"><option value="decode">decoding</option><option value="prompt">prompt</option></select>
      <input type="range" min="0" value="0" aria-label="position">
      <label>Speed <select class="speed"><option>10</option><option>50</option><option selected>200</option><option>1000</option><option>5000</option></select> accesses/s</label>
      <output></output>`;
    box.append(tools);
    const canvas = canvasIn(box, "The wave of accesses");
    const button = tools.querySelector(".play"), which = tools.querySelector("select"), speed = tools.querySelector(".speed");
    const slider = tools.querySelector("input"), out = tools.querySelector("output");
    if (!windows.decode.n) which.value = "prompt";
    let at = 0, playing = false, last = 0, list = [];

    function choose() {
      const w = windows[which.value];
      list = [];
      for (let i = 0; i < w.n; i++) {
        const t = tensors[w.tensor[i]];
        const layer = t && t.layer_id !== null ? t.layer_id : -1;
        if (layerShown(layer) && filter.ops.has(w.op[i]) && w.token[i] >= filter.tokens[0] && w.token[i] <= filter.tokens[1]) list.push(i);
      }
      slider.max = Math.max(0, list.length - 1);
      at = Math.min(at, Math.max(0, list.length - 1));
    }
    function draw() {
      const w = windows[which.value], ratio = devicePixelRatio || 1, width = canvas.clientWidth, height = LINES * 9;
      if (!width) return;
      canvas.style.height = height + "px";
      canvas.width = width * ratio; canvas.height = height * ratio;
      const c = canvas.getContext("2d");
      c.setTransform(ratio, 0, 0, ratio, 0, 0);
      const perLine = T.file_bytes / LINES;
      c.fillStyle = css("--empty");
      for (let k = 0; k < LINES; k++) c.fillRect(0, k * 9, width, 8);
      const trail = Math.min(150, list.length);
      for (let k = Math.max(0, at - trail + 1); k <= at && k < list.length; k++) {
        const i = list[k], fresh = 1 - (at - k) / trail, rgb = palettes.YlOrRd[Math.round(30 + 190 * fresh)];
        c.fillStyle = `rgba(${rgb.join()},${(0.08 + 0.92 * fresh * fresh).toFixed(3)})`;
        let from = w.at[i];
        const end = from + w.size[i];
        while (from < end) {
          const line = Math.floor(from / perLine), stop = Math.min(end, (line + 1) * perLine);
          c.fillRect(((from - line * perLine) / perLine) * width, line * 9, Math.max(1, ((stop - from) / perLine) * width), 8);
          if (stop <= from) break;
          from = stop;
        }
      }
      const i = list[at];
      out.textContent = i === undefined ? "nothing to play" : `${at + 1} of ${list.length}: ${asTime(w.time[i])}, ${tokenText(w.token[i])}, ` +
        `${T.operations[w.op[i]]} ${tensorName(w.tensor[i])}${w.expert[i] ? " expert " + (w.expert[i] - 1) : ""}`;
      slider.value = at;
    }
    function step(now) {
      if (!playing) return;
      const n = Math.floor(((now - last) / 1000) * Number(speed.value));
      if (n > 0) {
        last = now;
        at = Math.min(list.length - 1, at + n);
        draw();
        if (at >= list.length - 1) return stop();
      }
      requestAnimationFrame(step);
    }
    function stop() { playing = false; button.textContent = "Play"; }
    function toggle() {
      if (playing) return stop();
      if (at >= list.length - 1) at = 0;
      playing = list.length > 0;
      button.textContent = playing ? "Pause" : "Play";
      last = performance.now();
      requestAnimationFrame(step);
    }
    button.onclick = toggle;
    which.onchange = () => { at = 0; choose(); draw(); };
    slider.oninput = () => { at = Number(slider.value); draw(); };
    canvas.tabIndex = 0;
    canvas.addEventListener("keydown", (e) => {
      const move = { ArrowLeft: -1, ArrowRight: 1, PageUp: -100, PageDown: 100 }[e.key];
      if (e.key === " ") toggle();
      else if (move) { at = Math.max(0, Math.min(list.length - 1, at + move)); draw(); } else return;
      e.preventDefault();
    });
    return {
      plane: { draw },
      update() { choose(); draw(); return list.length > 0; },
      csv() {
        const w = windows[which.value];
        return [["timestamp_ns", "token_id", "operation_type", "tensor_name", "expert_id", "position", "size_bytes"],
          ...list.map((i) => [w.time[i], w.token[i], T.operations[w.op[i]], tensorName(w.tensor[i]), w.expert[i] ? w.expert[i] - 1 : "", w.at[i], w.size[i]])];
      },
      position: () => at,
    };
  } });
