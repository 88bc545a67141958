#!/usr/bin/env python3
"""Two builds decoding in turns: what tracing costs that is compiled in, and off.

    trace_off.py TRACE_OVERHEAD OTHER_TRACE_OVERHEAD MODEL.gguf [TOKENS [PAIRS [TURNS]]]

The other is the same program of a build with -DTTX_TRACE=OFF. Both hold the model and decode when asked; the order
changes from turn to turn. Printed: the median over the pairs of the first's time over the other's, with quartiles.
"""
import statistics
import subprocess
import sys


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    binaries, model = sys.argv[1:3], sys.argv[3]
    tokens, pairs, turns = (list(map(int, sys.argv[4:7])) + [32, 10, 4][len(sys.argv[4:7]):])
    servers = [subprocess.Popen([b, model, "--serve", str(tokens)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                text=True) for b in binaries]

    def seconds(server):
        server.stdin.write("\n")
        server.stdin.flush()
        return float(server.stdout.readline())

    for s in servers:
        seconds(s)
    ratios, total = [], 0
    for pair in range(pairs):
        time = [0.0, 0.0]
        for turn in range(turns):
            for side in (0, 1) if (turn + pair) % 2 else (1, 0):
                time[side] += seconds(servers[side])
        ratios.append(time[0] / time[1])
        total += time[1]
    for s in servers:
        s.stdin.close()
        s.wait()
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(f"compiled in, off: {100 * (middle - 1):+.2f} % ({100 * (low - 1):+.2f} .. {100 * (high - 1):+.2f})  "
          f"{1e3 * total / pairs / turns / tokens:.3f} ms a token without")


if __name__ == "__main__":
    main()
