#include "api/judge.h"

#include <assert.h>
#include <microhttpd.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "api/endpoints.h"
#include "api/fields.h"
#include "api/parts.h"
#include "core/io/net.h"

/* The address that the client has connected to. */
static bool local_text(struct call *call, char *out, size_t size)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(call->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct net_address local;
    struct address address;
    if (!info || net_local_address(info->connect_fd, &local) < 0 || !net_address_to(&local, &address)) return false;
    if (address.kind == ADDRESS_UNIX) return false;
    assert(size >= ADDRESS_TEXT_SIZE);
    address_format_host(&address, out, size);
    return true;
}

/* A page of somebody else's, or a name that was made to point here (DNS rebinding). Programs send neither. */
static bool is_foreign(struct call *call, const char *authority)
{
    char local[ADDRESS_TEXT_SIZE];
    const char *host = authority ? authority : call_header(call, "Host"), *origin = call_header(call, "Origin");
    const char *site = call_header(call, "Sec-Fetch-Site");
    bool by_address = local_text(call, local, sizeof local);
    if (site && (strcasecmp(site, "cross-site") == 0 || strcasecmp(site, "same-site") == 0)) return true;
    if (origin && (!host || !access_origin_is_host(origin, host))) return true;
    /* With tokens no page can speak for anybody; and no page reaches a Unix socket. */
    if (!by_address || call->parts->tokens->count > 0 || !host) return false;
    return !access_host_is_ours(host, local);
}

/* --- who asks --- */

/* 0, or the status to refuse with. */
static unsigned judge_token(struct call *call)
{
    call->token_name[0] = '\0';
    if (call->parts->tokens->count == 0 || call->endpoint->scope == ACCESS_NONE) return 0;
    const struct access_token *token = access_find(call->parts->tokens, call_header(call, "Authorization"));
    if (!token) return 401;
    memcpy(call->token_name, token->name, sizeof call->token_name); /* the tokens may be others before the answer */
    return token->scope < call->endpoint->scope ? 403 : 0;
}

/* --- the fields as they were sent --- */

/* Fields that have one meaning: of two, whoever is in front of us might obey the other one (RFC 9112 sections 3.2, 6.3;
 * RFC 9110 section 5.3). */
static const char *const singular[] = {"Host",           "Origin",       "Sec-Fetch-Site",   "Authorization",
                                       "Content-Length", "Content-Type", "Content-Encoding", "Expect"};
#define SINGULAR_COUNT (sizeof singular / sizeof *singular)

struct field_walk {
    unsigned counts[SINGULAR_COUNT];
    const char *end; /* of the field before; NULL: there was none */
    bool strict;     /* that one's line has to end with CRLF */
    bool torn;
};

/* libmicrohttpd 0.9.75 ends a field at its first zero octet and drops the rest without a word. It leaves the fields
 * where they were received, one behind the other: what lies between two of them, but for the end of a line, has been
 * cut off. A zero octet in front of a bare LF looks like CRLF there; a token must not be let in with it. The lines of
 * a folded field are not in one piece either, and what libmicrohttpd makes of it is only the first one: refused, as
 * RFC 9112 section 5.2 has it. */
static bool is_cut(const char *end, uintptr_t next, unsigned least, unsigned most)
{
    uintptr_t gap = next - (uintptr_t)end;
    if (gap < least || gap > most) return true;
    for (uintptr_t i = 0; i < gap; i++)
        if (end[i] != '\0') return true; /* what ended the line is zero now */
    return false;
}

static enum MHD_Result walk_field(void *context, enum MHD_ValueKind kind, const char *name, size_t name_size,
                                  const char *value, size_t value_size)
{
    struct field_walk *walk = context;
    (void)kind;
    if (walk->end && is_cut(walk->end, (uintptr_t)name, walk->strict ? 2 : 1, 2)) walk->torn = true;
    for (size_t i = 0; i < SINGULAR_COUNT; i++)
        if (strcasecmp(name, singular[i]) == 0) walk->counts[i]++;
    walk->strict = strcasecmp(name, MHD_HTTP_HEADER_AUTHORIZATION) == 0;
    walk->end = value ? value + value_size : name + name_size;
    return MHD_YES;
}

/* Whether each field is whole, and those with one meaning are there once. method: where the head begins. */
static bool fields_are_sound(struct call *call, const char *method)
{
    struct field_walk walk = {.end = NULL};
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(call->connection, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
    MHD_get_connection_values_n(call->connection, MHD_HEADER_KIND, walk_field, &walk);
    for (size_t i = 0; i < SINGULAR_COUNT; i++)
        if (walk.counts[i] > 1) return false;
    if (!walk.end) return true;
    uintptr_t end = info ? (uintptr_t)method + info->header_size : 0;
    return !walk.torn && !is_cut(walk.end, end, walk.strict ? 4 : 2, 4); /* two ends of lines */
}

/* The same for the URL: what follows it is a blank and the version. */
static bool url_is_whole(const struct call *call, const char *version)
{
    return call->url_end && (*version == '\0' || (uintptr_t)version - (uintptr_t)call->url_end == 1);
}

/* --- the query --- */

struct query_walk {
    const char *known; /* words between blanks */
    unsigned seen;     /* set of their places */
    bool wrong;
};

/* The place of a word in a list, or -1. */
static int place_of(const char *list, const char *word, size_t size)
{
    for (int place = 0; *list; place++) {
        size_t length = strcspn(list, " ");
        if (length == size && memcmp(list, word, size) == 0) return place;
        list += length + (list[length] == ' ');
    }
    return -1;
}

static enum MHD_Result walk_query(void *context, enum MHD_ValueKind kind, const char *name, size_t name_size,
                                  const char *value, size_t value_size)
{
    struct query_walk *walk = context;
    int place = place_of(walk->known, name, name_size);
    (void)kind, (void)value, (void)value_size;
    if (place < 0 || walk->seen & 1u << place) walk->wrong = true;
    if (place >= 0) walk->seen |= 1u << place;
    return MHD_YES;
}

/* Who asks for a change and adds `dryrun=1` wants something else than the change. */
static bool query_is_known(struct call *call)
{
    struct query_walk walk = {.known = call->endpoint->parameters};
    if (!walk.known) return true;
    MHD_get_connection_values_n(call->connection, MHD_GET_ARGUMENT_KIND, walk_query, &walk);
    return !walk.wrong;
}

/* --- the body --- */

/* libmicrohttpd has seen to it that the number is one. False: the field is absent. */
static bool read_length(struct call *call)
{
    const char *length = call_header(call, MHD_HTTP_HEADER_CONTENT_LENGTH);
    if (length) call->body_expected = strtoull(length, NULL, 10);
    return length != NULL;
}

static unsigned judge_body(struct call *call)
{
    const char *expect = call_header(call, MHD_HTTP_HEADER_EXPECT);
    if (call_header(call, MHD_HTTP_HEADER_TRANSFER_ENCODING)) return 501;
    if (expect && strcasecmp(expect, "100-continue") != 0) return 417;
    if (!read_length(call)) return call->endpoint->needs_length ? 411 : 0;
    return call->body_expected > CALL_BODY_MAX ? 413 : 0;
}

static const char *status_text(unsigned status)
{
    switch (status) {
    case 400: return "bad request";
    case 401: return "a bearer token of --api-token-file is required";
    case 403: return "this caller may not do that";
    case 404: return "there is no such route";
    case 405: return "this route does not take that method";
    case 411: return "a Content-Length is required";
    case 413: return "the body is larger than 4 MiB";
    case 415: return "the content coding must be deflate or gzip";
    case 417: return "that expectation cannot be met";
    case 500: return "ruleset is not enabled on the server";
    case 501: return "chunked requests are not supported";
    default: return "the request cannot be served";
    }
}

static enum call_method read_method(const char *name)
{
    if (strcmp(name, "GET") == 0) return CALL_GET;
    if (strcmp(name, "HEAD") == 0) return CALL_HEAD;
    if (strcmp(name, "POST") == 0) return CALL_POST;
    if (strcmp(name, "DELETE") == 0) return CALL_DELETE;
    return strcmp(name, "PUT") == 0 ? CALL_PUT : CALL_OTHER;
}

unsigned judge_head(struct call *call, const char *url, const char *method, const char *version)
{
    static const struct endpoint unknown = {.path = "?", .scope = ACCESS_READ};
    char authority[256];
    const char *path = fields_split_url(url, authority, sizeof authority);
    bool ruleset = strncmp(path, "/ruleset/", 9) == 0 || strcmp(path, "/ruleset") == 0;
    call->method = read_method(method);
    call->endpoint = endpoint_find(path, call->method, &call->path_rest);
    bool found = call->endpoint != NULL;
    if (!found) call->endpoint = &unknown;
    unsigned refused = is_foreign(call, *authority ? authority : NULL) ? 403 : judge_token(call);
    if (refused) return refused;
    if (*path != '/' || !call->sound || !url_is_whole(call, version) || !fields_are_sound(call, method)) return 400;
    if (ruleset && coordinator_revision(call->parts->coordinator) == 0) return 500;
    if (!found) return 404;
    if (!(call->endpoint->methods & call->method)) return 405;
    call->query_wrong = !query_is_known(call);
    return call->query_wrong ? 400 : judge_body(call);
}

unsigned judge_again(struct call *call)
{
    return judge_token(call);
}

void judge_refuse(struct call *call, unsigned status)
{
    struct text text = {0};
    if (call->query_wrong)
        text_printf(&text, "this route takes no other query parameters than these, each once: %s",
                    *call->endpoint->parameters ? call->endpoint->parameters : "(none)");
    else
        text_printf(&text, "%s", status_text(status));
    call_reply(call, status, CALL_TEXT, &text);
}

bool judge_drops_body(struct call *call, unsigned refused)
{
    return refused != 400 && read_length(call) && call->body_expected <= CALL_BODY_MAX &&
           !call_header(call, MHD_HTTP_HEADER_TRANSFER_ENCODING) && !call_header(call, MHD_HTTP_HEADER_EXPECT);
}
