#!/usr/bin/env python3
"""The page of `ttx report` in a browser: no error, no request, every chart drawn, and what a user
does with it: hover, zoom, pan, filter, play, keys, export, theme.

    report_page_test.py TTX [FOLDER]      keeps screenshots in FOLDER

Exits with 77 (skipped) without Chromium.
"""
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import browser
import report_traces as rt

failures = []


def check(what, ok, found=""):
    if not ok:
        failures.append(f"{what} {found}")


# How many different colours a canvas shows; 1 is an empty one.
COLOURS = """(id) => [...document.querySelectorAll('#' + id + ' canvas')].filter((c) => c.width && c.offsetParent).map((c) => {
  const copy = new OffscreenCanvas(c.width, c.height).getContext('2d', {willReadFrequently: true});
  copy.drawImage(c, 0, 0);
  const d = copy.getImageData(0, 0, c.width, c.height).data, seen = new Set();
  for (let i = 0; i < d.length; i += 4) if (d[i + 3]) seen.add(d[i] << 16 | d[i + 1] << 8 | d[i + 2]);
  return seen.size;
})"""


def charts_of(page):
    return page.run("ttxReport.charts.map((c) => ({id: c.id, state: document.getElementById(c.id).dataset.state}))")


def middle(page, chart):
    """Scrolls a chart into sight; the place of its (first) canvas."""
    return page.run(f"""(() => {{ const c = document.querySelector('#{chart} canvas'); c.scrollIntoView({{block: 'center'}});
      const b = c.getBoundingClientRect(); return [b.left, b.top, b.width, b.height]; }})()""")


def tip(page):
    return page.run("document.getElementById('tip').hidden ? '' : document.getElementById('tip').textContent")


def all_drawn(page, name, missing):
    for chart in charts_of(page):
        if chart["id"] in missing:
            check(f"{name}: {chart['id']} should say that there is nothing", chart["state"] == "none", chart["state"])
            continue
        check(f"{name}: {chart['id']}", chart["state"] == "full", chart["state"])
        for n in page.run(f"({COLOURS})('{chart['id']}')"):
            check(f"{name}: {chart['id']}: colours", n > 2 or chart["id"] in LINES, n)
        if chart["id"] in LINES:
            check(f"{name}: {chart['id']}: a line", max(page.run(f"({COLOURS})('{chart['id']}')"), default=0) > 1)


LINES = {"token-time", "token-cache", "token-disk", "rates", "lru", "pinned", "events", "reuse", "cache"}
SUMS = {"token-time", "hot", "components", "layers", "qkv"}  # what level stats has something of


def hover(page):
    for chart, words in (("token-layer", ("layer", "token")), ("token-tensor", ("weight",)), ("map", ("offset", "token")),
                         ("components", ("bytes",)), ("experts", ("expert",)), ("heads", ("head",))):
        x, y, w, h = middle(page, chart)
        seen = ""
        for fx in (0.5, 0.4, 0.6, 0.3):
            page.mouse("mouseMoved", x + w * fx, y + h * 0.4)
            seen = tip(page)
            if all(word in seen for word in words):
                break
        check(f"hover {chart}", all(word in seen for word in words), repr(seen))
    page.mouse("mouseMoved", 2, 2)


def zoom(page):
    x, y, w, h = middle(page, "map")
    view = "(() => { const p = ttxReport.charts.find((c) => c.id === 'map').it.plane; return [p.x0, p.x1, p.y0, p.y1]; })()"
    before = page.run(view)
    page.mouse("mouseWheel", x + w / 2, y + h / 2, deltaX=0, deltaY=-800)
    after = page.run(view)
    check("wheel zooms", after[1] - after[0] < before[1] - before[0], (before, after))
    page.mouse("mousePressed", x + w / 2, y + h / 2, button="left", clickCount=1)
    page.mouse("mouseMoved", x + w / 2 + 80, y + h / 2, button="left")
    page.mouse("mouseReleased", x + w / 2 + 80, y + h / 2, button="left", clickCount=1)
    check("drag pans", page.run(view)[0] < after[0], page.run(view))
    for _ in range(8):
        page.mouse("mouseWheel", x + w / 2, y + h / 2, deltaX=0, deltaY=-600)
    check("single accesses", max(page.run(f"({COLOURS})('map')")) > 1)
    page.run("document.querySelector('#map canvas').focus()")
    for key in ("+", "ArrowRight", "ArrowDown", "Enter"):
        page.key(key)
    check("keys tell", "offset" in tip(page), tip(page))
    page.key("0")
    check("0 shows all", page.run(view) == before, page.run(view))


def filters(page):
    sums = "Object.fromEntries(sumBy(rowLayer, 'bytes'))"
    whole = page.run(sums)
    page.run("document.getElementById('layer-to').value = 1; document.getElementById('outside').click(); "
             "document.getElementById('filters').dispatchEvent(new Event('change'))")
    some = page.run(sums)
    check("filter of layers", set(some) == {"0", "1"} and all(some[k] == whole[k] for k in some), some)
    page.run("document.getElementById('phase').value = '0'; document.getElementById('filters').dispatchEvent(new Event('change'))")
    prompt = page.run(sums)
    check("filter of phase", all(0 < prompt[k] < some[k] for k in some), prompt)
    page.run("document.querySelector('#ops input').click()")
    page.run("document.getElementById('metric').value = 'ns'; document.getElementById('filters').dispatchEvent(new Event('change'))")
    check("metric", "s" in page.run("document.getElementById('filtered').textContent"))
    page.run("document.getElementById('metric').value = 'bytes'; document.getElementById('reset').click()")
    check("reset", page.run(sums) == whole)
    statistics = page.run("ttxReport.statistics")
    check("cells add up to the statistics", sum(whole.values()) == statistics["totals"]["bytes"], sum(whole.values()))
    for layer in statistics["layers"]:
        key = str(-1 if layer["layer_id"] is None else layer["layer_id"])
        check(f"layer {key}", whole.get(key, 0) == layer["bytes"], whole.get(key))


def player(page):
    middle(page, "player")
    position = "ttxReport.charts.find((c) => c.id === 'player').it.position()"
    page.run("document.querySelector('#player .play').click()")
    page.wait(0.6)
    moved = page.run(position)
    check("plays", moved > 10, moved)
    page.run("document.querySelector('#player canvas').focus()")
    page.key(" ", "Space", " ")
    stopped = page.run(position)
    page.wait(0.3)
    check("space pauses", page.run(position) == stopped)
    page.key("ArrowRight")
    check("arrows step", page.run(position) == stopped + 1)
    check("says what", "weight" in page.run("document.querySelector('#player output').textContent"))


def export(page):
    page.run("""window.saved = []; URL.createObjectURL = (blob) => { saved.push(blob.text()); return 'data:,'; };
      HTMLAnchorElement.prototype.click = function () {};
      document.querySelectorAll('.tools button').forEach((b) => { if (!b.hidden) b.click(); })""")
    texts = page.run("Promise.all(saved)")
    check("exports", len(texts) > 15 and all(t.count("\r\n") > 1 for t in texts), [len(t) for t in texts])


def theme(page):
    colour = "getComputedStyle(document.body).backgroundColor"
    before = page.run(colour)
    page.run("document.activeElement.blur(); document.body.focus()")
    page.key("t", "KeyT", "t")
    check("theme", page.run(colour) != before)


def compare(ttx, home, shots):
    """Three runs of one model with experts, and one of another without."""
    folders = [home / f"run{i}" for i in range(4)]
    for i, folder in enumerate(folders[:3]):
        rt.make(folder, layers=6, experts=8, prompt=20, decode=30 + i, seed=i + 1)
    rt.make(folders[3], layers=4, seed=9)
    subprocess.run([ttx, "report", *folders], check=True, stdout=subprocess.DEVNULL)
    page = browser.Page()
    path = folders[0] / "analysis/comparison.html"
    page.open(path)
    all_drawn(page, "compare", set())
    rows = page.run("[...document.querySelectorAll('#pairs tbody tr')].map((r) => [...r.cells].map((c) => c.textContent))")
    c = json.loads((folders[0] / "analysis/comparison.json").read_text())
    check("pairs", [(r[0], r[1]) for r in rows][:3], [("A, B", "yes"), ("A, C", "yes"), ("A, D", "yes")])
    check("correlation shown", [r[6] for r in rows][:2], [f"{p['expert_correlation']:.3f}" for p in c["pairs"][:2]])
    for chart, words in (("sequence", "as in A"), ("layers", "A: "), ("matrix", "1.000")):
        x, y, w, h = middle(page, chart)
        seen = ""
        for k in range(80):
            page.mouse("mouseMoved", x + 66 + (w - 70) * (k % 20 + 0.5) / 20, y + 6 + (h - 36) * (k // 20 + 0.5) / 20)
            seen = tip(page)
            if words in seen:
                break
        check(f"compare: hover {chart}", words in seen, repr(seen))
    x, y, w, h = middle(page, "experts")
    dx, dy = page.run("(() => { const it = ttxReport.charts.find((c) => c.id === 'experts').it, q = it.csv()[1]; "
                      "return [it.plane.px(q[2]), it.plane.py(q[3])]; })()")
    dot, ground = page.run(f"""(() => {{ const c = document.querySelector('#experts canvas');
      const copy = new OffscreenCanvas(c.width, c.height).getContext('2d', {{willReadFrequently: true}});
      copy.drawImage(c, 0, 0);
      return [[{dx}, {dy}], [{w} - 8, 8]].map(([x, y]) => [...copy.getImageData(x, y, 1, 1).data].join()); }})()""")
    check("compare: experts are dots", dot != ground, dot)
    page.mouse("mouseMoved", x + dx, y + dy)
    check("compare: hover experts", "layer 0, expert 0" in tip(page), tip(page))
    page.mouse("mouseMoved", 2, 2)
    for measure in ("token", "bytes", "ns"):
        page.run(f"document.getElementById('measure').value = '{measure}'; document.getElementById('filters').dispatchEvent(new Event('change'))")
        all_drawn(page, "compare " + measure, set())
    if shots:
        page.screenshot(shots / "compare.png")
    page.run("document.getElementById('pair').value = '2'; document.getElementById('filters').dispatchEvent(new Event('change'))")
    all_drawn(page, "compare A and D", {"experts", "expert-overlap"})
    page.run("document.querySelector('#layers canvas').focus()")
    page.key("+")
    page.key("Enter")
    check("compare: keys tell", "layer" in tip(page), tip(page))
    theme(page)
    check("compare: console", not page.problems, page.problems)
    check("compare: asks for nothing", all(u.startswith(("data:", f"file://{path}")) for u in page.requests), page.requests)
    page.close()


def main():
    if not browser.find():
        print("chromium is not installed")
        sys.exit(77)
    ttx, shots = sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else None
    with tempfile.TemporaryDirectory() as home:
        home = Path(home)
        rt.make(home / "experts", layers=6, experts=8, io=True, prompt=20, decode=60)
        rt.make(home / "dense", layers=3)
        (home / "none").mkdir()
        (home / "none/tensor_access.bin").write_bytes(rt.records_file([]))
        (home / "none/trace_metadata.json").write_text(json.dumps(rt.Model().metadata()))
        rt.make_stats(home / "stats")
        silent = {"dense": {"events", "disk", "token-disk", "reads", "experts", "specialisation", "favours"}, "experts": set()}
        for name in ("experts", "dense", "stats", "none"):
            subprocess.run([ttx, "report", home / name], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            page = browser.Page()
            path = home / name / "analysis/report.html"
            page.open(path)
            if name == "stats":
                silent[name] = {c["id"] for c in charts_of(page)} - SUMS
            if name != "none":
                all_drawn(page, name, silent[name])
            if name == "experts":
                hover(page)
                zoom(page)
                filters(page)
                player(page)
                if shots:
                    page.screenshot(shots / "light.png")
                export(page)
                theme(page)
                all_drawn(page, "dark", set())
                if shots:
                    page.screenshot(shots / "dark.png")
            check(f"{name}: console", not page.problems, page.problems)
            outside = [u for u in page.requests if not u.startswith(("data:", f"file://{path}"))]
            check(f"{name}: asks for nothing", not outside, outside)
            page.close()
        compare(ttx, home, shots)
    print("\n".join(failures))
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
