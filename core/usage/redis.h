/* A connection to a Redis server: TCP, or TLS by GnuTLS; the protocol is hiredis's (the RESP of its reader, which is
 * fed here, so that every wait has a deadline). Blocks its thread, but never beyond REDIS_PATIENCE_MS for each step;
 * only the name of a host is resolved without a bound. What comes is bounded: an error's text, and REDIS_NUMBERS_MAX
 * whole numbers.
 *
 * A reply that is late, too long or malformed leaves the connection in a state that nobody knows: whoever gets -1
 * closes it, so that no later command reads the answer of an earlier one. */
#ifndef SLUICE_CORE_USAGE_REDIS_H
#define SLUICE_CORE_USAGE_REDIS_H

#include <stddef.h>
#include <stdint.h>

#include "protocols/usage_text.h"

#define REDIS_PATIENCE_MS  1000
#define REDIS_MESSAGE_SIZE 256u
#define REDIS_NUMBERS_MAX  4096u

struct redis;

/* One command, and what came of it. */
struct redis_command {
    int count;
    const char **words;
    const size_t *sizes;
    /* The answer. */
    int64_t *numbers; /* room for REDIS_NUMBERS_MAX; of an array of integers, or an integer; NULL: not wanted */
    size_t number_count;
    char text[REDIS_MESSAGE_SIZE]; /* of a status, or the last string of an array, cut */
};

/* Connects, signs in and selects the database. 0; or -1, and `message` says why, and what to do. */
int redis_open(struct redis **out, const struct usage_text *where, char message[REDIS_MESSAGE_SIZE]);
void redis_close(struct redis *redis); /* NULL is fine */
/* 0; or -1: the message says why. An error that the server answers is -1, too. */
int redis_ask(struct redis *redis, struct redis_command *command, char message[REDIS_MESSAGE_SIZE]);

#endif
