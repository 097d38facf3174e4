/* The users of one file, as they are in force: read at the start and at SIGHUP, changed by scripts and the API.
 *
 * A store is shared by the coordinator, which changes it, and by the checkers' desk, which looks users up; a lock that
 * is never held across anything slow keeps them apart. Workers do not come here: they know the era (verify.h).
 *
 * With a user stands the keyed hash of the password that was verified last, so that it costs one slow hash for as long
 * as the user's own hash stays what it is: a reload of the same line, or a change of groups, keeps it. */
#ifndef SLUICE_CORE_CONTROL_USERS_H
#define SLUICE_CORE_CONTROL_USERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/session/verified.h"
#include "protocols/limit_text.h"
#include "protocols/users_text.h"

#define USERS_COUNT_MAX    1000000u
#define USERS_FILE_MAX     (UINT64_C(256) << 20) /* octets */
#define USERS_GROUPS_SIZE  (USERS_GROUPS_MAX * (USERS_GROUP_MAX + 1u))
#define USERS_SETTING_SIZE (USERS_HASH_MAX + 1u)

struct users; /* opaque */

/* An empty one. path: as long as it lives; for messages, and to be read. era: where the number of its era stands; a
 * change adds one. 0 or -ENOMEM. */
int users_open(struct users **out, const char *path, const struct verifier *verifier, _Atomic uint32_t *era);
/* Somebody to be told of each limit that changes: `terms` NULL: the user has none any more. One at most. */
void users_watch_limits(struct users *users,
                        void (*changed)(void *context, const char *name, const struct limit_terms *terms),
                        void *context);
void users_close(struct users *users); /* NULL is fine */
const char *users_path(const struct users *users);

/* --- the coordinator's: changes --- */

/* What a user is, copied. */
struct users_row {
    char name[USERS_NAME_MAX + 1];
    char groups[USERS_GROUPS_SIZE]; /* separated by commas */
    bool locked;
    bool has_limit;
    struct limit_terms limit; /* if it has one */
};

/* Reads the file and puts its users in the place of those that are there. 0; or -1, `why` says where and what is
 * wrong and what to do, and nothing has changed. */
int users_load(struct users *users, char *why, size_t size);
/* What users_load() would say, of a file that nobody uses yet. */
int users_check(const char *path, char *why, size_t size);
uint32_t users_count(const struct users *users);
bool users_find(struct users *users, const char *name, struct users_row *row);
/* The first user whose name is greater than `after` (NULL: the very first), in the order of strcmp(). */
bool users_next(struct users *users, const char *after, struct users_row *row);

/* What is to become of a user; NULL: as it is, or of a new user nothing. A new user needs a hash. */
struct users_change {
    const char *hash;   /* as crypt(5) has it */
    const char *groups; /* separated by commas; "": none */
    const char *limit;  /* terms; "": none */
};
/* The parts of a user's line, as texts. */
struct users_texts {
    char hash[USERS_SETTING_SIZE];
    char groups[USERS_GROUPS_SIZE];
    char limit[USERS_LINE_MAX + 1];
};
/* What the user would be. follows: the hash is not known yet, nor written. NULL, or what is wrong with it. */
const char *users_judge_change(const struct users *users, const char *name, const struct users_change *change,
                               bool follows, struct users_texts *texts);
/* NULL; or what is wrong, static text, and nothing has changed. */
const char *users_put(struct users *users, const char *name, const struct users_change *change);
bool users_remove(struct users *users, const char *name); /* false: there is no such user */

/* --- the desk's --- */

enum users_answer {
    USERS_RIGHT, /* that pair was verified before */
    USERS_HASH,  /* `setting` is to be tried; the result goes to users_judge() */
};
/* setting: of the user's own hash or, if there is none who has a password, of somebody else's, who is the same for
 * that name each time: an answer takes as long as it does for a user who is there. *era: of the store as it was. */
enum users_answer users_ask(struct users *users, const struct credentials *credentials,
                            const struct verify_digest *digest, char setting[USERS_SETTING_SIZE], uint32_t *era);
/* hash: what crypt() has made of the password and `setting`, terminated. VERIFY_STOPPED: the user has changed
 * meanwhile, ask again. */
enum verify_result users_judge(struct users *users, const struct credentials *credentials,
                               const struct verify_digest *digest, const char *setting, const char *hash,
                               uint32_t *era);

/* --- any thread --- */

/* A fresh hash of that password by the method that is the default of crypt(5): slow. NULL on success, or why not,
 * static text. */
const char *users_hash_password(const char *password, char out[USERS_SETTING_SIZE]);

#endif
