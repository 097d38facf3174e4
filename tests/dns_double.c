#include "tests/dns_double.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define TYPE_CNAME 5u
#define KINDS_MAX  512

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
    _Atomic unsigned char ports[65536];
    _Atomic unsigned tcp_questions;
} server;

unsigned dns_questions(const char *name, uint16_t type)
{
    unsigned count = 0;
    pthread_mutex_lock(&server.lock);
    for (unsigned i = 0; i < server.seen_count; i++)
        if (server.seen[i].type == type && strcmp(server.seen[i].name, name) == 0) count = server.seen[i].questions;
    pthread_mutex_unlock(&server.lock);
    return count;
}

unsigned dns_ports(void)
{
    unsigned count = 0;
    for (unsigned i = 0; i < 65536; i++) count += server.ports[i];
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
        for (size_t i = 0; i < label; i++) out->name[used++] = (char)tolower(message[at + i]); /* questions mix cases */
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

static void reply_add_raw(struct reply *reply, const void *record, size_t size)
{
    memcpy(reply->octets + reply->size, record, size);
    reply->size += size;
    reply->octets[7]++;
}

static void reply_add_addresses(struct reply *reply, uint16_t type, unsigned count, uint32_t ttl)
{
    for (unsigned i = 1; i <= count; i++) {
        uint8_t ipv4[4] = {192, 0, 2, (uint8_t)i};
        uint8_t ipv6[16] = {0x20, 0x01, 0x0d, 0xb8, [15] = (uint8_t)i};
        if (type == DNS_A)
            reply_add(reply, type, ttl, ipv4, sizeof ipv4);
        else
            reply_add(reply, type, ttl, ipv6, sizeof ipv6);
    }
}

static bool begins(const char *name, const char *label)
{
    return strncmp(name, label, strlen(label)) == 0;
}

/* --- the rules: labels and what they stand for --- */

/* Waits as long as the name says. False: no answer at all. */
static bool server_wait(const char *name, bool ipv4)
{
    if (begins(name, "never")) return false;
    if (begins(name, "no6") && !ipv4) return false;
    if (begins(name, "no4") && ipv4) return false;
    if (begins(name, "late6") && !ipv4) usleep(400000);
    if (begins(name, "slow")) usleep(200000);
    if (begins(name, "snail")) usleep(400000);
    return true;
}

/* How many addresses of each family a name has, and for how long; others have one of IPv4. */
static void server_answer_addresses(const char *name, uint16_t type, struct reply *reply)
{
    static const struct {
        const char *label;
        unsigned ipv4, ipv6;
        uint32_t ttl;
    } rules[] = {
        {"both", 2, 4, 60}, {"many", 25, 14, 60}, {"wide", 40, 0, 60}, {"v6", 0, 1, 60},
        {"zero", 1, 0, 0},  {"late6", 1, 1, 60},  {"no4", 1, 1, 60},   {"", 1, 0, 60},
    };
    unsigned i = 0;
    while (!begins(name, rules[i].label)) i++;
    reply_add_addresses(reply, type, type == DNS_A ? rules[i].ipv4 : rules[i].ipv6, rules[i].ttl);
}

/* False: this name is no alias. */
static bool server_answer_alias(const char *name, bool ipv4, struct reply *reply)
{
    if (begins(name, "front")) { /* the address stands in front of its CNAME */
        if (ipv4) reply_add_raw(reply, "\4real\4test\0\0\1\0\1\0\0\1\54\0\4\300\0\2\7", 25);
        reply_add(reply, TYPE_CNAME, 30, "\4real\4test", 11);
        return true;
    }
    if (begins(name, "chain")) { /* backwards: c has the address, b leads to c, the name to b */
        if (ipv4) reply_add_raw(reply, "\1c\4test\0\0\1\0\1\0\0\1\54\0\4\300\0\2\11", 22);
        reply_add_raw(reply, "\1b\4test\0\0\5\0\1\0\0\0\74\0\10\1c\4test\0", 26);
        reply_add(reply, TYPE_CNAME, 30, "\1b\4test", 8);
        return true;
    }
    if (!begins(name, "alias")) return false;
    reply_add(reply, TYPE_CNAME, 1, "\4real\4test", 11); /* with its terminator, the root */
    if (ipv4) reply_add_raw(reply, "\4real\4test\0\0\1\0\1\0\0\1\54\0\4\300\0\2\7", 25);
    return true;
}

/* False: no answer at all. */
static bool server_decide(const struct question *question, bool over_tcp, struct reply *reply)
{
    const char *name = question->name;
    if (begins(name, "tccut") && over_tcp) return false; /* which closes the connection */
    if (!server_wait(name, question->type == DNS_A)) return false;
    if (begins(name, "fail"))
        reply->octets[3] |= 2;
    else if (begins(name, "nx"))
        reply->octets[3] |= 3;
    else if (begins(name, "tc") && !over_tcp)
        reply->octets[2] |= 2;
    else if (!server_answer_alias(name, question->type == DNS_A, reply))
        server_answer_addresses(name, question->type, reply);
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

/* What somebody sends who has not seen the question: other ids, other names, another case. */
static void server_forge(struct reply *reply, const struct sockaddr_in *peer, socklen_t size)
{
    uint8_t label = reply->octets[12], forged[sizeof reply->octets];
    char name[64] = "";
    for (uint8_t i = 0; i < label && i < 63; i++) name[i] = (char)tolower(reply->octets[13 + i]);
    if (begins(name, "lower")) /* this server does not keep the case */
        for (uint8_t i = 0; i < label; i++) reply->octets[13 + i] = (uint8_t)name[i];
    if (!begins(name, "forged")) return;
    for (unsigned way = 0; way < 4; way++) {
        memcpy(forged, reply->octets, reply->size);
        forged[reply->size - 1] = 66; /* the address */
        if (way == 0) forged[0] ^= 1;
        if (way == 1) forged[13] = 'x';
        if (way == 2) forged[2] = 1; /* a question */
        if (way == 3) forged[5] = 0; /* with none */
        sendto(server.udp, forged, reply->size, 0, (const struct sockaddr *)peer, size);
    }
}

static void server_on_udp(void)
{
    uint8_t message[512];
    struct sockaddr_in peer;
    socklen_t peer_size = sizeof peer;
    struct reply reply;
    ssize_t size = recvfrom(server.udp, message, sizeof message, 0, (struct sockaddr *)&peer, &peer_size);
    if (size <= 0) return;
    server.ports[ntohs(peer.sin_port)] = 1;
    if (!server_reply(message, (size_t)size, false, &reply)) return;
    server_forge(&reply, &peer, peer_size);
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

int dns_start(void **state)
{
    (void)state;
    int tries = 0;
    while (!server_bind()) assert_true(++tries < 100);
    assert_int_equal(pipe(server.stop), 0);
    pthread_mutex_init(&server.lock, NULL);
    return pthread_create(&server.thread, NULL, server_run, NULL);
}

int dns_stop(void **state)
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

const char *dns_address(void)
{
    return server.text;
}

unsigned dns_tcp_questions(void)
{
    return server.tcp_questions;
}
