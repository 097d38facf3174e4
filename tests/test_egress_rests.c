/* core/session/egress_rests: which source addresses are left alone, and for how long. */
#include "core/session/egress_rests.h"

#include "tests/support.h"

static struct egress_rests rests;

static struct host_port host(uint8_t last, uint16_t port)
{
    return (struct host_port){.kind = ADDRESS_IPV4, .port = port, .octets = {192, 0, 2, last}};
}

static int setup(void **state)
{
    (void)state;
    rests = (struct egress_rests){0};
    return 0;
}

static void test_one_that_has_gone(void **state)
{
    struct host_port one = host(1, 0), other = host(2, 0);
    (void)state;
    assert_false(egress_rests(&rests, &one, 1000));
    assert_true(egress_rests_begin(&rests, &one, 1000));
    assert_true(egress_rests(&rests, &one, 1000));
    assert_false(egress_rests(&rests, &other, 1000));
    assert_false(egress_rests_begin(&rests, &one, 2000)); /* it does already, and not longer for that */
    assert_true(egress_rests(&rests, &one, 1000 + EGRESS_REST_MS - 1));
    assert_false(egress_rests(&rests, &one, 1000 + EGRESS_REST_MS));
    assert_true(egress_rests_begin(&rests, &one, 1000 + EGRESS_REST_MS));
    egress_rests_note_answer(&rests, &one); /* of a connection from before */
    assert_false(egress_rests(&rests, &one, 1001 + EGRESS_REST_MS));
}

/* A dead target says nothing of the address, several in a row do. */
static void test_targets_that_do_not_answer(void **state)
{
    struct host_port one = host(1, 0), target = host(100, 80);
    (void)state;
    for (unsigned i = 0; i < 20; i++) assert_false(egress_rests_note_timeout(&rests, &one, &target, i));
    for (uint16_t i = 1; i < EGRESS_TIMEOUTS_MAX - 1; i++) {
        target.port++;
        assert_false(egress_rests_note_timeout(&rests, &one, &target, 100));
    }
    egress_rests_note_answer(&rests, &one);
    for (uint16_t i = 1; i < EGRESS_TIMEOUTS_MAX; i++) {
        target.octets[3]++;
        assert_false(egress_rests_note_timeout(&rests, &one, &target, 200));
        assert_false(egress_rests(&rests, &one, 200));
    }
    target.octets[3]++;
    assert_true(egress_rests_note_timeout(&rests, &one, &target, 300));
    assert_true(egress_rests(&rests, &one, 300));
    assert_false(egress_rests(&rests, &one, 300 + EGRESS_REST_MS));
    for (uint16_t i = 1; i < EGRESS_TIMEOUTS_MAX; i++) { /* begins anew */
        target.octets[3]++;
        assert_false(egress_rests_note_timeout(&rests, &one, &target, 400 + EGRESS_REST_MS));
    }
}

/* Of many that fail the latest are known; none of them is taken for another. */
static void test_many(void **state)
{
    unsigned known = 0;
    (void)state;
    for (unsigned i = 0; i < 250; i++) {
        struct host_port source = host((uint8_t)i, 0);
        assert_false(egress_rests(&rests, &source, 0));
        egress_rests_begin(&rests, &source, 0);
        assert_true(egress_rests(&rests, &source, 0));
    }
    for (unsigned i = 0; i < 250; i++) {
        struct host_port source = host((uint8_t)i, 0);
        known += egress_rests(&rests, &source, 0);
    }
    assert_in_range(known, EGRESS_REST_PLACES / 2, EGRESS_REST_PLACES);
    struct host_port six = {.kind = ADDRESS_IPV6, .octets = {192, 0, 2, 249}};
    assert_false(egress_rests(&rests, &six, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_one_that_has_gone, setup),
        cmocka_unit_test_setup(test_targets_that_do_not_answer, setup),
        cmocka_unit_test_setup(test_many, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
