/* Names to addresses, by way of name servers (dns_channel.h), with a cache that honours TTL.
 *
 * Runs on one thread, the owner of `ring`. Equal queries in flight are asked once. Both families are asked for at the
 * same time, and neither waits for the other longer than RESOLVE_DELAY_MS (RFC 8305 section 3). /etc/hosts,
 * nsswitch.conf and resolv.conf's search list count; a changed resolv.conf is seen within a second of the next look-up,
 * and what is being looked up then is asked for again. */
#ifndef SLUICE_CORE_RESOLVER_RESOLVE_H
#define SLUICE_CORE_RESOLVER_RESOLVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/io/ring.h"
#include "core/resolver/resolve_request.h"
#include "core/resolver/resolve_stats.h"
#include "protocols/egress_text.h"

#define RESOLVE_SOCKETS_MAX 1024u

struct resolver;

struct resolve_options {
    const char *nameservers; /* "ip[:port],..." or NULL: resolv.conf. A bad list is -EINVAL */
    const char *resolv_conf; /* its path; NULL: /etc/resolv.conf. Lives as long as the resolver */
    uint32_t timeout_ms;     /* of a whole query, all servers and tries */
    uint32_t sockets_max;    /* for questions over UDP; 0: RESOLVE_SOCKETS_MAX */
    uint8_t op; /* the tag's op for the ring operations of the resolver; slot is the resolver's own business */
};

/* `answered` is called once for each request that resolve_ask() has taken, from resolve_on_time() or resolve_close()
 * alone: never within a call that asks. 0 or -errno. */
int resolve_open(struct resolver **out, struct ring *ring, const struct resolve_options *options,
                 resolve_answered *answered, void *context);
/* Open queries are answered with -ECANCELED, when resolve_on_time() is called next; later ones are refused. */
void resolve_stop(struct resolver *resolver);
/* What is open still is answered with -ECANCELED now. Polls in flight are cancelled: their completions come later, and
 * are the owner's to drop. Not to be called from within `answered`. */
void resolve_close(struct resolver *resolver);
/* 0: `answered` will be called. Else it will not: -ENOMEM, too many requests are open; -ECANCELED, it was stopped. */
int resolve_ask(struct resolver *resolver, struct resolve_request *request, void *cookie);
void resolve_on_completion(struct resolver *resolver,
                           const struct ring_completion *completion); /* tag.op == options.op */
/* Milliseconds until resolve_on_time() must be called: 0 when an answer is ready, UINT64_MAX when nothing is open. */
uint64_t resolve_wait_ms(const struct resolver *resolver, uint64_t now_ms);
/* The clock of now_ms (that of ring_now_ms()) as it is now. */
uint64_t resolve_clock_ms(void);
/* Once in every turn of the owner's loop: gives up what is overdue, and delivers the answers that are ready. What
 * becomes ready meanwhile waits for the next turn. */
void resolve_on_time(struct resolver *resolver, uint64_t now_ms);
int resolve_check_nameservers(const char *nameservers); /* any thread: 0, or -EINVAL */
int resolve_set_nameservers(struct resolver *resolver,
                            const char *nameservers); /* NULL: back to resolv.conf; drops the cache */
/* By which way questions leave from now on, see dns_way.h. */
void resolve_set_way(struct resolver *resolver, const struct egress_terms *terms);
int resolve_reload(struct resolver *resolver); /* reads resolv.conf again, and drops the cache */
const struct resolve_stats *resolve_get_stats(const struct resolver *resolver);

#endif
