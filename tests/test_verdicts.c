/* Remembered verdicts: given again for the same question only, for their time and revision only. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "core/session/verdicts.h"

static struct verdicts verdicts;
static struct route_request request;
static struct credentials credentials;

static void ask(const char *name, uint16_t port)
{
    memset(&request, 0, sizeof request);
    memset(&credentials, 0, sizeof credentials);
    assert_true(address_from_host(name, strlen(name), port, &request.target));
    request.credentials = &credentials;
}

/* A verdict with a chain of `hops`, remembered for a second. */
static void answer(uint8_t hops)
{
    request.verdict = (struct route_verdict){
        .order = ROUTE_DIAL, .hop_count = hops, .rule = 7, .cache_ms = 1000, .hops = request.hops};
    assert_true(address_from_host("elsewhere", 9, 99, &request.verdict.target));
    request.verdict.proxy_protocol = 2;
    request.verdict.egress = (struct egress_terms){.marked = true, .mark = 5, .device = "eth1"};
    for (uint8_t i = 0; i < hops; i++) request.hops[i].address.port = (uint16_t)(100 + i);
}

static int teardown(void **state)
{
    (void)state;
    verdicts_close(&verdicts);
    return 0;
}

static void test_same_question(void **state)
{
    (void)state;
    ask("example.org", 443);
    assert_false(verdicts_find(&verdicts, &request, 1, 0));
    answer(2);
    verdicts_keep(&verdicts, &request, 1, 5000);
    ask("example.org", 443);
    assert_true(verdicts_find(&verdicts, &request, 1, 5999));
    assert_int_equal(request.verdict.rule, 7);
    assert_int_equal(request.verdict.hop_count, 2);
    assert_ptr_equal(request.verdict.hops, request.hops);
    assert_int_equal(request.hops[1].address.port, 101);
    assert_string_equal(request.verdict.target.name, "elsewhere");
    assert_int_equal(request.verdict.proxy_protocol, 2);
    assert_int_equal(request.verdict.egress.mark, 5);
    assert_string_equal(request.verdict.egress.device, "eth1");
}

static void test_time_and_revision(void **state)
{
    (void)state;
    ask("example.org", 443);
    answer(0);
    verdicts_keep(&verdicts, &request, 1, 5000);
    assert_false(verdicts_find(&verdicts, &request, 1, 6000));
    assert_false(verdicts_find(&verdicts, &request, 2, 5500));
    assert_true(verdicts_find(&verdicts, &request, 1, 5500));
}

static void test_other_questions(void **state)
{
    (void)state;
    ask("example.org", 443);
    answer(0);
    verdicts_keep(&verdicts, &request, 1, 0);
    ask("example.org", 444);
    assert_false(verdicts_find(&verdicts, &request, 1, 1));
    ask("example.com", 443);
    assert_false(verdicts_find(&verdicts, &request, 1, 1));
    ask("EXAMPLE.org", 443); /* the ruleset sees names as they were sent */
    assert_false(verdicts_find(&verdicts, &request, 1, 1));
    ask("example.org", 443);
    request.command = ROUTE_BIND;
    assert_false(verdicts_find(&verdicts, &request, 1, 0));
    request.command = ROUTE_CONNECT;
    assert_true(verdicts_find(&verdicts, &request, 1, 0));
    request.callback = ROUTE_BY_IPV4;
    assert_false(verdicts_find(&verdicts, &request, 1, 1));
    ask("example.org", 443);
    credentials = (struct credentials){.present = true, .user = "somebody", .password = "x"};
    assert_false(verdicts_find(&verdicts, &request, 1, 1));
}

static void test_users_are_kept_apart(void **state)
{
    (void)state;
    ask("example.org", 443);
    credentials = (struct credentials){.present = true, .user = "a", .password = "b"};
    answer(0);
    verdicts_keep(&verdicts, &request, 1, 0);
    ask("example.org", 443);
    credentials = (struct credentials){.present = true, .user = "a", .password = "c"};
    assert_false(verdicts_find(&verdicts, &request, 1, 1));
    strcpy(credentials.password, "b");
    assert_true(verdicts_find(&verdicts, &request, 1, 1));
    credentials.present = false;
    assert_false(verdicts_find(&verdicts, &request, 1, 1));
}

/* Questions that differ in one thing alone. */
static void ask_one_of_many(unsigned difference, unsigned i)
{
    char name[32] = "example.org";
    if (difference == 0) snprintf(name, sizeof name, "h%u.example.org", i);
    ask(name, (uint16_t)(difference == 1 ? 1000 + i : 443));
    credentials = (struct credentials){.present = difference > 1, .user = "user", .password = "password"};
    if (difference == 2) snprintf(credentials.user, sizeof credentials.user, "u%u", i);
    if (difference == 3) snprintf(credentials.password, sizeof credentials.password, "p%u", i);
}

/* Whatever they differ in, they are spread over the places: of a quarter as many as there are places, by chance one in
 * eight displaces another. */
static void test_many_are_kept(void **state)
{
    (void)state;
    for (unsigned difference = 0; difference < 4; difference++) {
        unsigned found = 0;
        for (unsigned i = 0; i < VERDICTS_COUNT / 4; i++) {
            ask_one_of_many(difference, i);
            answer(0);
            verdicts_keep(&verdicts, &request, difference, 0);
        }
        for (unsigned i = 0; i < VERDICTS_COUNT / 4; i++) {
            ask_one_of_many(difference, i);
            found += verdicts_find(&verdicts, &request, difference, 1);
        }
        assert_in_range(found, VERDICTS_COUNT / 4 * 3 / 4, VERDICTS_COUNT / 4);
    }
}

static void test_what_is_not_kept(void **state)
{
    (void)state;
    ask("a", 1);
    answer(VERDICTS_HOPS_MAX + 1);
    verdicts_keep(&verdicts, &request, 1, 0);
    assert_false(verdicts_find(&verdicts, &request, 1, 1));
    answer(0);
    request.verdict.cache_ms = 0;
    verdicts_keep(&verdicts, &request, 1, 0);
    assert_false(verdicts_find(&verdicts, &request, 1, 1));
    answer(0);
    request.verdict.order = ROUTE_TRY;
    verdicts_keep(&verdicts, &request, 1, 0);
    assert_false(verdicts_find(&verdicts, &request, 1, 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_same_question, teardown),
        cmocka_unit_test_teardown(test_time_and_revision, teardown),
        cmocka_unit_test_teardown(test_other_questions, teardown),
        cmocka_unit_test_teardown(test_users_are_kept_apart, teardown),
        cmocka_unit_test_teardown(test_many_are_kept, teardown),
        cmocka_unit_test_teardown(test_what_is_not_kept, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
