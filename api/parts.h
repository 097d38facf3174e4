/* What the API consists of, as handlers see it. */
#ifndef SLUICE_API_PARTS_H
#define SLUICE_API_PARTS_H

#include <stdint.h>

#include "api/access.h"
#include "api/snapshot.h"
#include "api/stats.h"

struct coordinator;
struct engine;
struct history;
struct listings;
struct supervisor;

struct api_parts {
    struct coordinator *coordinator;
    struct supervisor *supervisor;
    struct engine *engine;              /* the coordinator's alone */
    const struct access_tokens *tokens; /* the supervisor's alone */
    struct snapshot_api counters;       /* the coordinator's; up to date when a handler is called */
    struct stats_previous previous;
    struct history *history;         /* by recorder_open() */
    struct listings *listings;       /* the coordinator's */
    uint64_t lines_dropped;          /* lines that rulesets added to /metrics and that were left out */
    uint32_t lines_dropped_revision; /* of the ruleset that the log has spoken of */
    double started;                  /* seconds of the monotonic clock */
};

#endif
