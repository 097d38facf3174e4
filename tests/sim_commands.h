/* The two rarer commands of SOCKS5, BIND and UDP ASSOCIATE, beside the sessions of a simulated world: one of each at a
 * time. */
#ifndef SLUICE_TESTS_SIM_COMMANDS_H
#define SLUICE_TESTS_SIM_COMMANDS_H

#include "protocols/address.h"
#include "tests/sim.h"

#define SIM_COMMAND_HEARD_MAX 512u

/* A client that has asked for a command, and its TCP connection. */
struct commander {
    struct sim_conn *conn; /* NULL: there is none now */
    uint8_t heard[SIM_COMMAND_HEARD_MAX];
    uint32_t heard_size;
    uint64_t leaves_us;
};

/* One direction of a BIND's stream: octet number n is a function of n. */
struct bind_stream {
    uint32_t to_send, sent, received;
    bool ended, closed; /* the sender has announced its end; has gone in another way */
};

struct bind_plan {
    struct commander client;
    struct sim_conn *peer;
    uint32_t heads; /* octets that the replies have: the stream begins behind them */
    bool stranger;  /* the peer is not the one that was asked for */
    bool came;      /* it has connected, or will not */
    struct bind_stream up, down;
};

struct udp_plan {
    struct commander client;
    struct net_address at;    /* where the association is; size 0: not known yet */
    struct net_address home;  /* where its client sends from */
    struct net_address outer; /* the socket that targets have seen last */
    uint32_t sent, arrived;   /* of all associations of this world */
};

struct commands {
    bool on;      /* this world has some */
    bool ruled;   /* a ruleset decides, which sends an alias of the target there */
    uint8_t hops; /* proxies that datagrams have to pass */
    uint16_t port;
    struct bind_plan bind;
    struct udp_plan udp;
    uint32_t asked;    /* commands so far */
    uint64_t moved_us; /* when one of them was last under way */
};

/* Where proxy number `hop` of a chain takes datagrams. */
struct address commands_relay(unsigned hop);
/* What the ruleset says of the target of a datagram. */
void commands_redirect(struct address *target);
/* True if anything moved. */
bool commands_act(struct commands *commands, bool stopping, uint64_t *wake_us);
/* A datagram has left the proxy. */
void commands_on_datagram(struct commands *commands, const struct net_address *from, const struct net_address *to,
                          const uint8_t *data, size_t size);
bool commands_all_gone(const struct commands *commands);

#endif
