/* One thread of the data path: its ring, its pools, and its ways to other threads. Everything in it belongs to that
 * thread, except the queues' far ends and the sleeper. worker_loop.h runs it. */
#ifndef SLUICE_CORE_SESSION_WORKER_H
#define SLUICE_CORE_SESSION_WORKER_H

#include "core/io/buffers.h"
#include "core/io/letter.h"
#include "core/io/list.h"
#include "core/io/mailbox.h"
#include "core/io/pipes.h"
#include "core/io/pool.h"
#include "core/io/queue.h"
#include "core/io/ring.h"
#include "core/io/share.h"
#include "core/io/timer.h"
#include "core/resolver/resolve.h"
#include "core/session/config.h"
#include "core/session/egress_rests.h"
#include "core/session/errand.h"
#include "core/session/name_cache.h"
#include "core/session/own.h"
#include "core/session/stats.h"
#include "core/session/verdicts.h"
#include "core/session/verified.h"

struct access_feed;
struct conn_cache;
struct crowd;
struct upstream_groups;
struct keys;
struct tally;
struct udp;
struct udp_chains;

enum worker_op {
    WORKER_OP_WAKE = 1,     /* somebody has put a message into our queue */
    WORKER_OP_ACCEPT,       /* slot: listener */
    WORKER_OP_UDP_SEND,     /* slot: buffer of the UDP group */
    WORKER_OP_CONN,         /* slot: of the connection cache */
    WORKER_OP_SESSION = 16, /* + enum session_op; slot and generation: session */
};

/* Turns after which a worker takes itself to be bulk's alone, and by how much a turn is longer then. */
#define WORKER_CALM_TURNS  64u
#define WORKER_CALM_FACTOR 8u
/* Such a worker is woken for several of many flows together: for a sixteenth of those that wait, so many at most, and
 * after so long at the latest. */
#define WORKER_BATCH_SHARE 16u
#define WORKER_BATCH_MAX   16u
#define WORKER_BATCH_US    200u

/* Counters of pools that give their addresses in turn. */
#define EGRESS_TURNS   64u
#define EGRESS_WARN_MS 10000u /* between two lines that say why no connection leaves */

struct listener {
    int fd;             /* -1: closed */
    bool armed;         /* accept in flight */
    bool shared;        /* the descriptor is used by other workers too: a Unix socket */
    uint64_t resume_ms; /* paused until then because descriptors ran out; 0: not paused */
};

/* Flows that gather in one turn (see FLOW_GATHERS); those beyond send at once. */
#define WORKER_GATHER_MAX 128u

struct gatherer {
    uint32_t slot, generation; /* of the session */
    uint8_t from;              /* the side */
};

struct worker {
    struct ring *ring;
    const struct config *config; /* may be replaced while we run: never kept across a wait */
    uint32_t index;
    /* How often the process was asked to stop: once, sessions may end by themselves for --drain; again, they may not.
     * Written by the coordinator or, while Lua holds that, by the supervisor. */
    const _Atomic uint32_t *stops;
    uint32_t stops_seen;
    bool draining; /* asked to stop: no new connections */
    bool stopped;  /* the last session is gone */
    uint64_t drain_until_ms;
    uint64_t trim_ms;      /* when spare buffers are looked at next */
    bool scarce;           /* receive buffers are, see scarcity.h */
    uint32_t bulk_left;    /* octets that bulk flows may still move in this turn */
    uint32_t polls;        /* of bulk flows that are in flight */
    uint32_t served;       /* of them, in the last turn */
    uint32_t calm_turns;   /* in a row, in which nothing but bulk flows had anything to do */
    struct link starved;   /* flows that wait for buffers, in the order of their coming */
    struct link deferred;  /* flows that go on as soon as bulk_left allows it, likewise */
    uint32_t gather_count; /* of them, in this turn */
    struct gatherer gatherers[WORKER_GATHER_MAX];
    struct timer_wheel *rests; /* flows that may not move before a time of their own: slot * 2 + side, microseconds */
    _Atomic int spare_fd;      /* see spare.h; other workers may take it, too */
    uint64_t random;           /* state of a small generator for --max-startups */
    uint64_t egress_turns[EGRESS_TURNS], egress_drawn, egress_warn_ms; /* see egress.h */
    struct egress_rests egress_rests;
    struct pool sessions, setups, exchanges;
    struct share exchanges_held;
    struct pool heads;          /* see head_buffer.h */
    struct udp *udp;            /* NULL before the first association */
    struct udp_chains *chains;  /* of proxies for datagrams; NULL: there was none yet */
    struct timer_wheel *timers; /* by session slot */
    struct buffers buffers;
    struct pipes pipes;
    struct listener listeners[CONFIG_LISTENERS_MAX];
    struct verdicts verdicts;
    struct verifier *verifier; /* of the process; NULL: no listener has users */
    struct verified verified;
    const _Atomic uint32_t *revision;     /* of the ruleset; 0: there is none, nobody is asked */
    struct crowd *crowd;                  /* of handshakes, see crowd.h */
    struct access_feed *access;           /* to the log; NULL: there is none */
    struct pool notes;                    /* as many as sessions where there is one, see access.h */
    struct conn_cache *conns;             /* NULL: upstream connections are not kept */
    struct own *own;                      /* of the process */
    struct keys *keys;                    /* of the process; NULL: nobody is under a limit */
    const struct upstream_groups *groups; /* of upstreams; may be replaced as `config`; NULL: there are none */
    struct tally *tally;                  /* NULL: it is not counted who moves how much */
    int machine;                          /* to ask the kernel what is ours, see machine.h */
    struct stats stats;
    struct worker **peers; /* all workers of the process, for process-wide limits */
    uint32_t peer_count;
    uint64_t measured; /* sessions that we had at the end of the last turn */

    struct sleeper sleeper;        /* ours */
    struct mailbox coordinator;    /* what we ask of it, and the errands that it gets back */
    struct queue *inbox;           /* its answers and errands */
    struct errand_returns returns; /* errands that are done and wait for room in its queue */
    struct mailbox resolver;       /* names that we ask for */
    struct name_cache name_cache;
    const struct pipe *pipes_ahead; /* made while the process had its privileges; they become `pipes` */
    uint32_t pipes_ahead_count;
    const struct resolve_stats *resolver_stats; /* of which only the revision is looked at */
    struct queue *names;                        /* its answers */
    struct letter_box letters;                  /* answers of the checkers */
};

/* Octets that bulk flows may move in the next turn: more when nobody else has had anything to do for a while, because a
 * turn costs something, too. */
static inline uint32_t worker_bulk_turn(const struct worker *w)
{
    return w->calm_turns < WORKER_CALM_TURNS ? w->config->bulk_turn : w->config->bulk_turn * WORKER_CALM_FACTOR;
}

/* For how many completions the next turn waits: more than one while many bulk flows are busy and nobody else has had
 * anything to do for a while. If the last turn had none of theirs, those that wait are not busy. */
static inline unsigned worker_batch(const struct worker *w)
{
    if (w->calm_turns < WORKER_CALM_TURNS || w->served == 0) return 1;
    uint32_t share = w->polls / WORKER_BATCH_SHARE;
    return share < 2 ? 1 : share < WORKER_BATCH_MAX ? share : WORKER_BATCH_MAX;
}

/* Sends the coordinator a message. False: its queue is full. */
bool worker_post(struct worker *w, const struct message *message);
/* Sends the resolver a question; the same. */
bool worker_ask(struct worker *w, const struct message *question);

/* Sends back an errand that is done. Errands fill a quarter of the queue to the coordinator at most, whose rest is for
 * what may not wait (config_size()); those beyond it wait on the worker. So the coordinator may lend as many errands as
 * it likes while it does not read, and any number of relays may end at once. */
void worker_return(struct worker *w, struct errand *errand, int32_t result);
void worker_return_more(struct worker *w); /* in each turn: those that wait and now have room */
static inline bool worker_returns_wait(const struct worker *w)
{
    return w->returns.first != NULL;
}

#endif
