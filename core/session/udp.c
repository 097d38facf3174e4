#include "core/session/udp.h"
#include "core/session/access.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "core/io/log.h"
#include "core/io/net.h"
#include "core/session/egress.h"
#include "core/session/end.h"
#include "core/session/limited.h"
#include "core/session/lists.h"
#include "core/session/policy.h"
#include "core/session/reply.h"
#include "core/session/session.h"
#include "core/session/udp_peers.h"
#include "core/session/worker.h"

#define UDP_GROUP 1u
/* The longest payload is 65,507 octets, 65,527 over IPv6; in front of it are the ring's header, the sender and SOCKS5's
 * header, 306 octets at most. Only what datagrams really fill becomes resident. */
#define UDP_BUFFER_SIZE 67584u
#define UDP_BUFFERS     256u
/* Sends of one association that are in flight: more than one turn usually receives from a socket, but a full one must
 * not take the buffers of the others. */
#define UDP_SENDS_MAX (UDP_BUFFERS / 4 * 3)
/* Datagrams of one association that wait for the address of a name, and of all associations. */
#define UDP_WAITING_MAX     8u
#define UDP_WAITING_MAX_ALL (UDP_BUFFERS / 8)
/* Names that an association remembers. The coordinator's cache knows their real TTL, so ours is short. */
#define UDP_NAMES          8u
#define UDP_NAME_MS        10000u
#define UDP_NAME_FAILED_MS 2000u
struct udp_name {
    struct address name;    /* port 0; NONE: free */
    struct address address; /* NONE: there is none that we would send to */
    uint64_t until_ms;
};

struct udp_waiting {
    uint16_t buffer;
    int32_t filled; /* the result of its receive */
};

struct association {
    int fds[UDP_SOCKETS];         /* -1: none */
    struct address client;        /* the IP address of the TCP connection; its port does not matter */
    struct net_address client_at; /* where its last valid datagram came from; size 0: none yet */
    uint16_t port_bound;          /* of the socket towards the client, 0: none; see own.h */
    uint16_t port_named;          /* the port that the request names as the client's own; 0: none */
    bool port_fixed;              /* it has really sent from there: from now on only that port is the client's */
    uint32_t sends;               /* in flight */
    uint8_t starved;              /* by socket: bits of receives that wait for buffers */
    uint8_t names_next;           /* entry of `names` that is replaced next */
    uint8_t waiting_count;
    struct udp_waiting waiting[UDP_WAITING_MAX];
    struct resolve_request resolve; /* lent while SESSION_ANSWER */
    struct udp_name names[UDP_NAMES];
    uint8_t discarded[512]; /* what the client sends on its TCP connection */
};

/* A datagram on its way out; its number is that of its buffer. */
struct udp_send {
    uint32_t session;
    uint32_t size; /* of the payload */
    bool down;     /* to the client */
    uint8_t header[32];
    struct iovec parts[2];
    struct net_address to;
    struct msghdr message;
};

struct udp {
    struct pool associations;
    struct share held;
    struct udp_peers *peers; /* owned by the slots of `associations` */
    uint8_t *base;           /* of the buffers */
    struct msghdr shape;     /* of all receives */
    uint32_t taken;          /* buffers that are not with the kernel */
    uint32_t waiting;        /* of them: datagrams that wait for an address */
    uint32_t starved;        /* receives that wait for buffers */
    struct udp_send sends[UDP_BUFFERS];
};

static_assert((UDP_BUFFERS & (UDP_BUFFERS - 1)) == 0, "the kernel wants a power of two");

static struct association *association_of(const struct worker *w, const struct session *s)
{
    assert(s->command == SOCKS5_UDP_ASSOCIATE && s->extra != POOL_NONE);
    return pool_at(&w->udp->associations, s->extra);
}

/* --- what all associations share --- */

static int udp_open_buffers(struct worker *w, struct udp *u)
{
    size_t size = (size_t)UDP_BUFFERS * UDP_BUFFER_SIZE;
    void *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) return -ENOMEM;
    int error = ring_group_open(w->ring, UDP_GROUP, base, UDP_BUFFER_SIZE, UDP_BUFFERS);
    if (error < 0)
        munmap(base, size);
    else
        u->base = base;
    return error;
}

static int udp_open(struct worker *w)
{
    if (w->udp) return 0;
    if (w->config->associations == 0) return -EMFILE;
    struct udp *u = calloc(1, sizeof *u);
    if (!u) return -ENOMEM;
    u->shape.msg_namelen = sizeof(struct sockaddr_in6);
    int error = pool_open(&u->associations, w->config->associations, sizeof(struct association));
    if (error == 0) error = share_open(&u->held, w->config->associations);
    if (error == 0) error = udp_peers_open(&u->peers, w->config->udp_peers, w->config->associations);
    if (error == 0) error = udp_open_buffers(w, u);
    if (error == 0) {
        w->udp = u;
        return 0;
    }
    udp_peers_close(u->peers);
    share_close(&u->held);
    pool_close(&u->associations);
    free(u);
    return error;
}

void udp_close(struct worker *w)
{
    if (!w->udp) return;
    ring_group_close(w->ring, UDP_GROUP);
    munmap(w->udp->base, (size_t)UDP_BUFFERS * UDP_BUFFER_SIZE);
    udp_peers_close(w->udp->peers);
    share_close(&w->udp->held);
    pool_close(&w->udp->associations);
    free(w->udp);
    w->udp = NULL;
}

static void udp_give(struct worker *w, uint16_t buffer)
{
    assert(w->udp->taken > 0);
    w->udp->taken--;
    ring_group_give(w->ring, UDP_GROUP, buffer);
}

static void udp_discard(struct worker *w, uint16_t buffer)
{
    counter_add(&w->stats.datagrams_dropped, 1);
    udp_give(w, buffer);
}

/* --- sockets --- */

static void udp_receive(struct worker *w, struct session *s, enum udp_socket from)
{
    ring_recvmsg_group(w->ring, association_of(w, s)->fds[from], &w->udp->shape, UDP_GROUP,
                       session_arm(w, s, SESSION_UDP_RECV + from));
}

/* The socket towards the client: 0 or -errno; -EAFNOSUPPORT if the client came by a Unix socket. */
static int udp_open_client(struct worker *w, struct session *s, struct association *a, struct address *bound)
{
    struct net_address local;
    int error = net_local_address(s->fd[CLIENT], &local);
    if (error < 0) return error;
    if (!net_address_set_port(&local, 0) || s->client.kind == ADDRESS_NONE) return -EAFNOSUPPORT;
    a->client = host_port_address(&s->client);
    int fd = a->fds[UDP_CLIENT] = net_socket(local.any.sa_family, SOCK_DGRAM);
    if (fd < 0) return fd;
    error = net_bind(fd, &local);
    if (error == 0) error = net_local_address(fd, &local);
    if (error == 0 && !net_address_to(&local, bound)) error = -EAFNOSUPPORT;
    if (error < 0) return error;
    a->port_bound = bound->port;
    own_add_datagrams(w->own, a->port_bound);
    return 0;
}

/* The socket towards targets of that family, opened on first use. False: there is none to be had. */
static bool udp_open_outbound(struct worker *w, struct session *s, enum udp_socket which)
{
    struct association *a = association_of(w, s);
    if (a->fds[which] >= 0) return true;
    int fd = net_socket(which == UDP_IPV4 ? AF_INET : AF_INET6, SOCK_DGRAM);
    if (fd < 0) return false;
    egress_prepare(w->config, fd);
    a->fds[which] = fd;
    udp_receive(w, s, which);
    return true;
}

/* --- sending: the buffer's owner is the send, until udp_on_sent() --- */

static void udp_send(struct worker *w, struct session *s, enum udp_socket by, uint16_t buffer, size_t parts)
{
    struct association *a = association_of(w, s);
    struct udp_send *send = &w->udp->sends[buffer];
    send->session = s->slot;
    send->down = by == UDP_CLIENT;
    send->message = (struct msghdr){
        .msg_name = &send->to.any, .msg_namelen = send->to.size, .msg_iov = send->parts, .msg_iovlen = parts};
    a->sends++;
    s->inflight |= SESSION_BIT(SESSION_UDP_SEND);
    ring_sendmsg(w->ring, a->fds[by], &send->message, (struct ring_tag){.op = WORKER_OP_UDP_SEND, .slot = buffer});
}

static struct iovec udp_part(const void *data, size_t size)
{
    return (struct iovec){.iov_base = (void *)(uintptr_t)data, .iov_len = size};
}

/* Whether its limits let a datagram move. When a quota is spent the association ends, see udp_is_over(). */
static bool udp_passes(struct worker *w, struct session *s, enum session_side from, size_t size)
{
    enum limited_passage passage = limited_pass(w, s, from, (uint32_t)size);
    s->spent |= passage == LIMITED_OVER;
    return passage == LIMITED_PASSES;
}

/* allowed  what lists have said of the name that the target is an address of. False: the datagram is to be dropped. */
static bool udp_send_up(struct worker *w, struct session *s, uint16_t buffer, const struct address *target,
                        uint8_t allowed, struct iovec payload)
{
    struct association *a = association_of(w, s);
    struct udp_send *send = &w->udp->sends[buffer];
    struct address plain;
    /* There and back: an IPv4 address mapped into IPv6 is treated as what it is, on the socket that it belongs to. */
    if (!net_address_from(target, &send->to) || !net_address_to(&send->to, &plain)) return false;
    net_address_from(&plain, &send->to);
    enum udp_socket by = plain.kind == ADDRESS_IPV4 ? UDP_IPV4 : UDP_IPV6;
    if (plain.port == 0 || !policy_allows(w->config->blocked, &plain)) return false;
    if (!lists_admit_target(w->config->lists, s->listener, &plain, &allowed, true)) return false;
    if (!w->config->allow_self && own_is_datagrams(w->own, w->machine, &plain)) return false;
    if (a->sends >= UDP_SENDS_MAX || !udp_open_outbound(w, s, by)) return false;
    if (!udp_passes(w, s, CLIENT, payload.iov_len)) return false;
    udp_peers_note(w->udp->peers, s->extra, &plain, ring_now_ms(w->ring));
    send->size = (uint32_t)payload.iov_len;
    send->parts[0] = payload;
    udp_send(w, s, by, buffer, 1);
    return true;
}

static bool udp_send_down(struct worker *w, struct session *s, uint16_t buffer, const struct ring_datagram *datagram)
{
    struct association *a = association_of(w, s);
    struct udp_send *send = &w->udp->sends[buffer];
    struct net_address from = {.size = datagram->source_size};
    struct address source;
    if (from.size > sizeof from.storage) return false;
    memcpy(&from.storage, datagram->source, from.size);
    if (a->client_at.size == 0 || a->sends >= UDP_SENDS_MAX || !net_address_to(&from, &source)) return false;
    if (!udp_peers_know(w->udp->peers, s->extra, &source, ring_now_ms(w->ring))) return false;
    size_t header = socks5_write_udp_header(send->header, sizeof send->header, &source);
    if (header == 0 || !udp_passes(w, s, UPSTREAM, datagram->size)) return false;
    send->to = a->client_at;
    send->size = (uint32_t)datagram->size;
    send->parts[0] = udp_part(send->header, header);
    send->parts[1] = udp_part(datagram->payload, datagram->size);
    udp_send(w, s, UDP_CLIENT, buffer, 2);
    return true;
}

static void udp_count_sent(struct worker *w, struct session *s, const struct udp_send *send)
{
    counter_add(send->down ? &w->stats.datagrams_down : &w->stats.datagrams_up, 1);
    counter_add(send->down ? &w->stats.bytes_down : &w->stats.bytes_up, send->size);
    counter_add(&w->stats.bytes_copy, send->size);
    access_count(w, s, send->down ? UPSTREAM : CLIENT, send->size, FLOW_COPY);
    limited_count(w, s, send->down ? UPSTREAM : CLIENT, send->size);
    s->moved_ms = ring_now_ms(w->ring);
}

static void udp_count_lost(struct worker *w, struct session *s, const struct udp_send *send)
{
    counter_add(&w->stats.datagrams_dropped, 1);
    limited_return(w, s, send->down ? UPSTREAM : CLIENT, send->size);
}

void udp_on_sent(struct worker *w, const struct ring_completion *c)
{
    const struct udp_send *send = &w->udp->sends[c->tag.slot];
    struct session *s = session_at(w, send->session);
    struct association *a = association_of(w, s);
    assert(a->sends > 0 && s->inflight & SESSION_BIT(SESSION_UDP_SEND));
    if (--a->sends == 0) s->inflight &= ~SESSION_BIT(SESSION_UDP_SEND);
    if (c->result >= 0)
        udp_count_sent(w, s, send);
    else
        udp_count_lost(w, s, send);
    udp_give(w, (uint16_t)c->tag.slot);
    if (s->state == SESSION_CLOSING) session_join(w, s);
}

/* --- names --- */

static struct udp_name *name_find(const struct worker *w, struct association *a, const struct address *target)
{
    struct address wanted = *target;
    wanted.port = 0;
    for (unsigned i = 0; i < UDP_NAMES; i++)
        if (a->names[i].name.kind != ADDRESS_NONE && a->names[i].until_ms > ring_now_ms(w->ring) &&
            address_equal(&a->names[i].name, &wanted))
            return &a->names[i];
    return NULL;
}

/* Whether lists let datagrams go to that name, as long as its address may. */
static bool name_is_listed(const struct worker *w, const struct session *s, const struct address *target,
                           uint8_t *allowed)
{
    *allowed = 0;
    return lists_admit_target(w->config->lists, s->listener, target, allowed, false);
}

/* The first address that the policy and lists allow: they are in the order in which they should be tried, and a
 * datagram has one try only. The port is that of the first datagram; each is judged with its own when it is sent. */
static void name_choose(const struct worker *w, const struct session *s, const struct resolve_request *resolve,
                        struct address *out)
{
    uint8_t by_name, allowed;
    bool listed = name_is_listed(w, s, &resolve->name, &by_name);
    for (uint32_t i = 0; i < resolve->count; i++) {
        *out = (struct address){.kind = resolve->results[i].kind, .port = resolve->name.port};
        memcpy(out->ipv6, resolve->results[i].octets, sizeof out->ipv6);
        allowed = by_name;
        if (!policy_allows(w->config->blocked, out)) continue;
        if (listed && lists_admit_target(w->config->lists, s->listener, out, &allowed, true)) return;
    }
    *out = (struct address){.kind = ADDRESS_NONE};
}

static void name_remember(const struct worker *w, const struct session *s, int32_t result)
{
    struct association *a = association_of(w, s);
    struct udp_name *entry = &a->names[a->names_next];
    a->names_next = (uint8_t)((a->names_next + 1) % UDP_NAMES);
    entry->name = a->resolve.name;
    entry->name.port = 0;
    entry->address = (struct address){.kind = ADDRESS_NONE};
    if (result == 0) name_choose(w, s, &a->resolve, &entry->address);
    entry->until_ms = ring_now_ms(w->ring) + (entry->address.kind == ADDRESS_NONE ? UDP_NAME_FAILED_MS : UDP_NAME_MS);
}

static bool udp_send_to_name(struct worker *w, struct session *s, uint16_t buffer, const struct udp_name *name,
                             const struct address *asked, struct iovec payload)
{
    struct address target = name->address;
    uint8_t allowed;
    target.port = asked->port;
    return name_is_listed(w, s, asked, &allowed) && udp_send_up(w, s, buffer, &target, allowed, payload);
}

/* The datagram waits for the address of its name. False: it is to be dropped. */
static bool name_wait(struct worker *w, struct session *s, uint16_t buffer, int32_t filled,
                      const struct address *target)
{
    struct association *a = association_of(w, s);
    uint8_t allowed;
    if (!name_is_listed(w, s, target, &allowed)) return false;
    if (a->waiting_count == UDP_WAITING_MAX || w->udp->waiting >= UDP_WAITING_MAX_ALL) return false;
    if (!(s->inflight & SESSION_BIT(SESSION_ANSWER))) {
        a->resolve.name = *target;
        if (session_ask_address(w, s, &a->resolve) != FAIL_NONE) return false;
    }
    a->waiting[a->waiting_count++] = (struct udp_waiting){.buffer = buffer, .filled = filled};
    w->udp->waiting++;
    return true;
}

/* --- receiving --- */

static const uint8_t *buffer_at(const struct worker *w, uint16_t buffer)
{
    assert(buffer < UDP_BUFFERS);
    return w->udp->base + (size_t)buffer * UDP_BUFFER_SIZE;
}

/* True if the datagram comes from the client. The IP address of its connection is what counts. The port is that of its
 * last datagram: a NAT on the way may give it another one at any time, and answers have to follow. */
static bool udp_is_from_client(struct association *a, const struct ring_datagram *datagram)
{
    struct net_address from = {.size = datagram->source_size};
    struct address source;
    if (from.size > sizeof from.storage) return false;
    memcpy(&from.storage, datagram->source, from.size);
    if (!net_address_to(&from, &source)) return false;
    uint16_t port = source.port;
    source.port = a->client.port;
    if (!address_equal(&source, &a->client)) return false;
    if (a->port_fixed && port != a->port_named) return false;
    a->port_fixed = a->port_named != 0 && port == a->port_named;
    a->client_at = from;
    return true;
}

static bool udp_parse(const struct ring_datagram *datagram, struct socks5_udp_header *header, struct iovec *payload)
{
    size_t used;
    if (datagram->truncated) return false;
    if (socks5_parse_udp_header(datagram->payload, datagram->size, header, &used) != PARSE_OK) return false;
    *payload = udp_part(datagram->payload + used, datagram->size - used);
    return header->fragment == 0 && header->target.kind != ADDRESS_NONE; /* section 7: fragments may be dropped */
}

static bool udp_take_from_client(struct worker *w, struct session *s, uint16_t buffer, int32_t filled,
                                 const struct ring_datagram *datagram)
{
    struct association *a = association_of(w, s);
    struct socks5_udp_header header;
    struct iovec payload;
    if (!udp_parse(datagram, &header, &payload) || !udp_is_from_client(a, datagram)) return false;
    if (header.target.kind != ADDRESS_NAME) return udp_send_up(w, s, buffer, &header.target, 0, payload);
    const struct udp_name *name = name_find(w, a, &header.target);
    if (!name) return name_wait(w, s, buffer, filled, &header.target);
    return udp_send_to_name(w, s, buffer, name, &header.target, payload);
}

static void udp_take(struct worker *w, struct session *s, enum udp_socket from, uint16_t buffer, int32_t filled)
{
    struct ring_datagram datagram;
    bool taken = ring_datagram(buffer_at(w, buffer), filled, &w->udp->shape, &datagram) && !datagram.truncated;
    if (taken && from == UDP_CLIENT)
        taken = udp_take_from_client(w, s, buffer, filled, &datagram);
    else if (taken)
        taken = udp_send_down(w, s, buffer, &datagram);
    if (!taken) udp_discard(w, buffer);
}

static void udp_starve(struct worker *w, struct session *s, enum udp_socket from)
{
    counter_add(&w->stats.starved, 1);
    association_of(w, s)->starved |= (uint8_t)(1u << from);
    w->udp->starved++;
}

/* The receive has ended: why, and what now? */
static void udp_receive_again(struct worker *w, struct session *s, enum udp_socket from, int32_t result)
{
    if (result >= 0) {
        udp_receive(w, s, from);
    } else if (result == -ENOBUFS) {
        udp_starve(w, s, from);
    } else {
        session_blame(w, s, failure_from_errno(result));
        session_log(w, s, LOG_LEVEL_WARNING, "udp: a receive failed, the association ends");
        session_close(w, s, SESSION_ORDERLY);
    }
}

/* A quota is spent. True: the association has ended. */
static bool udp_is_over(struct worker *w, struct session *s)
{
    if (!s->spent) return false;
    session_blame(w, s, FAIL_QUOTA);
    session_log(w, s, LOG_LEVEL_INFO, failure_row(FAIL_QUOTA)->word);
    session_close(w, s, SESSION_RESET);
    return true;
}

void udp_on_received(struct worker *w, struct session *s, const struct ring_completion *c)
{
    enum udp_socket from = (enum udp_socket)(c->tag.op - WORKER_OP_SESSION - SESSION_UDP_RECV);
    assert(from < UDP_SOCKETS);
    if (c->has_buffer) w->udp->taken++;
    if (s->state == SESSION_CLOSING) {
        if (c->has_buffer) udp_give(w, c->buffer);
        session_join(w, s);
        return;
    }
    if (c->has_buffer) udp_take(w, s, from, c->buffer, c->result);
    if (udp_is_over(w, s)) return;
    if (!c->more) udp_receive_again(w, s, from, c->result);
}

static void udp_feed(struct worker *w, struct session *s)
{
    struct association *a = association_of(w, s);
    for (unsigned from = 0; from < UDP_SOCKETS; from++) {
        if (!(a->starved & 1u << from)) continue;
        a->starved &= (uint8_t) ~(1u << from);
        w->udp->starved--;
        udp_receive(w, s, (enum udp_socket)from);
    }
}

/* Rare, as with relays: all find their buffers again within a turn or two, because sends do not hold them for long. */
void udp_feed_starved(struct worker *w)
{
    if (!w->udp || w->udp->starved == 0 || w->udp->taken > UDP_BUFFERS / 2) return;
    for (uint32_t slot = 0; slot < w->sessions.untouched && w->udp->starved > 0; slot++)
        if (pool_is_taken(&w->sessions, slot) && session_at(w, slot)->state == SESSION_ASSOCIATE)
            udp_feed(w, session_at(w, slot));
}

/* --- the answer to a name --- */

/* A datagram that waits: sent, dropped, or true if it has to wait on. `asked`: a question is under way. */
static bool name_retry(struct worker *w, struct session *s, const struct udp_waiting *waiting)
{
    struct association *a = association_of(w, s);
    struct ring_datagram datagram;
    struct socks5_udp_header header;
    struct iovec payload;
    bool valid = ring_datagram(buffer_at(w, waiting->buffer), waiting->filled, &w->udp->shape, &datagram) &&
                 udp_parse(&datagram, &header, &payload);
    assert(valid); /* as it was when it came */
    const struct udp_name *name = name_find(w, a, &header.target);
    if (!name && s->inflight & SESSION_BIT(SESSION_ANSWER)) return true;
    if (!name) {
        a->resolve.name = header.target;
        if (session_ask_address(w, s, &a->resolve) == FAIL_NONE) return true;
    }
    if (!name || !udp_send_to_name(w, s, waiting->buffer, name, &header.target, payload))
        udp_discard(w, waiting->buffer);
    return false;
}

void udp_on_answer(struct worker *w, struct session *s)
{
    struct association *a = association_of(w, s);
    unsigned kept = 0;
    name_remember(w, s, s->result);
    for (unsigned i = 0; i < a->waiting_count; i++) {
        struct udp_waiting waiting = a->waiting[i];
        if (name_retry(w, s, &waiting))
            a->waiting[kept++] = waiting;
        else
            w->udp->waiting--;
    }
    a->waiting_count = (uint8_t)kept;
    udp_is_over(w, s);
}

/* --- beginning --- */

static void association_init(struct association *a)
{
    memset(a, 0, sizeof *a);
    for (unsigned i = 0; i < UDP_SOCKETS; i++) a->fds[i] = -1;
}

static void udp_receive_control(struct worker *w, struct session *s)
{
    struct association *a = association_of(w, s);
    ring_recv(w->ring, s->fd[CLIENT], a->discarded, sizeof a->discarded, session_arm(w, s, SESSION_RECV + CLIENT));
}

static enum session_state udp_refuse(struct worker *w, struct session *s, int error)
{
    if (s->extra != POOL_NONE) {
        udp_drop(w, s);
        udp_release(w, s);
    }
    return session_fail(w, s, error == -EAFNOSUPPORT ? FAIL_COMMAND : failure_from_errno(error));
}

/* RFC 1928 section 7 lets a server hold the client to the address and port that its request names. Clients name all
 * sorts of things there: their target, a name, their private address behind a NAT. So it only counts where it can be
 * true: with the address that the connection comes from; else it is as if they had sent zeroes. */
static uint16_t udp_port_named(const struct association *a, const struct address *named)
{
    struct net_address there;
    struct address plain; /* there and back: an IPv4 address mapped into IPv6 is treated as what it is */
    if (!net_address_from(named, &there) || !net_address_to(&there, &plain)) return 0;
    plain.port = a->client.port;
    return address_equal(&plain, &a->client) ? named->port : 0;
}

enum session_state udp_begin(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    struct address bound = {.kind = ADDRESS_NONE};
    counter_add(&w->stats.requests, 1);
    setup->request_complete = true;
    int error = udp_open(w);
    if (error < 0) return udp_refuse(w, s, error);
    struct share_source source = share_source_of(&s->client);
    s->extra = share_take(&w->udp->held, &w->udp->associations, &source);
    if (s->extra == POOL_NONE) return udp_refuse(w, s, -ENOBUFS);
    association_init(association_of(w, s));
    error = udp_open_client(w, s, association_of(w, s), &bound);
    if (error < 0) return udp_refuse(w, s, error);
    association_of(w, s)->port_named = udp_port_named(association_of(w, s), &setup->target);
    s->moved_ms = ring_now_ms(w->ring);
    udp_receive(w, s, UDP_CLIENT);
    udp_receive_control(w, s);
    reply_advertise(w, s, &bound);
    reply_append_address(w, s, &bound);
    session_flush(w, s);
    access_on_connected(w, s);
    return SESSION_ASSOCIATE;
}

/* --- the TCP connection --- */

static void udp_on_reply_sent(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    if (s->result <= 0) {
        session_blame(w, s, FAIL_CLIENT_RESET);
        session_close(w, s, SESSION_ORDERLY);
        return;
    }
    setup->out_sent += (uint32_t)s->result;
    session_count_reply(w, s, (uint64_t)s->result);
    session_flush(w, s);
    if (setup->out_sent == setup->out_used) session_release_setup(w, s);
}

void udp_on_completion(struct worker *w, struct session *s)
{
    assert(s->state == SESSION_ASSOCIATE);
    if (s->op == SESSION_SEND + CLIENT) {
        udp_on_reply_sent(w, s);
    } else if (s->op == SESSION_RECV + CLIENT) {
        if (s->result < 0) session_blame(w, s, FAIL_CLIENT_RESET);
        if (s->result > 0)
            udp_receive_control(w, s);
        else
            session_close(w, s, SESSION_ORDERLY);
    }
}

/* The shorter one of --udp-timeout and --idle-timeout, as far as they are given; 0: an association may rest for ever.
 */
static uint64_t udp_idle_ms(const struct config *config)
{
    uint64_t udp = config->udp_timeout_ms, idle = config->idle_timeout_ms;
    return udp == 0 || (idle > 0 && idle < udp) ? idle : udp;
}

void udp_on_timer(struct worker *w, struct session *s)
{
    uint64_t idle = udp_idle_ms(w->config);
    if (idle == 0) return;
    uint64_t now = ring_now_ms(w->ring);
    if (now - s->moved_ms < idle) {
        timer_set(w->timers, s->slot, s->moved_ms + idle);
        return;
    }
    session_blame(w, s, FAIL_IDLE_TIMEOUT);
    session_log(w, s, LOG_LEVEL_DEBUG,
                idle == w->config->udp_timeout_ms ? "closed: no datagram moved for --udp-timeout seconds"
                                                  : "closed: nothing moved for --idle-timeout seconds");
    session_close(w, s, SESSION_ORDERLY);
}

/* --- the end --- */

static void udp_drop_waiting(struct worker *w, struct association *a)
{
    for (unsigned i = 0; i < a->waiting_count; i++) udp_discard(w, a->waiting[i].buffer);
    w->udp->waiting -= a->waiting_count;
    a->waiting_count = 0;
}

/* The end of the TCP connection tells the client that the association is over (RFC 1928 section 7): its sockets are
 * gone before that, not by operations that are submitted together with it. What was cancelled holds them until the
 * flush. */
static void udp_close_sockets(struct worker *w, struct association *a)
{
    ring_flush(w->ring);
    for (unsigned i = 0; i < UDP_SOCKETS; i++) {
        if (a->fds[i] >= 0) net_close(a->fds[i]);
        a->fds[i] = -1;
    }
}

void udp_drop(struct worker *w, struct session *s)
{
    struct association *a = association_of(w, s);
    atomic_store_explicit(&a->resolve.cancelled, 1, memory_order_relaxed);
    if (a->port_bound > 0) own_remove_datagrams(w->own, a->port_bound);
    a->port_bound = 0;
    udp_drop_waiting(w, a);
    for (unsigned i = 0; i < UDP_SOCKETS; i++) {
        if (a->starved & 1u << i) w->udp->starved--;
        if (a->fds[i] < 0) continue;
        if (s->inflight & SESSION_BIT(SESSION_UDP_RECV + i))
            ring_cancel(w->ring, session_tag(w, s, SESSION_UDP_RECV + i));
        if (a->sends > 0) ring_cancel_fd(w->ring, a->fds[i]); /* rare: most sends are done at once */
    }
    a->starved = 0;
    udp_close_sockets(w, a);
}

void udp_release(struct worker *w, struct session *s)
{
    if (s->command != SOCKS5_UDP_ASSOCIATE || s->extra == POOL_NONE) return;
    assert(association_of(w, s)->sends == 0 && association_of(w, s)->waiting_count == 0);
    udp_peers_forget(w->udp->peers, s->extra);
    share_give(&w->udp->held, &w->udp->associations, s->extra);
    s->extra = POOL_NONE;
}
