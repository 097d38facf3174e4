#include "tests/support.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static size_t page_size(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

static size_t round_to_pages(size_t size)
{
    return (size + page_size() - 1) / page_size() * page_size();
}

uint8_t *support_guard(const void *data, size_t size)
{
    size_t readable = round_to_pages(size);
    uint8_t *base = mmap(NULL, readable + page_size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) abort();
    if (mprotect(base + readable, page_size(), PROT_NONE) != 0) abort();
    uint8_t *copy = base + readable - size;
    if (size > 0) memcpy(copy, data, size);
    return copy;
}

void support_unguard(uint8_t *copy, size_t size)
{
    size_t readable = round_to_pages(size);
    if (munmap(copy + size - readable, readable + page_size()) != 0) abort();
}

unsigned support_count_descriptors(void)
{
    unsigned count = 0;
    DIR *folder = opendir("/proc/self/fd");
    assert_non_null(folder);
    while (readdir(folder)) count++;
    closedir(folder);
    return count;
}

unsigned support_slow(void)
{
    const char *given = getenv("SLUICE_TEST_SLOW");
    unsigned long factor = given ? strtoul(given, NULL, 10) : 1;
    return factor >= 1 && factor <= 1000 ? (unsigned)factor : 1;
}

/* The octets of the context as the test set them up. */
struct snapshot {
    void *context;
    size_t size;
    uint8_t *octets;
};

static struct snapshot take_snapshot(void *context, size_t size)
{
    struct snapshot snapshot = {context, size, malloc(size + 1)};
    if (snapshot.octets == NULL) abort();
    if (size > 0) memcpy(snapshot.octets, context, size);
    return snapshot;
}

static void put_back(const struct snapshot *snapshot)
{
    if (snapshot->size > 0) memcpy(snapshot->context, snapshot->octets, snapshot->size);
}

static void drop_snapshot(struct snapshot *snapshot)
{
    put_back(snapshot);
    free(snapshot->octets);
}

/* Calls the parser on octets that are guarded already. */
static enum parse_result run_guarded(support_parse *parse, const uint8_t *data, size_t size, void *context,
                                     size_t *used)
{
    *used = 0;
    enum parse_result result = parse(data, size, context, used);
    assert_in_range(result, PARSE_OK, PARSE_TOO_LARGE);
    assert_in_range(*used, 0, result == PARSE_OK ? size : 0);
    return result;
}

enum parse_result support_run(support_parse *parse, const void *data, size_t size, void *context, size_t *used)
{
    size_t ignored;
    uint8_t *copy = support_guard(data, size);
    enum parse_result result = run_guarded(parse, copy, size, context, used != NULL ? used : &ignored);
    support_unguard(copy, size);
    return result;
}

static void expect_more(support_parse *parse, const void *data, size_t size, void *context)
{
    if (support_run(parse, data, size, context, NULL) != PARSE_MORE)
        fail_msg("the first %zu octets do not answer MORE", size);
}

static void expect_whole(support_parse *parse, const void *data, size_t size, size_t message_size, void *context)
{
    size_t used;
    assert_int_equal(support_run(parse, data, size, context, &used), PARSE_OK);
    assert_int_equal(used, message_size);
}

/* What follows a message is the next one's or the payload; two unlike fillers, so that no value is special by luck. */
static void expect_indifference(support_parse *parse, const void *data, size_t size, const struct snapshot *before)
{
    static const uint8_t fillers[] = {0x00, 0xff, 'a', '\n'};
    uint8_t *longer = malloc(size + 3);
    if (longer == NULL) abort();
    memcpy(longer, data, size);
    for (size_t i = 0; i < sizeof(fillers); i++) {
        memset(longer + size, fillers[i], 3);
        put_back(before);
        expect_whole(parse, longer, size + 3, size, before->context);
    }
    free(longer);
}

void support_check_prefixes(support_parse *parse, const void *data, size_t size, void *context, size_t context_size)
{
    struct snapshot before = take_snapshot(context, context_size);
    for (size_t prefix = 0; prefix < size; prefix++) {
        expect_more(parse, data, prefix, context);
        put_back(&before);
    }
    expect_whole(parse, data, size, size, context);
    expect_indifference(parse, data, size, &before);
    drop_snapshot(&before);
}

void support_check_splits(support_parse *parse, const void *data, size_t size, void *context, size_t context_size)
{
    struct snapshot before = take_snapshot(context, context_size);
    for (size_t cut = 0; cut < size; cut++) {
        expect_more(parse, data, cut, context);
        expect_whole(parse, data, size, size, context);
        put_back(&before);
    }
    for (size_t received = 0; received < size; received++) expect_more(parse, data, received, context);
    expect_whole(parse, data, size, size, context);
    drop_snapshot(&before);
}

/* One position, all values. `whole` is guarded; the beginning, which ends with the wrong octet, has a guard of its own.
 * A parser may write to what it has accepted: each gets its octets anew. */
static void check_position(support_parse *parse, const void *data, uint8_t *whole, size_t size, size_t at,
                           const struct snapshot *before)
{
    uint8_t *beginning = support_guard(data, at + 1);
    for (unsigned value = 0; value <= UINT8_MAX; value++) {
        size_t used_early, used;
        memcpy(beginning, data, at + 1);
        memcpy(whole, data, size);
        beginning[at] = whole[at] = (uint8_t)value;
        put_back(before);
        enum parse_result early = run_guarded(parse, beginning, at + 1, before->context, &used_early);
        put_back(before);
        enum parse_result late = run_guarded(parse, whole, size, before->context, &used);
        if (early == PARSE_MORE) continue;
        if (early != late || used_early != used)
            fail_msg("octet %zu as 0x%02x: answer %d becomes %d when more is there", at, value, early, late);
    }
    support_unguard(beginning, at + 1);
}

void support_check_wrong_octets(support_parse *parse, const void *data, size_t size, void *context, size_t context_size)
{
    struct snapshot before = take_snapshot(context, context_size);
    uint8_t *whole = support_guard(data, size);
    for (size_t at = 0; at < size; at++) check_position(parse, data, whole, size, at, &before);
    support_unguard(whole, size);
    drop_snapshot(&before);
}
