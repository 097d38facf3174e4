#include "api/history.h"

#include <jansson.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define SLOT_SECONDS   5.0
#define MINUTE_SECONDS 60.0

void history_init(struct history *h)
{
    memset(h, 0, sizeof *h);
    h->seconds = (struct history_ring){.all = h->second_samples, .room = HISTORY_SECONDS};
    h->minutes = (struct history_ring){.all = h->minute_samples, .room = HISTORY_MINUTES};
}

/* --- latencies --- */

static struct history_latency summarize(const struct histogram_sum *sum)
{
    return (struct history_latency){.count = sum->count,
                                    .p50 = (float)((double)histogram_quantile(sum, 0.5) * 1e-6),
                                    .p90 = (float)((double)histogram_quantile(sum, 0.9) * 1e-6),
                                    .p99 = (float)((double)histogram_quantile(sum, 0.99) * 1e-6),
                                    .max = (float)((double)sum->max_us * 1e-6)};
}

/* The slot that a minute ago was the newest; the oldest one if all are younger. NULL: there is none. */
static const struct history_slot *slot_before(const struct history *h, double uptime)
{
    const struct history_slot *best = NULL;
    for (uint32_t i = 0; i < h->slot_count; i++) {
        const struct history_slot *slot = &h->slots[i];
        if (slot->uptime <= uptime && (!best || slot->uptime > best->uptime)) best = slot;
    }
    return best;
}

void history_last_minute(const struct history *h, const struct snapshot *now, struct histogram_sum *connect,
                         struct histogram_sum *decision)
{
    const struct history_slot *before = slot_before(h, now->uptime - MINUTE_SECONDS);
    *connect = now->connect;
    *decision = now->decision;
    if (!before) return;
    histogram_subtract(connect, &before->connect);
    histogram_subtract(decision, &before->decision);
}

static void keep_slot(struct history *h, const struct snapshot *now)
{
    const struct history_slot *newest = &h->slots[(h->slot_next + HISTORY_SLOTS - 1) % HISTORY_SLOTS];
    if (h->slot_count > 0 && now->uptime - newest->uptime < SLOT_SECONDS) return;
    h->slots[h->slot_next] =
        (struct history_slot){.uptime = now->uptime, .connect = now->connect, .decision = now->decision};
    h->slot_next = (h->slot_next + 1) % HISTORY_SLOTS;
    if (h->slot_count < HISTORY_SLOTS) h->slot_count++;
}

/* --- samples --- */

static void ring_add(struct history_ring *ring, const struct history_sample *sample)
{
    ring->all[ring->next] = *sample;
    ring->next = (ring->next + 1) % ring->room;
    if (ring->count < ring->room) ring->count++;
}

void history_add(struct history *h, const struct snapshot *now)
{
    struct histogram_sum connect, decision;
    keep_slot(h, now);
    history_last_minute(h, now, &connect, &decision);
    struct history_sample sample = {.uptime = now->uptime,
                                    .bytes_up = now->bytes_up,
                                    .bytes_down = now->bytes_down,
                                    .bytes_copy = now->bytes_copy,
                                    .bytes_splice = now->bytes_splice,
                                    .accepted = now->accepted,
                                    .requests = now->requests,
                                    .successes = now->successes,
                                    .active = (uint32_t)now->active,
                                    .half_open = (uint32_t)now->half_open,
                                    .revision = now->revision,
                                    .connect = summarize(&connect),
                                    .decision = summarize(&decision)};
    for (enum failure i = FAIL_NONE + 1; i < FAIL_COUNT; i++) /* who was served first is in `successes` */
        if (!failure_is_cut(i)) sample.failures += now->failures[i];
    ring_add(&h->seconds, &sample);
    if (now->uptime < h->minute_end) return;
    ring_add(&h->minutes, &sample);
    h->minute_end = now->uptime + MINUTE_SECONDS;
}

/* --- JSON --- */

enum column_kind { COLUMN_DOUBLE, COLUMN_U64, COLUMN_U32, COLUMN_LATENCY };

static const struct column {
    const char *name;
    enum column_kind kind;
    size_t at;    /* of struct history_sample */
    size_t count; /* of what says whether a latency was measured */
} columns[] = {
#define PLAIN(kind, name)                                                                                              \
    {                                                                                                                  \
#name, kind, offsetof(struct history_sample, name), 0                                                          \
    }
#define LATENCY(what, name)                                                                                            \
    {                                                                                                                  \
#what "_" #name, COLUMN_LATENCY, offsetof(struct history_sample, what.name),                                   \
            offsetof(struct history_sample, what.count)                                                                \
    }
    PLAIN(COLUMN_DOUBLE, uptime),  PLAIN(COLUMN_U64, bytes_up),     PLAIN(COLUMN_U64, bytes_down),
    PLAIN(COLUMN_U64, bytes_copy), PLAIN(COLUMN_U64, bytes_splice), PLAIN(COLUMN_U64, accepted),
    PLAIN(COLUMN_U64, requests),   PLAIN(COLUMN_U64, successes),    PLAIN(COLUMN_U64, failures),
    PLAIN(COLUMN_U32, active),     PLAIN(COLUMN_U32, half_open),    PLAIN(COLUMN_U32, revision),
    LATENCY(connect, p50),         LATENCY(connect, p90),           LATENCY(connect, p99),
    LATENCY(decision, p50),        LATENCY(decision, p90),          LATENCY(decision, p99),
};

/* To the microsecond, so that the text stays short. */
static json_t *rounded(double value)
{
    return json_real(round(value * 1e6) / 1e6);
}

static json_t *value_json(const struct history_sample *sample, const struct column *column)
{
    const char *base = (const char *)sample, *place = base + column->at;
    switch (column->kind) {
    case COLUMN_DOUBLE: return rounded(*(const double *)(const void *)place);
    case COLUMN_U64: return json_integer((json_int_t) * (const uint64_t *)(const void *)place);
    case COLUMN_U32: return json_integer((json_int_t) * (const uint32_t *)(const void *)place);
    case COLUMN_LATENCY: break;
    }
    if (*(const uint64_t *)(const void *)(base + column->count) == 0) return json_null();
    return rounded((double)*(const float *)(const void *)place);
}

static json_t *ring_json(const struct history_ring *ring)
{
    json_t *all = json_object();
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) {
        json_t *values = json_array();
        for (uint32_t j = 0; j < ring->count; j++) {
            uint32_t at = (ring->next + ring->room - ring->count + j) % ring->room;
            json_array_append_new(values, value_json(&ring->all[at], &columns[i]));
        }
        json_object_set_new(all, columns[i].name, values);
    }
    return all;
}

void history_write_json(const struct history *h, const struct snapshot *now, struct text *out)
{
    json_t *all = json_pack("{s:f, s:f, s:o, s:o}", "time", now->time, "uptime", now->uptime, "seconds",
                            ring_json(&h->seconds), "minutes", ring_json(&h->minutes));
    text_add_json(out, all, 13);
}
