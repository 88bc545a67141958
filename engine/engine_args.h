/* engine_args.h -- what the commands that compute have in common: their options, and opening a
 * model with all that belongs to it.
 */
#ifndef TTX_ENGINE_ARGS_H
#define TTX_ENGINE_ARGS_H

#include "expert_stats.h"
#include "hints.h"
#include "model.h"
#include "note.h"
#include "opt.h"
#include "outfile.h"
#include "route_file.h"
#include "runtime.h"
#include "session.h"
#include "trace_tensors.h"

#include <signal.h>
#include <stdio.h>

#define TTX_CTX_DEFAULT UINT32_MAX /* n_ctx: min(trained, 4096, what memory allows) */

/* First member of a command's settings struct, so that the rows below fit every command. */
typedef struct ttx_engine_args {
    const char *model;
    int32_t n_threads, n_threads_batch;
    uint32_t n_ctx, n_ubatch;
    int32_t k_type, v_type; /* index into the choices below */
    int32_t load_mode;      /* index into ttx_load_modes */
    bool mlock, no_mmap;
    const char *ram;   /* memory budget; NULL: none */
    uint64_t ram_else; /* bytes of it that the command takes for itself */
    /* Rows of logits that the command will keep at once; 0: one. Or, if not 0, as many as take so
     * many bytes, at least one and at most n_ubatch. */
    uint32_t n_outputs;
    uint64_t output_bytes;
    int32_t cache_policy; /* a ttx_cache_policy; -1: not said */
    int32_t guess;        /* a ttx_guess_kind; -1: not said */
    int32_t prefetch;     /* index into TTX_PREFETCH_CHOICES */
    uint32_t prefetch_ahead;
    const char *pin;             /* "auto", "off", a size, "@list"; NULL: auto */
    int32_t evict, evict_when;   /* a ttx_evict, a ttx_evict_when */
    const char *hints, *pattern; /* files that an earlier run has left; NULL: none */
    bool io_threads;
    int32_t isa;
    uint32_t n_expert_used;           /* 0: the model's */
    const char *routes, *save_routes; /* route_trace files */
    const char *expert_stats;         /* a file, or "-" for a summary on stderr */
    const char *trace;                /* a directory; NULL: none is taken */
    int32_t trace_level, trace_overflow, trace_compress;
    uint64_t trace_max;
    bool verbose;
} ttx_engine_args;

void ttx_engine_args_defaults(ttx_engine_args *a);

#define TTX_LOAD_MODE_CHOICES  "auto|mmap|mlock|stream|none"
#define TTX_PREFETCH_CHOICES   "auto|off|layer|expert|all|on"
#define TTX_EVICT_CHOICES      "off|cold|dontneed"
#define TTX_EVICT_WHEN_CHOICES "deselected|layer"

#define TTX_ARG(field) offsetof(ttx_engine_args, field)
/* clang-format off */
#define TTX_OPT_MODEL \
    {"-m, --model", OPT_STR, TTX_ARG(model), "FILE", "GGUF model, or any shard of one", \
     .group = "Model", .required = true}

/* Option rows; put them after TTX_OPT_MODEL and the command's own. `default_ctx`: words for it. */
#define TTX_OPTS_ENGINE(default_ctx) \
    {"-c, --ctx-size", OPT_U32, TTX_ARG(n_ctx), "N", "context size in tokens; 0: as trained", .max = 1 << 30, \
     .shown_default = (default_ctx), .group = "Engine"}, \
    {"-t, --threads", OPT_INT, TTX_ARG(n_threads), "N", "threads", .min = -1, .max = 1024, \
     .shown_default = "every core"}, \
    {"-tb, --threads-batch", OPT_INT, TTX_ARG(n_threads_batch), "N", \
     "threads for more than one token at once", .min = -1, .max = 1024, .shown_default = "as -t"}, \
    {"-ub, --ubatch-size", OPT_U32, TTX_ARG(n_ubatch), "N", \
     "tokens of a prompt that are computed at once", .min = 1, .max = 1 << 16}, \
    {"-ctk, --cache-type-k", OPT_ENUM, TTX_ARG(k_type), "TYPE", "type of cached keys", \
     .choices = "f16|f32|q8_0"}, \
    {"-ctv, --cache-type-v", OPT_ENUM, TTX_ARG(v_type), "TYPE", "type of cached values", \
     .choices = "f16|f32|q8_0"}, \
    {"-lm, --load-mode", OPT_ENUM, TTX_ARG(load_mode), "MODE", \
     "auto: mmap if the model fits, else stream; mmap: the page cache holds the file; mlock: the " \
     "same, locked in memory; stream: keep what fits in --ram, read the rest as it is needed; " \
     "none: read all into memory of our own", .choices = TTX_LOAD_MODE_CHOICES}, \
    {"--ram", OPT_STR, TTX_ARG(ram), "SIZE", \
     "memory for everything: 3G, 50% of what is available, or auto; a model larger than that is " \
     "streamed", .shown_default = "no limit if the model fits, else auto"}, \
    {"--expert-cache", OPT_ENUM, TTX_ARG(cache_policy), "POLICY", \
     "which expert leaves the cache of a streamed model: the one that was not used for longest, was " \
     "used least often of late, was passed over most often, or whose next use is expected last", \
     .choices = TTX_CACHE_POLICY_NAMES, .shown_default = TTX_CACHE_DEFAULT_NAME}, \
    {"--guess", OPT_ENUM, TTX_ARG(guess), "HOW", \
     "streaming: which experts to read before they are chosen: those that the routers of the " \
     "next layers name, that the previous token used, that are used most often, or that most often " \
     "came next", \
     .choices = TTX_GUESS_NAMES, .shown_default = "router"}, \
    {"--prefetch", OPT_ENUM, TTX_ARG(prefetch), "WHAT", \
     "what is read before it is needed: the weights of the layers ahead, experts (streamed: those " \
     "that are likely to be chosen; mmap: all of an expert once it is chosen), or both (all, on); " \
     "auto: all if the model is larger than memory", .choices = TTX_PREFETCH_CHOICES}, \
    {"--prefetch-ahead", OPT_U32, TTX_ARG(prefetch_ahead), "N", "layers that are read ahead", \
     .min = 1, .max = 1024, .shown_default = "2 with mmap, as many as fit when streaming"}, \
    {"--pin", OPT_STR, TTX_ARG(pin), "WHAT", \
     "weights outside the experts that stay in memory (mmap: are locked there): off, so many bytes " \
     "of them, or those whose names stand in a file, @FILE", \
     .shown_default = "auto: mmap: none if the model fits, else what leaves a quarter of memory " \
     "free; streamed: all that fit"}, \
    {"--evict", OPT_ENUM, TTX_ARG(evict), "HOW", \
     "mmap: what becomes of pages that have been used: nothing, first to go when memory is short, " \
     "freed at once", .choices = TTX_EVICT_CHOICES}, \
    {"--evict-when", OPT_ENUM, TTX_ARG(evict_when), "WHEN", \
     "... of an expert that the next token does without, or of all that a layer has used", \
     .choices = TTX_EVICT_WHEN_CHOICES}, \
    {"--hints", OPT_STR, TTX_ARG(hints), "FILE", \
     "what `ttx report --hints` or `ttx tune` says of an earlier run: which weights to keep first, " \
     "which experts to have ready, and options that are not given here"}, \
    {"--pattern", OPT_STR, TTX_ARG(pattern), "FILE", \
     "streaming: guess experts by access_pattern.json of an earlier run's trace"}, \
    {"--io-threads", OPT_FLAG, TTX_ARG(io_threads), \
     .help = "do without io_uring: read with threads, advise with system calls"}, \
    {"--mlock", OPT_FLAG, TTX_ARG(mlock), .help = "the same as --load-mode mlock"}, \
    {"--no-mmap", OPT_FLAG, TTX_ARG(no_mmap), .help = "the same as --load-mode none"}, \
    {"--isa", OPT_ENUM, TTX_ARG(isa), "LEVEL", "highest instruction set to use", \
     .choices = "auto|scalar|avx2|avx512|vnni|amx"}, \
    TTX_OPTS_EXPERTS, \
    TTX_OPTS_TRACE, \
    {"-v, --verbose", OPT_FLAG, TTX_ARG(verbose), .help = "say more on stderr"}

/* What experts are chosen, and what is written down of it. */
#define TTX_OPTS_EXPERTS \
    {"--n-expert-used", OPT_U32, TTX_ARG(n_expert_used), "K", \
     "experts that a token uses; changes the results", .min = 1, .max = 1024, \
     .shown_default = "the model's"}, \
    {"--routes", OPT_STR, TTX_ARG(routes), "FILE", \
     "choose experts as a recorded run did (route_trace v1)"}, \
    {"--save-routes", OPT_STR, TTX_ARG(save_routes), "FILE", "record which experts are chosen"}, \
    {"--expert-stats", OPT_STR, TTX_ARG(expert_stats), "FILE", \
     "write statistics of the experts as JSON; '-': print a summary on stderr"}

/* What is written down of every access. */
#define TTX_OPTS_TRACE \
    {"--trace", OPT_STR, TTX_ARG(trace), "DIR", \
     "record every access to tensors in a directory: see docs/trace-format.md"}, \
    {"--trace-level", OPT_ENUM, TTX_ARG(trace_level), "LEVEL", \
     "stats: counts alone; tensor: a record for each operand; head: for each attention head; io: " \
     "and page faults", .choices = "stats|tensor|head|io"}, \
    {"--trace-overflow", OPT_ENUM, TTX_ARG(trace_overflow), "WHAT", \
     "if the disk is slower than the run: block waits for it, drop counts what is lost", \
     .choices = "block|drop"}, \
    {"--trace-compress", OPT_ENUM, TTX_ARG(trace_compress), "HOW", \
     "zstd makes the trace many times smaller, and its writer slower", .choices = "none|zstd"}, \
    {"--trace-max", OPT_SIZE, TTX_ARG(trace_max), "SIZE", "stop recording at this size", \
     .shown_default = "no limit"}

/* So that pasted command lines of llama.cpp run. */
#define TTX_OPTS_LLAMA_CPP \
    {"-ngl, --gpu-layers, --n-gpu-layers", OPT_IGNORED1, .arg = "N", .help = "there is no GPU here", \
     .group = "Accepted for llama.cpp command lines, without effect"}, \
    {"-ot, --override-tensor", OPT_IGNORED1, .arg = "PATTERN", .help = "no tensor is moved"}, \
    {"-ncmoe, --n-cpu-moe", OPT_IGNORED1, .arg = "N", .help = "all experts are on the CPU"}, \
    {"-fa, --flash-attn", OPT_IGNORED1, .arg = "on|off|auto", .help = "attention is always fused"}, \
    {"-fit, --fit", OPT_IGNORED1, .arg = "on|off", .help = "see -c"}, \
    {"-lv, --verbosity", OPT_IGNORED1, .arg = "N", .help = "see -v"}, \
    {"-nr, --no-repack", OPT_IGNORED, .help = "weights are never repacked"}, \
    {"--no-warmup", OPT_IGNORED, .help = "there is no warm-up"}
/* clang-format on */

typedef struct ttx_tokenizer ttx_tokenizer;

/* A model that is ready to compute, and what it stands on. */
typedef struct ttx_engine {
    gguf_file *file;
    ttx_model *model;
    ttx_runtime rt;
    struct ttx_ram_needs *needs; /* memory besides the weights */
    ttx_hints hints;
    ttx_engine_args args; /* the options, with those that the hints add */
    ttx_route_file *routes;
    ttx_route_source source;
    ttx_route_writer *route_writer;
    ttx_expert_stats *stats;
    const char *stats_to;    /* a file, or "-"; NULL: nowhere */
    ttx_outfile stats_file;  /* open from the start: better to fail before a run than after it */
    ttx_route_sink sinks[3]; /* filled up to n_sinks; the last is the command's */
    int n_sinks;
    ttx_trace_tensors trace_tensors;
    const char *trace_done;     /* while it is ended: where its records are */
    struct cJSON *trace_config; /* what the command says of itself in a trace; owned */
    const ttx_tokenizer *tok;   /* borrowed until ttx_engine_finish: texts of tokens in a trace */
    uint64_t start_ns;          /* when ttx_engine_open was called */
    double load_s; /* from then to its return; a command may add what it loads itself */
} ttx_engine;

/* Opens file, model and runtime. The caller closes also after an error. */
int ttx_engine_open(ttx_engine *e, const ttx_engine_args *a, ttx_err *err);
/* A session as the options say; n_outputs rows of logits. Warns on stderr if the context is longer
 * than the model was trained for. */
int ttx_engine_session(ttx_engine *e, const ttx_engine_args *a, uint32_t n_outputs,
                       ttx_session **out, ttx_err *err);
/* Threads of the runtime: as many as either -t or -tb asks for; 0 or less means every core. */
int ttx_engine_threads(const ttx_engine_args *a);
/* The settings of that session; n_outputs 0: as the arguments say. */
ttx_session_settings ttx_engine_session_settings(const ttx_model *m, const ttx_engine_args *a,
                                                 uint32_t n_outputs);
/* Ends what was recorded; `rc`: the outcome of the run. Returns rc, or an error of writing. Call
 * before ttx_engine_close when the run went well. */
int ttx_engine_finish(ttx_engine *e, int rc, ttx_err *err);
void ttx_engine_close(ttx_engine *e);

/* From now on Ctrl-C sets the flag that is returned (a second one ends the program at once).
 * Loading and evaluation look at the flag. */
const volatile sig_atomic_t *ttx_catch_interrupt(void);
/* Waits until standard input has something to read, or has ended. False: Ctrl-C, at any time since
 * it was first caught, and whichever thread the signal went to. */
bool ttx_wait_for_input(void);

#endif
