/* Which counter stands behind which name: each counter of a worker and of its ring has a value of its own here, and
 * /metrics and the JSON of /stats show it where it belongs. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/history.h"
#include "api/metrics.h"
#include "api/stats.h"
#include "core/control/coordinator_private.h"
#include "tests/support.h"

#define WORKERS 2u

static struct coordinator coordinator;
static struct worker_thread threads[WORKERS];
static struct snapshot snapshot;

/* Where a counter is, what /metrics calls it, and what the JSON does; NULL: not there. */
struct named {
    size_t at;
    const char *metric, *json;
};
#define NAMED(field, metric, json)                                                                                     \
    {                                                                                                                  \
        offsetof(struct stats, field), metric, json                                                                    \
    }
static const struct named of_worker[] = {
    NAMED(starved, "sluice_buffers_starved_total", "starved"),
    NAMED(pipes_in_use, "sluice_pipes_in_use", "pipes_in_use"),
    NAMED(pipes_missing, "sluice_pipes_missing_total", "pipes_missing"),
    NAMED(established, "sluice_worker_sessions", "active"),
    NAMED(half_open, "sluice_worker_halfopen", "half_open"),
    NAMED(accepted, "sluice_worker_accepted_total", "accepted"),
    NAMED(refused_limit, "sluice_worker_refused_limit_total", "refused_limit"),
    NAMED(refused_resource, "sluice_worker_refused_resource_total", "refused_resource"),
    NAMED(refused_sessions, NULL, "refused_sessions"),
    NAMED(refused_startups, NULL, "refused_startups"),
    NAMED(refused_share, NULL, "refused_share"),
    NAMED(refused_half_open, NULL, "refused_half_open"),
    NAMED(to_splice, "sluice_to_splice_total", "to_splice"),
    NAMED(to_copy, "sluice_to_copy_total", "to_copy"),
    NAMED(queue_full, "sluice_queue_full_total", "queue_full"),
    NAMED(datagrams_up, "sluice_datagrams_up_total", "datagrams_up"),
    NAMED(datagrams_down, "sluice_datagrams_down_total", "datagrams_down"),
    NAMED(datagrams_dropped, "sluice_datagrams_dropped_total", "datagrams_dropped"),
    NAMED(peak, NULL, "peak"),
    NAMED(requests, NULL, "requests"),
    NAMED(successes, NULL, "successes"),
    NAMED(bytes_up, NULL, "bytes_up"),
    NAMED(bytes_down, NULL, "bytes_down"),
    NAMED(bytes_copy, NULL, "bytes_copy"),
    NAMED(bytes_splice, NULL, "bytes_splice"),
    NAMED(routes_asked, NULL, "routes_asked"),
    NAMED(routes_remembered, NULL, "routes_remembered"),
    NAMED(conns_opened, NULL, "conns_opened"),
    NAMED(conns_reused, NULL, "conns_reused"),
    NAMED(egress_faults, "sluice_egress_faults_total", "egress_faults"),
    NAMED(egress_rests, "sluice_egress_rests_total", "egress_rests"),
    NAMED(conns_stale, NULL, "conns_stale"),
    NAMED(conns_evicted, NULL, "conns_evicted"),
    NAMED(conns_idle, NULL, "conns_idle"),
};
#undef NAMED
#define NAMED(field, metric)                                                                                           \
    {                                                                                                                  \
        offsetof(struct ring_stats, field), metric, #field                                                             \
    }
static const struct named of_ring[] = {
    NAMED(submissions, "sluice_ring_submissions_total"),
    NAMED(completions, "sluice_ring_completions_total"),
    NAMED(enters, "sluice_ring_enters_total"),
    NAMED(overflows, "sluice_ring_overflows_total"),
};
#define COUNT(table) (sizeof(table) / sizeof *(table))

/* No two counters of the process have the same. */
static uint64_t value_of(uint32_t worker, bool ring, size_t at)
{
    return 1000000 + worker * 100000 + (ring ? 50000 : 0) + at;
}

static void fill(uint32_t worker)
{
    char *stats = (char *)&threads[worker].worker.stats, *ring = (char *)&threads[worker].ring_stats;
    for (size_t i = 0; i < COUNT(of_worker); i++)
        counter_set((counter *)(void *)(stats + of_worker[i].at), value_of(worker, false, of_worker[i].at));
    for (size_t i = 0; i < COUNT(of_ring); i++)
        counter_set((counter *)(void *)(ring + of_ring[i].at), value_of(worker, true, of_ring[i].at));
    counter_set(&threads[worker].worker.stats.drain_resets, 300 + worker);
}

static int set_up(void **state)
{
    (void)state;
    memset(threads, 0, sizeof threads);
    coordinator.threads = threads;
    coordinator.worker_count = WORKERS;
    snapshot.workers = WORKERS;
    snapshot.source_hash = "";
    for (uint32_t i = 0; i < WORKERS; i++) {
        struct message message = {.kind = 1};
        fill(i);
        if (queue_open(&threads[i].inbox, 4) < 0 || queue_open(&threads[i].outbox, 4) < 0) return -1;
        for (uint32_t n = 0; n < 1 + i; n++) queue_push(threads[i].inbox, &message);
        queue_push(threads[i].outbox, &message);
        queue_push(threads[i].outbox, &message);
        queue_push(threads[i].outbox, &message);
    }
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < WORKERS; i++) {
        queue_close(threads[i].inbox);
        queue_close(threads[i].outbox);
    }
    return 0;
}

/* --- /metrics --- */

static void shows(const char *text, const char *name, const char *labels, uint64_t value)
{
    char line[200];
    snprintf(line, sizeof line, "\n%s%s %llu\n", name, labels, (unsigned long long)value);
    if (!strstr(text, line)) fail_msg("/metrics lacks %s", line);
}

static void shows_table(const char *text, const struct named *table, size_t count, bool ring)
{
    for (uint32_t worker = 0; worker < WORKERS; worker++) {
        char label[32];
        snprintf(label, sizeof label, "{worker=\"%u\"}", worker);
        for (size_t i = 0; i < count; i++)
            if (table[i].metric) shows(text, table[i].metric, label, value_of(worker, ring, table[i].at));
    }
}

static void test_metrics(void **state)
{
    struct text text = {0};
    (void)state;
    metrics_write(&text, &snapshot, &coordinator);
    assert_false(text.failed);
    shows_table(text.data, of_worker, COUNT(of_worker), false);
    shows_table(text.data, of_ring, COUNT(of_ring), true);
    shows(text.data, "sluice_drain_resets_total", "", 601);
    shows(text.data, "sluice_relay_bytes_total", "{worker=\"1\",path=\"copy\"}",
          value_of(1, false, offsetof(struct stats, bytes_copy)));
    shows(text.data, "sluice_relay_bytes_total", "{worker=\"1\",path=\"splice\"}",
          value_of(1, false, offsetof(struct stats, bytes_splice)));
    shows(text.data, "sluice_queue_depth", "{worker=\"0\",to=\"worker\"}", 1);
    shows(text.data, "sluice_queue_depth", "{worker=\"1\",to=\"worker\"}", 2);
    shows(text.data, "sluice_queue_depth", "{worker=\"1\",to=\"coordinator\"}", 3);
    text_free(&text);
}

/* --- /stats?format=json --- */

static void has(const json_t *object, const char *name, uint64_t value)
{
    const json_t *there = json_object_get(object, name);
    if (!json_is_integer(there) || (uint64_t)json_integer_value(there) != value)
        fail_msg("%s is %lld", name, json_integer_value(there));
}

static void test_json(void **state)
{
    static struct history history;
    struct text text = {0};
    (void)state;
    history_init(&history);
    stats_write_json(&text, &snapshot, &coordinator, &history);
    assert_false(text.failed);
    json_t *all = json_loadb(text.data, text.size, 0, NULL);
    assert_int_equal(json_array_size(json_object_get(all, "workers")), WORKERS);
    for (uint32_t i = 0; i < WORKERS; i++) {
        const json_t *worker = json_array_get(json_object_get(all, "workers"), i), *ring;
        for (size_t n = 0; n < COUNT(of_worker); n++)
            has(worker, of_worker[n].json, value_of(i, false, of_worker[n].at));
        ring = json_object_get(worker, "ring");
        for (size_t n = 0; n < COUNT(of_ring); n++) has(ring, of_ring[n].json, value_of(i, true, of_ring[n].at));
        has(worker, "index", i);
        has(worker, "queue_in", 1 + i);
        has(worker, "queue_out", 3);
        /* Nobody shows a counter that this table does not know. */
        assert_int_equal(json_object_size(worker), COUNT(of_worker) + 4);
        assert_int_equal(json_object_size(ring), COUNT(of_ring));
    }
    json_decref(all);
    text_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_metrics), cmocka_unit_test(test_json)};
    return cmocka_run_group_tests_name("counters of the API", tests, set_up, tear_down);
}
