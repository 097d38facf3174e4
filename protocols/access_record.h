/* What the access log says of a session, or of one request of plain HTTP: values, which access_text.h makes a line of.
 * docs/access-log.md has what each of them means. */
#ifndef SLUICE_PROTOCOLS_ACCESS_RECORD_H
#define SLUICE_PROTOCOLS_ACCESS_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocols/host_port.h"

#define ACCESS_NONE  INT64_C(-1) /* of a number: it never came to that, or nobody knows */
#define ACCESS_NO_ID UINT32_MAX  /* of `worker`: there was no session */

/* Octets of a peer's choice: any but NUL, in no known coding. Size 0: there is none. */
struct access_text {
    const char *data; /* borrowed */
    uint32_t size;
};

struct access_record {
    uint64_t time_us; /* since 1970, UTC */
    /* Words that live as long as the process; NULL: none. */
    const char *event, *listener, *protocol, *command, *result, *relay;
    uint32_t worker, slot, generation; /* the id */
    uint32_t rule_tag;                 /* for whoever knows what it is called; 0: none */
    uint32_t revision;                 /* of the ruleset that was asked; 0: none was */
    uint16_t status;                   /* of HTTP; 0: none */
    bool truncated;                    /* a text did not fit */
    struct host_port client, dialed, egress;
    struct access_text user, target, host, chain, rule, method, path;
    uint64_t up, down;   /* octets delivered */
    uint64_t suppressed; /* connections that have no line because there were too many; 0: it is about no others */
    int64_t handshake_us, decision_us, resolve_us, connect_us, first_byte_us, total_us;
    int64_t client_rtt_us, target_rtt_us, client_retrans, target_retrans;
};

/* One that says nothing but that. event  lives as long as the process. */
static inline struct access_record access_record_of_nothing(uint64_t time_us, const char *event)
{
    return (struct access_record){.time_us = time_us,
                                  .event = event,
                                  .worker = ACCESS_NO_ID,
                                  .handshake_us = ACCESS_NONE,
                                  .decision_us = ACCESS_NONE,
                                  .resolve_us = ACCESS_NONE,
                                  .connect_us = ACCESS_NONE,
                                  .first_byte_us = ACCESS_NONE,
                                  .total_us = ACCESS_NONE,
                                  .client_rtt_us = ACCESS_NONE,
                                  .target_rtt_us = ACCESS_NONE,
                                  .client_retrans = ACCESS_NONE,
                                  .target_retrans = ACCESS_NONE};
}

#endif
