/* On the simulated kernel: who is counted as whom, and what of it is given back. */
#include "tests/sim_guests.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/session/limited.h"
#include "core/session/tally.h"

#define USERS  4u
#define WALL_S INT64_C(1796000000)

static struct worker *const w = &guests_bench.worker;
static struct tally tally;
static struct tally_count users[USERS], rules[TALLY_RULES + 1];

static int begin(void **state)
{
    const struct limit_key each = {.kind = LIMIT_USER, .every = true};
    struct limit_terms none;
    limit_terms_init(&none);
    if (guests_begin(state) != 0) return -1;
    memset(users, 0, sizeof users);
    memset(rules, 0, sizeof rules);
    tally = (struct tally){.user_counts = users, .rule_counts = rules};
    if (keys_open(&tally.users, USERS, sim_now_us(), WALL_S) < 0) return -1;
    keys_put(tally.users, &each, &none, sim_now_us());
    w->tally = &tally;
    return 0;
}

static int finish(void **state)
{
    for (uint32_t i = 0; i < w->sessions.count; i++)
        if (pool_is_taken(&w->sessions, i)) tally_release(w, session_at(w, i));
    keys_close(tally.users);
    w->tally = NULL;
    return guests_finish(state);
}

static struct session *come(const char *user, uint32_t rule)
{
    struct session *s = guest();
    strcpy(setup_of(w, s)->credentials.user, user);
    s->rule = rule;
    assert_int_equal(guest_admit(s), FAIL_NONE);
    return s;
}

static void go(struct session *s)
{
    limited_leave(w, s);
    tally_release(w, s);
    guest_leave(s);
}

/* Where that user is counted; NULL: nowhere. */
static const struct tally_count *count_of(const char *user)
{
    struct limit_key key;
    struct keys_row row;
    limit_key_text(LIMIT_USER, user, strlen(user), &key);
    return keys_find(tally.users, &key, sim_now_us(), &row) ? &users[(uint32_t)row.handle] : NULL;
}

static void assert_count(const struct tally_count *count, uint64_t up, uint64_t down, uint64_t connections)
{
    assert_non_null(count);
    assert_int_equal(counter_read(&count->octets[0]), up);
    assert_int_equal(counter_read(&count->octets[1]), down);
    assert_int_equal(counter_read(&count->connections), connections);
}

/* Without any limit: each octet counts for its user and its rule, until the request is over. */
static void test_users_and_rules(void **state)
{
    (void)state;
    struct session *a = come("alice", 7), *b = come("bob", 7), *c = come("alice", 0);
    limited_count(w, a, CLIENT, 10);
    limited_count(w, b, UPSTREAM, 200);
    limited_count(w, c, UPSTREAM, 3000);
    assert_count(count_of("alice"), 10, 3000, 2);
    assert_count(count_of("bob"), 0, 200, 1);
    assert_count(&rules[7], 10, 200, 2);
    assert_count(&rules[0], 0, 0, 0);
    limited_leave(w, a);
    limited_count(w, a, CLIENT, 5); /* of nobody's request */
    assert_count(count_of("alice"), 10, 3000, 1);
    assert_count(&rules[7], 10, 200, 1);
    go(a);
    go(b);
    go(c);
    assert_count(count_of("alice"), 10, 3000, 0);
    assert_count(&rules[7], 10, 200, 0);
}

/* The next request of a connection, or the next try of one, is another rule's, perhaps another user's. */
static void test_requests_of_one_connection(void **state)
{
    (void)state;
    struct session *s = come("alice", 1);
    limited_count(w, s, CLIENT, 1);
    s->rule = 2;
    assert_int_equal(limited_admit_request(w, s, true, NULL, 0), FAIL_NONE); /* another verdict */
    limited_count(w, s, CLIENT, 20);
    limited_leave(w, s);
    s->rule = TALLY_RULES;
    assert_int_equal(guest_admit(s), FAIL_NONE);
    limited_count(w, s, CLIENT, 300);
    assert_count(count_of("alice"), 321, 0, 1);
    strcpy(setup_of(w, s)->credentials.user, "bob");
    s->rule = TALLY_RULES + 1; /* there is none such */
    assert_int_equal(guest_admit(s), FAIL_NONE);
    limited_count(w, s, CLIENT, 4000);
    assert_count(count_of("alice"), 321, 0, 0);
    assert_count(count_of("bob"), 4000, 0, 1);
    setup_of(w, s)->credentials.present = false;
    assert_int_equal(guest_admit(s), FAIL_NONE);
    limited_count(w, s, CLIENT, 50000);
    assert_count(count_of("bob"), 4000, 0, 0);
    assert_count(&rules[1], 1, 0, 0);
    assert_count(&rules[2], 20, 0, 0);
    assert_count(&rules[TALLY_RULES], 300, 0, 0);
    assert_int_equal(s->tally_user, KEYS_NONE);
    go(s);
}

/* Who is refused is not counted; who is the coordinator's own neither. */
static void test_who_is_not_counted(void **state)
{
    (void)state;
    guests_put("user:alice: connections=0");
    struct session *s = guest();
    strcpy(setup_of(w, s)->credentials.user, "alice");
    s->rule = 3;
    assert_int_equal(guest_admit(s), FAIL_LIMIT_CONNECTIONS);
    assert_null(count_of("alice"));
    s->protocol = PROTOCOL_INTERNAL;
    assert_int_equal(guest_admit(s), FAIL_NONE);
    assert_null(count_of("alice"));
    assert_count(&rules[3], 0, 0, 0);
    go(s);
}

static void come_in_vain(struct session **s, uint64_t missed)
{
    *s = come("nobody", 9);
    assert_null(count_of("nobody"));
    assert_int_equal(counter_read(&tally.missed), missed);
    assert_count(&rules[9], 0, 0, 1); /* all the same */
    go(*s);
}

/* A table that is full turns nobody away: who finds no place counts as missed, and those who have one keep it. When one
 * goes there is room, a second later. */
static void test_a_full_table(void **state)
{
    (void)state;
    static const char *const names[] = {"a", "b", "c", "d"};
    struct session *all[USERS], *more;
    for (unsigned i = 0; i < USERS; i++) all[i] = come(names[i], 0);
    for (unsigned i = 1; i <= 3; i++) come_in_vain(&more, i);
    limited_count(w, all[0], CLIENT, 5);
    assert_count(count_of("a"), 5, 0, 1);
    limited_leave(w, all[0]); /* it waits for its next request: its place is still its own */
    come_in_vain(&more, 4);
    assert_count(count_of("a"), 5, 0, 0);
    go(all[0]);
    come_in_vain(&more, 5); /* nobody asks so soon */
    sim_bench_pass(&guests_bench, 1001);
    more = come("new", 0);
    assert_non_null(count_of("new"));
    assert_int_equal(counter_read(&tally.missed), 5);
    go(more);
    for (unsigned i = 1; i < USERS; i++) go(all[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_users_and_rules, begin, finish),
        cmocka_unit_test_setup_teardown(test_requests_of_one_connection, begin, finish),
        cmocka_unit_test_setup_teardown(test_who_is_not_counted, begin, finish),
        cmocka_unit_test_setup_teardown(test_a_full_table, begin, finish),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
