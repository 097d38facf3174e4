/* c-ares on a ring: questions to name servers, /etc/hosts, what resolv.conf says. One question is one name and one
 * type; its answer comes raw. <ares.h> appears in dns_channel.c alone.
 *
 * c-ares keeps the time, chooses servers, repeats, and goes over to TCP; its UDP sockets are dns_udp's. Runs on one
 * thread, the owner of `ring`. */
#ifndef SLUICE_CORE_RESOLVER_DNS_CHANNEL_H
#define SLUICE_CORE_RESOLVER_DNS_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/io/counter.h"
#include "core/io/ring.h"
#include "core/resolver/resolve_request.h"
#include "protocols/egress_text.h"

struct dns_channel; /* opaque */

#define DNS_RESTART 1 /* in place of an answer: the servers have changed, ask again */

struct dns_channel_options {
    struct ring *ring;
    const char *nameservers; /* "ip[:port],..." or NULL: resolv.conf */
    const char *resolv_conf; /* its path */
    uint32_t timeout_ms;     /* of a whole question, all servers and tries */
    uint32_t sockets_max;    /* for UDP, at the same time */
    uint8_t op;              /* of ring tags; slots are the channel's own business */
    counter *mismatched;     /* answers that did not fit their question */
    /* status 0, and the answer, borrowed for the call; -ENOENT: there is no such name (gone) or nothing of that type;
     * -ETIMEDOUT, -EIO, -ENOMEM, -ECANCELED: the channel is closed; DNS_RESTART. Perhaps within dns_channel_ask(). */
    void (*answered)(void *question, int status, bool gone, const uint8_t *answer, size_t size);
};

int dns_channel_check_servers(const char *nameservers); /* any thread: 0, or -EINVAL */
int dns_channel_open(struct dns_channel **out, const struct dns_channel_options *options); /* 0 or -errno */
void dns_channel_close(struct dns_channel *channel); /* open questions end with -ECANCELED, polls are cancelled */
/* Reads resolv.conf again; open questions end with DNS_RESTART, and are not to be asked again before this returns. 0,
 * or -errno and nothing has changed. */
int dns_channel_reopen(struct dns_channel *channel, const char *nameservers);
/* By which way questions leave from now on, see dns_way.h; at first the kernel's. */
void dns_channel_set_way(struct dns_channel *channel, const struct egress_terms *terms);
/* Whether resolv.conf is another one than the one in force. */
bool dns_channel_is_stale(const struct dns_channel *channel);

void dns_channel_ask(struct dns_channel *channel, const char *name, uint16_t type, void *question);

/* What stands in /etc/hosts, or follows from the name alone (localhost): at most `room` addresses of `family`. */
uint32_t dns_channel_look_up_local(struct dns_channel *channel, const char *name, int family,
                                   struct resolve_result *out, uint32_t room);
bool dns_channel_is_localhost(const char *name); /* in lower case; RFC 6761 section 6.3: nobody is asked for it */
/* When /etc/hosts counts (nsswitch.conf): before name servers, after them, never. */
enum dns_local { DNS_LOCAL_FIRST, DNS_LOCAL_LAST, DNS_LOCAL_NEVER };
enum dns_local dns_channel_local(const struct dns_channel *channel);

/* The name number `index` to be tried for `name` by resolv.conf's search list, at most `size` octets with the
 * terminator; "": it would be longer. False: there are no more. */
bool dns_channel_candidate(const struct dns_channel *channel, const char *name, uint32_t index, char *out, size_t size);

void dns_channel_on_completion(struct dns_channel *channel, const struct ring_completion *completion);
/* Milliseconds until dns_channel_on_time(), UINT64_MAX when nothing is open. */
uint64_t dns_channel_wait_ms(const struct dns_channel *channel, uint64_t now_ms);
void dns_channel_on_time(struct dns_channel *channel, uint64_t now_ms);

#endif
