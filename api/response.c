#include "api/response.h"

#include <microhttpd.h>
#include <stdio.h>
#include <string.h>

#include "api/endpoints.h"
#include "api/fields.h"
#include "lua/engine/codec.h"

#define COMPRESS_MIN 256u /* octets: shorter answers are not worth it */

static enum codec choose_coding(struct call *call)
{
    if (call->answer.size < COMPRESS_MIN) return CODEC_NONE;
    return fields_choose_codec(call_header(call, MHD_HTTP_HEADER_ACCEPT_ENCODING));
}

static void add_header(struct MHD_Response *response, const char *name, const char *value)
{
    MHD_add_response_header(response, name, value);
}

static void add_policy(struct call *call, struct MHD_Response *response)
{
    add_header(response, "X-Content-Type-Options", "nosniff");
    add_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, call->page ? "no-cache" : "no-store");
    if (call->status == 401) add_header(response, "WWW-Authenticate", "Bearer realm=\"sluice\"");
    if (!call->page) return;
    add_header(response, "Content-Security-Policy",
               "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; "
               "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'");
    add_header(response, "Referrer-Policy", "no-referrer");
}

static void add_allow(struct call *call, struct MHD_Response *response)
{
    static const char *const names[] = {"GET", "HEAD", "POST", "DELETE", "PUT"};
    char allow[40] = "";
    if (call->status != 405) return;
    unsigned methods = endpoint_methods(call->endpoint);
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
        size_t used = strlen(allow);
        if (methods & 1u << i) snprintf(allow + used, sizeof allow - used, "%s%s", used ? ", " : "", names[i]);
    }
    add_header(response, MHD_HTTP_HEADER_ALLOW, allow);
}

/* The body as it goes out; takes it from the call. */
static struct MHD_Response *take_body(struct call *call)
{
    char *packed;
    size_t packed_size, plain_size = call->answer.size;
    enum codec codec = choose_coding(call);
    if (codec != CODEC_NONE &&
        codec_encode(codec, call->answer.data, call->answer.size, &packed, &packed_size) == CODEC_OK) {
        text_free(&call->answer);
        call->answer = (struct text){.data = packed, .size = packed_size};
    } else {
        codec = CODEC_NONE;
    }
    struct MHD_Response *response =
        MHD_create_response_from_buffer(call->answer.size, call->answer.data ? call->answer.data : "",
                                        call->answer.data ? MHD_RESPMEM_MUST_FREE : MHD_RESPMEM_PERSISTENT);
    if (!response) return NULL;
    MHD_set_response_options(response, MHD_RF_SEND_KEEP_ALIVE_HEADER, MHD_RO_END); /* as neosocksd says it */
    call->answer_size = call->answer.size;
    call->answer = (struct text){0};
    if (plain_size >= COMPRESS_MIN) add_header(response, MHD_HTTP_HEADER_VARY, MHD_HTTP_HEADER_ACCEPT_ENCODING);
    if (codec != CODEC_NONE)
        add_header(response, MHD_HTTP_HEADER_CONTENT_ENCODING, codec == CODEC_GZIP ? "gzip" : "deflate");
    return response;
}

struct MHD_Response *response_make(struct call *call)
{
    struct MHD_Response *response = take_body(call);
    if (!response) return NULL;
    if (call->status != 204) add_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, call->type);
    add_policy(call, response);
    add_allow(call, response);
    if (call->status >= 400) add_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
    return response;
}
