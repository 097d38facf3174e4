#include "core/session/egress.h"

#include <errno.h>
#include <string.h>

#include "core/io/hash.h"
#include "core/io/log.h"
#include "core/io/net.h"
#include "core/session/session.h"
#include "core/session/worker.h"

/* Addresses that rest, and are passed over in search of one that does not. */
#define PASSED_MAX 16u

/* --- choosing --- */

/* The client's address, or its network: one customer has all addresses of 64 bits. */
static uint64_t number_of_client(const struct session *s)
{
    struct address client = host_port_address(&s->client);
    size_t size = client.kind == ADDRESS_IPV4 ? 4 : client.kind == ADDRESS_IPV6 ? 8 : 0;
    return hash_plain(HASH_START, client.ipv6, size);
}

/* Pools take turns by themselves; two of many may share a counter. */
static uint64_t number_of_turn(struct worker *w, const struct egress_sources *pool)
{
    uint64_t hash = HASH_START;
    for (unsigned i = 0; i < pool->count; i++)
        hash = hash_plain(hash, &pool->ranges[i].first, sizeof pool->ranges[i].first);
    return w->egress_turns[hash_fold(hash) % EGRESS_TURNS]++;
}

static uint64_t number_at_random(struct worker *w)
{
    return egress_mix(ring_now_us(w->ring) << 16 ^ w->index) + w->egress_drawn++;
}

static uint64_t number_for(struct worker *w, const struct session *s, const struct egress_sources *pool)
{
    const struct credentials *c = &setup_of(w, s)->credentials;
    switch ((enum egress_by)pool->by) {
    case EGRESS_BY_ROUND: return number_of_turn(w, pool);
    case EGRESS_BY_RANDOM: return number_at_random(w);
    case EGRESS_BY_SOURCE: return number_of_client(s);
    case EGRESS_BY_USER:
    case EGRESS_BY_DEFAULT: break;
    }
    return c->present ? hash_plain(HASH_START, c->user, strlen(c->user)) : number_of_client(s);
}

/* Those that rest are passed over; if so many in a row do, there is nothing better than the first. */
static void pass_over_rests(const struct worker *w, struct egress *out)
{
    for (enum egress_family f = EGRESS_IPV4; f < EGRESS_FAMILIES; f++) {
        struct egress_place first = out->places[f];
        unsigned passed = 0;
        while (out->pooled[f] && egress_rests(&w->egress_rests, &out->way.sources[f], ring_now_ms(w->ring))) {
            if (++passed == PASSED_MAX || !egress_next(&out->pool, &out->places[f])) {
                out->places[f] = first;
                egress_take_place(out, f);
                break;
            }
            egress_take_place(out, f);
        }
    }
}

/* The address at which the client came in. */
static void choose_same(const struct session *s, struct egress *out)
{
    struct net_address raw;
    struct address local;
    if (s->fd[CLIENT] < 0 || net_local_address(s->fd[CLIENT], &raw) < 0 || !net_address_to(&raw, &local)) return;
    enum egress_family f = egress_family_of(local.kind);
    local.port = 0;
    out->way.sources[f] = host_port_of(&local);
    out->pooled[f] = false;
}

void egress_choose(struct worker *w, const struct session *s, const struct egress_terms *verdict, struct egress *out)
{
    bool client = s->protocol != PROTOCOL_INTERNAL; /* else nobody has come in anywhere */
    memset(out, 0, sizeof *out);
    egress_take_terms(out, &w->config->egress);
    if (client) egress_take_terms(out, &w->config->listeners[s->listener].egress);
    egress_take_terms(out, verdict);
    out->way.bound = client ? egress_binds(&out->pool) : out->pool.count > 0;
    if (out->pool.count > 0) {
        egress_choose_sources(out, number_for(w, s, &out->pool));
        pass_over_rests(w, out);
    }
    if (client && out->pool.same) choose_same(s, out);
}

/* --- sockets --- */

static const char *what_failed(int error)
{
    switch (error) {
    case -ENODEV: return "there is no such interface";
    case -EPERM: return "marks and interfaces need CAP_NET_RAW or CAP_NET_ADMIN";
    case -EADDRNOTAVAIL: return "the address is not this machine's, or has no port left";
    default: return strerror(-error);
    }
}

/* One line in a while: each session says by itself that it has failed. */
static void warn(struct worker *w, const struct egress_way *way, enum egress_family family, int error)
{
    char source[ADDRESS_TEXT_SIZE] = "any address";
    struct address address = host_port_address(&way->sources[family]);
    if (w->egress_warn_ms > ring_now_ms(w->ring)) return;
    w->egress_warn_ms = ring_now_ms(w->ring) + EGRESS_WARN_MS;
    if (way->bound) address_format_host(&address, source, sizeof source);
    LOGW("egress: no connection from %s, interface %s, mark %u: %s", source, way->device[0] ? way->device : "any",
         way->mark, what_failed(error));
}

/* Another address of the pool takes the place of one that failed, once. */
static bool move_on(struct egress *e, enum egress_family family)
{
    if (!e->way.bound || !e->pooled[family] || e->moved[family]) return false;
    e->moved[family] = true;
    if (!egress_next(&e->pool, &e->places[family])) return false;
    egress_take_place(e, family);
    return true;
}

/* Counted and said; an address that has gone, or has no port left, is left alone for a while. */
static void note_fault(struct worker *w, const struct egress *e, enum egress_family family, int error)
{
    counter_add(&w->stats.egress_faults, 1);
    warn(w, &e->way, family, error);
    if (error != -EADDRNOTAVAIL || !e->pooled[family]) return;
    if (egress_rests_begin(&w->egress_rests, &e->way.sources[family], ring_now_ms(w->ring)))
        counter_add(&w->stats.egress_rests, 1);
}

/* The source of connections to it; NULL: it is none of a pool. */
static const struct host_port *source_of(const struct egress *e, const struct address *to)
{
    if (to->kind == ADDRESS_UNIX || !e->way.bound || !e->pooled[egress_family_of(to->kind)]) return NULL;
    return &e->way.sources[egress_family_of(to->kind)];
}

void egress_note_answer(struct worker *w, const struct egress *e, const struct address *to)
{
    const struct host_port *source = source_of(e, to);
    if (source) egress_rests_note_answer(&w->egress_rests, source);
}

void egress_note_timeout(struct worker *w, const struct egress *e, const struct address *to)
{
    const struct host_port *source = source_of(e, to);
    struct host_port target = host_port_of(to);
    char text[ADDRESS_TEXT_SIZE];
    if (!source || !egress_rests_note_timeout(&w->egress_rests, source, &target, ring_now_ms(w->ring))) return;
    struct address address = host_port_address(source);
    address_format_host(&address, text, sizeof text);
    counter_add(&w->stats.egress_rests, 1);
    LOGW("egress: %s: %u targets in a row have not answered connections from it: others are used for %u s", text,
         EGRESS_TIMEOUTS_MAX, EGRESS_REST_MS / 1000);
}

enum failure egress_prepare(struct worker *w, struct egress *e, int fd, const struct address *to, bool connects)
{
    int error = egress_apply(&e->way, w->machine, fd, to, connects);
    if (error == 0) return FAIL_NONE;
    if (error == -EAFNOSUPPORT) return FAIL_EGRESS_FAMILY;
    enum egress_family family = egress_family_of(to->kind);
    note_fault(w, e, family, error);
    if (error != -EADDRNOTAVAIL || !move_on(e, family)) return FAIL_EGRESS;
    error = egress_apply(&e->way, w->machine, fd, to, connects);
    if (error < 0) note_fault(w, e, family, error);
    return error == 0 ? FAIL_NONE : FAIL_EGRESS;
}

bool egress_try_another(struct worker *w, struct egress *e, const struct address *to)
{
    if (to->kind == ADDRESS_UNIX || !e->way.bound) return false;
    note_fault(w, e, egress_family_of(to->kind), -EADDRNOTAVAIL);
    return move_on(e, egress_family_of(to->kind));
}
