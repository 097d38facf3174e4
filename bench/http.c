/* http: requests one behind the other on connections that are kept. One that the proxy ends, as it may, is opened
 * again.
 *
 * Through a proxy for plain HTTP the request has the absolute form. Each answer's status, length and body are compared
 * with what the origin sends: the first octets of wire_block. */
#include "bench/pace.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <arpa/inet.h>

static void http_end(struct client *c, struct flow *f)
{
    close(f->fd);
    flow_release(c, f);
}

/* An operation failed on a connection that had carried others, and nothing of the answer was there: the proxy has ended
 * it, as it may at any time between two requests. Ask at once, errno is the operation's. */
static bool http_is_stale(const struct flow *f)
{
    return f->rounds > 0 && f->head_size == 0 && (errno == EPIPE || errno == ECONNRESET);
}

/* The request goes out again on the connection that takes this one's place, and its time goes on. */
static void http_owe(struct client *c, struct flow *f)
{
    f->owes = true;
    http_end(c, f);
}

static void http_start(struct client *c, struct flow *f)
{
    char text[192], host[INET_ADDRSTRLEN];
    unsigned port = ntohs(f->target.sin_port);
    bool absolute = c->o.via == VIA_HTTP_PLAIN;
    inet_ntop(AF_INET, &f->target.sin_addr, host, sizeof host);
    int size = absolute
                   ? snprintf(text, sizeof text, "GET http://%s:%u/%u HTTP/1.1\r\nHost: %s:%u\r\n\r\n", host, port,
                              c->o.message, host, port)
                   : snprintf(text, sizeof text, "GET /%u HTTP/1.1\r\nHost: %s:%u\r\n\r\n", c->o.message, host, port);
    f->got = f->head_size = 0;
    f->body = -1;
    f->opened = clock_ns(); /* what --timeout counts from */
    ssize_t sent = socket_send(f->fd, text, (size_t)size);
    if (sent < 0 && http_is_stale(f))
        http_owe(c, f);
    else if (sent != size)
        flow_fail(c, f, sent < 0 ? strerror(errno) : "short send");
}

/* The value of a field, NULL: there is none. The head ends with an empty line, and a NUL behind it. */
static const char *head_field(const char *head, const char *name)
{
    size_t size = strlen(name);
    for (const char *line = strstr(head, "\r\n"); line && line[2] != '\r'; line = strstr(line + 2, "\r\n"))
        if (strncasecmp(line + 2, name, size) == 0 && line[2 + size] == ':')
            return line + 2 + size + 1 + strspn(line + 2 + size + 1, " ");
    return NULL;
}

static bool head_keeps(const char *head)
{
    const char *connection = head_field(head, "Connection");
    if (!connection) connection = head_field(head, "Proxy-Connection");
    if (connection) return strncasecmp(connection, "keep-alive", 10) == 0;
    return strncmp(head, "HTTP/1.1", 8) == 0;
}

/* NULL, or what is wrong. */
static const char *http_take_head(struct client *c, struct flow *f, size_t size)
{
    char head[HEAD_SIZE + 1];
    memcpy(head, f->head, size);
    head[size] = '\0';
    const char *length = head_field(head, "Content-Length");
    if (strncmp(head, "HTTP/1.", 7) != 0 || strncmp(head + 8, " 200", 4) != 0) return "status is not 200";
    if (!length || strtoul(length, NULL, 10) != c->o.message) return "no Content-Length, or another one";
    f->body = c->o.message;
    f->keeps = head_keeps(head);
    return NULL;
}

static void http_done(struct client *c, struct flow *f)
{
    flow_count(c, f, f->sent);
    f->rounds++;
    if (!f->keeps || f->ends) { /* no event would tell of the end a second time */
        http_end(c, f);
    } else if (pace_holds(c, f)) {
        pace_rest(c, f);
    } else {
        f->sent = clock_ns();
        http_start(c, f);
    }
}

/* False: the flow is not what it was, or there is nothing more to read now. */
static bool http_take_body(struct client *c, struct flow *f, const uint8_t *data, size_t size)
{
    if (f->got + size > (size_t)f->body || memcmp(data, wire_block + f->got, size) != 0) {
        c->mismatches++;
        flow_fail(c, f, "the body differs");
        return false;
    }
    f->got += (uint32_t)size;
    if (f->got < f->body) return true;
    http_done(c, f);
    return false;
}

static bool http_read_head(struct client *c, struct flow *f)
{
    ssize_t size = recv(f->fd, f->head + f->head_size, (size_t)(HEAD_SIZE - f->head_size), MSG_DONTWAIT);
    if (would_block(size)) return false;
    if (size <= 0) {
        if (size == 0) errno = ECONNRESET; /* an end in order is one all the same */
        if (http_is_stale(f))
            http_owe(c, f);
        else
            flow_fail_read(c, f, size);
        return false;
    }
    f->head_size = (uint16_t)(f->head_size + size);
    const uint8_t *end = memmem(f->head, f->head_size, "\r\n\r\n", 4);
    if (!end) {
        if (f->head_size == HEAD_SIZE) flow_fail(c, f, "endless head");
        return f->phase == PHASE_RUN;
    }
    size_t head = (size_t)(end - f->head) + 4;
    const char *wrong = http_take_head(c, f, head);
    if (wrong) {
        flow_fail(c, f, wrong);
        return false;
    }
    return http_take_body(c, f, f->head + head, f->head_size - head);
}

static bool http_read_body(struct client *c, struct flow *f)
{
    size_t wanted = (size_t)f->body - f->got;
    ssize_t size = recv(f->fd, wire_scratch, wanted, MSG_DONTWAIT);
    if (would_block(size)) return false;
    if (size > 0) return http_take_body(c, f, wire_scratch, (size_t)size);
    flow_fail_read(c, f, size);
    return false;
}

static void http_run(struct client *c, struct flow *f, uint32_t events)
{
    f->ends = events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR);
    if (f->rests) {
        if (f->ends) http_end(c, f);
        return;
    }
    while (f->body < 0 ? http_read_head(c, f) : http_read_body(c, f)) {
    }
}

const struct mode mode_http = {.name = "http", .start = http_start, .run = http_run, .churns = true};
