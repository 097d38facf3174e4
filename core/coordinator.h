/* The thread that answers what workers must not wait for: names today, routing decisions with rulesets. It also starts
 * and stops the workers and handles signals. It runs on the main thread, with a ring of its own.
 *
 *   worker --outbox--> coordinator --inbox--> worker        two queues per worker, one producer and one consumer each
 */
#ifndef SLUICE_CORE_COORDINATOR_H
#define SLUICE_CORE_COORDINATOR_H

#include "config.h"

struct coordinator;

/* Opens ring, resolver, signals, and takes over the listening sockets: fds[worker * listener_count + listener]. One log
 * line and -errno on failure. The signals SIGINT, SIGTERM and SIGHUP are blocked for all threads from here on. */
int coordinator_open(struct coordinator **out, const struct config *config, const int *fds);
/* Starts the workers and waits until each is ready to accept, or one has failed: then all are stopped. 0 or -errno. */
int coordinator_start(struct coordinator *c);
/* Answers until a signal asks to stop and every worker has stopped. 0, or -errno. */
int coordinator_run(struct coordinator *c);
void coordinator_close(struct coordinator *c);

#endif
