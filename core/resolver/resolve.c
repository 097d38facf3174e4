/* The resolver as its owner sees it; requests are in pending.c, lookups in lookup.c.
 *
 *     resolve_ask --> pending --+--> lookup OPEN --name servers--> lookup KEPT --> pending ready --> answered()
 *                               |        ^ joined by equal ones                       ^
 *                               +--------|---- cache hit, refusal --------------------+
 *                                        +---- the request's deadline ----------------+
 */
#include "core/resolver/resolve.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "core/resolver/dns_channel.h"
#include "core/resolver/lookup.h"
#include "core/resolver/resolve_cache.h"

#define LOOK_MS 1000u /* between two looks at resolv.conf */

struct resolver {
    struct ring *ring;
    struct dns_channel *channel;
    char *nameservers;  /* as given; NULL: resolv.conf */
    uint64_t looked_ms; /* when resolv.conf was looked at */
    struct pending_requests pending;
    struct lookups lookups;
    struct resolve_stats stats;
};

/* --- opening and closing --- */

static int channel_open(struct resolver *resolver, const struct resolve_options *options)
{
    struct dns_channel_options channel = {
        .ring = resolver->ring,
        .nameservers = options->nameservers,
        .resolv_conf = options->resolv_conf ? options->resolv_conf : "/etc/resolv.conf",
        .timeout_ms = options->timeout_ms,
        .sockets_max = options->sockets_max > 0 ? options->sockets_max : RESOLVE_SOCKETS_MAX,
        .op = options->op,
        .mismatched = &resolver->stats.mismatched,
        .answered = lookup_on_answer,
    };
    int error = dns_channel_open(&resolver->channel, &channel);
    resolver->lookups.channel = resolver->channel;
    return error;
}

static void resolver_free(struct resolver *resolver)
{
    pending_requests_close(&resolver->pending);
    lookups_close(&resolver->lookups);
    free(resolver->nameservers);
    free(resolver);
}

static int take_nameservers(struct resolver *resolver, const char *nameservers)
{
    char *copy = nameservers ? strdup(nameservers) : NULL;
    if (nameservers && !copy) return -ENOMEM;
    free(resolver->nameservers);
    resolver->nameservers = copy;
    return 0;
}

int resolve_open(struct resolver **out, struct ring *ring, const struct resolve_options *options,
                 resolve_answered *answered, void *context)
{
    struct resolver *resolver = calloc(1, sizeof *resolver);
    if (resolver == NULL) return -ENOMEM;
    resolver->ring = ring;
    int error = pending_requests_open(&resolver->pending, options->timeout_ms, answered, context, &resolver->stats);
    if (error == 0) error = lookups_open(&resolver->lookups, ring, &resolver->pending, &resolver->stats);
    if (error == 0) error = take_nameservers(resolver, options->nameservers);
    if (error == 0) error = channel_open(resolver, options);
    if (error == 0)
        *out = resolver;
    else
        resolver_free(resolver);
    return error;
}

void resolve_stop(struct resolver *resolver)
{
    if (resolver->lookups.closing) return;
    resolver->lookups.closing = true;
    dns_channel_close(resolver->channel);
    assert(resolver->lookups.queries.used == 0);
    assert(link_is_empty(&resolver->pending.waiting));
}

void resolve_close(struct resolver *resolver)
{
    assert(!resolver->pending.delivering);
    resolve_stop(resolver);
    pending_deliver(&resolver->pending);
    assert(resolver->pending.pool.used == 0);
    resolver_free(resolver);
}

/* --- other servers --- */

/* What was open is asked anew; the deadlines of its requests stay. */
static int resolver_reopen(struct resolver *resolver, const char *nameservers)
{
    int error = dns_channel_reopen(resolver->channel, nameservers);
    if (error != 0) return error;
    resolver->looked_ms = ring_now_ms(resolver->ring);
    lookups_ask_anew(&resolver->lookups);
    return 0;
}

int resolve_check_nameservers(const char *nameservers)
{
    return dns_channel_check_servers(nameservers);
}

int resolve_set_nameservers(struct resolver *resolver, const char *nameservers)
{
    char *copy = nameservers ? strdup(nameservers) : NULL;
    if (nameservers && !copy) return -ENOMEM;
    int error = resolver_reopen(resolver, nameservers);
    if (error != 0) {
        free(copy);
        return error;
    }
    free(resolver->nameservers);
    resolver->nameservers = copy;
    return 0;
}

void resolve_set_way(struct resolver *resolver, const struct egress_terms *terms)
{
    dns_channel_set_way(resolver->channel, terms);
}

int resolve_reload(struct resolver *resolver)
{
    return resolver->lookups.closing ? -ECANCELED : resolver_reopen(resolver, resolver->nameservers);
}

/* One system call a second at most, and only while somebody asks. When resolv.conf cannot be taken over, the servers of
 * before are asked, and the next look tries again. */
static void look_at_conf(struct resolver *resolver)
{
    uint64_t now_ms = ring_now_ms(resolver->ring);
    if (now_ms - resolver->looked_ms < LOOK_MS) return;
    resolver->looked_ms = now_ms;
    if (dns_channel_is_stale(resolver->channel)) resolver_reopen(resolver, resolver->nameservers);
}

/* --- asking and answering --- */

static void ask(struct resolver *resolver, struct pending *pending, uint64_t now_ms)
{
    struct cache_key key;
    struct resolve_request *request = pending->request;
    bool fresh;
    if (!cache_key_make(&key, request->name.name, request->name.name_size, request->family)) {
        counter_add(&resolver->stats.local, 1);
        pending_finish(&resolver->pending, pending, -ENOENT, NULL, now_ms);
        return;
    }
    struct lookup *lookup = lookup_for(&resolver->lookups, &key, &request->source, &fresh);
    if (lookup == NULL) {
        counter_add(&resolver->stats.refused, 1);
        pending_finish(&resolver->pending, pending, -ENOMEM, NULL, now_ms);
    } else if (!cache_is_open(&lookup->entry)) {
        pending_finish(&resolver->pending, pending, lookup->entry.status, &lookup->entry, now_ms);
    } else {
        link_append(&lookup->pending, &pending->peers);
        if (fresh)
            lookup_begin(lookup);
        else if (lookup->decided)
            lookup_answer(lookup);
    }
}

int resolve_ask(struct resolver *resolver, struct resolve_request *request, void *cookie)
{
    assert(request->name.kind == ADDRESS_NAME);
    assert(request->family == AF_UNSPEC || request->family == AF_INET || request->family == AF_INET6);
    if (resolver->lookups.closing) return -ECANCELED;
    uint64_t now_ms = ring_now_ms(resolver->ring);
    struct pending *pending = pending_open(&resolver->pending, request, cookie, now_ms);
    if (pending == NULL) {
        counter_add(&resolver->stats.failures, 1);
        counter_add(&resolver->stats.refused, 1);
        return -ENOMEM;
    }
    look_at_conf(resolver);
    if (atomic_load_explicit(&request->cancelled, memory_order_relaxed) != 0)
        pending_finish(&resolver->pending, pending, -ECANCELED, NULL, now_ms);
    else
        ask(resolver, pending, now_ms);
    return 0;
}

void resolve_on_completion(struct resolver *resolver, const struct ring_completion *completion)
{
    if (!resolver->lookups.closing)
        dns_channel_on_completion(resolver->channel, completion); /* else of a cancelled poll */
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

uint64_t resolve_wait_ms(const struct resolver *resolver, uint64_t now_ms)
{
    if (!link_is_empty(&resolver->pending.ready)) return 0;
    uint64_t next_ms = least(pending_deadline_ms(&resolver->pending), lookups_deadline_ms(&resolver->lookups));
    uint64_t wait_ms = next_ms == UINT64_MAX ? UINT64_MAX : next_ms > now_ms ? next_ms - now_ms : 0;
    return resolver->lookups.closing ? wait_ms : least(wait_ms, dns_channel_wait_ms(resolver->channel, now_ms));
}

uint64_t resolve_clock_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u;
}

void resolve_on_time(struct resolver *resolver, uint64_t now_ms)
{
    if (!resolver->lookups.closing) dns_channel_on_time(resolver->channel, now_ms);
    lookups_expire(&resolver->lookups, now_ms);
    pending_expire(&resolver->pending, now_ms);
    pending_deliver(&resolver->pending);
}

const struct resolve_stats *resolve_get_stats(const struct resolver *resolver)
{
    return &resolver->stats;
}
