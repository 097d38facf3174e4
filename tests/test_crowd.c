/* core/session/crowd on the simulated kernel: one source cannot keep the others out, however many connections it makes
 * and says nothing on. */
#include "core/session/crowd.h"
#include "tests/sim_bench.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "protocols/proxy_header.h"

#define SLOTS 140u

static struct sim_bench bench;

static void open_bench(uint32_t sessions, uint32_t setups)
{
    sim_bench_prepare(&bench);
    bench.config.listeners[0] = (struct listener_config){.kind = LISTENER_AUTO};
    bench.config.sessions = sessions;
    bench.config.setups = setups;
    sim_bench_open(&bench, 1);
}

/* A silent client from that address. True: it was let in. */
static bool come(const char *from, struct sim_conn **conn)
{
    struct address at;
    uint64_t accepted = counter_read(&bench.worker.stats.accepted);
    assert_true(address_from_host(from, strlen(from), 4000, &at));
    *conn = sim_bench_connect(&bench, 0, 256);
    assert_true(net_address_from(&at, &(*conn)->far_address));
    sim_bench_pass(&bench, 1);
    return counter_read(&bench.worker.stats.accepted) > accepted;
}

static uint32_t come_many(const char *from, uint32_t count, struct sim_conn **conns)
{
    uint32_t let_in = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct sim_conn *conn;
        if (come(from, &conn)) conns[let_in++] = conn;
    }
    return let_in;
}

static void go(struct sim_conn **conns, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) sim_close(conns[i]);
    sim_bench_pass(&bench, 5);
}

/* Half of the slots for one that is alone; its next ones get in again when some have ended. */
static void test_one_source(void **state)
{
    struct sim_conn *all[SLOTS], *one;
    (void)state;
    open_bench(SLOTS, SLOTS);
    assert_int_equal(come_many("192.0.2.1", 75, all), SLOTS / 2);
    assert_int_equal(counter_read(&bench.worker.stats.refused_share), 75 - SLOTS / 2);
    assert_int_equal(counter_read(&bench.worker.stats.refused_limit), 75 - SLOTS / 2);
    assert_true(come("192.0.2.2", &one)); /* a stranger */
    go(&one, 1);
    go(all, 10);
    assert_int_equal(come_many("192.0.2.1", 12, all), 10);
    go(all, 10);
    assert_int_equal(bench.worker.setups.used, SLOTS / 2 - 10);
    sim_bench_close(&bench);
}

/* Addresses of one /64 are one source, those of another are not; IPv4 in IPv6 is IPv4. */
static void test_prefixes(void **state)
{
    struct sim_conn *all[SLOTS], *one;
    char from[64];
    uint32_t let_in = 0;
    (void)state;
    open_bench(SLOTS, SLOTS);
    for (unsigned i = 0; i < 72; i++) {
        snprintf(from, sizeof from, "2001:db8:1:2:%x::%x", i, i);
        let_in += come_many(from, 1, all);
    }
    assert_int_equal(let_in, SLOTS / 2);
    assert_false(come("2001:db8:1:2:ffff:ffff:ffff:ffff", &one));
    assert_true(come("2001:db8:1:3::1", &one));
    assert_true(come("::ffff:192.0.2.1", &one));
    assert_true(come("192.0.2.1", &one));
    sim_bench_close(&bench);
}

/* A few are always allowed, however small the pool is: what a limit of the operator's lets in is not cut in half. */
static void test_floor(void **state)
{
    struct sim_conn *all[SLOTS];
    (void)state;
    open_bench(CROWD_FLOOR, CROWD_FLOOR);
    assert_int_equal(come_many("192.0.2.1", CROWD_FLOOR, all), CROWD_FLOOR);
    assert_int_equal(counter_read(&bench.worker.stats.refused_share), 0);
    sim_bench_close(&bench);
}

/* Sessions that relay leave fewer for handshakes. */
static void test_sessions_are_what_is_short(void **state)
{
    struct sim_conn *all[SLOTS], *one;
    (void)state;
    open_bench(SLOTS, 1000);
    assert_int_equal(come_many("192.0.2.1", 75, all), SLOTS / 2);
    assert_true(come("192.0.2.2", &one));
    sim_bench_close(&bench);
}

/* The table has room for more sources than half of the slots. */
static void test_many_sources(void **state)
{
    struct sim_conn *all[SLOTS];
    char from[64];
    (void)state;
    open_bench(SLOTS, SLOTS);
    assert_int_equal(come_many("192.0.2.1", 75, all), SLOTS / 2); /* from now on they are counted */
    go(all, SLOTS / 2 - 1);
    for (unsigned i = 0; i < SLOTS / 2 + 10; i++) {
        snprintf(from, sizeof from, "198.51.100.%u", i + 1);
        assert_true(come(from, &all[i]));
    }
    sim_bench_close(&bench);
}

/* By the proxy of --proxy-protocol, with a header that names `from`; NULL: it sends none. True: it was let in. */
static bool come_behind(const char *from, struct sim_conn **conn)
{
    static const struct proxy_header_facts no_facts;
    uint8_t out[PROXY_HEADER_WRITTEN_SIZE_MAX];
    struct address at, local = {.kind = ADDRESS_IPV4, .port = 443, .ipv4 = {198, 51, 100, 1}};
    assert_true(come("10.0.0.5", conn));
    if (!from) return true;
    assert_true(address_from_host(from, strlen(from), 4000, &at));
    struct proxy_header header = {.client = host_port_of(&at), .local = host_port_of(&local)};
    assert_true(sim_write(*conn, out, proxy_header_write(out, sizeof out, 2, &header, &no_facts)) > 0);
    sim_bench_pass(&bench, 2);
    return !(*conn)->near_closed;
}

/* Handshakes of clients behind a proxy are theirs, and not the proxy's: one of them gets half of the slots, others are
 * let in, and connections whose header has not come yet are nobody's. */
static void test_behind_a_proxy(void **state)
{
    struct sim_conn *one;
    uint32_t let_in = 0;
    (void)state;
    sim_bench_prepare(&bench);
    bench.config.listeners[0] = (struct listener_config){.kind = LISTENER_AUTO, .proxies.count = 1};
    bench.config.listeners[0].proxies.networks[0].bits = 96;
    bench.config.sessions = bench.config.setups = SLOTS;
    sim_bench_open(&bench, 1);
    for (unsigned i = 0; i < 75; i++) let_in += come_behind("192.0.2.1", &one);
    assert_int_equal(let_in, SLOTS / 2);
    assert_int_equal(counter_read(&bench.worker.stats.failures[FAIL_SHARE]), 75 - SLOTS / 2);
    for (unsigned i = 0; i < 30; i++) assert_true(come_behind(NULL, &one));
    assert_true(come_behind("192.0.2.2", &one));
    assert_false(come_behind("192.0.2.1", &one));
    assert_int_equal(bench.worker.setups.used, SLOTS / 2 + 31);
    sim_bench_close(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_source),   cmocka_unit_test(test_prefixes),
        cmocka_unit_test(test_floor),        cmocka_unit_test(test_sessions_are_what_is_short),
        cmocka_unit_test(test_many_sources), cmocka_unit_test(test_behind_a_proxy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
