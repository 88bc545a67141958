"""The table of accesses as Parquet: dictionary-encoded names, zstd, row groups in the order of time.

Blocks of the trace are converted one after the other: memory does not grow with the trace.
"""
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .trace import ACCESS, ROUTE, Trace, durations, expert_weights, turns

ROWS = 1 << 20


def _schema(table):
    """Names as dictionaries of 32-bit codes, whatever their number in one block."""
    fields = [pa.field(f.name, pa.dictionary(pa.int32(), pa.string()) if pa.types.is_dictionary(f.type) else f.type)
              for f in table.schema]
    return pa.schema(fields)


def write_parquet(folder, path, progress=None):
    """Writes the accesses of the trace in `folder` to `path`, which appears when it is whole.
    progress(rows): told after each row group. Returns the number of rows."""
    trace, writer, rows, before = Trace(folder), None, 0, 0
    carried = np.empty(0, trace.slots.dtype), np.empty(0, np.int64)
    draft = f"{path}.{os.getpid()}.tmp"
    try:
        for block in trace.blocks(ROWS):
            turn = turns(block) + before
            before = int(turn[-1])
            ns = durations(block)
            route, access = block["kind"] == ROUTE, block["kind"] == ACCESS
            # A batch that began in the block before has its routes there.
            routes = np.concatenate([carried[0], block[route]])
            route_turn = np.concatenate([carried[1], turn[route]])
            carried = block[route], turn[route]
            v = block[access]
            df = trace.frame(v, expert_weights(v, turn[access], routes, route_turn))
            df["duration_ns"] = ns[access]
            table = pa.Table.from_pandas(df, preserve_index=False)
            schema = _schema(table)
            if writer is None:
                writer = pq.ParquetWriter(draft, schema.with_metadata({"ttx_trace_version": "1"}), compression="zstd",
                                          use_dictionary=True)
            writer.write_table(table.cast(schema).replace_schema_metadata(writer.schema.metadata), row_group_size=ROWS)
            rows += len(df)
            if progress:
                progress(rows)
        if writer is None:
            table = pa.Table.from_pandas(trace.frame(trace.records()), preserve_index=False)
            writer = pq.ParquetWriter(draft, _schema(table), compression="zstd")
            writer.write_table(table.cast(_schema(table)))
        writer.close()
        os.replace(draft, path)
    finally:
        if os.path.exists(draft):
            os.unlink(draft)
    return rows
