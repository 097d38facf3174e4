/* The thread that answers what workers must not wait for: routing decisions where there is a ruleset (names are the
 * resolver thread's, see resolver_thread.h). It also starts the workers. It runs on the main thread, with a ring of its
 * own. Signals, the API's connections and the end of a process whose scripts do not return are the supervisor's
 * (supervisor.h).
 *
 *   worker --outbox--> coordinator --inbox--> worker        two queues per worker, one producer and one consumer each
 *
 * Lua and what the API asks of it live on this thread too, and know more than it does: they hook in from above (struct
 * coordinator_hooks, struct waiter, struct letter), so that core/ knows neither. Every function here is called on that
 * thread, except those that say "any thread". */
#ifndef SLUICE_CORE_CONTROL_COORDINATOR_H
#define SLUICE_CORE_CONTROL_COORDINATOR_H

#include "core/control/heartbeat.h"
#include "core/io/letter.h"
#include "core/io/ring.h"
#include "core/resolver/resolver_thread.h"
#include "core/session/config.h"
#include "core/session/errand_kinds.h"
#include "core/session/own.h"
#include "core/session/route_request.h"
#include "core/session/stats.h"

struct coordinator;

/* Opens ring and resolver. One log line and -errno on failure. `config` lives as long as the coordinator. */
int coordinator_open(struct coordinator **out, const struct config *config);
/* Takes over the listening sockets, fds[worker * listener_count + listener], starts the workers and waits until each
 * is ready to accept, or one has failed: then all are stopped. 0 or -errno. */
int coordinator_start(struct coordinator *c, const int *fds);
/* Answers until somebody has asked to stop and every worker has stopped. 0, or -errno. */
int coordinator_run(struct coordinator *c);
/* One turn of that: for tests, which have no workers. */
int coordinator_turn(struct coordinator *c);
/* Everything that waits has been detached before. */
void coordinator_close(struct coordinator *c);

/* --- from above --- */

struct coordinator_hooks {
    void *context;
    /* A routing question, or the same one again when its ROUTE_TRY has failed. The receiver owns it until
     * coordinator_answer(). */
    void (*on_route)(void *context, struct route_request *request);
    /* Nobody waits for this question's verdict any more: it is still to be answered. If the messages crossed it has
     * been answered already; then a ROUTE_TRY has ended with this, too. */
    void (*on_cancel)(void *context, uint32_t worker, uint32_t slot, uint32_t generation);
    /* A ROUTE_TRY has ended. result 0: the relay runs; else the session is gone. */
    void (*on_routed)(void *context, uint32_t worker, uint32_t slot, uint32_t generation, int32_t result);
    void (*on_turn)(void *context);   /* behind the work of every turn */
    void (*on_reload)(void *context); /* coordinator_reload() */
    void (*on_stop)(void *context);   /* the drain is over: answer every question, end what waits */
};
/* Before coordinator_start(). Without hooks nobody asks for routes. */
void coordinator_set_hooks(struct coordinator *c, const struct coordinator_hooks *hooks);

/* Somebody else who wants to hear of SIGHUP, behind on_reload; one at most. */
void coordinator_set_reload(struct coordinator *c, void (*reload)(void *context), void *context);
void coordinator_reload(struct coordinator *c); /* SIGHUP: asks them all */

/* Workers ask for routes while `revision` is not zero; verdicts that they remember hold for one revision. */
void coordinator_set_revision(struct coordinator *c, uint32_t revision);
uint32_t coordinator_revision(const struct coordinator *c); /* any thread */
/* The verdict stands in the request. result < 0: as if it were ROUTE_REJECT. */
void coordinator_answer(struct coordinator *c, struct route_request *request, int32_t result);

/* Something of ours that waits for the ring or for time: a script's sleep, a peer's answer, the API's epoll. Part of
 * its owner's struct. While an operation of it is in flight it stays attached. */
struct waiter {
    void (*on_completion)(struct waiter *self, unsigned op, const struct ring_completion *completion);
    void (*on_time)(struct waiter *self); /* its deadline has come and is cleared */
    uint32_t slot;
};
#define COORDINATOR_WAITERS_MAX 65536u
#define COORDINATOR_WAITER_OPS  8u
/* False: too many wait already. */
bool coordinator_attach(struct coordinator *c, struct waiter *waiter);
void coordinator_detach(struct coordinator *c, struct waiter *waiter); /* nothing is in flight; clears the deadline */
/* op < COORDINATOR_WAITER_OPS, the waiter's own names for its operations. */
struct ring_tag coordinator_tag(const struct coordinator *c, const struct waiter *waiter, unsigned op);
void coordinator_set_deadline(struct coordinator *c, struct waiter *waiter, uint64_t deadline_ms); /* ring_now_ms() */
/* The same to the microsecond, ring_now_us(). It comes some tens of microseconds late, never early. */
void coordinator_set_deadline_us(struct coordinator *c, struct waiter *waiter, uint64_t deadline_us);
void coordinator_clear_deadline(struct coordinator *c, struct waiter *waiter);

struct ring *coordinator_ring(struct coordinator *c);
uint64_t coordinator_now_ms(const struct coordinator *c);
/* The deadline that lies wait_ms ahead. Scripts may have been running since that clock was read, for seconds even: what
 * they wait for counts from here, and is never shorter than they asked. */
uint64_t coordinator_after_ms(uint64_t wait_ms);
uint64_t coordinator_after_us(uint64_t wait_us);
/* A question of ours to the resolver: `answered` is called once, from the top of our loop and never from within this
 * call; the request is the resolver's until then. Status -ECANCELED when the process stops. 0; or -ECANCELED, it stops
 * already, or -EAGAIN, too many are open: then `answered` is not called. */
struct resolve_question {
    struct resolve_request request;
    void (*answered)(struct resolve_question *self, int status);
};
int coordinator_resolve(struct coordinator *c, struct resolve_question *question);
struct resolve_counts coordinator_resolve_counts(const struct coordinator *c);
int coordinator_set_nameservers(struct coordinator *c, const char *nameservers); /* takes effect soon */

/* Lends an errand to a worker; done() is called when it comes back, with -ECANCELED when the process stops first.
 * False: the queue is full, or the worker has stopped; done() is not called then. */
bool coordinator_may_send(const struct coordinator *c, uint32_t worker); /* the next coordinator_send() will do it */
bool coordinator_send(struct coordinator *c, uint32_t worker, struct errand *errand);
/* A connection to `target` by way of -x and `hops`, made by a worker: our end of a socket pair, non-blocking, on which
 * the first octet is 0 or an enum failure (struct dial_errand); or -errno. */
int coordinator_dial(struct coordinator *c, const struct address *target, const struct proxy_uri *hops,
                     uint8_t hop_count, uint32_t timeout_ms);
/* Lets all workers, and ourselves, obey other settings. Takes over `fresh` (malloc), whose derived sizes and listeners
 * become those of the one in force. 0 or -errno, then nothing has changed and `fresh` is still the caller's. */
int coordinator_configure(struct coordinator *c, struct config *fresh);
const struct config *coordinator_config(const struct coordinator *c);

/* What the process listens on: whoever opens a socket for others to connect to adds it here. */
struct own *coordinator_own(const struct coordinator *c);

uint32_t coordinator_worker_count(const struct coordinator *c); /* 0 before coordinator_start() */
const struct stats *coordinator_worker_stats(const struct coordinator *c, uint32_t worker);
const struct ring_stats *coordinator_ring_stats(const struct coordinator *c, uint32_t worker);
/* Messages that wait now: to the coordinator, to the worker. */
void coordinator_queue_depths(const struct coordinator *c, uint32_t worker, uint32_t *to_us, uint32_t *to_worker);
/* Asks the process to stop, as SIGTERM does: workers accept no more and let sessions finish for --drain; asked again,
 * the drain is over. */
void coordinator_stop(struct coordinator *c);
/* The same for a script that ends the process, with the status that main returns then, 0 to 255. The first one counts.
 * Before coordinator_start() it only notes the status. */
void coordinator_exit(struct coordinator *c, int status);
int coordinator_exit_status(const struct coordinator *c); /* -1: nobody has; any thread */
/* Sessions that had to be reset because the drain was over. */
uint64_t coordinator_drain_resets(const struct coordinator *c);

/* --- from other threads --- */

/* coordinator_stop() from any thread that has a ring of its own, `ring`: the workers are told without the coordinator,
 * which Lua may hold. */
void coordinator_stop_from(struct coordinator *c, struct ring *ring);
/* Hands the letter over, and wakes the coordinator by way of the caller's ring. */
void coordinator_post(struct coordinator *c, struct ring *ring, struct letter *letter);
uint32_t coordinator_stops(const struct coordinator *c);      /* how often it was asked; any thread */
bool coordinator_is_over(const struct coordinator *c);        /* the workers are gone; any thread */
uint32_t coordinator_drain_ms(const struct coordinator *c);   /* of the settings in force; any thread */
uint32_t coordinator_timeout_ms(const struct coordinator *c); /* any thread */
/* What the thread is doing. Read by any thread; heartbeat_enter() and heartbeat_leave() are for who runs Lua. */
struct heartbeat *coordinator_heartbeat(struct coordinator *c);
/* Delivers the letters that have come, outside of a turn: at the end. */
void coordinator_deliver(struct coordinator *c);

#endif
