#include "core/session/linger.h"

#include <errno.h>

#include "core/io/net.h"
#include "core/session/end.h"

/* What comes now is of no interest. */
static void linger_discard(struct worker *w, struct session *s)
{
    const struct head_buffer *head = &setup_of(w, s)->head;
    ring_recv(w->ring, s->fd[CLIENT], head->data, head->size, session_arm(w, s, SESSION_RECV + CLIENT));
}

/* Closing now could turn into a reset that overtakes what the client has not read yet, if it has sent something that we
 * did not read: so our side is shut down first, and what comes is discarded for a while. */
static void linger_begin(struct worker *w, struct session *s)
{
    net_shutdown_write(s->fd[CLIENT]);
    if (s->inflight & SESSION_BIT(SESSION_RECV + CLIENT)) return;
    linger_discard(w, s);
}

/* The refusal is sent. */
enum session_state linger_reply_step(struct worker *w, struct session *s)
{
    if (s->op != SESSION_SEND + CLIENT) return SESSION_REPLY;
    linger_begin(w, s);
    return SESSION_LINGER;
}

enum session_state linger_step(struct worker *w, struct session *s)
{
    if (s->op != SESSION_RECV + CLIENT) return SESSION_LINGER;
    if (s->result <= 0 && s->result != -ENOBUFS) {
        session_close(w, s, SESSION_ORDERLY);
        return SESSION_CLOSING;
    }
    /* A body's flow may have armed a receive that goes on for several buffers. */
    if (!(s->inflight & SESSION_BIT(SESSION_RECV + CLIENT))) linger_discard(w, s);
    return SESSION_LINGER;
}

/* A refusal is short, but its way may be long or lossy. */
void linger_on_timer(struct worker *w, struct session *s)
{
    uint64_t now = ring_now_ms(w->ring);
    if (now < session_deadline_ms(w, s) && net_unacknowledged(s->fd[CLIENT]) > 1)
        timer_set(w->timers, s->slot, now + SESSION_LINGER_MS);
    else
        session_close(w, s, SESSION_ORDERLY);
}
