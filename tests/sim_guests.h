/* On the simulated kernel: sessions that are played by what limited.c looks at of them, under limits of a table of keys
 * that is the real one. For programs of tests: what goes wrong here fails the test that runs. */
#ifndef SLUICE_TESTS_SIM_GUESTS_H
#define SLUICE_TESTS_SIM_GUESTS_H

#include "core/session/keys.h"
#include "core/session/session.h"
#include "tests/sim_bench.h"

#define GUESTS_HOUR_MS (401 * 1000u) /* until the hour in which a test begins is over */

extern struct sim_bench guests_bench;

/* A worker with two listeners and room for 64 keys; for cmocka's set-up and teardown. */
int guests_begin(void **state);
int guests_finish(void **state);

/* As --limit has it; there was none for that key. */
void guests_put(const char *text);
/* A name that a ruleset gives: its handle. */
uint64_t guests_name(const char *text);
struct keys_row guests_row(const char *key);
/* Octets that wait for the line of their key, none of which move. */
uint32_t guests_unsettled(const char *key);

/* A request of ada for origin.test, through the first listener; from 10.1.2.3, or from there. */
struct session *guest(void);
struct session *guest_from(const char *host);
enum failure guest_admit(struct session *s);
/* Its request is over, and so is the session. */
void guest_leave(struct session *s);

#endif
