#include "tests/sim_world.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/io/log.h"
#include "core/session/conn_cache.h"
#include "core/session/message.h"
#include "core/session/session.h"
#include "core/session/worker.h"
#include "core/session/worker_loop.h"
#include "tests/sim.h"
#include "tests/sim_access.h"
#include "tests/sim_commands.h"
#include "tests/sim_errands.h"
#include "tests/sim_groups.h"
#include "tests/sim_limits.h"
#include "tests/sim_lists.h"
#include "tests/sim_peers.h"
#include "tests/sim_users.h"

#define FILLER        1000u /* a kind of message that no worker sends */
#define QUESTIONS_MAX 64u
/* When nothing has moved for so long, nothing will: longer than any time-out of a plan. */
#define QUIET_US   60000000u
#define TURNS_MAX  400000u
#define TURN_MS    5000u
#define WAKE_TAG   ((struct ring_tag){.op = WORKER_OP_WAKE})
#define GROUP_DATA 0u

struct question {
    struct message message;
    uint64_t due_us;
};

/* A session for which a ROUTE_TRY is under way. */
struct trial {
    uint32_t slot, generation, count; /* tried so far */
    bool open;
};

/* What the coordinator asks of the worker for an operator; one of each at a time. */
struct operator
{
    struct list_errand list;
    struct kill_errand kill;
    struct session_row rows[3];
    bool listing, killing;
    uint32_t kills; /* that have met a session */
};

static struct world {
    struct config config;
    struct worker worker;
    struct worker *worker_list[1];
    struct ring *far_ring; /* of the coordinator and of the resolver */
    struct sleeper far_sleeper;
    struct queue *mail, *names; /* from the worker: to the coordinator, to the resolver */
    _Atomic uint32_t revision;  /* of the ruleset that the coordinator pretends to have */
    _Atomic uint32_t stops;     /* how often the worker was asked to stop */
    struct peers peers;
    struct question questions[QUESTIONS_MAX];
    uint32_t question_count;
    struct trial trials[QUESTIONS_MAX];
    struct operator operator;
    struct errands errands;
    struct commands commands;
    struct sim_limits limits;
    struct sim_groups groups;
    struct sim_access access;
    struct sim_users users;
    struct sim_lists lists;
    bool operates;
    bool stuffed;        /* the coordinator does not read, until a question has found no room */
    uint64_t stop_at_us; /* a stop in the middle of the work; 0: when all is over */
    bool stopping, stopped;
    struct resolve_stats resolver;
} world;

/* --- the coordinator, and the resolver beside it --- */

static int32_t answer_resolve(struct resolve_request *request)
{
    uint32_t index = request->name.port - PORT_TARGET;
    bool withdrawn = atomic_load(&request->cancelled) != 0;
    if (sim_chance(100)) counter_add(&world.resolver.revision, 1); /* a SIGHUP */
    request->keep_ms = sim_chance(500) ? sim_below(5000) : 0;
    request->revision = counter_read(&world.resolver.revision);
    if (withdrawn && sim_chance(500)) return -ECANCELED;
    if (index >= world.peers.tunnel_count) { /* a proxy of the chain, or what garbage asks for */
        request->count = 1;
        request->results[0] = (struct resolve_result){.kind = ADDRESS_IPV4, .octets = {10, 1, 0, 0}};
        return request->name.port < PORT_TARGET && request->name.port >= PORT_HOP ? 0 : -ENOENT;
    }
    const struct tunnel *t = &world.peers.tunnels[index];
    if (t->resolve_result < 0) return t->resolve_result;
    request->count = t->address_count;
    for (uint32_t i = 0; i < t->address_count; i++)
        request->results[i] =
            (struct resolve_result){.kind = ADDRESS_IPV4, .octets = {10, 0, (uint8_t)index, (uint8_t)i}};
    return 0;
}

static struct trial *trial_of(const struct message *message)
{
    struct trial *trial = &world.trials[message->slot % QUESTIONS_MAX];
    if (trial->slot != message->slot || trial->generation != message->generation) {
        if (trial->open) sim_fail("slot %u has a new owner, but its trial was never ended", trial->slot);
        *trial = (struct trial){.slot = message->slot, .generation = message->generation};
    }
    return trial;
}

/* Where nobody answers. */
static void try_in_vain(struct route_request *request)
{
    request->verdict.hop_count = 0;
    request->verdict.target = (struct address){.kind = ADDRESS_IPV4, .port = PORT_DEAD, .ipv4 = {10, 9, 9, 9}};
    if (sim_chance(300)) address_from_host("dead.test", 9, PORT_DEAD, &request->verdict.target);
}

/* About the target of a datagram: there are no tries. */
static int32_t answer_datagram(struct route_request *request)
{
    if (atomic_load(&request->cancelled) && sim_chance(500)) return -ECANCELED;
    if (sim_chance(50)) return -EIO;
    route_decide_builtin(request, world.config.hops, (uint8_t)world.config.hop_count);
    commands_redirect(&request->verdict.target);
    if (sim_chance(100)) request->verdict.order = ROUTE_REJECT;
    if (sim_chance(200)) request->verdict.cache_ms = sim_below(2000);
    return 0;
}

/* Decisions as a ruleset makes them: tries that fail and tries that succeed, in the end an order or a refusal. */
static int32_t answer_route(const struct message *message)
{
    struct route_request *request = message->body;
    if (request->command == ROUTE_ASSOCIATE) return answer_datagram(request);
    struct trial *trial = trial_of(message);
    if (trial->open) sim_fail("slot %u asks again, but its trial was never ended", message->slot);
    if (atomic_load(&request->cancelled) && sim_chance(500)) return -ECANCELED;
    if (!world.peers.calm && sim_chance(50)) return -EIO;
    sim_users_check_request(&world.users, request);
    route_decide_builtin(request, world.config.hops, (uint8_t)world.config.hop_count);
    uint8_t refusal = sim_chance(500) ? ROUTE_REJECT : ROUTE_UNAUTHORIZED;
    if (request->callback == ROUTE_BY_LOGIN) {
        bool refused = !world.peers.calm && sim_chance(100);
        request->verdict.order = refused ? refusal : ROUTE_ACCEPT;
        request->verdict.cache_ms = sim_chance(200) ? sim_below(2000) : 0;
        return 0;
    }
    if (!world.peers.calm && sim_chance(50)) request->verdict.order = refusal;
    if (request->target.kind == ADDRESS_NONE) request->verdict.order = ROUTE_REJECT; /* no script can name that */
    if (sim_chance(200)) request->verdict.cache_ms = sim_below(2000);
    if (request->verdict.order == ROUTE_REJECT || trial->count >= 3 || sim_chance(500)) return 0;
    request->verdict.order = ROUTE_TRY;
    trial->open = true;
    trial->count++;
    if (sim_chance(500)) try_in_vain(request);
    return 0;
}

static struct queue *queue_to_worker(const struct message *message)
{
    return message->kind == RESOLVE_MESSAGE ? world.worker.names : world.worker.inbox;
}

static void post_to_worker(const struct message *message)
{
    struct worker *w = &world.worker;
    if (!queue_push(queue_to_worker(message), message)) sim_fail("the inbox is full");
    if (sleeper_must_wake(&w->sleeper)) sim_wake(w->ring, WAKE_TAG);
}

static bool coordinator_answer(const struct question *question)
{
    struct message answer = question->message;
    if (queue_depth(queue_to_worker(&answer)) == world.config.queue_capacity) return false;
    if (answer.result == 0)
        answer.result = answer.kind == MESSAGE_ROUTE ? answer_route(&question->message) : answer_resolve(answer.body);
    post_to_worker(&answer);
    return true;
}

/* The question's answer may be on its way already: then a trial ends with this. */
static void coordinator_cancel(const struct message *message)
{
    trial_of(message)->open = false;
    for (uint32_t i = 0; i < world.question_count; i++) {
        struct question *question = &world.questions[i];
        if (question->message.kind != MESSAGE_ROUTE || question->message.slot != message->slot) continue;
        question->message.result = -ECANCELED;
        question->due_us = sim_now_us();
    }
}

static bool operator_hear(const struct message *message)
{
    if (sim_limits_hear(&world.limits, message->body)) return true;
    if (sim_lists_hear(&world.lists, &world.worker, message->body)) return true;
    struct operator* o = & world.operator;
    if (message->body == &o->list) {
        o->listing = false;
        if (o->list.count > o->list.room) sim_fail("more sessions are listed than asked for");
        return true;
    }
    if (message->body != &o->kill) sim_fail("an errand comes back that nobody has lent");
    o->killing = false;
    o->kills += message->result == 0;
    return true;
}

/* A word of the worker that needs no answer, or an errand that is back. True: it was one. */
static bool coordinator_hear(const struct message *message)
{
    if (errands_hear(&world.errands, message)) return true;
    switch ((enum message_kind)message->kind) {
    case MESSAGE_STOPPED: world.stopped = true; return true;
    case MESSAGE_ERRAND: return operator_hear(message);
    case MESSAGE_ROUTED:
        if (!trial_of(message)->open) sim_fail("slot %u ends a trial that it was not given", message->slot);
        trial_of(message)->open = false;
        return true;
    case MESSAGE_CANCEL: coordinator_cancel(message); return true;
    case MESSAGE_ROUTE: /* again, after a failure */
        if (((struct route_request *)message->body)->failure != FAIL_NONE) trial_of(message)->open = false;
        return false;
    default: return false;
    }
}

static void coordinator_take(const struct message *message, bool for_resolver)
{
    if (for_resolver != (message->kind == RESOLVE_MESSAGE)) sim_fail("a message has gone to the wrong thread");
    bool late = !world.peers.calm && sim_chance(100);
    if (world.stopped) sim_fail("the worker sends a message behind its last one");
    if (coordinator_hear(message)) return;
    assert(world.question_count < QUESTIONS_MAX);
    world.questions[world.question_count++] =
        (struct question){.message = *message, .due_us = sim_now_us() + (late ? sim_below(30000000) : sim_below(2000))};
}

/* A coordinator that is far behind: the queue to it is full before the first session asks. */
static void coordinator_stuff(void)
{
    while (queue_push(world.mail, &(struct message){.kind = FILLER})) continue;
    world.stuffed = true;
}

/* It catches up when a question has had to wait, which it must find counted. */
static void coordinator_unstuff(void)
{
    struct message message;
    if (!world.stuffed || (!world.stopping && counter_read(&world.worker.stats.queue_full) == 0)) return;
    world.stuffed = false;
    for (uint32_t i = 0; i < world.config.queue_capacity; i++)
        if (!queue_pop(world.mail, &message) || message.kind != FILLER) sim_fail("the queue was not full");
}

static bool coordinator_act(uint64_t *wake_us)
{
    struct message message;
    bool moved = false;
    coordinator_unstuff();
    while (queue_pop(world.names, &message)) {
        coordinator_take(&message, true);
        moved = true;
    }
    while (!world.stuffed && queue_pop(world.mail, &message)) {
        coordinator_take(&message, false);
        moved = true;
    }
    for (uint32_t i = 0; i < world.question_count; i++) {
        struct question *question = &world.questions[i];
        if (question->due_us > sim_now_us()) {
            if (question->due_us < *wake_us) *wake_us = question->due_us;
        } else if (coordinator_answer(question)) {
            *question = world.questions[--world.question_count];
            moved = true;
        }
    }
    return moved;
}

static void coordinator_stop(void)
{
    world.stopping = true;
    atomic_fetch_add(&world.stops, 1);
    sim_wake(world.worker.ring, WAKE_TAG);
}

/* An operator looks at sessions now and then, and ends one. */
static void operator_act(void)
{
    struct operator* o = & world.operator;
    struct errand *heed = world.stopping ? NULL : sim_limits_act(&world.limits);
    if (heed) post_to_worker(&(struct message){.kind = MESSAGE_ERRAND, .body = heed});
    struct errand *reload = world.stopping ? NULL : sim_lists_act(&world.lists, &world.config);
    if (reload) post_to_worker(&(struct message){.kind = MESSAGE_ERRAND, .body = reload});
    if (!world.operates || world.stopping || !sim_chance(20)) return;
    if (!o->listing) {
        o->listing = true;
        o->list = (struct list_errand){
            .errand.run = errand_list, .first = sim_below(world.config.sessions), .room = 3, .rows = o->rows};
        post_to_worker(&(struct message){.kind = MESSAGE_ERRAND, .body = &o->list});
    }
    if (o->killing || world.peers.calm || !sim_chance(100)) return;
    uint32_t slot = sim_below(world.config.sessions);
    o->killing = true;
    o->kill = (struct kill_errand){
        .errand.run = errand_kill, .slot = slot, .generation = pool_generation(&world.worker.sessions, slot)};
    post_to_worker(&(struct message){.kind = MESSAGE_ERRAND, .body = &o->kill});
}

static bool world_act(void *self, uint64_t *wake_us)
{
    (void)self;
    bool moved = coordinator_act(wake_us);
    operator_act();
    moved |= errands_act(&world.errands, world.stopping, post_to_worker, wake_us);
    moved |= sim_users_act(&world.users, &world.worker, world.stopping, wake_us);
    moved |= commands_act(&world.commands, world.stopping, wake_us);
    moved |= peers_act(&world.peers, wake_us);
    if (world.stop_at_us > 0 && !world.stopping) {
        if (sim_now_us() >= world.stop_at_us)
            coordinator_stop();
        else if (world.stop_at_us < *wake_us)
            *wake_us = world.stop_at_us;
    }
    return moved;
}

static void world_on_connect(void *self, const struct net_address *to, struct sim_verdict *verdict)
{
    (void)self;
    peers_on_connect(&world.peers, to, verdict);
}

static void world_on_established(void *self, struct sim_conn *conn)
{
    (void)self;
    peers_on_established(&world.peers, conn);
}

/* Whoever resets a client before it had an answer has said why. */
static void world_on_reset(void *self, int fd)
{
    const struct worker *w = &world.worker;
    (void)self;
    for (uint32_t slot = 0; slot < w->sessions.untouched; slot++) {
        const struct session *s = session_at(w, slot);
        if (!pool_is_taken(&w->sessions, slot) || s->fd[CLIENT] != fd || s->protocol == PROTOCOL_INTERNAL) continue;
        if (session_is_half_open(s->state) && s->failure == FAIL_NONE)
            sim_fail("a client was reset before it had an answer, and nothing says why");
        return;
    }
}

static void world_on_datagram(void *self, const struct net_address *from, const struct net_address *to,
                              const uint8_t *data, size_t size)
{
    (void)self;
    commands_on_datagram(&world.commands, from, to, data, size);
}

static const struct sim_world_ops world_ops = {world_act, world_on_connect, world_on_established, world_on_reset,
                                               world_on_datagram};

/* --- planning --- */

static void plan_chances(bool calm)
{
    struct sim_chances *chances = sim_get_chances();
    chances->delay = (uint16_t)(sim_chance(300) ? 0 : sim_below(600));
    chances->shorten = (uint16_t)(sim_chance(300) ? 0 : sim_below(400));
    chances->cancel_loses = (uint16_t)sim_below(600);
    chances->multishot = (uint16_t)(sim_chance(500) ? 0 : sim_below(200));
    chances->old_kernel = sim_chance(500);
    chances->no_buffers = (uint16_t)(sim_chance(500) ? 0 : sim_below(50));
    chances->spurious = (uint16_t)(sim_chance(700) ? 0 : sim_below(20));
    chances->urgent = (uint16_t)(sim_chance(700) ? 0 : sim_below(50));
    chances->watch = (uint16_t)(sim_chance(700) ? 0 : sim_below(20));
    chances->pipe = (uint16_t)(sim_chance(700) ? 0 : sim_below(500));
    if (calm) return;
    chances->accept = (uint16_t)(sim_chance(500) ? 0 : sim_below(300));
    chances->socket = (uint16_t)(sim_chance(500) ? 0 : sim_below(300));
    chances->source = (uint16_t)(sim_chance(700) ? 0 : sim_below(100));
    chances->transfer = (uint16_t)(sim_chance(700) ? 0 : sim_below(10));
    if (sim_chance(100)) sim_set_descriptor_limit(sim_between(4, 40));
}

static void plan_listeners(struct config *config)
{
    config->listener_count = sim_chance(700) ? 1 : sim_between(2, 4);
    config->listeners[0] = (struct listener_config){.kind = LISTENER_AUTO};
    for (uint32_t i = 1; i < config->listener_count; i++) {
        char name[32];
        uint16_t port = (uint16_t)(PORT_TARGET + i - 1);
        struct address to = {.kind = ADDRESS_IPV4, .port = port, .ipv4 = {10, 0, (uint8_t)(i - 1), 0}};
        int size = snprintf(name, sizeof name, "host-%u.test", i - 1);
        if (sim_chance(300)) address_from_host(name, (size_t)size, port, &to);
        config->listeners[i] = (struct listener_config){.kind = LISTENER_FORWARD, .forward = to};
    }
}

/* Whether clients come by a proxy, and forwarders tell their targets who they are: not by chance, whose other decisions
 * stay what they are. */
static void plan_headers(struct config *config, struct peers *peers, uint64_t seed)
{
    peers->behind = seed % 7 == 3;
    for (uint32_t i = 0; i < config->listener_count; i++) {
        if (i > 0) config->listeners[i].send_proxy = (uint8_t)((seed / 7 + i) % 4 % 3);
        if (!peers->behind) continue;
        config->listeners[i].proxies.count = 1;
        config->listeners[i].proxies.networks[0].bits = 96;
    }
}

static void plan_chain(struct config *config)
{
    static const enum proxy_scheme schemes[] = {PROXY_HTTP, PROXY_SOCKS4A, PROXY_SOCKS5};
    config->hop_count = sim_chance(700) ? 0 : sim_between(1, 3);
    for (uint32_t i = 0; i < config->hop_count; i++) {
        struct proxy_uri *hop = &config->hops[i];
        memset(hop, 0, sizeof *hop);
        hop->scheme = schemes[sim_below(3)];
        hop->address =
            (struct address){.kind = ADDRESS_IPV4, .port = (uint16_t)(PORT_HOP + i), .ipv4 = {10, 1, (uint8_t)i, 0}};
        if (sim_chance(400)) address_from_host("proxy.test", 10, (uint16_t)(PORT_HOP + i), &hop->address);
        hop->credentials.present = hop->scheme == PROXY_SOCKS5 && sim_chance(400);
        if (!hop->credentials.present) continue;
        memcpy(hop->credentials.user, "chain", 6);
        memcpy(hop->credentials.password, "word", 5);
    }
}

/* A pool of three, from which whoever fails moves on to another. */
static void plan_egress(struct egress_terms *terms, bool calm)
{
    static const char pool[] = "10.9.9.1,10.9.9.2/31";
    if (sim_chance(600)) return;
    terms->marked = sim_chance(300);
    terms->mark = 5;
    if (sim_chance(300)) memcpy(terms->device, "eth1", 5);
    if (!calm) egress_parse_sources(pool, sizeof pool - 1, &terms->sources); /* targets of IPv6 are refused */
    terms->sources.by = (uint8_t)sim_between(EGRESS_BY_DEFAULT, EGRESS_BY_RANDOM);
}

static void plan_config(struct config *config, bool calm, uint32_t tunnels)
{
    static const enum relay_mode modes[] = {RELAY_AUTO, RELAY_AUTO, RELAY_SPLICE, RELAY_COPY};
    memset(config, 0, sizeof *config);
    plan_listeners(config);
    plan_chain(config);
    plan_egress(&config->egress, calm);
    config->relay = modes[sim_below(4)];
    config->timeout_ms = sim_between(5000, 20000);
    config->drain_ms = sim_chance(500) ? 0 : sim_below(3000);
    config->sessions = calm ? 16 : sim_between(2, 16);
    config->setups = calm ? 16 : sim_between(1, 12);
    config->buffers = 8u << sim_below(3);
    config->buffers_lent = config->buffers / 8;
    config->bulk_turn = 65536u << sim_below(3);
    config->buffer_size = 512u << sim_below(6);
    config->pipes = sim_below(4);
    config->pipe_size = 65536;
    config->ring_entries = sim_chance(300) ? 8 : 64;
    config->queue_capacity = 128;
    config->associations = 2;
    config->udp_peers = 1024;
    config->exchanges = calm ? TUNNELS_MAX : sim_between(1, 4);
    config->heads = calm ? 4 * TUNNELS_MAX : 1u + config->exchanges;
    config->conn_cache = sim_chance(900);
    config->conns = sim_below(5);
    if (calm || sim_chance(700)) return;
    config->idle_timeout_ms = sim_between(500, 5000);
    config->half_close_timeout_ms = sim_chance(500) ? 0 : sim_between(500, 5000);
    config->max_sessions = sim_between(0, tunnels);
    if (sim_chance(500)) {
        config->startup_start = sim_between(1, 4);
        config->startup_full = config->startup_start + sim_below(6);
        config->startup_rate = sim_below(101);
    }
}

static void world_plan(uint64_t seed)
{
    static const uint32_t sizes[] = {100, 100, 3000, 3000, 20000, 300 * 1024};
    bool calm = sim_chance(500);
    uint32_t tunnels = sim_chance(600) ? sim_between(1, 3) : sim_between(1, TUNNELS_MAX);
    uint32_t most = sizes[sim_below(6)];
    plan_config(&world.config, calm, tunnels);
    plan_chances(calm);
    world.peers.calm = calm;
    world.peers.hop_trouble = !calm && sim_chance(500);
    world.peers.room_max = sim_chance(500) ? 4096 : sim_chance(700) ? 65536 : SIM_STREAM_MAX;
    world.question_count = 0;
    memset(world.trials, 0, sizeof world.trials);
    memset(&world.operator, 0, sizeof world.operator);
    world.operates = sim_chance(200);
    memset(&world.errands, 0, sizeof world.errands);
    world.errands.on = !calm && sim_chance(400);
    world.errands.reaches = world.config.hop_count == 0;
    memset(&world.commands, 0, sizeof world.commands);
    world.commands.on = !calm && sim_chance(400);
    world.commands.port = PORT_LISTEN;
    world.config.socks5_bind = world.config.socks5_udp = world.commands.on;
    sim_limits_plan(&world.limits, calm);
    uint32_t auth = !calm && sim_chance(300) ? ROUTE_REVISION_AUTH : 0;
    atomic_store(&world.revision, sim_chance(500) ? 0 : (1 + sim_below(2)) | auth);
    world.commands.ruled = atomic_load(&world.revision) > 0;
    world.commands.hops = (uint8_t)world.config.hop_count;
    world.peers.moved_us = sim_now_us();
    world.stop_at_us = calm || sim_chance(800) ? 0 : sim_now_us() + sim_below(sim_chance(500) ? 20000 : 2000000);
    world.stopping = world.stopped = world.stuffed = false;
    world.operator.kills = 0;
    atomic_store(&world.stops, 0);
    sim_users_plan(&world.users, &world.config, seed, calm);
    sim_lists_plan(&world.lists, &world.config, seed, tunnels);
    world.peers.users = world.users.on ? &world.users : NULL;
    world.peers.lists = world.lists.on ? &world.lists : NULL;
    plan_headers(&world.config, &world.peers, seed);
    /* They say nothing of who they are. */
    if (world.users.on || world.peers.behind) world.commands.on = false;
    peers_plan(&world.peers, sim_groups_plan(&world.groups, &world.config, calm), tunnels, most);
}

/* --- running --- */

static void world_open(uint64_t seed)
{
    struct worker *w = &world.worker;
    struct ring_options options = {.entries = 8};
    memset(w, 0, sizeof *w);
    memset(&world.far_sleeper, 0, sizeof world.far_sleeper);
    if (ring_open(&world.far_ring, &options) < 0) sim_fail("no ring");
    w->config = &world.config;
    w->peers = world.worker_list;
    w->resolver_stats = &world.resolver;
    world.worker_list[0] = w;
    w->peer_count = 1;
    w->revision = &world.revision;
    w->stops = &world.stops;
    for (uint32_t i = 0; i < world.config.listener_count; i++)
        w->listeners[i].fd = sim_listen((uint16_t)(PORT_LISTEN + i));
    struct queue **queues[] = {&world.mail, &world.names, &w->inbox, &w->names};
    for (unsigned i = 0; i < 4; i++)
        if (queue_open(queues[i], world.config.queue_capacity) < 0) sim_fail("no queues");
    w->coordinator = (struct mailbox){.queue = world.mail, .sleeper = &world.far_sleeper, .ring = &world.far_ring};
    w->resolver = (struct mailbox){.queue = world.names, .sleeper = &world.far_sleeper, .ring = &world.far_ring};
    w->own = sim_own();
    sim_limits_open(&world.limits, w);
    sim_groups_open(&world.groups, w);
    sim_access_open(&world.access, w, seed);
    sim_users_open(&world.users, w);
    if (worker_open(w) < 0) sim_fail("worker_open() failed");
    worker_arm_listeners(w);
    /* With a ruleset every session's first word is a question. */
    bool may_wait = atomic_load(&world.revision) > 0 && world.peers.calm;
    if (may_wait && sim_chance(300)) coordinator_stuff();
}

/* What a flow may hold: a receive of four buffers that is sent, and what its next receive takes behind it, two. */
#define HELD_BUFFERS_MAX 6u

static void check_held(const struct worker *w, const struct session *s)
{
    for (unsigned side = CLIENT; side <= UPSTREAM; side++) {
        const struct buffer_list *held = &s->flows[side].held;
        uint32_t octets = 0;
        for (uint16_t i = held->first, n = 0; n < held->count; n++, i = w->buffers.next[i])
            octets += w->buffers.filled[i];
        if (octets > HELD_BUFFERS_MAX * w->buffers.size)
            sim_fail("a flow of slot %u holds %u octets, more than %u buffers", s->slot, octets, HELD_BUFFERS_MAX);
    }
}

static void check_flows(const struct worker *w)
{
    for (uint32_t slot = 0; slot < w->sessions.untouched; slot++)
        if (pool_is_taken(&w->sessions, slot) &&
            (session_at(w, slot)->state == SESSION_RELAY || session_at(w, slot)->state == SESSION_EXCHANGE))
            check_held(w, session_at(w, slot));
}

static void world_turn(uint32_t *turns)
{
    uint64_t before = counter_read(&world.worker.stats.bytes_splice), bulk = worker_bulk_turn(&world.worker);
    if (++*turns > TURNS_MAX) sim_fail("no end in sight: the worker goes round and round");
    sim_lists_turn(&world.lists);
    if (worker_turn(&world.worker, TURN_MS) < 0) sim_fail("worker_turn() failed");
    sim_users_look(&world.users, &world.worker);
    check_flows(&world.worker);
    sim_access_read(&world.access);
    uint64_t moved = counter_read(&world.worker.stats.bytes_splice) - before;
    if (moved > bulk + world.config.pipe_size)
        sim_fail("bulk flows moved %llu octets in one turn, which others wait for", (unsigned long long)moved);
}

static bool world_is_over(void)
{
    if (world.stopping) return true;
    uint64_t moved_us = world.peers.moved_us;
    if (moved_us < world.commands.moved_us) moved_us = world.commands.moved_us;
    if (sim_now_us() - moved_us > QUIET_US) return true;
    return peers_all_gone(&world.peers) && commands_all_gone(&world.commands) && world.worker.sessions.used == 0 &&
           sim_waiting() == 0;
}

static void world_run_all(void)
{
    struct worker *w = &world.worker;
    uint32_t turns = 0;
    while (!world_is_over()) world_turn(&turns);
    bool early = world.stopping;
    if (!early) peers_check_finished(&world.peers);
    if (!early && counter_read(&w->stats.half_open) > 0) sim_fail("a session is half-open though its time is over");
    if (!early) coordinator_stop();
    while (!w->stopped) world_turn(&turns);
    for (unsigned i = 0; i < 30; i++)
        if (worker_turn(w, 1) < 0) sim_fail("worker_turn() failed");
    peers_check_ends(&world.peers);
    errands_check_ends(&world.errands);
    if (!world.stopped) sim_fail("the worker has stopped without a message");
}

/* --- judging --- */

static void check_zero(uint64_t value, const char *what)
{
    if (value != 0) sim_fail("at the end there are %llu %s", (unsigned long long)value, what);
}

static void check_pools(const struct worker *w)
{
    check_zero(w->sessions.used, "sessions");
    check_zero(w->setups.used, "setups");
    check_zero(w->exchanges.used, "exchanges");
    check_zero(w->heads.used, "large heads");
    check_zero(!conn_cache_is_quiet(w), "cache with connections in it");
    check_zero(counter_read(&w->stats.conns_idle), "idle upstream connections in the gauge");
    check_zero(w->buffers.leased, "leased buffers");
    check_zero(pipes_lent(&w->pipes), "lent pipes");
    check_zero(!link_is_empty(&w->starved), "list of starved flows with something in it");
    check_zero(!link_is_empty(&w->deferred), "list of deferred flows with something in it");
    check_zero(counter_read(&w->stats.half_open), "half-open sessions in the gauge");
    check_zero(counter_read(&w->stats.established), "established sessions in the gauge");
    for (uint32_t i = 0; i < QUESTIONS_MAX; i++)
        if (world.trials[i].open) sim_fail("the trial of slot %u was never ended", world.trials[i].slot);
    for (uint32_t slot = 0; slot < w->config->sessions; slot++)
        check_zero(timer_is_set(w->timers, slot) || timer_is_set(w->rests, 2 * slot) ||
                       timer_is_set(w->rests, 2 * slot + 1),
                   "timer of a slot that is free");
    if (w->buffers.lent != w->buffers.lent_max || sim_group_level(w->ring, GROUP_DATA) != w->buffers.lent)
        sim_fail("at the end the kernel has %u of %u buffers, %u by count", sim_group_level(w->ring, GROUP_DATA),
                 w->buffers.lent_max, w->buffers.lent);
}

static void check_outcomes(const struct worker *w)
{
    uint64_t accepted = counter_read(&w->stats.accepted), outcomes = counter_read(&w->stats.successes);
    for (enum failure i = 0; i < FAIL_COUNT; i++) {
        uint64_t count = counter_read(&w->stats.failures[i]);
        if (count > 0) sim_trace("%s: %llu", failure_row(i)->word, (unsigned long long)count);
        if (!failure_is_cut(i)) outcomes += count;
    }
    /* Each has one: operator and drain may end a session before it has another. A plain HTTP exchange may begin well
     * and fail, and so may all when a quota is spent. */
    uint64_t ended = counter_read(&w->stats.failures[FAIL_KILLED]) + counter_read(&w->stats.failures[FAIL_DRAIN]);
    uint64_t most = accepted + peers_posts(&world.peers) + counter_read(&w->stats.failures[FAIL_QUOTA]);
    if (world.lists.on) most += counter_read(&w->stats.failures[FAIL_CLIENT_DENIED]); /* in the place of an accept */
    if (ended > world.operator.kills + counter_read(&w->stats.drain_resets))
        sim_fail("%llu sessions were ended, more than by operator and drain", (unsigned long long)ended);
    if (outcomes + ended < accepted || outcomes > most)
        sim_fail("%llu connections were accepted, but %llu successes and failures counted",
                 (unsigned long long)accepted, (unsigned long long)outcomes);
}

static void check_octets(const char *direction, uint64_t counted, uint64_t moved)
{
    if (counted == moved) return;
    sim_fail("%llu octets %s were counted, %llu moved", (unsigned long long)counted, direction,
             (unsigned long long)moved);
}

static void check_counters(const struct worker *w)
{
    struct peers_octets moved;
    bool exact = peers_sum(&world.peers, &moved);
    uint64_t up = counter_read(&w->stats.bytes_up), down = counter_read(&w->stats.bytes_down), both = up + down;
    if (both != counter_read(&w->stats.bytes_copy) + counter_read(&w->stats.bytes_splice))
        sim_fail("octets by direction and octets by path differ");
    check_outcomes(w);
    if (world.errands.on || world.commands.on) return; /* what they move is nobody's who is asked */
    check_octets("to upstreams", up + counter_read(&w->stats.hop_out), moved.to_upstreams);
    check_octets("to clients", down + counter_read(&w->stats.handshake_out), moved.to_clients);
    if (!exact) return;
    check_octets("up", up, moved.up);
    check_octets("down", down, moved.down);
}

static void world_close(void)
{
    struct worker *w = &world.worker;
    worker_close(w);
    queue_close(w->inbox);
    queue_close(w->names);
    queue_close(world.mail);
    queue_close(world.names);
    ring_destroy(world.far_ring);
    sim_limits_close(&world.limits);
    sim_groups_close(&world.groups);
    sim_access_close(&world.access);
    sim_lists_close(&world.lists);
    check_zero(sim_descriptors(), "open descriptors");
}

uint64_t sim_world_run(uint64_t seed, const uint8_t *script, size_t script_size)
{
    static bool opened;
    if (!opened) {
        const char *trace = getenv("SIM_TRACE");
        log_open(trace && *trace ? LOG_TO_STDOUT : LOG_DISCARD,
                 trace && *trace ? LOG_LEVEL_VERY_VERBOSE : LOG_LEVEL_SILENCE);
        opened = true;
    }
    sim_begin(seed, script, script_size, &world_ops, &world);
    world_plan(seed);
    world_open(seed);
    world_run_all();
    check_pools(&world.worker);
    check_counters(&world.worker);
    sim_limits_check(&world.limits, &world.worker, !world.errands.on);
    sim_groups_check(&world.groups);
    bool exact = atomic_load(&world.revision) == 0 && !peers_have_garbage(&world.peers);
    sim_users_check(&world.users, &world.worker, exact);
    sim_access_read(&world.access);
    sim_access_check(&world.access, &world.worker);
    world_close();
    return sim_random() ^ sim_now_us();
}
