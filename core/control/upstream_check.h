/* Checks whether members of groups are there: a connection each, once in an interval, whatever the number of workers.
 *
 *   WAITING --interval--> DIALLING --a worker has connected--> TALKING --answer, end, time-out--> WAITING
 *
 * tcp: the connection alone. socks5: the member must let us in, with the user and password of its URI. http: a proxy is
 * asked to connect to itself, and any answer but "407" is good; a target is asked for `path`, and 2xx and 3xx are good.
 * What is received is bounded, and so is the time of the whole check, whatever arrives meanwhile. Connections are made
 * by workers, as those of sessions are, without -x. */
#ifndef SLUICE_CORE_CONTROL_UPSTREAM_CHECK_H
#define SLUICE_CORE_CONTROL_UPSTREAM_CHECK_H

#include "core/session/group.h"

struct coordinator;

/* Checks the members of these groups from now on, NULL: of none; those that are checked already go on. */
void upstream_checks_follow(struct coordinator *c, const struct upstream_groups *groups);
/* The ring is gone: frees what is left. */
void upstream_checks_close(struct coordinator *c);

#endif
