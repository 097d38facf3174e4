#include "api/answer_size.h"

#include <microhttpd.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define LINE_END  2u /* CR, LF */
#define DATE_LINE (sizeof "Date: Sun, 06 Nov 1994 08:49:37 GMT" - 1 + LINE_END)

struct head {
    size_t size;
    bool says_connection; /* one of its fields is Connection */
};

static enum MHD_Result add_field(void *context, enum MHD_ValueKind kind, const char *name, const char *value)
{
    struct head *head = context;
    (void)kind;
    head->size += strlen(name) + 2 + strlen(value) + LINE_END;
    head->says_connection |= strcasecmp(name, MHD_HTTP_HEADER_CONNECTION) == 0;
    return MHD_YES;
}

/* The status line, the fields that were added to the response, those that the library adds, and an empty line. */
size_t answer_head_size(struct MHD_Response *response, unsigned status, bool persists, size_t body_size)
{
    struct head head = {.size = strlen("HTTP/1.1 200 ") + strlen(MHD_get_reason_phrase_for(status)) + LINE_END};
    MHD_get_response_headers(response, add_field, &head);
    head.size += DATE_LINE + LINE_END;
    if (!head.says_connection)
        head.size += strlen(persists ? "Connection: Keep-Alive" : "Connection: close") + LINE_END;
    if (status != MHD_HTTP_NO_CONTENT)
        head.size += (size_t)snprintf(NULL, 0, "Content-Length: %zu", body_size) + LINE_END;
    return head.size;
}
