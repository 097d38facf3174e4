/* Names that the coordinator's thread asks the resolver for. */
#ifndef SLUICE_CORE_CONTROL_NAMES_H
#define SLUICE_CORE_CONTROL_NAMES_H

#include "core/resolver/resolver_thread.h"

struct coordinator;

/* Asks the resolver. `answered` is called once, from the top of the coordinator's loop and never from within this call;
 * the request is the resolver's until then. Status -ECANCELED when the process stops. 0; or -ECANCELED, it stops
 * already, or -EAGAIN, too many are open: then `answered` is not called. */
struct resolve_question {
    struct resolve_request request;
    void (*answered)(struct resolve_question *self, int status);
};
int coordinator_resolve(struct coordinator *c, struct resolve_question *question);
struct resolve_counts coordinator_resolve_counts(const struct coordinator *c);
/* By which way questions to name servers leave, and with what rights. Takes effect soon; -ENOMEM. */
int coordinator_set_way(struct coordinator *c, const struct egress_terms *terms, enum resolver_rights rights);
int coordinator_set_nameservers(struct coordinator *c, const char *nameservers); /* takes effect soon */

#endif
