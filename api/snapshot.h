/* All counters at one moment, summed over the workers: what /stats, its JSON and /metrics are made of. */
#ifndef SLUICE_API_SNAPSHOT_H
#define SLUICE_API_SNAPSHOT_H

#include "core/control/coordinator.h"
#include "lua/engine/engine.h"

struct snapshot {
    double time;   /* since 1970 */
    double uptime; /* seconds */
    double cpu;    /* seconds of the process */
    uint64_t active, half_open, peak;
    uint64_t accepted, refused, requests, successes;
    uint64_t reject_ruleset, reject_timeout, reject_upstream;
    uint64_t failures[FAIL_COUNT];
    uint64_t gave_up; /* of those upstream: the ruleset tried, and then refused */
    uint64_t bytes_up, bytes_down, bytes_copy, bytes_splice;
    uint64_t handshake_in, handshake_out, hop_in, hop_out;
    uint64_t routes_asked, routes_remembered;
    uint64_t passwords[PASSWORD_OUTCOMES];
    uint64_t conns_opened, conns_reused, conns_stale, conns_evicted, conns_idle; /* to servers of plain HTTP */
    struct histogram_sum connect, decision;
    struct resolve_counts dns;
    uint64_t names_asked, names_found, names_failed;
    struct engine_memory memory;
    struct engine_counters engine;
    uint64_t api_connections, api_requests, api_successes, api_errors, api_in, api_out;
    bool has_ruleset;
    uint32_t revision, workers;
    const char *source_hash;               /* of the ruleset's text; "": none */
    uint64_t descriptors, descriptors_max; /* open, and allowed; 0: not known. By snapshot_count_descriptors() */
    /* Together: refused. */
    uint64_t refused_sessions, refused_startups, refused_share, refused_half_open, refused_pool, refused_resource;
};

struct snapshot_api { /* of the API itself */
    uint64_t connections, requests, successes, errors, bytes_in, bytes_out;
};

/* started: seconds of the monotonic clock when the process began to serve. */
void snapshot_take(struct snapshot *out, const struct coordinator *c, const struct engine *e,
                   const struct snapshot_api *api, double started);
/* Counts what /proc shows: not for every second. */
void snapshot_count_descriptors(struct snapshot *out);
double snapshot_monotonic(void);

#endif
