/* core/resolve on a real ring, against a name server of our own in a second thread: a name's first label says what it
 * answers, and it counts the questions per name. */
#include "core/net.h"
#include "core/resolve.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

/* --- the name server --- */

#define TYPE_A     1u
#define TYPE_CNAME 5u
#define TYPE_AAAA  28u
#define KINDS_MAX  64

struct question {
    char name[256];
    uint16_t type;
    size_t end; /* of the question in the message */
};

static struct {
    int udp, tcp, stop[2];
    char text[32];
    pthread_t thread;
    pthread_mutex_t lock;
    struct {
        char name[256];
        uint16_t type;
        unsigned questions;
    } seen[KINDS_MAX];
    unsigned seen_count;
    _Atomic unsigned tcp_questions;
} server;

static unsigned questions_of(const char *name, uint16_t type)
{
    unsigned count = 0;
    pthread_mutex_lock(&server.lock);
    for (unsigned i = 0; i < server.seen_count; i++)
        if (server.seen[i].type == type && strcmp(server.seen[i].name, name) == 0) count = server.seen[i].questions;
    pthread_mutex_unlock(&server.lock);
    return count;
}

static void server_count(const struct question *question)
{
    pthread_mutex_lock(&server.lock);
    unsigned i = 0;
    while (i < server.seen_count &&
           (server.seen[i].type != question->type || strcmp(server.seen[i].name, question->name) != 0))
        i++;
    if (i < KINDS_MAX) {
        memcpy(server.seen[i].name, question->name, sizeof question->name);
        server.seen[i].type = question->type;
        server.seen[i].questions++;
        if (i == server.seen_count) server.seen_count++;
    }
    pthread_mutex_unlock(&server.lock);
}

static bool server_read(const uint8_t *message, size_t size, struct question *out)
{
    size_t at = 12, used = 0;
    while (at < size && message[at] != 0) {
        size_t label = message[at++];
        if (label > 63 || at + label >= size || used + label + 1 >= sizeof out->name) return false;
        if (used > 0) out->name[used++] = '.';
        memcpy(out->name + used, message + at, label);
        used += label;
        at += label;
    }
    if (at + 5 > size) return false;
    out->name[used] = '\0';
    out->type = (uint16_t)(message[at + 1] << 8 | message[at + 2]);
    out->end = at + 5;
    return true;
}

struct reply {
    uint8_t octets[2048];
    size_t size;
};

static void reply_add(struct reply *reply, uint16_t type, uint32_t ttl, const void *data, size_t size)
{
    const uint8_t head[12] = {0xc0,
                              12,
                              (uint8_t)(type >> 8),
                              (uint8_t)type,
                              0,
                              1,
                              (uint8_t)(ttl >> 24),
                              (uint8_t)(ttl >> 16),
                              (uint8_t)(ttl >> 8),
                              (uint8_t)ttl,
                              0,
                              (uint8_t)size};
    memcpy(reply->octets + reply->size, head, sizeof head);
    memcpy(reply->octets + reply->size + sizeof head, data, size);
    reply->size += sizeof head + size;
    reply->octets[7]++;
}

static void reply_add_addresses(struct reply *reply, uint16_t type, unsigned count, uint32_t ttl)
{
    for (unsigned i = 1; i <= count; i++) {
        uint8_t ipv4[4] = {192, 0, 2, (uint8_t)i};
        uint8_t ipv6[16] = {0x20, 0x01, 0x0d, 0xb8, [15] = (uint8_t)i};
        if (type == TYPE_A)
            reply_add(reply, type, ttl, ipv4, sizeof ipv4);
        else
            reply_add(reply, type, ttl, ipv6, sizeof ipv6);
    }
}

static bool begins(const char *name, const char *label)
{
    return strncmp(name, label, strlen(label)) == 0;
}

/* The rules. False: no answer at all. */
static bool server_decide(const struct question *question, bool over_tcp, struct reply *reply)
{
    const char *name = question->name;
    bool ipv4 = question->type == TYPE_A;
    uint16_t type = question->type;
    if (begins(name, "never")) return false;
    if (begins(name, "no6") && !ipv4) return false;
    if (begins(name, "slow")) usleep(200000);
    if (begins(name, "snail")) usleep(400000);
    if (begins(name, "fail"))
        reply->octets[3] |= 2;
    else if (begins(name, "nx"))
        reply->octets[3] |= 3;
    else if (begins(name, "tc") && !over_tcp)
        reply->octets[2] |= 2;
    else if (begins(name, "both"))
        reply_add_addresses(reply, type, ipv4 ? 2 : 4, 60);
    else if (begins(name, "many"))
        reply_add_addresses(reply, type, ipv4 ? 25 : 14, 60);
    else if (begins(name, "v6"))
        reply_add_addresses(reply, type, ipv4 ? 0 : 1, 60);
    else if (begins(name, "zero"))
        reply_add_addresses(reply, type, ipv4 ? 1 : 0, 0);
    else if (begins(name, "alias")) {
        reply_add(reply, TYPE_CNAME, 1, "\4real\4test", 11); /* with its terminator, the root */
        if (ipv4) {
            memcpy(reply->octets + reply->size, "\4real\4test\0\0\1\0\1\0\0\1\54\0\4\300\0\2\7", 25);
            reply->size += 25;
            reply->octets[7]++;
        }
    } else
        reply_add_addresses(reply, type, ipv4 ? 1 : 0, 60);
    return true;
}

static bool server_reply(const uint8_t *message, size_t size, bool over_tcp, struct reply *reply)
{
    struct question question;
    if (size < 12 || size > 512 || !server_read(message, size, &question)) return false;
    server_count(&question);
    memset(reply, 0, sizeof *reply);
    memcpy(reply->octets, message, question.end);
    reply->size = question.end;
    reply->octets[2] = 0x81; /* an answer, recursion desired */
    reply->octets[3] = 0x80; /* and available */
    memset(reply->octets + 6, 0, 6);
    return server_decide(&question, over_tcp, reply);
}

static void server_on_udp(void)
{
    uint8_t message[512];
    struct sockaddr_in peer;
    socklen_t peer_size = sizeof peer;
    struct reply reply;
    ssize_t size = recvfrom(server.udp, message, sizeof message, 0, (struct sockaddr *)&peer, &peer_size);
    if (size > 0 && server_reply(message, (size_t)size, false, &reply))
        sendto(server.udp, reply.octets, reply.size, 0, (struct sockaddr *)&peer, peer_size);
}

static void server_on_tcp(void)
{
    uint8_t message[514];
    struct reply reply;
    int fd = accept(server.tcp, NULL, NULL);
    size_t have = 0, want = 2;
    while (have < want) {
        ssize_t got = recv(fd, message + have, want - have, 0);
        if (got <= 0) break;
        have += (size_t)got;
        if (have == 2) want = 2 + (size_t)(message[0] << 8 | message[1]);
        if (want > sizeof message) break;
        if (have < want || have == 2) continue;
        server.tcp_questions++;
        if (!server_reply(message + 2, want - 2, true, &reply)) break;
        uint8_t head[2] = {(uint8_t)(reply.size >> 8), (uint8_t)reply.size};
        send(fd, head, 2, MSG_NOSIGNAL); /* in two pieces */
        usleep(10000);
        send(fd, reply.octets, reply.size, MSG_NOSIGNAL);
        have = 0;
        want = 2;
    }
    close(fd);
}

static void *server_run(void *unused)
{
    struct pollfd fds[3] = {{.fd = server.udp, .events = POLLIN},
                            {.fd = server.tcp, .events = POLLIN},
                            {.fd = server.stop[0], .events = POLLIN}};
    while (poll(fds, 3, -1) > 0 && fds[2].revents == 0) {
        if (fds[0].revents != 0) server_on_udp();
        if (fds[1].revents != 0) server_on_tcp();
    }
    return unused;
}

/* Both sockets on one port; others use the machine, too: another try if TCP's is taken. */
static bool server_bind(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    server.udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    server.tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(setsockopt(server.tcp, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)), 0);
    assert_int_equal(bind(server.udp, (struct sockaddr *)&address, size), 0);
    assert_int_equal(getsockname(server.udp, (struct sockaddr *)&address, &size), 0);
    snprintf(server.text, sizeof server.text, "127.0.0.1:%u", ntohs(address.sin_port));
    if (bind(server.tcp, (struct sockaddr *)&address, size) == 0 && listen(server.tcp, 5) == 0) return true;
    close(server.udp);
    close(server.tcp);
    return false;
}

static int server_start(void **state)
{
    (void)state;
    int tries = 0;
    while (!server_bind()) assert_true(++tries < 100);
    assert_int_equal(pipe(server.stop), 0);
    pthread_mutex_init(&server.lock, NULL);
    return pthread_create(&server.thread, NULL, server_run, NULL);
}

static int server_stop(void **state)
{
    (void)state;
    assert_int_equal(write(server.stop[1], "x", 1), 1);
    assert_int_equal(pthread_join(server.thread, NULL), 0);
    close(server.udp);
    close(server.tcp);
    close(server.stop[0]);
    close(server.stop[1]);
    return 0;
}

/* --- a coordinator in small --- */

#define OP_DNS 7

struct ask {
    struct resolve_request request;
    int answers; /* times that it was answered */
    int status;
    int again; /* asks to be repeated from within the answer */
};

static struct {
    struct ring *ring;
    struct resolver *resolver;
    int answers, depth, depth_peak;
} bench;

static void on_answered(void *context, struct resolve_request *request, void *cookie, int status)
{
    struct ask *ask = cookie;
    assert_ptr_equal(context, &bench);
    assert_ptr_equal(request, &ask->request);
    ask->answers++;
    ask->status = status;
    bench.answers++;
    if (status == 0)
        assert_in_range(request->count, 1, RESOLVE_ADDRESSES_MAX);
    else
        assert_int_equal(request->count, 0);
    if (++bench.depth > bench.depth_peak) bench.depth_peak = bench.depth;
    if (ask->again-- > 0) resolve_ask(bench.resolver, &ask->request, ask);
    bench.depth--;
}

static void bench_open(const char *nameservers, uint32_t timeout_ms)
{
    struct resolve_options options = {.nameservers = nameservers, .timeout_ms = timeout_ms, .op = OP_DNS};
    memset(&bench, 0, sizeof bench);
    assert_int_equal(ring_open(&bench.ring, &(struct ring_options){.entries = 64}), 0);
    assert_int_equal(resolve_open(&bench.resolver, bench.ring, &options, on_answered, &bench), 0);
    assert_int_equal(ring_wait(bench.ring, 0), 0);
}

static void bench_turn(uint64_t wait_ms)
{
    struct ring_completion completion;
    uint64_t resolver_ms = resolve_wait_ms(bench.resolver, ring_now_ms(bench.ring));
    assert_int_equal(ring_wait(bench.ring, resolver_ms < wait_ms ? resolver_ms : wait_ms), 0);
    while (ring_next(bench.ring, &completion)) {
        assert_int_equal(completion.tag.op, OP_DNS);
        resolve_on_completion(bench.resolver, &completion);
    }
    resolve_on_time(bench.resolver, ring_now_ms(bench.ring));
}

/* Turns until so many answers are there; returns the milliseconds that it took. */
static uint64_t bench_run(int answers)
{
    uint64_t begin_ms = ring_now_ms(bench.ring);
    while (bench.answers < answers) {
        bench_turn(1000);
        assert_true(ring_now_ms(bench.ring) - begin_ms < 15000);
    }
    assert_int_equal(bench.answers, answers);
    return ring_now_ms(bench.ring) - begin_ms;
}

static void bench_sleep(uint64_t ms)
{
    uint64_t end_ms = ring_now_ms(bench.ring) + ms;
    while (ring_now_ms(bench.ring) < end_ms) bench_turn(end_ms - ring_now_ms(bench.ring));
}

static void bench_close(void)
{
    struct ring_completion completion;
    resolve_close(bench.resolver);
    for (int i = 0; i < 3; i++) { /* polls that were in flight end now */
        assert_int_equal(ring_wait(bench.ring, 10), 0);
        while (ring_next(bench.ring, &completion)) assert_int_equal(completion.tag.op, OP_DNS);
    }
    ring_destroy(bench.ring);
}

static void ask_start(struct ask *ask, const char *name, int family)
{
    size_t size = strlen(name);
    assert_true(size <= ADDRESS_NAME_MAX);
    *ask = (struct ask){.request.family = family};
    ask->request.name = (struct address){.kind = ADDRESS_NAME, .name_size = (uint8_t)size, .port = 80};
    memcpy(ask->request.name.name, name, size + 1);
    resolve_ask(bench.resolver, &ask->request, ask);
}

/* Asks and waits for the answer. */
static int ask_now(struct ask *ask, const char *name, int family)
{
    int answers = bench.answers;
    ask_start(ask, name, family);
    bench_run(answers + 1);
    assert_int_equal(ask->answers, 1);
    return ask->status;
}

static void is_address(const struct ask *ask, uint32_t index, const char *text)
{
    char found[INET6_ADDRSTRLEN];
    const struct resolve_result *result = &ask->request.results[index];
    assert_true(index < ask->request.count);
    assert_true(result->kind == ADDRESS_IPV4 || result->kind == ADDRESS_IPV6);
    int family = result->kind == ADDRESS_IPV4 ? AF_INET : AF_INET6;
    assert_non_null(inet_ntop(family, result->octets, found, sizeof found));
    assert_string_equal(found, text);
}

static unsigned open_descriptors(void)
{
    unsigned count = 0;
    DIR *directory = opendir("/proc/self/fd");
    assert_non_null(directory);
    while (readdir(directory) != NULL) count++;
    closedir(directory);
    return count;
}

/* --- the tests --- */

static void test_answer_and_cache(void **state)
{
    (void)state;
    struct ask ask;
    bench_open(server.text, 5000);
    assert_true(resolve_wait_ms(bench.resolver, ring_now_ms(bench.ring)) == UINT64_MAX);
    assert_int_equal(ask_now(&ask, "plain.test", AF_INET), 0);
    assert_int_equal(ask.request.count, 1);
    is_address(&ask, 0, "192.0.2.1");
    assert_int_equal(ask.request.name.port, 80);
    assert_true(resolve_wait_ms(bench.resolver, ring_now_ms(bench.ring)) == UINT64_MAX);

    int answers = bench.answers;
    ask_start(&ask, "PLAIN.Test", AF_INET); /* without regard to case, and at once */
    assert_int_equal(bench.answers, answers + 1);
    assert_int_equal(ask.status, 0);
    is_address(&ask, 0, "192.0.2.1");
    assert_int_equal(questions_of("plain.test", TYPE_A), 1);
    const struct resolve_stats *stats = resolve_get_stats(bench.resolver);
    assert_int_equal(stats->queries, 2);
    assert_int_equal(stats->cache_hits, 1);
    assert_int_equal(stats->cached, 1);
    assert_int_equal(stats->failures, 0);

    assert_int_equal(ask_now(&ask, "plain.test", AF_UNSPEC), 0); /* another question */
    assert_int_equal(questions_of("plain.test", TYPE_A), 2);
    assert_int_equal(ask_now(&ask, "plain.test.", AF_INET), 0); /* and another */
    is_address(&ask, 0, "192.0.2.1");
    bench_close();
}

static void test_families(void **state)
{
    (void)state;
    struct ask ask;
    bench_open(server.text, 5000);
    assert_int_equal(ask_now(&ask, "both.test", AF_INET), 0);
    assert_int_equal(ask.request.count, 2);
    is_address(&ask, 0, "192.0.2.1");
    is_address(&ask, 1, "192.0.2.2");
    assert_int_equal(questions_of("both.test", TYPE_AAAA), 0);
    assert_int_equal(ask_now(&ask, "both.test", AF_INET6), 0);
    assert_int_equal(ask.request.count, 4);
    for (uint32_t i = 0; i < 4; i++) assert_int_equal(ask.request.results[i].kind, ADDRESS_IPV6);
    assert_int_equal(questions_of("both.test", TYPE_A), 1);
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

    assert_int_equal(ask_now(&ask, "many.test", AF_UNSPEC), 0); /* 25 and 14 */
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
    bench_open(server.text, 5000);
    for (int i = 0; i < 50; i++) ask_start(&asks[i], i % 2 == 0 ? "slow-one.test" : "SLOW-one.test", AF_INET);
    assert_int_equal(bench.answers, 0);
    atomic_store(&asks[7].request.cancelled, 1); /* while it waits: comes back on its turn */
    bench_run(50);
    for (int i = 0; i < 50; i++) {
        assert_int_equal(asks[i].answers, 1);
        assert_int_equal(asks[i].status, i == 7 ? -ECANCELED : 0);
        assert_int_equal(asks[i].request.count, i == 7 ? 0 : 1);
    }
    assert_int_equal(questions_of("slow-one.test", TYPE_A), 1);
    assert_int_equal(resolve_get_stats(bench.resolver)->coalesced, 49);
    bench_close();
}

static void test_cancelled_before(void **state)
{
    (void)state;
    struct ask ask = {.request = {.cancelled = 1, .name = {.kind = ADDRESS_NAME, .name_size = 6, .name = "c.test"}}};
    bench_open(server.text, 5000);
    resolve_ask(bench.resolver, &ask.request, &ask);
    assert_int_equal(ask.answers, 1);
    assert_int_equal(ask.status, -ECANCELED);
    bench_sleep(50);
    assert_int_equal(questions_of("c.test", TYPE_A), 0);
    bench_close();
}

static void test_ttl(void **state)
{
    (void)state;
    struct ask ask;
    bench_open(server.text, 5000);
    assert_int_equal(ask_now(&ask, "zero.test", AF_INET), 0);  /* TTL 0 counts as one second */
    assert_int_equal(ask_now(&ask, "alias.test", AF_INET), 0); /* CNAME with TTL 1, address with 300 */
    is_address(&ask, 0, "192.0.2.7");
    assert_int_equal(ask_now(&ask, "plain2.test", AF_INET), 0);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(ask_now(&ask, "zero.test", AF_INET), 0);
        assert_int_equal(ask_now(&ask, "alias.test", AF_INET), 0);
    }
    assert_int_equal(questions_of("zero.test", TYPE_A), 1);
    assert_int_equal(questions_of("alias.test", TYPE_A), 1);
    bench_sleep(1100);
    assert_int_equal(ask_now(&ask, "zero.test", AF_INET), 0);
    assert_int_equal(ask_now(&ask, "alias.test", AF_INET), 0);
    assert_int_equal(ask_now(&ask, "plain2.test", AF_INET), 0);
    assert_int_equal(questions_of("zero.test", TYPE_A), 2);
    assert_int_equal(questions_of("alias.test", TYPE_A), 2);
    assert_int_equal(questions_of("plain2.test", TYPE_A), 1);
    assert_int_equal(resolve_get_stats(bench.resolver)->cached, 3);
    bench_close();
}

static void test_negative(void **state)
{
    (void)state;
    struct ask ask;
    bench_open(server.text, 5000);
    for (int i = 0; i < 5; i++) assert_int_equal(ask_now(&ask, "nx.test.", AF_INET), -ENOENT);
    assert_int_equal(questions_of("nx.test", TYPE_A), 1);
    assert_int_equal(resolve_get_stats(bench.resolver)->failures, 5);
    bench_sleep(RESOLVE_NEGATIVE_TTL_MS + 50);
    assert_int_equal(ask_now(&ask, "nx.test.", AF_INET), -ENOENT);
    assert_int_equal(questions_of("nx.test", TYPE_A), 2);
    /* A server's failure is an error, and is not remembered. */
    assert_int_equal(ask_now(&ask, "fail.test.", AF_INET), -EIO);
    unsigned questions = questions_of("fail.test", TYPE_A);
    assert_int_equal(ask_now(&ask, "fail.test.", AF_INET), -EIO);
    assert_true(questions_of("fail.test", TYPE_A) > questions);
    bench_close();
}

static void test_timeout(void **state)
{
    (void)state;
    struct ask ask, late;
    bench_open(server.text, 900);
    ask_start(&ask, "never.test.", AF_UNSPEC);
    bench_sleep(300);
    ask_start(&late, "never.test.", AF_UNSPEC);
    uint64_t took_ms = 300 + bench_run(2);
    assert_int_equal(ask.status, -ETIMEDOUT);
    assert_int_equal(late.status, -ETIMEDOUT);
    assert_in_range(took_ms, 700, 1400);
    assert_int_equal(questions_of("never.test", TYPE_A), 2); /* two tries */
    assert_int_equal(resolve_get_stats(bench.resolver)->timeouts, 2);
    assert_int_equal(resolve_get_stats(bench.resolver)->cached, 0);

    /* One family unanswered: the other one is the answer, before the time is over. */
    assert_int_equal(ask_now(&ask, "no6.test.", AF_UNSPEC), 0);
    assert_int_equal(ask.request.count, 1);
    is_address(&ask, 0, "192.0.2.1");
    bench_close();
}

/* The request's own deadline passes, the question goes on and fills the cache. */
static void test_deadline_of_request(void **state)
{
    (void)state;
    struct ask ask;
    char twice[80]; /* c-ares is patient for 600 ms with two servers */
    snprintf(twice, sizeof twice, "%s,%s", server.text, server.text);
    bench_open(twice, 100);
    ask_start(&ask, "snail.test", AF_INET);
    assert_in_range(bench_run(1), 95, 390);
    assert_int_equal(ask.status, -ETIMEDOUT);
    bench_sleep(500);
    int answers = bench.answers;
    ask_start(&ask, "snail.test", AF_INET);
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
    unsigned before = server.tcp_questions;
    bench_open(server.text, 5000);
    assert_int_equal(ask_now(&ask, "tc.test.", AF_INET), 0);
    is_address(&ask, 0, "192.0.2.1");
    bench_close();
    assert_true(server.tcp_questions > before);
}

static void test_hosts(void **state)
{
    (void)state;
    struct ask ask;
    bench_open(server.text, 5000);
    assert_int_equal(ask_now(&ask, "localhost", AF_INET), 0);
    is_address(&ask, 0, "127.0.0.1");
    for (uint32_t i = 0; i < ask.request.count; i++) assert_int_equal(ask.request.results[i].kind, ADDRESS_IPV4);
    assert_int_equal(ask_now(&ask, "LOCALHOST", AF_UNSPEC), 0);
    assert_int_equal(ask_now(&ask, "localhost", AF_INET6), 0);
    is_address(&ask, 0, "::1");
    assert_int_equal(questions_of("localhost", TYPE_A) + questions_of("localhost", TYPE_AAAA), 0);
    bench_close();
}

static void test_bad_names(void **state)
{
    (void)state;
    static const char *const names[] = {".",        "..",         "a..b",     ".a",
                                        "a.test..", "a\\.b.test", "a b.test", "caf\xc3\xa9.test"};
    char text[ADDRESS_NAME_MAX + 1];
    struct ask ask;
    bench_open(server.text, 1000);
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
    unsigned descriptors = open_descriptors();
    bench_open(server.text, 5000);
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
    assert_int_equal(open_descriptors(), descriptors);
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
    assert_int_equal(resolve_set_nameservers(bench.resolver, server.text), 0);
    assert_int_equal(resolve_get_stats(bench.resolver)->cached, 0);
    bench_run(3);
    assert_int_equal(open[0].status, 0);
    assert_int_equal(open[1].status, 0);
    assert_int_equal(questions_of("moved.test", TYPE_A), 1);
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
    bench_open(server.text, 5000);
    ask_start(&open, "never.test.", AF_INET);
    for (int i = 0; i < 300; i++) {
        assert_int_equal(resolve_set_nameservers(bench.resolver, server.text), 0);
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
        assert_int_equal(resolve_open(&resolver, bench.ring, &options, on_answered, &bench), -EINVAL);
        assert_int_equal(resolve_set_nameservers(bench.resolver, bad[i]), -EINVAL);
    }
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        options.nameservers = good[i];
        assert_int_equal(resolve_open(&resolver, bench.ring, &options, on_answered, &bench), 0);
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
    snprintf(text, sizeof text, "127.0.0.1:%u,%s", ntohs(address.sin_port), server.text);
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
    bench_open(server.text, 5000);
    ask_start(&ask, "again.test", AF_INET);
    ask.again = 5000;
    bench_run(5001);
    assert_int_equal(ask.answers, 5001);
    assert_int_equal(bench.depth_peak, 1);
    assert_int_equal(questions_of("again.test", TYPE_A), 1);
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
    bench_open(server.text, 5000);
    const struct resolve_stats *stats = resolve_get_stats(bench.resolver);
    for (int i = 0; i < NAMES; i++) {
        name_number(name, sizeof name, i);
        ask_start(&asks[i % BATCH], name, AF_INET);
        if (i % BATCH < BATCH - 1) continue;
        bench_run(bench.answers - bench.answers % BATCH + BATCH);
        for (int j = 0; j < BATCH; j++) assert_int_equal(asks[j].status, 0);
        name_number(name, sizeof name, 0); /* kept young */
        ask_start(&ask, name, AF_INET);
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
    bench_open(server.text, 400);
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

static void test_stale_completions(void **state)
{
    (void)state;
    struct ask ask;
    bench_open(server.text, 5000);
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
        cmocka_unit_test(test_answer_and_cache),
        cmocka_unit_test(test_families),
        cmocka_unit_test(test_coalesced),
        cmocka_unit_test(test_cancelled_before),
        cmocka_unit_test(test_ttl),
        cmocka_unit_test(test_negative),
        cmocka_unit_test(test_timeout),
        cmocka_unit_test(test_deadline_of_request),
        cmocka_unit_test(test_refused_by_icmp),
        cmocka_unit_test(test_tcp),
        cmocka_unit_test(test_hosts),
        cmocka_unit_test(test_bad_names),
        cmocka_unit_test(test_close_with_open_queries),
        cmocka_unit_test(test_set_nameservers),
        cmocka_unit_test(test_polls_are_cancelled),
        cmocka_unit_test(test_server_lists),
        cmocka_unit_test(test_second_server),
        cmocka_unit_test(test_asks_from_within),
        cmocka_unit_test(test_cache_is_bounded),
        cmocka_unit_test(test_queries_are_bounded),
        cmocka_unit_test(test_stale_completions),
    };
    return cmocka_run_group_tests_name("resolve", tests, server_start, server_stop);
}
