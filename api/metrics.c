#include "api/metrics.h"

#include <stdbool.h>
#include <stddef.h>

#include "core/control/access_log.h"
#include "core/session/failure.h"
#include "core/session/verify.h"

enum kind { COUNTER, GAUGE };

static void write_head(struct text *out, const char *name, const char *type, const char *help)
{
    text_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void write_number(struct text *out, enum kind kind, const char *name, const char *help, double value)
{
    write_head(out, name, kind == COUNTER ? "counter" : "gauge", help);
    text_printf(out, "%s %.17g\n", name, value);
}

static void write_integer(struct text *out, enum kind kind, const char *name, const char *help, uint64_t value)
{
    write_head(out, name, kind == COUNTER ? "counter" : "gauge", help);
    text_printf(out, "%s %llu\n", name, (unsigned long long)value);
}

static void write_summary(struct text *out, const char *name, const char *help, const struct histogram_sum *sum)
{
    static const double quantiles[] = {0.5, 0.9, 0.99};
    write_head(out, name, "summary", help);
    for (size_t i = 0; i < sizeof quantiles / sizeof *quantiles; i++)
        text_printf(out, "%s{quantile=\"%g\"} %.9g\n", name, quantiles[i],
                    (double)histogram_quantile(sum, quantiles[i]) * 1e-6);
    text_printf(out, "%s_sum %.9g\n%s_count %llu\n", name, (double)sum->sum_us * 1e-6, name,
                (unsigned long long)sum->count);
}

static void write_sample(struct text *out, const char *name, const char *label, const char *value, uint64_t number)
{
    text_printf(out, "%s{%s=\"%s\"} %llu\n", name, label, value, (unsigned long long)number);
}

static void write_bytes(struct text *out, const char *module, uint64_t in, uint64_t sent)
{
    text_printf(out, "neosocksd_protocol_bytes_total{direction=\"rx\",module=\"%s\"} %llu\n", module,
                (unsigned long long)in);
    text_printf(out, "neosocksd_protocol_bytes_total{direction=\"tx\",module=\"%s\"} %llu\n", module,
                (unsigned long long)sent);
}

/* In the order of the contract, each family in one piece. */
static void write_sessions(struct text *out, const struct snapshot *s)
{
    write_integer(out, GAUGE, "neosocksd_sessions_active", "Established sessions.", s->active);
    write_integer(out, GAUGE, "neosocksd_sessions_peak", "Most sessions at a time since the start.", s->peak);
    write_integer(out, GAUGE, "neosocksd_halfopen_connections", "Connections in their handshake.", s->half_open);
    write_number(out, GAUGE, "neosocksd_uptime_seconds", "Seconds since the start.", s->uptime);
    write_number(out, COUNTER, "neosocksd_process_cpu_seconds_total", "CPU time of the process.", s->cpu);
    write_integer(out, COUNTER, "neosocksd_connections_accepted_total", "Connections accepted, refused ones included.",
                  s->accepted + s->refused);
    write_integer(out, COUNTER, "neosocksd_connections_served_total", "Connections that limits have let in.",
                  s->accepted);
    write_integer(out, COUNTER, "neosocksd_requests_total", "Requests that were understood.", s->requests);
    write_integer(out, COUNTER, "neosocksd_requests_success_total", "Requests that led to a connection.", s->successes);
    write_integer(out, COUNTER, "neosocksd_rejects_ruleset_total", "Requests refused by the ruleset.",
                  s->reject_ruleset);
    write_integer(out, COUNTER, "neosocksd_rejects_timeout_total", "Connections that took too long to establish.",
                  s->reject_timeout);
    write_integer(out, COUNTER, "neosocksd_rejects_upstream_total", "Requests that failed on the way to the target.",
                  s->reject_upstream);
}

static void write_traffic(struct text *out, const struct snapshot *s)
{
    write_integer(out, COUNTER, "neosocksd_dns_queries_total", "Names that were asked for.", s->names_asked);
    write_integer(out, COUNTER, "neosocksd_dns_success_total", "Names that had an address.", s->names_found);
    write_integer(out, COUNTER, "neosocksd_api_requests_total", "Requests to the API.", s->api_requests);
    write_integer(out, COUNTER, "neosocksd_api_requests_success_total", "Requests to the API that succeeded.",
                  s->api_successes);
    write_integer(out, COUNTER, "neosocksd_uplink_bytes_total", "Octets delivered to targets.", s->bytes_up);
    write_integer(out, COUNTER, "neosocksd_downlink_bytes_total", "Octets delivered to clients.", s->bytes_down);
    write_head(out, "neosocksd_protocol_bytes_total", "counter", "Octets of handshakes and control traffic.");
    write_bytes(out, "api_server", s->api_in, s->api_out);
    write_bytes(out, "proxy_server", s->handshake_in, s->handshake_out);
    write_bytes(out, "proxy_client", s->hop_in, s->hop_out);
    write_bytes(out, "api_client", s->engine.call_bytes_in, s->engine.call_bytes_out);
    write_integer(out, COUNTER, "neosocksd_api_client_requests_total", "Calls to peers.", s->engine.calls);
    if (s->connect.count > 0)
        write_summary(out, "neosocksd_connect_latency_seconds", "From a request to its connection.", &s->connect);
}

static void write_lua(struct text *out, const struct snapshot *s)
{
    write_integer(out, GAUGE, "neosocksd_lua_memory_bytes", "Memory of the Lua state.", s->memory.bytes);
    write_integer(out, GAUGE, "neosocksd_lua_objects", "Blocks of the Lua state.", s->memory.objects);
    write_integer(out, GAUGE, "neosocksd_lua_threads_active", "Coroutines at work or waiting.", s->memory.threads);
    write_integer(out, GAUGE, "neosocksd_lua_threads_peak", "Most coroutines at a time.", s->memory.threads_peak);
    write_integer(out, COUNTER, "sluice_dns_mismatched_total",
                  "Answers of name servers that did not fit their question.", s->dns.mismatched);
    write_integer(out, COUNTER, "sluice_decisions_asked_total",
                  "Questions to the ruleset: about requests, who signs in, and tries that have failed.",
                  s->routes_asked);
    write_integer(out, COUNTER, "sluice_decisions_remembered_total", "Questions answered by a remembered verdict.",
                  s->routes_remembered);
    write_integer(out, GAUGE, "sluice_ruleset_revision", "Rulesets installed so far; 0: there is none.", s->revision);
}

/* --- our own names --- */

static void write_process(struct text *out, const struct snapshot *s)
{
    write_head(out, "sluice_build_info", "gauge", "Always 1; the version is a label.");
    write_sample(out, "sluice_build_info", "version", SLUICE_VERSION, 1);
    write_number(out, GAUGE, "sluice_start_time_seconds", "When the process began to serve, since 1970.",
                 s->time - s->uptime);
    write_number(out, COUNTER, "sluice_cpu_seconds_total", "CPU time of the process.", s->cpu);
    if (s->descriptors > 0)
        write_integer(out, GAUGE, "sluice_open_fds", "Open descriptors of the process.", s->descriptors);
    write_integer(out, GAUGE, "sluice_max_fds", "Descriptors that the process may have.", s->descriptors_max);
    write_integer(out, GAUGE, "sluice_workers", "Threads that carry traffic.", s->workers);
}

static void write_clients(struct text *out, const struct snapshot *s)
{
    write_head(out, "sluice_sessions", "gauge", "Sessions, by what they do.");
    write_sample(out, "sluice_sessions", "state", "established", s->active);
    write_sample(out, "sluice_sessions", "state", "handshake", s->half_open);
    write_integer(out, GAUGE, "sluice_sessions_peak", "Most of both at a time since the start.", s->peak);
    write_integer(out, COUNTER, "sluice_connections_accepted_total", "Connections let in.", s->accepted);
    write_head(out, "sluice_connections_refused_total", "counter", "Connections reset at once, by reason.");
    write_sample(out, "sluice_connections_refused_total", "reason", "max_sessions", s->refused_sessions);
    write_sample(out, "sluice_connections_refused_total", "reason", "max_startups", s->refused_startups);
    write_sample(out, "sluice_connections_refused_total", "reason", "share", s->refused_share);
    write_sample(out, "sluice_connections_refused_total", "reason", "half_open", s->refused_half_open);
    write_sample(out, "sluice_connections_refused_total", "reason", "pool", s->refused_pool);
    write_sample(out, "sluice_connections_refused_total", "reason", "resource", s->refused_resource);
    write_integer(out, COUNTER, "sluice_requests_total", "Requests that were understood.", s->requests);
    write_integer(out, COUNTER, "sluice_requests_established_total", "Requests that led to a connection.",
                  s->successes);
    write_integer(out, COUNTER, "sluice_upstreams_opened_total", "Connections made for plain HTTP requests.",
                  s->conns_opened);
    write_integer(out, COUNTER, "sluice_upstreams_reused_total",
                  "Plain HTTP requests that took a connection which had carried others.", s->conns_reused);
    write_integer(out, COUNTER, "sluice_upstreams_stale_total",
                  "Idle connections that turned out to have ended when a request took them.", s->conns_stale);
    write_integer(out, COUNTER, "sluice_upstreams_evicted_total",
                  "Idle connections closed before their time: too many, a reload, a stop.", s->conns_evicted);
    write_integer(out, GAUGE, "sluice_upstreams_idle", "Connections that wait for another plain HTTP request.",
                  s->conns_idle);
    write_head(out, "sluice_bytes_total", "counter", "Octets delivered, by direction.");
    write_sample(out, "sluice_bytes_total", "direction", "up", s->bytes_up);
    write_sample(out, "sluice_bytes_total", "direction", "down", s->bytes_down);
}

static void write_services(struct text *out, const struct snapshot *s)
{
    write_head(out, "sluice_passwords_total", "counter",
               "Users and passwords (--users), by outcome; a slow hash was made for those right, wrong and unknown.");
    for (unsigned i = 0; i < PASSWORD_OUTCOMES; i++)
        write_sample(out, "sluice_passwords_total", "outcome", password_outcome_name((enum password_outcome)i),
                     s->passwords[i]);
    write_head(out, "sluice_names_total", "counter", "Names that were asked for, by outcome.");
    write_sample(out, "sluice_names_total", "outcome", "found", s->names_found);
    write_sample(out, "sluice_names_total", "outcome", "failed", s->names_failed);
    write_head(out, "sluice_api_requests_total", "counter", "Requests to the API, by outcome.");
    write_sample(out, "sluice_api_requests_total", "outcome", "success", s->api_successes);
    write_sample(out, "sluice_api_requests_total", "outcome", "error", s->api_errors);
    write_integer(out, COUNTER, "sluice_api_connections_total", "Connections to the API.", s->api_connections);
    write_head(out, "sluice_api_bytes_total", "counter", "Octets of the API, by direction.");
    write_sample(out, "sluice_api_bytes_total", "direction", "in", s->api_in);
    write_sample(out, "sluice_api_bytes_total", "direction", "out", s->api_out);
    write_head(out, "sluice_calls_total", "counter", "Calls to peers, by outcome.");
    write_sample(out, "sluice_calls_total", "outcome", "failed", s->engine.calls_failed);
    write_sample(out, "sluice_calls_total", "outcome", "answered", s->engine.calls - s->engine.calls_failed);
    write_integer(out, GAUGE, "sluice_lua_memory_bytes", "What the ruleset's Lua state holds.", s->memory.bytes);
    write_integer(out, GAUGE, "sluice_lua_coroutines", "Coroutines at work or waiting.", s->memory.threads);
    if (!s->has_ruleset) return;
    write_head(out, "sluice_ruleset_info", "gauge", "Always 1; SHA-256 of the ruleset's text is a label.");
    write_sample(out, "sluice_ruleset_info", "sha256", s->source_hash, 1);
}

/* Powers of two from 1 microsecond to a minute. */
static void write_histogram(struct text *out, const char *name, const char *help, const struct histogram_sum *sum)
{
    uint64_t below = 0;
    unsigned bucket = 0;
    write_head(out, name, "histogram", help);
    for (uint64_t bound = 2; bound <= UINT64_C(1) << 26; bound *= 2) {
        while (bucket < HISTOGRAM_BUCKETS && histogram_floor_us(bucket) < bound) below += sum->buckets[bucket++];
        text_printf(out, "%s_bucket{le=\"%.9g\"} %llu\n", name, (double)bound * 1e-6, (unsigned long long)below);
    }
    text_printf(out, "%s_bucket{le=\"+Inf\"} %llu\n%s_sum %.9g\n%s_count %llu\n", name, (unsigned long long)sum->count,
                name, (double)sum->sum_us * 1e-6, name, (unsigned long long)sum->count);
}

static void write_failures(struct text *out, const struct snapshot *s)
{
    write_head(out, "sluice_failures_total", "counter",
               "Sessions that failed, or were cut off, by reason (docs/operations.md).");
    for (unsigned i = FAIL_NONE + 1; i < FAIL_COUNT; i++)
        text_printf(out, "sluice_failures_total{reason=\"%s\"} %llu\n", failure_row((enum failure)i)->label,
                    (unsigned long long)s->failures[i]);
}

/* A family with one sample for each worker: a counter of struct stats, or of its ring. */
struct family {
    const char *name, *type, *help;
    bool of_ring;
    size_t at;
};
#define OF_RING(name, type, field, help)                                                                               \
    {                                                                                                                  \
        name, type, help, true, offsetof(struct ring_stats, field)                                                     \
    }
#define OF_WORKER(name, type, field, help)                                                                             \
    {                                                                                                                  \
        name, type, help, false, offsetof(struct stats, field)                                                         \
    }

static const struct family families[] = {
    OF_RING("sluice_ring_submissions_total", "counter", submissions, "Operations handed to the kernel."),
    OF_RING("sluice_ring_completions_total", "counter", completions, "Completions read."),
    OF_RING("sluice_ring_enters_total", "counter", enters, "System calls for both."),
    OF_RING("sluice_ring_overflows_total", "counter", overflows, "Waits that found completions parked by the kernel."),
    OF_WORKER("sluice_buffers_starved_total", "counter", starved, "Receives that found no buffer."),
    OF_WORKER("sluice_pipes_in_use", "gauge", pipes_in_use, "Pipes lent to bulk flows."),
    OF_WORKER("sluice_pipes_missing_total", "counter", pipes_missing,
              "Bulk flows that found no pipe and went on copying."),
    OF_WORKER("sluice_egress_faults_total", "counter", egress_faults,
              "Times that a source address, a mark or an interface was not to be had."),
    OF_WORKER("sluice_egress_rests_total", "counter", egress_rests,
              "Source addresses that were left alone for a while."),
    OF_WORKER("sluice_worker_sessions", "gauge", established, "Established sessions."),
    OF_WORKER("sluice_worker_halfopen", "gauge", half_open, "Connections in their handshake."),
    OF_WORKER("sluice_worker_accepted_total", "counter", accepted, "Connections let in."),
    OF_WORKER("sluice_worker_refused_limit_total", "counter", refused_limit, "Connections refused by limits."),
    OF_WORKER("sluice_worker_refused_resource_total", "counter", refused_resource,
              "Connections refused for want of descriptors or memory."),
    OF_WORKER("sluice_to_splice_total", "counter", to_splice, "Flows that turned to splice."),
    OF_WORKER("sluice_to_copy_total", "counter", to_copy, "Flows that turned back to copy."),
    OF_WORKER("sluice_queue_full_total", "counter", queue_full,
              "Attempts to send a message to another thread that found its queue full."),
    OF_WORKER("sluice_datagrams_up_total", "counter", datagrams_up, "UDP datagrams delivered to targets."),
    OF_WORKER("sluice_datagrams_down_total", "counter", datagrams_down, "UDP datagrams delivered to clients."),
    OF_WORKER("sluice_datagrams_dropped_total", "counter", datagrams_dropped, "UDP datagrams dropped."),
};

static void write_family(struct text *out, const struct family *f, const struct coordinator *c)
{
    write_head(out, f->name, f->type, f->help);
    for (uint32_t i = 0; i < coordinator_worker_count(c); i++) {
        const void *base = f->of_ring ? (const void *)coordinator_ring_stats(c, i) : coordinator_worker_stats(c, i);
        const counter *value = (const counter *)(const void *)((const char *)base + f->at);
        text_printf(out, "%s{worker=\"%u\"} %llu\n", f->name, i, (unsigned long long)counter_read(value));
    }
}

static void write_relay(struct text *out, const struct coordinator *c)
{
    write_head(out, "sluice_relay_bytes_total", "counter", "Octets delivered, by path.");
    for (uint32_t i = 0; i < coordinator_worker_count(c); i++) {
        const struct stats *w = coordinator_worker_stats(c, i);
        text_printf(out, "sluice_relay_bytes_total{worker=\"%u\",path=\"copy\"} %llu\n", i,
                    (unsigned long long)counter_read(&w->bytes_copy));
        text_printf(out, "sluice_relay_bytes_total{worker=\"%u\",path=\"splice\"} %llu\n", i,
                    (unsigned long long)counter_read(&w->bytes_splice));
    }
    write_head(out, "sluice_queue_depth", "gauge", "Messages that wait, by direction.");
    for (uint32_t i = 0; i < coordinator_worker_count(c); i++) {
        uint32_t to_us, to_worker;
        coordinator_queue_depths(c, i, &to_us, &to_worker);
        text_printf(out, "sluice_queue_depth{worker=\"%u\",to=\"coordinator\"} %u\n", i, to_us);
        text_printf(out, "sluice_queue_depth{worker=\"%u\",to=\"worker\"} %u\n", i, to_worker);
    }
}

static void write_sharing(struct text *out, const struct usage_figures *f)
{
    write_integer(out, GAUGE, "sluice_usage_redis_up", "Whether Redis has answered the last time.", f->connected);
    write_integer(out, COUNTER, "sluice_usage_redis_exchanges_total", "Exchanges of sums with Redis.", f->exchanges);
    write_integer(out, COUNTER, "sluice_usage_redis_failures_total", "Those that failed: they are tried again.",
                  f->exchange_failures);
    write_number(out, GAUGE, "sluice_usage_redis_age_seconds", "Since Redis has answered.",
                 (double)f->exchange_age_us * 1e-6);
    write_integer(out, COUNTER, "sluice_usage_redis_lost_total",
                  "Sums of this box that Redis had lost and was told again.", f->lost);
    write_integer(out, COUNTER, "sluice_usage_redis_recovered_bytes_total",
                  "Octets that Redis alone knew of, since this box was killed before it could write them.",
                  f->recovered);
}

/* Present where accounts are kept. */
static void write_usage(struct text *out, const struct coordinator *c)
{
    struct usage_figures f;
    if (!coordinator_usage(c)) return;
    usage_show(coordinator_usage(c), coordinator_now_ms(c) * 1000, &f);
    write_integer(out, COUNTER, "sluice_usage_writes_total", "Transactions by which usage was written.", f.written);
    write_integer(out, COUNTER, "sluice_usage_write_failures_total", "Those that failed: they are tried again.",
                  f.failures);
    write_integer(out, GAUGE, "sluice_usage_rows_waiting", "Rows of usage, by key and hour, that are not written yet.",
                  f.waiting);
    write_integer(out, GAUGE, "sluice_usage_keys", "Keys whose usage is in memory, the kinds included.", f.keys);
    write_integer(out, COUNTER, "sluice_usage_merged_total",
                  "Uses that were booked on their kind of key, because there is no room for more keys.", f.merged);
    write_integer(out, COUNTER, "sluice_usage_evicted_total",
                  "Keys that were written and have made room in memory for others.", f.evicted);
    write_integer(out, GAUGE, "sluice_usage_wal_bytes", "Size of the database's write-ahead log.", f.wal_size);
    write_number(out, GAUGE, "sluice_usage_age_seconds", "Since usage was last written in full.",
                 (double)f.age_us * 1e-6);
    if (f.shared) write_sharing(out, &f);
}

void metrics_write_dropped(struct text *out, uint64_t lines)
{
    write_integer(out, COUNTER, "sluice_ruleset_metrics_dropped_total",
                  "Lines of ruleset.metrics() that were left out: malformed, or of a family that is there already.",
                  lines);
}

static void write_access_log(struct text *out, const struct access_log *log)
{
    if (!log) return;
    struct access_log_stats stats = access_log_stats(log);
    write_integer(out, COUNTER, "sluice_access_log_lines_total", "Lines of the access log that were written.",
                  stats.lines);
    write_integer(out, COUNTER, "sluice_access_log_lost_total",
                  "Lines of the access log that were lost because it was too slow or could not be written.",
                  stats.lost);
    write_integer(out, COUNTER, "sluice_access_log_suppressed_total",
                  "Connections refused at accept that have no line: there were too many in a second.",
                  stats.suppressed);
    write_integer(out, GAUGE, "sluice_access_log_broken", "1 while the access log cannot be written.", stats.broken);
}

void metrics_write(struct text *out, const struct snapshot *now, const struct coordinator *c)
{
    write_sessions(out, now);
    write_traffic(out, now);
    write_lua(out, now);
    write_process(out, now);
    write_clients(out, now);
    write_services(out, now);
    write_histogram(out, "sluice_connect_seconds", "From a request to its connection.", &now->connect);
    write_histogram(out, "sluice_decision_seconds", "From a question to the ruleset to its answer.", &now->decision);
    write_failures(out, now);
    write_integer(out, COUNTER, "sluice_drain_resets_total",
                  "Sessions that were left when the drain of a stop was over.", coordinator_drain_resets(c));
    write_access_log(out, coordinator_access_log(c));
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) write_family(out, &families[i], c);
    write_relay(out, c);
    write_usage(out, c);
}
