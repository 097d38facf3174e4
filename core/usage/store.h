/* Usage on disk: a SQLite database in WAL mode, a row for each key and hour. The only file that knows SQLite. Belongs
 * to one thread at a time, and is opened behind the last fork(): a connection that a child inherits corrupts the
 * database.
 *
 * There is one connection, and a lock on a file beside the database (PATH-lock) keeps a second process of ours away:
 * versions of SQLite before 3.51.3 may corrupt a WAL database in which two connections commit and check-point at the
 * same moment. */
#ifndef SLUICE_CORE_USAGE_STORE_H
#define SLUICE_CORE_USAGE_STORE_H

#include <stddef.h>

#include "core/usage/ledger.h"

struct store;

#define STORE_MESSAGE_SIZE 256u

/* Opens the database, or makes it. 0; or -1, and `message` says why, and what to do. */
int store_open(struct store **out, const char *path, char message[STORE_MESSAGE_SIZE]);
void store_close(struct store *store);

/* Calls `take` for each key of these kinds (bits 1 << kind), those that were used last first, until it answers false.
 * -1: the message says why. */
int store_load(struct store *store, const struct limit_time *time, uint32_t kinds,
               bool (*take)(void *context, const struct limit_key *key, const struct limit_sums *sums), void *context,
               char message[STORE_MESSAGE_SIZE]);
/* Whether there are more keys than that; -1: the message says why. */
int store_has_more(struct store *store, uint32_t keys, char message[STORE_MESSAGE_SIZE]);
/* What that key has used. False: nothing, or it cannot be read. */
bool store_find(struct store *store, const struct limit_key *key, const struct limit_time *time,
                struct limit_sums *sums);
/* Adds all rows of the ledger that are not written, in one transaction. -1: nothing was written, the message says why.
 */
int store_write(struct store *store, const struct ledger *ledger, char message[STORE_MESSAGE_SIZE]);
/* The name by which other boxes know this one: random, made with the database. 0; -1: the message says why. */
#define STORE_NODE_SIZE 33u
int store_node(struct store *store, char node[STORE_NODE_SIZE], char message[STORE_MESSAGE_SIZE]);
/* From now on what is written reaches the system, not the disk: at a stop, which has no time. What is lost then is lost
 * with the power alone. */
void store_hurry(struct store *store);
/* The octets of the log that stands in front of the database (-wal). */
uint64_t store_wal_size(const struct store *store);

/* --- questions --- */

enum store_by { STORE_BY_HOUR, STORE_BY_DAY, STORE_BY_MONTH };

#define STORE_ROWS_MAX 10000u

struct store_row {
    int64_t begin; /* of the period */
    uint32_t key;  /* where its text begins in `names` */
    uint64_t up, down, refused;
    int64_t connections;
};

struct store_query {
    const char *key;  /* text, as limit_key_format() has it; NULL: all */
    int64_t from, to; /* seconds since 1970; `to` is not a part of it */
    enum store_by by;
    uint32_t skip, rows_max; /* at most STORE_ROWS_MAX */

    /* The answer: by key, then by time. */
    struct store_row *rows; /* malloc'd; the asker's */
    uint32_t row_count;
    char *names; /* malloc'd; the asker's */
    size_t names_size;
    bool more; /* there are more behind them */
};

/* 0; or -1, and the message says why: also if it takes longer than two seconds. The rows of the ledger that are not
 * written count as if they were, and nothing is written for that; ledger: NULL, or somebody else writes: without them.
 */
int store_ask(struct store *store, const struct ledger *ledger, struct store_query *query,
              char message[STORE_MESSAGE_SIZE]);

#endif
