/* What the coordinator's thread is doing, as other threads see it: since when its turn has lasted, and which script has
 * been running since when. One writer; every field is an atomic, so that a reader may look at any moment. A text that
 * is read while it changes may be a mixture of two; it only goes into messages. */
#ifndef SLUICE_CORE_CONTROL_HEARTBEAT_H
#define SLUICE_CORE_CONTROL_HEARTBEAT_H

#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

#define HEARTBEAT_TEXT_SIZE 80u /* a multiple of eight */

struct heartbeat {
    _Atomic uint64_t turn_ms;  /* the monotonic clock when the turn began; 0: the thread waits */
    _Atomic uint64_t entry_ms; /* when Lua was entered; 0: no Lua runs */
    _Atomic uint64_t text[HEARTBEAT_TEXT_SIZE / sizeof(uint64_t)];
    char written[HEARTBEAT_TEXT_SIZE]; /* the writer's: what `text` says */
};

struct heartbeat_reading {
    uint64_t turn_ms, entry_ms;     /* as above */
    char text[HEARTBEAT_TEXT_SIZE]; /* the script that is running, or ran last */
};

static inline void heartbeat_set(_Atomic uint64_t *field, uint64_t value)
{
    atomic_store_explicit(field, value, memory_order_relaxed);
}

/* who  a short text, such as `the ruleset`; what does not fit is left out. */
static inline void heartbeat_enter(struct heartbeat *h, const char *who, uint64_t now_ms)
{
    heartbeat_set(&h->entry_ms, now_ms);
    if (strncmp(h->written, who, HEARTBEAT_TEXT_SIZE - 1) == 0) return;
    uint64_t words[HEARTBEAT_TEXT_SIZE / sizeof(uint64_t)];
    memset(h->written, 0, sizeof h->written);
    memcpy(h->written, who, strnlen(who, HEARTBEAT_TEXT_SIZE - 1));
    memcpy(words, h->written, sizeof words);
    for (unsigned i = 0; i < sizeof words / sizeof *words; i++) heartbeat_set(&h->text[i], words[i]);
}

static inline void heartbeat_leave(struct heartbeat *h)
{
    heartbeat_set(&h->entry_ms, 0);
}

static inline struct heartbeat_reading heartbeat_read(const struct heartbeat *h)
{
    struct heartbeat_reading reading = {.turn_ms = atomic_load_explicit(&h->turn_ms, memory_order_relaxed),
                                        .entry_ms = atomic_load_explicit(&h->entry_ms, memory_order_relaxed)};
    uint64_t words[HEARTBEAT_TEXT_SIZE / sizeof(uint64_t)];
    for (unsigned i = 0; i < sizeof words / sizeof *words; i++)
        words[i] = atomic_load_explicit(&h->text[i], memory_order_relaxed);
    memcpy(reading.text, words, sizeof words);
    reading.text[HEARTBEAT_TEXT_SIZE - 1] = '\0';
    return reading;
}

#endif
