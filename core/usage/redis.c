#include "core/usage/redis.h"

#include <assert.h>
#include <errno.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <hiredis/hiredis.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* Octets of one reply; hiredis gathers those of a string until it is whole. */
#define REPLY_SIZE_MAX ((size_t)1 << 20)

struct redis {
    int fd;
    gnutls_session_t tls; /* NULL: none */
    gnutls_certificate_credentials_t trust;
    redisReader *reader;
    redisReplyObjectFunctions functions;
    struct redis_command *command; /* that the reply is for */
    bool refused;                  /* it is an error */
    uint64_t deadline_ms;
};

/* --- what hiredis builds a reply of --- */

static struct redis *redis_of(const redisReadTask *task)
{
    return task->privdata;
}

/* Any pointer but NULL means that all is well. */
static void *take_string(const redisReadTask *task, char *text, size_t size)
{
    struct redis *r = redis_of(task);
    size_t cut = size < REDIS_MESSAGE_SIZE ? size : REDIS_MESSAGE_SIZE - 1;
    memcpy(r->command->text, text, cut);
    r->command->text[cut] = '\0';
    if (task->type == REDIS_REPLY_ERROR) r->refused = true;
    return r;
}

static void *take_array(const redisReadTask *task, int elements)
{
    return elements >= 0 && (unsigned)elements <= REDIS_NUMBERS_MAX ? redis_of(task) : NULL;
}

static void *take_integer(const redisReadTask *task, long long value)
{
    struct redis *r = redis_of(task);
    if (r->command->numbers && r->command->number_count < REDIS_NUMBERS_MAX)
        r->command->numbers[r->command->number_count++] = value;
    return r;
}

static void *take_nil(const redisReadTask *task)
{
    return redis_of(task);
}

static void free_nothing(void *reply)
{
    (void)reply;
}

/* --- octets, until a deadline --- */

static uint64_t clock_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u;
}

static int fail(char message[REDIS_MESSAGE_SIZE], const char *what, const char *why)
{
    snprintf(message, REDIS_MESSAGE_SIZE, "%s: %.160s", what, why);
    return -1;
}

static int wait_for(struct redis *r, short events, char message[REDIS_MESSAGE_SIZE])
{
    for (;;) {
        uint64_t now = clock_ms();
        struct pollfd pollfd = {.fd = r->fd, .events = events};
        int ready = now < r->deadline_ms ? poll(&pollfd, 1, (int)(r->deadline_ms - now)) : 0;
        if (ready > 0) return 0;
        if (ready == 0) return fail(message, "no answer in time", "see that the server runs and can be reached");
        if (errno != EINTR) return fail(message, "poll", strerror(errno));
    }
}

static int wait_tls(struct redis *r, char message[REDIS_MESSAGE_SIZE])
{
    return wait_for(r, gnutls_record_get_direction(r->tls) ? POLLOUT : POLLIN, message);
}

static bool is_patient(ssize_t result)
{
    return result == GNUTLS_E_AGAIN || result == GNUTLS_E_INTERRUPTED;
}

/* So many have gone, 0: try again; -1: failed. */
static ssize_t send_some(struct redis *r, const char *data, size_t size, char message[REDIS_MESSAGE_SIZE])
{
    ssize_t sent = r->tls ? gnutls_record_send(r->tls, data, size) : send(r->fd, data, size, MSG_NOSIGNAL);
    if (sent >= 0) return sent;
    if (r->tls && is_patient(sent)) return wait_tls(r, message);
    if (r->tls) return fail(message, "TLS", gnutls_strerror((int)sent));
    if (errno == EAGAIN || errno == EINTR) return wait_for(r, POLLOUT, message);
    return fail(message, "the connection is gone", strerror(errno));
}

static ssize_t receive_some(struct redis *r, char *data, size_t size, char message[REDIS_MESSAGE_SIZE])
{
    for (;;) {
        ssize_t got = r->tls ? gnutls_record_recv(r->tls, data, size) : recv(r->fd, data, size, 0);
        if (got > 0) return got;
        if (got == 0) return fail(message, "the connection is gone", "the server has closed it");
        if (r->tls && !is_patient(got)) return fail(message, "TLS", gnutls_strerror((int)got));
        if (!r->tls && errno != EAGAIN && errno != EINTR)
            return fail(message, "the connection is gone", strerror(errno));
        if ((r->tls ? wait_tls(r, message) : wait_for(r, POLLIN, message)) < 0) return -1;
    }
}

static int send_all(struct redis *r, const char *data, size_t size, char message[REDIS_MESSAGE_SIZE])
{
    while (size > 0) {
        ssize_t sent = send_some(r, data, size, message);
        if (sent < 0) return -1;
        data += sent;
        size -= (size_t)sent;
    }
    return 0;
}

/* --- commands --- */

static int read_reply(struct redis *r, char message[REDIS_MESSAGE_SIZE])
{
    char data[4096];
    void *reply = NULL;
    size_t all = 0;
    for (;;) {
        if (redisReaderGetReply(r->reader, &reply) != REDIS_OK)
            return fail(message, "the reply is malformed", "see that it is a Redis server");
        if (reply) return 0;
        ssize_t got = receive_some(r, data, sizeof data, message);
        if (got < 0) return -1;
        all += (size_t)got;
        if (all > REPLY_SIZE_MAX) return fail(message, "the reply is too long", "see that it is a Redis server");
        if (redisReaderFeed(r->reader, data, (size_t)got) != REDIS_OK)
            return fail(message, "the reply cannot be read", "there is no memory for it");
    }
}

int redis_ask(struct redis *redis, struct redis_command *command, char message[REDIS_MESSAGE_SIZE])
{
    char *octets = NULL;
    command->number_count = 0;
    command->text[0] = '\0';
    int size = redisFormatCommandArgv(&octets, command->count, command->words, command->sizes);
    if (size < 0) return fail(message, "the command cannot be written", "there is no memory for it");
    redis->command = command;
    redis->refused = false;
    redis->deadline_ms = clock_ms() + REDIS_PATIENCE_MS;
    int result = send_all(redis, octets, (size_t)size, message);
    redisFreeCommand(octets);
    if (result == 0) result = read_reply(redis, message);
    redis->command = NULL;
    if (result == 0 && redis->refused) return fail(message, "the server refuses", command->text);
    return result;
}

/* --- opening --- */

static int connect_one(struct redis *r, const struct addrinfo *address, char message[REDIS_MESSAGE_SIZE])
{
    int one = 1, error = 0;
    socklen_t size = sizeof error;
    r->fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (r->fd < 0) return fail(message, "there is no socket", strerror(errno));
    r->deadline_ms = clock_ms() + REDIS_PATIENCE_MS;
    if (connect(r->fd, address->ai_addr, address->ai_addrlen) < 0 && errno != EINPROGRESS)
        return fail(message, "cannot connect", strerror(errno));
    if (wait_for(r, POLLOUT, message) < 0) return -1;
    if (getsockopt(r->fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0 || error)
        return fail(message, "cannot connect", strerror(error ? error : errno));
    setsockopt(r->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return 0;
}

static int connect_any(struct redis *r, const struct usage_text *where, char message[REDIS_MESSAGE_SIZE])
{
    char host[ADDRESS_TEXT_SIZE], port[8];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV}, *list;
    address_format_host(&where->address, host, sizeof host);
    snprintf(port, sizeof port, "%u", where->address.port);
    int error = getaddrinfo(host, port, &hints, &list), result = -1;
    if (error) return fail(message, "its name cannot be resolved", gai_strerror(error));
    for (const struct addrinfo *address = list; address && result < 0; address = address->ai_next) {
        if (r->fd >= 0) close(r->fd);
        result = connect_one(r, address, message);
    }
    freeaddrinfo(list);
    return result;
}

static int start_tls(struct redis *r, const struct usage_text *where, char message[REDIS_MESSAGE_SIZE])
{
    char host[ADDRESS_TEXT_SIZE];
    address_format_host(&where->address, host, sizeof host);
    int error = gnutls_certificate_allocate_credentials(&r->trust);
    if (error >= 0)
        error = *where->ca ? gnutls_certificate_set_x509_trust_file(r->trust, where->ca, GNUTLS_X509_FMT_PEM)
                           : gnutls_certificate_set_x509_system_trust(r->trust);
    if (error == 0)
        return fail(message, "TLS", "there is no certificate to trust: install ca-certificates, or give ?ca=");
    if (error > 0) error = gnutls_init(&r->tls, GNUTLS_CLIENT | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL);
    if (error >= 0) error = gnutls_set_default_priority(r->tls);
    if (error >= 0) error = gnutls_credentials_set(r->tls, GNUTLS_CRD_CERTIFICATE, r->trust);
    if (error >= 0 && where->address.kind == ADDRESS_NAME)
        error = gnutls_server_name_set(r->tls, GNUTLS_NAME_DNS, host, strlen(host));
    if (error < 0) return fail(message, "TLS", gnutls_strerror(error));
    gnutls_session_set_verify_cert(r->tls, host, 0);
    gnutls_transport_set_int(r->tls, r->fd);
    r->deadline_ms = clock_ms() + REDIS_PATIENCE_MS;
    while ((error = gnutls_handshake(r->tls)) < 0) {
        if (!gnutls_error_is_fatal(error)) {
            if (wait_tls(r, message) < 0) return -1;
            continue;
        }
        bool doubted = error == GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR;
        return fail(message, "TLS",
                    doubted ? "its certificate is not trusted, or is another host's: give ?ca=FILE"
                            : gnutls_strerror(error));
    }
    return 0;
}

static int say(struct redis *r, int count, const char **words, char message[REDIS_MESSAGE_SIZE])
{
    size_t sizes[4];
    assert(count <= 4);
    for (int i = 0; i < count; i++) sizes[i] = strlen(words[i]);
    return redis_ask(r, &(struct redis_command){.count = count, .words = words, .sizes = sizes}, message);
}

static int sign_in(struct redis *r, const struct usage_text *where, char message[REDIS_MESSAGE_SIZE])
{
    const struct credentials *c = &where->credentials;
    char db[16];
    int result = 0;
    snprintf(db, sizeof db, "%u", where->db);
    if (c->present && *c->user)
        result = say(r, 3, (const char *[]){"AUTH", c->user, c->password}, message);
    else if (c->present)
        result = say(r, 2, (const char *[]){"AUTH", c->password}, message);
    if (result == 0) result = say(r, 2, (const char *[]){"SELECT", db}, message);
    return result;
}

int redis_open(struct redis **out, const struct usage_text *where, char message[REDIS_MESSAGE_SIZE])
{
    struct redis *r = calloc(1, sizeof *r);
    *out = NULL;
    if (!r) return fail(message, "it cannot be opened", "there is no memory for it");
    r->fd = -1;
    r->functions = (redisReplyObjectFunctions){take_string, take_array, take_integer, take_nil, free_nothing};
    r->reader = redisReaderCreateWithFunctions(&r->functions);
    int result = r->reader ? 0 : fail(message, "it cannot be opened", "there is no memory for it");
    if (r->reader) r->reader->privdata = r;
    if (result == 0) result = connect_any(r, where, message);
    if (result == 0 && where->tls) result = start_tls(r, where, message);
    if (result == 0) result = sign_in(r, where, message);
    if (result == 0)
        *out = r;
    else
        redis_close(r);
    return result;
}

void redis_close(struct redis *redis)
{
    if (!redis) return;
    if (redis->tls) gnutls_deinit(redis->tls);
    if (redis->trust) gnutls_certificate_free_credentials(redis->trust);
    if (redis->reader) redisReaderFree(redis->reader);
    if (redis->fd >= 0) close(redis->fd);
    free(redis);
}
