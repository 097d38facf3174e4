/* core/resolver/resolver_thread with several askers, each a thread with a ring of its own, as workers are. */
#include "core/resolver/resolver_thread.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/io/log.h"
#include "tests/dns_double.h"
#include "tests/support.h"

#define ASKERS    3u
#define QUESTIONS 64u /* at a time */
#define OP_WAKE   1

struct asker {
    pthread_t thread;
    struct ring *ring;
    struct sleeper sleeper;
    struct mailbox ask;
    struct queue *answers;
    uint32_t number, rounds;
    _Atomic uint32_t answered, cancelled, failed;
    bool silent; /* asks for what is never answered, once, and waits for the end */
    struct resolve_request requests[QUESTIONS];
};

static struct ring *ring; /* the opener's */
static struct resolver_thread *resolver;
static struct asker askers[ASKERS];
static pthread_barrier_t ended;

static unsigned open_files;

static void open_resolver(const char *nameservers)
{
    open_files = support_count_descriptors();
    struct resolve_options options = {.nameservers = nameservers, .timeout_ms = 5000};
    assert_int_equal(ring_open(&ring, &(struct ring_options){.entries = 16}), 0);
    assert_int_equal(resolver_thread_open(&resolver, &options), 0);
}

static void close_resolver(void)
{
    resolver_thread_close(resolver);
    ring_destroy(ring);
    assert_int_equal(support_count_descriptors(), open_files);
}

static void asker_put(struct asker *a, uint32_t index)
{
    struct resolve_request *request = &a->requests[index];
    struct message question = {.kind = RESOLVE_MESSAGE, .slot = index, .body = request};
    char name[64];
    int size = snprintf(name, sizeof name, "%s%u-%u.test", a->silent ? "never" : "t", index % 7, a->number % 2);
    memset(request, 0, sizeof *request);
    request->family = AF_INET;
    assert_true(address_from_host(name, (size_t)size, 80, &request->name));
    assert_true(mailbox_post(&a->ask, a->ring, &question, NULL));
}

static void asker_take(struct asker *a, const struct message *answer, bool again)
{
    assert_ptr_equal(answer->body, &a->requests[answer->slot]);
    if (answer->result == 0)
        a->answered++;
    else if (answer->result == -ECANCELED)
        a->cancelled++;
    else
        a->failed++;
    if (again) asker_put(a, answer->slot);
}

/* As a worker: announce, look, sleep. */
static void asker_turn(struct asker *a, uint32_t *open, bool again)
{
    struct ring_completion completion;
    struct message answer;
    sleeper_announce(&a->sleeper);
    assert_int_equal(ring_wait(a->ring, queue_is_empty(a->answers) ? 5000 : 0), 0);
    sleeper_awake(&a->sleeper);
    while (ring_next(a->ring, &completion)) assert_int_equal(completion.tag.op, OP_WAKE);
    while (queue_pop(a->answers, &answer)) {
        asker_take(a, &answer, again);
        *open -= !again;
    }
}

static void *asker_main(void *argument)
{
    struct asker *a = argument;
    uint32_t open = QUESTIONS;
    assert_int_equal(ring_open(&a->ring, &(struct ring_options){.entries = 64}), 0);
    for (uint32_t i = 0; i < QUESTIONS; i++) asker_put(a, i);
    for (uint32_t round = 0; round < a->rounds; round++) asker_turn(a, &open, !a->silent);
    while (open > 0) asker_turn(a, &open, false);
    assert_int_equal(ring_wait(a->ring, 0), 0);
    pthread_barrier_wait(&ended); /* our ring stays until the resolver cannot wake us any more */
    pthread_barrier_wait(&ended);
    ring_destroy(a->ring);
    return NULL;
}

static void start_askers(bool silent, uint32_t rounds)
{
    pthread_barrier_init(&ended, NULL, ASKERS + 1);
    for (uint32_t i = 0; i < ASKERS; i++) {
        struct asker *a = &askers[i];
        *a = (struct asker){.number = i, .rounds = rounds, .silent = silent};
        struct mailbox wake = {.sleeper = &a->sleeper, .ring = &a->ring, .wake = {.op = OP_WAKE}};
        assert_int_equal(resolver_thread_add_asker(resolver, &wake, QUESTIONS, &a->ask, &a->answers), 0);
    }
    for (uint32_t i = 0; i < ASKERS; i++)
        assert_int_equal(pthread_create(&askers[i].thread, NULL, asker_main, &askers[i]), 0);
}

static void close_all(void)
{
    pthread_barrier_wait(&ended); /* as workers: they have stopped */
    resolver_thread_end(resolver, ring);
    pthread_barrier_wait(&ended); /* now their rings go */
    for (uint32_t i = 0; i < ASKERS; i++) pthread_join(askers[i].thread, NULL);
    pthread_barrier_destroy(&ended);
    close_resolver();
}

static void test_askers(void **state)
{
    (void)state;
    open_resolver(dns_address());
    start_askers(false, 300);
    for (int i = 0; i < 5; i++) { /* while they ask */
        assert_int_equal(resolver_thread_set_nameservers(resolver, ring, dns_address()), 0);
        assert_int_equal(resolver_thread_set_nameservers(resolver, ring, "nonsense"), -EINVAL);
        assert_int_equal(ring_wait(ring, 2), 0);
    }
    close_all();
    for (uint32_t i = 0; i < ASKERS; i++) {
        assert_true(askers[i].answered >= QUESTIONS);
        assert_int_equal(askers[i].failed + askers[i].cancelled, 0);
    }
}

/* A stop in the middle: what is open comes back at once, and so does what is asked later. */
static void test_stop(void **state)
{
    (void)state;
    open_resolver(dns_address());
    start_askers(true, 0);
    const struct resolve_stats *stats = resolver_thread_stats(resolver);
    while (counter_read(&stats->queries) + counter_read(&stats->coalesced) < ASKERS * QUESTIONS)
        assert_int_equal(ring_wait(ring, 5), 0);
    for (uint32_t i = 0; i < ASKERS; i++) assert_int_equal(askers[i].answered + askers[i].cancelled, 0);
    resolver_thread_stop(resolver, ring);
    resolver_thread_stop(resolver, ring);
    close_all();
    for (uint32_t i = 0; i < ASKERS; i++) assert_int_equal(askers[i].cancelled, QUESTIONS);
}

static unsigned ask_once(struct asker *a)
{
    uint32_t open = 1;
    asker_put(a, 0);
    while (open > 0) asker_turn(a, &open, false);
    return dns_questions("t0-0.test", DNS_A);
}

/* What the cache holds is asked for anew after a reload, which comes when the thread comes to it. */
static void test_reload(void **state)
{
    (void)state;
    open_resolver(dns_address());
    struct asker *a = &askers[0];
    *a = (struct asker){.ring = ring};
    struct mailbox wake = {.sleeper = &a->sleeper, .ring = &a->ring, .wake = {.op = OP_WAKE}};
    assert_int_equal(resolver_thread_add_asker(resolver, &wake, QUESTIONS, &a->ask, &a->answers), 0);
    unsigned before = ask_once(a);
    for (int i = 0; i < 100; i++) assert_int_equal(ask_once(a), before);
    resolver_thread_reload(resolver, ring);
    unsigned after = before;
    for (int i = 0; i < 10000 && after == before; i++) after = ask_once(a);
    assert_int_equal(after, before + 1);
    resolver_thread_end(resolver, ring);
    close_resolver();
}

/* Nobody asks; and the list of name servers is wrong. */
static void test_nothing(void **state)
{
    (void)state;
    struct resolve_options options = {.nameservers = "x", .timeout_ms = 1000};
    struct resolver_thread *none = NULL;
    assert_int_equal(resolver_thread_open(&none, &options), -EINVAL);
    open_resolver(NULL);
    resolver_thread_end(resolver, ring);
    resolver_thread_end(resolver, ring);
    close_resolver();
}

static int start(void **state)
{
    log_open(LOG_DISCARD, LOG_LEVEL_SILENCE);
    return dns_start(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_askers),
        cmocka_unit_test(test_stop),
        cmocka_unit_test(test_reload),
        cmocka_unit_test(test_nothing),
    };
    return cmocka_run_group_tests_name("resolver_thread", tests, start, dns_stop);
}
