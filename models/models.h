/* models.h -- the architectures that ttx knows. */
#ifndef TTX_MODELS_H
#define TTX_MODELS_H

#include "arch.h"

/* Every registered architecture; ends with NULL. */
extern const ttx_arch *const ttx_archs[];

#endif
