/* expert_stats_int.h -- the counters of expert_stats.h, and the numbers that are derived from them.
 *
 * A cell counts one layer in one phase. Cells add up, so that "all layers" is a cell as well. What
 * links tokens to those before them is the layer's history, which both phases share: a prompt's
 * last tokens are the past of the first decoded one.
 */
#ifndef TTX_EXPERT_STATS_INT_H
#define TTX_EXPERT_STATS_INT_H

#include "expert_stats.h"

enum {
    WEIGHT_BINS = 1024,                     /* 64 for each power of two from 2^-12 to 2^4 */
    REUSE_BINS = 16,                        /* distance 1, 2, 3-4, 5-8, ... tokens */
    UNION_SPANS = 7,                        /* 1, 2, 4 ... 64 tokens */
    RECENT_TOKENS = 1 << (UNION_SPANS - 1), /* the longest span */
    FREQUENCY_BINS = 7,                     /* 0, below 1/4, 1/2, 1, 2, 4 times the mean, above */
    TOP = 10,                               /* of experts and of pairs */
    SHARES = 5,                             /* 50, 80, 90, 95, 99 % */
    MIN_TOGETHER = 5                        /* pairs that met less often say nothing */
};

enum phase { PROMPT, DECODE, PHASES };

struct cell {
    uint64_t routes, hashed, activations;
    uint64_t *count;    /* [n_expert] activations */
    double *weight;     /* [n_expert] sums of weights */
    uint32_t *together; /* pair_index -> tokens that chose both; NULL: not counted */
    uint64_t rank_count[TTX_MAX_EXPERTS_USED];
    double rank_weight[TTX_MAX_EXPERTS_USED];
    double weight_sum;
    float weight_min, weight_max;
    uint64_t weight_bin[WEIGHT_BINS];
    /* A token and the one before it. */
    uint64_t pairs, chosen, kept, slots, same_slot; /* chosen: in the later token of a pair */
    double jaccard;                                 /* sum over pairs */
    uint64_t reuse[REUSE_BINS], first_uses;
    uint64_t spans[UNION_SPANS], span_experts[UNION_SPANS];
};

/* The past of a layer. Time counts its tokens from 1 and never goes back. */
struct history {
    bool running;       /* something precedes the next token */
    uint32_t next_step; /* of a token that continues the sequence */
    enum phase phase;
    uint32_t in_phase;   /* tokens of the sequence in this phase, without a break until now */
    uint64_t now, start; /* time of the newest token, of the first one of the sequence */
    int32_t k, expert[TTX_MAX_EXPERTS_USED]; /* of the newest token */
    uint64_t *last;                          /* [n_expert] when each was used last; 0: never */
    /* By time modulo RECENT_TOKENS: experts whose last use was then. */
    uint16_t newest[RECENT_TOKENS];
};

struct ttx_expert_stats {
    uint32_t n_layer, n_expert;
    struct cell *cells; /* [n_layer][PHASES] */
    struct history *histories;
    uint64_t *counts, *lasts; /* what their pointers point into */
    double *weights;
    uint32_t *togethers;
};

static inline const struct cell *layer_cell(const ttx_expert_stats *s, uint32_t layer,
                                            enum phase p) {
    return &s->cells[(size_t)layer * PHASES + p];
}

/* Of two different experts. */
static inline size_t pair_index(uint32_t a, uint32_t b) {
    uint32_t low = a < b ? a : b, high = a < b ? b : a;
    return (size_t)high * (high - 1) / 2 + low;
}

/* The sum of all layers in a phase, with storage of its own. `together` stays NULL. */
struct total {
    struct cell cell;
    uint64_t tokens; /* of the layer that saw most: a last layer may skip prompt tokens */
    uint32_t layers; /* that routed anything */
    uint64_t count[TTX_MAX_EXPERTS];
    double weight[TTX_MAX_EXPERTS];
};
void expert_stats_total(struct total *t, const ttx_expert_stats *s, enum phase p);

struct share {
    uint32_t expert;
    uint64_t count;
    double share, cumulative;
};

/* How evenly a set of counts is spread. What has no value (nothing was counted) is NAN. */
struct spread {
    uint32_t n_top;
    struct share top[TOP];
    uint32_t experts_for[SHARES]; /* the fewest that reach expert_stats_shares[i] percent */
    uint32_t frequency[FREQUENCY_BINS];
    uint32_t dead;
    double entropy; /* bits */
    double entropy_ratio, effective, effective_ratio;
};
extern const int expert_stats_shares[SHARES];
extern const double expert_stats_frequencies[FREQUENCY_BINS - 1];
void expert_stats_spread(struct spread *d, const uint64_t *count, uint32_t n_expert);

/* Entropy, its ratio, effective experts and their ratio; dead experts: a mean over the layers. */
struct layer_mean {
    double entropy, entropy_ratio, effective, effective_ratio, dead;
};
struct layer_mean expert_stats_layer_mean(const ttx_expert_stats *s, enum phase p);

/* The weight that a share q of all weights does not exceed, to 1/128 of its value. */
double expert_stats_quantile(const struct cell *c, double q);

struct pair {
    uint32_t layer, a, b; /* a < b */
    uint64_t together;
    double lift;
};
/* The pairs of layers [first, end) that meet most above chance. Returns their number, at most
 * TOP; -1 if no layer there counts pairs. */
int expert_stats_pairs(struct pair top[TOP], const ttx_expert_stats *s, enum phase p,
                       uint32_t first, uint32_t end);

/* "top-k", "hash", or "mixed" for all layers together; "none" if nothing was routed. */
const char *expert_stats_routing(const struct cell *c);

/* n / of; NAN where there is nothing to divide by. */
double expert_stats_ratio(double n, double of);

#endif
