/* What workers, the checkers and the store of users tell each other about a user and a password: the question that
 * travels, and what a worker remembers of pairs. verify.h asks. */
#ifndef SLUICE_CORE_SESSION_VERIFIED_H
#define SLUICE_CORE_SESSION_VERIFIED_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/io/letter.h"
#include "core/io/list.h"
#include "core/io/share.h"
#include "core/session/config.h"
#include "protocols/credentials.h"

struct worker;

/* A user and a password of one store, as everybody but their giver knows them. */
struct verify_digest {
    uint64_t words[2];
};

enum verify_result {
    VERIFY_RIGHT,
    VERIFY_WRONG,   /* the password is */
    VERIFY_UNKNOWN, /* there is no such user, or nobody has its password */
    VERIFY_BUSY,    /* too many of that source, or in all, wait already */
    VERIFY_STOPPED, /* the process stops */
};

/* Lent from verify_begin() until it comes back; the session's slot is pinned meanwhile. */
struct verify_request {
    struct letter letter;                    /* on both ways */
    void (*answered)(struct letter *letter); /* on the worker's thread */
    struct link line;                        /* the checkers' */
    struct worker *worker;
    uint32_t slot, generation;
    _Atomic uint32_t cancelled; /* nobody waits for the answer any more; it still comes back */
    uint8_t store;              /* index in config.user_files */
    struct share_source source;
    struct verify_digest digest;
    const struct credentials *credentials; /* lent with it */
    uint8_t result;                        /* enum verify_result */
    bool hashed;                           /* RIGHT: a hash was made for it */
    uint32_t era;                          /* RIGHT: of the store, when it was judged */
};

/* The checkers, as workers know them; any thread. */
struct verifier {
    void (*ask)(struct verifier *self, struct verify_request *request); /* never waits */
    uint64_t keys[2][2];                                                /* of digests: random, of this process */
    _Atomic uint32_t eras[CONFIG_USER_FILES_MAX];
};

/* A worker's memory of pairs; all zero is one that remembers nothing and never will. */
struct verified {
    struct verified_entry *entries;
    uint32_t turn; /* which of a place's ways is overwritten next */
};

int verified_open(struct verified *verified); /* 0 or -ENOMEM */
void verified_close(struct verified *verified);
bool verified_find(const struct verified *verified, const struct verify_digest *digest, uint32_t era);
void verified_keep(struct verified *verified, const struct verify_digest *digest, uint32_t era);

struct verify_digest verify_digest_of(const struct verifier *verifier, uint8_t store,
                                      const struct credentials *credentials);

#endif
