#include "api/recorder.h"

#include <stdlib.h>

#include "api/history.h"

#define SECOND_MS 1000u

struct recorder {
    struct waiter waiter; /* first: it is found by it */
    struct api_parts *parts;
    struct history history;
    struct snapshot now;
};

static void recorder_rest(struct recorder *r)
{
    struct coordinator *c = r->parts->coordinator;
    coordinator_set_deadline(c, &r->waiter, coordinator_now_ms(c) + SECOND_MS);
}

static void recorder_on_time(struct waiter *waiter)
{
    struct recorder *r = (struct recorder *)waiter;
    struct api_parts *parts = r->parts;
    snapshot_take(&r->now, parts->coordinator, parts->engine, &parts->counters, parts->started);
    history_add(&r->history, &r->now);
    recorder_rest(r);
}

static void recorder_on_completion(struct waiter *waiter, unsigned op, const struct ring_completion *completion)
{
    (void)waiter, (void)op, (void)completion;
    assert(0 && "it waits for time alone");
}

struct recorder *recorder_open(struct api_parts *parts)
{
    struct recorder *r = calloc(1, sizeof *r);
    if (!r) return NULL;
    r->waiter = (struct waiter){.on_completion = recorder_on_completion, .on_time = recorder_on_time};
    r->parts = parts;
    history_init(&r->history);
    if (!coordinator_attach(parts->coordinator, &r->waiter)) {
        free(r);
        return NULL;
    }
    parts->history = &r->history;
    recorder_rest(r);
    return r;
}

void recorder_close(struct recorder *r)
{
    if (!r) return;
    coordinator_detach(r->parts->coordinator, &r->waiter);
    r->parts->history = NULL;
    free(r);
}
