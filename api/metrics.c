#include "metrics.h"

#include "core/failure.h"

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
    write_integer(out, COUNTER, "sluice_decisions_asked_total", "Requests that the ruleset was asked about.",
                  s->routes_asked);
    write_integer(out, COUNTER, "sluice_decisions_remembered_total", "Requests answered by a remembered verdict.",
                  s->routes_remembered);
    write_integer(out, GAUGE, "sluice_ruleset_revision", "Rulesets installed so far; 0: there is none.", s->revision);
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
    write_head(out, "sluice_failures_total", "counter", "Connections that failed, by reason (docs/operations.md).");
    for (unsigned i = FAIL_NONE + 1; i < FAIL_COUNT; i++)
        text_printf(out, "sluice_failures_total{reason=\"%s\"} %llu\n", failure_row((enum failure)i)->label,
                    (unsigned long long)s->failures[i]);
}

/* A family with one sample for each worker. */
#define PER_WORKER(name, type, help, expression)                                                                       \
    do {                                                                                                               \
        write_head(out, name, type, help);                                                                             \
        for (uint32_t i = 0; i < coordinator_worker_count(c); i++) {                                                   \
            const struct stats *w = coordinator_worker_stats(c, i);                                                    \
            const struct ring_stats *r = coordinator_ring_stats(c, i);                                                 \
            (void)w, (void)r;                                                                                          \
            text_printf(out, name "{worker=\"%u\"} %llu\n", i, (unsigned long long)(expression));                      \
        }                                                                                                              \
    } while (0)

static void write_rings(struct text *out, const struct coordinator *c)
{
    PER_WORKER("sluice_ring_submissions_total", "counter", "Operations handed to the kernel.",
               counter_read(&r->submissions));
    PER_WORKER("sluice_ring_completions_total", "counter", "Completions read.", counter_read(&r->completions));
    PER_WORKER("sluice_ring_enters_total", "counter", "System calls for both.", counter_read(&r->enters));
    PER_WORKER("sluice_ring_overflows_total", "counter", "Waits that found completions parked by the kernel.",
               counter_read(&r->overflows));
    PER_WORKER("sluice_buffers_starved_total", "counter", "Receives that found no buffer.", counter_read(&w->starved));
    PER_WORKER("sluice_pipes_in_use", "gauge", "Pipes lent to bulk flows.", counter_read(&w->pipes_in_use));
    PER_WORKER("sluice_pipes_missing_total", "counter", "Bulk flows that found no pipe and went on copying.",
               counter_read(&w->pipes_missing));
}

static void write_loads(struct text *out, const struct coordinator *c)
{
    PER_WORKER("sluice_worker_sessions", "gauge", "Established sessions.", counter_read(&w->established));
    PER_WORKER("sluice_worker_halfopen", "gauge", "Connections in their handshake.", counter_read(&w->half_open));
    PER_WORKER("sluice_worker_accepted_total", "counter", "Connections let in.", counter_read(&w->accepted));
    PER_WORKER("sluice_worker_refused_limit_total", "counter", "Connections refused by limits.",
               counter_read(&w->refused_limit));
    PER_WORKER("sluice_worker_refused_resource_total", "counter",
               "Connections refused for want of descriptors or memory.", counter_read(&w->refused_resource));
    PER_WORKER("sluice_to_splice_total", "counter", "Flows that turned to splice.", counter_read(&w->to_splice));
    PER_WORKER("sluice_to_copy_total", "counter", "Flows that turned back to copy.", counter_read(&w->to_copy));
    PER_WORKER("sluice_queue_full_total", "counter", "Messages that had to wait on their worker.",
               counter_read(&w->queue_full));
    PER_WORKER("sluice_datagrams_dropped_total", "counter", "UDP datagrams dropped.",
               counter_read(&w->datagrams_dropped));
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

void metrics_write(struct text *out, const struct snapshot *now, const struct coordinator *c)
{
    write_sessions(out, now);
    write_traffic(out, now);
    write_lua(out, now);
    write_histogram(out, "sluice_decision_seconds", "From a question to the ruleset to its answer.", &now->decision);
    write_failures(out, now);
    write_rings(out, c);
    write_loads(out, c);
    write_relay(out, c);
}
