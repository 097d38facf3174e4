/* core/control/checkers with several askers, each a thread with a ring of its own, as workers are. */
#include "core/control/checkers.h"

#include <crypt.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/session/worker.h"
#include "tests/support.h"

#define QUESTIONS 512u
/* 1 ms, and some tenths of a second: slow enough to show who waits for whom. */
#define CHEAP "$2b$04$abcdefghijklmnopqrstuu"
#define SLOW  "$6$rounds=20000$abc"

static char folder[] = "/tmp/sluice-checkers-XXXXXX";
static char path[sizeof folder + 8];
static struct config config;
static struct checkers *checkers;
static unsigned open_files;

/* What a worker has of it. */
struct asker {
    struct worker worker;
    struct verify_request requests[QUESTIONS];
    struct credentials credentials[QUESTIONS];
    unsigned answered, results[VERIFY_STOPPED + 1];
    unsigned order[QUESTIONS]; /* when each came back, from 1 on; 0: it has not */
};

static struct asker askers[3];

static const char *hash_of(const char *setting, const char *password)
{
    static struct crypt_data data;
    const char *hash = crypt_r(password, setting, &data);
    assert_non_null(hash);
    return hash;
}

static void open_checkers(void)
{
    char why[256] = "";
    open_files = support_count_descriptors();
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fprintf(file, "alice:%s\n", hash_of(CHEAP, "right"));
    fprintf(file, "bob:%s\n", hash_of(CHEAP, "other"));
    fprintf(file, "slow:%s\n", hash_of(SLOW, "right"));
    assert_int_equal(fclose(file), 0);
    config = (struct config){.user_files = {NULL, path}, .user_file_count = 1};
    assert_int_equal(checkers_open(&checkers, &config), 0);
    if (users_load(checkers_users(checkers, 1), why, sizeof why) < 0) fail_msg("%s", why);
    assert_int_equal(checkers_start(checkers), 0);
}

/* Behind the desk's end, as in coordinator_run(): it may be about to wake an asker that has its answer. */
static void asker_close(struct asker *a)
{
    if (a->worker.ring) ring_destroy(a->worker.ring);
    a->worker.ring = NULL;
}

static void close_checkers(void)
{
    checkers_end(checkers);
    checkers_close(checkers);
    for (unsigned i = 0; i < sizeof askers / sizeof *askers; i++) asker_close(&askers[i]);
    assert_int_equal(support_count_descriptors(), open_files);
}

static void asker_open(struct asker *a)
{
    memset(a, 0, sizeof *a);
    a->worker.verifier = checkers_verifier(checkers);
    assert_int_equal(ring_open(&a->worker.ring, &(struct ring_options){.entries = 16}), 0);
}

static void on_answer(struct letter *letter)
{
    struct verify_request *request = link_owner(letter, struct verify_request, letter);
    struct asker *a = link_owner(request->worker, struct asker, worker);
    assert_int_equal(a->order[request->slot], 0);
    a->results[request->result]++;
    a->order[request->slot] = ++a->answered;
}

/* source: the last octet of its address; 0: a user of this machine */
static void ask(struct asker *a, uint32_t slot, uint8_t source, const char *user, const char *password)
{
    struct verify_request *request = &a->requests[slot];
    struct credentials *c = &a->credentials[slot];
    *c = (struct credentials){.present = true};
    snprintf(c->user, sizeof c->user, "%s", user);
    snprintf(c->password, sizeof c->password, "%s", password);
    memset(request, 0, sizeof *request);
    request->answered = on_answer;
    request->worker = &a->worker;
    request->slot = slot;
    request->store = 1;
    request->source = (struct share_source){.octets = {192, 0, 2, source}, .size = source ? 4 : 0};
    if (!source) memset(request->source.octets, 0, sizeof request->source.octets);
    request->digest = verify_digest_of(a->worker.verifier, 1, c);
    request->credentials = c;
    a->order[slot] = 0;
    a->worker.verifier->ask(a->worker.verifier, request);
}

/* As a worker: announce, look, sleep. */
static void await(struct asker *a, unsigned answers)
{
    struct ring_completion completion;
    while (a->answered < answers) {
        sleeper_announce(&a->worker.sleeper);
        assert_int_equal(ring_wait(a->worker.ring, letter_box_is_empty(&a->worker.letters) ? 60000 : 0), 0);
        sleeper_awake(&a->worker.sleeper);
        while (ring_next(a->worker.ring, &completion)) assert_int_equal(completion.tag.op, WORKER_OP_WAKE);
        letter_box_deliver(&a->worker.letters);
    }
}

static enum verify_result judge(struct asker *a, const char *user, const char *password)
{
    unsigned before = a->answered;
    ask(a, 0, 1, user, password);
    await(a, before + 1);
    return (enum verify_result)a->requests[0].result;
}

static void test_answers(void **state)
{
    struct asker *a = &askers[0];
    (void)state;
    open_checkers();
    asker_open(a);
    assert_int_equal(judge(a, "alice", "right"), VERIFY_RIGHT);
    assert_int_equal(a->requests[0].era, a->worker.verifier->eras[1]);
    assert_true(a->requests[0].hashed);
    assert_int_equal(judge(a, "alice", "right"), VERIFY_RIGHT);
    assert_false(a->requests[0].hashed);
    assert_int_equal(judge(a, "alice", "wrong"), VERIFY_WRONG);
    assert_int_equal(judge(a, "bob", "right"), VERIFY_WRONG);
    assert_int_equal(judge(a, "bob", "other"), VERIFY_RIGHT);
    assert_int_equal(judge(a, "nobody", "right"), VERIFY_UNKNOWN);
    assert_true(users_remove(checkers_users(checkers, 1), "alice"));
    assert_int_equal(judge(a, "alice", "right"), VERIFY_UNKNOWN);
    close_checkers();
}

static void *asker_main(void *argument)
{
    struct asker *a = argument;
    asker_open(a);
    uint8_t source = (uint8_t)(1 + (a - askers));
    for (unsigned round = 0; round < 20; round++) {
        unsigned before = a->answered;
        for (uint32_t i = 0; i < 48; i++) {
            char password[16];
            snprintf(password, sizeof password, i % 3 == 0 ? "wrong%u" : "right", i);
            ask(a, i, source, i % 3 == 1 ? "nobody" : "alice", password);
        }
        await(a, before + 48);
    }
    return NULL;
}

/* While users come and go. */
static void test_many_askers(void **state)
{
    pthread_t threads[3];
    (void)state;
    open_checkers();
    for (unsigned i = 0; i < 3; i++) assert_int_equal(pthread_create(&threads[i], NULL, asker_main, &askers[i]), 0);
    char hash[USERS_SETTING_SIZE];
    snprintf(hash, sizeof hash, "%s", hash_of(CHEAP, "x"));
    for (unsigned i = 0; i < 200; i++) {
        assert_null(users_put(checkers_users(checkers, 1), "carol", &(struct users_change){.hash = hash}));
        usleep(500);
        assert_true(users_remove(checkers_users(checkers, 1), "carol"));
    }
    for (unsigned i = 0; i < 3; i++) pthread_join(threads[i], NULL);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(askers[i].results[VERIFY_RIGHT], 20 * 16);
        assert_int_equal(askers[i].results[VERIFY_WRONG], 20 * 16);
        assert_int_equal(askers[i].results[VERIFY_UNKNOWN], 20 * 16);
    }
    close_checkers();
}

/* Who tries many at once waits behind himself: his line is bounded, and others pass it. */
static void test_one_source_waits_for_itself(void **state)
{
    struct asker *a = &askers[0];
    (void)state;
    open_checkers();
    asker_open(a);
    for (uint32_t i = 0; i < 300; i++) ask(a, i, 1, "slow", "wrong");
    ask(a, 300, 2, "slow", "wrong");
    ask(a, 301, 3, "alice", "right");
    while (a->order[300] == 0 || a->order[301] == 0) await(a, a->answered + 1);
    assert_int_equal(a->requests[300].result, VERIFY_WRONG);
    assert_int_equal(a->requests[301].result, VERIFY_RIGHT);
    /* He has never had all hashers, and most of his questions have not even waited. */
    unsigned hashed = a->results[VERIFY_WRONG] - 1;
    assert_true(hashed < CHECKERS_SOURCE_MAX / 2);
    assert_true(a->results[VERIFY_BUSY] + hashed + CHECKERS_SOURCE_MAX + 8 >= 300);
    checkers_stop(checkers);
    await(a, 302);
    assert_true(a->results[VERIFY_STOPPED] > 0);
    close_checkers();
}

/* Nobody waits for a hash at the end: all questions come back, and the hash is left to itself. */
static void test_the_end_waits_for_no_hash(void **state)
{
    struct asker *a = &askers[0];
    (void)state;
    open_checkers();
    asker_open(a);
    for (uint32_t i = 0; i < 40; i++) ask(a, i, (uint8_t)(1 + i % 20), "slow", "wrong");
    ask(a, 40, 0, "slow", "wrong");
    await(a, 1); /* hashes are being made */
    checkers_stop(checkers);
    await(a, 41);
    assert_true(a->results[VERIFY_STOPPED] >= 41 - 8);
    ask(a, 41, 1, "alice", "right");
    await(a, 42);
    assert_int_equal(a->requests[41].result, VERIFY_STOPPED);
    close_checkers();
}

static void test_a_question_that_is_taken_back(void **state)
{
    struct asker *a = &askers[0];
    (void)state;
    open_checkers();
    asker_open(a);
    for (uint32_t i = 0; i < 40; i++) ask(a, i, 1, "slow", "wrong");
    for (uint32_t i = 1; i < 40; i++) a->requests[i].cancelled = 1;
    await(a, 40);
    assert_true(a->results[VERIFY_STOPPED] >= 40 - 8);
    close_checkers();
}

static void test_the_start_may_be_given_up(void **state)
{
    (void)state;
    open_files = support_count_descriptors();
    config = (struct config){.user_files = {NULL, path}, .user_file_count = 1};
    assert_int_equal(checkers_open(&checkers, &config), 0);
    close_checkers();
    checkers_close(NULL);
}

/* --- orders --- */

static sem_t order_done;
static unsigned orders_stopped, orders_made;

/* On the desk's thread. */
static void on_order(struct checkers_order *order, struct ring *ring)
{
    assert_non_null(ring);
    orders_stopped += order->stopped;
    orders_made += !order->stopped && !*order->job.why;
    sem_post(&order_done);
}

static void order(struct checkers_order *o, const char *password, const char *file)
{
    memset(o, 0, sizeof *o);
    o->job.hashes = true;
    snprintf(o->job.password, sizeof o->job.password, "%s", password);
    snprintf(o->job.name, sizeof o->job.name, "dora");
    o->job.path = file;
    o->done = on_order;
    checkers_take_order(checkers, o);
}

static void await_orders(unsigned count)
{
    while (count > 0)
        if (sem_wait(&order_done) == 0) count--;
}

/* A password is hashed, and wiped; the line that it makes is the one that the store reads. */
static void test_orders(void **state)
{
    static struct checkers_order o;
    static const char nothing[sizeof o.job.password];
    char why[256] = "";
    (void)state;
    open_checkers();
    sem_init(&order_done, 0, 0);
    orders_made = orders_stopped = 0;
    order(&o, "secret", path);
    await_orders(1);
    assert_int_equal(orders_made, 1);
    assert_string_equal(hash_of(o.job.texts.hash, "secret"), o.job.texts.hash);
    assert_memory_equal(o.job.password, nothing, sizeof nothing);
    if (users_load(checkers_users(checkers, 1), why, sizeof why) < 0) fail_msg("%s", why);
    assert_int_equal(users_count(checkers_users(checkers, 1)), 4);
    asker_open(&askers[0]);
    assert_int_equal(judge(&askers[0], "dora", "secret"), VERIFY_RIGHT);
    order(&o, "", path);
    await_orders(1);
    assert_true(o.job.refused);
    assert_non_null(strstr(o.job.why, "empty"));
    order(&o, "secret", "/nowhere/users");
    await_orders(1);
    assert_false(o.job.refused);
    assert_non_null(strstr(o.job.why, "/nowhere/users: No such file"));
    close_checkers();
}

/* Each comes back once, whether it was begun or not, and the passwords of those that were not are gone. */
static void test_orders_at_the_end(void **state)
{
    static struct checkers_order all[40];
    static const char nothing[sizeof all->job.password];
    (void)state;
    open_checkers();
    sem_init(&order_done, 0, 0);
    orders_made = orders_stopped = 0;
    for (unsigned i = 0; i < 20; i++) order(&all[i], "secret", NULL);
    checkers_stop(checkers);
    for (unsigned i = 20; i < 40; i++) order(&all[i], "secret", NULL);
    await_orders(40);
    assert_int_equal(orders_made + orders_stopped, 40);
    assert_true(orders_stopped >= 20);
    for (unsigned i = 0; i < 40; i++) assert_memory_equal(all[i].job.password, nothing, sizeof nothing);
    close_checkers();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_many_askers),
        cmocka_unit_test(test_one_source_waits_for_itself),
        cmocka_unit_test(test_the_end_waits_for_no_hash),
        cmocka_unit_test(test_a_question_that_is_taken_back),
        cmocka_unit_test(test_the_start_may_be_given_up),
        cmocka_unit_test(test_orders),
        cmocka_unit_test(test_orders_at_the_end),
    };
    if (!mkdtemp(folder)) return 1;
    snprintf(path, sizeof path, "%s/users", folder);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    rmdir(folder);
    return failed;
}
