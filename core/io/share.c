#include "core/io/share.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/io/pool.h"

int share_open(struct share *share, uint32_t count)
{
    *share = (struct share){.count = count, .holders = calloc(count, sizeof(struct share_source))};
    return share->holders ? 0 : -ENOMEM;
}

void share_close(struct share *share)
{
    free(share->holders);
    *share = (struct share){0};
}

struct share_source share_source_of(const struct host_port *client)
{
    struct share_source source = {.size = 0};
    if (client->kind == ADDRESS_IPV4) source.size = 4;
    if (client->kind == ADDRESS_IPV6) source.size = sizeof source.octets;
    memcpy(source.octets, client->octets, source.size);
    return source;
}

static bool share_is_same(const struct share_source *a, const struct share_source *b)
{
    return a->size == b->size && memcmp(a->octets, b->octets, sizeof a->octets) == 0;
}

static uint32_t share_held(const struct share *share, const struct pool *pool, const struct share_source *source)
{
    uint32_t held = 0;
    for (uint32_t slot = 0; slot < pool->untouched; slot++) held += share_is_same(&share->holders[slot], source);
    return held;
}

/* Counted only when the pool is three quarters full: until then nobody is in anybody's way. */
uint32_t share_take(struct share *share, struct pool *pool, const struct share_source *source)
{
    assert(share->count == pool->count);
    bool scarce = pool->used >= pool->count - pool->count / 4;
    if (scarce && source->size > 0 && share_held(share, pool, source) >= pool->count / 16 + 1) return POOL_NONE;
    uint32_t slot = pool_take(pool);
    if (slot != POOL_NONE) share->holders[slot] = *source;
    return slot;
}

void share_give(struct share *share, struct pool *pool, uint32_t slot)
{
    share->holders[slot] = (struct share_source){0};
    pool_give(pool, slot);
}
