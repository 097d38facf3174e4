/* What the parts of the peers have of each other: sim_plan.c, sim_client.c, sim_upstream.c and sim_peers.c. */
#ifndef SLUICE_TESTS_SIM_PEERS_PRIVATE_H
#define SLUICE_TESTS_SIM_PEERS_PRIVATE_H

#include "protocols/parse.h"
#include "tests/sim_peers.h"

#define PLAN_AUTH_SIZE 13u /* octets of a client's message with user and password */

static inline bool tunnel_is_http(const struct tunnel *t)
{
    return t->speech == SPEECH_POST || t->speech == SPEECH_SEQUENCE;
}

/* Memory for what it says and hears; index: below TUNNELS_MAX + UPSTREAMS_MAX. */
void peers_give_words(struct actor *a, uint32_t index);

/* --- sim_plan.c --- */

/* The length of a field that makes a head large; as a rule there is none. */
uint32_t plan_pad(uint32_t most);

/* --- sim_client.c --- */

/* Where the tunnel's client comes from, if it is told from others. */
struct address client_address(const struct tunnel *t);

/* Starts the client when its time has come, or lets it act. True if anything moved, or could have. */
bool client_act(struct peers *peers, struct tunnel *t, uint64_t *wake_us);

struct client_answer {
    enum parse_result parsed;
    size_t used;
    bool granted, final;
};
/* The answer at the front of `data`; stage: how many came before it. */
struct client_answer client_read_answer(const struct tunnel *t, const uint8_t *data, size_t size, unsigned stage);

/* --- sim_upstream.c --- */

bool upstream_act(struct peers *peers, struct upstream *u, uint64_t *wake_us);

#endif
