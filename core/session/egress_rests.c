#include "core/session/egress_rests.h"

#include <string.h>

#include "core/io/hash.h"

static uint64_t hash_of(const struct host_port *host)
{
    return hash_plain(HASH_START + host->kind, host->octets, sizeof host->octets);
}

static bool is_of(const struct egress_rest *place, const struct host_port *source)
{
    return place->source.kind == source->kind &&
           memcmp(place->source.octets, source->octets, sizeof source->octets) == 0;
}

static unsigned place_of(const struct host_port *source)
{
    return hash_fold(hash_of(source)) % EGRESS_REST_PLACES;
}

/* Its place, taken from whoever had it. */
static struct egress_rest *take_place(struct egress_rests *rests, const struct host_port *source)
{
    struct egress_rest *place = &rests->places[place_of(source)];
    if (!is_of(place, source)) *place = (struct egress_rest){.source = *source};
    return place;
}

bool egress_rests(const struct egress_rests *rests, const struct host_port *source, uint64_t now_ms)
{
    const struct egress_rest *place = &rests->places[place_of(source)];
    return is_of(place, source) && now_ms < place->until_ms;
}

bool egress_rests_begin(struct egress_rests *rests, const struct host_port *source, uint64_t now_ms)
{
    struct egress_rest *place = take_place(rests, source);
    bool rested = now_ms < place->until_ms;
    place->timeouts = 0;
    if (!rested) place->until_ms = now_ms + EGRESS_REST_MS;
    return !rested;
}

bool egress_rests_note_timeout(struct egress_rests *rests, const struct host_port *source,
                               const struct host_port *target, uint64_t now_ms)
{
    struct egress_rest *place = take_place(rests, source);
    uint64_t hash = hash_plain(hash_of(target), &target->port, sizeof target->port);
    if (place->timeouts > 0 && place->target == hash) return false; /* one target may be dead */
    place->target = hash;
    return ++place->timeouts >= EGRESS_TIMEOUTS_MAX && egress_rests_begin(rests, source, now_ms);
}

void egress_rests_note_answer(struct egress_rests *rests, const struct host_port *source)
{
    struct egress_rest *place = &rests->places[place_of(source)];
    if (!is_of(place, source)) return;
    place->timeouts = 0;
    place->until_ms = 0;
}
