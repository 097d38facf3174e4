/* Groups of upstreams as text: what is accepted is within its bounds, and what names a group names nothing else. */
#include "fuzz/check.h"
#include "protocols/group_text.h"

#define INPUT_SIZE_MAX 4096u

static struct group_plan plan;

static void check_plan(void)
{
    size_t name = strlen(plan.name);
    bool plain = false;
    assert(name > 0 && name <= GROUP_NAME_MAX);
    assert(plan.count > 0 && plan.count <= GROUP_MEMBERS_MAX);
    assert(plan.tries >= 1 && plan.tries <= GROUP_TRIES_MAX && plan.fails <= GROUP_FAILS_MAX);
    assert(plan.rise >= 1 && plan.fall >= 1 && plan.timeout_ms >= 100 && plan.interval_ms >= 100);
    assert(plan.path[0] == '/' && strlen(plan.path) <= GROUP_PATH_MAX);
    for (unsigned i = 0; i < plan.count; i++) {
        char text[ADDRESS_TEXT_SIZE];
        struct address again;
        const struct group_member_plan *member = &plan.members[i];
        size_t size = address_format(&member->uri.address, text, sizeof text);
        assert(member->weight >= 1 && member->weight <= GROUP_WEIGHT_MAX && member->uri.address.port > 0);
        assert(strpbrk(text, "\"\\ ,/") == NULL);
        assert(address_parse(text, size, ADDRESS_PORT_REQUIRED, 0, &again));
        assert(address_equal(&again, &member->uri.address));
        plain = plain || !member->backup;
    }
    assert(plain && group_plan_check(&plan) == NULL);
}

static void check_use(const char *text, size_t size)
{
    struct address address;
    struct proxy_uri hop;
    char out[ADDRESS_TEXT_SIZE];
    if (group_address_parse(text, size, &address)) {
        size_t length = address_format(&address, out, sizeof out);
        assert(length == size && memcmp(out, text, size) == 0);
        assert(!address_parse(text, size, ADDRESS_PORT_REQUIRED, 0, &address));
        assert(address.kind == ADDRESS_GROUP);
    }
    const char *wrong = group_hop_parse(text, size, &hop);
    assert(wrong == NULL || wrong[0] != '\0');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > INPUT_SIZE_MAX) size = INPUT_SIZE_MAX;
    uint8_t *copy = check_copy(data, size);
    if (copy == NULL) return 0;
    const char *wrong = group_parse((const char *)copy, size, &plan);
    if (wrong == NULL)
        check_plan();
    else
        assert(wrong[0] != '\0');
    check_use((const char *)copy, size);
    free(copy);
    return 0;
}
