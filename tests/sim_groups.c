#include "tests/sim_groups.h"

#include <stdlib.h>
#include <string.h>

#include "tests/sim.h"
#include "tests/sim_peers.h"

#define DEAD_MAX 4u

static struct group_member *add_member(struct upstream_group *group, const struct proxy_uri *uri)
{
    static uint32_t ids;
    struct group_member *member = calloc(1, sizeof *member);
    if (!member) sim_fail("no memory");
    member_hold(member);
    member->id = ++ids;
    member->uri = *uri;
    member->checked = (uint8_t)(sim_chance(700) ? MEMBER_CHECKED_UP : MEMBER_CHECKED_UNKNOWN);
    group->seats[group->count++] = (struct seat){
        .member = member, .weight = (uint16_t)sim_between(1, 3), .backup = group->count > 0 && sim_chance(200)};
    return member;
}

static void add_dead(struct upstream_group *group, uint32_t i)
{
    struct proxy_uri uri = {.scheme = PROXY_SOCKS5,
                            .address = {.kind = ADDRESS_IPV4, .port = PORT_DEAD, .ipv4 = {10, 9, 9, (uint8_t)i}}};
    if (sim_chance(300)) address_from_host("dead.test", 9, PORT_DEAD, &uri.address);
    struct group_member *member = add_member(group, &uri);
    if (sim_chance(200)) member->checked = MEMBER_CHECKED_DOWN;
    if (sim_chance(200)) member->order = MEMBER_DRAIN;
}

/* So many tries that one of them is the one that is there; where nothing goes wrong it may take its time. */
const struct config *sim_groups_plan(struct sim_groups *groups, struct config *config, bool calm)
{
    memset(groups, 0, sizeof *groups);
    groups->real = *config;
    groups->on = config->hop_count > 0 && sim_chance(500);
    if (!groups->on) return &groups->real;
    struct upstream_group *group = calloc(1, sizeof *group + (1 + DEAD_MAX) * sizeof *group->seats);
    if (!group) sim_fail("no memory");
    memcpy(group->name, "pool", 5);
    group->policy = (uint8_t)sim_below(3);
    group->tries = GROUP_TRIES_MAX;
    group->fails = (uint8_t)sim_below(4);
    group->window_ms = 30000;
    group->eject_ms = sim_between(100, 3000);
    group->timeout_ms = calm ? 20000 : sim_between(100, 2000);
    uint32_t dead = sim_below(DEAD_MAX + 1), place = sim_below(dead + 1);
    for (uint32_t i = 0; i <= dead; i++) {
        if (i == place)
            add_member(group, &config->hops[0]);
        else
            add_dead(group, i);
    }
    groups->set.all[groups->set.count++] = group;
    address_from_host("pool", 4, 0, &config->hops[0].address);
    config->hops[0].address.kind = ADDRESS_GROUP;
    return &groups->real;
}

void sim_groups_open(struct sim_groups *groups, struct worker *w)
{
    w->groups = groups->on || sim_chance(500) ? &groups->set : NULL;
}

void sim_groups_check(const struct sim_groups *groups)
{
    for (uint32_t i = 0; groups->on && i < groups->set.all[0]->count; i++) {
        const struct group_member *member = groups->set.all[0]->seats[i].member;
        if (member->sessions != 0) sim_fail("member %u is still used by %u sessions", i, member->sessions);
        if (member->holders != 1) sim_fail("member %u is still held", i);
        if (member->tried) sim_fail("member %u is tried by nobody, for ever", i);
        if (member->connected + member->failed > member->chosen)
            sim_fail("member %u was judged more often than it was chosen", i);
        bool dead = member->uri.address.port == PORT_DEAD;
        if (dead && member->connected > 0) sim_fail("member %u cannot have been connected", i);
    }
}

void sim_groups_close(struct sim_groups *groups)
{
    if (!groups->on) return;
    struct upstream_group *group = groups->set.all[0];
    for (unsigned i = 0; i < group->count; i++) member_release(group->seats[i].member);
    free(group);
}
