/* core/resolver/resolve: families that do not wait for each other, CNAMEs in any order, answers that do not fit their
 * question, and a resolv.conf that changes. */
#include "core/resolver/resolve.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/dns_double.h"
#include "tests/resolve_bench.h"

/* Far below the time after which a server is given up: 9 s of 10. */
#define SOON_MS 4000

/* RFC 8305 section 3: one family's address does not wait for the other one. */
static void test_one_family_never(void **state)
{
    (void)state;
    struct ask ask, joined;
    bench_open(dns_address(), 10000);
    ask_start(&ask, "no6.test.", AF_UNSPEC);
    assert_true(bench_run(1) < SOON_MS);
    assert_int_equal(ask.status, 0);
    assert_int_equal(ask.request.count, 1);
    is_address(&ask, 0, "192.0.2.1");
    ask_start(&joined, "no6.test.", AF_UNSPEC); /* the question is still open: this joins it, and has waited enough */
    bench_turn(0);
    assert_int_equal(bench.answers, 2);
    is_address(&joined, 0, "192.0.2.1");
    ask_start(&ask, "no4.test.", AF_UNSPEC);
    assert_true(bench_run(3) < SOON_MS);
    assert_int_equal(ask.request.count, 1);
    is_address(&ask, 0, "2001:db8::1");
    assert_int_equal(resolve_get_stats(bench.resolver)->failures, 0);
    bench_close();
}

/* A late answer is too late for who has waited, and in time for the cache. */
static void test_one_family_late(void **state)
{
    (void)state;
    struct ask ask;
    bench_open(dns_address(), 10000);
    assert_int_equal(ask_now(&ask, "late6.test.", AF_UNSPEC), 0);
    assert_int_equal(ask.request.count, 1);
    is_address(&ask, 0, "192.0.2.1");
    for (int i = 0; i < 100 && ask.request.count == 1; i++) {
        bench_sleep(50);
        assert_int_equal(ask_now(&ask, "late6.test.", AF_UNSPEC), 0);
    }
    assert_int_equal(ask.request.count, 2);
    assert_int_equal(dns_questions("late6.test", DNS_AAAA), 1);
    bench_close();
}

/* Both within the delay: both are there. Once is enough: a busy machine may let more time pass between two answers. */
static void test_both_families(void **state)
{
    (void)state;
    struct ask ask = {.request.count = 0};
    char name[32];
    bench_open(dns_address(), 10000);
    for (int i = 0; i < 20 && ask.request.count != 6; i++) {
        snprintf(name, sizeof name, "both-here%d.test.", i);
        assert_int_equal(ask_now(&ask, name, AF_UNSPEC), 0);
    }
    assert_int_equal(ask.request.count, 6);
    bench_close();
}

static void test_aliases_in_any_order(void **state)
{
    (void)state;
    struct ask ask;
    bench_open(dns_address(), 5000);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(ask_now(&ask, i ? "front2.test" : "front.test", i ? AF_UNSPEC : AF_INET), 0);
        assert_int_equal(ask.request.count, 1);
        is_address(&ask, 0, "192.0.2.7");
        assert_int_equal(ask_now(&ask, i ? "chain2.test" : "chain.test", i ? AF_UNSPEC : AF_INET), 0);
        assert_int_equal(ask.request.count, 1);
        is_address(&ask, 0, "192.0.2.9");
    }
    bench_close();
}

/* Each question has a source port of its own, also when many are open at a time. */
static void test_ports(void **state)
{
    (void)state;
    enum { NAMES = 100 };
    static struct ask asks[NAMES];
    char name[32];
    unsigned before = dns_ports();
    bench_open(dns_address(), 5000);
    for (int i = 0; i < NAMES; i++) {
        snprintf(name, sizeof name, "port%d.test.", i);
        ask_start(&asks[i], name, AF_INET);
    }
    bench_run(NAMES);
    for (int i = 0; i < NAMES; i++) assert_int_equal(asks[i].status, 0);
    assert_true(dns_ports() - before > NAMES / 2); /* some may have been used before */
    bench_close();
}

static void test_forged(void **state)
{
    (void)state;
    struct ask ask;
    bench_open(dns_address(), 5000);
    assert_int_equal(ask_now(&ask, "forged.test.", AF_INET), 0);
    is_address(&ask, 0, "192.0.2.1");
    assert_int_equal(resolve_get_stats(bench.resolver)->mismatched, 4);
    bench_close();
}

/* An answer in another case is not believed, but asked for over TCP, until it is clear that this server knows no
 * better. */
static void test_case_is_not_kept(void **state)
{
    (void)state;
    struct ask ask;
    char name[32];
    unsigned before = dns_tcp_questions();
    bench_open(dns_address(), 5000);
    for (int i = 0; i < 8; i++) {
        snprintf(name, sizeof name, "lowerandlongenough%d.test.", i);
        assert_int_equal(ask_now(&ask, name, AF_INET), 0);
        is_address(&ask, 0, "192.0.2.1");
    }
    assert_int_equal(dns_tcp_questions() - before, 3);
    assert_int_equal(resolve_get_stats(bench.resolver)->mismatched, 3);
    bench_close();
}

static void write_conf(const char *path, const char *text)
{
    char fresh[64];
    snprintf(fresh, sizeof fresh, "%s.new", path);
    FILE *file = fopen(fresh, "we");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(rename(fresh, path), 0);
}

/* A new search list counts soon, and a look-up that is under way is not lost. */
static void test_conf_changes(void **state)
{
    (void)state;
    struct ask ask, open;
    char path[] = "/tmp/sluice-resolv-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    write_conf(path, "search one.test\n");
    bench_resolv_conf = path;
    bench_open(dns_address(), 5000);
    bench_resolv_conf = NULL;
    assert_int_equal(ask_now(&ask, "host", AF_INET), 0);
    assert_int_equal(dns_questions("host.one.test", DNS_A), 1);
    write_conf(path, "search two.test\noptions ndots:1\n");
    bench_sleep(1100);
    assert_int_equal(ask_now(&ask, "host", AF_INET), 0);
    assert_int_equal(dns_questions("host.two.test", DNS_A), 1);
    write_conf(path, "search three.test\n");
    ask_start(&open, "slow-more", AF_INET);
    bench_turn(10);
    assert_int_equal(resolve_reload(bench.resolver), 0); /* at once, in the middle of a question */
    while (open.answers == 0) bench_turn(100);
    assert_int_equal(open.status, 0);
    assert_int_equal(dns_questions("slow-more.three.test", DNS_A), 1);
    unlink(path); /* without one: as c-ares has it, and nothing breaks */
    assert_int_equal(resolve_reload(bench.resolver), 0);
    assert_int_equal(ask_now(&ask, "plain-conf.test.", AF_INET), 0);
    bench_close();
}

/* What was answered without a name server is counted so, once. */
static void test_local_names_are_counted(void **state)
{
    (void)state;
    struct ask ask;
    bench_open(dns_address(), 5000);
    const struct resolve_stats *stats = resolve_get_stats(bench.resolver);
    for (int i = 0; i < 10; i++) assert_int_equal(ask_now(&ask, "localhost", AF_INET), 0);
    assert_int_equal(stats->queries, 0);
    assert_int_equal(stats->local, 1);
    assert_int_equal(stats->cache_hits, 9);
    bench_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_family_never),
        cmocka_unit_test(test_one_family_late),
        cmocka_unit_test(test_both_families),
        cmocka_unit_test(test_aliases_in_any_order),
        cmocka_unit_test(test_ports),
        cmocka_unit_test(test_forged),
        cmocka_unit_test(test_case_is_not_kept),
        cmocka_unit_test(test_conf_changes),
        cmocka_unit_test(test_local_names_are_counted),
    };
    return cmocka_run_group_tests_name("answers_late", tests, dns_start, dns_stop);
}
