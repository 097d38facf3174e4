/* Limits as text: what is accepted is written out and read as the same again; what is refused leaves all as it was. */
#include "fuzz/check.h"
#include "protocols/limit_text.h"

#define INPUT_SIZE_MAX 2048u

static void try_key(const char *text, size_t size)
{
    char out[LIMIT_KEY_TEXT_SIZE];
    struct limit_key key, again;
    memset(&key, 0xa5, sizeof key);
    again = key;
    const char *wrong = limit_key_parse(text, size, &key);
    if (wrong) {
        assert(wrong[0] != '\0' && memcmp(&key, &again, sizeof key) == 0);
        return;
    }
    size_t length = limit_key_format(&key, out, sizeof out);
    assert(length == strlen(out) && length > 0);
    for (size_t i = 0; i < length; i++) assert(out[i] > ' ' && out[i] < 0x7f);
    assert(limit_key_parse(out, length, &again) == NULL);
    assert(limit_key_equal(&key, &again));
}

static void check_terms(const struct limit_terms *terms)
{
    char out[LIMIT_TERMS_TEXT_SIZE];
    struct limit_terms again;
    size_t length = limit_terms_format(terms, out, sizeof out);
    assert(length == strlen(out));
    assert(!limit_terms_are_empty(terms) && limit_terms_check(terms) == NULL);
    assert(limit_terms_parse(out, length, &again) == NULL);
    assert(limit_terms_equal(terms, &again));
    for (unsigned d = 0; d < LIMIT_DIRECTIONS; d++) {
        assert(terms->speed[d] <= LIMIT_SPEED_MAX && terms->period[d] < LIMIT_PERIODS);
        assert(terms->quota[d] == LIMIT_QUOTA_NONE || terms->quota[d] <= LIMIT_QUOTA_MAX);
    }
}

static void try_terms(const char *text, size_t size)
{
    union {
        struct limit_terms terms;
        uint8_t octets[sizeof(struct limit_terms)];
    } given, before;
    memset(before.octets, 0xa5, sizeof before.octets);
    given = before;
    const char *wrong = limit_terms_parse(text, size, &given.terms);
    if (wrong)
        assert(wrong[0] != '\0' && memcmp(given.octets, before.octets, sizeof before.octets) == 0);
    else
        check_terms(&given.terms);
}

static void try_limit(const char *text, size_t size)
{
    struct limit_key key;
    struct limit_terms terms;
    if (limit_parse(text, size, &key, &terms) == NULL) check_terms(&terms);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > INPUT_SIZE_MAX) size = INPUT_SIZE_MAX;
    uint8_t *copy = check_copy(data, size);
    if (copy == NULL) return 0;
    try_key((const char *)copy, size);
    try_terms((const char *)copy, size);
    try_limit((const char *)copy, size);
    free(copy);
    return 0;
}
