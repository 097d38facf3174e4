/* core/resolver/resolve on a real ring: what answers hold, how long they are kept, and how many at a time. */
#include "core/resolver/resolve.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/dns_double.h"
#include "tests/resolve_bench.h"

static void test_answer_and_cache(void **state)
{
    (void)state;
    struct ask ask;
    bench_open(dns_address(), 5000);
    assert_true(resolve_wait_ms(bench.resolver, ring_now_ms(bench.ring)) == UINT64_MAX);
    assert_int_equal(ask_now(&ask, "plain.test", AF_INET), 0);
    assert_int_equal(ask.request.count, 1);
    is_address(&ask, 0, "192.0.2.1");
    assert_int_equal(ask.request.name.port, 80);
    assert_true(resolve_wait_ms(bench.resolver, ring_now_ms(bench.ring)) == UINT64_MAX);

    int answers = bench.answers;
    ask_start(&ask, "PLAIN.Test", AF_INET);   /* without regard to case */
    assert_int_equal(bench.answers, answers); /* never within the call that asks */
    assert_int_equal(resolve_wait_ms(bench.resolver, ring_now_ms(bench.ring)), 0);
    bench_turn(0);
    assert_int_equal(bench.answers, answers + 1);
    assert_int_equal(ask.status, 0);
    is_address(&ask, 0, "192.0.2.1");
    assert_int_equal(dns_questions("plain.test", DNS_A), 1);
    const struct resolve_stats *stats = resolve_get_stats(bench.resolver);
    assert_int_equal(stats->queries, 1);
    assert_int_equal(stats->cache_hits, 1); /* and not a query, too */
    assert_int_equal(stats->local, 0);
    assert_int_equal(stats->cached, 1);
    assert_int_equal(stats->failures, 0);

    assert_int_equal(ask_now(&ask, "plain.test", AF_UNSPEC), 0); /* another question */
    assert_int_equal(dns_questions("plain.test", DNS_A), 2);
    assert_int_equal(ask_now(&ask, "plain.test.", AF_INET), 0); /* and another */
    is_address(&ask, 0, "192.0.2.1");
    bench_close();
}

/* A label of 64 octets cannot be sent: that is known within the call, and the answer does not wait for a server. */
static void test_name_that_cannot_be_sent(void **state)
{
    (void)state;
    struct ask ask;
    char name[80];
    memset(name, 'a', 64);
    strcpy(name + 64, ".test");
    bench_open(dns_address(), 5000);
    for (unsigned i = 0; i < 3; i++) {
        ask_start(&ask, name, (const int[]){AF_INET, AF_INET6, AF_UNSPEC}[i]);
        bench_turn(0);
        bench_turn(0);
        assert_int_equal(ask.answers, 1);
        assert_int_equal(ask.status, -ENOENT);
    }
    assert_int_equal(resolve_get_stats(bench.resolver)->timeouts, 0);
    bench_close();
}

static void test_families(void **state)
{
    (void)state;
    struct ask ask;
    bench_open(dns_address(), 5000);
    assert_int_equal(ask_now(&ask, "both.test", AF_INET), 0);
    assert_int_equal(ask.request.count, 2);
    is_address(&ask, 0, "192.0.2.1");
    is_address(&ask, 1, "192.0.2.2");
    assert_int_equal(dns_questions("both.test", DNS_AAAA), 0);
    assert_int_equal(ask_now(&ask, "both.test", AF_INET6), 0);
    assert_int_equal(ask.request.count, 4);
    for (uint32_t i = 0; i < 4; i++) assert_int_equal(ask.request.results[i].kind, ADDRESS_IPV6);
    assert_int_equal(dns_questions("both.test", DNS_A), 1);
    assert_int_equal(ask_now(&ask, "v6.test", AF_INET), -ENOENT);
    assert_int_equal(ask_now(&ask, "v6.test", AF_INET6), 0);
    is_address(&ask, 0, "2001:db8::1");
    assert_int_equal(ask_now(&ask, "plain.test", AF_INET6), -ENOENT);

    /* Which family comes first depends on the machine's routes (RFC 6724); that they take turns does not. */
    assert_int_equal(ask_now(&ask, "both.test", AF_UNSPEC), 0);
    assert_int_equal(ask.request.count, 6);
    for (uint32_t i = 1; i < 4; i++) assert_true(ask.request.results[i].kind != ask.request.results[i - 1].kind);
    assert_int_equal(ask.request.results[4].kind, ADDRESS_IPV6);
    assert_int_equal(ask.request.results[5].kind, ADDRESS_IPV6);

    char many[32] = ""; /* 25 and 14, if both come within the delay, as they do on a machine that is not too busy */
    ask.request.count = 0;
    for (int i = 0; i < 20 && ask.request.count < RESOLVE_ADDRESSES_MAX; i++) {
        snprintf(many, sizeof many, "many%d.test", i);
        assert_int_equal(ask_now(&ask, many, AF_UNSPEC), 0);
    }
    assert_int_equal(ask.request.count, RESOLVE_ADDRESSES_MAX);
    for (uint32_t i = 1; i < RESOLVE_ADDRESSES_MAX; i++)
        assert_true(ask.request.results[i].kind != ask.request.results[i - 1].kind);
    assert_int_equal(ask_now(&ask, "many.test", AF_INET), 0);
    assert_int_equal(ask.request.count, RESOLVE_ADDRESSES_MAX);
    bench_close();
}

static void test_coalesced(void **state)
{
    (void)state;
    struct ask asks[50];
    bench_open(dns_address(), 5000);
    for (int i = 0; i < 50; i++) ask_start(&asks[i], i % 2 == 0 ? "slow-one.test" : "SLOW-one.test", AF_INET);
    assert_int_equal(bench.answers, 0);
    atomic_store(&asks[7].request.cancelled, 1); /* while it waits: comes back on its turn */
    bench_run(50);
    for (int i = 0; i < 50; i++) {
        assert_int_equal(asks[i].answers, 1);
        assert_int_equal(asks[i].status, i == 7 ? -ECANCELED : 0);
        assert_int_equal(asks[i].request.count, i == 7 ? 0 : 1);
    }
    assert_int_equal(dns_questions("slow-one.test", DNS_A), 1);
    assert_int_equal(resolve_get_stats(bench.resolver)->coalesced, 49);
    bench_close();
}

static void test_ttl(void **state)
{
    (void)state;
    struct ask ask;
    bench_open(dns_address(), 5000);
    assert_int_equal(ask_now(&ask, "zero.test", AF_INET), 0);  /* TTL 0 counts as one second */
    assert_int_equal(ask_now(&ask, "alias.test", AF_INET), 0); /* CNAME with TTL 1, address with 300 */
    is_address(&ask, 0, "192.0.2.7");
    assert_int_equal(ask_now(&ask, "plain2.test", AF_INET), 0);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(ask_now(&ask, "zero.test", AF_INET), 0);
        assert_int_equal(ask_now(&ask, "alias.test", AF_INET), 0);
    }
    assert_int_equal(dns_questions("zero.test", DNS_A), 1);
    assert_int_equal(dns_questions("alias.test", DNS_A), 1);
    bench_sleep(1100);
    assert_int_equal(ask_now(&ask, "zero.test", AF_INET), 0);
    assert_int_equal(ask_now(&ask, "alias.test", AF_INET), 0);
    assert_int_equal(ask_now(&ask, "plain2.test", AF_INET), 0);
    assert_int_equal(dns_questions("zero.test", DNS_A), 2);
    assert_int_equal(dns_questions("alias.test", DNS_A), 2);
    assert_int_equal(dns_questions("plain2.test", DNS_A), 1);
    assert_int_equal(resolve_get_stats(bench.resolver)->cached, 3);
    bench_close();
}

static void test_negative(void **state)
{
    (void)state;
    struct ask ask;
    bench_open(dns_address(), 5000);
    for (int i = 0; i < 5; i++) assert_int_equal(ask_now(&ask, "nx.test.", AF_INET), -ENOENT);
    assert_int_equal(dns_questions("nx.test", DNS_A), 1);
    assert_int_equal(resolve_get_stats(bench.resolver)->failures, 5);
    bench_sleep(RESOLVE_NEGATIVE_TTL_MS + 50);
    assert_int_equal(ask_now(&ask, "nx.test.", AF_INET), -ENOENT);
    assert_int_equal(dns_questions("nx.test", DNS_A), 2);
    /* A server's failure is an error, and is not remembered. */
    assert_int_equal(ask_now(&ask, "fail.test.", AF_INET), -EIO);
    unsigned questions = dns_questions("fail.test", DNS_A);
    assert_int_equal(ask_now(&ask, "fail.test.", AF_INET), -EIO);
    assert_true(dns_questions("fail.test", DNS_A) > questions);
    bench_close();
}

static void name_number(char *name, size_t size, int number)
{
    snprintf(name, size, "n%d.lru.test", number);
}

/* More names than the cache holds: it stays bounded, and forgets those that were not asked for. */
static void test_cache_is_bounded(void **state)
{
    (void)state;
    enum { BATCH = 100, NAMES = 4300 };
    static struct ask asks[BATCH];
    struct ask ask;
    char name[32];
    bench_open(dns_address(), 5000);
    const struct resolve_stats *stats = resolve_get_stats(bench.resolver);
    for (int i = 0; i < NAMES; i++) {
        name_number(name, sizeof name, i);
        ask_start(&asks[i % BATCH], name, AF_INET);
        if (i % BATCH < BATCH - 1) continue;
        bench_run(bench.answers - bench.answers % BATCH + BATCH);
        for (int j = 0; j < BATCH; j++) assert_int_equal(asks[j].status, 0);
        name_number(name, sizeof name, 0); /* kept young */
        ask_now(&ask, name, AF_INET);
        bench.answers--;
    }
    assert_int_equal(stats->cached, RESOLVE_CACHE_ENTRIES);
    assert_int_equal(stats->cache_hits, NAMES / BATCH);
    name_number(name, sizeof name, NAMES - 1);
    ask_now(&ask, name, AF_INET);
    name_number(name, sizeof name, 0);
    ask_now(&ask, name, AF_INET);
    assert_int_equal(stats->cache_hits, NAMES / BATCH + 2);
    name_number(name, sizeof name, 1); /* forgotten */
    ask_now(&ask, name, AF_INET);
    assert_int_equal(stats->cache_hits, NAMES / BATCH + 2);
    assert_int_equal(stats->cached, RESOLVE_CACHE_ENTRIES);
    bench_close();
}

/* More questions at a time than there is room for are refused, and the rest come to an end. */
static void test_queries_are_bounded(void **state)
{
    (void)state;
    enum { NAMES = 4200 };
    struct ask *asks = calloc(NAMES, sizeof *asks);
    int refused = 0, late = 0;
    bench_open(dns_address(), 400);
    for (int i = 0; i < NAMES; i++) {
        char name[32];
        snprintf(name, sizeof name, "never%d.test.", i);
        ask_start(&asks[i], name, AF_INET);
    }
    bench_run(NAMES);
    for (int i = 0; i < NAMES; i++) {
        assert_int_equal(asks[i].answers, 1);
        refused += asks[i].status == -ENOMEM;
        late += asks[i].status == -ETIMEDOUT;
    }
    assert_int_equal(refused, NAMES - 4096);
    assert_int_equal(late, 4096);
    bench_close();
    free(asks);
}

/* One source whose names nobody answers: others find room. */
static void test_shares(void **state)
{
    (void)state;
    enum { NAMES = 4000, OTHERS = 300 };
    struct ask *asks = calloc(NAMES + OTHERS, sizeof *asks), good;
    int refused[2] = {0, 0};
    bench_open(dns_address(), 4000);
    for (int i = 0; i < NAMES + OTHERS; i++) {
        char name[32];
        int size = snprintf(name, sizeof name, "never%d.test.", i);
        asks[i] = (struct ask){.request.family = AF_INET};
        assert_true(address_from_host(name, (size_t)size, 80, &asks[i].request.name));
        asks[i].request.source = (struct share_source){{192, 0, 2, (uint8_t)(i < NAMES ? 1 : 2)}, 4};
        assert_int_equal(resolve_ask(bench.resolver, &asks[i].request, &asks[i]), 0);
    }
    bench_turn(0);
    for (int i = 0; i < NAMES + OTHERS; i++) refused[i >= NAMES] += asks[i].status == -ENOMEM;
    assert_int_equal(refused[0], NAMES - 3072);
    assert_int_equal(refused[1], OTHERS - 256);
    assert_int_equal(resolve_get_stats(bench.resolver)->refused, refused[0] + refused[1]);
    ask_start(&good, "plain-share.test.", AF_INET); /* of nobody who is bounded */
    while (good.answers == 0) bench_turn(100);
    assert_int_equal(good.status, 0);
    bench_run(NAMES + OTHERS + 1);
    ask_start(&asks[0], "plain-share2.test.", AF_INET); /* all of it has been given back */
    asks[0].request.source.size = 4;
    bench_run(NAMES + OTHERS + 2);
    assert_int_equal(asks[0].status, 0);
    bench_close();
    free(asks);
}

/* Others have taken all descriptors but a few, on which names wait that nobody answers: the next name is asked for. */
static void test_no_descriptor_left(void **state)
{
    (void)state;
    enum { NAMES = 12, LEFT = 4 };
    struct ask asks[NAMES], good;
    struct rlimit before, limit;
    bench_open(dns_address(), 2000);
    assert_int_equal(ask_now(&good, "plain-first.test.", AF_INET), 0);
    int next = dup(STDIN_FILENO);
    assert_true(next >= 0);
    close(next);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    limit = (struct rlimit){.rlim_cur = (rlim_t)next + LEFT, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    for (int i = 0; i < NAMES; i++) {
        char name[32];
        snprintf(name, sizeof name, "never-left%d.test.", i);
        ask_start(&asks[i], name, AF_INET);
    }
    bench_turn(0);
    ask_start(&good, "plain-left.test.", AF_INET);
    while (good.answers == 0) bench_turn(100);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(good.status, 0);
    bench_run(NAMES + 2);
    bench_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answer_and_cache),
        cmocka_unit_test(test_name_that_cannot_be_sent),
        cmocka_unit_test(test_families),
        cmocka_unit_test(test_coalesced),
        cmocka_unit_test(test_ttl),
        cmocka_unit_test(test_negative),
        cmocka_unit_test(test_cache_is_bounded),
        cmocka_unit_test(test_queries_are_bounded),
        cmocka_unit_test(test_shares),
        cmocka_unit_test(test_no_descriptor_left),
    };
    return cmocka_run_group_tests_name("answers", tests, dns_start, dns_stop);
}
