"""Traces of ttx as tables and figures.

    from ttx_trace import load, TraceAnalyzer
    df = load("trace")                    # one row an access, the columns of docs/trace-format.md first
    per_token = load("trace", expand_tokens=True)
    TraceAnalyzer("trace").all()          # figures in trace/analysis

`python3 -m ttx_trace parquet DIR -o FILE` writes the same table as Parquet, of any length.
"""
from .trace import COLUMNS, Trace, TraceError, load

__all__ = ["COLUMNS", "Trace", "TraceError", "TraceAnalyzer", "load", "write_parquet"]


def __getattr__(name):  # what needs more packages is loaded when it is used
    if name == "TraceAnalyzer":
        from .figures import TraceAnalyzer
        return TraceAnalyzer
    if name == "write_parquet":
        from .parquet import write_parquet
        return write_parquet
    raise AttributeError(name)
