#include "core/session/machine.h"

#include <assert.h>
#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/io/net.h"
#include "core/session/policy.h"

#define ANSWER_SIZE 1024u /* of one route, some 150 octets */

struct route_get {
    struct nlmsghdr head;
    struct rtmsg route;
    struct rtattr to;
    uint8_t octets[16];
};

int machine_open(void)
{
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, NETLINK_ROUTE);
    return fd < 0 ? -errno : fd;
}

void machine_close(int machine)
{
    if (machine >= 0) net_close(machine);
}

static bool machine_ask(int machine, const struct address *address)
{
    size_t size = address->kind == ADDRESS_IPV4 ? 4 : 16;
    struct route_get request = {
        .head = {.nlmsg_type = RTM_GETROUTE, .nlmsg_flags = NLM_F_REQUEST},
        .route = {.rtm_family = address->kind == ADDRESS_IPV4 ? AF_INET : AF_INET6, .rtm_dst_len = (uint8_t)(size * 8)},
        .to = {.rta_type = RTA_DST, .rta_len = (uint16_t)RTA_LENGTH(size)},
    };
    request.head.nlmsg_len = (uint32_t)(NLMSG_LENGTH(sizeof request.route) + RTA_LENGTH(size));
    memcpy(request.octets, address->ipv6, size);
    return send(machine, &request, request.head.nlmsg_len, MSG_DONTWAIT) == (ssize_t)request.head.nlmsg_len;
}

/* The kernel answers within the call that asks, so that the answer is there. 1: the route ends here; 0: it does not, or
 * there is none; -1: no answer. */
static int machine_hear(int machine)
{
    _Alignas(struct nlmsghdr) uint8_t answer[ANSWER_SIZE];
    struct nlmsghdr head;
    struct rtmsg route;
    ssize_t got = recv(machine, answer, sizeof answer, MSG_DONTWAIT);
    if (got < (ssize_t)sizeof head) return -1;
    memcpy(&head, answer, sizeof head);
    if (head.nlmsg_type != RTM_NEWROUTE || (size_t)got < NLMSG_LENGTH(sizeof route)) return 0;
    memcpy(&route, answer + NLMSG_HDRLEN, sizeof route);
    return route.rtm_type == RTN_LOCAL;
}

/* Without netlink: to an address of its own a machine speaks from that address, unless it is a secondary one. */
static bool machine_guess(const struct address *address)
{
    struct net_address to, from;
    struct address source, wanted = *address;
    wanted.port = 9;
    if (!net_address_from(&wanted, &to) || net_route_source(&to, NULL, 0, &from) < 0) return false;
    if (!net_address_to(&from, &source)) return false;
    source.port = wanted.port;
    return address_equal(&source, &wanted);
}

bool machine_has(int machine, const struct address *address)
{
    assert(address->kind == ADDRESS_IPV4 || address->kind == ADDRESS_IPV6);
    if (policy_classify(address) == POLICY_LOOPBACK) return true;
    int answer = machine >= 0 && machine_ask(machine, address) ? machine_hear(machine) : -1;
    return answer < 0 ? machine_guess(address) : answer == 1;
}
