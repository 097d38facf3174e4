#include "api/stats.h"

#include <jansson.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "api/history.h"
#include "api/stats_text.h"
#include "core/session/verify.h"

#define CONTRACT "1.5.1" /* the neosocksd that we stand in for */
#define ABOUT    "a proxy for SOCKS and HTTP, on io_uring"

/* A label in 20 columns, a colon, the value. */
static void write_line(struct text *out, const char *label, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static void write_line(struct text *out, const char *label, const char *format, ...)
{
    va_list arguments;
    char value[512];
    va_start(arguments, format);
    vsnprintf(value, sizeof value, format, arguments);
    va_end(arguments);
    text_printf(out, "%-20s: %s\n", label, value);
}

static void write_transfer(struct text *out, const char *label, const char *first, const char *second, uint64_t a,
                           uint64_t b)
{
    char left[STATS_TEXT_SIZE], right[STATS_TEXT_SIZE];
    write_line(out, label, "%s %s, %s %s", first, stats_text_bytes(left, (double)a), second,
               stats_text_bytes(right, (double)b));
}

static void write_percentiles(struct text *out, const char *label, bool any, double p50, double p90, double p99,
                              double max)
{
    char a[STATS_TEXT_SIZE], b[STATS_TEXT_SIZE], c[STATS_TEXT_SIZE], d[STATS_TEXT_SIZE];
    if (!any) {
        write_line(out, label, "(never)");
        return;
    }
    write_line(out, label, "P50=%s P90=%s P99=%s MAX=%s", stats_text_duration(a, p50), stats_text_duration(b, p90),
               stats_text_duration(c, p99), stats_text_duration(d, max));
}

static void write_histogram(struct text *out, const char *label, const struct histogram_sum *sum)
{
    write_percentiles(out, label, sum->count > 0, (double)histogram_quantile(sum, 0.5) * 1e-6,
                      (double)histogram_quantile(sum, 0.9) * 1e-6, (double)histogram_quantile(sum, 0.99) * 1e-6,
                      (double)sum->max_us * 1e-6);
}

void stats_write_banner(struct text *out)
{
    text_printf(out, "neosocksd " CONTRACT " (sluice " SLUICE_VERSION ")\n  " ABOUT "\n\n");
}

/* RFC 3339 in local time. */
static void write_time(struct text *out, double seconds)
{
    char stamp[48], zone[8];
    struct tm parts;
    time_t whole = (time_t)seconds;
    localtime_r(&whole, &parts);
    strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &parts);
    strftime(zone, sizeof zone, "%z", &parts);
    write_line(out, "Server Time", "%s%.3s:%s", stamp, zone, zone + 3);
}

void stats_write_memory(struct text *out, const struct engine_memory *m)
{
    char bytes[STATS_TEXT_SIZE], limit[STATS_TEXT_SIZE], objects[STATS_TEXT_SIZE];
    stats_text_bytes(bytes, (double)m->bytes);
    stats_text_count(objects, (double)m->objects);
    if (m->limit > 0)
        write_line(out, "Ruleset Allocated", "%s < %s (%s objects)", bytes, stats_text_bytes(limit, (double)m->limit),
                   objects);
    else
        write_line(out, "Ruleset Allocated", "%s (%s objects)", bytes, objects);
    write_line(out, "Ruleset Threads", "%llu (peak %llu)", (unsigned long long)m->threads,
               (unsigned long long)m->threads_peak);
    write_percentiles(out, "Ruleset Events", m->events > 0, (double)m->event_p50 * 1e-9, (double)m->event_p90 * 1e-9,
                      (double)m->event_p99 * 1e-9, (double)m->event_max * 1e-9);
}

static void write_counts(struct text *out, const char *label, uint64_t good, uint64_t other)
{
    write_line(out, label, "%llu (%+lld)", (unsigned long long)good, (long long)other);
}

void stats_write(struct text *out, const struct snapshot *s, const struct stats_query *query)
{
    char uptime[STATS_TEXT_SIZE], a[STATS_TEXT_SIZE], b[STATS_TEXT_SIZE];
    write_time(out, s->time);
    write_line(out, "Uptime", "%s", stats_text_duration(uptime, s->uptime));
    write_line(out, "Num Sessions", "%llu (+%llu) peak=%llu", (unsigned long long)s->active,
               (unsigned long long)s->half_open, (unsigned long long)s->peak);
    write_line(out, "Num Rejected", "ruleset=%llu, timeout=%llu, upstream=%llu", (unsigned long long)s->reject_ruleset,
               (unsigned long long)s->reject_timeout, (unsigned long long)s->reject_upstream);
    write_counts(out, "Conn Accepts", s->accepted, s->refused);
    write_counts(out, "Name Resolves", s->names_found, s->names_failed);
    write_line(out, "Requests", "%llu (%+lld), Rx %s, Tx %s", (unsigned long long)s->successes,
               (long long)(s->requests > s->successes ? s->requests - s->successes : 0),
               stats_text_bytes(a, (double)s->handshake_in), stats_text_bytes(b, (double)s->handshake_out));
    write_line(out, "API Requests", "%llu (%+lld), Rx %s, Tx %s", (unsigned long long)s->api_successes,
               (long long)(s->api_requests - s->api_successes), stats_text_bytes(a, (double)s->api_in),
               stats_text_bytes(b, (double)s->api_out));
    write_transfer(out, "Handshake Dial", "Rx", "Tx", s->hop_in, s->hop_out);
    write_transfer(out, "Traffic", "Up", "Down", s->bytes_up, s->bytes_down);
    write_line(out, "API Client", "%llu reqs, Rx %s, Tx %s", (unsigned long long)s->engine.calls,
               stats_text_bytes(a, (double)s->engine.call_bytes_in),
               stats_text_bytes(b, (double)s->engine.call_bytes_out));
    if (query->runtime && s->has_ruleset) stats_write_memory(out, &s->memory);
    write_histogram(out, "Connect Latency", &s->connect);
}

static double rate(uint64_t now, uint64_t before, double dt)
{
    return dt > 0 && now >= before ? (double)(now - before) / dt : 0;
}

void stats_write_rates(struct text *out, const struct snapshot *now, const struct stats_previous *previous, double dt)
{
    static const struct snapshot none;
    const struct snapshot *old = previous->any ? &previous->snapshot : &none;
    char a[STATS_TEXT_SIZE], b[STATS_TEXT_SIZE], last[STATS_TEXT_SIZE];
    write_line(out, "Accept Rate", "%.1f/s (%+.1f/s)", rate(now->accepted, old->accepted, dt),
               rate(now->refused, old->refused, dt));
    write_line(out, "Request Rate", "%.1f/s (API%+.1f/s)", rate(now->requests, old->requests, dt),
               rate(now->api_requests, old->api_requests, dt));
    write_line(out, "Reject Rate", "ruleset=%.1f/s, timeout=%.1f/s, upstream=%.1f/s",
               rate(now->reject_ruleset, old->reject_ruleset, dt), rate(now->reject_timeout, old->reject_timeout, dt),
               rate(now->reject_upstream, old->reject_upstream, dt));
    write_line(out, "Throughput", "Up %s/s, Down %s/s", stats_text_bytes(a, rate(now->bytes_up, old->bytes_up, dt)),
               stats_text_bytes(b, rate(now->bytes_down, old->bytes_down, dt)));
    if (previous->any && dt > 0)
        write_line(out, "Server Load", "%.3f%% (last %s)", (now->cpu - old->cpu) / dt * 100,
                   stats_text_duration(last, dt));
    else
        write_line(out, "Server Load", "(unknown)");
}

/* --- JSON --- */

static json_t *number(uint64_t value)
{
    return json_integer((json_int_t)value);
}

static json_t *json_latency(const struct histogram_sum *sum)
{
    return json_pack("{s:f, s:f, s:f, s:f, s:o}", "p50", (double)histogram_quantile(sum, 0.5) * 1e-6, "p90",
                     (double)histogram_quantile(sum, 0.9) * 1e-6, "p99", (double)histogram_quantile(sum, 0.99) * 1e-6,
                     "max", (double)sum->max_us * 1e-6, "count", number(sum->count));
}

static void add_number(json_t *object, const char *name, uint64_t value)
{
    json_object_set_new(object, name, number(value));
}

static json_t *json_failures(const struct snapshot *s)
{
    json_t *failures = json_object();
    for (unsigned i = FAIL_NONE + 1; i < FAIL_COUNT; i++)
        add_number(failures, failure_row((enum failure)i)->label, s->failures[i]);
    return failures;
}

/* A counter of a struct by its name in JSON. */
struct json_counter {
    const char *name;
    size_t at;
};

static void add_counters(json_t *object, const void *base, const struct json_counter *counters, size_t count)
{
    for (size_t i = 0; i < count; i++)
        add_number(object, counters[i].name,
                   counter_read((const counter *)(const void *)((const char *)base + counters[i].at)));
}

#define WORKER(name, field)                                                                                            \
    {                                                                                                                  \
        name, offsetof(struct stats, field)                                                                            \
    }
static const struct json_counter worker_counters[] = {
    WORKER("active", established),
    WORKER("half_open", half_open),
    WORKER("peak", peak),
    WORKER("accepted", accepted),
    WORKER("refused_limit", refused_limit),
    WORKER("refused_sessions", refused_sessions),
    WORKER("refused_startups", refused_startups),
    WORKER("refused_resource", refused_resource),
    WORKER("refused_share", refused_share),
    WORKER("refused_half_open", refused_half_open),
    WORKER("requests", requests),
    WORKER("successes", successes),
    WORKER("bytes_up", bytes_up),
    WORKER("bytes_down", bytes_down),
    WORKER("bytes_copy", bytes_copy),
    WORKER("bytes_splice", bytes_splice),
    WORKER("to_splice", to_splice),
    WORKER("to_copy", to_copy),
    WORKER("starved", starved),
    WORKER("pipes_in_use", pipes_in_use),
    WORKER("pipes_missing", pipes_missing),
    WORKER("queue_full", queue_full),
    WORKER("routes_asked", routes_asked),
    WORKER("routes_remembered", routes_remembered),
    WORKER("conns_opened", conns_opened),
    WORKER("conns_reused", conns_reused),
    WORKER("conns_stale", conns_stale),
    WORKER("conns_evicted", conns_evicted),
    WORKER("conns_idle", conns_idle),
    WORKER("egress_faults", egress_faults),
    WORKER("egress_rests", egress_rests),
    WORKER("datagrams_up", datagrams_up),
    WORKER("datagrams_down", datagrams_down),
    WORKER("datagrams_dropped", datagrams_dropped),
};

#define RING(name)                                                                                                     \
    {                                                                                                                  \
#name, offsetof(struct ring_stats, name)                                                                       \
    }
static const struct json_counter ring_counters[] = {RING(submissions), RING(completions), RING(enters),
                                                    RING(overflows)};

static json_t *json_worker(const struct coordinator *c, uint32_t index)
{
    json_t *worker = json_object(), *ring = json_object();
    uint32_t in, out;
    coordinator_queue_depths(c, index, &out, &in);
    add_number(worker, "index", index);
    add_number(worker, "queue_in", in);
    add_number(worker, "queue_out", out);
    add_counters(worker, coordinator_worker_stats(c, index), worker_counters,
                 sizeof worker_counters / sizeof *worker_counters);
    add_counters(ring, coordinator_ring_stats(c, index), ring_counters, sizeof ring_counters / sizeof *ring_counters);
    json_object_set_new(worker, "ring", ring);
    return worker;
}

static json_t *json_ruleset(const struct snapshot *s)
{
    const struct engine_memory *m = &s->memory;
    return json_pack("{s:i, s:s, s:b, s:o, s:o, s:o, s:o, s:{s:f, s:f, s:f, s:f, s:i}}", "revision", (int)s->revision,
                     "sha256", s->source_hash, "loaded", (int)s->has_ruleset, "memory_bytes", number(m->bytes),
                     "objects", number(m->objects), "threads", number(m->threads), "threads_peak",
                     number(m->threads_peak), "event_latency", "p50", (double)m->event_p50 * 1e-9, "p90",
                     (double)m->event_p90 * 1e-9, "p99", (double)m->event_p99 * 1e-9, "max",
                     (double)m->event_max * 1e-9, "count", (int)m->events);
}

static json_t *json_passwords(const struct snapshot *s)
{
    json_t *passwords = json_object();
    for (unsigned i = 0; i < PASSWORD_OUTCOMES; i++)
        add_number(passwords, password_outcome_name((enum password_outcome)i), s->passwords[i]);
    return passwords;
}

static void add_sessions(json_t *all, const struct snapshot *s)
{
    json_object_set_new(all, "sessions",
                        json_pack("{s:o, s:o, s:o}", "active", number(s->active), "half_open", number(s->half_open),
                                  "peak", number(s->peak)));
    add_number(all, "accepted", s->accepted);
    add_number(all, "refused", s->refused);
    add_number(all, "requests", s->requests);
    add_number(all, "successes", s->successes);
    json_object_set_new(all, "failures", json_failures(s));
    json_object_set_new(all, "rejects",
                        json_pack("{s:o, s:o, s:o}", "ruleset", number(s->reject_ruleset), "timeout",
                                  number(s->reject_timeout), "upstream", number(s->reject_upstream)));
    json_object_set_new(all, "connect_latency", json_latency(&s->connect));
    json_object_set_new(all, "decision_latency", json_latency(&s->decision));
    json_object_set_new(all, "passwords", json_passwords(s));
    json_object_set_new(
        all, "decisions",
        json_pack("{s:o, s:o}", "asked", number(s->routes_asked), "remembered", number(s->routes_remembered)));
    json_object_set_new(all, "upstreams",
                        json_pack("{s:o, s:o, s:o, s:o, s:o}", "opened", number(s->conns_opened), "reused",
                                  number(s->conns_reused), "stale", number(s->conns_stale), "evicted",
                                  number(s->conns_evicted), "idle", number(s->conns_idle)));
}

static json_t *json_transfer(uint64_t in, uint64_t out)
{
    return json_pack("{s:o, s:o}", "in", number(in), "out", number(out));
}

static void add_octets(json_t *all, const struct snapshot *s)
{
    json_object_set_new(all, "bytes",
                        json_pack("{s:o, s:o, s:o, s:o}", "up", number(s->bytes_up), "down", number(s->bytes_down),
                                  "copy", number(s->bytes_copy), "splice", number(s->bytes_splice)));
    json_object_set_new(all, "handshake", json_transfer(s->handshake_in, s->handshake_out));
    json_object_set_new(all, "hops", json_transfer(s->hop_in, s->hop_out));
}

static void add_services(json_t *all, const struct snapshot *s)
{
    const struct engine_counters *e = &s->engine;
    json_object_set_new(all, "dns",
                        json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "queries", number(s->dns.queries),
                                  "cache_hits", number(s->dns.cache_hits), "coalesced", number(s->dns.coalesced),
                                  "local", number(s->dns.local), "failures", number(s->dns.failures), "timeouts",
                                  number(s->dns.timeouts), "refused", number(s->dns.refused), "mismatched",
                                  number(s->dns.mismatched), "cached", number(s->dns.cached)));
    json_object_set_new(all, "ruleset", json_ruleset(s));
    json_object_set_new(all, "api",
                        json_pack("{s:o, s:o, s:o, s:o, s:o}", "connections", number(s->api_connections), "requests",
                                  number(s->api_requests), "errors", number(s->api_errors), "bytes_in",
                                  number(s->api_in), "bytes_out", number(s->api_out)));
    json_object_set_new(all, "calls",
                        json_pack("{s:o, s:o, s:o, s:o}", "made", number(e->calls), "failed", number(e->calls_failed),
                                  "bytes_in", number(e->call_bytes_in), "bytes_out", number(e->call_bytes_out)));
}

static json_t *json_last_minute(const struct snapshot *s, const struct history *history)
{
    struct histogram_sum connect, decision;
    history_last_minute(history, s, &connect, &decision);
    return json_pack("{s:o, s:o}", "connect_latency", json_latency(&connect), "decision_latency",
                     json_latency(&decision));
}

static json_t *json_build(const struct snapshot *s, const struct coordinator *c, const struct history *history)
{
    json_t *all = json_pack("{s:s, s:f, s:f, s:f}", "version", SLUICE_VERSION, "uptime", s->uptime, "time", s->time,
                            "cpu", s->cpu);
    json_t *workers = json_array();
    for (uint32_t i = 0; i < s->workers; i++) json_array_append_new(workers, json_worker(c, i));
    add_sessions(all, s);
    add_octets(all, s);
    json_object_set_new(all, "last_minute", json_last_minute(s, history));
    json_object_set_new(all, "descriptors",
                        json_pack("{s:o, s:o}", "open", number(s->descriptors), "limit", number(s->descriptors_max)));
    json_object_set_new(all, "refusals",
                        json_pack("{s:o, s:o, s:o, s:o, s:o, s:o}", "max_sessions", number(s->refused_sessions),
                                  "max_startups", number(s->refused_startups), "share", number(s->refused_share),
                                  "half_open", number(s->refused_half_open), "pool", number(s->refused_pool),
                                  "resource", number(s->refused_resource)));
    json_object_set_new(all, "workers", workers);
    add_services(all, s);
    return all;
}

void stats_write_json(struct text *out, const struct snapshot *now, const struct coordinator *c,
                      const struct history *history)
{
    json_t *all = json_build(now, c, history);
    text_add_json(out, all, 12);
}
