/* Lines of a file of users: what is accepted has whole parts within the line, and reads the same once more. */
#include "fuzz/check.h"
#include "protocols/users_text.h"

#define INPUT_SIZE_MAX 4096u

static void check_span(struct users_span span, const char *text, size_t size)
{
    assert(span.text >= text && span.text + span.size <= text + size);
}

static bool is_same(struct users_span a, struct users_span b)
{
    return a.size == b.size && memcmp(a.text, b.text, a.size) == 0;
}

static size_t put(char *out, size_t at, struct users_span span, char end)
{
    memcpy(out + at, span.text, span.size);
    out[at + span.size] = end;
    return at + span.size + 1;
}

/* Written without the blanks that may stand around each part. */
static void check_again(const struct users_line *line)
{
    char text[USERS_LINE_MAX + 4];
    struct users_line again;
    size_t size = put(text, 0, line->name, ':');
    size = put(text, size, line->hash, ':');
    size = put(text, size, line->groups, ':');
    size = put(text, size, line->limit, '\0') - 1;
    assert(size <= USERS_LINE_MAX + 3);
    const char *wrong = users_parse_line(text, size, &again);
    if (wrong) {
        assert(size > USERS_LINE_MAX); /* the colons in front of parts that are left out have made it too long */
        return;
    }
    assert(is_same(line->name, again.name) && is_same(line->hash, again.hash));
    assert(is_same(line->groups, again.groups) && is_same(line->limit, again.limit));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct users_line line;
    if (size > INPUT_SIZE_MAX) size = INPUT_SIZE_MAX;
    uint8_t *copy = check_copy(data, size);
    if (copy == NULL) return 0;
    const char *text = (const char *)copy, *wrong = users_parse_line(text, size, &line);
    if (wrong) {
        assert(wrong[0] != '\0');
    } else if (line.name.size > 0) {
        check_span(line.name, text, size);
        check_span(line.hash, text, size);
        check_span(line.groups, text, size);
        check_span(line.limit, text, size);
        assert(line.name.size <= USERS_NAME_MAX && line.hash.size <= USERS_HASH_MAX && line.hash.size > 0);
        check_again(&line);
    }
    free(copy);
    return 0;
}
