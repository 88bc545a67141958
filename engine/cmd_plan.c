/* cmd_plan.c -- ttx plan: the ordered list of the weight accesses of one decode step.
 *
 * It is a dry run of the forward pass: the same code as a real step, with nothing computed.
 */
#include "engine_args.h"

#include "models.h"

#include <cJSON.h>
#include <stdlib.h>

typedef struct settings {
    const char *model;
    bool json;
} settings;

/* NULL if memory fails: an access without one of its fields would be a wrong one. */
static cJSON *access_object(const ttx_access *a, const gguf_tensor *tensors) {
    cJSON *o = cJSON_CreateObject();
    bool outside = a->layer == TTX_NO_LAYER;
    bool ok = o && cJSON_AddStringToObject(o, "op", ttx_op_name(a->op)) &&
              (outside ? cJSON_AddNullToObject(o, "layer_id")
                       : cJSON_AddNumberToObject(o, "layer_id", a->layer)) &&
              cJSON_AddStringToObject(o, "tensor_name", tensors[a->tensor].name) &&
              cJSON_AddNumberToObject(o, "file_offset", (double)a->range.offset) &&
              cJSON_AddNumberToObject(o, "size_bytes", (double)a->range.size) &&
              cJSON_AddNumberToObject(o, "n_expert", a->n_expert) &&
              cJSON_AddNumberToObject(o, "n_expert_used", a->n_expert_used);
    if (ok) return o;
    cJSON_Delete(o);
    return NULL;
}

static int print_json(const ttx_plan *p, const gguf_tensor *tensors, ttx_err *err) {
    cJSON *list = cJSON_CreateArray();
    bool ok = list;
    for (size_t i = 0; ok && i < p->n; i++) {
        cJSON *o = access_object(&p->v[i], tensors);
        ok = o && cJSON_AddItemToArray(list, o);
    }
    char *text = ok ? cJSON_Print(list) : NULL;
    cJSON_Delete(list);
    if (!text) return ttx_fail_nomem(err, "plan as JSON", p->n * 200);
    puts(text);
    free(text);
    return TTX_OK;
}

static void print_table(const ttx_plan *p, const gguf_tensor *tensors) {
    uint64_t sum = 0;
    printf("%-12s %5s  %-40s %14s %12s %9s\n", "op", "layer", "tensor", "file offset", "bytes",
           "experts");
    for (size_t i = 0; i < p->n; i++) {
        const ttx_access *a = &p->v[i];
        char layer[8] = "-", experts[24] = "-";
        if (a->layer != TTX_NO_LAYER) snprintf(layer, sizeof layer, "%u", a->layer);
        if (a->n_expert)
            snprintf(experts, sizeof experts, "%u of %u", a->n_expert_used, a->n_expert);
        printf("%-12s %5s  %-40s %14llu %12llu %9s\n", ttx_op_name(a->op), layer,
               tensors[a->tensor].name, (unsigned long long)a->range.offset,
               (unsigned long long)a->range.size, experts);
        sum += a->n_expert ? a->range.size / a->n_expert * a->n_expert_used : a->range.size;
    }
    printf("%zu accesses, %llu bytes a token\n", p->n, (unsigned long long)sum);
}

static int run(const void *arg, ttx_err *err) {
    const settings *set = arg;
    gguf_file *file = NULL;
    ttx_model *model = NULL;
    ttx_plan plan = {0};
    int rc = gguf_open(&file, set->model, err);
    if (!rc) rc = ttx_model_load(&model, file, ttx_archs, err);
    if (!rc) rc = ttx_plan_decode(model, &plan, err);
    if (!rc && set->json) rc = print_json(&plan, gguf_tensors(file), err);
    if (!rc && !set->json) print_table(&plan, gguf_tensors(file));
    ttx_plan_free(&plan);
    ttx_model_free(model);
    gguf_close(file);
    return rc;
}

static void defaults(void *arg) {
    (void)arg; /* all zeros */
}

static const ttx_opt options[] = {
    {"-m, --model", OPT_STR, offsetof(settings, model), "FILE", "GGUF model, or any shard of one",
     .required = true},
    {"--json", OPT_FLAG, offsetof(settings, json), .help = "print a JSON array of objects"},
    {.kind = OPT_END},
};

const ttx_command ttx_cmd_plan = {
    .name = "plan",
    .summary = "list the weight bytes that one token touches, in order",
    .usage = "ttx plan -m FILE [--json]",
    .about =
        "Runs the forward pass of one decode step without computing anything and prints every\n"
        "access to the model file: operation, layer, tensor, absolute file offset and size.\n"
        "Of an embedding only one row is read (its offset depends on the token: the tensor's\n"
        "is shown). Of an expert tensor the whole range is shown with how many experts a token\n"
        "uses.",
    .examples = "  # what does a token cost?\n  ttx plan -m model.gguf | tail -1",
    .options = options,
    .settings_size = sizeof(settings),
    .defaults = defaults,
    .run = run,
};
