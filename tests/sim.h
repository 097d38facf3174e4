/* A deterministic simulator: a second body of core/io/ring.h (sim_ring.c) and core/io/net.h (sim_net.c), and what a
 * test may ask of it.
 *
 * There is one simulator in a process, and one thread. A seed, or a string of octets, makes every decision; the clock
 * is virtual and moves only in ring_wait(). Connections are in-process queues: the proxy sees a descriptor, the test
 * the other end (struct sim_conn). While it works the simulator watches the contracts of ring.h and net.h, and aborts
 * with one line when they are broken. */
#ifndef SLUICE_TESTS_SIM_H
#define SLUICE_TESTS_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/io/net.h"
#include "core/io/ring.h"

#define SIM_STREAM_MAX     262144u /* octets that a direction of a connection can hold */
#define SIM_TRANSCRIPT_MAX 1024u   /* octets kept of what the proxy sent first on a connection */
#define SIM_CONNS_MAX      256u
#define SIM_DATAGRAM_MAX   256u /* octets of one */

/* How often the unusual happens: chances in a thousand. */
struct sim_chances {
    uint16_t delay;        /* a ready operation waits for another round */
    uint16_t shorten;      /* a transfer moves less than it could */
    uint16_t cancel_loses; /* an operation completes although it was cancelled, if it can */
    uint16_t multishot;    /* a multishot operation ends for no reason */
    bool old_kernel;       /* its multishot receives know no limit */
    uint16_t no_buffers;   /* ENOBUFS although there are some */
    uint16_t spurious;     /* a poll wakes for nothing */
    uint16_t watch;        /* a watch ends for no reason */
    uint16_t accept;       /* accept fails: EMFILE, ENFILE, ENOBUFS, ENOMEM, ECONNABORTED */
    uint16_t socket;       /* no socket to be had: EMFILE, ENFILE, ENOBUFS, ENOMEM */
    uint16_t pipe;         /* no pipe, or a tiny one */
    uint16_t source;       /* a mark, an interface or a source does not take: ENODEV, EPERM, EADDRNOTAVAIL */
    uint16_t transfer;     /* a receive or send fails: ENOMEM, ETIMEDOUT */
    uint16_t urgent;       /* a splice stops before octets that are there, as it does at urgent data */
};

/* A queue of octets. */
struct sim_bytes {
    uint32_t head, used, room; /* room: octets that it holds at most */
    uint8_t *octets;           /* SIM_STREAM_MAX of them */
};

/* A connection; the test is its far end. Lives until sim_begin(). */
struct sim_conn {
    struct sim_bytes in;     /* to the proxy */
    struct sim_bytes out;    /* from the proxy */
    bool in_ended;           /* the far end has said that it sends no more */
    bool out_ended;          /* the proxy has */
    bool end_read;           /* and the far end has heard it */
    bool broken;             /* reset: nothing moves any more */
    int error;               /* what the proxy's next call will be told, once; 0: nothing */
    bool far_reset;          /* the far end is told ECONNRESET when it has read what is left */
    bool far_closed;         /* the far end is gone */
    bool closing;            /* ring_close() was called with its descriptor */
    bool near_closed;        /* the proxy's descriptor is closed */
    uint64_t near_closed_us; /* since when */
    bool no_splice;          /* splice(2) says EINVAL */
    uint64_t sent;           /* octets that the proxy's sends and splices have put in */
    uint32_t transcript_size;
    uint8_t transcript[SIM_TRANSCRIPT_MAX];
    struct net_address near_address, far_address;
    void *owner; /* the test's */
    uint8_t way; /* of its verdict */
};

/* What becomes of a connect. */
struct sim_verdict {
    int error;         /* 0: success; -errno */
    bool never;        /* no answer at all */
    uint64_t delay_us; /* until the answer */
    uint32_t room_in, room_out;
    bool no_splice;
    void *owner; /* of the connection */
    uint8_t way; /* and by which of his addresses */
};

/* What the test provides. */
struct sim_world_ops {
    /* Lets the world act once. True if anything moved, or could have; *wake_us: when it wants to be asked again at the
     * latest. */
    bool (*act)(void *world, uint64_t *wake_us);
    void (*on_connect)(void *world, const struct net_address *to, struct sim_verdict *verdict);
    void (*on_established)(void *world, struct sim_conn *conn);
    void (*on_reset)(void *world, int fd); /* it is about to be closed with a reset; NULL: nobody cares */
    /* A datagram has left the proxy; NULL: nobody listens. */
    void (*on_datagram)(void *world, const struct net_address *from, const struct net_address *to, const uint8_t *data,
                        size_t size);
};

/* Forgets everything and starts anew. script: decisions come from there until it is used up, then from the seed. */
void sim_begin(uint64_t seed, const uint8_t *script, size_t script_size, const struct sim_world_ops *ops, void *world);
struct sim_chances *sim_get_chances(void);
void sim_set_descriptor_limit(uint32_t limit);
uint64_t sim_now_us(void);
/* Says what is wrong and aborts. */
_Noreturn void sim_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
void sim_trace(const char *format, ...) __attribute__((format(printf, 1, 2))); /* one line if SIM_TRACE is set */

/* What has been true between two moments. */
enum sim_while { SIM_NEVER, SIM_SOMETIMES, SIM_ALWAYS };

/* --- decisions --- */
uint64_t sim_random(void);
uint32_t sim_below(uint32_t bound);                  /* 0 ... bound - 1 */
uint32_t sim_between(uint32_t least, uint32_t most); /* both included */
bool sim_chance(uint32_t in_thousand);

/* --- the far end --- */
int sim_listen(uint16_t port); /* a listening socket's descriptor, for a worker */
/* Connects to whatever listens there. NULL: nothing does, or its queue is full. */
struct sim_conn *sim_connect(uint16_t port, uint32_t room_in, uint32_t room_out, bool no_splice);
/* A connected descriptor that somebody else than the worker has opened, to be lent; its far end is *conn. -EMFILE. */
int sim_lend(struct sim_conn **conn, uint32_t room_in, uint32_t room_out);
/* It came back and is closed by its owner, whose it must still be. */
void sim_take_back(int fd, const struct sim_conn *conn);
size_t sim_write(struct sim_conn *conn, const void *data, size_t size); /* octets taken; 0 also when it is broken */
int32_t sim_read(struct sim_conn *conn, void *data, size_t size);       /* octets, 0 at the end, -EAGAIN, -ECONNRESET */
void sim_end(struct sim_conn *conn);                                    /* shutdown(SHUT_WR) */
/* A datagram for the proxy's socket on that port, at most SIM_DATAGRAM_MAX octets. False: nothing is bound there, or
 * its queue is full: it is lost. */
bool sim_datagram(uint16_t port, const struct net_address *from, const void *data, size_t size);
bool sim_close(struct sim_conn *conn);            /* true: orderly; false: as a reset */
void sim_reset(struct sim_conn *conn, int error); /* the proxy is told this errno; what is under way may be lost */

/* --- for checks --- */
uint32_t sim_descriptors(void);                  /* open ones */
uint32_t sim_waiting(void);                      /* connections that nobody has accepted yet */
uint32_t sim_in_flight(const struct ring *ring); /* operations whose last completion was not handed out */
uint32_t sim_group_level(const struct ring *ring, uint16_t group); /* buffers with the kernel */
/* For workers: nothing listens in there. One for all seeds, its memory taken once. */
struct own *sim_own(void);
/* As ring_wake() from a thread outside. */
void sim_wake(struct ring *ring, struct ring_tag tag);

#endif
