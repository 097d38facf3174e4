#include "core/control/upstreams.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/control/coordinator_private.h"
#include "core/control/errands.h"
#include "core/control/upstream_check.h"
#include "core/control/workers.h"
#include "core/io/log.h"

const struct upstream_groups *coordinator_groups(const struct coordinator *c)
{
    return c->groups;
}

/* --- groups --- */

static struct group_member *find_member(const struct upstream_group *group, const struct group_member_plan *plan)
{
    for (unsigned i = 0; group && i < group->count; i++) {
        struct group_member *member = group->seats[i].member;
        if (member->target == group->targets && proxy_uri_equal(&member->uri, &plan->uri)) return member;
    }
    return NULL;
}

static struct group_member *new_member(struct coordinator *c, const struct group_plan *plan,
                                       const struct group_member_plan *one)
{
    struct group_member *member = calloc(1, sizeof *member);
    if (!member) return NULL;
    member->id = ++c->member_ids;
    member->target = plan->targets;
    member->uri = one->uri;
    address_format(&one->uri.address, member->text, sizeof member->text);
    return member_hold(member);
}

/* Of a member that the checks do not judge, or not yet. */
static void begin_verdict(struct group_member *member, const struct upstream_group *old,
                          const struct upstream_group *fresh)
{
    bool checked = fresh->check != GROUP_CHECK_NONE, before = old && old->check != GROUP_CHECK_NONE;
    if (checked && before) return;
    atomic_store_explicit(&member->checked, checked ? MEMBER_CHECKED_UNKNOWN : MEMBER_CHECKED_UP, memory_order_relaxed);
}

static void group_free(struct upstream_group *group)
{
    for (unsigned i = 0; i < group->count; i++) member_release(group->seats[i].member);
    free(group);
}

static bool fill_seats(struct coordinator *c, struct upstream_group *group, const struct group_plan *plan,
                       const struct upstream_group *old)
{
    for (unsigned i = 0; i < plan->count; i++) {
        const struct group_member_plan *one = &plan->members[i];
        struct group_member *kept = plan->targets == (old && old->targets) ? find_member(old, one) : NULL;
        struct group_member *member = kept ? member_hold(kept) : new_member(c, plan, one);
        if (!member) return false;
        begin_verdict(member, kept ? old : NULL, group);
        group->seats[group->count++] =
            (struct seat){.member = member, .weight = one->weight, .backup = one->backup, .most = one->most};
    }
    return true;
}

/* Members that `old` has are taken over; it may be NULL. NULL: no memory. */
static struct upstream_group *group_new(struct coordinator *c, const struct group_plan *plan, bool scripted,
                                        const struct upstream_group *old)
{
    struct upstream_group *group = calloc(1, sizeof *group + plan->count * sizeof *group->seats);
    if (!group) return NULL;
    memcpy(group->name, plan->name, sizeof group->name);
    memcpy(group->path, plan->path, sizeof group->path);
    group->policy = plan->policy;
    group->check = plan->check;
    group->targets = plan->targets;
    group->scripted = scripted;
    group->tries = plan->tries;
    group->fails = plan->fails;
    group->rise = plan->rise;
    group->fall = plan->fall;
    group->timeout_ms = plan->timeout_ms;
    group->window_ms = plan->window_ms;
    group->eject_ms = plan->eject_ms;
    group->interval_ms = plan->interval_ms;
    group->check_timeout_ms = plan->check_timeout_ms;
    if (fill_seats(c, group, plan, old)) return group;
    group_free(group);
    return NULL;
}

/* --- sets --- */

static void set_add(struct upstream_groups *set, struct upstream_group *group)
{
    assert(set->count < GROUPS_MAX);
    group->holders++;
    set->all[set->count++] = group;
}

static void set_release(struct upstream_groups *set)
{
    for (uint32_t i = 0; set && i < set->count; i++)
        if (--set->all[i]->holders == 0) group_free(set->all[i]);
    free(set);
}

/* What workers still use until the last of them has come back. */
struct regrouping {
    struct upstream_groups *old;
    uint32_t left;
    struct groups_errand errands[]; /* by worker */
};

static void regrouping_release(struct regrouping *all, uint32_t errands)
{
    assert(errands <= all->left);
    all->left -= errands;
    if (all->left > 0) return;
    set_release(all->old);
    free(all);
}

static void on_regrouped(struct errand *errand, int32_t result)
{
    (void)result;
    regrouping_release(((struct groups_errand *)errand)->all, 1);
}

/* As for any errand, and for one more: other settings come together with other groups. */
static bool workers_have_room(const struct coordinator *c)
{
    for (uint32_t i = 0; i < coordinator_worker_count(c); i++)
        if (queue_depth(c->threads[i].inbox) > c->config->queue_capacity / 4 + 1) return false;
    return true;
}

static bool send_set(struct coordinator *c, uint32_t worker, struct groups_errand *errand)
{
    struct message message = {.kind = MESSAGE_ERRAND, .body = &errand->errand};
    return !c->threads[worker].closed && workers_try_push(c, worker, &message);
}

/* Takes over the set, unless the answer is another than GROUPS_CHANGED. */
static enum groups_change set_install(struct coordinator *c, struct upstream_groups *set)
{
    uint32_t workers = coordinator_worker_count(c), stopped = 0;
    if (!workers_have_room(c)) return GROUPS_BUSY;
    struct regrouping *all = calloc(1, sizeof *all + workers * sizeof *all->errands);
    if (!all) return GROUPS_MEMORY;
    *all = (struct regrouping){.old = c->groups, .left = workers};
    c->groups = set;
    for (uint32_t i = 0; i < workers; i++) {
        all->errands[i] =
            (struct groups_errand){.errand = {.run = errand_regroup, .done = on_regrouped}, .groups = set, .all = all};
        if (!send_set(c, i, &all->errands[i])) stopped++;
    }
    upstream_checks_follow(c, set);
    regrouping_release(all, stopped);
    return GROUPS_CHANGED;
}

/* The set in force without the groups that are to go. */
static struct upstream_groups *set_copy(const struct coordinator *c, const char *without, bool without_settings)
{
    struct upstream_groups *set = calloc(1, sizeof *set);
    for (uint32_t i = 0; set && c->groups && i < c->groups->count; i++) {
        struct upstream_group *group = c->groups->all[i];
        bool goes = (without && strcmp(group->name, without) == 0) || (without_settings && !group->scripted);
        if (!goes) set_add(set, group);
    }
    return set;
}

static enum groups_change set_take(struct coordinator *c, struct upstream_groups *set)
{
    enum groups_change change = set_install(c, set);
    if (change != GROUPS_CHANGED) set_release(set);
    return change;
}

/* --- changes --- */

enum groups_change coordinator_define_group(struct coordinator *c, const struct group_plan *plan)
{
    const struct upstream_group *old = groups_find(c->groups, plan->name);
    if (old && !old->scripted) return GROUPS_TAKEN;
    if (!old && c->groups && c->groups->count == GROUPS_MAX) return GROUPS_FULL;
    struct upstream_groups *set = set_copy(c, plan->name, false);
    struct upstream_group *fresh = set ? group_new(c, plan, true, old) : NULL;
    if (!fresh) {
        set_release(set);
        return GROUPS_MEMORY;
    }
    set_add(set, fresh);
    return set_take(c, set);
}

enum groups_change coordinator_remove_group(struct coordinator *c, const char *name)
{
    const struct upstream_group *old = groups_find(c->groups, name);
    if (!old) return GROUPS_UNKNOWN;
    if (!old->scripted) return GROUPS_TAKEN;
    struct upstream_groups *set = set_copy(c, name, false);
    return set ? set_take(c, set) : GROUPS_MEMORY;
}

bool coordinator_order_member(struct coordinator *c, const char *group, const char *member, enum member_order order)
{
    const struct upstream_group *found = groups_find(c->groups, group);
    for (unsigned i = 0; found && i < found->count; i++) {
        struct group_member *one = found->seats[i].member;
        if (strcmp(one->text, member) != 0) continue;
        atomic_store_explicit(&one->order, (uint8_t)order, memory_order_relaxed);
        if (order == MEMBER_UP) member_clear(one);
        return true;
    }
    return false;
}

/* --- those of the settings --- */

/* config_check() has read them. */
static enum groups_change add_setting(struct coordinator *c, struct upstream_groups *set, const char *text,
                                      struct group_plan *plan)
{
    const char *wrong = group_parse(text, strlen(text), plan);
    assert(!wrong);
    (void)wrong;
    for (uint32_t i = 0; i < set->count; i++) {
        struct upstream_group *scripted = set->all[i];
        if (strcmp(scripted->name, plan->name) != 0) continue;
        LOGN("--upstream %s takes the place of the group that a script has defined", plan->name);
        set->all[i] = set->all[--set->count];
        scripted->holders--; /* the set in force has it still */
        break;
    }
    if (set->count == GROUPS_MAX) return GROUPS_FULL;
    struct upstream_group *group = group_new(c, plan, false, groups_find(c->groups, plan->name));
    if (!group) return GROUPS_MEMORY;
    set_add(set, group);
    return GROUPS_CHANGED;
}

static enum groups_change put_settings(struct coordinator *c, const struct config *config)
{
    struct upstream_groups *set = set_copy(c, NULL, true);
    struct group_plan *plan = malloc(sizeof *plan);
    enum groups_change change = set && plan ? GROUPS_CHANGED : GROUPS_MEMORY;
    for (uint32_t i = 0; i < config->upstream_count && change == GROUPS_CHANGED; i++)
        change = add_setting(c, set, config->upstreams[i], plan);
    free(plan);
    if (change == GROUPS_CHANGED) return set_take(c, set);
    set_release(set);
    return change;
}

int upstreams_start(struct coordinator *c)
{
    if (c->config->upstream_count == 0) return 0;
    return put_settings(c, c->config) == GROUPS_CHANGED ? 0 : -ENOMEM;
}

static bool same_settings(const struct config *now, const struct config *fresh)
{
    if (now->upstream_count != fresh->upstream_count) return false;
    for (uint32_t i = 0; i < now->upstream_count; i++)
        if (strcmp(now->upstreams[i], fresh->upstreams[i]) != 0) return false;
    return true;
}

void upstreams_configure(struct coordinator *c, const struct config *now, const struct config *fresh)
{
    if (same_settings(now, fresh)) return;
    if (put_settings(c, fresh) != GROUPS_CHANGED) LOGE("--upstream: not enough memory, the groups stay as they were");
}

void upstreams_close(struct coordinator *c)
{
    upstream_checks_close(c);
    set_release(c->groups);
    c->groups = NULL;
}
