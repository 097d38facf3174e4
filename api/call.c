#include "api/call.h"

#include <assert.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "core/io/log.h"
#include "core/io/net.h"

struct call_field {
    bool header;       /* else a parameter of the query */
    const char *name;  /* behind the array, as the value */
    const char *value; /* NULL: none */
};

struct call *call_new(struct api_parts *parts, struct visit *visit, struct MHD_Connection *connection)
{
    struct call *call = calloc(1, sizeof *call);
    if (!call) return NULL;
    call->parts = parts;
    call->visit = visit;
    call->connection = connection;
    call->path_rest = "";
    return call;
}

void call_free(struct call *call)
{
    text_free(&call->body);
    text_free(&call->answer);
    free(call->path_copy);
    free(call->fields);
    free(call);
}

/* --- the log of changes --- */

/* failed: the status of the answer; 0: the change is about to be made. */
static void log_change(const struct call *call, unsigned failed)
{
    char line[LOG_TEXT_MAX], hash[ACCESS_HASH_TEXT_SIZE];
    access_hash(call->body.data ? call->body.data : "", call->body.size, hash);
    snprintf(line, sizeof line, "api: %s%s%s: %s %s, sha256 %s", call->peer, *call->token_name ? ", token " : "",
             call->token_name, call->endpoint->path, call->change, hash);
    if (failed)
        LOGW("%s: failed with %u", line, failed);
    else
        LOGN("%s", line);
}

void call_log_change(struct call *call, const char *what)
{
    int size = snprintf(call->change, sizeof call->change, "%s", what);
    if (size >= (int)sizeof call->change) memcpy(call->change + sizeof call->change - 4, "...", 4);
    log_change(call, 0);
}

/* --- answers --- */

void call_reply(struct call *call, unsigned status, const char *type, struct text *text)
{
    assert(!call->answered);
    call->answered = true;
    call->status = text->failed ? 500 : status;
    call->type = text->failed ? CALL_TEXT : type;
    if (text->failed) text_free(text);
    call->answer = *text;
    if (*call->change && call->status >= 400) log_change(call, call->status);
    if (call->give_back && !call->handling) call->give_back(call);
}

void call_reply_octets(struct call *call, unsigned status, const char *type, const char *data, size_t size)
{
    struct text text = {0};
    text_add(&text, data, size);
    call_reply(call, status, type, &text);
}

void call_reply_text(struct call *call, unsigned status, const char *message)
{
    call_reply_octets(call, status, CALL_TEXT, message, strlen(message));
}

void call_reply_json(struct call *call, unsigned status, json_t *all)
{
    struct text text = {0};
    text_add_json(&text, all, 17);
    call_reply(call, status, CALL_JSON, &text);
}

/* --- what was asked --- */

static const struct call_field *find_copy(const struct call *call, bool header, const char *name)
{
    for (size_t i = 0; i < call->field_count; i++) {
        const struct call_field *f = &call->fields[i];
        if (f->header == header && (header ? strcasecmp(f->name, name) : strcmp(f->name, name)) == 0) return f;
    }
    return NULL;
}

const char *call_header(struct call *call, const char *name)
{
    if (call->connection) return MHD_lookup_connection_value(call->connection, MHD_HEADER_KIND, name);
    const struct call_field *field = find_copy(call, true, name);
    return field ? field->value : NULL;
}

const char *call_query(struct call *call, const char *name)
{
    if (call->connection) return MHD_lookup_connection_value(call->connection, MHD_GET_ARGUMENT_KIND, name);
    const struct call_field *field = find_copy(call, false, name);
    return field ? field->value : NULL;
}

bool call_has_query(struct call *call, const char *name)
{
    const char *value = NULL;
    size_t size = 0;
    if (!call->connection) return find_copy(call, false, name) != NULL;
    return MHD_lookup_connection_value_n(call->connection, MHD_GET_ARGUMENT_KIND, name, strlen(name), &value, &size) ==
           MHD_YES;
}

bool call_query_given(struct call *call, const char *name, const char **value)
{
    *value = call_query(call, name);
    return !call_has_query(call, name) || (*value && **value);
}

bool call_query_flag(struct call *call, const char *name, bool otherwise)
{
    static const char *const yes[] = {"1", "y", "yes", "on", "t", "true"};
    if (!call_has_query(call, name)) return otherwise;
    const char *value = call_query(call, name);
    for (size_t i = 0; value && i < sizeof yes / sizeof *yes; i++)
        if (strcmp(value, yes[i]) == 0) return true;
    return false;
}

/* --- the copies --- */

/* Who asks on a Unix socket, as the kernel knows it. */
static void local_peer_text(struct MHD_Connection *connection, char *out, size_t size)
{
    struct ucred peer;
    socklen_t length = sizeof peer;
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    if (info && getsockopt(info->connect_fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0)
        snprintf(out, size, "uid %u, pid %d", (unsigned)peer.uid, (int)peer.pid);
    else
        snprintf(out, size, "a local process");
}

/* The address as it was at accept(): the client may have gone since. */
void call_peer_text(struct MHD_Connection *connection, char *out, size_t size)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    const struct sockaddr *from = info ? info->client_addr : NULL;
    struct net_address peer = {0};
    struct address address;
    if (!from || (from->sa_family != AF_INET && from->sa_family != AF_INET6)) {
        local_peer_text(connection, out, size);
        return;
    }
    peer.size = from->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    memcpy(&peer.storage, from, peer.size);
    snprintf(out, size, "?");
    if (net_address_to(&peer, &address)) address_format(&address, out, size);
}

struct measure {
    size_t count, octets;
};

static enum MHD_Result measure_field(void *context, enum MHD_ValueKind kind, const char *name, const char *value)
{
    struct measure *m = context;
    (void)kind;
    m->count++;
    m->octets += strlen(name) + 1 + (value ? strlen(value) + 1 : 0);
    return MHD_YES;
}

struct copying {
    struct call *call;
    char *at;
};

static const char *copy_text(struct copying *c, const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = memcpy(c->at, text, size);
    c->at += size;
    return copy;
}

static enum MHD_Result copy_field(void *context, enum MHD_ValueKind kind, const char *name, const char *value)
{
    struct copying *c = context;
    struct call_field *field = &c->call->fields[c->call->field_count++];
    field->header = kind == MHD_HEADER_KIND;
    field->name = copy_text(c, name);
    field->value = value ? copy_text(c, value) : NULL;
    return MHD_YES;
}

static bool copy_fields(struct call *call)
{
    struct measure m = {0};
    MHD_get_connection_values(call->connection, MHD_HEADER_KIND, measure_field, &m);
    MHD_get_connection_values(call->connection, MHD_GET_ARGUMENT_KIND, measure_field, &m);
    call->fields = malloc(m.count * sizeof *call->fields + m.octets + 1);
    if (!call->fields) return false;
    struct copying copying = {call, (char *)(call->fields + m.count)};
    MHD_get_connection_values(call->connection, MHD_HEADER_KIND, copy_field, &copying);
    MHD_get_connection_values(call->connection, MHD_GET_ARGUMENT_KIND, copy_field, &copying);
    return true;
}

bool call_copy(struct call *call)
{
    call->path_copy = strdup(call->path_rest);
    if (!call->path_copy || !copy_fields(call)) return false;
    call->path_rest = call->path_copy;
    call->url_end = NULL;
    call_peer_text(call->connection, call->peer, sizeof call->peer);
    call->connection = NULL;
    return true;
}
