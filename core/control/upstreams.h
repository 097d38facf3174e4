/* Groups of upstreams: those of the settings (--upstream), and those that scripts define. Workers choose members by
 * themselves (core/session/group.h); here sets of groups are made and handed to them, and members are checked, once for
 * the process (upstream_check.h). */
#ifndef SLUICE_CORE_CONTROL_UPSTREAMS_H
#define SLUICE_CORE_CONTROL_UPSTREAMS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/session/group.h"

struct coordinator;

/* NULL: there are none. To be read until the next change. */
const struct upstream_groups *coordinator_groups(const struct coordinator *c);

enum groups_change {
    GROUPS_CHANGED,
    GROUPS_UNKNOWN, /* no such group */
    GROUPS_TAKEN,   /* the settings have one of that name */
    GROUPS_FULL,    /* GROUPS_MAX */
    GROUPS_BUSY,    /* the workers are: try again */
    GROUPS_MEMORY,
};

/* A script's group, which takes the place of one that a script has defined before. Members that stay keep what is known
 * of them. */
enum groups_change coordinator_define_group(struct coordinator *c, const struct group_plan *plan);
/* The same, taken away. Sessions that have a member keep it. */
enum groups_change coordinator_remove_group(struct coordinator *c, const char *name);

/* The operator's word on a member, host:port: it holds until another one. UP also voids what sessions have held against
 * it. False: there is no such member. */
bool coordinator_order_member(struct coordinator *c, const char *group, const char *member, enum member_order order);

#endif
