"""python3 -m ttx_trace parquet DIR -o FILE     the table of accesses
python3 -m ttx_trace figures DIR              figures in DIR/analysis"""
import argparse
import sys

from .trace import TraceError


def main():
    parser = argparse.ArgumentParser(prog="ttx_trace", description="tables and figures of a trace")
    commands = parser.add_subparsers(dest="command", required=True)
    parquet = commands.add_parser("parquet", help="write the table of accesses as Parquet")
    parquet.add_argument("dir")
    parquet.add_argument("-o", "--output", required=True)
    figures = commands.add_parser("figures", help="write the standard figures to DIR/analysis")
    figures.add_argument("dir")
    a = parser.parse_args()
    try:
        if a.command == "parquet":
            from .parquet import write_parquet
            show = sys.stderr.isatty()
            write_parquet(a.dir, a.output, (lambda n: print(f"\r{n} rows", end="", file=sys.stderr)) if show else None)
        else:
            from .figures import TraceAnalyzer
            for path in TraceAnalyzer(a.dir).all():
                print(path)
    except (TraceError, OSError) as e:
        print(f"ttx_trace: {e}", file=sys.stderr)
        return 1
    except ImportError as e:
        print(f"ttx_trace: {e.name} is not installed: pip install {e.name}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
