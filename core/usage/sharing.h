/* Quotas that several boxes share: which keys are compared with Redis when, and what follows from it. On the thread of
 * accounts; fleet.h has the thread that talks to the server.
 *
 * Every half second each key with a quota that is in use here, or was used since, is sent with what this box has used
 * in the period; what the others have used comes back and counts in its quota. Keys that rest are compared every ten
 * seconds. When Redis does not answer, the last sums stay in force; as a box sends what it has used in all, nothing has
 * to be kept for later.
 *
 * The first time that a key is compared, Redis may know more of this box than its own database: the last seconds before
 * it was killed. That is booked here again. */
#ifndef SLUICE_CORE_USAGE_SHARING_H
#define SLUICE_CORE_USAGE_SHARING_H

#include "core/session/keys.h"
#include "core/usage/ledger.h"
#include "protocols/usage_text.h"

#define SHARING_MS UINT64_C(500)

struct sharing;

/* 0; or -errno. */
int sharing_open(struct sharing **out, struct keys *keys, struct ledger *ledger, const struct usage_text *where,
                 const char *node);
/* Sends what is left, and waits for that so long at most; the last call but sharing_close(). */
void sharing_end(struct sharing *sharing, uint64_t now_us, uint32_t wait_ms);
void sharing_close(struct sharing *sharing);         /* NULL is fine */
int sharing_event_fd(const struct sharing *sharing); /* an eventfd: sharing_turn() has something to do */
void sharing_turn(struct sharing *sharing, uint64_t now_us);

struct sharing_figures {
    bool connected; /* the last exchange has succeeded */
    uint64_t exchanges, failures;
    uint64_t lost;         /* sums of this box that Redis had lost, and has again */
    uint64_t recovered;    /* octets that only Redis knew of */
    uint64_t exchanged_us; /* when everything was last compared; 0: never */
};
void sharing_show(const struct sharing *sharing, struct sharing_figures *figures); /* any thread */

#endif
