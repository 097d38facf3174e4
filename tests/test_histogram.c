/* Histograms: every value falls between its bucket's ends, and quantiles are close. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "core/io/histogram.h"

static void test_buckets_tile_the_line(void **state)
{
    (void)state;
    assert_int_equal(histogram_floor_us(0), 0);
    for (unsigned i = 0; i + 1 < HISTOGRAM_BUCKETS; i++) {
        uint64_t from = histogram_floor_us(i), to = histogram_floor_us(i + 1);
        assert_true(from < to);
        assert_int_equal(histogram_bucket(from), i);
        assert_int_equal(histogram_bucket(to - 1), i);
        assert_true(i < 8 || to - from <= from / 8);
    }
    assert_int_equal(histogram_bucket(UINT64_MAX), HISTOGRAM_BUCKETS - 1);
}

static void test_quantiles(void **state)
{
    static struct histogram h;
    static struct histogram_sum sum;
    (void)state;
    memset(&sum, 0, sizeof sum);
    assert_int_equal(histogram_quantile(&sum, 0.5), 0);
    for (uint64_t us = 1; us <= 1000; us++) histogram_add(&h, us);
    histogram_add_to(&sum, &h);
    assert_int_equal(sum.count, 1000);
    assert_int_equal(sum.sum_us, 500500);
    assert_int_equal(sum.max_us, 1000);
    assert_in_range(histogram_quantile(&sum, 0.5), 440, 570);
    assert_in_range(histogram_quantile(&sum, 0.9), 800, 1000);
    assert_in_range(histogram_quantile(&sum, 0.99), 920, 1000);
    assert_in_range(histogram_quantile(&sum, 1.0), 920, 1000);
}

static void test_sums_of_several(void **state)
{
    static struct histogram a, b;
    static struct histogram_sum sum;
    (void)state;
    memset(&sum, 0, sizeof sum);
    histogram_add(&a, 5);
    histogram_add(&b, 5);
    histogram_add(&b, 900000);
    histogram_add_to(&sum, &a);
    histogram_add_to(&sum, &b);
    assert_int_equal(sum.count, 3);
    assert_int_equal(sum.buckets[5], 2);
    assert_int_equal(sum.max_us, 900000);
    assert_int_equal(histogram_quantile(&sum, 0.5), 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buckets_tile_the_line),
        cmocka_unit_test(test_quantiles),
        cmocka_unit_test(test_sums_of_several),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
