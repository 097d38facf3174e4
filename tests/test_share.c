/* Who holds a pool's slots: nobody is bounded while there are enough, and nobody can take the last ones. */
#include <string.h>

#include "core/io/pool.h"
#include "core/io/share.h"
#include "tests/support.h"

#define COUNT 64u

struct world {
    struct pool pool;
    struct share share;
};

static int set_up(void **state)
{
    static struct world world;
    assert_int_equal(pool_open(&world.pool, COUNT, 64), 0);
    assert_int_equal(share_open(&world.share, COUNT), 0);
    *state = &world;
    return 0;
}

static int tear_down(void **state)
{
    struct world *world = *state;
    share_close(&world->share);
    pool_close(&world->pool);
    return 0;
}

static struct share_source source(uint8_t number)
{
    return (struct share_source){.octets = {192, 0, 2, number}, .size = 4};
}

/* How many of `wanted` it gets. */
static uint32_t take(struct world *world, struct share_source from, uint32_t wanted)
{
    uint32_t got = 0;
    while (got < wanted && share_take(&world->share, &world->pool, &from) != POOL_NONE) got++;
    return got;
}

static void test_one_source(void **state)
{
    assert_int_equal(take(*state, source(1), 1000), COUNT / 4 * 3);
}

static void test_others_get_what_is_left(void **state)
{
    assert_int_equal(take(*state, source(1), 1000), COUNT / 4 * 3);
    assert_int_equal(take(*state, source(2), 1000), COUNT / 16 + 1);
    assert_int_equal(take(*state, source(3), 1), 1);
    assert_int_equal(take(*state, source(1), 1), 0);
}

static void test_many_sources(void **state)
{
    uint32_t got = 0;
    for (uint8_t i = 0; i < 200; i++) got += take(*state, source(i), 1);
    assert_int_equal(got, COUNT);
}

static void test_what_is_given_back_counts_no_longer(void **state)
{
    struct world *world = *state;
    struct share_source one = source(1), two = source(2);
    uint32_t slots[COUNT], count = 0;
    for (; count < 40; count++) slots[count] = share_take(&world->share, &world->pool, &one);
    assert_int_equal(take(world, two, 8), 8);
    assert_int_equal(take(world, one, 1), 0);
    while (count > 2) share_give(&world->share, &world->pool, slots[--count]);
    assert_int_equal(take(world, source(3), 30), 30);
    assert_int_equal(take(world, source(4), 30), 8); /* scarce again, and it holds enough */
    assert_int_equal(take(world, one, 10), 3);       /* it still has two */
}

/* An IPv6 customer has a network; users of this machine, who come by Unix sockets, are not bounded. */
static void test_kinds(void **state)
{
    struct share_source network = {.octets = {0x20, 1, 0xd, 0xb8, 0, 1, 0, 2}, .size = 8}, local = {.size = 0};
    assert_int_equal(take(*state, network, 1000), COUNT / 4 * 3);
    network.octets[7]++;
    assert_int_equal(take(*state, network, 1), 1);
    assert_int_equal(take(*state, local, 1000), COUNT / 4 - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_one_source, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_others_get_what_is_left, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_many_sources, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_is_given_back_counts_no_longer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_kinds, set_up, tear_down),
    };
    return cmocka_run_group_tests_name("share", tests, NULL, NULL);
}
