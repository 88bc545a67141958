/* runtime.c -- see runtime.h. */
#include "runtime.h"

#include "kernels.h"

#include <stdlib.h>

ttx_runtime_settings ttx_runtime_default_settings(void) {
    return (ttx_runtime_settings){.isa = -1, .residency = ttx_residency_default_settings()};
}

int ttx_runtime_open_residency(ttx_runtime *rt, const gguf_file *file,
                               const ttx_residency_settings *settings, ttx_err *err) {
    uint32_t n = gguf_n_shards(file);
    ttx_source *sources = calloc(n, sizeof *sources);
    if (!sources) return ttx_fail_nomem(err, "shard table", n * sizeof *sources);
    for (uint32_t i = 0; i < n; i++) {
        const gguf_shard *s = gguf_get_shard(file, i);
        sources[i] = (ttx_source){s->path, s->fd, s->map, s->size, s->data_offset};
    }
    int rc = ttx_residency_open(&rt->residency, sources, n, settings, err);
    free(sources);
    return rc;
}

int ttx_runtime_open(ttx_runtime *rt, const gguf_file *file, const ttx_runtime_settings *settings,
                     ttx_err *err) {
    *rt = (ttx_runtime){.isa = settings->isa < 0 ? ttx_isa_detect() : (ttx_isa)settings->isa};
    int rc = TTX_OK;
    rt->kernels = calloc(1, sizeof *rt->kernels);
    if (!rt->kernels) {
        rc = ttx_fail_nomem(err, "kernel table", sizeof *rt->kernels);
        goto error;
    }
    int n_threads = settings->n_threads > 0 ? settings->n_threads : ttx_cpu_count();
    if ((rc = ttx_kernels_init(rt->kernels, rt->isa, err))) goto error;
    if ((rc = ttx_pool_create(&rt->pool, n_threads, err))) goto error;
    if (!settings->no_residency)
        rc = ttx_runtime_open_residency(rt, file, &settings->residency, err);
    if (rc) goto error;
    return TTX_OK;
error:
    ttx_runtime_close(rt);
    return rc;
}

void ttx_runtime_close(ttx_runtime *rt) {
    ttx_residency_close(rt->residency);
    ttx_pool_destroy(rt->pool);
    free(rt->kernels);
    *rt = (ttx_runtime){0};
}
