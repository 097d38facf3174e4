/* Who may come, and where to (--allow-client, --deny-client, --allow-target, --deny-target).
 *
 * A side is what allows and what denies clients, or targets, in one scope: the process, or one listener. In a side the
 * entry that matches longest decides, deny where two are as long. If it has a list that allows, whatever no entry
 * matches is denied. What comes must pass the sides of both scopes.
 *
 * A target that is a name is judged twice: as that name, when it is asked for, and by each address that it is about to
 * be connected to. A denial of either is one. Where nothing is denied an entry that allows one of the two is enough.
 *
 *     name asked for   > lists_admit_target(..., false)   may end it
 *     address to dial  > lists_admit_target(..., true)    must have been allowed by now, where that is needed
 *
 * Addresses that carry an IPv4 address inside (policy.h) are judged as themselves and as what they carry, but for
 * clients: what those carry says nothing of who they are.
 *
 * What stands here is never written while anybody looks at it. Holding and releasing is the coordinator's thread's, and
 * before it runs the main thread's. */
#ifndef SLUICE_CORE_SESSION_LISTS_H
#define SLUICE_CORE_SESSION_LISTS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/session/config.h"

enum list_subject { LIST_CLIENTS, LIST_TARGETS, LIST_SUBJECTS };
#define LIST_SCOPES (CONFIG_LISTENERS_MAX + 1u)

struct list_side;

/* What lists have denied, by whom: it outlives them, see lists_follow(). Any thread. */
struct list_meters {
    unsigned holders;
    _Atomic uint64_t denied[LIST_SUBJECTS][LIST_SCOPES];
};

struct lists {
    unsigned holders;
    uint32_t revision;                                   /* 1: the first ones of the process */
    int64_t loaded_s;                                    /* when they were read, since 1970 */
    struct list_side *sides[LIST_SUBJECTS][LIST_SCOPES]; /* NULL: whatever comes passes */
    uint32_t entries[CONFIG_LISTS_MAX];                  /* of each member of config.lists_given */
    struct list_meters *meters;
};

/* --- building --- */

/* Entries as protocols/list_text.h has them; borrowed for the call. */
struct list_part {
    const char *text;
    size_t size;
    bool denies;
    size_t entries; /* out */
};

struct list_fault {
    size_t part;
    unsigned line;     /* from 1 */
    const char *entry; /* within the part, not terminated */
    size_t entry_size;
    const char *wrong; /* static */
};

/* A side with one holder. 0; -EINVAL: *fault says why; -ENOMEM; -E2BIG: more entries than a table can have. count  of
 * parts; with none the side is NULL. */
int list_side_build(enum list_subject subject, struct list_part *parts, size_t count, struct list_side **side,
                    struct list_fault *fault);
size_t list_side_entries(const struct list_side *side); /* NULL: 0 */
struct list_side *list_side_hold(struct list_side *side);
void list_side_release(struct list_side *side); /* NULL is fine, here and below */

size_t lists_entries(const struct lists *lists); /* NULL: 0 */
struct lists *lists_new(void);                   /* no side, one holder; NULL: no memory */
/* `fresh` takes the place of `old`, either may be NULL: it goes on counting where that is. */
void lists_follow(struct lists *fresh, struct lists *old);
struct lists *lists_hold(struct lists *lists);
void lists_release(struct lists *lists);

/* --- looking up: any thread; lists NULL: nothing is listed --- */

/* client: IPv4 or IPv6. A client without an address (a Unix socket) is not asked about. */
bool lists_admit_client(const struct lists *lists, unsigned listener, const struct address *client);
/* target: IPv4, IPv6 or NAME. *allowed: which scopes have allowed it so far, 0 at first. last: nothing more will be
 * known of it. */
bool lists_admit_target(const struct lists *lists, unsigned listener, const struct address *target, uint8_t *allowed,
                        bool last);

/* What the entries of one scope say, and what comes of it there; nothing is counted. */
enum list_word { LIST_WORD_NONE, LIST_WORD_ALLOW, LIST_WORD_DENY };
enum list_verdict { LIST_ALLOWED, LIST_BY_ADDRESS /* a name: what its address is will tell */, LIST_DENIED };
enum list_word lists_say(const struct lists *lists, enum list_subject subject, unsigned scope,
                         const struct address *address, enum list_verdict *verdict);

#endif
