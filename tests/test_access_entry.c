/* What stands around a line for syslog and journald. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/control/access_entry.h"
#include "tests/support.h"

static char entry[65536];

static void test_syslog(void **state)
{
    char wanted[80];
    (void)state;
    setenv("TZ", "XXX-01:00", 1);
    tzset();
    snprintf(wanted, sizeof wanted, "<14>Dec  1 00:20:05 sluice[%ld]: ", (long)getpid());
    size_t size = access_entry_syslog(entry, UINT64_C(1796080805000000));
    assert_int_equal(size, strlen(wanted));
    assert_memory_equal(entry, wanted, size);
}

/* The value of a field that is written with its size, or NULL. */
static const char *find_value(size_t size, const char *name, uint64_t *length)
{
    size_t name_size = strlen(name);
    for (const char *at = entry; (at = memmem(at, size - (size_t)(at - entry), name, name_size)) != NULL; at++) {
        if (at == entry || at[-1] != '\n' || at[name_size] != '\n') continue;
        *length = 0;
        for (unsigned i = 0; i < 8; i++) *length |= (uint64_t)(uint8_t)at[name_size + 1 + i] << 8u * i;
        return at + name_size + 9;
    }
    return NULL;
}

static void test_journald(void **state)
{
    static char huge[2048];
    struct access_record record = {.event = "end", .user = {"a\nMESSAGE=b\xff", 12}, .total_us = ACCESS_NONE};
    uint64_t length;
    (void)state;
    memset(huge, 1, sizeof huge);
    record.path = (struct access_text){huge, sizeof huge};
    size_t size = access_entry_journald(ACCESS_JSON, NULL, &record, entry, sizeof entry);
    assert_true(size <= sizeof entry && entry[size - 1] == '\n');
    assert_memory_equal(entry, "PRIORITY=6\nSYSLOG_IDENTIFIER=sluice\n", 36);
    const char *value = find_value(size, "SLUICE_USER", &length);
    assert_non_null(value);
    assert_int_equal(length, 12);
    assert_memory_equal(value, "a\nMESSAGE=b\xff\n", 13);
    value = find_value(size, "SLUICE_PATH", &length);
    assert_non_null(value);
    assert_int_equal(length, sizeof huge);
    assert_null(find_value(size, "SLUICE_TOTAL_US", &length));
    value = find_value(size, "MESSAGE", &length);
    assert_non_null(value);
    assert_memory_equal(value, "{\"time\":", 8);
    assert_ptr_equal(value + length + 1, entry + size);
    assert_int_equal(value[length - 1], '}');
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_syslog), cmocka_unit_test(test_journald)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
