/* The engine with a real coordinator that has no workers: tests ask in their place, and take the verdicts. For the
 * programs that do so; each includes this once. */
#ifndef SLUICE_TESTS_ENGINE_ASKED_H
#define SLUICE_TESTS_ENGINE_ASKED_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/io/log.h"
#include "core/process/config_size.h"
#include "core/process/options.h"
#include "lua/boot/boot.h"
#include "lua/modules/ruleset.h"
#include "tests/support.h"

static struct config config;
static struct coordinator *coordinator;
static struct engine *engine;
static struct coordinator_hooks hooks;

/* --- a worker's part --- */

struct ask {
    struct route_request request; /* first */
    struct credentials credentials;
    unsigned answers;
    int32_t result;
};

static inline void on_answer(struct coordinator *c, struct route_request *request, int32_t result)
{
    struct ask *ask = (struct ask *)request;
    assert_ptr_equal(c, coordinator);
    ask->answers++;
    ask->result = result;
}

static inline void ask_again(struct ask *a, enum failure failure)
{
    a->answers = 0;
    a->request.failure = (uint8_t)failure;
    hooks.on_route(hooks.context, &a->request);
}

static inline void ask(struct ask *a, const char *target, uint32_t slot)
{
    memset(a, 0, sizeof *a);
    struct route_request *r = &a->request;
    r->credentials = &a->credentials;
    r->origin = (struct message){.slot = slot, .generation = 7};
    if (*target) assert_true(address_parse(target, strlen(target), ADDRESS_PORT_REQUIRED, 0, &r->target));
    r->callback = r->target.kind == ADDRESS_IPV4   ? ROUTE_BY_IPV4
                  : r->target.kind == ADDRESS_IPV6 ? ROUTE_BY_IPV6
                                                   : ROUTE_BY_NAME;
    ask_again(a, FAIL_NONE);
}

static inline void turn(void)
{
    assert_int_equal(coordinator_turn(coordinator), 0);
}

static inline void turn_until(const struct ask *a)
{
    for (int i = 0; i < 2000 && a->answers == 0; i++) turn();
    assert_int_equal(a->answers, 1);
}

/* The verdict as text: "reject", or order, target, and the hops' hosts in the order of travel. */
static inline const char *verdict(const struct ask *a)
{
    static char text[2048];
    char part[ADDRESS_TEXT_SIZE];
    const struct route_verdict *v = &a->request.verdict;
    assert_int_equal(a->answers, 1);
    if (a->result < 0) return a->result == -ECANCELED ? "cancelled" : "lost";
    if (v->order == ROUTE_REJECT) return "reject";
    address_format(&v->target, part, sizeof part);
    size_t used = (size_t)snprintf(text, sizeof text, "%s %s", v->order == ROUTE_TRY ? "try" : "dial", part);
    for (unsigned i = 0; i < v->hop_count; i++) {
        address_format(&v->hops[i].address, part, sizeof part);
        used += (size_t)snprintf(text + used, sizeof text - used, " %s", part);
    }
    return text;
}

/* --- opening --- */

static inline int open_engine(void **state)
{
    (void)state;
    log_open(LOG_DISCARD, LOG_LEVEL_NOTICE);
    config_defaults(&config);
    config.workers = 1;
    config.max_sessions = 64;
    config.lua_budget_ms *= support_slow();
    config.nameservers = "127.0.0.1:9"; /* nobody is there, and nobody else is asked */
    config_size(&config);
    int error = coordinator_open(&coordinator, &config);
    if (error == 0) error = engine_open(&engine, coordinator);
    if (error < 0) return error;
    engine->ruleset->answer = on_answer;
    hooks = boot_hooks(engine);
    return 0;
}

static inline int close_engine(void **state)
{
    (void)state;
    engine_close(engine);
    coordinator_close(coordinator);
    return 0;
}

/* --- running code --- */

static inline void install(const char *code)
{
    struct engine_text error = {0};
    if (engine_update(engine, NULL, NULL, code, strlen(code), &error) < 0) fail_msg("%s\n%s", error.data, code);
}

static inline void run(const char *code)
{
    struct engine_text error = {0};
    if (engine_invoke(engine, code, strlen(code), &error) < 0) fail_msg("%s\n%s", error.data, code);
}

/* Raises a message that holds `part`. */
static inline void raises(const char *code, const char *part)
{
    struct engine_text error = {0};
    if (engine_invoke(engine, code, strlen(code), &error) == 0) fail_msg("no error: %s", code);
    if (!strstr(error.data, part)) fail_msg("%s\ninstead of %s: %s", error.data, part, code);
    engine_text_free(&error);
}

static inline void update_fails(const char *module, const char *code, size_t size, const char *message)
{
    struct engine_text error = {0};
    assert_int_equal(engine_update(engine, module, NULL, code, size, &error), -1);
    assert_string_equal(error.data, message);
    engine_text_free(&error);
}

#define WITH_ENGINE(f) cmocka_unit_test_setup_teardown(f, open_engine, close_engine)

#endif
