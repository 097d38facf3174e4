/* One scripted end of a connection: it says words, then its half of a stream, checks the octets that it receives, and
 * has a pace, a manner to end, and perhaps a fault. Who it is, a client or an upstream, gives it its words and hears
 * what it is told. */
#ifndef SLUICE_TESTS_SIM_ACTOR_H
#define SLUICE_TESTS_SIM_ACTOR_H

#include "tests/sim.h"

#define SAY_MAX      73728u /* a large HTTP head, behind the answers of three proxies */
#define ACTOR_OCTETS 65521u /* of which all streams are cut; a prime, so that what arrives in the wrong place shows */

enum manner {
    END_FIRST, /* ends its direction when all is sent */
    END_LAST,  /* waits for the other's end first */
    END_CLOSE, /* closes altogether when all is sent and received */
};
enum fault {
    FAULT_NONE,
    FAULT_RESET,
    FAULT_CLOSE,  /* goes away politely in the middle */
    FAULT_SILENT, /* neither reads nor writes any more */
    FAULT_DEAF,   /* does not read any more */
};

/* One scripted end of a connection. First it says what `say` holds, then the stream. */
struct actor {
    struct sim_conn *conn;
    uint8_t *say, *heard;                   /* SAY_MAX octets each */
    uint32_t say_size, say_sent, say_limit; /* only up to say_limit until the answer that is awaited has come */
    uint32_t heard_size;
    uint32_t out_base, to_send, sent;       /* where its stream begins in the common octets */
    uint32_t in_base, to_receive, received; /* and the one that it expects */
    uint32_t chunk, gulp;                   /* octets written, read at once at most */
    uint32_t pause_us;                      /* at most, now and then */
    uint64_t awake_us;
    uint32_t nap_at, nap_us; /* one long pause, when so many octets have moved */
    uint32_t moved;          /* octets in both directions, handshakes included */
    uint32_t fault_at;
    uint8_t manner, fault;
    bool sends_stream, reads_stream;
    bool quiet; /* the silent fault has begun */
    bool deaf;
    bool ended; /* has announced its end in order */
    bool saw_end, saw_reset;
    bool gone;
};

static inline uint32_t sim_least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

void actor_prepare_octets(void); /* before the first stream */
/* How fast it is; what it is to say, send and receive is known. calm: it pauses for moments only. */
void actor_plan_pace(struct actor *a, bool calm);
void actor_say(struct actor *a, const void *data, size_t size); /* appends to its words, SAY_MAX in all */
/* Appends to what it has heard, of which the first `size` octets are understood and go. */
void actor_remember(struct actor *a, const uint8_t *data, uint32_t size);
void actor_forget(struct actor *a, size_t size);
/* Octets of the stream have come: fails unless they are the next ones. who, index: for the message. */
void actor_check(struct actor *a, const uint8_t *data, uint32_t size, const char *who, uint32_t index);
void actor_leave(struct actor *a); /* closes */

/* Called with what it has read. */
typedef void actor_hears(void *self, const uint8_t *data, uint32_t size);
/* Lets it act once. True if anything moved; *wake_us: when it wants to be asked again at the latest. */
bool actor_act(struct actor *a, actor_hears *hears, void *self, uint64_t *wake_us);

#endif
