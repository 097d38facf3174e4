/* micro: what the parts cost that every connection passes through, alone and without a kernel: ns per operation.
 *
 * Each line is the median of several rounds, with the fastest and the slowest beside it, in CPU time of this thread:
 * other processes on the same core disturb the caches, but not the clock. Data is warm, so the numbers are lower
 * bounds; what they are good for is to compare one commit with the next. */
#include "core/io/pool.h"
#include "core/io/queue.h"
#include "core/io/timer.h"
#include "core/session/lists.h"
#include "core/session/policy.h"
#include "protocols/http_connect.h"
#include "protocols/http_head.h"
#include "protocols/socks4.h"
#include "protocols/socks5.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    ROUNDS = 9,              /* odd: the median is one of them */
    ROUND_NS = 15000000,     /* CPU time of a round, about */
    QUEUE_CAPACITY = 1024,   /* messages between two threads */
    SLOTS = 4096,            /* sessions of a worker that has some to do */
    SLOT_SIZE = 1024,        /* octets of one, about */
    SESSION_TIMEOUT = 60000, /* milliseconds */
    BATCH = 64,              /* messages or slots in use at the same time */
};

/* The compiler must take it that the octets behind `pointer` are read and written here: nothing is left out, and
 * nothing is moved out of a loop. */
static inline void touch(const void *pointer)
{
    __asm__ volatile("" : : "r"(pointer) : "memory");
}

__attribute__((noreturn)) static void die(const char *what)
{
    fprintf(stderr, "micro: %s\n", what);
    exit(1);
}

static void require(bool fact, const char *what)
{
    if (!fact) die(what);
}

/* --- parsers --- */

static const uint8_t socks5_request[] = "\5\1\0\3\17www.example.org\1\273";
static const uint8_t socks4a_request[] = "\4\1\1\273\0\0\0\1user\0www.example.org";

static const char browser_head[] =
    "GET http://www.example.org/articles/2024/index.html?from=front HTTP/1.1\r\n"
    "Host: www.example.org\r\n"
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n"
    "Accept-Language: en-US,en;q=0.5\r\n"
    "Accept-Encoding: gzip, deflate\r\n"
    "Referer: http://www.example.org/\r\n"
    "Cookie: session=1f0c9a7be2d94b6a8d3e5f7a9b1c2d3e; theme=dark; consent=all\r\n"
    "Connection: keep-alive\r\n"
    "Upgrade-Insecure-Requests: 1\r\n"
    "If-Modified-Since: Tue, 01 Oct 2024 08:00:00 GMT\r\n"
    "Priority: u=0, i\r\n"
    "\r\n";

static const char connect_head[] =
    "CONNECT www.example.org:443 HTTP/1.1\r\n"
    "Host: www.example.org:443\r\n"
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"
    "Proxy-Connection: keep-alive\r\n"
    "\r\n";

static void run_socks5(unsigned count)
{
    struct socks5_request request;
    size_t used;
    for (unsigned i = 0; i < count; i++) {
        touch(socks5_request);
        enum parse_result result = socks5_parse_request(socks5_request, sizeof socks5_request - 1, &request, &used);
        require(result == PARSE_OK, "SOCKS5 request refused");
        touch(&request);
    }
}

static void run_socks4a(unsigned count)
{
    struct socks4_request request;
    size_t used;
    for (unsigned i = 0; i < count; i++) {
        touch(socks4a_request);
        enum parse_result result = socks4_parse_request(socks4a_request, sizeof socks4a_request, &request, &used);
        require(result == PARSE_OK, "SOCKS4A request refused");
        touch(&request);
    }
}

static void parse_head(const char *text, size_t size, struct http_head *head)
{
    size_t scanned = 0, used;
    touch(text);
    require(http_parse_request((const uint8_t *)text, size, &scanned, head, &used) == PARSE_OK, "HTTP head refused");
    touch(head);
}

static void run_browser_head(unsigned count)
{
    static struct http_head head;
    for (unsigned i = 0; i < count; i++) parse_head(browser_head, sizeof browser_head - 1, &head);
}

static void run_connect_head(unsigned count)
{
    static struct http_head head;
    struct address target;
    for (unsigned i = 0; i < count; i++) {
        parse_head(connect_head, sizeof connect_head - 1, &head);
        require(http_connect_judge((const uint8_t *)connect_head, &head, &target) == 0, "CONNECT refused");
        touch(&target);
    }
}

/* --- queue, pool, timers --- */

static struct queue *queue;
static struct pool pool;
static struct timer_wheel *wheel;
static uint64_t wheel_ms; /* a clock of our own */

static void run_queue(unsigned count)
{
    struct message message = {.kind = 1};
    for (unsigned i = 0; i < count; i += BATCH) {
        for (unsigned j = 0; j < BATCH; j++) require(queue_push(queue, &message), "the queue is full");
        for (unsigned j = 0; j < BATCH; j++) require(queue_pop(queue, &message), "the queue is empty");
        touch(&message);
    }
}

static void run_pool(unsigned count)
{
    uint32_t slots[BATCH];
    for (unsigned i = 0; i < count; i += BATCH) {
        for (unsigned j = 0; j < BATCH; j++) slots[j] = pool_take(&pool);
        touch(slots);
        for (unsigned j = 0; j < BATCH; j++) pool_give(&pool, slots[j]);
    }
}

/* As a session does at each change of its state: the deadline moves, nothing expires. */
static void run_timer_move(unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        timer_set(wheel, i % SLOTS, wheel_ms + SESSION_TIMEOUT + i % 512);
        touch(wheel);
    }
    for (uint32_t i = 0; i < SLOTS; i++) timer_clear(wheel, i);
}

/* Sets as many as there are, spread over a minute, and lets that minute pass in steps of 100 ms. */
static void run_timer_expire(unsigned count)
{
    for (unsigned i = 0; i < count; i += SLOTS) {
        unsigned expired = 0;
        for (uint32_t entry = 0; entry < SLOTS; entry++)
            timer_set(wheel, entry, wheel_ms + 1 + (uint64_t)entry * 7919 % SESSION_TIMEOUT);
        for (unsigned step = 0; step <= SESSION_TIMEOUT / 100 + 1; step++) {
            wheel_ms += 100;
            while (timer_expire(wheel, wheel_ms) != TIMER_NONE) expired++;
        }
        require(expired == SLOTS, "timers are missing");
    }
}

/* --- policy --- */

static void classify(const struct address *addresses, unsigned mask, unsigned count)
{
    unsigned classes = 0;
    for (unsigned i = 0; i < count; i++) {
        const struct address *address = &addresses[i & mask];
        touch(address);
        classes |= policy_classify(address);
    }
    require(classes != 0, "no class");
}

static void run_policy_ipv4(unsigned count)
{
    static const struct address addresses[4] = {
        {.kind = ADDRESS_IPV4, .ipv4 = {127, 0, 0, 1}},
        {.kind = ADDRESS_IPV4, .ipv4 = {10, 1, 2, 3}},
        {.kind = ADDRESS_IPV4, .ipv4 = {93, 184, 216, 34}},
        {.kind = ADDRESS_IPV4, .ipv4 = {224, 0, 0, 251}},
    };
    classify(addresses, 3, count);
}

static void run_policy_ipv6(unsigned count)
{
    static const struct address addresses[4] = {
        {.kind = ADDRESS_IPV6, .ipv6 = {[15] = 1}},
        {.kind = ADDRESS_IPV6, .ipv6 = {0xfd, 0, 0, 1}},
        {.kind = ADDRESS_IPV6, .ipv6 = {0x26, 0x06, 0x28, 0x00, 0x02, 0x20}},
        {.kind = ADDRESS_IPV6, .ipv6 = {[10] = 0xff, 0xff, 192, 168, 0, 1}},
    };
    classify(addresses, 3, count);
}

/* --- lists: a million entries, hosts in an order that no cache foresees --- */

enum { LIST_ENTRIES = 1000000, LIST_HOSTS = 65536 };
static struct lists *lists;
static struct address *list_hosts[3]; /* IPv4, IPv6, names */

static uint32_t scramble(uint32_t i)
{
    return (i * 2654435761u >> 8) % LIST_ENTRIES;
}

static void list_text(char *out, size_t size, unsigned kind, uint32_t i, bool entry)
{
    if (kind == 0)
        snprintf(out, size, entry ? "%u.%u.%u.0/24\n" : "%u.%u.%u.9", 1 + (i >> 16), i >> 8 & 255, i & 255);
    else if (kind == 1)
        snprintf(out, size, entry ? "2001:db8:%x:%x::/64\n" : "2001:db8:%x:%x::9", i >> 16, i & 65535);
    else
        snprintf(out, size, entry ? ".host%u.example%u.test\n" : "www.host%u.example%u.test", i, i % 1000);
}

static void list_open(void)
{
    char *text = malloc((size_t)LIST_ENTRIES * 96), *at = text, one[80];
    struct list_fault fault;
    lists = lists_new();
    require(text && lists, "no memory for the lists");
    for (unsigned kind = 0; kind < 3; kind++)
        for (uint32_t i = kind; i < LIST_ENTRIES; i += 3) { /* a million of them all */
            list_text(one, sizeof one, kind, i, true);
            at = stpcpy(at, one);
        }
    struct list_part part = {.text = text, .size = (size_t)(at - text), .denies = true};
    struct list_side **side = &lists->sides[LIST_TARGETS][LIST_SCOPE_PROCESS];
    require(list_side_build(LIST_TARGETS, &part, 1, side, &fault) == 0, "the lists are wrong");
    free(text);
    for (unsigned kind = 0; kind < 3; kind++) {
        list_hosts[kind] = calloc(LIST_HOSTS, sizeof **list_hosts);
        require(list_hosts[kind] != NULL, "no memory for the hosts");
        for (uint32_t i = 0; i < LIST_HOSTS; i++) {
            list_text(one, sizeof one, kind, scramble(i) / 3 * 3 + kind, false);
            require(address_from_host(one, strlen(one), 443, &list_hosts[kind][i]), "this is no host");
        }
    }
}

static void list_close(void)
{
    for (unsigned kind = 0; kind < 3; kind++) free(list_hosts[kind]);
    lists_release(lists);
}

static void look_up(const struct address *hosts, unsigned count)
{
    unsigned passed = 0;
    for (unsigned i = 0; i < count; i++) {
        uint8_t allowed = 0;
        passed += lists_admit_target(lists, 0, &hosts[i % LIST_HOSTS], &allowed, true);
    }
    require(passed < count / 100 + 2, "a host is not found");
}

static void run_list_ipv4(unsigned count)
{
    look_up(list_hosts[0], count);
}

static void run_list_ipv6(unsigned count)
{
    look_up(list_hosts[1], count);
}

static void run_list_names(unsigned count)
{
    look_up(list_hosts[2], count);
}

/* --- measuring --- */

static const struct subject {
    const char *name;
    void (*run)(unsigned count);
    unsigned grain; /* operations come in multiples of this */
} subjects[] = {
    {"SOCKS5 request, a name", run_socks5, 1},         {"SOCKS4A request", run_socks4a, 1},
    {"HTTP head of a browser", run_browser_head, 1},   {"CONNECT head, judged", run_connect_head, 1},
    {"queue: push and pop", run_queue, BATCH},         {"pool: take and give", run_pool, BATCH},
    {"timer: move a deadline", run_timer_move, SLOTS}, {"timer: set and expire", run_timer_expire, SLOTS},
    {"policy: classify IPv4", run_policy_ipv4, 1},     {"policy: classify IPv6", run_policy_ipv6, 1},
    {"list of a million: IPv4", run_list_ipv4, 1},     {"list of a million: IPv6", run_list_ipv6, 1},
    {"list of a million: name", run_list_names, 1},
};

static uint64_t cpu_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static uint64_t run_timed(const struct subject *subject, unsigned count)
{
    uint64_t start = cpu_ns();
    subject->run(count);
    return cpu_ns() - start;
}

/* How many operations fill a round. Doubling until then also warms everything up. */
static unsigned find_count(const struct subject *subject)
{
    unsigned count = subject->grain;
    while (count < 1u << 30 && run_timed(subject, count) < ROUND_NS) count *= 2;
    return count;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void measure(const struct subject *subject)
{
    double ns[ROUNDS];
    unsigned count = find_count(subject);
    for (int i = 0; i < ROUNDS; i++) ns[i] = (double)run_timed(subject, count) / count;
    qsort(ns, ROUNDS, sizeof ns[0], compare);
    printf("%-26s %10.1f %10.1f %10.1f\n", subject->name, ns[ROUNDS / 2], ns[0], ns[ROUNDS - 1]);
    fflush(stdout);
}

int main(void)
{
    require(queue_open(&queue, QUEUE_CAPACITY) == 0, "no memory for the queue");
    require(pool_open(&pool, SLOTS, SLOT_SIZE) == 0, "no memory for the pool");
    require(timer_open(&wheel, SLOTS, 0, TIMER_TICK_MS) == 0, "no memory for the timers");
    list_open();
    printf("%-26s %10s %10s %10s\n", "ns per operation", "median", "least", "greatest");
    for (size_t i = 0; i < sizeof subjects / sizeof subjects[0]; i++) measure(&subjects[i]);
    list_close();
    timer_close(wheel);
    pool_close(&pool);
    queue_close(queue);
    return 0;
}
