/* The text of /stats, line by line: every number of a snapshot is another one, and stands where it belongs. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "api/stats.h"
#include "tests/support.h"

static struct snapshot snapshot;
static struct text text;

/* Latencies in microseconds, ten of each: their median, nine tenths, and so on are all in other classes. */
static void observe(struct histogram_sum *sum, uint64_t unit_us)
{
    static struct histogram histogram;
    memset(&histogram, 0, sizeof histogram);
    for (unsigned i = 0; i < 1000; i++) {
        uint64_t us = i < 600 ? unit_us : i < 950 ? 10 * unit_us : i < 995 ? 100 * unit_us : 1000 * unit_us;
        histogram_add(&histogram, us);
    }
    histogram_add_to(sum, &histogram);
}

static int set_up(void **state)
{
    (void)state;
    setenv("TZ", "IST-5:30", 1);
    tzset();
    memset(&text, 0, sizeof text);
    snapshot = (struct snapshot){
        .time = 1796000000.75,
        .uptime = 90061,
        .cpu = 12.5,
        .active = 11,
        .half_open = 12,
        .peak = 13,
        .accepted = 14,
        .refused = 15,
        .requests = 36,
        .successes = 17,
        .reject_ruleset = 18,
        .reject_timeout = 19,
        .reject_upstream = 20,
        .names_found = 21,
        .names_failed = 22,
        .handshake_in = 23,
        .handshake_out = 24,
        .api_requests = 45,
        .api_successes = 26,
        .api_in = 27,
        .api_out = 28,
        .hop_in = 29,
        .hop_out = 30,
        .bytes_up = 62,
        .bytes_down = 64,
        .has_ruleset = true,
    };
    snapshot.engine.calls = 33;
    snapshot.engine.call_bytes_in = 34;
    snapshot.engine.call_bytes_out = 35;
    snapshot.memory = (struct engine_memory){.bytes = 3072,
                                             .objects = 36,
                                             .limit = 65536,
                                             .threads = 37,
                                             .threads_peak = 38,
                                             .events = 39,
                                             .event_p50 = 40,
                                             .event_p90 = 41,
                                             .event_p99 = 42,
                                             .event_max = 43};
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    text_free(&text);
    return 0;
}

static void assert_text(const char *expected)
{
    assert_false(text.failed);
    assert_string_equal(text.data, expected);
}

#define SERVER                                                                                                         \
    "Server Time         : 2026-11-30T06:23:20+05:30\n"                                                                \
    "Uptime              : 1d01:01:01\n"                                                                               \
    "Num Sessions        : 11 (+12) peak=13\n"                                                                         \
    "Num Rejected        : ruleset=18, timeout=19, upstream=20\n"                                                      \
    "Conn Accepts        : 14 (+15)\n"                                                                                 \
    "Name Resolves       : 21 (+22)\n"                                                                                 \
    "Requests            : 17 (+19), Rx 23B, Tx 24B\n"                                                                 \
    "API Requests        : 26 (+19), Rx 27B, Tx 28B\n"                                                                 \
    "Handshake Dial      : Rx 29B, Tx 30B\n"                                                                           \
    "Traffic             : Up 62B, Down 64B\n"                                                                         \
    "API Client          : 33 reqs, Rx 34B, Tx 35B\n"

static void test_server(void **state)
{
    static const struct stats_query query = {.runtime = false};
    (void)state;
    stats_write(&text, &snapshot, &query);
    assert_text(SERVER "Connect Latency     : (never)\n");
}

static void test_runtime(void **state)
{
    static const struct stats_query query = {.runtime = true};
    (void)state;
    stats_write(&text, &snapshot, &query);
    assert_text(SERVER "Ruleset Allocated   : 3.00KiB < 64.0KiB (36 objects)\n"
                       "Ruleset Threads     : 37 (peak 38)\n"
                       "Ruleset Events      : P50=40ns P90=41ns P99=42ns MAX=43ns\n"
                       "Connect Latency     : (never)\n");
}

/* There is no state to tell about. */
static void test_runtime_without_a_ruleset(void **state)
{
    static const struct stats_query query = {.runtime = true};
    (void)state;
    snapshot.has_ruleset = false;
    snapshot.requests = 3; /* fewer than are done: they are read one after the other */
    stats_write(&text, &snapshot, &query);
    assert_non_null(strstr(text.data, "Requests            : 17 (+0), "));
    assert_null(strstr(text.data, "Ruleset"));
}

static void test_memory_without_a_limit(void **state)
{
    (void)state;
    snapshot.memory.limit = 0;
    snapshot.memory.events = 0;
    stats_write_memory(&text, &snapshot.memory);
    assert_text("Ruleset Allocated   : 3.00KiB (36 objects)\n"
                "Ruleset Threads     : 37 (peak 38)\n"
                "Ruleset Events      : (never)\n");
}

static void test_smallest_numbers(void **state)
{
    (void)state;
    snapshot.memory.limit = 1;
    snapshot.memory.events = 1;
    stats_write_memory(&text, &snapshot.memory);
    assert_non_null(strstr(text.data, "3.00KiB < 1B (36 objects)"));
    assert_non_null(strstr(text.data, "P50=40ns"));
}

/* Classes are a few per cent wide: the first two digits say which quantile stands there. */
static void test_connect_latency(void **state)
{
    static const struct stats_query query;
    const char *line;
    char p50[16], p90[16], p99[16], max[16];
    (void)state;
    observe(&snapshot.connect, 20);
    observe(&snapshot.decision, 5000); /* which is another one */
    stats_write(&text, &snapshot, &query);
    line = strstr(text.data, "Connect Latency     : ");
    assert_non_null(line);
    assert_int_equal(sscanf(line, "Connect Latency     : P50=%15s P90=%15s P99=%15s MAX=%15s", p50, p90, p99, max), 4);
    assert_in_range(strtol(p50, NULL, 10), 19, 22);
    assert_non_null(strstr(p50, "\302\265s"));
    assert_in_range(strtol(p90, NULL, 10), 190, 220);
    assert_non_null(strstr(p90, "\302\265s"));
    assert_in_range(strtol(p99, NULL, 10), 1, 2);
    assert_non_null(strstr(p99, "ms"));
    assert_string_equal(max, "20.00ms");
}

static void test_rates(void **state)
{
    static struct stats_previous previous;
    (void)state;
    previous = (struct stats_previous){.any = true, .snapshot = snapshot};
    snapshot.accepted += 2 * 11;
    snapshot.refused += 2 * 12;
    snapshot.requests += 2 * 13;
    snapshot.api_requests += 2 * 14;
    snapshot.reject_ruleset += 2 * 15;
    snapshot.reject_timeout += 2 * 16;
    snapshot.reject_upstream += 2 * 17;
    snapshot.bytes_up += 2 * 18;
    snapshot.bytes_down += 2 * 19;
    snapshot.cpu += 0.5;
    stats_write_rates(&text, &snapshot, &previous, 2);
    assert_text("Accept Rate         : 11.0/s (+12.0/s)\n"
                "Request Rate        : 13.0/s (API+14.0/s)\n"
                "Reject Rate         : ruleset=15.0/s, timeout=16.0/s, upstream=17.0/s\n"
                "Throughput          : Up 18B/s, Down 19B/s\n"
                "Server Load         : 25.000% (last 2000ms)\n");
}

/* The first time everything is since the start, and nobody knows what the CPU did. */
static void test_first_rates(void **state)
{
    static const struct stats_previous previous;
    (void)state;
    stats_write_rates(&text, &snapshot, &previous, 2);
    assert_text("Accept Rate         : 7.0/s (+7.5/s)\n"
                "Request Rate        : 18.0/s (API+22.5/s)\n"
                "Reject Rate         : ruleset=9.0/s, timeout=9.5/s, upstream=10.0/s\n"
                "Throughput          : Up 31B/s, Down 32B/s\n"
                "Server Load         : (unknown)\n");
}

/* Two at the same moment, and counters that went back with their process. */
static void test_rates_of_no_time(void **state)
{
    static struct stats_previous previous;
    (void)state;
    previous = (struct stats_previous){.any = true, .snapshot = snapshot};
    previous.snapshot.accepted = 1000;
    stats_write_rates(&text, &snapshot, &previous, 2);
    assert_non_null(strstr(text.data, "Accept Rate         : 0.0/s (+0.0/s)\n"));
    text_free(&text);
    memset(&text, 0, sizeof text);
    snapshot.accepted = 5000;
    stats_write_rates(&text, &snapshot, &previous, 0);
    assert_non_null(strstr(text.data, "Accept Rate         : 0.0/s (+0.0/s)\n"));
    assert_non_null(strstr(text.data, "Server Load         : (unknown)\n"));
}

static void test_banner(void **state)
{
    (void)state;
    stats_write_banner(&text);
    assert_text("neosocksd 1.5.1 (sluice " SLUICE_VERSION ")\n  a proxy for SOCKS and HTTP, on io_uring\n\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_server, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_runtime, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_runtime_without_a_ruleset, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_memory_without_a_limit, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_smallest_numbers, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_connect_latency, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_rates, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_first_rates, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_rates_of_no_time, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_banner, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
