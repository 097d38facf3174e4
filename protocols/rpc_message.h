/* The messages of neosocksd's remote calls (contract section 4): what is sent to a peer's API, and what its answer is.
 *
 *   request   POST with Lua source as its body
 *   answer    a success of the right type: values as text | anything else: what went wrong
 *
 * Answers are read with the leniency that ten versions of peers need (no length, no Connection field, chunks), and with
 * none beyond it. */
#ifndef SLUICE_PROTOCOLS_RPC_MESSAGE_H
#define SLUICE_PROTOCOLS_RPC_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocols/address.h"
#include "protocols/credentials.h"
#include "protocols/http_body.h"
#include "protocols/http_head.h"

#define RPC_CONTENT_TYPE  "application/x-neosocksd-rpc; version=1"
#define RPC_BODY_SIZE_MAX ((size_t)4 << 20) /* octets of an answer's body as received; an API takes no more either */

/* Whether a Content-Type is that of a remote call: type and names without regard to case, values may be quoted, unknown
 * parameters are ignored; `version` must be there, and each one must be 1. */
bool rpc_is_content_type(const char *text, size_t size);

struct rpc_peer {
    struct address address;
    char token[CREDENTIALS_PART_MAX + 1]; /* for Authorization; empty: none */
};

/* `host:port`, or `http://[token@]host[:port]`; a token is percent-decoded and has visible ASCII characters only.
 * False: neither; then `out` is untouched. */
bool rpc_peer_parse(const char *text, size_t size, struct rpc_peer *out);

enum rpc_path {
    RPC_CALL,   /* /ruleset/rpcall: values are wanted */
    RPC_INVOKE, /* /ruleset/invoke: the status says all */
};

#define RPC_REQUEST_HEAD_SIZE_MAX 1024u
/* The head of a request; `body_size` octets of source follow, in zlib format if `deflated`. size >=
 * RPC_REQUEST_HEAD_SIZE_MAX. Returns octets. */
size_t rpc_write_request(uint8_t *out, size_t size, const struct rpc_peer *peer, enum rpc_path path, size_t body_size,
                         bool deflated);

enum rpc_outcome {
    RPC_VALUES,     /* the body holds them, coded as `coding` says; empty for RPC_INVOKE */
    RPC_MESSAGE,    /* the body is the peer's message, as it stands */
    RPC_STATUS,     /* a failure of which the status line tells all that is known */
    RPC_WRONG_TYPE, /* a success, but of no remote call */
    RPC_UNREADABLE, /* not HTTP, or it ended too early */
    RPC_MALFORMED,  /* HTTP that breaks the rules, is coded unknown ways, or is too long */
};
enum rpc_coding { RPC_IDENTITY, RPC_DEFLATE, RPC_GZIP };

#define RPC_ANSWER_SIZE_MAX (HTTP_RESPONSE_HEAD_SIZE_MAX + RPC_BODY_SIZE_MAX) /* octets that are ever kept of one */

/* An answer as far as it has been read. All but `path` is zero at first. */
struct rpc_answer {
    uint8_t path; /* enum rpc_path: what was asked */
    uint8_t
        outcome;    /* enum rpc_outcome: when it has been read, and before that what it will be if nothing intervenes */
    uint8_t coding; /* enum rpc_coding of RPC_VALUES */
    uint8_t interim;           /* 1xx heads passed over; private, bounded */
    uint16_t status_line_size; /* octets at the front of data; set unless RPC_UNREADABLE or RPC_MALFORMED */
    size_t body_at;            /* where the body begins; 0: the head is not complete */
    size_t body_size;          /* octets of it */
    size_t scanned;            /* private */
    struct http_body body;     /* private */
};

/* data, *size: what there is, at most RPC_ANSWER_SIZE_MAX of it from earlier calls; it may have been moved in between.
 * The framing of chunks and interim heads are taken out in place: *size becomes what is to be kept, and what is
 * received next goes behind that. True: the answer has been read, `outcome` stands. False: receive more. */
bool rpc_answer_read(struct rpc_answer *answer, uint8_t *data, size_t *size);
/* The connection has ended before rpc_answer_read() was true: `outcome` stands. */
void rpc_answer_end(struct rpc_answer *answer);

#endif
