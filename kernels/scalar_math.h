/* scalar_math.h -- exp, sigmoid and tanh of the scalar kernels.
 *
 * Own functions, because libm picks another variant on each CPU and the bits of a level must not
 * depend on the machine. Everything is computed in double to about 1e-11, so a result that is
 * rounded to F32 is the correctly rounded one but for about one argument in ten thousand.
 */
#ifndef TTX_SCALAR_MATH_H
#define TTX_SCALAR_MATH_H

#include <stdint.h>
#include <string.h>

/* e^x for any x that a float can hold; 0 and inf where F32 would underflow and overflow. */
static inline double ttx_exp(double x) {
    if (x != x) return x;
    if (x < -150.0) return 0.0;
    if (x > 150.0) return (double)__builtin_inff();
    double n = (double)(int)(x * 1.4426950408889634 + (x < 0 ? -0.5 : 0.5));
    double r = x - n * 0.6931471805599453; /* |r| <= 0.35 */
    double p = 1.0;                        /* Horner form of the Taylor series up to r^11 */
    for (int i = 11; i > 0; i--) p = 1.0 + p * r / i;
    int64_t bits = (int64_t)(n + 1023.0) * ((int64_t)1 << 52);
    double two_n;
    memcpy(&two_n, &bits, sizeof two_n);
    return p * two_n;
}

/* x * 1 / (1 + e^-t), without inf * 0. */
static inline float ttx_sigmoid_mul(double x, double t) {
    if (t < -150.0) return x < 0 ? -0.0f : 0.0f;
    return (float)(x / (1.0 + ttx_exp(-t)));
}

static inline double ttx_tanh(double x) {
    double x2 = x * x;
    if (x2 < 0.0004) return x * (1.0 - x2 * (1.0 / 3 - x2 * (2.0 / 15)));
    double e = ttx_exp(-2.0 * (x < 0 ? -x : x)), y = (1.0 - e) / (1.0 + e);
    return x < 0 ? -y : y;
}

#endif
