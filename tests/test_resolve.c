/* core/resolver/resolve on a real ring: servers, time, polls, names that are none. What is kept of answers:
 * test_answers.c */
#include "core/resolver/resolve.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/dns_double.h"
#include "tests/resolve_bench.h"
#include "tests/support.h"

static void test_cancelled_before(void **state)
{
    (void)state;
    struct ask ask = {.request = {.cancelled = 1, .name = {.kind = ADDRESS_NAME, .name_size = 6, .name = "c.test"}}};
    bench_open(dns_address(), 5000);
    resolve_ask(bench.resolver, &ask.request, &ask);
    bench_turn(0);
    assert_int_equal(ask.answers, 1);
    assert_int_equal(ask.status, -ECANCELED);
    bench_sleep(50);
    assert_int_equal(dns_questions("c.test", DNS_A), 0);
    bench_close();
}

static void test_timeout(void **state)
{
    (void)state;
    struct ask ask, late;
    bench_open(dns_address(), 1800);
    ask_start(&ask, "never.test.", AF_UNSPEC);
    bench_sleep(300);
    ask_start(&late, "never.test.", AF_UNSPEC);
    uint64_t took_ms = 300 + bench_run(2);
    assert_int_equal(ask.status, -ETIMEDOUT);
    assert_int_equal(late.status, -ETIMEDOUT);
    assert_in_range(took_ms, 1500, 8000);
    assert_int_equal(dns_questions("never.test", DNS_A), 2); /* two tries */
    assert_int_equal(resolve_get_stats(bench.resolver)->timeouts, 2);
    assert_int_equal(resolve_get_stats(bench.resolver)->cached, 0);

    /* One family unanswered: the other one is the answer, before the time is over. */
    assert_int_equal(ask_now(&ask, "no6.test.", AF_UNSPEC), 0);
    assert_int_equal(ask.request.count, 1);
    is_address(&ask, 0, "192.0.2.1");
    bench_close();
}

/* The request's own deadline passes, the question goes on and fills the cache. Where this thread had no time for so
 * long that deadline and answer came at once, it is tried again. */
static void test_deadline_of_request(void **state)
{
    (void)state;
    struct ask ask = {.status = 0};
    char name[32], twice[80]; /* c-ares is patient for 600 ms with two servers */
    snprintf(twice, sizeof twice, "%s,%s", dns_address(), dns_address());
    bench_open(twice, 100);
    for (int i = 0; i < 5 && ask.status != -ETIMEDOUT; i++) {
        snprintf(name, sizeof name, "snail%d.test", i);
        ask_start(&ask, name, AF_INET);
        assert_true(bench_run(i + 1) >= 95);
    }
    assert_int_equal(ask.status, -ETIMEDOUT);
    uint64_t known = resolve_get_stats(bench.resolver)->cached;
    for (int i = 0; i < 100 && resolve_get_stats(bench.resolver)->cached == known; i++) bench_sleep(50);
    int answers = bench.answers;
    ask_start(&ask, name, AF_INET);
    bench_turn(0);
    assert_int_equal(bench.answers, answers + 1);
    assert_int_equal(ask.status, 0);
    bench_close();
}

static void test_refused_by_icmp(void **state)
{
    (void)state;
    struct ask ask;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    char text[32];
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, size), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    close(fd); /* nobody there */
    snprintf(text, sizeof text, "127.0.0.1:%u", ntohs(address.sin_port));
    bench_open(text, 2000);
    assert_int_equal(ask_now(&ask, "plain.test.", AF_INET), -EIO);
    assert_int_equal(resolve_get_stats(bench.resolver)->cached, 0);
    bench_close();
}

/* A truncated answer is asked for again over TCP: another socket, and polls for writing. */
static void test_tcp(void **state)
{
    (void)state;
    struct ask ask;
    unsigned before = dns_tcp_questions();
    bench_open(dns_address(), 5000);
    assert_int_equal(ask_now(&ask, "tc.test.", AF_INET), 0);
    is_address(&ask, 0, "192.0.2.1");
    bench_close();
    assert_true(dns_tcp_questions() > before);
}

/* More than 512 octets by UDP, which c-ares cuts off. */
static void test_udp_answer_too_long(void **state)
{
    (void)state;
    struct ask ask;
    unsigned before = dns_tcp_questions();
    bench_open(dns_address(), 5000);
    assert_int_equal(ask_now(&ask, "wide.test.", AF_INET), 0);
    is_address(&ask, 0, "192.0.2.1");
    bench_close();
    assert_true(dns_tcp_questions() > before);
}

/* A server that closes its TCP connection ends no look-up of others, which go by UDP. */
static void test_tcp_that_fails(void **state)
{
    (void)state;
    struct ask other, ask;
    bench_open(dns_address(), 1000);
    ask_start(&other, "never.test.", AF_INET);
    assert_int_equal(ask_now(&ask, "tccut.test.", AF_INET), -EIO);
    assert_int_equal(other.answers, 0);
    bench_run(2);
    assert_int_equal(other.status, -ETIMEDOUT);
    bench_close();
}

static void test_hosts(void **state)
{
    (void)state;
    struct ask ask;
    bench_open(dns_address(), 5000);
    assert_int_equal(ask_now(&ask, "localhost", AF_INET), 0);
    is_address(&ask, 0, "127.0.0.1");
    for (uint32_t i = 0; i < ask.request.count; i++) assert_int_equal(ask.request.results[i].kind, ADDRESS_IPV4);
    assert_int_equal(ask_now(&ask, "LOCALHOST", AF_UNSPEC), 0);
    assert_int_equal(ask_now(&ask, "localhost", AF_INET6), 0);
    is_address(&ask, 0, "::1");
    assert_int_equal(dns_questions("localhost", DNS_A) + dns_questions("localhost", DNS_AAAA), 0);
    bench_close();
}

static bool has_address(const struct ask *ask, const struct address *address)
{
    size_t size = address->kind == ADDRESS_IPV4 ? 4 : 16;
    for (uint32_t i = 0; i < ask->request.count; i++)
        if (ask->request.results[i].kind == address->kind &&
            memcmp(ask->request.results[i].octets, address->ipv6, size) == 0)
            return true;
    return false;
}

/* What /etc/hosts says of the first name of each of its lines, whatever is in there; localhost is known without it. */
static void test_names_of_this_machine(void **state)
{
    char line[512], literal[64], name[128];
    struct address address;
    struct ask ask;
    unsigned count = 0;
    (void)state;
    FILE *hosts = fopen("/etc/hosts", "r");
    if (!hosts) skip();
    bench_open(dns_address(), 5000);
    while (fgets(line, sizeof line, hosts)) {
        if (sscanf(line, "%63s %127s", literal, name) != 2 || strstr(name, "local") || strchr(name, '#')) continue;
        if (!address_from_host(literal, strlen(literal), 0, &address) || address.kind == ADDRESS_NAME) continue;
        int family = address.kind == ADDRESS_IPV4 ? AF_INET : AF_INET6;
        if (family == AF_INET6 && strncmp(name, "ip6-", 4) == 0) continue; /* groups, and names of ::1 */
        assert_int_equal(ask_now(&ask, name, family), 0);
        assert_true(has_address(&ask, &address));
        assert_int_equal(ask_now(&ask, name, AF_UNSPEC), 0);
        assert_true(has_address(&ask, &address));
        count++;
    }
    fclose(hosts);
    bench_close();
    if (count == 0) skip();
}

static void test_bad_names(void **state)
{
    (void)state;
    static const char *const names[] = {".",        "..",         "a..b",     ".a",
                                        "a.test..", "a\\.b.test", "a b.test", "caf\xc3\xa9.test"};
    char text[ADDRESS_NAME_MAX + 1];
    struct ask ask;
    bench_open(dns_address(), 1000);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        assert_int_equal(ask_now(&ask, names[i], AF_UNSPEC), -ENOENT);

    memset(text, 'a', 64);
    strcpy(text + 64, ".test");
    assert_int_equal(ask_now(&ask, text, AF_INET), -ENOENT);
    assert_int_equal(ask_now(&ask, text + 1, AF_INET), 0); /* a label of 63 */

    for (size_t i = 0; i < ADDRESS_NAME_MAX; i++) text[i] = i % 2 == 0 ? 'a' : '.';
    text[255] = '\0';
    assert_int_equal(ask_now(&ask, text, AF_INET), -ENOENT); /* 255 octets */
    text[254] = '\0';
    assert_int_equal(ask_now(&ask, text, AF_INET), 0); /* 253 and the final dot */
    text[253] = '\0';
    assert_int_equal(ask_now(&ask, text, AF_INET), 0);
    assert_int_equal(resolve_get_stats(bench.resolver)->cached, 3); /* refused names take no room */

    assert_int_equal(ask_now(&ask, "192.0.2.99", AF_INET), 0); /* a literal in a name's clothes */
    is_address(&ask, 0, "192.0.2.99");
    assert_int_equal(ask_now(&ask, "192.0.2.99", AF_INET6), -ENOENT);
    bench_close();
}

static void test_close_with_open_queries(void **state)
{
    (void)state;
    struct ask asks[30];
    unsigned descriptors = support_count_descriptors();
    bench_open(dns_address(), 5000);
    for (int i = 0; i < 30; i++) {
        char name[32];
        snprintf(name, sizeof name, "never%d.test", i / 2);
        ask_start(&asks[i], name, i % 3 == 0 ? AF_INET : AF_UNSPEC);
    }
    bench_sleep(50);
    assert_int_equal(bench.answers, 0);
    bench_close();
    assert_int_equal(bench.answers, 30);
    for (int i = 0; i < 30; i++) assert_int_equal(asks[i].status, -ECANCELED);
    assert_int_equal(support_count_descriptors(), descriptors);
}

static void test_set_nameservers(void **state)
{
    (void)state;
    struct ask open[2], ask;
    int silent = socket(AF_INET, SOCK_DGRAM, 0); /* takes questions, never answers */
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    char text[32];
    assert_int_equal(bind(silent, (struct sockaddr *)&address, size), 0);
    assert_int_equal(getsockname(silent, (struct sockaddr *)&address, &size), 0);
    snprintf(text, sizeof text, "127.0.0.1:%u", ntohs(address.sin_port));

    bench_open(text, 5000);
    assert_int_equal(ask_now(&ask, "localhost", AF_INET), 0);
    ask_start(&open[0], "moved.test", AF_INET);
    ask_start(&open[1], "both-moved.test", AF_UNSPEC);
    bench_sleep(50);
    assert_int_equal(bench.answers, 1);
    assert_int_equal(resolve_set_nameservers(bench.resolver, "nonsense"), -EINVAL);
    assert_int_equal(resolve_get_stats(bench.resolver)->cached, 1);
    assert_int_equal(resolve_set_nameservers(bench.resolver, dns_address()), 0);
    assert_int_equal(resolve_get_stats(bench.resolver)->cached, 0);
    bench_run(3);
    assert_int_equal(open[0].status, 0);
    assert_int_equal(open[1].status, 0);
    assert_int_equal(dns_questions("moved.test", DNS_A), 1);
    assert_int_equal(resolve_set_nameservers(bench.resolver, NULL), 0);
    assert_int_equal(resolve_get_stats(bench.resolver)->cached, 0);
    bench_close();
    close(silent);
}

/* Each change closes a socket with a poll in flight: were one not cancelled, the slots for polls would run out, and
 * with them the answers. */
static void test_polls_are_cancelled(void **state)
{
    (void)state;
    struct ask open, ask;
    bench_open(dns_address(), 60000); /* it is still open in the end */
    ask_start(&open, "never.test.", AF_INET);
    for (int i = 0; i < 300; i++) {
        assert_int_equal(resolve_set_nameservers(bench.resolver, dns_address()), 0);
        bench_turn(5);
    }
    assert_int_equal(bench.answers, 0);
    assert_int_equal(ask_now(&ask, "plain4.test", AF_INET), 0);
    bench_close();
    assert_int_equal(open.status, -ECANCELED);
}

#define FOUR_SERVERS      "1.1.1.1,1.1.1.1,1.1.1.1,1.1.1.1,"
#define SEVENTEEN_SERVERS FOUR_SERVERS FOUR_SERVERS FOUR_SERVERS FOUR_SERVERS "1.1.1.1"

static void test_server_lists(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      ",",
                                      "x",
                                      "127.0.0.1:0",
                                      "127.0.0.1:65536",
                                      "127.0.0.1,",
                                      ",127.0.0.1",
                                      "127.0.0.1:53x",
                                      "[::1",
                                      "localhost:53",
                                      "127.0.0.1;127.0.0.2",
                                      SEVENTEEN_SERVERS};
    static const char *const good[] = {"127.0.0.1", "127.0.0.1:", "::1", "[::1]:53",
                                       "127.0.0.1:5353, ::1 ,[2001:db8::1]:1"};
    struct resolve_options options = {.timeout_ms = 1000, .op = OP_DNS};
    struct resolver *resolver;
    bench_open(NULL, 5000);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        options.nameservers = bad[i];
        assert_int_equal(resolve_open(&resolver, bench.ring, &options, bench_on_answered, &bench), -EINVAL);
        assert_int_equal(resolve_set_nameservers(bench.resolver, bad[i]), -EINVAL);
    }
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        options.nameservers = good[i];
        assert_int_equal(resolve_open(&resolver, bench.ring, &options, bench_on_answered, &bench), 0);
        resolve_close(resolver);
        assert_int_equal(resolve_set_nameservers(bench.resolver, good[i]), 0);
    }
    bench_close();
}

/* A silent server is passed over for the next one. */
static void test_second_server(void **state)
{
    (void)state;
    struct ask ask;
    char text[64];
    int silent = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    assert_int_equal(bind(silent, (struct sockaddr *)&address, size), 0);
    assert_int_equal(getsockname(silent, (struct sockaddr *)&address, &size), 0);
    snprintf(text, sizeof text, "127.0.0.1:%u,%s", ntohs(address.sin_port), dns_address());
    bench_open(text, 1200);
    assert_int_equal(ask_now(&ask, "second.test", AF_UNSPEC), 0);
    is_address(&ask, 0, "192.0.2.1");
    bench_close();
    close(silent);
}

/* The answer asks again at once, answered from the cache: no nesting, and the owner gets its turn in between. */
static void test_asks_from_within(void **state)
{
    (void)state;
    struct ask ask;
    bench_open(dns_address(), 5000);
    ask_start(&ask, "again.test", AF_INET);
    ask.again = 5000;
    bench_run(5001);
    assert_int_equal(ask.answers, 5001);
    assert_int_equal(bench.depth_peak, 1);
    assert_int_equal(dns_questions("again.test", DNS_A), 1);
    bench_close();
}

/* What is ready leaves from resolve_on_time(), whoever asks for what: no one's answer is delivered while another one
 * asks, be it from the cache, refused, or answered by the network just now. */
static void test_answers_leave_from_the_top(void **state)
{
    (void)state;
    struct ask asks[4], ask;
    struct ring_completion completion;
    bench_open(dns_address(), 5000);
    assert_int_equal(ask_now(&ask, "top.test", AF_INET), 0);
    int before = bench.answers;
    ask_start(&asks[0], "top.test", AF_INET);       /* kept */
    ask_start(&asks[1], "..", AF_INET);             /* no name */
    ask_start(&asks[2], "top-other.test", AF_INET); /* asked for, and answered before anybody turns */
    assert_int_equal(ring_wait(bench.ring, 2000), 0);
    while (ring_next(bench.ring, &completion)) resolve_on_completion(bench.resolver, &completion);
    ask_start(&asks[3], "top.test", AF_INET);
    assert_int_equal(bench.answers, before);
    assert_int_equal(resolve_set_nameservers(bench.resolver, dns_address()), 0);
    assert_int_equal(bench.answers, before);
    bench_run(before + 4);
    for (int i = 0; i < 4; i++) assert_int_equal(asks[i].status, i == 1 ? -ENOENT : 0);
    bench_close();
}

/* Stopped: what is open is answered, in the next turn; what comes later is refused. */
static void test_stop(void **state)
{
    (void)state;
    struct ask open, late = {.request.name = {.kind = ADDRESS_NAME, .name_size = 6, .name = "l.test"}};
    bench_open(dns_address(), 5000);
    ask_start(&open, "never.test", AF_UNSPEC);
    bench_sleep(20);
    resolve_stop(bench.resolver);
    assert_int_equal(bench.answers, 0);
    assert_int_equal(resolve_ask(bench.resolver, &late.request, &late), -ECANCELED);
    bench_run(1);
    assert_int_equal(open.status, -ECANCELED);
    bench_sleep(20);
    assert_int_equal(late.answers, 0);
    bench_close();
}

static void test_stale_completions(void **state)
{
    (void)state;
    struct ask ask;
    bench_open(dns_address(), 5000);
    assert_int_equal(ask_now(&ask, "plain.test", AF_INET), 0);
    for (uint32_t slot = 0; slot < 300; slot++) {
        for (uint32_t generation = 100; generation < 102; generation++) {
            struct ring_completion completion = {.tag = {.op = OP_DNS, .generation = generation, .slot = slot},
                                                 .result = POLLIN};
            resolve_on_completion(bench.resolver, &completion);
        }
    }
    assert_int_equal(ask_now(&ask, "plain3.test", AF_INET), 0);
    bench_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cancelled_before),
        cmocka_unit_test(test_timeout),
        cmocka_unit_test(test_deadline_of_request),
        cmocka_unit_test(test_refused_by_icmp),
        cmocka_unit_test(test_tcp),
        cmocka_unit_test(test_udp_answer_too_long),
        cmocka_unit_test(test_tcp_that_fails),
        cmocka_unit_test(test_hosts),
        cmocka_unit_test(test_names_of_this_machine),
        cmocka_unit_test(test_bad_names),
        cmocka_unit_test(test_close_with_open_queries),
        cmocka_unit_test(test_set_nameservers),
        cmocka_unit_test(test_polls_are_cancelled),
        cmocka_unit_test(test_server_lists),
        cmocka_unit_test(test_second_server),
        cmocka_unit_test(test_asks_from_within),
        cmocka_unit_test(test_answers_leave_from_the_top),
        cmocka_unit_test(test_stop),
        cmocka_unit_test(test_stale_completions),
    };
    return cmocka_run_group_tests_name("resolve", tests, dns_start, dns_stop);
}
