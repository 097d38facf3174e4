#include "tests/sim_actor.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#define CHUNK_MAX 131072u

/* All streams are cut from the same octets. The period is a prime, so that what arrives in the wrong place shows. */
static uint8_t octets[ACTOR_OCTETS + CHUNK_MAX];

void actor_prepare_octets(void)
{
    uint64_t state = 1;
    if (octets[0] != 0) return;
    for (uint32_t i = 0; i < ACTOR_OCTETS; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        octets[i] = (uint8_t)(state >> 56 | 1);
    }
    for (uint32_t i = ACTOR_OCTETS; i < sizeof octets; i++) octets[i] = octets[i - ACTOR_OCTETS];
}

static const uint8_t *octets_at(uint32_t base, uint32_t position)
{
    return octets + (base + position) % ACTOR_OCTETS;
}

/* --- its plan, and its words --- */

void actor_plan_pace(struct actor *a, bool calm)
{
    static const uint32_t chunks[] = {1, 7, 100, 1460, 4096, 16384, CHUNK_MAX};
    uint32_t larger = a->to_send > a->to_receive ? a->to_send : a->to_receive;
    if (a->say_size > larger) larger = a->say_size;
    uint32_t floor = larger / 40 + 1; /* nobody is so slow that a seed takes for ever */
    a->chunk = chunks[sim_below(7)];
    a->gulp = chunks[sim_below(7)];
    if (a->chunk < floor) a->chunk = sim_least(floor, CHUNK_MAX);
    if (a->gulp < floor) a->gulp = sim_least(floor, CHUNK_MAX);
    if (sim_chance(300)) a->pause_us = sim_chance(700) || calm ? 3000 : 400000;
    a->nap_us = sim_chance(100) ? sim_between(1000000, 20000000) : 0;
    a->nap_at = sim_below(a->to_send + a->to_receive + 1);
}

void actor_say(struct actor *a, const void *data, size_t size)
{
    assert(a->say_size + size <= SAY_MAX);
    memcpy(a->say + a->say_size, data, size);
    a->say_size += (uint32_t)size;
}

void actor_remember(struct actor *a, const uint8_t *data, uint32_t size)
{
    assert(a->heard_size + size <= SAY_MAX);
    memcpy(a->heard + a->heard_size, data, size);
    a->heard_size += size;
}

void actor_forget(struct actor *a, size_t size)
{
    a->heard_size -= (uint32_t)size;
    memmove(a->heard, a->heard + size, a->heard_size);
}

/* --- what it does --- */

static void actor_lose(struct actor *a)
{
    a->saw_reset = a->gone = true;
    if (!a->conn->far_closed) sim_reset(a->conn, ECONNRESET);
}

void actor_leave(struct actor *a)
{
    a->gone = true;
    if (sim_close(a->conn)) a->ended = true;
}

static bool actor_fault(struct actor *a)
{
    if (a->fault == FAULT_NONE || a->moved < a->fault_at) return false;
    switch ((enum fault)a->fault) {
    case FAULT_RESET:
        sim_reset(a->conn, sim_chance(800) ? ECONNRESET : ETIMEDOUT);
        a->gone = true;
        break;
    case FAULT_CLOSE: actor_leave(a); break;
    case FAULT_SILENT: a->quiet = true; break;
    case FAULT_DEAF: a->deaf = true; break;
    case FAULT_NONE: break;
    }
    a->fault = FAULT_NONE;
    return true;
}

static bool actor_speak(struct actor *a)
{
    bool words = a->say_sent < a->say_limit;
    if (a->ended) return false;
    if (!words && (!a->sends_stream || a->say_sent < a->say_size || a->sent == a->to_send)) return false;
    uint32_t left = words ? a->say_limit - a->say_sent : a->to_send - a->sent;
    const uint8_t *data = words ? a->say + a->say_sent : octets_at(a->out_base, a->sent);
    uint32_t size = (uint32_t)sim_write(a->conn, data, sim_least(left, a->chunk));
    if (words)
        a->say_sent += size;
    else
        a->sent += size;
    a->moved += size;
    return size > 0;
}

void actor_check(struct actor *a, const uint8_t *data, uint32_t size, const char *who, uint32_t index)
{
    if (a->received + size > a->to_receive)
        sim_fail("the %s of tunnel %u received more than was sent: %u of %u octets", who, index, a->received + size,
                 a->to_receive);
    for (uint32_t done = 0; done < size;) {
        uint32_t part = sim_least(size - done, CHUNK_MAX);
        if (memcmp(data + done, octets_at(a->in_base, a->received + done), part) != 0)
            sim_fail("the %s of tunnel %u received wrong octets between %u and %u", who, index, a->received + done,
                     a->received + done + part);
        done += part;
    }
    a->received += size;
}

static bool actor_finish(struct actor *a)
{
    bool all_sent = a->sends_stream && a->say_sent == a->say_size && a->sent == a->to_send;
    if (a->ended && a->saw_end) {
        sim_close(a->conn);
        a->gone = true;
        return true;
    }
    if (!all_sent || a->ended) return false;
    if (a->manner == END_CLOSE && a->received == a->to_receive && a->reads_stream) {
        actor_leave(a);
        return true;
    }
    if (a->manner == END_FIRST || a->saw_end) {
        sim_end(a->conn);
        a->ended = true;
        return true;
    }
    return false;
}

static bool actor_listen(struct actor *a, actor_hears *hears, void *self)
{
    static uint8_t data[CHUNK_MAX];
    if (a->saw_end || a->deaf) return false;
    int32_t size = sim_read(a->conn, data, a->gulp);
    if (size == -EAGAIN) return false;
    if (size < 0) {
        actor_lose(a);
        return true;
    }
    if (size == 0) {
        a->saw_end = true;
        return true;
    }
    a->moved += (uint32_t)size;
    hears(self, data, (uint32_t)size);
    return true;
}

bool actor_act(struct actor *a, actor_hears *hears, void *self, uint64_t *wake_us)
{
    if (a->gone) return false;
    if (a->awake_us > sim_now_us()) {
        if (a->awake_us < *wake_us) *wake_us = a->awake_us;
        return false;
    }
    if (a->quiet) return false;
    if (a->nap_us > 0 && a->received > 0 && a->moved >= a->nap_at) { /* what it says must not be late */
        a->awake_us = sim_now_us() + a->nap_us;
        a->nap_us = 0;
        return true;
    }
    bool moved = actor_fault(a);
    if (a->gone || a->quiet) return true;
    moved |= actor_speak(a);
    moved |= actor_listen(a, hears, self);
    if (!a->gone) moved |= actor_finish(a);
    if (moved && a->pause_us > 0 && sim_chance(300)) a->awake_us = sim_now_us() + sim_below(a->pause_us);
    return moved;
}
