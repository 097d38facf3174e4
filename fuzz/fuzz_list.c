/* Lists as text: lines lie within the text and in its order, an entry that is accepted lies within its bounds and reads
 * the same again without its blanks, and what is refused leaves all as it was. */
#include "fuzz/check.h"
#include "protocols/list_text.h"

#define INPUT_SIZE_MAX 4096u

static void check_entry(const char *text, size_t size, const struct list_entry *entry)
{
    assert(entry->kind <= LIST_ENTRY_ALL && entry->from <= entry->to && entry->bits <= 128);
    if (entry->kind == LIST_ENTRY_IPV4)
        assert(entry->bits >= 96 && entry->first.high == 0 && entry->first.low >> 32 == 0);
    if (entry->kind != LIST_ENTRY_NAME && entry->kind != LIST_ENTRY_SUFFIX) return;
    assert(entry->name >= text && entry->name_size > 0 && entry->name + entry->name_size <= text + size);
    assert(entry->name[0] != '.' && entry->name[entry->name_size - 1] != '.');
    struct list_entry again;
    assert(list_parse_entry(entry->name, entry->name_size, true, &again) == NULL);
    assert(again.kind == LIST_ENTRY_NAME && again.name_size == entry->name_size && again.foreign == entry->foreign);
}

static void try_entry(const char *text, size_t size, bool targets)
{
    union {
        struct list_entry entry;
        uint8_t octets[sizeof(struct list_entry)];
    } given, before;
    memset(before.octets, 0xa5, sizeof before.octets);
    given = before;
    const char *wrong = list_parse_entry(text, size, targets, &given.entry);
    if (wrong) {
        assert(wrong[0] != '\0' && memcmp(given.octets, before.octets, sizeof before.octets) == 0);
        return;
    }
    check_entry(text, size, &given.entry);
    if (targets) return;
    assert(!list_entry_has_ports(&given.entry) && given.entry.kind != LIST_ENTRY_NAME &&
           given.entry.kind != LIST_ENTRY_SUFFIX);
    assert(list_parse_entry(text, size, true, &before.entry) == NULL); /* what may be a client may be a target */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > INPUT_SIZE_MAX) size = INPUT_SIZE_MAX;
    uint8_t *copy = check_copy(data, size);
    if (copy == NULL) return 0;
    const char *text = (const char *)copy, *at = text, *end = text + size, *line;
    size_t line_size;
    for (const char *last = text; (line = list_next_line(&at, end, &line_size)) != NULL; last = line + line_size) {
        assert(line >= last && line + line_size <= at && at <= end);
        assert(memchr(line, '\n', line_size) == NULL && memchr(line, '#', line_size) == NULL);
        try_entry(line, line_size, true);
        try_entry(line, line_size, false);
    }
    try_entry(text, size, true);
    free(copy);
    return 0;
}
