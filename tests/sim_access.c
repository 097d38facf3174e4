#include "tests/sim_access.h"

#include <string.h>

#include "tests/sim.h"

#define RING_SIZE (1u << 20)

/* In every other world, and without a draw, so that seeds mean what they meant before. */
void sim_access_open(struct sim_access *access, struct worker *w, uint64_t seed)
{
    *access = (struct sim_access){.on = seed % 2 == 1};
    if (!access->on) return;
    access->feed = (struct access_feed){
        .sleeper = &access->sleeper, .wake_fd = -1, .starts = seed % 4 == 1, .queries = seed % 8 == 1};
    if (record_ring_open(&access->feed.ring, RING_SIZE) < 0) sim_fail("no ring for the access log");
    w->access = &access->feed;
}

static enum failure failure_of(const char *result)
{
    if (strcmp(result, "ok") == 0) return FAIL_NONE;
    for (enum failure f = FAIL_PEER; f < FAIL_COUNT; f++)
        if (strcmp(result, failure_row(f)->label) == 0) return f;
    sim_fail("a record's result is \"%s\"", result);
}

static void check_record(const struct access_record *r, bool end)
{
    if ((r->result != NULL) != end) sim_fail("the result of a record belongs to its end");
    if (end && strcmp(r->result, "ok") != 0 && r->relay == NULL && r->up + r->down > 0)
        sim_fail("octets of a record went no way");
    if (r->up + r->down > 0 && r->relay == NULL) sim_fail("octets of a record went no way");
    if (r->down > 0 && r->first_byte_us < 0) sim_fail("octets came down, but none was the first");
    if (r->total_us < r->handshake_us || r->total_us < r->first_byte_us) sim_fail("a part took longer than the whole");
    if (r->handshake_us < 0 && r->connect_us >= 0) sim_fail("a connection, but no request");
}

void sim_access_read(struct sim_access *access)
{
    struct access_record *r;
    while (access->on && (r = record_ring_peek(access->feed.ring)) != NULL) {
        bool end = strcmp(r->event, "end") == 0;
        check_record(r, end);
        access->up += end ? r->up : 0;
        access->down += end ? r->down : 0;
        if (r->worker == ACCESS_NO_ID) {
            access->refusals++;
        } else {
            *(end ? &access->ends : &access->starts) += 1;
            if (end) access->results[failure_of(r->result)]++;
        }
        record_ring_pop(access->feed.ring);
    }
}

void sim_access_check(const struct sim_access *access, const struct worker *w)
{
    if (!access->on) return;
    uint64_t up = counter_read(&w->stats.bytes_up), down = counter_read(&w->stats.bytes_down);
    if (counter_read(&access->feed.dropped) > 0) sim_fail("records of the access log were dropped");
    if (access->up != up || access->down != down)
        sim_fail("records say %llu octets up and %llu down, counters %llu and %llu", (unsigned long long)access->up,
                 (unsigned long long)access->down, (unsigned long long)up, (unsigned long long)down);
    if (access->ends < counter_read(&w->stats.accepted))
        sim_fail("%llu sessions, %llu records of their end", (unsigned long long)counter_read(&w->stats.accepted),
                 (unsigned long long)access->ends);
    /* Clients that lists deny are counted so, whether they were sessions or not. */
    uint64_t denied = counter_read(&w->stats.failures[FAIL_CLIENT_DENIED]) - access->results[FAIL_CLIENT_DENIED];
    for (enum failure f = FAIL_PEER; f < FAIL_COUNT; f++)
        if (f != FAIL_CLIENT_DENIED && access->results[f] != counter_read(&w->stats.failures[f]))
            sim_fail("%s: %llu records, %llu counted", failure_row(f)->label, (unsigned long long)access->results[f],
                     (unsigned long long)counter_read(&w->stats.failures[f]));
    uint64_t refused = counter_read(&w->stats.refused_limit) + counter_read(&w->stats.refused_resource) + denied;
    if (access->refusals + counter_read(&access->feed.suppressed) != refused)
        sim_fail("%llu connections were refused at accept, %llu records", (unsigned long long)refused,
                 (unsigned long long)access->refusals);
    if (access->starts > 0 && !access->feed.starts) sim_fail("records of starts that nobody has asked for");
    if (access->starts > access->ends) sim_fail("more starts than ends");
    if (w->notes.used > 0) sim_fail("at the end there are %u notes of sessions", w->notes.used);
}

void sim_access_close(struct sim_access *access)
{
    record_ring_close(access->feed.ring);
    access->feed.ring = NULL;
}
