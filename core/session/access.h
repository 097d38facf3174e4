/* What the access log says of a session, or of each request of plain HTTP, collected while it lives: a note, which only
 * exists where there is such a log. At the end it becomes a record, which leaves the worker by a ring of its own; the
 * thread that writes it is core/control/access_log's. None of this waits: a record that finds no room is counted.
 *
 *     access_begin > access_on_request > access_on_... > access_end        once for each line
 *     access_count: wherever the counters of delivered octets move
 *
 * All of these do nothing without an access log, and for the coordinator's own connections. */
#ifndef SLUICE_CORE_SESSION_ACCESS_H
#define SLUICE_CORE_SESSION_ACCESS_H

#include "core/io/counter.h"
#include "core/io/record_ring.h"
#include "core/session/session.h"
#include "protocols/access_record.h"

/* From one worker to the log's thread; made by it, and there as long as the worker. */
struct access_feed {
    struct record_ring *ring;
    counter records, dropped; /* of the worker: sent; found no room */
    counter suppressed;       /* of the worker: see access_refuse() */
    uint64_t refusals_s;      /* the second of its last refusals, and how many lines it has had */
    uint32_t refusals;
    struct sleeper *sleeper; /* the reader's */
    int wake_fd;             /* an eventfd that wakes it */
    bool starts;             /* a line at the start, too */
    bool queries;            /* paths keep what stands behind their question mark */
};

#define ACCESS_TEXTS_SIZE 2048u
/* Lines in a second, from each worker, about connections that never became a session: a flood of them is not to fill
 * the disk, nor to take the room of sessions. */
#define ACCESS_REFUSALS_MAX 100u

enum access_note_text { NOTE_USER, NOTE_TARGET, NOTE_METHOD, NOTE_PATH, NOTE_CHAIN, NOTE_TEXTS };

struct access_note {
    bool open;      /* a line is due */
    bool requested; /* the request was complete */
    bool connected; /* the upstream is there */
    bool told;      /* its start was */
    bool truncated; /* a text did not fit */
    uint8_t paths;  /* bits of enum flow_mode that octets took */
    uint16_t status;
    uint16_t used; /* octets of `texts` */
    struct {
        uint16_t at, size;
    } places[NOTE_TEXTS];
    uint32_t revision;
    uint64_t begun_us, asked_us, found_us; /* the last question for a name, and its answer */
    uint64_t up, down;
    int64_t handshake_us, decision_us, resolve_us, connect_us, first_byte_us; /* ACCESS_NONE: never came to that */
    int64_t rtt_us[2], retrans[2];                                            /* by side */
    struct host_port dialed, egress;
    char texts[ACCESS_TEXTS_SIZE];
};

/* A connection has come in, or its next request. */
void access_begin(struct worker *w, struct session *s);
/* The request is understood. method, path: of plain HTTP, borrowed; else of size 0. */
void access_on_request(struct worker *w, struct session *s);
void access_on_http(struct worker *w, struct session *s, struct access_text method, struct access_text path);
void access_on_decision(struct worker *w, struct session *s, uint64_t took_us);
void access_on_question(struct worker *w, struct session *s); /* to the resolver, or to a cache */
void access_on_address(struct worker *w, struct session *s);
void access_on_dial(struct worker *w, struct session *s, const struct address *to);
/* The upstream is there; of an association its sockets are. */
void access_on_connected(struct worker *w, struct session *s);
void access_on_status(struct worker *w, struct session *s, unsigned status);
/* Octets were delivered, towards the upstream if `from` is CLIENT. mode: enum flow_mode. */
void access_count(struct worker *w, struct session *s, enum session_side from, uint64_t octets, unsigned mode);
/* A socket is about to be closed; the setup slot about to be given back. */
void access_on_close(struct worker *w, struct session *s, enum session_side side);
void access_keep_texts(struct worker *w, struct session *s);
/* The session, or this request of it, is over: its line. */
void access_end(struct worker *w, struct session *s);
void access_release(struct worker *w, struct session *s);
/* A connection is reset at accept: its line, or one more of those that have none. why  a label of counters, which lives
 * as long as the process. */
void access_refuse(struct worker *w, unsigned listener, const struct host_port *client, const char *why);

#endif
