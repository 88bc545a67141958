/* bench_ram.h -- what a test beyond RAM is measured by: reads, waits, faults, and the bound.
 *
 * A watch listens to the engine from its opening on; `mark` frames what is measured. Routes are
 * recorded, so that the simulator can say how fast the same tokens could have been at most
 * (docs/simulator.md).
 */
#ifndef BENCH_RAM_H
#define BENCH_RAM_H

#include "disk_probe.h"
#include "engine_args.h"
#include "result_row.h"
#include "sim.h"

/* How a test runs, besides the options of all. */
typedef struct ram_setup {
    const char *ram;  /* --ram; NULL: none */
    const char *step; /* of the ladder: "baseline", "+ pin" ...; "": not of a ladder */
    int32_t load_mode, prefetch;
    const char *pin; /* NULL: auto */
    bool pattern;    /* use --hints and --pattern */
} ram_setup;

/* Results; NaN: not known. Per token of what was measured. */
typedef struct ram_result {
    const ram_setup *setup;
    double disk_mbps; /* mean of the meter's, beside the test */
    double mb_token, hit_rate, stall_ms, major_faults;
    double overlap;  /* share of the time of reads, at the disk's speed, that was not waited for */
    double io_share; /* of the time that was waited for reads */
    double reread;   /* bytes read since the model was opened, by distinct bytes touched */
    double compute_ms; /* time less waits */
    double total_mb;   /* read since the model was opened, without what the meter read */
    double guess_rate; /* guesses that were used, of those that were read */
    const ttx_residency_layout *layout;   /* NULL: not streamed. The engine's */
    double bound_ts;                      /* experts known after their router */
    double bound_guess_ts, bound_free_ts; /* one router before; reading and computing alone */
    double cold_s;     /* from opening the model to the last token, without the meter's time */
    double cached;     /* --cold: share of the file that stayed in the page cache */
    double group_peak; /* --mem-limit: bytes */
    double change_mb, change_ms, change_ts; /* of the ladder: against its baseline */
} ram_result;

typedef struct ram_watch {
    ttx_engine *engine;
    ttx_sim_routes routes; /* of all decoded tokens */
    uint32_t routes_cap, begin, end;
    int64_t position;
    ttx_residency_counters from, sum;
    uint64_t faults, sum_faults, read, sum_read, read_at_open;
    bool stop;             /* the first repetition is over: no more routes */
    ttx_disk_meter *meter; /* NULL: none */
} ram_watch;

#define RAM_METER_NS 2000000000u /* between two looks at the disk */

/* Listens to an engine that was just opened, before its session is; close before the engine is.
 * meter: of the disk, NULL: none; the caller's. */
void ram_watch_open(ram_watch *w, ttx_engine *e, ttx_disk_meter *meter);
void ram_watch_close(ram_watch *w);
/* Opens the meter of a model's disk and counts its memory in the budget. The caller closes. Errors:
 * TTX_E_RUNTIME. */
int ram_meter_open(ttx_disk_meter **out, ttx_engine_args *a, ttx_err *err);
/* Bytes that this process has had read from devices so far; 0: the system does not say. */
uint64_t ram_device_bytes(void);
/* bench_how.mark: a repetition begins, or has ended. */
void ram_watch_mark(void *watch, bool begin);
/* bench_how.meter: the disk, 1e9 bytes a second. */
double ram_watch_meter(void *watch);
/* What came of n tokens in `seconds`; a disk of all zeros is not known. Errors: TTX_E_RUNTIME. */
int ram_watch_result(ram_watch *w, ram_result *r, const ttx_disk *disk, double n, double seconds,
                     ttx_err *err);

/* The fields of a result, and a row for people (with the head before the first). */
void ram_put(result_row *row, const ram_result *r);
void ram_print_md(FILE *to, const char *model, const char *setup, const char *test, double ts,
                  const double step_ms[3], const ram_result *r, bool head);

#endif
