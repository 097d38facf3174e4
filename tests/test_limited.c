/* On the simulated kernel: flows under limits as a worker runs them, on a virtual clock. What each gets, and when. */
#include "core/session/limited.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "core/session/errand_kinds.h"
#include "tests/sim_bench.h"

#define CLIENTS_MAX 20u
#define ROOM        65536u
#define WALL_S      INT64_C(1796000000)

static struct sim_bench bench;
static struct keys *keys;

/* A client and what it has got. Its server always has more for it, as long as it pours. */
static struct client {
    struct sim_conn *conn, *server;
    bool pours;
    uint64_t got, up;
    uint32_t least; /* octets of the smallest piece that came while more was there */
    bool cut;
} clients[CLIENTS_MAX];
static uint32_t client_count;

static uint8_t octets[ROOM];

static bool move(struct client *c)
{
    static uint8_t heard[ROOM];
    bool moved = false;
    if (c->server && c->pours && !c->cut && c->server->in.used < c->server->in.room)
        moved |= sim_write(c->server, octets, sizeof octets) > 0;
    int32_t size = c->cut ? 0 : sim_read(c->conn, heard, sizeof heard);
    if (size > 0) {
        c->got += (uint32_t)size;
        if ((uint32_t)size < c->least) c->least = (uint32_t)size;
    }
    c->cut |= size < 0 && size != -EAGAIN;
    int32_t up = c->server && !c->server->far_closed ? sim_read(c->server, heard, sizeof heard) : 0;
    if (up > 0) c->up += (uint32_t)up;
    return moved || size > 0 || up > 0;
}

static bool act(struct sim_bench *self, uint64_t *wake_us)
{
    bool moved = false;
    (void)self, (void)wake_us;
    for (uint32_t i = 0; i < client_count; i++) moved |= move(&clients[i]);
    return moved;
}

static void put(const char *text)
{
    struct limit_key key;
    struct limit_terms terms;
    assert_null(limit_parse(text, strlen(text), &key, &terms));
    assert_int_not_equal(keys_put(keys, &key, &terms, sim_now_us()), KEYS_NO_ROOM);
}

static struct limit *limit_at(const char *text, uint32_t *held)
{
    struct limit_key key;
    assert_null(limit_key_parse(text, strlen(text), &key));
    assert_int_equal(keys_hold(keys, &key, false, sim_now_us(), held), KEYS_FOUND);
    return keys_at(keys, *held);
}

/* Two listeners, a and b, whose clients' connections all lead somewhere; limit: of all, as --limit has it. */
static void begin(enum relay_mode mode, const char *limit)
{
    memset(clients, 0, sizeof clients);
    client_count = 0;
    sim_bench_prepare(&bench);
    sim_bench_forward(&bench, &(struct address){.kind = ADDRESS_IPV4, .port = 80, .ipv4 = {10, 0, 0, 1}});
    bench.config.listeners[0].text = "a";
    bench.config.listeners[1].text = "b";
    bench.config.relay = mode;
    bench.act = act;
    sim_bench_open(&bench, 1);
    assert_int_equal(keys_open(&keys, 64, sim_now_us(), WALL_S), 0);
    bench.worker.keys = keys;
    put(limit);
}

static void end(void)
{
    struct keys_row row;
    uint32_t at = 0;
    for (uint32_t i = 0; i < client_count; i++)
        if (!clients[i].cut) sim_close(clients[i].conn);
    client_count = 0;
    sim_bench_close(&bench);
    while (keys_next(keys, &at, sim_now_us(), &row)) {
        assert_int_equal(row.connections, 0);
        assert_int_equal(row.waiting, 0);
    }
    keys_close(keys);
}

static struct client *connect_to(uint32_t listener, bool pours)
{
    struct client *c = &clients[client_count];
    *c = (struct client){.conn = sim_bench_connect(&bench, listener, ROOM), .pours = pours, .least = UINT32_MAX};
    client_count++;
    for (unsigned i = 0; i < 1000 && bench.upstream_count < client_count; i++) sim_bench_turn(&bench, 1);
    assert_int_equal(bench.upstream_count, client_count);
    c->server = bench.upstreams[client_count - 1];
    return c;
}

static void pour(unsigned count, uint32_t listener)
{
    for (unsigned i = 0; i < count; i++) connect_to(listener, true);
}

static uint64_t sum(void)
{
    uint64_t total = 0;
    for (uint32_t i = 0; i < client_count; i++) total += clients[i].got;
    return total;
}

/* --- the speed, and its parts --- */

/* Behind the burst: in each of some spans of time all flows together get the speed, to two percent. A flow's piece may
 * fall on either side of a moment. */
static void speed_is_kept(enum relay_mode mode, const char *limit, uint64_t speed, unsigned flows, uint64_t span_ms)
{
    begin(mode, limit);
    pour(flows, 0);
    sim_bench_pass(&bench, speed < 10000 ? 20000 : 1000);
    for (unsigned i = 0; i < 3; i++) {
        uint64_t before = sum(), since = sim_now_us();
        sim_bench_pass(&bench, span_ms);
        uint64_t due = speed * (sim_now_us() - since) / 1000000, got = sum() - before;
        uint64_t piece = speed * LIMIT_ROUND_MS / 1000;
        uint64_t slack = due / 50 + (piece < LIMIT_QUANTUM_MIN ? LIMIT_QUANTUM_MIN : 0);
        if (got + slack < due || got > due + slack)
            fail_msg("%s, %u flows: %llu octets came, %llu were due", limit, flows, (unsigned long long)got,
                     (unsigned long long)due);
    }
    end();
}

static void test_a_speed_is_kept_to_two_percent(void **state)
{
    (void)state;
    for (unsigned flows = 1; flows <= 8; flows += 7) {
        for (enum relay_mode mode = RELAY_AUTO; mode <= RELAY_COPY; mode++) {
            speed_is_kept(mode, "total: down=1kB/s", 1000, flows, 60000);
            speed_is_kept(mode, "total: down=800kbit/s", 100000, flows, 8000);
            speed_is_kept(mode, "total: both=8Mbit/s", 1000000, flows, 4000);
            speed_is_kept(mode, "total: down=300Mbit/s", 37500000, flows, 1000);
            speed_is_kept(mode, "total: down=300Mbit/s down-burst=100kB", 37500000, flows, 1000);
        }
    }
}

static void test_flows_of_a_key_get_the_same(void **state)
{
    (void)state;
    static const enum relay_mode modes[] = {RELAY_COPY, RELAY_AUTO};
    for (unsigned m = 0; m < 2; m++) {
        begin(modes[m], "total: down=8Mbit/s");
        pour(8, 0);
        sim_bench_pass(&bench, 1000);
        uint64_t before[8], total = sum();
        for (unsigned i = 0; i < 8; i++) before[i] = clients[i].got;
        sim_bench_pass(&bench, 4000);
        total = sum() - total;
        for (unsigned i = 0; i < 8; i++)
            assert_in_range((clients[i].got - before[i]) * 8, total * 9 / 10, total * 11 / 10);
        end();
    }
}

/* However many share however little: what moves is a quantum, or the end. */
static void test_nothing_moves_in_crumbs(void **state)
{
    (void)state;
    static const enum relay_mode modes[] = {RELAY_COPY, RELAY_AUTO};
    for (unsigned m = 0; m < 2; m++) {
        begin(modes[m], "total: down=160kbit/s");
        pour(12, 0);
        sim_bench_pass(&bench, 60000);
        for (uint32_t i = 0; i < client_count; i++) {
            assert_true(clients[i].got > 50000);
            assert_in_range(clients[i].least, LIMIT_QUANTUM_MIN, ROOM);
        }
        end();
    }
}

/* --- a few octets beside much --- */

/* The client says something, and its server answers: how long did that take? */
static uint64_t exchange_us(struct client *c, uint32_t size)
{
    uint64_t since = sim_now_us(), got = c->got + size, up = c->up + size;
    assert_int_equal(sim_write(c->conn, octets, size), size);
    while (c->up < up) sim_bench_turn(&bench, 1);
    assert_int_equal(sim_write(c->server, octets, size), size);
    while (c->got < got) sim_bench_turn(&bench, 1);
    return sim_now_us() - since;
}

static void small_beside_bulk(const char *limit, unsigned flows)
{
    begin(RELAY_AUTO, limit);
    pour(flows, 0);
    struct client *small = connect_to(0, false);
    for (uint32_t i = 0; i < flows; i++) /* up as well as down */
        sim_write(clients[i].conn, octets, ROOM);
    sim_bench_pass(&bench, 10000);
    uint64_t before = sum(), since = sim_now_us();
    for (unsigned i = 0; i < 8; i++) {
        uint64_t took = exchange_us(small, 200);
        if (took >= 200000) fail_msg("%s, %u flows: an exchange took %llu us", limit, flows, (unsigned long long)took);
        sim_bench_pass(&bench, 1000);
    }
    uint64_t speed = clients[0].got > 0 ? (sum() - before) * 1000000 / (sim_now_us() - since) : 0;
    struct keys_row row;
    struct limit_key key = {.kind = LIMIT_TOTAL};
    assert_true(keys_find(keys, &key, sim_now_us(), &row));
    uint64_t most = row.terms.speed[LIMIT_DOWN] > 0 ? row.terms.speed[LIMIT_DOWN] : row.terms.speed[LIMIT_BOTH];
    assert_true(speed <= most * 51 / 50 + LIMIT_QUANTUM_MIN);
    end();
}

static void test_an_exchange_is_answered_beside_bulk(void **state)
{
    (void)state;
    small_beside_bulk("total: down=100kB/s up=100kB/s", 1);
    small_beside_bulk("total: down=100kB/s up=100kB/s", 16);
    small_beside_bulk("total: both=20kB/s", 16);
    small_beside_bulk("total: both=8Mbit/s", 8);
    small_beside_bulk("total: down=100Mbit/s", 8);
}

/* Whoever always has a little to say gets no more of that than a fiftieth; all in all the speed is kept. */
static void test_what_goes_ahead_is_bounded(void **state)
{
    (void)state;
    begin(RELAY_AUTO, "total: down=20kB/s");
    pour(4, 0);
    for (unsigned i = 0; i < 12; i++) connect_to(0, false);
    sim_bench_pass(&bench, 5000);
    uint64_t before = sum(), since = sim_now_us();
    for (unsigned turn = 0; turn < 400; turn++) { /* 12 * 1400 octets in 150 ms: five times the speed */
        for (unsigned i = 4; i < 16; i++) sim_write(clients[i].server, octets, LIMIT_QUANTUM_MIN);
        sim_bench_pass(&bench, 150);
    }
    uint64_t due = 20000 * (sim_now_us() - since) / 1000000;
    assert_in_range(sum() - before, due * 98 / 100, due * 102 / 100);
    for (unsigned i = 0; i < 4; i++) assert_true(clients[i].got > 20000); /* and nobody starves */
    end();
}

/* --- changes --- */

static bool heeding;

static void on_mail(struct sim_bench *self, const struct message *message)
{
    (void)self, (void)message;
    heeding = false;
}

/* In pieces of three, which is less than there are flows. */
static void heed(void)
{
    static struct heed_errand heed;
    bench.on_mail = on_mail;
    for (heed.next = 0; heed.next != UINT32_MAX;) {
        heed = (struct heed_errand){.errand.run = errand_heed_limits, .first = heed.next, .room = 3};
        struct message message = {.kind = MESSAGE_ERRAND, .body = &heed};
        heeding = true;
        assert_true(queue_push(bench.worker.inbox, &message));
        if (sleeper_must_wake(&bench.worker.sleeper))
            sim_wake(bench.worker.ring, (struct ring_tag){.op = WORKER_OP_WAKE});
        while (heeding) sim_bench_turn(&bench, 0);
        assert_true(heed.next == UINT32_MAX || heed.next == heed.first + heed.room);
    }
}

/* Flows that would wait for seconds move with the new speed at once; a hundred milliseconds are what may pass. */
static void test_a_change_acts_at_once(void **state)
{
    (void)state;
    begin(RELAY_AUTO, "total: down=1kB/s");
    pour(8, 0);
    sim_bench_pass(&bench, 20000);
    uint64_t before = sum();
    put("total: down=10MB/s");
    heed();
    sim_bench_pass(&bench, 100);
    assert_true(sum() - before >= 8 * 50000);
    put("total: down=1kB/s");
    heed();
    sim_bench_pass(&bench, 100);
    before = sum();
    sim_bench_pass(&bench, 10000);
    assert_true(sum() - before <= 10000 + LIMIT_QUANTUM_MIN);
    end();
}

/* A quota that is lowered to what is used, or a little above it: those under it are cut there, others keep their speed.
 */
static void test_a_quota_that_is_lowered_cuts_and_spares_others(void **state)
{
    (void)state;
    for (uint32_t more = 0; more <= 30000; more += 15000) {
        begin(RELAY_AUTO, "listener: down=2MB/s");
        pour(3, 0);
        pour(3, 1);
        sim_bench_pass(&bench, 1000);
        uint32_t held;
        struct limit *limit = limit_at("listener:a", &held);
        struct limit_time time = keys_time(keys, sim_now_us());
        uint64_t used = limit_quota_used(limit, LIMIT_DOWN, &time);
        char text[128];
        snprintf(text, sizeof text, "listener:a: down=2MB/s quota-down=%lluB", (unsigned long long)used + more);
        put(text);
        heed();
        uint64_t others = clients[3].got + clients[4].got + clients[5].got, since = sim_now_us();
        sim_bench_pass(&bench, 100);
        assert_int_equal(clients[0].got + clients[1].got + clients[2].got, used + more);
        sim_bench_pass(&bench, 3000); /* in which they may read */
        assert_true(clients[0].cut && clients[1].cut && clients[2].cut);
        assert_int_equal(clients[0].got + clients[1].got + clients[2].got, used + more);
        uint64_t due = 2000000 * (sim_now_us() - since) / 1000000;
        assert_in_range(clients[3].got + clients[4].got + clients[5].got - others, due * 95 / 100, due * 105 / 100);
        keys_release(keys, held);
        end();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_speed_is_kept_to_two_percent),
        cmocka_unit_test(test_flows_of_a_key_get_the_same),
        cmocka_unit_test(test_nothing_moves_in_crumbs),
        cmocka_unit_test(test_an_exchange_is_answered_beside_bulk),
        cmocka_unit_test(test_what_goes_ahead_is_bounded),
        cmocka_unit_test(test_a_change_acts_at_once),
        cmocka_unit_test(test_a_quota_that_is_lowered_cuts_and_spares_others),
    };
    memset(octets, 'x', sizeof octets);
    return cmocka_run_group_tests_name("limited", tests, NULL, NULL);
}
