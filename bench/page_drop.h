/* page_drop.h -- takes a file out of the page cache. */
#ifndef PAGE_DROP_H
#define PAGE_DROP_H

#include "err.h"

/* *left: the share of the file that is in the page cache all the same (pages that others have
 * mapped stay). Errors: TTX_E_RUNTIME (cannot be opened or mapped). */
int page_drop(const char *path, double *left, ttx_err *err);

#endif
