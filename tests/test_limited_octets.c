/* On the simulated kernel: octets and datagrams of a session that is under limits, before they move. */
#include "tests/sim_guests.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/session/limited.h"

static struct worker *const w = &guests_bench.worker;

/* --- octets --- */

/* Under the limits of ada and of everybody. Both of its flows have just moved something: nothing of them goes ahead. */
static struct session *member(void)
{
    struct session *s = guest();
    assert_int_equal(guest_admit(s), FAIL_NONE);
    s->flows[CLIENT].ticket.due_us = s->flows[UPSTREAM].ticket.due_us = sim_now_us();
    return s;
}

/* What may move at once. */
static uint32_t take(struct session *s, enum session_side from, uint32_t wanted)
{
    uint64_t again_us;
    return limited_take(w, s, from, wanted, &again_us);
}

/* Takes octets that wait: how long, in microseconds. */
static uint64_t wait_of(struct session *s, enum session_side from, uint32_t wanted)
{
    uint64_t again_us;
    assert_int_equal(limited_take(w, s, from, wanted, &again_us), 0);
    assert_int_not_equal(again_us, LIMITED_SPENT);
    return again_us - sim_now_us();
}

static void test_what_moves_is_used(void **state)
{
    (void)state;
    guests_put("user: quota=1000000B quota-up=1000000B quota-down=1000000B");
    guests_put("total: connections=9");
    struct session *s = member();
    assert_int_equal(take(s, CLIENT, 1000), 1000);
    assert_int_equal(s->flows[CLIENT].granted, 1000);
    assert_int_equal(guests_row("user:ada").used[LIMIT_UP], 1000); /* until it is settled */
    limited_settle(w, s, CLIENT, 300);
    assert_int_equal(s->flows[CLIENT].granted, 0);
    assert_int_equal(s->flows[CLIENT].taken, 300);
    limited_settle(w, s, CLIENT, 0); /* nothing is under way */
    assert_int_equal(take(s, UPSTREAM, 50), 50);
    limited_settle(w, s, UPSTREAM, 50);
    static const char *const keys[] = {"user:ada", "total"};
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(guests_row(keys[i]).used[LIMIT_UP], 300);
        assert_int_equal(guests_row(keys[i]).used[LIMIT_DOWN], 50);
        assert_int_equal(guests_row(keys[i]).used[LIMIT_BOTH], 350);
        assert_int_equal(guests_unsettled(keys[i]), 0);
        assert_int_equal(guests_row(keys[i]).octets[0] + guests_row(keys[i]).octets[1], 0); /* not delivered yet */
    }
    limited_count(w, s, CLIENT, 300);
    limited_count(w, s, UPSTREAM, 50);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(guests_row(keys[i]).octets[LIMIT_UP], 300);
        assert_int_equal(guests_row(keys[i]).octets[LIMIT_DOWN], 50);
    }
    s->flows[CLIENT].bytes = 300;
    s->flows[UPSTREAM].bytes = 50;
    guest_leave(s);
    assert_int_equal(guests_row("user:ada").used[LIMIT_BOTH], 350);
}

/* As much as each of them has; what one has given too much it gets back. */
static void test_quotas_of_several_keys(void **state)
{
    (void)state;
    guests_put("user: quota-up=1000B");
    guests_put("total: quota-up=400B");
    struct session *s = member();
    uint64_t again_us;
    assert_int_equal(take(s, CLIENT, 600), 400);
    assert_int_equal(guests_row("user:ada").used[LIMIT_UP], 400);
    assert_int_equal(guests_row("total").used[LIMIT_UP], 400);
    limited_settle(w, s, CLIENT, 400);
    s->flows[CLIENT].bytes = 400;
    assert_int_equal(guests_unsettled("user:ada") + guests_unsettled("total"), 0);
    assert_int_equal(limited_take(w, s, CLIENT, 1, &again_us), 0);
    assert_int_equal(again_us, LIMITED_SPENT);
    assert_int_equal(guests_row("user:ada").used[LIMIT_UP], 400);
    assert_false(limited_waits(s, CLIENT));
    assert_int_equal(take(s, UPSTREAM, 600), 600); /* the other way nothing is bounded */
    limited_settle(w, s, UPSTREAM, 0);
    guest_leave(s);
}

/* Nothing is left, but others may still give back what they have taken. */
static void test_quota_that_others_hold(void **state)
{
    (void)state;
    guests_put("user: quota=1000B");
    struct session *a = member(), *b = member();
    uint64_t again_us;
    assert_int_equal(take(a, CLIENT, 1000), 1000);
    assert_int_equal(limited_take(w, b, UPSTREAM, 10, &again_us), 0);
    assert_int_equal(again_us, sim_now_us() + 5000);
    assert_false(limited_waits(b, UPSTREAM));
    limited_settle(w, a, CLIENT, 995);
    assert_int_equal(limited_take(w, b, UPSTREAM, 10, &again_us), 5);
    limited_settle(w, b, UPSTREAM, 5);
    assert_int_equal(limited_take(w, a, CLIENT, 10, &again_us), 0);
    assert_int_equal(again_us, LIMITED_SPENT);
    a->flows[CLIENT].bytes = 995;
    b->flows[UPSTREAM].bytes = 5;
    guest_leave(a);
    guest_leave(b);
    assert_int_equal(guests_row("user:ada").used[LIMIT_BOTH], 1000);
}

/* Taken in one hour and settled in the next, where nothing is given back that was not taken there. */
static void test_hour_that_ends(void **state)
{
    (void)state;
    guests_put("user: quota=1000B/hour");
    struct session *s = member();
    assert_int_equal(take(s, CLIENT, 600), 600);
    sim_bench_pass(&guests_bench, GUESTS_HOUR_MS);
    limited_settle(w, s, CLIENT, 100);
    s->flows[CLIENT].bytes = 100;
    assert_int_equal(guests_row("user:ada").used[LIMIT_BOTH], 0);
    assert_int_equal(take(s, CLIENT, 900), 900);
    limited_settle(w, s, CLIENT, 700);
    s->flows[CLIENT].bytes = 800;
    assert_int_equal(guests_row("user:ada").used[LIMIT_BOTH], 700);
    assert_int_equal(guests_unsettled("user:ada"), 0);
    guest_leave(s);
}

/* What was moved to the proxy, and never delivered. */
static void test_refund(void **state)
{
    (void)state;
    guests_put("user: quota=1000B");
    guests_put("total: quota=1000B");
    struct session *s = member();
    assert_int_equal(take(s, CLIENT, 600), 600);
    limited_settle(w, s, CLIENT, 600);
    s->flows[CLIENT].bytes = 200;
    assert_int_equal(take(s, CLIENT, 100), 100); /* and what is under way */
    limited_refund(w, s, CLIENT);
    static const char *const keys[] = {"user:ada", "total"};
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(guests_row(keys[i]).used[LIMIT_UP], 200);
        assert_int_equal(guests_row(keys[i]).used[LIMIT_BOTH], 200);
        assert_int_equal(guests_unsettled(keys[i]), 0);
    }
    assert_int_equal(s->flows[CLIENT].taken, 200);
    assert_int_equal(s->flows[CLIENT].granted, 0);
    limited_refund(w, s, CLIENT); /* once */
    assert_int_equal(guests_row("total").used[LIMIT_BOTH], 200);
    assert_int_equal(take(s, UPSTREAM, 300), 300);
    limited_settle(w, s, UPSTREAM, 300);
    s->flows[UPSTREAM].bytes = 1;
    guest_leave(s); /* both ways */
    assert_int_equal(guests_row("total").used[LIMIT_DOWN], 1);
    assert_int_equal(guests_row("total").used[LIMIT_BOTH], 201);
    s = guest();
    s->limit_count = 0;
    s->flows[CLIENT].taken = 5;
    limited_refund(w, s, CLIENT); /* is under none */
    guest_leave(s);
}

/* The burst at once; from then on each turn waits for the one before. */
static void test_speed(void **state)
{
    (void)state;
    guests_put("user: up=1MB/s up-burst=10kB");
    struct session *s = member();
    uint64_t began_us = sim_now_us(), moved = 0;
    while (sim_now_us() < began_us + 1000000) {
        uint64_t again_us;
        uint32_t octets = limited_take(w, s, CLIENT, 100000, &again_us);
        assert_true(octets <= 50000); /* a turn of LIMIT_ROUND_MS */
        assert_int_equal(limited_waits(s, CLIENT), octets == 0);
        assert_int_equal(guests_row("user:ada").waiting, octets == 0);
        if (octets > 0)
            limited_settle(w, s, CLIENT, octets);
        else
            sim_bench_pass(&guests_bench, (again_us - sim_now_us()) / 1000 + 1);
        moved += octets;
    }
    assert_in_range(moved, 960000, 1010000 + 50000);
    s->flows[CLIENT].bytes = moved;
    assert_int_equal(take(s, UPSTREAM, 100000), 100000);
    limited_settle(w, s, UPSTREAM, 100000);
    s->flows[UPSTREAM].bytes = 100000;
    guest_leave(s);
}

/* The slowest decides, about how much and when. */
static void test_speeds_of_several_keys(void **state)
{
    (void)state;
    guests_put("user: up=1MB/s up-burst=1B");
    guests_put("total: up=100kB/s up-burst=1B");
    guests_put("listener: up=10MB/s up-burst=1B");
    struct session *s = member();
    uint64_t wait_us = wait_of(s, CLIENT, 1 << 20);
    assert_int_equal(s->flows[CLIENT].ticket.octets, 5000);
    assert_in_range(wait_us, 49000, 51000);
    assert_int_equal(guests_row("user:ada").waiting + guests_row("total").waiting, 2);
    sim_bench_pass(&guests_bench, wait_us / 1000 + 1);
    assert_int_equal(take(s, CLIENT, 1000), 1000); /* by now less is there: the rest is given back */
    limited_settle(w, s, CLIENT, 1000);
    s->flows[CLIENT].bytes = 1000;
    assert_int_equal(guests_row("user:ada").waiting + guests_row("total").waiting, 0);
    assert_in_range(wait_of(s, CLIENT, 1000), 9000, 11000); /* behind nobody */
    guest_leave(s);
}

/* What was taken and did not move is worth as much as before, with each key. */
static void test_speed_that_was_not_used(void **state)
{
    (void)state;
    guests_put("user: up=100kB/s up-burst=5kB");
    guests_put("total: up=100kB/s up-burst=5kB");
    struct session *s = member();
    for (unsigned i = 0; i < 100; i++) {
        assert_int_equal(take(s, CLIENT, 5000), 5000);
        limited_settle(w, s, CLIENT, 0);
    }
    assert_int_equal(take(s, CLIENT, 5000), 5000);
    limited_settle(w, s, CLIENT, 3000);
    s->flows[CLIENT].bytes = 3000;
    assert_in_range(wait_of(s, CLIENT, 5000), 29000, 31000);
    guest_leave(s);
}

/* What a flow says after a silence goes ahead, if it is little and all of its limits let it; the rest waits in line. */
/* Flows whose turns are near each other are woken at the same moment, unless what they miss meanwhile would be lost. */
static void test_turns_near_each_other(void **state)
{
    (void)state;
    guests_put("user: down=1MB/s");
    guests_put("total: both=1MB/s both-burst=8192B");
    struct session *s = member();
    for (uint64_t late = 0; late < 3 * LIMIT_LATE_US; late += 97) {
        uint64_t wake_us = limited_wake_us(w, s, UPSTREAM, late);
        assert_int_equal(wake_us % LIMIT_LATE_US, 0);
        assert_in_range(wake_us, late, late + LIMIT_LATE_US - 1);
    }
    guests_put("total: both=1MB/s both-burst=7000B"); /* less than eight times what comes in LIMIT_LATE_US */
    assert_int_equal(limited_wake_us(w, s, UPSTREAM, 97), 97);
    assert_int_equal(limited_wake_us(w, s, CLIENT, 97), 97);
    guests_put("total: down=1MB/s down-burst=7000B");
    assert_int_equal(limited_wake_us(w, s, UPSTREAM, 97), 97);
    assert_int_equal(limited_wake_us(w, s, CLIENT, 97), LIMIT_LATE_US);
    guest_leave(s);
}

static void test_little_goes_ahead(void **state)
{
    (void)state;
    guests_put("user: up=1MB/s up-burst=1B");
    guests_put("total: up=1MB/s up-burst=1B");
    struct session *s = member();
    sim_bench_pass(&guests_bench, LIMIT_SPARSE_US / 1000 - 10);
    (void)wait_of(s, CLIENT, 1 << 20); /* it has not been silent for long enough */
    limited_forget(w, s, CLIENT);
    s->flows[CLIENT].ticket.due_us = sim_now_us();
    sim_bench_pass(&guests_bench, LIMIT_SPARSE_US / 1000);
    assert_int_equal(take(s, CLIENT, 1 << 20), LIMIT_QUANTUM_MIN);
    assert_int_equal(guests_row("user:ada").waiting, 0);
    limited_settle(w, s, CLIENT, LIMIT_QUANTUM_MIN);
    s->flows[CLIENT].bytes = LIMIT_QUANTUM_MIN;
    (void)wait_of(s, CLIENT, 1 << 20);
    assert_int_equal(guests_row("user:ada").waiting, 1);
    guest_leave(s);
}

/* Who leaves the line leaves its place to others. */
static void test_who_waits_no_more(void **state)
{
    (void)state;
    guests_put("user: up=100kB/s up-burst=1B");
    struct session *a = member(), *b = member(), *c = member();
    uint64_t first_us = wait_of(a, CLIENT, 1 << 20);
    uint64_t second_us = wait_of(b, CLIENT, 1 << 20);
    assert_in_range(first_us, 49000, 51000);
    assert_in_range(second_us, first_us + 24000, first_us + 26000); /* two share the turns */
    assert_int_equal(guests_row("user:ada").waiting, 2);
    assert_true(limited_waits(b, CLIENT));
    assert_false(limited_waits(b, UPSTREAM));
    assert_int_equal(wait_of(b, CLIENT, 1 << 20), second_us); /* asks again, and is where it was */
    limited_forget(w, b, CLIENT);
    limited_forget(w, b, CLIENT); /* once */
    assert_false(limited_waits(b, CLIENT));
    assert_int_equal(guests_row("user:ada").waiting, 1);
    assert_int_equal(wait_of(c, CLIENT, 1 << 20), second_us);
    guest_leave(c); /* in the line */
    assert_int_equal(guests_row("user:ada").waiting, 1);
    assert_int_equal(wait_of(b, CLIENT, 1 << 20), second_us);
    guest_leave(a);
    guest_leave(b);
    assert_int_equal(guests_row("user:ada").waiting, 0);
}

static void test_limit_that_changes(void **state)
{
    (void)state;
    guests_put("user: up=1kB/s up-burst=1B");
    guests_put("total: up=1GB/s");
    struct session *s = member();
    assert_false(limited_is_stale(w, s, CLIENT));
    assert_in_range(wait_of(s, CLIENT, 1400), 1390000, 1410000);
    assert_false(limited_is_stale(w, s, CLIENT));
    guests_put("user: up=2kB/s up-burst=1B");
    assert_true(limited_is_stale(w, s, CLIENT));
    assert_false(limited_is_stale(w, s, UPSTREAM));
    assert_in_range(wait_of(s, CLIENT, 1400), 690000, 710000); /* what was booked is void */
    assert_int_equal(guests_row("user:ada").waiting, 1);
    assert_int_equal(guests_row("total").waiting, 1);
    assert_false(limited_is_stale(w, s, CLIENT));
    guests_put("total: up=2GB/s"); /* the last of them */
    assert_true(limited_is_stale(w, s, CLIENT));
    limited_forget(w, s, CLIENT);
    assert_false(limited_is_stale(w, s, CLIENT));
    assert_in_range(wait_of(s, CLIENT, 1400), 690000, 710000); /* and given back where it is not */
    guest_leave(s);
}

/* --- datagrams --- */

static void test_datagrams(void **state)
{
    (void)state;
    struct session *s = guest();
    assert_int_equal(limited_pass(w, s, CLIENT, 1000), LIMITED_PASSES); /* is under none */
    limited_return(w, s, CLIENT, 1000);
    guest_leave(s);
    guests_put("user: quota=1000B");
    guests_put("total: quota-up=900B");
    s = member();
    assert_int_equal(limited_pass(w, s, CLIENT, 0), LIMITED_PASSES);
    assert_int_equal(limited_pass(w, s, CLIENT, 600), LIMITED_PASSES);
    assert_int_equal(limited_pass(w, s, CLIENT, 301), LIMITED_DROPPED); /* a smaller one may pass */
    assert_int_equal(guests_row("user:ada").used[LIMIT_BOTH], 600);
    assert_int_equal(limited_pass(w, s, CLIENT, 300), LIMITED_PASSES);
    assert_int_equal(limited_pass(w, s, CLIENT, 1), LIMITED_OVER);
    assert_int_equal(guests_row("user:ada").used[LIMIT_UP], 900);
    assert_int_equal(guests_row("total").used[LIMIT_UP], 900);
    assert_int_equal(limited_pass(w, s, UPSTREAM, 100), LIMITED_PASSES);
    assert_int_equal(limited_pass(w, s, UPSTREAM, 1), LIMITED_OVER);
    assert_int_equal(guests_row("user:ada").used[LIMIT_DOWN], 100);
    limited_return(w, s, CLIENT, 300);
    assert_int_equal(guests_row("user:ada").used[LIMIT_UP], 600);
    assert_int_equal(guests_row("user:ada").used[LIMIT_BOTH], 700);
    assert_int_equal(guests_row("total").used[LIMIT_UP], 600);
    assert_int_equal(guests_unsettled("user:ada") + guests_unsettled("total"), 0);
    guest_leave(s);
}

/* Faster than one of the limits lets them; what the others had let pass counts for nothing. */
static void test_speed_of_datagrams(void **state)
{
    (void)state;
    guests_put("user: up=100kB/s");
    guests_put("total: up=50kB/s");
    struct session *s = member();
    for (unsigned i = 0; i < 64; i++) assert_int_equal(limited_pass(w, s, CLIENT, 1024), LIMITED_PASSES);
    for (unsigned i = 0; i < 1000; i++) assert_int_equal(limited_pass(w, s, CLIENT, 1024), LIMITED_DROPPED);
    assert_int_equal(limited_pass(w, s, UPSTREAM, 1024), LIMITED_PASSES);
    assert_int_equal(guests_row("total").used[LIMIT_UP], 65536);
    limited_return(w, s, CLIENT, 1024); /* one could not be sent */
    assert_int_equal(limited_pass(w, s, CLIENT, 1024), LIMITED_PASSES);
    assert_int_equal(limited_pass(w, s, CLIENT, 1024), LIMITED_DROPPED);
    sim_bench_pass(&guests_bench, 100); /* 5000 octets of the total, and 10000 of ada's */
    uint32_t passed = 0;
    while (limited_pass(w, s, CLIENT, 1000) == LIMITED_PASSES) passed++;
    assert_in_range(passed, 5, 6);
    guests_put("total: up=1GB/s"); /* what was refused there is not booked here */
    while (limited_pass(w, s, CLIENT, 1000) == LIMITED_PASSES) passed++;
    assert_in_range(passed, 10, 11);
    guest_leave(s);
}

/* One whose octets a quota does not have has not used the speed either. */
static void test_quota_of_datagrams_keeps_the_speed(void **state)
{
    (void)state;
    guests_put("user: up=100kB/s quota-up=60000B");
    struct session *s = member();
    for (unsigned i = 0; i < 1000; i++) assert_int_equal(limited_pass(w, s, CLIENT, 60001), LIMITED_DROPPED);
    assert_int_equal(limited_pass(w, s, CLIENT, 60000), LIMITED_PASSES);
    guest_leave(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_what_moves_is_used, guests_begin, guests_finish),
        cmocka_unit_test_setup_teardown(test_quotas_of_several_keys, guests_begin, guests_finish),
        cmocka_unit_test_setup_teardown(test_quota_that_others_hold, guests_begin, guests_finish),
        cmocka_unit_test_setup_teardown(test_hour_that_ends, guests_begin, guests_finish),
        cmocka_unit_test_setup_teardown(test_refund, guests_begin, guests_finish),
        cmocka_unit_test_setup_teardown(test_speed, guests_begin, guests_finish),
        cmocka_unit_test_setup_teardown(test_speeds_of_several_keys, guests_begin, guests_finish),
        cmocka_unit_test_setup_teardown(test_speed_that_was_not_used, guests_begin, guests_finish),
        cmocka_unit_test_setup_teardown(test_turns_near_each_other, guests_begin, guests_finish),
        cmocka_unit_test_setup_teardown(test_little_goes_ahead, guests_begin, guests_finish),
        cmocka_unit_test_setup_teardown(test_who_waits_no_more, guests_begin, guests_finish),
        cmocka_unit_test_setup_teardown(test_limit_that_changes, guests_begin, guests_finish),
        cmocka_unit_test_setup_teardown(test_datagrams, guests_begin, guests_finish),
        cmocka_unit_test_setup_teardown(test_speed_of_datagrams, guests_begin, guests_finish),
        cmocka_unit_test_setup_teardown(test_quota_of_datagrams_keeps_the_speed, guests_begin, guests_finish),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
