/* Several plain HTTP requests of one client on one connection, and what each of them must get: the model that the
 * simulator holds against the proxy. Pure: octets in, octets out. */
#ifndef SLUICE_TESTS_SIM_SEQUENCE_H
#define SLUICE_TESTS_SIM_SEQUENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SEQUENCE_MAX      4u     /* requests */
#define SEQUENCE_BODY_MAX 16000u /* octets of a body; all of a client's words fit into SAY_MAX */

struct sequence {
    uint32_t count;
    uint32_t up[SEQUENCE_MAX], down[SEQUENCE_MAX];             /* octets of the bodies */
    bool chunked_up[SEQUENCE_MAX], chunked_down[SEQUENCE_MAX]; /* how they are framed */
    bool interim[SEQUENCE_MAX];                                /* another head comes before the response */
    uint32_t end[SEQUENCE_MAX];                                /* of each request within the client's words */
    uint32_t heard;                                            /* requests that upstreams have got */
    uint32_t answered;                                         /* responses that the client has got */
};

/* Plans the requests to `authority` and writes them all, the last one with `Connection: close`. Returns octets. */
size_t sequence_plan(struct sequence *q, const char *authority, uint8_t *out, size_t size);
/* An upstream's view. True when a whole request stands in data[size], which must be the next one, unchanged: *used
 * octets, and its response is in out. */
bool sequence_hear_request(struct sequence *q, const uint8_t *data, size_t size, size_t *used, uint8_t *out,
                           size_t out_size, size_t *answer);
/* The client's view. True when a whole response stands in data[size]: *granted if it is that of an upstream, which must
 * be the one to the next request, unchanged; else the proxy refuses. */
bool sequence_hear_response(struct sequence *q, uint8_t *data, size_t size, size_t *used, bool *granted);

#endif
