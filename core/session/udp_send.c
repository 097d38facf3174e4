#include "core/session/udp_send.h"

#include "core/io/net.h"
#include "core/session/access.h"
#include "core/session/egress.h"
#include "core/session/limited.h"
#include "core/session/lists.h"
#include "core/session/policy.h"
#include "core/session/udp_peers.h"

void udp_receive(struct worker *w, struct session *s, enum udp_socket from)
{
    ring_recvmsg_group(w->ring, association_of(w, s)->fds[from], &w->udp->shape, UDP_GROUP,
                       session_arm(w, s, SESSION_UDP_RECV + from));
}

/* The socket towards targets of that family, opened on first use. False: there is none to be had. */
static bool udp_open_outbound(struct worker *w, struct session *s, enum udp_socket which)
{
    struct association *a = association_of(w, s);
    if (a->fds[which] >= 0) return true;
    int fd = net_socket(which == UDP_IPV4 ? AF_INET : AF_INET6, SOCK_DGRAM);
    if (fd < 0) return false;
    struct address any = {.kind = which == UDP_IPV4 ? ADDRESS_IPV4 : ADDRESS_IPV6};
    if (egress_prepare(w, &a->egress, fd, &any, false) != FAIL_NONE) {
        net_close(fd);
        return false;
    }
    a->fds[which] = fd;
    udp_receive(w, s, which);
    return true;
}

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

/* Whether its limits let a datagram move. When a quota is spent the association ends, see udp_is_over(). */
static bool udp_passes(struct worker *w, struct session *s, enum session_side from, size_t size)
{
    enum limited_passage passage = limited_pass(w, s, from, (uint32_t)size);
    s->spent |= passage == LIMITED_OVER;
    return passage == LIMITED_PASSES;
}

static enum udp_socket socket_towards(const struct address *to)
{
    return to->kind == ADDRESS_IPV4 ? UDP_IPV4 : UDP_IPV6;
}

/* The payload, with `header` octets of the send's header in front. */
static bool udp_send_up(struct worker *w, struct session *s, uint16_t buffer, enum udp_socket by, size_t header,
                        struct iovec payload)
{
    struct udp_send *send = &w->udp->sends[buffer];
    if (association_of(w, s)->sends >= UDP_SENDS_MAX || !udp_open_outbound(w, s, by)) return false;
    if (!udp_passes(w, s, CLIENT, payload.iov_len)) return false;
    send->size = (uint32_t)payload.iov_len;
    send->parts[0] = header > 0 ? udp_part(send->header, header) : payload;
    send->parts[1] = payload;
    udp_send(w, s, by, buffer, header > 0 ? 2 : 1);
    return true;
}

bool udp_send_direct(struct worker *w, struct session *s, uint16_t buffer, const struct address *target,
                     uint8_t allowed, struct iovec payload)
{
    struct udp_send *send = &w->udp->sends[buffer];
    struct address plain;
    /* There and back: an IPv4 address mapped into IPv6 is treated as what it is, on the socket that it belongs to. */
    if (!net_address_from(target, &send->to) || !net_address_to(&send->to, &plain)) return false;
    net_address_from(&plain, &send->to);
    if (plain.port == 0 || !policy_allows(w->config->blocked, &plain)) return false;
    if (!lists_admit_target(w->config->lists, s->listener, &plain, &allowed, true)) return false;
    if (!w->config->allow_self && own_is_datagrams(w->own, w->machine, &plain)) return false;
    if (!udp_send_up(w, s, buffer, socket_towards(&plain), 0, payload)) return false;
    udp_peers_note(w->udp->peers, s->extra, &plain, ring_now_ms(w->ring));
    return true;
}

bool udp_send_through(struct worker *w, struct session *s, uint16_t buffer, uint32_t chain,
                      const struct address *target, struct iovec payload)
{
    struct udp_send *send = &w->udp->sends[buffer];
    const struct address *relay = udp_chain_relay(w, chain);
    size_t header = udp_chain_write_header(w, chain, send->header, sizeof send->header, target);
    if (header == 0 || target->port == 0 || !net_address_from(relay, &send->to)) return false;
    return udp_send_up(w, s, buffer, socket_towards(relay), header, payload);
}

bool udp_send_down(struct worker *w, struct session *s, uint16_t buffer, const struct address *source,
                   struct iovec payload)
{
    struct association *a = association_of(w, s);
    struct udp_send *send = &w->udp->sends[buffer];
    if (a->client_at.size == 0 || a->sends >= UDP_SENDS_MAX) return false;
    size_t header = socks5_write_udp_header(send->header, sizeof send->header, source);
    if (header == 0 || !udp_passes(w, s, UPSTREAM, payload.iov_len)) return false;
    send->to = a->client_at;
    send->size = (uint32_t)payload.iov_len;
    send->parts[0] = udp_part(send->header, header);
    send->parts[1] = payload;
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

void udp_send_done(struct worker *w, struct session *s, const struct udp_send *send, int32_t result)
{
    struct association *a = association_of(w, s);
    assert(a->sends > 0 && s->inflight & SESSION_BIT(SESSION_UDP_SEND));
    if (--a->sends == 0) s->inflight &= ~SESSION_BIT(SESSION_UDP_SEND);
    if (result >= 0)
        udp_count_sent(w, s, send);
    else
        udp_count_lost(w, s, send);
}
