/* The client's end of a measurement: many flows through a proxy on one thread and one epoll set.
 *
 * The life of a flow:
 *   CLOSED -> CONNECT -> GREETING -> AUTH -> REQUEST -> PARKED -> RUN -> FINISH -> CLOSED
 * where a way without a handshake goes from CONNECT to PARKED. PARKED flows wait for all others, so that a
 * measurement begins with every flow open; `connect` never parks. Events are hints only: every decision is made on
 * what a system call answered, so that an event left over from the previous owner of a descriptor does no harm. */
#ifndef SLUICE_BENCH_CLIENT_H
#define SLUICE_BENCH_CLIENT_H

#include "bench/histogram.h"
#include "bench/stream.h"
#include "bench/via.h"
#include "bench/wire.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { HEAD_SIZE = 512 }; /* longest handshake reply that we accept */

enum phase {
    PHASE_CLOSED,   /* no descriptor */
    PHASE_CONNECT,  /* connecting to the proxy, or to the target itself */
    PHASE_GREETING, /* SOCKS5: methods sent */
    PHASE_AUTH,     /* SOCKS5: user and password sent */
    PHASE_REQUEST,  /* target sent */
    PHASE_PARKED,   /* open, waiting for the others */
    PHASE_RUN,      /* doing what the mode does */
    PHASE_FINISH,   /* our end of stream sent, waiting for the other */
};

struct flow {
    int fd;
    enum phase phase;
    uint16_t head_size; /* octets of the reply received */
    uint16_t got;       /* octets of the present message received */
    uint64_t opened;    /* clock_ns() when the connection was started */
    uint64_t sent;      /* clock_ns() when the present message was sent */
    struct sockaddr_in target;
    struct verify_end *verify;
    uint8_t head[HEAD_SIZE];
};

struct client;

/* What a kind of measurement does with an open flow. */
struct mode {
    const char *name;
    void (*start)(struct client *c, struct flow *f);
    void (*run)(struct client *c, struct flow *f, uint32_t events); /* what arrived or may be sent */
    bool churns;                                                    /* closed flows are opened again */
    uint32_t (*events)(const struct client *c);                     /* other epoll events than the handshake's */
};

struct options {
    const struct mode *mode; /* NULL: we are the origin */
    enum via via;
    struct sockaddr_in proxy, target, source;
    unsigned flows, targets;
    double seconds, warmup, timeout;
    uint64_t bytes;
    const char *user, *password;
    bool upload, read, orderly, echo, announce, have_proxy, have_target;
    uint16_t port;
};

struct client {
    struct options o;
    int epoll;
    struct flow *flows;
    uint32_t *closed; /* a stack of flows to open */
    size_t closed_count;
    size_t opening;  /* flows between CONNECT and PARKED */
    size_t open;     /* flows PARKED, RUN or FINISH */
    size_t opened;   /* flows ever started */
    size_t finished; /* verify: flows compared */
    bool stopping;   /* nothing is opened any more */
    uint64_t bytes, rounds, errors, timeouts, mismatches;
    char first_error[96];
    struct histogram times;
};

/* flow.c: from a free slot to a way that is open, and back */
void flow_open(struct client *c, struct flow *f);
void flow_run(struct client *c, struct flow *f); /* a PARKED one begins what the mode does */
void flow_on_event(struct client *c, struct flow *f, uint32_t events);
void flow_release(struct client *c, struct flow *f); /* over, its descriptor closed by the caller: the slot is free */
void flow_fail(struct client *c, struct flow *f, const char *what);
void flow_fail_read(struct client *c, struct flow *f, ssize_t result);

/* modes.c */
extern const struct mode mode_bulk, mode_rtt, mode_connect, mode_idle, mode_verify;
const struct mode *mode_find(const char *name); /* NULL: there is none of that name */

/* options.c: fills in what is not given; ends the program on --help and on errors */
void parse_options(struct options *o, int count, char **arguments);

#endif
