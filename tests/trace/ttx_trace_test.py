#!/usr/bin/env python3
"""The Python package: its table against the definition, statistics.json against pandas on the Parquet
export, Parquet in DuckDB and polars, figures, the notebook, errors.

    ttx_trace_test.py TTX PACKAGE

Exits with 77 (skipped) where the libraries are missing.
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.dont_write_bytecode = True
try:
    import duckdb
    import nbclient
    import nbformat
    import numpy as np
    import pandas as pd
    import polars as pl
    import pyarrow
    import pyarrow.parquet as pq
    from PIL import Image
except ImportError as e:
    print(f"{e.name} is not installed")
    sys.exit(77)

import report_traces as rt

TTX, PACKAGE = sys.argv[1], Path(sys.argv[2])
sys.path.insert(0, str(PACKAGE))
from ttx_trace import COLUMNS, Trace, TraceAnalyzer, TraceError, load  # noqa: E402

failures = []
WANTED = ("timestamp_ns, duration_ns, token_id, n_tokens, phase, layer_id, operation_type, tensor_name, component_type, "
          "file_offset, size_bytes, qkv_type, attention_head, expert_id, expert_rank, routing_score, expert_weight, "
          "residency, shard, tensor_ptr").split(", ")


def check(what, got, expected):
    if got != expected:
        failures.append(f"{what}: expected {expected!r:.300}, found {got!r:.300}")


def sums(df, key):
    g = df.groupby(key, observed=True)["size_bytes"]
    return {k: (int(n), int(s)) for k, n, s in zip(g.size().index, g.size(), g.sum())}


def check_statistics(name, df, s):
    """Sums of the table, by pandas alone."""
    df = df.assign(component=df["component_type"].astype(object).fillna("activation"))
    check(name + " components", {r["component"]: (r["records"], r["bytes"]) for r in s["components"]}, sums(df, "component"))
    check(name + " operations", {(r["operation_type"], r["phase"]): (r["records"], r["bytes"]) for r in s["operations"]},
          sums(df, ["operation_type", "phase"]))
    check(name + " tensors", {r["tensor_name"]: (r["records"], r["bytes"]) for r in s["tensors"] if r["records"]},
          sums(df, "tensor_name"))
    check(name + " layers", {r["layer_id"]: (r["records"], r["bytes"]) for r in s["layers"] if r["layer_id"] is not None},
          sums(df[df["layer_id"].notna()], "layer_id"))
    in_file = df[df["file_offset"].notna()]
    check(name + " qkv", {r["qkv_type"]: (r["records"], r["bytes"]) for r in s["qkv"]}, sums(in_file, "qkv_type"))
    check(name + " busy", s["totals"]["busy_ns"], int(df["duration_ns"].sum()))
    experts = in_file[in_file["expert_id"].notna()]
    for row in s.get("experts", []):
        mine = sums(experts[experts["layer_id"] == row["layer_id"]], "expert_id")
        check(f"{name} experts of {row['layer_id']}", [(n, b) for n, b in zip(row["accesses"], row["bytes"])],
              [mine.get(e, (0, 0)) for e in range(len(row["bytes"]))])
    heads = in_file[in_file["attention_head"].notna()]
    for row in s["heads"]:
        for letter in "qkvo":
            mine = sums(heads[(heads["layer_id"] == row["layer_id"]) & (heads["qkv_type"] == letter.upper())], "attention_head")
            check(f"{name} {letter} heads", row[letter + "_bytes"], [mine[h][1] for h in range(len(row[letter]))])
    # Heads put together, then who follows whom in the file.
    launch = df["duration_ns"].gt(0).cumsum()
    key = [launch, in_file["tensor_name"], in_file["expert_id"].fillna(-1).astype(int), in_file["layer_id"].fillna(-1).astype(int)]
    rows = in_file["attention_head"].isna().cumsum().where(in_file["attention_head"].isna(), -1)  # nothing else is put together
    whole = in_file.groupby(key + [rows], observed=True, sort=False).agg(
        begin=("file_offset", "min"), size=("size_bytes", "sum"), shard=("shard", "first"))
    if s["model"]["file_bytes"] == s["one_shard"]:
        gap = whole["begin"].astype(float).to_numpy()[1:] - (whole["begin"].astype(float) + whole["size"]).to_numpy()[:-1]
        check(name + " sequential", s["sequential"]["sequential"], int(((gap >= 0) & (gap <= 128 << 10)).sum()))


def check_table(name, folder, run):
    df, tokens = load(folder), load(folder, expand_tokens=True)
    check(name + " columns", list(df.columns), WANTED + ["layer_name", "category"])
    check(name + " COLUMNS", COLUMNS, WANTED)
    check(name + " rows", len(df), sum(r[56] == rt.ACCESS for r in run.records))
    check(name + " expanded bytes", int(tokens["size_bytes"].sum()), int(df["size_bytes"].sum()))
    check(name + " expanded time", int(tokens["duration_ns"].sum()), int(df["duration_ns"].sum()))
    check(name + " expanded rows", len(tokens), int(df["n_tokens"].sum()))
    count = Trace(folder).tokens()
    check(name + " words", list(count["text"]), [t[2] for t in run.tokens])
    check(name + " without gaps", set(tokens["token_id"].dropna()), set(count["token_id"]))
    experts = tokens[tokens["expert_id"].notna()]
    if len(experts) and name != "again":  # every token takes its k experts, in batches too
        per = experts.groupby(["token_id", "layer_id", "operation_type"], observed=True)["expert_id"].nunique()
        check(name + " experts a token", set(per), {run.m.used})
        one = df[df["expert_id"].notna() & (df["n_tokens"] == 1)]
        of_one = one[one["phase"] == "GENERATE"]
        rank = of_one["expert_rank"].to_numpy(dtype=int)
        check(name + " weights", np.allclose(of_one["expert_weight"], np.where(rank == 0, 0.7, 0.3), atol=1e-6), True)
    return df


def check_parquet(name, folder, df, home):
    path = home / f"{name}.parquet"
    env = dict(os.environ, PYTHONPATH=str(PACKAGE))
    subprocess.run([sys.executable, "-m", "ttx_trace", "parquet", folder, "-o", path], check=True, env=env)
    table = pd.read_parquet(path)
    check(name + " parquet columns", list(table.columns), WANTED)
    pd.testing.assert_frame_equal(table, df[WANTED], check_dtype=False, check_categorical=False)
    total = int(df["size_bytes"].sum())
    check(name + " duckdb", duckdb.sql(f"select count(*), sum(size_bytes), count(expert_id) from '{path}'").fetchall()[0],
          (len(df), total, int(df["expert_id"].notna().sum())))
    frame = pl.read_parquet(path)
    check(name + " polars", (frame.height, int(frame["size_bytes"].sum())), (len(df), total))
    meta = pq.ParquetFile(path).metadata
    check(name + " zstd", meta.row_group(0).column(0).compression, "ZSTD")
    return table


def check_figures(folder, experts):
    made = {p.name for p in TraceAnalyzer(folder).all()}
    wanted = {"heatmap_token_layer.png", "heatmap_token_tensor.png", "timeline_offset.png", "hot_tensors.png",
              "layer_accesses.png", "operation_types.png", "attention_heads.png", "timeline_interactive.html",
              "heatmap_interactive.html", "accesses.gif"} | ({"moe_expert_heatmap.png"} if experts else set())
    check("figures", made, wanted)
    for path in (folder / "analysis").glob("*.png"):
        image = Image.open(path)
        check(f"{path.name}: dpi", round(image.info["dpi"][0]), 300)
        check(f"{path.name}: drawn", len(image.convert("P").getcolors()) > 8, True)
    check("frames", Image.open(folder / "analysis/accesses.gif").n_frames > 5, True)


def check_stats_level(home):
    """No records: sums of tensors are all that a table or a figure can have."""
    folder = home / "stats"
    run = rt.make_stats(folder)
    check("stats rows", len(load(folder)), 0)
    sums_of = Trace(folder).sums()
    check("stats sums", (len(sums_of), int(sums_of["bytes"].sum())),
          (len(run.m.tensors), sum(4 * t["size"] for t in run.m.tensors)))
    check("stats figures", [p.name for p in TraceAnalyzer(folder).all()], ["hot_tensors.png", "layer_accesses.png"])
    check("sums of other levels", Trace(home / "dense").sums(), None)


def check_wheel(home):
    """The package is built, installed into an empty folder and run from there."""
    shutil.copytree(PACKAGE, home / "source")
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-build-isolation", "--no-deps", "--no-index", "-w", home, home / "source"], check=True)
    wheel, = home.glob("ttx_trace-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", home / "installed", wheel], check=True)
    env = dict(os.environ, PYTHONPATH=str(home / "installed"))
    subprocess.run([sys.executable, "-m", "ttx_trace", "parquet", home / "dense", "-o", home / "wheel.parquet"], check=True,
                   env=env, cwd=home)
    check("installed", len(pd.read_parquet(home / "wheel.parquet")), len(load(home / "dense")))


def check_notebook(folder):
    notebook = nbformat.read(PACKAGE / "analysis.ipynb", as_version=4)
    check("the notebook is kept without outputs", any(c.get("outputs") for c in notebook.cells), False)
    os.environ.update(TTX_TRACE_DIR=str(folder), PYTHONPATH=str(PACKAGE), PYTHONDONTWRITEBYTECODE="1")
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    check("the notebook draws", sum(o.output_type in ("display_data", "execute_result") for c in notebook.cells
                                    for o in c.get("outputs", [])) >= 6, True)


def check_errors(folder, home):
    def refused(where, words):
        try:
            load(where)
            failures.append(f"{where}: not refused")
        except TraceError as e:
            check(f"{where}: {e}", words in str(e), True)
    refused(home / "nowhere", "found none")
    (home / "empty").mkdir()
    refused(home / "empty", "no trace_metadata.json")
    records, meta = folder / "tensor_access.bin", folder / "trace_metadata.json"
    good, good_meta = records.read_bytes(), meta.read_text()
    whole = load(folder)
    packed = records.with_name(records.name + ".zst")
    parts = [pyarrow.compress(good[at:at + 50000], "zstd", asbytes=True) for at in range(0, len(good), 50000)]
    packed.write_bytes(b"".join(parts))
    records.unlink()
    check("compressed", load(folder).equals(whole), True)
    packed.write_bytes(b"".join(parts[:-1]) + parts[-1][:50])
    check("compressed and cut short", len(whole) - 1800 < len(load(folder)) < len(whole), True)
    packed.write_bytes(b"".join(parts[:-1]) + bytes(700))
    check("compressed and killed", len(whole) - 1800 < len(load(folder)) < len(whole), True)
    packed.unlink()
    records.write_bytes(good[:64 * 300] + bytes(64 * 20))
    check("killed inside a block", len(load(folder)) < 300, True)
    records.write_bytes(good[:-64] + bytes(64 * 20))
    check("killed between blocks", len(load(folder)), len(whole))
    check("killed", Trace(folder).complete, False)
    records.write_bytes(good[:64 * 300])
    check("cut short", len(load(folder)) < 300, True)
    for data, words in ((b"", "0 bytes"), (b"x" * 640, "something else"), (good[:64] + bytes(64) + good[128:], "byte 64")):
        records.write_bytes(data)
        refused(folder, words)
    records.write_bytes(good)
    for text, words in (("{", "metadata"), ("[]", "metadata"), (good_meta.replace('version": 1', 'version": 7'), "version")):
        meta.write_text(text)
        refused(folder, words)
    meta.write_text(good_meta)


def main():
    with tempfile.TemporaryDirectory() as home:
        home = Path(home)
        for name, how in (("dense", {}), ("experts", dict(layers=5, experts=8, io=True, decode=40, prompt=20)),
                          ("shards", dict(shards=3, io=True)), ("again", dict(experts=4, restarts=2))):
            run = rt.make(home / name, **how)
            subprocess.run([TTX, "report", home / name], check=True, stdout=subprocess.DEVNULL)
            df = check_table(name, home / name, run)
            table = check_parquet(name, home / name, df, home)
            s = json.loads((home / name / "analysis/statistics.json").read_text())
            s["one_shard"] = run.m.sizes[0]
            check_statistics(name, table, s)
            heat = dict(zip(df["tensor_name"], df["category"]))
            for row in s["tensors"]:
                if row.get("category"):
                    check(f"{name} heat of {row['tensor_name']}", heat[row["tensor_name"]], row["category"])
        check_figures(home / "experts", True)
        check_figures(home / "dense", False)
        check_notebook(home / "experts")
        check_stats_level(home)
        check_wheel(home)
        check_errors(home / "dense", home)
    print("\n".join(failures[:40]))
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
