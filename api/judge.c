#include "judge.h"

#include <microhttpd.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/net.h"
#include "endpoints.h"
#include "fields.h"

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
    if (!by_address || call_parts(call)->tokens->count > 0 || !host) return false;
    return !access_host_is_ours(host, local);
}

/* 0, or the status to refuse with. */
static unsigned judge_caller(struct call *call, const char *authority)
{
    if (is_foreign(call, authority)) return 403;
    if (call_parts(call)->tokens->count == 0 || call->endpoint->scope == ACCESS_NONE) return 0;
    call->token = access_find(call_parts(call)->tokens, call_header(call, "Authorization"));
    if (!call->token) return 401;
    return call->token->scope < call->endpoint->scope ? 403 : 0;
}

static enum MHD_Result count_field(void *context, enum MHD_ValueKind kind, const char *name, const char *value)
{
    unsigned *counts = context;
    (void)kind, (void)value;
    if (strcasecmp(name, MHD_HTTP_HEADER_HOST) == 0) counts[0]++;
    if (strcasecmp(name, MHD_HTTP_HEADER_CONTENT_LENGTH) == 0) counts[1]++;
    return MHD_YES;
}

/* Two hosts or two lengths: whoever is in front of us might have obeyed the other one (RFC 9112 sections 3.2, 6.3). */
static bool repeats_fields(struct call *call)
{
    unsigned counts[2] = {0};
    MHD_get_connection_values(call->connection, MHD_HEADER_KIND, count_field, counts);
    return counts[0] > 1 || counts[1] > 1;
}

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

const char *judge_text(unsigned status)
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
    return strcmp(name, "DELETE") == 0 ? CALL_DELETE : 0;
}

unsigned judge_head(struct call *call, const char *url, const char *method)
{
    static const struct endpoint unknown = {.path = "?", .scope = ACCESS_READ};
    char authority[256];
    const char *path = fields_split_url(url, authority, sizeof authority);
    bool ruleset = strncmp(path, "/ruleset/", 9) == 0 || strcmp(path, "/ruleset") == 0;
    call->method = read_method(method);
    call->endpoint = endpoint_find(path, call->method, &call->path_rest);
    bool found = call->endpoint != NULL;
    if (!found) call->endpoint = &unknown;
    unsigned refused = judge_caller(call, *authority ? authority : NULL);
    if (refused) return refused;
    if (*path != '/' || !call->sound || repeats_fields(call)) return 400;
    if (ruleset && !engine_has_ruleset(call_parts(call)->engine)) return 500;
    if (!found) return 404;
    if (!(call->endpoint->methods & call->method)) return 405;
    return judge_body(call);
}

bool judge_drops_body(struct call *call, unsigned refused)
{
    return refused != 400 && read_length(call) && call->body_expected <= CALL_BODY_MAX &&
           !call_header(call, MHD_HTTP_HEADER_TRANSFER_ENCODING) && !call_header(call, MHD_HTTP_HEADER_EXPECT);
}
