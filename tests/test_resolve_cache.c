/* core/resolver/resolve_cache alone: no network, and a clock of our own. */
#include "core/resolver/resolve_cache.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

enum { KEPT_MAX = 4, OPEN_MAX = 3 };

/* As the resolver does: the entry is the front of something larger. */
struct question {
    struct cache_entry entry;
    uint64_t mark;
};

static struct cache cache;

static int setup(void **state)
{
    (void)state;
    return cache_open(&cache, KEPT_MAX, OPEN_MAX, sizeof(struct question), 42);
}

static int teardown(void **state)
{
    (void)state;
    cache_close(&cache);
    return 0;
}

static struct cache_key key_of(const char *name, int family)
{
    struct cache_key key;
    assert_true(cache_key_make(&key, name, strlen(name), family));
    return key;
}

static struct cache_entry *find(const char *name, uint64_t now_ms)
{
    struct cache_key key = key_of(name, AF_INET);
    return cache_find(&cache, &key, now_ms);
}

static struct cache_entry *add(const char *name, int family)
{
    struct cache_key key = key_of(name, family);
    return cache_add(&cache, &key);
}

static struct cache_entry *keep(const char *name, int status, uint64_t expires_ms)
{
    struct cache_entry *entry = add(name, AF_INET);
    assert_non_null(entry);
    entry->status = status;
    entry->count = status == 0;
    cache_keep(&cache, entry, expires_ms);
    return entry;
}

static void test_open_and_kept(void **state)
{
    (void)state;
    assert_null(find("a.test", 0));
    struct cache_entry *entry = add("a.test", AF_INET);
    assert_non_null(entry);
    assert_true(cache_is_open(entry));
    assert_ptr_equal(find("a.test", UINT64_MAX), entry); /* while it is asked no time passes for it */
    assert_int_equal(cache.open_count, 1);
    assert_int_equal(cache.kept_count, 0);

    cache_keep(&cache, entry, 1000);
    assert_false(cache_is_open(entry));
    assert_ptr_equal(find("a.test", 1), entry);
    assert_int_equal(cache.open_count, 0);
    assert_int_equal(cache.kept_count, 1);
}

static void test_ttl(void **state)
{
    (void)state;
    struct cache_entry *entry = keep("a.test", 0, 1000);
    keep("b.test", 0, 2000);
    assert_ptr_equal(find("a.test", 999), entry);
    assert_null(find("a.test", 1000));
    assert_int_equal(cache.kept_count, 1); /* what was found stale is gone */
    assert_null(find("a.test", 0));
    assert_non_null(find("b.test", 1000));
}

static void test_negative(void **state)
{
    (void)state;
    keep("nx.test", -ENOENT, 5000);
    const struct cache_entry *entry = find("nx.test", 4999);
    assert_non_null(entry);
    assert_int_equal(entry->status, -ENOENT);
    assert_int_equal(entry->count, 0);
    assert_null(find("nx.test", 5000));
}

static void test_case(void **state)
{
    (void)state;
    const struct cache_entry *entry = keep("Www.Example.TEST", 0, 1000);
    assert_string_equal(entry->key.name, "www.example.test");
    assert_ptr_equal(find("www.example.test", 1), entry);
    assert_ptr_equal(find("WWW.EXAMPLE.test", 1), entry);
    keep("@[`{.test", 0, 1000); /* the neighbours of the letters are none */
    assert_null(find("`{@[.test", 1));
    assert_non_null(find("@[`{.test", 1));
}

static void test_keys_differ(void **state)
{
    (void)state;
    keep("a.test", 0, 1000);
    struct cache_key other_family = key_of("a.test", AF_INET6);
    assert_null(cache_find(&cache, &other_family, 1));
    assert_null(find("a.test.", 1));
    assert_null(find("a.tes", 1));
    assert_null(find("b.test", 1));
    cache_keep(&cache, add("a.test", AF_INET6), 1000);
    assert_int_equal(cache_find(&cache, &other_family, 1)->key.family, AF_INET6);
    assert_int_equal(find("a.test", 1)->key.family, AF_INET);
}

static void test_lru(void **state)
{
    (void)state;
    static const char *const names[] = {"a.test", "b.test", "c.test", "d.test"};
    for (int i = 0; i < KEPT_MAX; i++) keep(names[i], 0, 1000);
    assert_non_null(find("a.test", 1)); /* the youngest again */
    keep("e.test", 0, 1000);
    assert_int_equal(cache.kept_count, KEPT_MAX);
    assert_null(find("b.test", 1));
    assert_non_null(find("c.test", 1));
    keep("f.test", 0, 1000);
    assert_null(find("d.test", 1));
    assert_non_null(find("a.test", 1));
    assert_non_null(find("c.test", 1));
    assert_non_null(find("e.test", 1));
    assert_non_null(find("f.test", 1));
}

/* What is asked at the moment has room of its own, and pays nothing to the cache. */
static void test_open_is_bounded(void **state)
{
    (void)state;
    struct cache_entry *open[OPEN_MAX];
    char name[16];
    for (int i = 0; i < KEPT_MAX; i++) {
        snprintf(name, sizeof name, "k%d.test", i);
        keep(name, 0, 1000);
    }
    for (int i = 0; i < OPEN_MAX; i++) {
        snprintf(name, sizeof name, "o%d.test", i);
        open[i] = add(name, AF_INET);
        assert_non_null(open[i]);
    }
    assert_null(add("more.test", AF_INET));
    assert_int_equal(cache.kept_count, KEPT_MAX);
    assert_non_null(find("k0.test", 1));
    cache_drop(&cache, open[0]); /* nothing was answered */
    assert_null(find("o0.test", 1));
    open[0] = add("more.test", AF_INET);
    assert_non_null(open[0]);
    for (int i = 0; i < OPEN_MAX; i++) cache_drop(&cache, open[i]);
}

static void test_clear(void **state)
{
    (void)state;
    struct cache_entry *open = add("open.test", AF_INET);
    keep("a.test", 0, 1000);
    keep("b.test", -ENOENT, 1000);
    cache_clear(&cache);
    assert_int_equal(cache.kept_count, 0);
    assert_null(find("a.test", 1));
    assert_null(find("b.test", 1));
    assert_ptr_equal(find("open.test", 1), open);
    cache_drop(&cache, open);
}

/* An entry in memory of an earlier one carries nothing over, the owner's part included. */
static void test_fresh_memory(void **state)
{
    (void)state;
    struct cache_entry *entry = add("a.test", AF_INET);
    ((struct question *)entry)->mark = 7;
    entry->status = -EIO;
    entry->count = 3;
    cache_drop(&cache, entry);
    struct cache_entry *again = add("b.test", AF_INET);
    assert_ptr_equal(again, entry);
    assert_true(((struct question *)again)->mark == 0);
    assert_int_equal(again->status, 0);
    assert_int_equal(again->count, 0);
    assert_true(cache_is_open(again));
    cache_drop(&cache, again);
}

/* Many more names than buckets: chains are walked and unlinked in the middle. */
static void test_long_chains(void **state)
{
    (void)state;
    enum { NAMES = 3 * CACHE_BUCKETS };
    struct cache large;
    struct cache_key key;
    char name[16];
    assert_int_equal(cache_open(&large, NAMES, 1, sizeof(struct cache_entry), 1), 0);
    for (unsigned i = 0; i < NAMES; i++) {
        snprintf(name, sizeof name, "n%u.test", i);
        key = key_of(name, AF_INET);
        assert_null(cache_find(&large, &key, 1));
        cache_keep(&large, cache_add(&large, &key), i % 2 == 0 ? 10 : 20);
    }
    for (unsigned i = 0; i < NAMES; i++) { /* at this time the even ones have gone */
        snprintf(name, sizeof name, "n%u.test", i);
        key = key_of(name, AF_INET);
        const struct cache_entry *entry = cache_find(&large, &key, 15);
        assert_true((entry != NULL) == (i % 2 != 0));
        if (entry != NULL) assert_string_equal(entry->key.name, name);
    }
    assert_int_equal(large.kept_count, NAMES / 2);
    cache_close(&large);
}

static bool is_name(const char *name, size_t size)
{
    struct cache_key key;
    return cache_key_make(&key, name, size, AF_INET);
}

static void test_names(void **state)
{
    (void)state;
    static const char *const bad[] = {"",    ".",    "..",    "a..b",        ".a",   "a..",
                                      "a b", "a\tb", "a\\.b", "caf\xc3\xa9", "a\x7f"};
    char text[CACHE_NAME_MAX + 3];
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) assert_false(is_name(bad[i], strlen(bad[i])));
    assert_false(is_name("a\0b", 3));
    assert_true(is_name("a", 1));
    assert_true(is_name("a.", 2));

    memset(text, 'a', sizeof text);
    assert_true(is_name(text, CACHE_LABEL_MAX));
    assert_false(is_name(text, CACHE_LABEL_MAX + 1));
    for (size_t i = 1; i < sizeof text; i += 2) text[i] = '.';
    assert_true(is_name(text, CACHE_NAME_MAX));
    assert_true(is_name(text, CACHE_NAME_MAX + 1)); /* with the final dot */
    assert_false(is_name(text, CACHE_NAME_MAX + 2));
}

static void test_close_what_is_not_open(void **state)
{
    (void)state;
    struct cache never = {.kept_count = 0};
    cache_close(&never);
    assert_null(never.buckets);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_open_and_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ttl, setup, teardown),
        cmocka_unit_test_setup_teardown(test_negative, setup, teardown),
        cmocka_unit_test_setup_teardown(test_case, setup, teardown),
        cmocka_unit_test_setup_teardown(test_keys_differ, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lru, setup, teardown),
        cmocka_unit_test_setup_teardown(test_open_is_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(test_clear, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fresh_memory, setup, teardown),
        cmocka_unit_test(test_long_chains),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_close_what_is_not_open),
    };
    return cmocka_run_group_tests_name("resolve_cache", tests, NULL, NULL);
}
