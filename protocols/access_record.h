/* What the access log says of a session, or of one request of plain HTTP: values, which access_text.h makes a line of.
 * docs/access-log.md has what each of them means. */
#ifndef SLUICE_PROTOCOLS_ACCESS_RECORD_H
#define SLUICE_PROTOCOLS_ACCESS_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocols/host_port.h"

#define ACCESS_NONE INT64_C(-1) /* of a number: it never came to that, or nobody knows */

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
    uint64_t up, down; /* octets delivered */
    int64_t handshake_us, decision_us, resolve_us, connect_us, first_byte_us, total_us;
    int64_t client_rtt_us, target_rtt_us, client_retrans, target_retrans;
};

#endif
