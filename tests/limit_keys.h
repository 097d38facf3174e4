/* Keys of limits by their texts, for the programs that are about keys and their accounts. */
#ifndef SLUICE_TESTS_LIMIT_KEYS_H
#define SLUICE_TESTS_LIMIT_KEYS_H

#include <string.h>

#include "protocols/limit_text.h"
#include "tests/support.h"

static inline struct limit_key key_of(const char *text)
{
    struct limit_key key;
    const char *wrong = limit_key_parse(text, strlen(text), &key);
    if (wrong) fail_msg("%s: %s", text, wrong);
    return key;
}

#endif
