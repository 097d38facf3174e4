/* A watch is one poll of one of c-ares' TCP sockets. Its slot is pinned while the poll is in flight, even if c-ares has
 * closed the socket long since.
 *
 * UDP and TCP are a channel of c-ares each. Any error of a server's TCP connection, also that it closes an idle one, is
 * to c-ares an error of the server: all questions that it has there are asked again or given up. So whoever asks for
 * names with truncated answers could end the look-ups of everybody. */
#include "core/resolver/dns_channel.h"

#include "core/io/list.h"
#include "core/io/pool.h"
#include "core/resolver/dns_udp.h"
#include "protocols/dns.h"

#include <ares.h>
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <unistd.h>

#define WATCHES_MAX DNS_UDP_SLOT / 256u
#define SERVERS_MAX 16u
#define TRIES       2u
/* RFC 1035 section 4.2.1; c-ares has cut off what is longer, without a word. */
#define UDP_ANSWER_MAX 512u
#define TRY_MS_MIN     100u
#define TRY_MS_MAX     5000u
#define CLASS_IN       1
/* A late answer fills the cache, though nobody waits for it any more. */
#define PATIENCE_MS_MIN 5000u

struct watch {
    struct link open; /* in watches while c-ares has the socket */
    int fd;           /* -1: c-ares has closed it */
    short events;     /* wanted now */
    short armed;      /* those of the poll in flight; 0: none is */
    bool cancelled;   /* the poll in flight has been told to end */
};

struct dns_channel {
    struct dns_channel_options options;
    ares_channel ares; /* by UDP alone */
    ares_channel tcp;
    ares_channel hosts;        /* knows /etc/hosts alone */
    struct ares_options found; /* search list, order of look-ups */
    bool reopening;
    uint32_t asking;      /* questions that c-ares has */
    uint32_t try_ms;      /* its patience for the first try of one server */
    uint64_t deadline_ms; /* not later than its next timeout, if asking > 0 */
    struct stat conf;     /* resolv.conf as it was read; zeroes: there was none */
    struct pool watch_pool;
    struct link watches;
    struct dns_udp udp;
    struct dns_way way;
    /* the datagram that c-ares is being handed */
    int given_lane;
    const uint8_t *given;
    size_t given_size;
    int given_error;
};

/* --- servers --- */

struct servers {
    uint32_t count; /* 0: those of resolv.conf */
    struct ares_addr_port_node nodes[SERVERS_MAX];
};

/* One `ip`, `ip:port` or `[ip]:port`. Not left to ares_set_servers_ports_csv(): 1.18 takes any port, and trash. */
static bool server_parse(const char *text, size_t size, struct ares_addr_port_node *out)
{
    struct address address;
    bool bare = address_from_host(text, size, 53, &address) && address.kind != ADDRESS_NAME;
    if (!bare && !address_parse(text, size, ADDRESS_PORT_DEFAULT, 53, &address)) return false;
    if ((address.kind != ADDRESS_IPV4 && address.kind != ADDRESS_IPV6) || address.port == 0) return false;
    *out = (struct ares_addr_port_node){.udp_port = address.port, .tcp_port = address.port};
    out->family = address.kind == ADDRESS_IPV4 ? AF_INET : AF_INET6;
    if (out->family == AF_INET)
        memcpy(&out->addr.addr4, address.ipv4, sizeof address.ipv4);
    else
        memcpy(&out->addr.addr6, address.ipv6, sizeof address.ipv6);
    return true;
}

static int servers_parse(const char *text, struct servers *out)
{
    *out = (struct servers){.count = 0};
    if (text == NULL) return 0;
    for (;;) {
        text += strspn(text, " \t");
        size_t size = strcspn(text, ",");
        const char *next = text + size;
        while (size > 0 && (text[size - 1] == ' ' || text[size - 1] == '\t')) size--;
        if (out->count == SERVERS_MAX) return -EINVAL;
        if (!server_parse(text, size, &out->nodes[out->count])) return -EINVAL;
        if (out->count > 0) out->nodes[out->count - 1].next = &out->nodes[out->count];
        out->count++;
        if (*next == '\0') return 0;
        text = next + 1;
    }
}

int dns_channel_check_servers(const char *nameservers)
{
    struct servers servers;
    return servers_parse(nameservers, &servers);
}

/* --- c-ares' sockets --- */

static uint32_t slot_of(const struct pool *pool, const void *item)
{
    size_t offset = (size_t)((const uint8_t *)item - pool->slots);
    assert(offset % pool->slot_size == 0);
    return (uint32_t)(offset / pool->slot_size);
}

/* Any entry into c-ares may have sent something. Its tries last try_ms or longer, so this is never too late, and
 * cheaper than ares_timeout(), which in 1.18 walks over all queries. */
static void expect_timeout(struct dns_channel *channel)
{
    uint64_t next_ms = ring_now_ms(channel->options.ring) + channel->try_ms;
    if (next_ms < channel->deadline_ms) channel->deadline_ms = next_ms;
}

static struct ring_tag watch_tag(const struct dns_channel *channel, const struct watch *watch)
{
    uint32_t slot = slot_of(&channel->watch_pool, watch);
    return (struct ring_tag){
        .op = channel->options.op, .generation = pool_generation(&channel->watch_pool, slot), .slot = slot};
}

static void watch_arm(struct dns_channel *channel, struct watch *watch)
{
    assert(watch->armed == 0);
    assert(watch->fd >= 0);
    watch->armed = watch->events;
    watch->cancelled = false;
    ring_poll(channel->options.ring, watch->fd, watch->events, watch_tag(channel, watch));
}

static void watch_cancel(struct dns_channel *channel, struct watch *watch)
{
    assert(watch->armed != 0);
    if (!watch->cancelled) ring_cancel(channel->options.ring, watch_tag(channel, watch));
    watch->cancelled = true;
}

static struct watch *watch_find(struct dns_channel *channel, int fd)
{
    for (struct link *link = channel->watches.next; link != &channel->watches; link = link->next) {
        struct watch *watch = link_owner(link, struct watch, open);
        if (watch->fd == fd) return watch;
    }
    return NULL;
}

/* Without a free slot the socket is not watched: its query times out and goes to the next server. */
static void watch_open(struct dns_channel *channel, int fd, short events)
{
    uint32_t slot = pool_take(&channel->watch_pool);
    if (slot == POOL_NONE) return;
    struct watch *watch = pool_at(&channel->watch_pool, slot);
    *watch = (struct watch){.fd = fd, .events = events};
    link_append(&channel->watches, &watch->open);
    watch_arm(channel, watch);
}

/* c-ares closes the descriptor as soon as this returns, and the number may come back at once for another socket. The
 * cancel goes to the kernel before whatever is armed for that one. A watch without a poll is the one whose completion
 * is being handled; dns_channel_on_completion() gives its slot back. */
static void watch_close(struct dns_channel *channel, struct watch *watch)
{
    watch->fd = -1;
    link_remove(&watch->open);
    if (watch->armed != 0) watch_cancel(channel, watch);
}

/* ARES_OPT_SOCK_STATE_CB: called when a socket is new, when it wants other events, and with none before its close. */
static void on_socket_state(void *argument, ares_socket_t fd, int readable, int writable)
{
    struct dns_channel *channel = argument;
    if (dns_udp_is_lane(&channel->udp, fd)) return; /* dns_udp watches the real ones */
    struct watch *watch = watch_find(channel, fd);
    short events = (short)((readable ? POLLIN : 0) | (writable ? POLLOUT : 0));
    if (watch == NULL) {
        if (events != 0) watch_open(channel, fd, events);
    } else if (events == 0) {
        watch_close(channel, watch);
    } else {
        watch->events = events; /* the poll in flight is armed anew when it has completed */
        if (watch->armed != 0 && watch->armed != events) watch_cancel(channel, watch);
    }
}

/* An error makes the socket readable and writable: c-ares finds it out by reading, and then closes the socket. */
static void watch_process(struct dns_channel *channel, const struct watch *watch, int32_t result)
{
    if (result == -ECANCELED) return;
    bool broken = result < 0 || (result & (POLLERR | POLLHUP | POLLNVAL)) != 0;
    bool readable = broken || (result & POLLIN) != 0;
    bool writable = (broken && (watch->events & POLLOUT) != 0) || (!broken && (result & POLLOUT) != 0);
    ares_process_fd(channel->tcp, readable ? watch->fd : ARES_SOCKET_BAD, writable ? watch->fd : ARES_SOCKET_BAD);
    expect_timeout(channel);
}

void dns_channel_on_completion(struct dns_channel *channel, const struct ring_completion *completion)
{
    assert(completion->tag.op == channel->options.op);
    uint32_t slot = completion->tag.slot;
    if (slot >= DNS_UDP_SLOT) {
        dns_udp_on_completion(&channel->udp);
        return;
    }
    if (completion->more || slot >= channel->watch_pool.count) return;
    if (!pool_is_taken(&channel->watch_pool, slot)) return;
    if (pool_generation(&channel->watch_pool, slot) != completion->tag.generation) return;

    struct watch *watch = pool_at(&channel->watch_pool, slot);
    assert(watch->armed != 0);
    watch->armed = 0;
    if (watch->fd >= 0) watch_process(channel, watch, completion->result);
    if (watch->fd >= 0)
        watch_arm(channel, watch);
    else
        pool_give(&channel->watch_pool, slot);
}

/* --- its socket functions: UDP is dns_udp's --- */

static ares_socket_t socket_open(int family, int type, int protocol, void *argument)
{
    struct dns_channel *channel = argument;
    if (type != SOCK_DGRAM) return socket(family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol);
    int lane = dns_udp_lane_open(&channel->udp);
    if (lane >= 0) return lane;
    errno = -lane;
    return ARES_SOCKET_BAD;
}

static int socket_close(ares_socket_t fd, void *argument)
{
    struct dns_channel *channel = argument;
    if (!dns_udp_is_lane(&channel->udp, fd)) return close(fd);
    dns_udp_lane_close(&channel->udp, fd);
    return 0;
}

static int socket_connect(ares_socket_t fd, const struct sockaddr *to, ares_socklen_t size, void *argument)
{
    struct dns_channel *channel = argument;
    if (!dns_udp_is_lane(&channel->udp, fd)) {
        int refused = dns_way_take(&channel->way, fd, to, ring_now_ms(channel->options.ring));
        if (refused == 0) return connect(fd, to, size);
        errno = -refused;
        return -1;
    }
    dns_udp_lane_connect(&channel->udp, fd, to, size);
    return 0;
}

static ares_ssize_t socket_send(ares_socket_t fd, const struct iovec *parts, int count, void *argument)
{
    struct dns_channel *channel = argument;
    if (!dns_udp_is_lane(&channel->udp, fd)) {
        struct msghdr message = {.msg_iov = (struct iovec *)(uintptr_t)parts, .msg_iovlen = (size_t)count};
        return sendmsg(fd, &message, MSG_NOSIGNAL);
    }
    int sent = count == 1 ? dns_udp_send(&channel->udp, fd, parts->iov_base, parts->iov_len) : -EINVAL;
    if (sent >= 0) return sent;
    errno = -sent;
    return -1;
}

/* A lane has the one datagram that c-ares is being handed. */
static ares_ssize_t lane_receive(struct dns_channel *channel, int lane_fd, void *data, size_t size,
                                 struct sockaddr *from, ares_socklen_t *from_size)
{
    if (channel->given_lane != lane_fd) {
        errno = EAGAIN;
        return -1;
    }
    channel->given_lane = -1;
    if (channel->given_error != 0) {
        errno = -channel->given_error;
        return -1;
    }
    const struct dns_lane *lane = dns_udp_lane(&channel->udp, lane_fd);
    size_t taken = channel->given_size < size ? channel->given_size : size;
    memcpy(data, channel->given, taken);
    if (from && from_size && *from_size >= lane->to_size) {
        memcpy(from, &lane->to, lane->to_size);
        *from_size = lane->to_size;
    }
    return (ares_ssize_t)taken;
}

static ares_ssize_t socket_receive(ares_socket_t fd, void *data, size_t size, int flags, struct sockaddr *from,
                                   ares_socklen_t *from_size, void *argument)
{
    struct dns_channel *channel = argument;
    if (dns_udp_is_lane(&channel->udp, fd)) return lane_receive(channel, fd, data, size, from, from_size);
    return recvfrom(fd, data, size, flags, from, from_size);
}

static void on_datagram(void *context, int lane_fd, const uint8_t *data, size_t size, int error)
{
    struct dns_channel *channel = context;
    channel->given_lane = lane_fd;
    channel->given = data;
    channel->given_size = size;
    channel->given_error = error;
    ares_process_fd(channel->ares, lane_fd, ARES_SOCKET_BAD);
    channel->given_lane = -1;
    expect_timeout(channel);
}

/* --- questions --- */

static int status_of(int ares_status)
{
    switch (ares_status) {
    case ARES_SUCCESS: return 0;
    case ARES_ENODATA:
    case ARES_ENOTFOUND:
    case ARES_EBADNAME:
    case ARES_EBADFAMILY:
    case ARES_ENONAME: return -ENOENT;
    case ARES_ETIMEOUT: return -ETIMEDOUT;
    case ARES_ENOMEM: return -ENOMEM;
    case ARES_ECANCELLED:
    case ARES_EDESTRUCTION: return -ECANCELED;
    default: return -EIO; /* ECONNREFUSED too: 1.18 says it for ICMP, but also for SERVFAIL from the last server */
    }
}

/* c-ares gives back one pointer, the receiver needs more. */
struct asked {
    struct dns_channel *channel;
    void *question;
    uint16_t type;
    bool by_tcp;
    char name[];
};

static void on_answer(void *argument, int ares_status, int timeouts, unsigned char *answer, int answer_size)
{
    struct asked *asked = argument;
    struct dns_channel *channel = asked->channel;
    int status = status_of(ares_status);
    size_t size = answer && answer_size > 0 ? (size_t)answer_size : 0;
    (void)timeouts;
    if (!asked->by_tcp && (dns_is_truncated(answer, size) || size >= UDP_ANSWER_MAX)) {
        asked->by_tcp = true;
        ares_query(channel->tcp, asked->name, CLASS_IN, asked->type, on_answer, asked);
        return;
    }
    void *question = asked->question;
    free(asked);
    assert(channel->asking > 0);
    channel->asking--;
    if (status == -ECANCELED && channel->reopening) status = DNS_RESTART;
    channel->options.answered(question, status, ares_status == ARES_ENOTFOUND, answer, size);
}

void dns_channel_ask(struct dns_channel *channel, const char *name, uint16_t type, void *question)
{
    size_t name_size = strlen(name) + 1;
    struct asked *asked = malloc(sizeof *asked + name_size);
    if (!asked) {
        channel->options.answered(question, -ENOMEM, false, NULL, 0);
        return;
    }
    *asked = (struct asked){.channel = channel, .question = question, .type = type};
    memcpy(asked->name, name, name_size);
    channel->asking++;
    ares_query(channel->ares, name, CLASS_IN, type, on_answer, asked);
    expect_timeout(channel);
}

/* --- without name servers --- */

struct local {
    struct resolve_result *out;
    uint32_t count, room;
    int family;
};

/* False for families that were not asked for: /etc/hosts may hold both. */
static bool result_from(const struct ares_addrinfo_node *node, int family, struct resolve_result *out)
{
    if (family != AF_UNSPEC && node->ai_family != family) return false;
    *out = (struct resolve_result){0};
    if (node->ai_family == AF_INET) {
        struct sockaddr_in ipv4;
        memcpy(&ipv4, node->ai_addr, sizeof ipv4);
        out->kind = ADDRESS_IPV4;
        memcpy(out->octets, &ipv4.sin_addr, sizeof ipv4.sin_addr);
        return true;
    }
    if (node->ai_family != AF_INET6) return false;
    struct sockaddr_in6 ipv6;
    memcpy(&ipv6, node->ai_addr, sizeof ipv6);
    out->kind = ADDRESS_IPV6;
    memcpy(out->octets, &ipv6.sin6_addr, sizeof ipv6.sin6_addr);
    return true;
}

/* Hosts files repeat themselves. */
static void local_add(struct local *local, const struct resolve_result *result)
{
    for (uint32_t i = 0; i < local->count; i++)
        if (memcmp(&local->out[i], result, sizeof *result) == 0) return;
    if (local->count < local->room) local->out[local->count++] = *result;
}

static void on_local(void *argument, int ares_status, int timeouts, struct ares_addrinfo *found)
{
    struct local *local = argument;
    struct resolve_result result;
    (void)timeouts;
    if (ares_status != ARES_SUCCESS || !found) return;
    for (const struct ares_addrinfo_node *node = found->nodes; node; node = node->ai_next)
        if (result_from(node, local->family, &result)) local_add(local, &result);
    ares_freeaddrinfo(found);
}

/* RFC 6761 section 6.3. */
bool dns_channel_is_localhost(const char *name)
{
    static const char localhost[] = "localhost";
    size_t size = strlen(name), tail = sizeof localhost - 1;
    if (size > 0 && name[size - 1] == '.') size--;
    if (size < tail || memcmp(name + size - tail, localhost, tail) != 0) return false;
    return size == tail || name[size - tail - 1] == '.';
}

static void local_add_loopback(struct local *local)
{
    static const struct resolve_result ipv4 = {ADDRESS_IPV4, {127, 0, 0, 1}}, ipv6 = {ADDRESS_IPV6, {[15] = 1}};
    if (local->family != AF_INET) local_add(local, &ipv6);
    if (local->family != AF_INET6) local_add(local, &ipv4);
}

/* Asked for both families always: c-ares 1.18 leaks the name when it makes up the IPv6 address of a localhost that
 * /etc/hosts knows as IPv4 only. */
uint32_t dns_channel_look_up_local(struct dns_channel *channel, const char *name, int family,
                                   struct resolve_result *out, uint32_t room)
{
    struct local local = {.out = out, .room = room, .family = family};
    struct ares_addrinfo_hints hints = {.ai_family = AF_UNSPEC};
    ares_getaddrinfo(channel->hosts, name, NULL, &hints, on_local, &local); /* answers within the call */
    if (local.count == 0 && dns_channel_is_localhost(name)) local_add_loopback(&local);
    return local.count;
}

enum dns_local dns_channel_local(const struct dns_channel *channel)
{
    const char *order = channel->found.lookups ? channel->found.lookups : "fb";
    const char *files = strchr(order, 'f'), *servers = strchr(order, 'b');
    if (!files) return DNS_LOCAL_NEVER;
    return servers && servers < files ? DNS_LOCAL_LAST : DNS_LOCAL_FIRST;
}

/* --- the search list --- */

static void candidate_write(const char *name, const char *domain, char *out, size_t size)
{
    size_t name_size = strlen(name), domain_size = domain ? strlen(domain) + 1 : 0;
    out[0] = '\0';
    if (name_size + domain_size >= size) return;
    memcpy(out, name, name_size + 1);
    if (!domain) return;
    out[name_size] = '.';
    memcpy(out + name_size + 1, domain, domain_size);
}

/* A name with as many dots as `ndots` says, or more, is tried as it is first, another one last. One with a final dot is
 * tried as it is, and nothing else. */
bool dns_channel_candidate(const struct dns_channel *channel, const char *name, uint32_t index, char *out, size_t size)
{
    uint32_t domains = channel->found.ndomains > 0 ? (uint32_t)channel->found.ndomains : 0;
    int dots = 0;
    for (const char *at = name; *at; at++) dots += *at == '.';
    if (dots > 0 && name[strlen(name) - 1] == '.') domains = 0;
    if (index > domains) return false;
    bool first = dots >= channel->found.ndots;
    bool bare = first ? index == 0 : index == domains;
    candidate_write(name, bare ? NULL : channel->found.domains[first ? index - 1 : index], out, size);
    return true;
}

/* --- opening and closing --- */

/* c-ares asks each server with patience t, then each with 2 t: count * 3 t in all. It is to give up a little before we
 * do. A late answer to an earlier try counts as well, so a short t does no harm.
 * Replaces what resolv.conf's options say about timeout and attempts. */
static uint32_t try_ms(uint32_t timeout_ms, uint32_t server_count)
{
    uint64_t ms = (uint64_t)timeout_ms * 9 / 10 / (3 * (uint64_t)(server_count > 0 ? server_count : 1));
    if (ms < TRY_MS_MIN) return TRY_MS_MIN;
    return ms < TRY_MS_MAX ? (uint32_t)ms : TRY_MS_MAX;
}

static int open_ares(struct dns_channel *channel, uint32_t server_count, int flags, ares_channel *out)
{
    static const struct ares_socket_functions functions = {
        .asocket = socket_open,
        .aclose = socket_close,
        .aconnect = socket_connect,
        .arecvfrom = socket_receive,
        .asendv = socket_send,
    };
    struct ares_options options = {
        .flags = flags,
        .timeout = (int)try_ms(channel->options.timeout_ms, server_count),
        .tries = (int)TRIES,
        .sock_state_cb = on_socket_state,
        .sock_state_cb_data = channel,
        .resolvconf_path = (char *)(uintptr_t)channel->options.resolv_conf,
    };
    int status = ares_init_options(out, &options,
                                   ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_SOCK_STATE_CB |
                                       ARES_OPT_RESOLVCONF);
    if (status == ARES_SUCCESS) ares_set_socket_functions(*out, &functions, channel);
    if (status == ARES_SUCCESS) return 0;
    return status == ARES_ENOMEM ? -ENOMEM : -EIO;
}

static uint32_t count_servers(ares_channel ares)
{
    struct ares_addr_port_node *servers = NULL;
    uint32_t count = 0;
    if (ares_get_servers_ports(ares, &servers) != ARES_SUCCESS) return 1;
    for (const struct ares_addr_port_node *server = servers; server; server = server->next) count++;
    if (servers) ares_free_data(servers);
    return count;
}

/* The patience is fixed by ares_init_options(), the servers of resolv.conf are known only afterwards: hence twice. */
static int open_with_servers(struct dns_channel *channel, struct servers *servers, int flags, ares_channel *out)
{
    uint32_t count = servers->count;
    int error = open_ares(channel, count, flags, out);
    if (error != 0) return error;
    if (count > 0) {
        error = ares_set_servers_ports(*out, servers->nodes) == ARES_SUCCESS ? 0 : -ENOMEM;
    } else if ((count = count_servers(*out)) > 1) {
        ares_destroy(*out);
        error = open_ares(channel, count, flags, out);
        if (error != 0) return error;
    }
    if (error != 0)
        ares_destroy(*out);
    else
        channel->try_ms = try_ms(channel->options.timeout_ms, count);
    return error;
}

/* Out of both channels one is of no use. */
static int open_both(struct dns_channel *channel, struct servers *servers, ares_channel *udp, ares_channel *tcp)
{
    int error = open_with_servers(channel, servers, ARES_FLAG_IGNTC, udp);
    if (error != 0) return error;
    error = open_with_servers(channel, servers, ARES_FLAG_USEVC, tcp);
    if (error != 0) ares_destroy(*udp);
    return error;
}

static void read_found(struct dns_channel *channel)
{
    int mask = 0;
    ares_destroy_options(&channel->found);
    memset(&channel->found, 0, sizeof channel->found);
    channel->found.ndots = 1;
    if (ares_save_options(channel->ares, &channel->found, &mask) == ARES_SUCCESS) return;
    memset(&channel->found, 0, sizeof channel->found); /* no memory: without the search list */
    channel->found.ndots = 1;
}

static struct stat read_conf(const struct dns_channel *channel)
{
    struct stat now;
    if (stat(channel->options.resolv_conf, &now) < 0) memset(&now, 0, sizeof now);
    return now;
}

void dns_channel_set_way(struct dns_channel *channel, const struct egress_terms *terms)
{
    channel->way = (struct dns_way){.terms = *terms};
}

bool dns_channel_is_stale(const struct dns_channel *channel)
{
    struct stat now = read_conf(channel);
    const struct stat *then = &channel->conf;
    return now.st_ino != then->st_ino || now.st_dev != then->st_dev || now.st_size != then->st_size ||
           now.st_mtim.tv_sec != then->st_mtim.tv_sec || now.st_mtim.tv_nsec != then->st_mtim.tv_nsec;
}

/* ares_set_servers() of 1.18 refuses while queries are open, and nothing reads resolv.conf again: so the channel is
 * exchanged. */
int dns_channel_reopen(struct dns_channel *channel, const char *nameservers)
{
    struct servers servers;
    struct stat conf = read_conf(channel); /* before it is read: a change meanwhile is seen next time */
    ares_channel udp, tcp;
    int error = servers_parse(nameservers, &servers);
    if (error == 0) error = open_both(channel, &servers, &udp, &tcp);
    if (error != 0) return error;
    channel->reopening = true;
    ares_destroy(channel->ares);
    ares_destroy(channel->tcp);
    channel->reopening = false;
    channel->ares = udp;
    channel->tcp = tcp;
    channel->conf = conf;
    read_found(channel);
    return 0;
}

static int open_hosts(struct dns_channel *channel)
{
    struct ares_options options = {.lookups = (char *)(uintptr_t) "f"};
    int status = ares_init_options(&channel->hosts, &options, ARES_OPT_LOOKUPS);
    if (status == ARES_SUCCESS) return 0;
    return status == ARES_ENOMEM ? -ENOMEM : -EIO;
}

static int open_parts(struct dns_channel *channel, struct servers *servers)
{
    struct dns_udp *udp = &channel->udp;
    udp->ring = channel->options.ring;
    udp->op = channel->options.op;
    udp->patience_ms = channel->options.timeout_ms > PATIENCE_MS_MIN ? channel->options.timeout_ms : PATIENCE_MS_MIN;
    udp->mismatched = channel->options.mismatched;
    udp->way = &channel->way;
    udp->answered = on_datagram;
    udp->context = channel;
    int error = pool_open(&channel->watch_pool, WATCHES_MAX, sizeof(struct watch));
    if (error == 0) error = dns_udp_open(udp, channel->options.sockets_max);
    if (error != 0) return error;
    error = ares_library_init(ARES_LIB_INIT_ALL) == ARES_SUCCESS ? 0 : -ENOMEM; /* counts, but is not thread-safe */
    if (error != 0) return error;
    channel->conf = read_conf(channel);
    error = open_hosts(channel);
    if (error == 0) error = open_both(channel, servers, &channel->ares, &channel->tcp);
    if (error == 0) {
        read_found(channel);
        return 0;
    }
    if (channel->hosts) ares_destroy(channel->hosts);
    ares_library_cleanup();
    return error;
}

int dns_channel_open(struct dns_channel **out, const struct dns_channel_options *options)
{
    struct servers servers;
    int error = servers_parse(options->nameservers, &servers);
    if (error != 0) return error;
    struct dns_channel *channel = calloc(1, sizeof *channel);
    if (!channel) return -ENOMEM;
    channel->options = *options;
    channel->deadline_ms = UINT64_MAX;
    channel->given_lane = -1;
    link_init(&channel->watches);
    link_init(&channel->udp.open);
    error = open_parts(channel, &servers);
    if (error == 0) {
        *out = channel;
        return 0;
    }
    if (channel->udp.exchanges.slots) dns_udp_close(&channel->udp);
    pool_close(&channel->watch_pool);
    free(channel);
    return error;
}

void dns_channel_close(struct dns_channel *channel)
{
    ares_destroy(channel->ares);
    ares_destroy(channel->tcp);
    assert(channel->asking == 0);
    ares_destroy(channel->hosts);
    ares_destroy_options(&channel->found);
    ares_library_cleanup();
    dns_udp_close(&channel->udp);
    pool_close(&channel->watch_pool);
    free(channel);
}

/* --- time --- */

uint64_t dns_channel_wait_ms(const struct dns_channel *channel, uint64_t now_ms)
{
    if (channel->asking == 0) return UINT64_MAX;
    return channel->deadline_ms > now_ms ? channel->deadline_ms - now_ms : 0;
}

/* c-ares reads a clock of its own; a remaining time is rounded up, so that we do not come a moment too early. */
static uint64_t timeval_ms(const struct timeval *left)
{
    return (uint64_t)left->tv_sec * 1000 + (uint64_t)left->tv_usec / 1000 + 1;
}

void dns_channel_on_time(struct dns_channel *channel, uint64_t now_ms)
{
    struct timeval left, tcp_left;
    dns_udp_on_time(&channel->udp, now_ms);
    if (channel->asking == 0 || now_ms < channel->deadline_ms) return;
    ares_process_fd(channel->ares, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    ares_process_fd(channel->tcp, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    channel->deadline_ms = UINT64_MAX;
    if (ares_timeout(channel->ares, NULL, &left) != NULL) channel->deadline_ms = now_ms + timeval_ms(&left);
    if (ares_timeout(channel->tcp, NULL, &tcp_left) == NULL) return;
    uint64_t tcp_ms = now_ms + timeval_ms(&tcp_left);
    if (tcp_ms < channel->deadline_ms) channel->deadline_ms = tcp_ms;
}
