/* Several plain HTTP requests of one client on one connection, and what each of them must get: the model that the
 * simulator holds against the proxy. Pure: octets in, octets out. */
#ifndef SLUICE_TESTS_SIM_SEQUENCE_H
#define SLUICE_TESTS_SIM_SEQUENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocols/http_body.h"

#define SEQUENCE_MAX      4u     /* requests */
#define SEQUENCE_BODY_MAX 16000u /* octets of a body; all of a client's words fit into SAY_MAX */
#define SEQUENCE_PAD_MAX  12000u /* of a head without body */

struct sequence {
    uint32_t count;
    bool repeatable[SEQUENCE_MAX];                             /* a GET: it may be sent twice */
    uint32_t up[SEQUENCE_MAX], down[SEQUENCE_MAX];             /* octets of the bodies */
    bool chunked_up[SEQUENCE_MAX], chunked_down[SEQUENCE_MAX]; /* how they are framed */
    bool interim[SEQUENCE_MAX];                                /* another head comes before the response */
    uint32_t end[SEQUENCE_MAX];                                /* of each request within the client's words */
    uint32_t heard;                                            /* requests that upstreams have got */
    uint32_t times[SEQUENCE_MAX];                              /* how often they have got each of them */
    uint32_t answered;                                         /* responses that the client has got */
    uint64_t heard_us[SEQUENCE_MAX];                           /* when an upstream first had all of each */
    uint64_t spoken_us[SEQUENCE_MAX];                          /* when the first octet of each of them came; 0: none */
};

/* What one end of a connection has read of the message that comes now; zeros before the first one. A body is compared
 * and forgotten as it comes, because the proxy may frame each octet of it anew: its framing has no bound but that. */
struct sequence_reader {
    bool begun;       /* there was a head, which an interim one is, too */
    bool in_body;     /* the head of `request` is read */
    uint32_t request; /* whose it is */
    uint32_t seen;    /* octets of the body */
    struct http_body body;
};

/* Plans the requests to `authority` and writes them all, each with `fields` in its head, the last one with
 * `Connection: close`. Returns octets. */
size_t sequence_plan(struct sequence *q, const char *authority, const char *fields, uint8_t *out, size_t size);
/* An upstream's view of what comes on its connection: *used octets of data[size] are done with, and are not to come
 * again. True when a request is whole, unchanged: its response is in out. It must be the next one, or the one before
 * once more, if that may be sent twice and its client has heard nothing of a response to it. A copy may also come late:
 * the proxy has closed its connection at closed_us (UINT64_MAX: it has not), before there was a word of the response.
 * `last`: the response says that it is the last one on its connection. */
bool sequence_hear_request(struct sequence *q, struct sequence_reader *reader, const uint8_t *data, size_t size,
                           size_t *used, uint64_t closed_us, bool last, uint8_t *out, size_t out_size, size_t *answer);
/* The client's view, in the same way. True when a response is whole: *granted if it is that of an upstream, which must
 * be the one to the next request, unchanged; else the proxy refuses, and only the head is read. */
bool sequence_hear_response(struct sequence *q, struct sequence_reader *reader, uint8_t *data, size_t size,
                            size_t *used, bool *granted);

#endif
