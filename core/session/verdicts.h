/* Verdicts that a ruleset has declared constant for a while (sluice.cache), remembered by one worker: a repeated
 * question then costs no hand-over. Each hash has one place; a newer verdict displaces an older one. */
#ifndef SLUICE_CORE_SESSION_VERDICTS_H
#define SLUICE_CORE_SESSION_VERDICTS_H

#include <stdbool.h>

#include "core/session/route_request.h"

#define VERDICTS_COUNT    1024u /* a power of two */
#define VERDICTS_HOPS_MAX 4u    /* longer chains are not remembered */

struct verdicts {
    struct verdict_entry *entries; /* NULL: nothing was ever remembered */
};

void verdicts_close(struct verdicts *verdicts);
/* Remembers the answer to this question, if the verdict says so and memory can be had. */
void verdicts_keep(struct verdicts *verdicts, const struct route_request *request, uint32_t revision, uint64_t now_ms);
/* Writes the verdict of the same question (callback, command, target, user and password) of the same revision, if one
 * is still valid. */
bool verdicts_find(const struct verdicts *verdicts, struct route_request *request, uint32_t revision, uint64_t now_ms);

#endif
