/* Scripted peers: the far ends of the connections of one world. A tunnel is one planned session, from its client to its
 * target; the upstreams are what the proxy has connected to for it. */
#ifndef SLUICE_TESTS_SIM_PEERS_H
#define SLUICE_TESTS_SIM_PEERS_H

#include "core/session/config.h"
#include "tests/sim_actor.h"
#include "tests/sim_sequence.h"

#define TUNNELS_MAX   12u
#define ADDRESSES_MAX 4u
#define UPSTREAMS_MAX 192u
#define PAD_MAX       40000u /* of a response's head; a request's has three quarters of it */
#define PORT_LISTEN   1000u  /* + listener */
#define PORT_HOP      9000u  /* + hop of the chain */
#define PORT_TARGET   10000u /* + tunnel */
#define PORT_DEAD     44444u /* nothing answers there: what a ruleset tries in vain */
#define PORT_NOWHERE  33333u /* far from all others in its digits: where garbage begins */

enum speech {
    SPEECH_SOCKS4,
    SPEECH_SOCKS4A,
    SPEECH_SOCKS5,
    SPEECH_SOCKS5_AUTH,
    SPEECH_HTTP,
    SPEECH_POST,     /* a plain HTTP request whose body is the stream, and so is that of the response */
    SPEECH_SEQUENCE, /* several plain HTTP requests, see sim_sequence.h */
    SPEECH_FORWARD
};
/* How an upstream of a sequence ends a connection that could carry more. */
enum weariness {
    WEARY_SAYS,  /* tells so with its last response, and ends then */
    WEARY_ENDS,  /* without a word, when the next request has come or may be on its way */
    WEARY_RESET, /* likewise */
    WEARY_408,   /* with a word that nobody has asked for */
    WEARY_KINDS,
};

struct sim_users;
struct sim_lists;

struct tunnel {
    struct actor client;
    uint32_t index;
    uint64_t start_us;
    uint64_t begun_us; /* when its client came */
    struct address target;
    uint8_t speech, stage;
    uint8_t user, password; /* where clients must be users, see sim_users.h */
    bool anonymous;         /* it gives neither */
    uint8_t listener;
    uint8_t address_count;
    int outcomes[ADDRESSES_MAX]; /* of connecting to each address: 0, -errno, 1: never */
    uint8_t upstream_manner, upstream_fault;
    uint32_t upstream_fault_at;
    int resolve_result;
    bool started, refused_admission; /* the connection was never to be had */
    bool flawed;                     /* something is meant to go wrong in it */
    bool client_flawed;              /* on the client's side */
    bool garbage;                    /* its client says something that is not meant */
    bool established, refused;       /* what its client was told */
    struct sequence sequence;
    struct sequence_reader reader; /* of its responses */
};

struct upstream {
    struct actor actor;
    struct tunnel *tunnel; /* NULL until the last proxy has been told */
    uint8_t hop, stage;
    uint8_t command; /* what this proxy is asked for last */
    bool associated; /* it has an association for the one who is connected */
    uint8_t trouble; /* what the proxies of the chain do wrong */
    uint64_t asked;  /* octets of handshakes with them */
    bool announced;  /* its stream begins behind a PROXY header */
    struct sequence_reader reader;
    uint32_t answers;     /* to requests of a sequence */
    uint32_t answers_max; /* behind which it is weary */
    uint8_t weariness;    /* enum weariness */
    uint64_t weary_us;    /* when it ends of itself; 0: not by time */
};

struct peers {
    const struct config *config;
    const struct sim_users *users; /* NULL: nobody asks who they are */
    const struct sim_lists *lists; /* NULL: whoever comes may go anywhere */
    uint32_t tunnel_count, upstream_count;
    bool calm; /* nothing goes wrong but what a tunnel's own plan says */
    bool hop_trouble;
    bool sequences; /* all clients speak plain HTTP, several requests each */
    bool behind;    /* all of them come by a proxy, which begins with a PROXY header */
    uint32_t room_max;
    uint64_t moved_us; /* when one of them last did something */
    struct tunnel tunnels[TUNNELS_MAX];
    struct upstream upstreams[UPSTREAMS_MAX];
};

/* Plans all tunnels. */
void peers_plan(struct peers *peers, const struct config *config, uint32_t count, uint32_t stream_max);
/* Lets them act. True if anything moved, or could have. */
bool peers_act(struct peers *peers, uint64_t *wake_us);
uint32_t peers_posts(const struct peers *peers);    /* outcomes that plain HTTP may have beyond one for each tunnel */
bool peers_have_garbage(const struct peers *peers); /* a client may ask for what others want, or say who they are */
bool peers_all_gone(const struct peers *peers);
void peers_on_connect(void *peers, const struct net_address *to, struct sim_verdict *verdict);
void peers_on_established(struct peers *peers, struct sim_conn *conn);
/* Every tunnel in which nothing was to go wrong must be complete. */
void peers_check_finished(const struct peers *peers);
/* Whatever happened: nothing was cut silently. */
void peers_check_ends(const struct peers *peers);
/* The proxy reaches out for a tunnel, as its client has asked after since_us: fails if it must not. */
void peers_check_allowed(const struct peers *peers, const struct tunnel *t, uint64_t since_us);
/* Octets that the proxy has put into sockets. */
struct peers_octets {
    uint64_t up, down;                 /* of streams */
    uint64_t to_upstreams, to_clients; /* all, with heads and handshakes */
};

/* True if `up` and `down` are exact. */
bool peers_sum(const struct peers *peers, struct peers_octets *sum);

#endif
