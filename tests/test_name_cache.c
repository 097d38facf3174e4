/* Remembered names: the same name and family only, for their time, a second at most, and their revision only. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "core/session/name_cache.h"

static struct name_cache cache;
static struct resolve_request request;

static void ask(const char *name, int family)
{
    memset(&request, 0, sizeof request);
    request.family = family;
    assert_true(address_from_host(name, strlen(name), 443, &request.name));
}

static void answer(const char *name, uint32_t count, uint32_t keep_ms)
{
    ask(name, AF_UNSPEC);
    request.keep_ms = keep_ms;
    request.revision = 3;
    request.count = count;
    for (uint32_t i = 0; i < count; i++)
        request.results[i] = (struct resolve_result){.kind = ADDRESS_IPV4, .octets = {10, 0, 0, (uint8_t)(i + 1)}};
    name_cache_keep(&cache, &request, 5000);
}

static bool finds(const char *name, int family, uint64_t revision, uint64_t now_ms)
{
    ask(name, family);
    return name_cache_find(&cache, &request, revision, now_ms);
}

static int teardown(void **state)
{
    (void)state;
    name_cache_close(&cache);
    return 0;
}

static void test_same_name(void **state)
{
    (void)state;
    assert_false(finds("a.example", AF_UNSPEC, 3, 5000));
    answer("a.example", 2, 500);
    assert_true(finds("a.example", AF_UNSPEC, 3, 5499));
    assert_int_equal(request.count, 2);
    assert_int_equal(request.results[1].kind, ADDRESS_IPV4);
    assert_int_equal(request.results[1].octets[3], 2);
    assert_false(finds("b.example", AF_UNSPEC, 3, 5000));
    assert_false(finds("a.example.", AF_UNSPEC, 3, 5000));
    assert_false(finds("a.example", AF_INET, 3, 5000));
}

static void test_time_and_revision(void **state)
{
    (void)state;
    answer("a.example", 1, 500);
    assert_false(finds("a.example", AF_UNSPEC, 3, 5500));
    assert_false(finds("a.example", AF_UNSPEC, 4, 5000));
    answer("a.example", 1, 3600000);
    assert_true(finds("a.example", AF_UNSPEC, 3, 5000 + NAME_CACHE_KEEP_MS - 1));
    assert_false(finds("a.example", AF_UNSPEC, 3, 5000 + NAME_CACHE_KEEP_MS));
}

static void test_not_kept(void **state)
{
    (void)state;
    answer("none.example", 0, 500);
    assert_false(finds("none.example", AF_UNSPEC, 3, 5000));
    answer("a.example", 1, 0);
    assert_false(finds("a.example", AF_UNSPEC, 3, 5000));
    assert_null(cache.entries);
}

/* More names than places: each one that is found has its own addresses. */
static void test_displaced(void **state)
{
    char name[32];
    unsigned found = 0;
    (void)state;
    for (uint32_t i = 0; i < 3 * NAME_CACHE_COUNT; i++) {
        snprintf(name, sizeof name, "n%u.example", (unsigned)i);
        answer(name, i % RESOLVE_ADDRESSES_MAX + 1, 500);
    }
    for (uint32_t i = 0; i < 3 * NAME_CACHE_COUNT; i++) {
        snprintf(name, sizeof name, "n%u.example", (unsigned)i);
        if (!finds(name, AF_UNSPEC, 3, 5000)) continue;
        assert_int_equal(request.count, i % RESOLVE_ADDRESSES_MAX + 1);
        found++;
    }
    assert_in_range(found, NAME_CACHE_COUNT / 2, NAME_CACHE_COUNT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_same_name, teardown),
        cmocka_unit_test_teardown(test_time_and_revision, teardown),
        cmocka_unit_test_teardown(test_not_kept, teardown),
        cmocka_unit_test_teardown(test_displaced, teardown),
    };
    return cmocka_run_group_tests_name("name_cache", tests, NULL, NULL);
}
