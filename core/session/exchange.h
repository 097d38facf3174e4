/* A plain HTTP request and its response, passing through: heads are rewritten, bodies re-framed (RFC 9112 sections 6
 * and 7).
 *
 * Two streams, one function (stream_pump): receive when nothing is left to pass on, pass on while there is room, send.
 * Where much of a body follows without framing, those octets are a flow with a limit, and need not pass through here.
 * When the response is delivered the client's connection goes on if it wants to, see idle.h, and the upstream's waits
 * for another request, see conn_cache.h. A 101 turns the session into a relay.
 *
 * An upstream that has carried requests before may end while another one is on its way. Without a word of a response,
 * that request is sent again, once, on a connection of its own, if it may be (RFC 9110 section 9.2.2). */
#ifndef SLUICE_CORE_SESSION_EXCHANGE_H
#define SLUICE_CORE_SESSION_EXCHANGE_H

#include "core/session/session.h"
#include "protocols/http_body.h"
#include "protocols/http_forward.h"

/* Where nearly every head fits; see head_buffer.h for the others. */
#define EXCHANGE_IN_SIZE 16384u
/* A whole rewritten head (it gains Via, Connection, framing, and what is said at HEAD_BUFFER_SIZE), or a buffer of
 * payload with its chunk framing. */
#define EXCHANGE_OUT_SIZE (EXCHANGE_IN_SIZE + 2048u)

enum stream_phase {
    STREAM_HEAD,   /* response only: its head is awaited */
    STREAM_BODY,   /* octets are passed on */
    STREAM_FLOW,   /* a run of the body is passed on by a flow of its own, see flow.h */
    STREAM_SWITCH, /* response only: a 101 is being sent, then the relay takes over */
    STREAM_DONE,   /* the message is complete; `out` may still hold its last octets */
};

struct stream {
    uint8_t phase; /* enum stream_phase */
    bool rechunk;  /* deliver chunked */
    bool counted;  /* what `in` holds came with the head, and was counted with it */
    struct http_body body;
    uint32_t in_used, in_size;   /* octets of `in` passed on, received */
    uint32_t out_used, out_size; /* octets of `out` sent, written */
    uint32_t sending;            /* of them, by the send that is in flight */
    size_t scanned;
    struct head_buffer in, out;
    uint8_t in_small[EXCHANGE_IN_SIZE];
    uint8_t out_small[EXCHANGE_OUT_SIZE];
};

struct exchange {
    struct http_forward_request request;
    uint8_t failure;          /* enum failure to be reported when what is being sent to the client is out */
    bool answered;            /* a final head has gone to the client: from here on a failure is a reset */
    bool keep;                /* the client was told that its connection goes on */
    bool keep_upstream;       /* the upstream's goes on behind its response */
    bool repeats;             /* the upstream is given up, and the request sent again when nothing of it is in flight */
    uint8_t interims;         /* responses before the response */
    uint64_t head_until_ms;   /* when the head that is awaited must be there; 0: not awaited yet */
    struct stream streams[2]; /* by the side that they read from, as a relay's flows */
};

/* Takes the session's slot. False: there is none, or its client holds enough of them. */
bool exchange_take(struct worker *w, struct session *s);
/* The session has entered EXCHANGE: the upstream is connected, the request's head stands in the setup slot. */
void exchange_begin(struct worker *w, struct session *s);
void exchange_on_completion(struct worker *w, struct session *s, unsigned op, const struct ring_completion *c);
void exchange_on_timer(struct worker *w, struct session *s);
void exchange_on_due(struct worker *w, struct session *s, enum session_side from); /* see hooks.h */
void exchange_release(struct worker *w, struct session *s);

#endif
