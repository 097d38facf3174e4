/* The thread that answers what workers must not wait for: routing decisions where there is a ruleset (names are the
 * resolver thread's, see resolver_thread.h). It also starts the workers. It runs on the main thread, with a ring of its
 * own. Signals, the API's connections and the end of a process whose scripts do not return are the supervisor's
 * (supervisor.h).
 *
 * Lua, and what the API asks of Lua, live on this thread too: they hook in from above (hooks.h, waiters.h,
 * core/io/letter.h), so that core/ knows neither. Its parts have a header each. Every function of them is called on
 * this thread, except those that say "any thread". */
#ifndef SLUICE_CORE_CONTROL_COORDINATOR_H
#define SLUICE_CORE_CONTROL_COORDINATOR_H

#include "core/control/accounts.h"
#include "core/control/errands.h"
#include "core/control/heartbeat.h"
#include "core/control/hooks.h"
#include "core/control/limiting.h"
#include "core/control/names.h"
#include "core/control/settings.h"
#include "core/control/tallying.h"
#include "core/control/upstreams.h"
#include "core/control/waiters.h"
#include "core/control/workers.h"
#include "core/io/letter.h"
#include "core/io/ring.h"
#include "core/session/config.h"
#include "core/session/own.h"
#include "core/usage/usage.h"

struct coordinator;

/* Opens ring and resolver. One log line and -errno on failure. `config` lives as long as the coordinator. */
int coordinator_open(struct coordinator **out, const struct config *config);
/* Takes over the listening sockets, fds[worker * listener_count + listener], starts the workers and waits until each
 * is ready to accept, or one has failed: then all are stopped. 0 or -errno. */
int coordinator_start(struct coordinator *c, const int *fds);
/* Runs turns until the process was asked to stop and every worker has stopped. 0, or -errno. */
int coordinator_run(struct coordinator *c);
/* One turn of that: for tests, which have no workers. */
int coordinator_turn(struct coordinator *c);
/* Everything that waits has been detached before. */
void coordinator_close(struct coordinator *c);

/* --- from above --- */

/* Before coordinator_start(). Without hooks nobody asks for routes. */
void coordinator_set_hooks(struct coordinator *c, const struct coordinator_hooks *hooks);

/* Before coordinator_start(): where workers send what they know of sessions. Lives as long as the workers. NULL: there
 * is no such log. */
struct access_log;
void coordinator_set_access_log(struct coordinator *c, struct access_log *log);
struct access_log *coordinator_access_log(const struct coordinator *c);

/* A second function for SIGHUP, called behind on_reload; one at most. */
void coordinator_set_reload(struct coordinator *c, void (*reload)(void *context), void *context);
void coordinator_reload(struct coordinator *c); /* SIGHUP: calls both */

/* Workers ask for routes while `revision` is not zero; verdicts that they remember hold for one revision. */
void coordinator_set_revision(struct coordinator *c, uint32_t revision);
uint32_t coordinator_revision(const struct coordinator *c); /* any thread */

struct ring *coordinator_ring(struct coordinator *c);
uint64_t coordinator_now_ms(const struct coordinator *c);
/* What the process listens on: whoever opens a socket for others to connect to adds it here. */
struct own *coordinator_own(const struct coordinator *c);

/* NULL: nobody keeps accounts. For usage_ask(), and usage_show(). */
struct usage *coordinator_usage(const struct coordinator *c);

/* Asks the process to stop, as SIGTERM does: workers accept no more and let sessions finish for --drain; asked again,
 * the drain is over. */
void coordinator_stop(struct coordinator *c);
/* The same for a script that ends the process, with the status that main returns then, 0 to 255. The first one counts.
 * Before coordinator_start() it only notes the status. */
void coordinator_exit(struct coordinator *c, int status);
int coordinator_exit_status(const struct coordinator *c); /* -1: no script has asked for one; any thread */

/* --- from other threads --- */

/* coordinator_stop() from any thread that has a ring of its own, `ring`: the workers are told without the coordinator,
 * which Lua may hold. */
void coordinator_stop_from(struct coordinator *c, struct ring *ring);
/* Hands the letter over, and wakes the coordinator by way of the caller's ring. */
void coordinator_post(struct coordinator *c, struct ring *ring, struct letter *letter);
uint32_t coordinator_stops(const struct coordinator *c); /* how often it was asked; any thread */
bool coordinator_is_over(const struct coordinator *c);   /* the workers are gone; any thread */
/* What the thread is doing. Read by any thread; heartbeat_enter() and heartbeat_leave() are for who runs Lua. */
struct heartbeat *coordinator_heartbeat(struct coordinator *c);
/* Delivers the letters that have come, outside of a turn: at the end. */
void coordinator_deliver(struct coordinator *c);

#endif
