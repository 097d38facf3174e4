#include "api/snapshot.h"

#include <dirent.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "core/process/process.h"

static double read_clock(clockid_t clock)
{
    struct timespec now = {0};
    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

double snapshot_monotonic(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

static void add_worker(struct snapshot *s, const struct stats *w)
{
    s->active += counter_read(&w->established);
    s->half_open += counter_read(&w->half_open);
    uint64_t peak = counter_read(&w->peak_of_all);
    if (peak > s->peak) s->peak = peak;
    s->accepted += counter_read(&w->accepted);
    s->refused += counter_read(&w->refused_limit) + counter_read(&w->refused_resource);
    s->refused_sessions += counter_read(&w->refused_sessions);
    s->refused_startups += counter_read(&w->refused_startups);
    s->refused_share += counter_read(&w->refused_share);
    s->refused_half_open += counter_read(&w->refused_half_open);
    s->refused_pool += counter_read(&w->refused_limit) - counter_read(&w->refused_sessions) -
                       counter_read(&w->refused_startups) - counter_read(&w->refused_share) -
                       counter_read(&w->refused_half_open);
    s->refused_resource += counter_read(&w->refused_resource);
    s->requests += counter_read(&w->requests);
    s->successes += counter_read(&w->successes);
    s->gave_up += counter_read(&w->gave_up); /* before the failures that it is a part of */
    for (unsigned i = 0; i < FAIL_COUNT; i++) s->failures[i] += counter_read(&w->failures[i]);
    s->bytes_up += counter_read(&w->bytes_up);
    s->bytes_down += counter_read(&w->bytes_down);
    s->bytes_copy += counter_read(&w->bytes_copy);
    s->bytes_splice += counter_read(&w->bytes_splice);
    s->handshake_in += counter_read(&w->handshake_in);
    s->handshake_out += counter_read(&w->handshake_out);
    s->hop_in += counter_read(&w->hop_in);
    s->hop_out += counter_read(&w->hop_out);
    s->routes_asked += counter_read(&w->routes_asked);
    s->routes_remembered += counter_read(&w->routes_remembered);
    for (unsigned i = 0; i < PASSWORD_OUTCOMES; i++) s->passwords[i] += counter_read(&w->passwords[i]);
    s->conns_opened += counter_read(&w->conns_opened);
    s->conns_reused += counter_read(&w->conns_reused);
    s->conns_stale += counter_read(&w->conns_stale);
    s->conns_evicted += counter_read(&w->conns_evicted);
    s->conns_idle += counter_read(&w->conns_idle);
    histogram_add_to(&s->connect, &w->connect);
    histogram_add_to(&s->decision, &w->decision);
}

/* Failures as the contract groups them: by the ruleset, by time, by what is upstream. */
static void group_rejects(struct snapshot *s)
{
    s->reject_ruleset = s->gave_up;
    for (enum failure f = FAIL_NONE; f < FAIL_COUNT; f++) {
        if (failure_is_rejection(f)) s->reject_ruleset += s->failures[f];
        if (failure_is_timeout(f)) s->reject_timeout += s->failures[f];
        if (failure_is_upstream(f)) s->reject_upstream += s->failures[f];
    }
    s->reject_upstream -= s->gave_up;
}

/* What is still open, or was given up by its asker, has no outcome. */
static void count_names(struct snapshot *s)
{
    s->names_asked = s->dns.queries + s->dns.cache_hits + s->dns.coalesced + s->dns.local;
    s->names_found = s->dns.found;
    s->names_failed = s->dns.failures;
}

void snapshot_take(struct snapshot *out, const struct coordinator *c, const struct engine *e,
                   const struct snapshot_api *api, double started)
{
    memset(out, 0, sizeof *out);
    out->time = read_clock(CLOCK_REALTIME);
    out->uptime = snapshot_monotonic() - started;
    out->cpu = read_clock(CLOCK_PROCESS_CPUTIME_ID);
    out->workers = coordinator_worker_count(c);
    for (uint32_t i = 0; i < out->workers; i++) add_worker(out, coordinator_worker_stats(c, i));
    group_rejects(out);
    out->dns = coordinator_resolve_counts(c);
    count_names(out);
    out->api_connections = api->connections;
    out->api_requests = api->requests;
    out->api_successes = api->successes;
    out->api_errors = api->errors;
    out->api_in = api->bytes_in;
    out->api_out = api->bytes_out;
    out->has_ruleset = engine_has_ruleset(e);
    out->revision = engine_revision(e);
    out->source_hash = engine_source_hash(e);
    engine_get_memory(e, &out->memory);
    engine_get_counters(e, &out->engine);
}

/* Since Linux 6.2 the folder's size is their number. */
void snapshot_count_descriptors(struct snapshot *out)
{
    struct stat info;
    out->descriptors_max = process_descriptors();
    if (stat("/proc/self/fd", &info) == 0 && info.st_size > 0) {
        out->descriptors = (uint64_t)info.st_size;
        return;
    }
    DIR *folder = opendir("/proc/self/fd");
    if (!folder) return;
    while (readdir(folder)) out->descriptors++;
    closedir(folder);
    out->descriptors -= out->descriptors < 3 ? out->descriptors : 3; /* itself, and the names . and .. */
}
