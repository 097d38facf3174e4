/* The thread that resolves names, on a ring of its own: whatever a script computes on the coordinator, names are
 * resolved. Workers and the coordinator are its askers; each has a pair of queues with it.
 *
 *   asker --RESOLVE (question)--> resolver --RESOLVE (answer)--> the same asker
 *
 * A question is lent (struct resolve_request). Answers leave from the top of this thread's loop and are read
 * at the top of the asker's: none is ever delivered within the call that asks.
 *
 * The end has an order, because each thread may be about to wake another by way of its ring:
 * resolver_thread_stop()    every question is answered with -ECANCELED, at once, so that sessions can end;
 * resolver_thread_end()     when the workers have stopped: it answers nobody any more, now their rings may go;
 * resolver_thread_close()   when they have gone: nobody asks any more, now its own ring may go. */
#ifndef SLUICE_CORE_RESOLVER_RESOLVER_THREAD_H
#define SLUICE_CORE_RESOLVER_RESOLVER_THREAD_H

#include "core/io/mailbox.h"
#include "core/resolver/resolve.h"

#define RESOLVER_ASKERS_MAX 257u /* every worker, and the coordinator */

struct resolver_thread; /* opaque */

/* Opens ring and resolver on the thread, and waits until that is done. options->op is set by this. 0, or -errno after
 * one log line: -EINVAL is a bad list of name servers. Signals are to be blocked before: the thread handles none. */
int resolver_thread_open(struct resolver_thread **out, const struct resolve_options *options);

/* One more asker, which never has more than `questions_max` questions open. `wake` says how to wake it; its queue is
 * not looked at. On success *ask is where its questions go, *answers where they come back. By the thread that has
 * opened this. 0 or -ENOMEM. */
int resolver_thread_add_asker(struct resolver_thread *thread, const struct mailbox *wake, uint32_t questions_max,
                              struct mailbox *ask, struct queue **answers);

/* NULL: back to resolv.conf. Takes effect soon; -EINVAL at once for a bad list, -ENOMEM. */
int resolver_thread_set_nameservers(struct resolver_thread *thread, struct ring *own, const char *nameservers);

/* The thread is there before the process becomes another user (-u), and has the rights that it had then, if not in
 * force, until it is told what to do with them. Before that it may not give up any: the C library wants every thread to
 * become that user. */
enum resolver_rights { RESOLVER_AS_BEFORE, RESOLVER_MARKS /* privilege_raise() */, RESOLVER_NOTHING };
/* By which way questions leave, see dns_way.h. Takes effect before whatever is asked later. 0 or -ENOMEM. */
int resolver_thread_set_way(struct resolver_thread *thread, struct ring *own, const struct egress_terms *terms,
                            enum resolver_rights rights);

/* Reads resolv.conf again, whether it has changed or not, and forgets all answers. */
void resolver_thread_reload(struct resolver_thread *thread, struct ring *own);

/* Counters of the resolver, readable from any thread until resolver_thread_close(). */
const struct resolve_stats *resolver_thread_stats(const struct resolver_thread *thread);

/* `own` is the ring of the caller, the thread that has opened this. */
void resolver_thread_stop(struct resolver_thread *thread, struct ring *own);
void resolver_thread_end(struct resolver_thread *thread, struct ring *own); /* stops first; waits; may be repeated */
void resolver_thread_close(struct resolver_thread *thread);                 /* ended before; frees the queues, too */

#endif
