/* Accounts of what keys use, that survive the process: octets, connections and refusals by key and hour.
 *
 *   workers --counters of keys, departures--> the thread of accounts --every 10 s, at the end of an hour--> database
 *   coordinator --question (a letter)--> the thread --answer, by the question's own function--> whoever asked
 *
 * Nobody else waits for the disk: the thread looks at counters, and what it cannot write stays in its memory
 * (ledger.h). What keys have used in periods that are not over is read at the start, so that quotas go on where they
 * were. */
#ifndef SLUICE_CORE_USAGE_USAGE_H
#define SLUICE_CORE_USAGE_USAGE_H

#include "core/io/letter.h"
#include "core/io/ring.h"
#include "core/session/keys.h"
#include "core/usage/store.h"

#define USAGE_WRITE_MS UINT64_C(10000)

struct usage;

struct usage_options {
    const char *text;      /* --usage; NULL: below state_dir */
    const char *state_dir; /* NULL: none */
    uint32_t keys_max;     /* whose accounts are kept */
    uint64_t now_us;       /* of the rings' clock */
};

/* Reads the database into `keys` and starts the thread: before there are workers. 0, or -errno after one log line. */
int usage_open(struct usage **out, struct keys *keys, const struct usage_options *options);
/* When no worker runs any more: writes what is left, answers what was asked, and ends the thread. `own`: the ring of
 * the thread that calls, here and below. NULL is fine. */
void usage_stop(struct usage *usage, struct ring *own);
void usage_close(struct usage *usage); /* behind usage_stop(), or when there were no workers; NULL is fine */

/* The thread's from usage_ask() until `answered` is called, on the thread: it sends it back by way of `ring`, that of
 * the thread. Use that is not written yet is part of the answer. */
struct usage_question {
    struct letter letter; /* first */
    struct usage *usage;
    struct store_query query;
    int result; /* 0; -1: the message says why */
    char message[STORE_MESSAGE_SIZE];
    void (*answered)(struct usage_question *question, struct ring *ring);
};

/* False: it is over, nobody answers any more. By the thread that calls usage_stop(). */
bool usage_ask(struct usage *usage, struct ring *own, struct usage_question *question);

/* What is shown of it. */
struct usage_figures {
    uint64_t written, failures;                             /* transactions */
    uint64_t waiting;                                       /* rows that are not written */
    uint64_t merged;                                        /* uses that were booked on a kind, for want of room */
    uint64_t evicted;                                       /* keys that have made room in memory */
    uint64_t keys;                                          /* whose accounts are in memory */
    uint64_t wal_size;                                      /* octets of the database's log */
    uint64_t age_us;                                        /* since everything was written */
    bool shared;                                            /* with other boxes: the rest is of that */
    bool connected;                                         /* Redis has answered the last time */
    uint64_t exchanges, exchange_failures, lost, recovered; /* see sharing.h */
    uint64_t exchange_age_us;                               /* since Redis has answered */
};
/* Any thread; now_us: of the rings' clock. */
void usage_show(const struct usage *usage, uint64_t now_us, struct usage_figures *figures);

#endif
