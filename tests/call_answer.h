/* What engine_rpcall() has answered, for tests that look at it later. */
#ifndef SLUICE_TESTS_CALL_ANSWER_H
#define SLUICE_TESTS_CALL_ANSWER_H

#include <stdbool.h>
#include <stdio.h>

#include "tests/support.h"

struct answer {
    bool called, ok;
    char body[4096];
};

static inline void on_finished(void *context, bool ok, const char *body, size_t size)
{
    struct answer *answer = context;
    assert_false(answer->called);
    answer->called = true;
    answer->ok = ok;
    snprintf(answer->body, sizeof answer->body, "%.*s", (int)size, body);
}

#endif
