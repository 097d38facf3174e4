/* A connection's life: one enum of states, one table of steps (steps.c), one writer of the state (session_enter).
 *
 *   accept > HELLO > AUTH > REQUEST > ROUTE > RESOLVE > DIAL > HOP... > RELAY > CLOSING > FREE
 *   accept > ORIGIN > HELLO (behind a proxy)         DIAL, HOP > ANNOUNCE > RELAY, EXCHANGE
 *                      any of them > REPLY (a refusal is being sent) > LINGER > CLOSING
 *                      DIAL > EXCHANGE (plain HTTP)      REQUEST > ASSOCIATE (UDP)      ROUTE > BIND > RELAY
 *                      REQUEST > HOP (UDP through a chain, whose controls are sessions of their own) > ASSOCIATE
 *                      RELAY, EXCHANGE > PARTING (unacknowledged octets) > CLOSING
 *
 * Operations in flight are bits beside the state. Closing is stop, join, release: cancel and close, wait for every bit
 * to clear, give the slot back. What a session needs only until its relay stands in a setup slot, so that an
 * established one is small. */
#ifndef SLUICE_CORE_SESSION_SESSION_H
#define SLUICE_CORE_SESSION_SESSION_H

#include "core/io/buffers.h"
#include "core/io/list.h"
#include "core/io/net_address.h"
#include "core/resolver/resolve_request.h"
#include "core/session/egress_way.h"
#include "core/session/failure.h"
#include "core/session/flow_state.h"
#include "core/session/group.h"
#include "core/session/head_buffer.h"
#include "core/session/keys.h"
#include "core/session/message.h"
#include "core/session/route_request.h"
#include "core/session/session_state.h"
#include "core/session/verified.h"
#include "core/session/worker.h"
#include "protocols/host_port.h"
#include "protocols/socks5.h"

struct relay_errand;

#define DIAL_ATTEMPTS_MAX 4u   /* connects in flight at the same time */
#define DIAL_STAGGER_MS   250u /* RFC 8305 section 5: the recommended Connection Attempt Delay */

enum session_side { CLIENT, UPSTREAM };

/* Sockets of an association, see udp.h. */
enum udp_socket { UDP_CLIENT, UDP_IPV4, UDP_IPV6, UDP_SOCKETS };

/* What may be in flight for a session; each is a bit of session.inflight and an op of a ring tag. */
enum session_op {
    SESSION_RECV, /* + side */
    SESSION_SEND = SESSION_RECV + 2,
    SESSION_POLL_IN = SESSION_SEND + 2,
    SESSION_POLL_OUT = SESSION_POLL_IN + 2,
    SESSION_WATCH = SESSION_POLL_OUT + 2, /* poll for errors only, where nothing else would notice a reset */
    SESSION_CONNECT = SESSION_WATCH + 2,  /* + attempt */
    SESSION_UDP_RECV = SESSION_CONNECT + DIAL_ATTEMPTS_MAX, /* + enum udp_socket */
    SESSION_OP_COUNT = SESSION_UDP_RECV + UDP_SOCKETS,
    SESSION_ANSWER = SESSION_OP_COUNT, /* no operation: the coordinator or the resolver is to answer */
    SESSION_UDP_SEND,                  /* no operation: datagrams are being sent, counted by the association */
    SESSION_VERDICT,                   /* no operation: the coordinator is to decide about a datagram's target */
};

/* Polls of bulk flows, of flows whose sink is slow, and of BIND. */
static inline bool session_op_is_poll(unsigned op)
{
    return op >= SESSION_POLL_IN && op < SESSION_WATCH;
}
#define SESSION_BIT(op) (1u << (op))

enum session_protocol {
    PROTOCOL_UNKNOWN,
    PROTOCOL_SOCKS4,
    PROTOCOL_SOCKS5,
    PROTOCOL_HTTP_CONNECT,
    PROTOCOL_HTTP_PLAIN,
    PROTOCOL_FORWARD,
    PROTOCOL_TPROXY,
    PROTOCOL_SCRIPT,   /* two sockets of a script, see struct relay_errand */
    PROTOCOL_INTERNAL, /* for the coordinator, see struct dial_errand */
    PROTOCOL_CHAIN,    /* for an association: asks a proxy for one, see udp_chain.h */
};

/* Of ours: no client stands behind it, whom limits, counters and logs would concern. */
static inline bool protocol_is_own(uint8_t protocol)
{
    return protocol == PROTOCOL_INTERNAL || protocol == PROTOCOL_CHAIN;
}

/* How long a client may take to read a refusal and close, before we do. */
#define SESSION_LINGER_MS  2000u
#define SESSION_LABEL_SIZE 184u

struct session {
    uint8_t state;      /* enum session_state; written by session_enter() alone */
    uint8_t protocol;   /* enum session_protocol */
    uint8_t failure;    /* enum failure that ended it */
    uint8_t command;    /* enum socks5_command; CONNECT for all other protocols */
    uint8_t listener;   /* index of the listener that accepted it */
    uint8_t op;         /* of the completion that is being handled */
    bool keepalive_set; /* by session_set_keepalive() */
    bool lost;          /* octets were taken whose receiver has gone since: their sender must be reset in the end */
    bool reused;        /* its upstream has carried requests of others, or of its own, before */
    bool repeated;      /* such a one had ended: the request is sent once more */
    bool exclusive;     /* its upstream is authenticated for it, see conn_cache.h */
    uint8_t hops;       /* proxies in front of the target */
    uint32_t slot;
    uint32_t inflight; /* SESSION_BIT()s */
    uint32_t setup;    /* slot of the setup pool, POOL_NONE once the relay runs by itself */
    uint32_t extra;    /* slot of an exchange or association, of a control its chain; else POOL_NONE */
    int32_t result;    /* of that completion */
    uint32_t rule;     /* tag of the rule that let it in */
    int fd[2];         /* by side; -1: none */
    uint32_t passed;   /* listeners that its client, a connection of this process, has passed; see self.h */
    uint32_t note;     /* of its connection to the upstream, see own.h */
    uint32_t conn;     /* slot of the connection that waits for it alone, see conn_cache.h; else POOL_NONE */
    uint8_t depth;     /* sessions that its client has passed */
    uint8_t limit_count;
    uint8_t limit_named;               /* of its limits, the last ones: they came with the verdict */
    bool spent;                        /* a quota of it is: it ends when what was taken is delivered */
    bool asks_name;                    /* a question of it to the resolver is under way */
    bool settled;                      /* its request is served: what follows is no failure of it */
    uint32_t limits[KEYS_PER_SESSION]; /* that it is under, see limited.h */
    bool tallied;                      /* it counts under the next two, see tally.h */
    uint32_t tally_user;               /* place of its user; else KEYS_NONE */
    uint32_t tally_rule;               /* tag of its rule; 0: none */
    struct group_choice choice;        /* the member of a group that it goes to, see upstream.h */
    uint32_t source;                   /* key that its handshake counts under, see newcomer.h; else KEYS_NONE */
    uint64_t opened_ms;
    uint32_t record;             /* slot of its note for the access log, POOL_NONE: there is none; see access.h */
    struct host_port client;     /* where it comes from, known from accept on, or from a PROXY header; NONE: a Unix
                                    socket, or ourselves */
    struct host_port reached;    /* where it went to, as the PROXY header has it; NONE: to our end of the connection */
    struct relay_errand *errand; /* comes from a script, goes back when this session ends; NULL: the session has none */
    uint64_t moved;              /* octets delivered when idleness was last judged */
    uint64_t moved_ms;           /* when that was last seen to have changed */
    uint64_t parted_ms;          /* when PARTING began */
    struct flow flows[2];
    char label[SESSION_LABEL_SIZE]; /* when the setup slot is gone: user, target, chain, a zero behind each; cut to fit
                                     */
};

/* Attempts to connect, see dial.h. */
struct dial {
    int fds[DIAL_ATTEMPTS_MAX];                      /* -1: free */
    struct net_address addresses[DIAL_ATTEMPTS_MAX]; /* read by the kernel until it is submitted */
    uint8_t next;                                    /* candidate to be tried next */
    uint8_t live;                                    /* attempts in flight */
    uint8_t order[DIAL_ATTEMPTS_MAX];                /* the candidate of each: the lowest was started first */
    uint8_t polled;                                  /* bits of attempts that were begun by net_connect() */
    uint8_t failure;                                 /* enum failure of the last attempt that failed */
    uint8_t allowed;                                 /* as setup.allowed, with what the verdict's name adds */
};

#define SETUP_HEAD_SIZE 8192u /* nearly every request fits; see head_buffer.h for the others */
/* Nearly every answer of a proxy of the chain fits; see head_buffer.h for the others. It is also the most that is
 * received at once, so that what follows an answer fits into `out`. */
#define SETUP_HOP_SIZE 4096u
#define SETUP_OUT_SIZE (SETUP_HOP_SIZE + 2048u)

/* What the proxy of the chain is to answer. */
enum hop_stage {
    HOP_METHOD,
    HOP_AUTH,
    HOP_REPLY,
    HOP_PEER, /* BIND: its second reply */
};

/* Members of a group that a verdict has led to, see upstream.h. */
#define UPSTREAM_NO_GROUP 255u
struct upstream_tries {
    uint8_t at; /* where the group stands: a hop, or hop_count for the target; UPSTREAM_NO_GROUP */
    uint8_t tried_count;
    bool again;      /* ROUTE: the next one is due, as soon as nothing of the one before is in flight */
    uint8_t failure; /* enum failure of the last one */
    uint64_t until_ms;
    uint32_t tried[GROUP_TRIES_MAX]; /* ids */
    char group[GROUP_NAME_MAX + 1];
};

/* What a session needs until its relay runs. Large, shared by turns, its content is whatever the last owner left. */
struct setup {
    uint32_t received, consumed; /* octets of `head` */
    uint32_t out_used, out_sent; /* octets of `out` */
    uint32_t hop_received;       /* octets of `hop_in` */
    size_t scanned, hop_scanned; /* see http_parse_request(): of `head`, of `hop_in` */
    uint8_t hop;                 /* of the chain: the proxy whose answer is awaited */
    uint8_t hop_stage;           /* enum hop_stage */
    bool request_complete;       /* a time-out from here on is the upstream's fault */
    bool repeatable;             /* plain HTTP: the request may be sent twice, see struct http_forward_request */
    bool by_name;                /* the target came as a name, even if it reads as an address */
    uint8_t allowed;             /* scopes whose lists have allowed the target that was asked for, see lists.h */
    bool asking;                 /* ROUTE: the question could not be posted yet */
    bool trial;                  /* the verdict was ROUTE_TRY, and its end is not reported yet */
    uint8_t verdict_on_user;     /* enum verify_result: why, where FAIL_AUTH is that of --users */
    uint32_t revision;           /* of the ruleset that is asked */
    uint32_t era;                /* in which the verdict was obeyed, see conn_cache.h */
    uint32_t retry_after_s;      /* a refusal by a rate: when to come again; 0: nobody knows */
    uint64_t deadline_ms;        /* of all that comes before the relay */
    uint64_t asked_us;           /* when the question was posted */
    uint64_t dialled_us;         /* when dialling began */
    struct address bound; /* what the success reply names; NONE: where our connection to the upstream comes from */
    bool head_shut;       /* the client has sent its end already */
    bool refused;         /* HOP: the proxy has answered in its own protocol, and has said no */
    struct upstream_tries upstream;
    struct dial dial;
    struct address target; /* asked for */
    struct credentials credentials;
    struct route_request route;
    struct egress egress; /* of the verdict that is obeyed */
    struct resolve_request resolve;
    struct verify_request verify;
    uint8_t out[SETUP_OUT_SIZE]; /* to the client */
    uint8_t hop_out[2048];       /* to a proxy of the chain, or the PROXY header for the target */
    uint16_t hop_sending;        /* octets of it, by the send that is in flight: fewer mean that an error has cut it */
    struct head_buffer hop_in;   /* from it */
    uint8_t hop_small[SETUP_HOP_SIZE];
    struct head_buffer head; /* from the client */
    uint8_t head_small[SETUP_HEAD_SIZE];
};

/* --- slots --- */

static inline struct session *session_at(const struct worker *w, uint32_t slot)
{
    return pool_at(&w->sessions, slot);
}

static inline struct setup *setup_of(const struct worker *w, const struct session *s)
{
    return pool_at(&w->setups, s->setup);
}

static inline struct ring_tag session_tag(const struct worker *w, const struct session *s, unsigned op)
{
    return (struct ring_tag){
        .op = (uint8_t)(WORKER_OP_SESSION + op), .generation = pool_generation(&w->sessions, s->slot), .slot = s->slot};
}

/* Marks an operation as in flight and returns its tag; an operation is never armed twice. */
static inline struct ring_tag session_arm(struct worker *w, struct session *s, unsigned op)
{
    if (session_op_is_poll(op)) w->polls++;
    assert(!(s->inflight & SESSION_BIT(op)));
    s->inflight |= SESSION_BIT(op);
    return session_tag(w, s, op);
}

bool session_has_room(const struct worker *w); /* for one more */
/* A session with a setup slot, in FREE; there is room. timeout_ms: of all that comes before the relay. */
struct session *session_take(struct worker *w, unsigned listener, int fd, uint32_t timeout_ms);
/* For another request of the same client, its upstream being dropped: a fresh setup slot, which must be there; or the
 * one that the session still has, with what its head holds. */
void session_take_setup(struct worker *w, struct session *s);
void session_renew(struct worker *w, struct session *s);

/* --- for the modules that implement steps --- */

/* The only writer of s->state: counters, deadline and trace line move with it. */
void session_enter(struct worker *w, struct session *s, enum session_state next);
/* Sends what `out` holds, unless a send is in flight already, which will go on with it. */
void session_flush(struct worker *w, struct session *s);
/* Counts octets of our own replies that are sent. Replies to scripts, which are no clients, are not counted. */
void session_count_reply(struct worker *w, const struct session *s, uint64_t octets);
/* Lends the resolver a question: the answer comes with op SESSION_ANSWER, until then the slot is pinned. One at a
 * time. FAIL_RESOURCE: the queue is full; FAIL_LIMIT_RESOLVING: its source has asked enough. */
enum failure session_ask_address(struct worker *w, struct session *s, struct resolve_request *request);
/* The same for the coordinator and a verdict on setup.route. */
bool session_ask_route(struct worker *w, struct session *s);
/* Writes the session's chain: as many hops as fit into `size` octets with the terminator. */
void session_format_chain(const struct worker *w, const struct session *s, char *out, size_t size);
/* A ROUTE_TRY has ended: says so to the coordinator. result 0: the relay runs. */
void session_report_trial(struct worker *w, struct session *s, int32_t result);
/* Whether an operation on the upstream, or on an attempt to reach one, is in flight. */
bool session_upstream_is_busy(const struct session *s);
/* Sets keepalive where nothing has set it before, once. Most sessions never live long enough to need those calls: an
 * established one comes here after session_first_look_ms(). */
void session_set_keepalive(struct worker *w, struct session *s);
uint32_t session_first_look_ms(const struct config *config);
/* One line with the session's id, the client and, if known, the target in front. */
void session_log(struct worker *w, struct session *s, int level, const char *text);
void session_log_intruder(struct worker *w, struct session *s); /* a wrong password: for docs/fail2ban/ */

/* Before the relay: from accept on, until there is nothing left but to wait for the kernel. */
bool session_is_half_open(enum session_state state);
/* Of all that comes before the relay, ring_now_ms(); 0: the setup slot is gone. */
uint64_t session_deadline_ms(const struct worker *w, const struct session *s);
/* Tells the coordinator something that needs no answer (message.h). */
void session_tell(struct worker *w, struct session *s, enum message_kind kind, int32_t result);
#define SESSION_ID_SIZE 32u
/* What GET /sessions and the access log call it: worker, slot and generation in hexadecimal. */
void session_format_id(const struct worker *w, const struct session *s, char out[SESSION_ID_SIZE]);
void session_format_client(const struct session *s, char *out, size_t size); /* `local` without an address */
static inline bool session_asks_ruleset(const struct session *s)
{
    return s->state == SESSION_LOGIN || s->state == SESSION_ROUTE;
}

#endif
