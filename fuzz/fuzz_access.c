/* Templates and texts of the access log: whatever an operator writes is refused or usable, and whatever a peer has
 * chosen leaves each line one line of what its format allows. */
#include "fuzz/check.h"
#include "protocols/access_text.h"

#define INPUT_SIZE_MAX 4096u

static char line[65536];

/* All of it printable; UTF-8 in JSON's strings is looked at by tests/test_access_text.c. */
static void check_line(size_t size, bool ascii)
{
    assert(size <= sizeof line);
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)line[i];
        assert(c >= 0x20 && c != 0x7f && (!ascii || c < 0x80));
    }
}

/* Quotes come in pairs, braces stand at both ends alone, and each escape is one of RFC 8259. */
static void check_json(size_t size)
{
    bool inside = false;
    assert(size > 2 && line[0] == '{' && line[size - 1] == '}');
    for (size_t i = 1; i + 1 < size; i++) {
        if (inside && line[i] == '\\') {
            assert(line[i + 1] == '"' || line[i + 1] == '\\' || line[i + 1] == 'u');
            i++;
        } else if (line[i] == '"') {
            inside = !inside;
        } else {
            assert(inside || (line[i] != '{' && line[i] != '}'));
        }
    }
    assert(!inside);
}

static struct access_record record_of(const char *text, uint32_t size)
{
    uint32_t third = size / 3;
    return (struct access_record){.event = "end",
                                  .user = {text, third},
                                  .target = {text + third, third},
                                  .path = {text + 2 * third, size - 2 * third},
                                  .method = {text, size > 3 ? 3 : size},
                                  .status = (uint16_t)size,
                                  .time_us = (uint64_t)size << 40,
                                  .total_us = ACCESS_NONE,
                                  .worker = size % 2 ? ACCESS_NO_ID : size,
                                  .suppressed = size % 3};
}

/* A template's own text may be anything but controls. */
static void try_template(const char *text, const struct access_record *record)
{
    struct access_template template;
    const char *bad;
    size_t bad_size;
    const char *wrong = access_template_parse(text, &template, &bad, &bad_size);
    if (wrong) {
        assert(wrong[0] != '\0' && (bad_size == 0 || (bad >= text && bad + bad_size <= text + strlen(text))));
        return;
    }
    assert(template.count > 0 && template.count <= ACCESS_TEMPLATE_PARTS);
    check_line(access_write(ACCESS_TEMPLATE, &template, record, line, ACCESS_LINE_MIN), false);
    check_line(access_write(ACCESS_TEMPLATE, &template, record, line, sizeof line), false);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > INPUT_SIZE_MAX) size = INPUT_SIZE_MAX;
    char *copy = (char *)check_copy(data, size), *text = calloc(size + 1, 1);
    if (size > 0) memcpy(text, data, size);
    struct access_record record = record_of(copy, (uint32_t)size);
    for (size_t room = ACCESS_LINE_MIN; room <= sizeof line; room *= 10) {
        size_t used = access_write(ACCESS_JSON, NULL, &record, line, room);
        check_line(used, false);
        check_json(used);
        check_line(access_write(ACCESS_LOGFMT, NULL, &record, line, room), false);
        check_line(access_write(ACCESS_CLF, NULL, &record, line, room), true);
    }
    try_template(text, &record);
    free(text);
    free(copy);
    return 0;
}
