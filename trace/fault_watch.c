/* fault_watch.c -- see fault_watch.h. Source: perf_event_open(2). */
#include "fault_watch.h"

#include <dirent.h>
#include <errno.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum {
    PAGE = 4096,
    MOST_PAGES = FAULT_WATCH_BYTES / PAGE - 1,
    FEWEST_PAGES = 4,
    MAX_THREADS = 1024
};

/* A thread's samples. */
struct ring {
    int minor, major; /* file descriptors; samples of both go to `major`'s memory */
    uint64_t major_id;
    uint8_t *mem; /* a control page, then `bytes` of samples */
    size_t bytes;
};

struct fault_watch {
    struct ring *rings;
    int n, unwatched;
    uint64_t lost;
};

/* A sample as the kernel writes it, for the fields that are asked for. */
struct sample {
    struct perf_event_header head;
    uint64_t id;
    uint32_t pid, tid;
    uint64_t time, address;
};

struct lost {
    struct perf_event_header head;
    uint64_t id, lost;
};

static int open_event(uint64_t config, pid_t tid, bool user_only) {
    struct perf_event_attr a = {
        .type = PERF_TYPE_SOFTWARE,
        .size = sizeof a,
        .config = config,
        .sample_period = 1,
        .sample_type =
            PERF_SAMPLE_IDENTIFIER | PERF_SAMPLE_TID | PERF_SAMPLE_TIME | PERF_SAMPLE_ADDR,
        .exclude_kernel = user_only,
        .exclude_hv = 1,
        .use_clockid = 1,
        .clockid = CLOCK_MONOTONIC,
        .watermark = 1,
        .wakeup_watermark = UINT32_MAX, /* nobody waits for it */
    };
    return (int)syscall(SYS_perf_event_open, &a, tid, -1, -1, PERF_FLAG_FD_CLOEXEC);
}

static void close_ring(struct ring *r) {
    int e = errno;
    if (r->mem) munmap(r->mem, PAGE + r->bytes);
    if (r->minor >= 0) close(r->minor);
    if (r->major >= 0) close(r->major);
    errno = e;
}

static bool open_ring(struct ring *r, pid_t tid) {
    bool user_only = false;
    *r = (struct ring){.minor = -1};
    r->major = open_event(PERF_COUNT_SW_PAGE_FAULTS_MAJ, tid, user_only);
    if (r->major < 0) { /* faults inside of system calls are not ours to see */
        user_only = true;
        r->major = open_event(PERF_COUNT_SW_PAGE_FAULTS_MAJ, tid, user_only);
    }
    if (r->major < 0) return false;
    r->minor = open_event(PERF_COUNT_SW_PAGE_FAULTS_MIN, tid, user_only);
    for (size_t pages = MOST_PAGES; pages >= FEWEST_PAGES && !r->mem; pages /= 2) {
        r->bytes = pages * PAGE;
        void *p = mmap(NULL, PAGE + r->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, r->major, 0);
        if (p != MAP_FAILED) r->mem = p;
    }
    bool ok = r->minor >= 0 && r->mem &&
              ioctl(r->minor, PERF_EVENT_IOC_SET_OUTPUT, r->major) == 0 &&
              ioctl(r->major, PERF_EVENT_IOC_ID, &r->major_id) == 0;
    if (!ok) close_ring(r);
    return ok;
}

fault_watch *fault_watch_open(char why[160]) {
    fault_watch *w = calloc(1, sizeof *w);
    DIR *d = opendir("/proc/self/task");
    int refused = 0;
    if (w) w->rings = calloc(MAX_THREADS, sizeof *w->rings);
    for (struct dirent *e; w && w->rings && d && (e = readdir(d));) {
        pid_t tid = (pid_t)strtol(e->d_name, NULL, 10);
        if (tid <= 0) continue;
        if (w->n < MAX_THREADS && open_ring(&w->rings[w->n], tid)) {
            w->n++;
        } else {
            refused = errno;
            w->unwatched++;
        }
    }
    if (d) closedir(d);
    if (w && w->n) return w;
    snprintf(why, 160, "perf_event_open: %s (perf_event_paranoid must be 2 or less)",
             strerror(refused ? refused : ENOMEM));
    fault_watch_close(w);
    return NULL;
}

void fault_watch_close(fault_watch *w) {
    if (!w) return;
    for (int i = 0; i < w->n; i++) close_ring(&w->rings[i]);
    free(w->rings);
    free(w);
}

static bool push(fault_sample **v, size_t *n, size_t *cap, fault_sample s) {
    if (*n == *cap) {
        size_t more = *cap ? 2 * *cap : 4096;
        fault_sample *p = realloc(*v, more * sizeof *p);
        if (!p) return false;
        *v = p;
        *cap = more;
    }
    (*v)[(*n)++] = s;
    return true;
}

/* n bytes of the ring from position `at`, which may go over its end. */
static void read_ring(const struct ring *r, uint64_t at, void *to, size_t n) {
    size_t from = at % r->bytes, first = n < r->bytes - from ? n : r->bytes - from;
    memcpy(to, r->mem + PAGE + from, first);
    memcpy((char *)to + first, r->mem + PAGE, n - first);
}

bool fault_watch_take(fault_watch *w, fault_sample **v, size_t *n, size_t *cap) {
    bool ok = true;
    for (int i = 0; i < w->n; i++) {
        struct ring *r = &w->rings[i];
        struct perf_event_mmap_page *control = (void *)r->mem;
        uint64_t head = __atomic_load_n(&control->data_head, __ATOMIC_ACQUIRE);
        uint64_t tail = control->data_tail;
        while (tail < head) {
            struct perf_event_header h;
            read_ring(r, tail, &h, sizeof h);
            if (h.size < sizeof h) break; /* not as documented: nothing more can be read */
            if (h.type == PERF_RECORD_SAMPLE && h.size >= sizeof(struct sample)) {
                struct sample s;
                read_ring(r, tail, &s, sizeof s);
                fault_sample f = {s.time, s.address, s.id == r->major_id};
                if (!push(v, n, cap, f)) {
                    w->lost++;
                    ok = false;
                }
            } else if (h.type == PERF_RECORD_LOST && h.size >= sizeof(struct lost)) {
                struct lost l;
                read_ring(r, tail, &l, sizeof l);
                w->lost += l.lost;
            }
            tail += h.size;
        }
        __atomic_store_n(&control->data_tail, head, __ATOMIC_RELEASE);
    }
    return ok;
}

uint64_t fault_watch_lost(const fault_watch *w) {
    return w->lost;
}

int fault_watch_unwatched(const fault_watch *w) {
    return w->unwatched;
}
