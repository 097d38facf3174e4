/* The client's end of a measurement: many flows through a proxy on one thread and one epoll set.
 *
 * The life of a flow:
 *   CLOSED -> CONNECT -> GREETING -> AUTH -> REQUEST -> FILL -> PARKED -> RUN -> FINISH -> CLOSED
 * where a way without a handshake leaves out three of them, and FILL is for --fill. PARKED flows wait for all others,
 * so that a measurement begins with every flow open; modes that churn never park. Events are hints only: every decision
 * is made on what a system call answered, so that an event left over from the previous owner of a descriptor does no
 * harm. */
#ifndef SLUICE_BENCH_CLIENT_H
#define SLUICE_BENCH_CLIENT_H

#include "bench/histogram.h"
#include "bench/names.h"
#include "bench/stream.h"
#include "bench/via.h"
#include "bench/wire.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

enum { HEAD_SIZE = 1024 }; /* longest handshake reply, or head of an HTTP answer, that we accept */

enum phase {
    PHASE_CLOSED,   /* no descriptor */
    PHASE_CONNECT,  /* connecting to the proxy, or to the target itself */
    PHASE_GREETING, /* SOCKS5: methods sent */
    PHASE_AUTH,     /* SOCKS5: user and password sent */
    PHASE_REQUEST,  /* target sent */
    PHASE_FILL,     /* --fill: the octets that each flow is to have moved are coming */
    PHASE_PARKED,   /* open, waiting for the others */
    PHASE_RUN,      /* doing what the mode does */
    PHASE_FINISH,   /* our end of stream sent, waiting for the other */
};

struct flow {
    int fd;
    enum phase phase;
    uint16_t head_size; /* octets of the reply received */
    bool rests;         /* in client.resting, see pace.h */
    bool keeps;         /* http: the connection may carry another request */
    bool ends;          /* http: the end of the stream is behind the answer already */
    bool owes;          /* http: the proxy ended it before it had our request, which goes out on the next one */
    uint32_t got;       /* octets of the present message, or of what --fill wants, received */
    uint32_t put;       /* octets of the present message sent */
    uint32_t rounds;    /* http: answers on this connection */
    int64_t body;       /* http: length of the answer's body, -1 while its head is not complete */
    uint64_t at;        /* bulk: octets received */
    uint64_t opened;    /* clock_ns() when the connection was, or at a rate should have been, started */
    uint64_t sent;      /* the same of the present message */
    struct sockaddr_in target;
    struct verify_end *verify;
    struct association *association;
    TAILQ_ENTRY(flow) resting;
    uint8_t head[HEAD_SIZE];
};

struct client;

/* What a kind of measurement does with an open flow. */
struct mode {
    const char *name;
    void (*start)(struct client *c, struct flow *f);
    void (*run)(struct client *c, struct flow *f, uint32_t events); /* what arrived or may be sent */
    void (*tick)(struct client *c, struct flow *f);                 /* now and then, of running flows; or NULL */
    bool churns;                                                    /* closed flows are opened again */
    uint32_t (*events)(const struct client *c);                     /* other epoll events than the handshake's */
};

enum role { ROLE_CLIENT, ROLE_ORIGIN, ROLE_NAMES };

struct options {
    enum role role;
    const struct mode *mode;
    enum via via;
    struct sockaddr_in proxy, target, source, listen;
    unsigned flows, targets;
    unsigned idle_flows; /* rtt: beside `flows`, each with one round trip in idle_every seconds */
    unsigned in_flight;  /* udp: datagrams of an association */
    double seconds, warmup, timeout, idle_every;
    double pace; /* bulk: Mbit/s of all flows together, 0: as fast as it goes */
    double rate; /* operations per second, begun whether or not earlier ones are over; 0: as fast as they can */
    uint64_t bytes;
    uint32_t message; /* octets of a round trip each way, of a datagram's payload, of an HTTP body */
    const char *user, *password, *device;
    bool upload, read, check, fill, orderly, echo, announce, have_proxy, have_target, by_name, fresh_names, paced;
    uint16_t port;
};

TAILQ_HEAD(flow_list, flow);

/* Operations at a rate, see pace.h. */
struct pace {
    double interval_ns; /* 0: nothing is paced */
    double next_ns;     /* clock_ns() at which the next operation should begin */
    uint64_t begun;     /* operations */
    struct flow_list resting;
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
    size_t unseen;   /* of these before the measurement, where they are opened again and again */
    size_t finished; /* verify: flows compared */
    size_t total;    /* flows of all kinds */
    struct pace pace;
    bool stopping; /* nothing is opened any more */
    uint64_t bytes, rounds, errors, timeouts, mismatches, lost;
    char first_error[96];
    struct histogram times;
};

/* flow.c: from a free slot to a way that is open, and back */
void flow_open(struct client *c, struct flow *f, uint64_t now); /* now: clock_ns(), or when it should have been */
void flow_run(struct client *c, struct flow *f);                /* a PARKED one begins what the mode does */
void flow_on_event(struct client *c, struct flow *f, uint32_t events);
void flow_release(struct client *c, struct flow *f); /* over, its descriptor closed by the caller: the slot is free */
void flow_fail(struct client *c, struct flow *f, const char *what);
void flow_count(struct client *c, struct flow *f, uint64_t begin); /* an operation of f that began then is over */
void flow_fail_read(struct client *c, struct flow *f, ssize_t result);

/* modes.c, http.c, udp.c */
extern const struct mode mode_bulk, mode_rtt, mode_connect, mode_idle, mode_verify, mode_http, mode_udp;
const struct mode *mode_find(const char *name); /* NULL: there is none of that name */

/* udp.c: the datagrams of a flow have a socket of their own, whose key in the epoll set has this bit. */
#define KEY_ASSOCIATION (UINT32_C(1) << 31)
bool association_open(struct client *c, struct flow *f, const struct sockaddr_in *relay); /* false: f failed */
void association_on_event(struct client *c, struct flow *f);
void association_close(struct flow *f); /* none: nothing happens */

/* options.c: fills in what is not given; ends the program on --help and on errors */
void parse_options(struct options *o, int count, char **arguments);

#endif
