/* policy_guess.h -- which experts the coming layers will probably use, before their routers have
 * run.
 *
 * Learns from what routers choose. The best predictor, the coming layer's router asked with the
 * state that it will probably see, needs the engine: for TTX_GUESS_ROUTER this file only keeps
 * count. Guesses that are seldom right are worse than none, since they take the disk's time and an
 * expert's place, and guesses where nothing has to be read are wasted work: a judge counts them,
 * and stops them for a while.
 */
#ifndef TTX_POLICY_GUESS_H
#define TTX_POLICY_GUESS_H

#include "err.h"

#include <stdbool.h>
#include <stdint.h>

typedef enum ttx_guess_kind {
    TTX_GUESS_ROUTER,    /* what the routers of the coming layers say */
    TTX_GUESS_PREVIOUS,  /* what the previous token used in that layer */
    TTX_GUESS_FREQUENCY, /* what is used most often there, of late */
    TTX_GUESS_SUCCESSOR, /* what most often followed the experts of this layer */
    TTX_GUESS_KINDS
} ttx_guess_kind;

#define TTX_GUESS_NAMES "router|previous|frequency|successor"

/* Fewer than half of TTX_GUESS_JUDGED right, or than two thirds while more than two thirds of the
 * time are spent waiting (a disk that never rests has no time for wrong ones): none for
 * TTX_GUESS_PAUSE steps. Then another chance, since texts change. None either as long as fewer than
 * TTX_GUESS_RARE experts are read in so many steps. */
enum { TTX_GUESS_JUDGED = 128, TTX_GUESS_PAUSE = 64, TTX_GUESS_RARE = 16, TTX_GUESS_MOST = 32 };

typedef struct ttx_guesser {
    ttx_guess_kind kind;
    uint32_t n_layer, n_expert;
    float *often;    /* FREQUENCY: [n_layer][n_expert] decayed uses */
    uint8_t *follow; /* SUCCESSOR: [n_layer][n_expert][n_expert] how often b in the layer after a */
    struct ttx_guess_layer {
        uint16_t expert[TTX_GUESS_MOST]; /* chosen last in this layer, best first */
        int n;
        uint64_t step; /* when */
    } * last;          /* [n_layer]; n 0: a layer without experts, or not yet seen */
    uint64_t step;
    uint32_t before; /* the layer that chose before the present one; n_layer: none */
    uint32_t layer;  /* that chose last */
    uint32_t judged, judged_right;
    uint64_t judged_ns, judged_waited_ns; /* time, and time waited, when the last were judged */
    uint64_t again;                       /* no guesses before this step */
    uint32_t reads;                       /* experts read in the present TTX_GUESS_PAUSE steps */
    bool rare;                            /* too few in those before */
} ttx_guesser;

/* Errors: TTX_E_RUNTIME (no memory). */
int ttx_guesser_open(ttx_guesser *g, ttx_guess_kind kind, uint32_t n_layer, uint32_t n_expert,
                     ttx_err *err);
void ttx_guesser_close(ttx_guesser *g); /* one that is all zeros is fine */

void ttx_guesser_step(ttx_guesser *g);
/* The router of a layer chose this expert; the best one is told first. */
void ttx_guesser_chose(ttx_guesser *g, uint32_t layer, uint32_t expert);
/* Experts that the next layer with experts (after the last one: the first) will probably use, most
 * likely first, and that layer. Returns how many, at most TTX_GUESS_MOST; always 0 of ROUTER. */
int ttx_guesser_guess(ttx_guesser *g, uint32_t *layer, uint16_t expert[TTX_GUESS_MOST]);

/* The judge. */
void ttx_guesser_read(ttx_guesser *g); /* an expert is being read, guessed or not */
/* The router of an expert that was read because of a guess has run, and has chosen it or not. */
void ttx_guesser_settle(ttx_guesser *g, bool right);
/* Whether guessing is worth it now; the time, and how much of it was spent waiting for reads. */
bool ttx_guesser_pays(ttx_guesser *g, uint64_t now_ns, uint64_t waited_ns);

#endif
