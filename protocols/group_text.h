/* Groups of upstreams as operators and scripts write them:
 *
 *     pool=socks5://a:1080,weight=3,socks5://b:1080,backup=yes,policy=least,check=socks5
 *
 * A name, and behind it members and terms, with commas between them. A member is the URI of a proxy, or host:port; a
 * group has members of one kind. `weight`, `backup` and `max` are of the member in front of them, all other terms are
 * of the group, wherever they stand. Where a group is used it is written `group:NAME`. */
#ifndef SLUICE_PROTOCOLS_GROUP_TEXT_H
#define SLUICE_PROTOCOLS_GROUP_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocols/url.h"

#define GROUP_NAME_MAX    31u
#define GROUP_MEMBERS_MAX 64u
#define GROUP_WEIGHT_MAX  256u
#define GROUP_FAILS_MAX   16u
#define GROUP_TRIES_MAX   8u
#define GROUP_PATH_MAX    127u

enum group_policy { GROUP_ROUND, GROUP_LEAST, GROUP_HASH };
enum group_check { GROUP_CHECK_NONE, GROUP_CHECK_TCP, GROUP_CHECK_HTTP, GROUP_CHECK_SOCKS5 };

struct group_member_plan {
    struct proxy_uri uri; /* of a target: its address alone */
    uint16_t weight;      /* 1 to GROUP_WEIGHT_MAX */
    bool backup;          /* used only while no other member can be */
    uint32_t most;        /* connections at a time; 0: no bound */
    uint32_t given;       /* terms that were set */
};

struct group_plan {
    char name[GROUP_NAME_MAX + 1]; /* a letter, and more of them, digits, `-`, `_`, `.` */
    uint8_t policy;                /* enum group_policy */
    uint8_t check;                 /* enum group_check */
    bool targets;                  /* members are host:port, not proxies */
    uint8_t tries;                 /* members that one request may try, 1 to GROUP_TRIES_MAX */
    uint32_t timeout_ms;           /* of one try, until the member answers */
    uint8_t fails;                 /* failures in a row that take a member out, 1 to GROUP_FAILS_MAX; 0: none does */
    uint32_t window_ms;            /* ... if they are not further apart */
    uint32_t eject_ms;             /* for how long, at first */
    uint32_t interval_ms, check_timeout_ms; /* of checks */
    uint8_t rise, fall;                     /* checks in a row after which a member is up, or down */
    char path[GROUP_PATH_MAX + 1];          /* what HTTP checks of targets ask for */
    uint8_t count;
    uint32_t given; /* terms that were set: each may be given once */
    struct group_member_plan members[GROUP_MEMBERS_MAX];
};

/* No member, no name, all terms as they are without being given. */
void group_plan_init(struct group_plan *plan);
/* Each returns NULL, or what is wrong, static text, and then has changed nothing. Texts are borrowed for the call. */
const char *group_plan_name(struct group_plan *plan, const char *name, size_t size);
const char *group_plan_add(struct group_plan *plan, const char *member, size_t size);
/* One term, by its name (`_` is as good as `-`). Times are seconds, and may have a fraction. */
const char *group_plan_set(struct group_plan *plan, const char *name, size_t name_size, const char *value,
                           size_t value_size);
/* Whether that is the name of a member's term. */
bool group_term_is_of_member(const char *name, size_t size);
/* What depends on several terms: call when all are set. */
const char *group_plan_check(const struct group_plan *plan);
/* `NAME=MEMBER,...`; what is in `plan` then, also where something is wrong, is undefined but for success. */
const char *group_parse(const char *text, size_t size, struct group_plan *plan);

const char *group_policy_name(enum group_policy policy);
const char *group_check_name(enum group_check check);

/* `group:NAME` as an address of the kind ADDRESS_GROUP. False: it is none. */
bool group_address_parse(const char *text, size_t size, struct address *out);
/* A proxy's URI, or `group:NAME`, whose address is of the kind ADDRESS_GROUP. NULL, or what is wrong. */
const char *group_hop_parse(const char *text, size_t size, struct proxy_uri *out);

#endif
