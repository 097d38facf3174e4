/* What the API keeps and what it lets through: the history's rings, the last minute, lines that scripts add to a
 * scrape. */
#include <jansson.h>
#include <string.h>

#include "api/exposition.h"
#include "api/history.h"
#include "tests/support.h"

static struct history history;
static struct snapshot now;

static void begin(void)
{
    memset(&now, 0, sizeof now);
    history_init(&history);
}

static void measure(struct histogram_sum *sum, uint64_t us, unsigned times)
{
    sum->buckets[histogram_bucket(us)] += times;
    sum->count += times;
    sum->sum_us += us * times;
    if (us > sum->max_us) sum->max_us = us;
}

static json_t *dump(void)
{
    struct text text = {0};
    json_error_t error;
    history_write_json(&history, &now, &text);
    assert_false(text.failed);
    json_t *all = json_loads(text.data, 0, &error);
    assert_non_null(all);
    text_free(&text);
    return all;
}

static json_t *column(json_t *all, const char *ring, const char *name)
{
    json_t *values = json_object_get(json_object_get(all, ring), name);
    assert_true(json_is_array(values));
    return values;
}

/* Two and a half hours of seconds: the newest are kept, each ring in order and without a hole. */
static void test_rings(void **state)
{
    (void)state;
    begin();
    json_t *all = dump();
    assert_int_equal(json_array_size(column(all, "seconds", "uptime")), 0);
    json_decref(all);
    for (unsigned second = 1; second <= 9000; second++) {
        now.uptime = second;
        now.bytes_up = 10 * second;
        now.failures[FAIL_REFUSED] = second;
        now.failures[FAIL_RESOLVE] = second;
        now.failures[FAIL_CLIENT_RESET] = second; /* of a success */
        now.active = second % 7;
        history_add(&history, &now);
    }
    all = dump();
    json_t *uptime = column(all, "seconds", "uptime"), *up = column(all, "seconds", "bytes_up");
    assert_int_equal(json_array_size(uptime), HISTORY_SECONDS);
    for (size_t i = 0; i < HISTORY_SECONDS; i++) {
        assert_true(json_number_value(json_array_get(uptime, i)) == (double)(9000 - HISTORY_SECONDS + 1 + i));
        assert_int_equal(json_integer_value(json_array_get(up, i)), 10 * (9000 - HISTORY_SECONDS + 1 + i));
    }
    assert_int_equal(json_integer_value(json_array_get(column(all, "seconds", "failures"), HISTORY_SECONDS - 1)),
                     18000);
    assert_true(json_is_null(json_array_get(column(all, "seconds", "connect_p50"), 0)));
    uptime = column(all, "minutes", "uptime");
    assert_int_equal(json_array_size(uptime), HISTORY_MINUTES);
    for (size_t i = 1; i < HISTORY_MINUTES; i++)
        assert_true(json_number_value(json_array_get(uptime, i)) - json_number_value(json_array_get(uptime, i - 1)) ==
                    60);
    assert_true(json_number_value(json_array_get(uptime, HISTORY_MINUTES - 1)) > 9000 - 60);
    json_decref(all);
}

/* A minute of good connections behind an hour of bad ones: only the minute is shown. */
static void test_last_minute(void **state)
{
    struct histogram_sum connect, decision;
    (void)state;
    begin();
    for (unsigned second = 1; second <= 200; second++) {
        now.uptime = second;
        measure(&now.connect, second <= 100 ? 2000000 : 1000, 10);
        history_add(&history, &now);
    }
    history_last_minute(&history, &now, &connect, &decision);
    assert_true(connect.count >= 600 && connect.count <= 650);
    assert_int_equal(decision.count, 0);
    assert_int_equal(histogram_quantile(&decision, 0.99), 0);
    assert_true(histogram_quantile(&connect, 0.99) < 1200);
    assert_true(connect.max_us >= 1000 && connect.max_us < 1200);
    assert_true(histogram_quantile(&now.connect, 0.99) > 1000000); /* since the start */
    assert_true(connect.sum_us == connect.count * 1000);
    now.uptime += 300; /* nothing was sampled: Lua has held the thread; the newest slot is the beginning */
    history_last_minute(&history, &now, &connect, &decision);
    assert_true(connect.count <= 50);
}

static void test_lines_of_scripts(void **state)
{
    static const char *const good[] = {"",
                                       "# anything at all",
                                       "#",
                                       "# HELP a_b what it is \\\\ \\n",
                                       "# HELP a",
                                       "# TYPE a counter",
                                       "#TYPE a:b gauge",
                                       "a 1",
                                       "a{} 1",
                                       "a{b=\"c\"} 1.5e-7",
                                       "a{b=\"\",c=\"\\\\\\\"\\n\",} NaN",
                                       "a { b = \"c\" , d = \"e\" } +Inf 1395066363000",
                                       "a\t-1 -5",
                                       "a{b=\"\303\244 { } # , =\"} 0",
                                       "a{b=\"\302\200\337\277\"} 0",
                                       "a{b=\"\340\240\200\355\237\277\356\200\200\357\277\277\"} 0",
                                       "a{b=\"\360\220\200\200\364\217\277\277\"} 0"};
    static const char *const wrong[] = {
        "a", "1", "a 1 2 3", "a one", "a 0x10", "a 1,5", "a 1 1.5", "1a 1", "a{b=c} 1", "a{b=\"c} 1", "a{b=\"c\"",
        "a{b=\"\\t\"} 1", "a{1b=\"c\"} 1", "a{b=\"c\" d=\"e\"} 1", "a{b=\"c\"}", "a{b:c=\"c\"} 1", "# TYPE a thing",
        "# TYPE a", "# TYPE a counter more", "# HELP 1 x", "# HELP a \\t", "a 1\r", "a{b=\"\377\"} 1",
        "a{b=\"\303\"} 1", "a{b=\"\355\240\200\"} 1",
        /* neighbours of the first and last characters of each length in UTF-8 */
        "a{b=\"\301\277\"} 1", "a{b=\"\340\237\277\"} 1", "a{b=\"\360\217\277\277\"} 1", "a{b=\"\364\220\200\200\"} 1",
        "a{b=\"\365\200\200\200\"} 1", "a-b 1", "a --1", "a .", "<html>"};
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        if (!exposition_is_sound(good[i], strlen(good[i]))) fail_msg("%s", good[i]);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        if (exposition_is_sound(wrong[i], strlen(wrong[i]))) fail_msg("%s", wrong[i]);
    assert_false(exposition_is_sound("a 1\0", 4));
}

static void test_adding_lines(void **state)
{
    struct text out = {0};
    static const char lines[] =
        "# TYPE mine counter\nmine 1\nbroken\n# TYPE mine gauge\n# HELP ours again\nours 5\nours_sum 5\n"
        "mine_too{a=\"b\"} 2\nours_more 3\nlast 7";
    (void)state;
    text_printf(&out, "# HELP ours x\n# TYPE ours summary\nours 1\n");
    assert_int_equal(exposition_add(&out, lines, sizeof lines - 1), 5);
    assert_string_equal(out.data,
                        "# HELP ours x\n# TYPE ours summary\nours 1\n# TYPE mine counter\nmine 1\nmine_too{a=\"b\"} 2\n"
                        "ours_more 3\nlast 7\n");
    assert_int_equal(exposition_add(&out, "", 0), 0);
    text_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rings),
        cmocka_unit_test(test_last_minute),
        cmocka_unit_test(test_lines_of_scripts),
        cmocka_unit_test(test_adding_lines),
    };
    return cmocka_run_group_tests_name("history", tests, NULL, NULL);
}
