/* Where usage is kept, as text: what is refused leaves all as it was; what is accepted is within bounds, and its text
 * for people has no password in it. */
#include "fuzz/check.h"
#include "protocols/usage_text.h"

#define INPUT_SIZE_MAX 4096u

static void check_usage(const struct usage_text *u)
{
    char text[USAGE_TEXT_SIZE];
    size_t size = usage_text_format(u, text, sizeof text);
    assert(size == strlen(text) && size < sizeof text);
    if (u->kind == USAGE_SQLITE) {
        assert(size == strlen(u->path) + 7 && strcmp(text + 7, u->path) == 0 && !*u->ca);
        return;
    }
    check_address(&u->address);
    assert(u->address.port != 0 && u->db <= USAGE_REDIS_DB && !*u->path && (u->tls || !*u->ca));
    struct usage_text again;
    assert(usage_text_parse(text, size, &again) == NULL);
    assert(again.tls == u->tls && again.db == u->db && address_equal(&again.address, &u->address));
    assert(!again.credentials.present);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static union {
        struct usage_text usage;
        uint8_t octets[sizeof(struct usage_text)];
    } given, before;
    if (size > INPUT_SIZE_MAX) size = INPUT_SIZE_MAX;
    uint8_t *copy = check_copy(data, size);
    if (copy == NULL) return 0;
    memset(given.octets, 0xa5, sizeof given.octets);
    memcpy(before.octets, given.octets, sizeof given.octets);
    const char *wrong = usage_text_parse((const char *)copy, size, &given.usage);
    if (wrong)
        assert(wrong[0] != '\0' && memcmp(given.octets, before.octets, sizeof before.octets) == 0);
    else
        check_usage(&given.usage);
    free(copy);
    return 0;
}
