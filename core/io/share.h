/* Keeps one source from taking all slots of a pool whose slots are held for long: the last quarter of the pool is for
 * sources that hold less than a sixteenth of it. A source is an IPv4 address or an IPv6 network of 64 bits, of which
 * one customer has all addresses. Clients on Unix sockets are this machine's own users: not bounded. */
#ifndef SLUICE_CORE_IO_SHARE_H
#define SLUICE_CORE_IO_SHARE_H

#include <stdbool.h>
#include <stdint.h>

#include "protocols/host_port.h"

struct pool;

struct share_source {
    uint8_t octets[8];
    uint8_t size; /* of them; 0: a source without a bound */
};

struct share {
    struct share_source *holders; /* by slot of the pool */
    uint32_t count;
};

int share_open(struct share *share, uint32_t count); /* as many as the pool has slots; 0 or -ENOMEM */
void share_close(struct share *share);
/* The source that a client at this end belongs to. */
struct share_source share_source_of(const struct host_port *client);
/* A slot of the pool for that source. POOL_NONE: no slot is free, or the source holds its share. */
uint32_t share_take(struct share *share, struct pool *pool, const struct share_source *source);
/* Gives the slot back. */
void share_give(struct share *share, struct pool *pool, uint32_t slot);

#endif
