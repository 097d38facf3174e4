#include "tests/sim_lists.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/session/session.h"
#include "tests/sim.h"

#define TEXT_SIZE 8192u

struct writer {
    char text[TEXT_SIZE];
    size_t size;
};

static __attribute__((format(printf, 2, 3))) void add(struct writer *out, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(out->text + out->size, TEXT_SIZE - out->size, format, arguments);
    va_end(arguments);
    if (size < 0 || out->size + (size_t)size >= TEXT_SIZE) sim_fail("the entries of a list are too long");
    out->size += (size_t)size;
}

/* --- a generation --- */

static uint16_t plan_bits(const struct sim_lists *lists)
{
    uint16_t bits = 0;
    for (uint32_t i = 0; i < lists->tunnels; i++) bits |= (uint16_t)(sim_chance(150) << i);
    return bits;
}

static void plan_generation(const struct sim_lists *lists, struct sim_lists_generation *g)
{
    *g = (struct sim_lists_generation){.begins_us = sim_now_us(), .ends_us = UINT64_MAX, .allows = sim_chance(300)};
    if (sim_chance(200)) return; /* nobody is denied */
    g->clients = sim_chance(300) ? plan_bits(lists) : 0;
    g->names = plan_bits(lists);
    g->networks = plan_bits(lists);
    for (unsigned i = 0; i < ADDRESSES_MAX; i++) g->addresses[i] = plan_bits(lists);
}

static void write_tunnel(const struct sim_lists_generation *g, uint32_t i, struct writer *out)
{
    unsigned port = PORT_TARGET + i;
    if (g->names >> i & 1) add(out, sim_chance(500) ? "host-%u.test\n" : "HOST-%u.test:1-65535\n", i);
    if (g->networks >> i & 1 && sim_chance(500))
        add(out, "10.0.%u.0/24:%u # all of it\n", i, port);
    else if (g->networks >> i & 1)
        add(out, "10.0.%u.0/25\n::ffff:10.0.%u.128/121\n", i, i);
    for (unsigned k = 0; k < ADDRESSES_MAX; k++)
        if (g->addresses[k] >> i & 1) add(out, sim_chance(500) ? "10.0.%u.%u\n" : "10.0.%u.%u:10000-20000\n", i, k);
}

/* Beside what is denied stands what is denied for nobody here: another port, a name below, another network. */
static void write_bystanders(const struct sim_lists *lists, struct writer *out)
{
    for (uint32_t i = 0; i < lists->tunnels; i++) {
        if (sim_chance(700)) continue;
        add(out, "host-%u.test:%u\n.host-%u.test.example\nx.host-%u.test\n10.0.%u.0/24:1-%u\n", i, PORT_TARGET - 1, i,
            i, i, PORT_TARGET - 1);
    }
}

static struct list_side *build(enum list_subject subject, const struct writer *allowed, const struct writer *denied)
{
    struct list_part parts[2];
    size_t count = 0;
    struct list_side *side;
    struct list_fault fault;
    if (allowed->size > 0) parts[count++] = (struct list_part){.text = allowed->text, .size = allowed->size};
    parts[count++] = (struct list_part){.text = denied->text, .size = denied->size, .denies = true};
    if (list_side_build(subject, parts, count, &side, &fault) < 0) sim_fail("no list of those entries");
    return side;
}

static struct lists *build_all(const struct sim_lists *lists, const struct sim_lists_generation *g)
{
    static struct writer clients, targets, everybody, everything;
    struct lists *built = lists_new();
    unsigned scope = sim_chance(500) ? LIST_SCOPE_PROCESS : 0;
    if (!built) sim_fail("no lists");
    clients.size = targets.size = everybody.size = everything.size = 0;
    for (uint32_t i = 0; i < lists->tunnels; i++) {
        if (g->clients >> i & 1) add(&clients, sim_chance(500) ? "192.0.2.%u\n" : "192.0.2.%u/32\n", i);
        write_tunnel(g, i, &targets);
    }
    write_bystanders(lists, &targets);
    if (g->allows) {
        add(&everybody, "0.0.0.0/0\n");
        add(&everything, "10.0.0.0/8\n.test\n");
    }
    built->sides[LIST_CLIENTS][LIST_SCOPE_PROCESS] = build(LIST_CLIENTS, &everybody, &clients);
    built->sides[LIST_TARGETS][scope] = build(LIST_TARGETS, &everything, &targets);
    /* The other listeners are not in that scope. */
    for (unsigned i = 1; scope == 0 && i < CONFIG_LISTENERS_MAX; i++)
        built->sides[LIST_TARGETS][i] = list_side_hold(built->sides[LIST_TARGETS][0]);
    return built;
}

/* --- one behind the other --- */

void sim_lists_plan(struct sim_lists *lists, struct config *config, uint64_t seed, uint32_t tunnels)
{
    memset(lists, 0, offsetof(struct sim_lists, configs));
    lists->on = seed % 3 == 1;
    lists->tunnels = tunnels;
    if (!lists->on) return;
    lists->most = sim_chance(400) ? 1 : sim_between(2, SIM_LISTS_MAX);
    plan_generation(lists, &lists->generations[lists->count++]);
    config->lists = lists->current = build_all(lists, &lists->generations[0]);
}

static bool is_settled(const struct sim_lists *lists)
{
    return !lists->reloading && lists->turn > lists->settled_turn + 1;
}

static struct errand *judge_all(struct sim_lists *lists)
{
    lists->judging = true;
    lists->judged_count = is_settled(lists) ? lists->count : 0;
    lists->judge = (struct judge_errand){.errand.run = errand_judge};
    return &lists->judge.errand;
}

struct errand *sim_lists_act(struct sim_lists *lists, const struct config *config)
{
    if (lists->on && !lists->judging && sim_chance(10)) return judge_all(lists);
    if (!lists->on || lists->reloading || lists->count == lists->most || !sim_chance(20)) return NULL;
    struct config *fresh = &lists->configs[lists->count % 2];
    struct sim_lists_generation *g = &lists->generations[lists->count++];
    plan_generation(lists, g);
    lists->old = lists->current;
    lists->current = build_all(lists, g);
    *fresh = *config;
    fresh->lists = lists->current;
    lists->reloading = true;
    lists->errand = (struct config_errand){.errand.run = errand_configure, .config = fresh};
    return &lists->errand.errand;
}

/* Nobody is left whom the lists of then denied. */
static void check_judged(const struct sim_lists *lists, const struct worker *w)
{
    if (lists->judge.next != UINT32_MAX) sim_fail("%u sessions were judged, not all", lists->judge.judged);
    if (lists->judged_count != lists->count) return; /* by others, too */
    for (uint32_t slot = 0; slot < w->sessions.untouched; slot++) {
        const struct session *s = session_at(w, slot);
        if (!pool_is_taken(&w->sessions, slot) || s->state == SESSION_CLOSING) continue;
        struct address client = host_port_address(&s->client);
        bool ours = client.kind == ADDRESS_IPV4 && client.ipv4[0] == 192;
        if (ours && (lists->generations[lists->count - 1].clients >> client.ipv4[3] & 1) != 0)
            sim_fail("slot %u was judged, and its client, who is denied, is still there", slot);
    }
}

/* What the worker obeyed before is nobody's any more. */
bool sim_lists_hear(struct sim_lists *lists, const struct worker *w, const void *body)
{
    if (body == &lists->judge) {
        lists->judging = false;
        check_judged(lists, w);
        return true;
    }
    if (body != &lists->errand) return false;
    lists->reloading = false;
    lists->generations[lists->count - 2].ends_us = sim_now_us();
    lists->settled_turn = lists->turn;
    lists_release(lists->old);
    lists->old = NULL;
    memset(&lists->configs[lists->count % 2], 0xa5, sizeof *lists->configs);
    return true;
}

void sim_lists_turn(struct sim_lists *lists)
{
    lists->turn++;
}

void sim_lists_close(struct sim_lists *lists)
{
    lists_release(lists->old);
    lists_release(lists->current);
    lists->old = lists->current = NULL;
}

/* --- judging --- */

static bool denies_address(const struct sim_lists_generation *g, uint32_t tunnel, unsigned address)
{
    return ((g->networks | g->addresses[address]) >> tunnel & 1) != 0;
}

/* Each address that it may be reached by, or some of them. */
static enum sim_while denies_tunnel(const struct sim_lists_generation *g, const struct tunnel *t)
{
    bool all = true, any = false;
    if (((g->clients | (t->target.kind == ADDRESS_NAME ? g->names : 0)) >> t->index & 1) != 0) return SIM_ALWAYS;
    for (unsigned i = 0; i < t->address_count; i++) {
        bool denied = denies_address(g, t->index, i);
        any |= denied;
        all &= denied;
    }
    return !any ? SIM_NEVER : all && t->target.kind != ADDRESS_NAME ? SIM_ALWAYS : SIM_SOMETIMES;
}

static enum sim_while denies_client(const struct sim_lists_generation *g, const struct tunnel *t)
{
    return (g->clients >> t->index & 1) != 0 ? SIM_ALWAYS : SIM_NEVER;
}

/* Of all that may have been in force since then. */
static enum sim_while denied_since(const struct sim_lists *lists, const struct tunnel *t, uint64_t since_us,
                                   enum sim_while (*denies)(const struct sim_lists_generation *g,
                                                            const struct tunnel *t))
{
    bool always = true, ever = false;
    if (!lists->on) return SIM_NEVER;
    for (uint32_t i = 0; i < lists->count; i++) {
        const struct sim_lists_generation *g = &lists->generations[i];
        if (g->ends_us < since_us) continue;
        enum sim_while denied = denies(g, t);
        always &= denied == SIM_ALWAYS;
        ever |= denied != SIM_NEVER;
    }
    return always ? SIM_ALWAYS : ever ? SIM_SOMETIMES : SIM_NEVER;
}

enum sim_while sim_lists_denied(const struct sim_lists *lists, const struct tunnel *t, uint64_t since_us)
{
    return denied_since(lists, t, since_us, denies_tunnel);
}

enum sim_while sim_lists_client_denied(const struct sim_lists *lists, const struct tunnel *t, uint64_t since_us)
{
    return denied_since(lists, t, since_us, denies_client);
}

void sim_lists_check_reuse(const struct sim_lists *lists, const struct tunnel *t, unsigned address, uint64_t since_us)
{
    for (uint32_t i = 0; i < lists->count; i++) {
        const struct sim_lists_generation *g = &lists->generations[i];
        if (g->ends_us >= since_us && !denies_address(g, t->index, address)) return;
    }
    if (lists->on) sim_fail("tunnel %u uses a connection to address %u, which is denied", t->index, address);
}

/* What is armed in one turn is carried out in the next. */
void sim_lists_check_connect(const struct sim_lists *lists, const struct tunnel *t, unsigned address)
{
    if (!lists->on || !denies_address(&lists->generations[lists->count - 1], t->index, address)) return;
    if (lists->count > 1 && !is_settled(lists) &&
        !denies_address(&lists->generations[lists->count - 2], t->index, address))
        return;
    sim_fail("address %u of tunnel %u is connected to, though it is denied", address, t->index);
}
