/* Which settings a process that runs can change, and which keep the value that they had at the start. */
#include "core/control/config_change.h"

#include <stdlib.h>
#include <string.h>

#include "core/control/coordinator_private.h"
#include "core/control/settings.h"
#include "tests/support.h"

static struct config now, fresh;

/* What config_check() could have left: everything is given. */
static void set_up(struct config *config)
{
    static const char *const texts[] = {"127.0.0.1:1080", "127.0.0.1:8080"};
    memset(config, 0, sizeof *config);
    config->listener_count = 2;
    for (unsigned i = 0; i < 2; i++) {
        config->listeners[i].kind = i == 0 ? LISTENER_FORWARD : LISTENER_HTTP;
        config->listeners[i].text = texts[i];
    }
    config->listeners[0].forward_text = "127.0.0.1:80";
    config->listeners[0].forward.port = 80;
    config->api_text = "127.0.0.1:9080";
    config->user = "nobody";
    config->script_count = 2;
    config->scripts[0] = "one.lua";
    config->scripts[1] = "two.lua";
    config->limit_keys = 1000;
    config->workers = 2;
    config->max_sessions = 100;
    config->sessions = 1000;
    config->conns = 16;
}

static int set_up_both(void **state)
{
    (void)state;
    set_up(&now);
    set_up(&fresh);
    return 0;
}

static bool can_change(uint32_t sessions, char why[256])
{
    why[0] = '\0';
    return config_can_change(&now, &fresh, sessions, why, 256);
}

/* Names the setting, and says what to do. */
static void assert_fixed(const char *name)
{
    char why[256];
    assert_false(can_change(100, why));
    assert_non_null(strstr(why, name));
    assert_non_null(strstr(why, "restart to apply it"));
    set_up(&fresh);
    assert_true(can_change(100, why));
    assert_string_equal(why, "");
}

static void test_what_is_made_at_the_start(void **state)
{
    (void)state;
    fresh.listener_count = 1;
    assert_fixed("listen'");
    fresh.listeners[1].kind = LISTENER_FORWARD;
    assert_fixed("listen'");
    fresh.listeners[0].text = "127.0.0.1:1081";
    assert_fixed("listen'");
    fresh.listeners[1].text = NULL;
    assert_fixed("listen'");
    fresh.api_text = NULL;
    assert_fixed("restapi");
    fresh.api_text = "127.0.0.1:9081";
    assert_fixed("restapi");
    fresh.user = "root";
    assert_fixed("user_name");
    fresh.user = NULL;
    assert_fixed("user_name");
    fresh.script_count = 1;
    assert_fixed("scripts");
    fresh.scripts[0] = "three.lua";
    assert_fixed("scripts");
    fresh.scripts[1] = "one.lua";
    assert_fixed("scripts");
    fresh.reuseport = true;
    assert_fixed("reuseport");
    fresh.fastopen = true;
    assert_fixed("tcp_fastopen");
    fresh.limit_keys = 1001;
    assert_fixed("limit_keys");
    fresh.workers = 1;
    assert_fixed("workers");
}

/* The same text need not be the same memory; no number of workers is any. */
static void test_what_is_the_same(void **state)
{
    char api[] = "127.0.0.1:9080", user[] = "nobody", script[] = "two.lua", listener[] = "127.0.0.1:8080", why[256];
    (void)state;
    fresh.api_text = api;
    fresh.user = user;
    fresh.scripts[1] = script;
    fresh.listeners[1].text = listener;
    fresh.workers = 0;
    assert_true(can_change(100, why));
    now.api_text = fresh.api_text = NULL;
    now.user = fresh.user = NULL;
    assert_true(can_change(100, why));
}

static void test_more_sessions_than_there_is_room_for(void **state)
{
    char why[256];
    (void)state;
    assert_true(can_change(5000, why)); /* as at the start, whatever that came to */
    fresh.max_sessions = 200;
    assert_true(can_change(1000, why));
    assert_false(can_change(1001, why));
    assert_non_null(strstr(why, "max_sessions"));
    assert_non_null(strstr(why, "room for 1000 only"));
    fresh.max_sessions = 50; /* fewer are always fine */
    assert_true(can_change(1000, why));
}

static void test_connections_that_have_no_room(void **state)
{
    char why[256];
    (void)state;
    fresh.conn_cache = true;
    assert_true(can_change(100, why));
    now.conns = 0;
    assert_false(can_change(100, why));
    assert_non_null(strstr(why, "conn_cache"));
    now.conn_cache = true; /* there is no room for any, and never was */
    assert_true(can_change(100, why));
    fresh.conn_cache = false;
    assert_true(can_change(100, why));
}

/* --- what stays --- */

#define AT(name) offsetof(struct config, name)
static const size_t fixed[] = {
    AT(workers),      AT(sessions),  AT(setups),    AT(buffers),      AT(buffers_lent),   AT(buffer_size),
    AT(bulk_turn),    AT(pipes),     AT(pipe_size), AT(ring_entries), AT(queue_capacity), AT(name_sockets),
    AT(associations), AT(udp_peers), AT(exchanges), AT(heads),        AT(conns),
};
static const size_t changed[] = {
    AT(timeout_ms),   AT(idle_timeout_ms), AT(half_close_timeout_ms), AT(drain_ms),
    AT(max_sessions), AT(startup_start),   AT(startup_rate),          AT(startup_full),
    AT(blocked),      AT(memlimit_mib),    AT(lua_budget_ms),
};
#define COUNT(table) (sizeof(table) / sizeof *(table))

static uint32_t *word_at(struct config *config, size_t at)
{
    return (uint32_t *)(void *)((char *)config + at);
}

static uint32_t value_at(const struct config *config, size_t at)
{
    uint32_t value;
    memcpy(&value, (const char *)config + at, sizeof value);
    return value;
}

/* Each number of `now` is another one than that of `fresh`. */
static void number(void)
{
    for (uint32_t i = 0; i < COUNT(fixed); i++) {
        *word_at(&now, fixed[i]) = 100 + i;
        *word_at(&fresh, fixed[i]) = 200 + i;
    }
    for (uint32_t i = 0; i < COUNT(changed); i++) {
        *word_at(&now, changed[i]) = 300 + i;
        *word_at(&fresh, changed[i]) = 400 + i;
    }
}

static void assert_taken(const struct config *taken)
{
    for (uint32_t i = 0; i < COUNT(fixed); i++) assert_int_equal(value_at(taken, fixed[i]), 100 + i);
    for (uint32_t i = 0; i < COUNT(changed); i++) assert_int_equal(value_at(taken, changed[i]), 400 + i);
}

static void test_pools_stay(void **state)
{
    (void)state;
    number();
    struct config before = now;
    config_take_fixed(&fresh, &now);
    assert_taken(&fresh);
    assert_memory_equal(&before, &now, sizeof now);
}

/* Sockets stay, with what the start has found out about them; where they forward to is new. */
static void test_listeners_stay(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        now.listeners[i].address.port = (uint16_t)(1 + i);
        fresh.listeners[i].forward_text = i == 0 ? "127.0.0.1:81" : "127.0.0.1:82";
        fresh.listeners[i].forward.port = (uint16_t)(81 + i);
    }
    config_take_fixed(&fresh, &now);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(fresh.listeners[i].address.port, 1 + i);
        assert_ptr_equal(fresh.listeners[i].text, now.listeners[i].text);
        assert_int_equal(fresh.listeners[i].forward.port, 81 + i);
        assert_string_equal(fresh.listeners[i].forward_text, i == 0 ? "127.0.0.1:81" : "127.0.0.1:82");
    }
}

/* Others than at the start are not obeyed: nobody knows which of them is which. */
static void test_other_listeners(void **state)
{
    (void)state;
    fresh.listener_count = 1;
    fresh.listeners[0].forward.port = 81;
    config_take_fixed(&fresh, &now);
    assert_int_equal(fresh.listener_count, 2);
    assert_int_equal(fresh.listeners[0].forward.port, 80);
    assert_string_equal(fresh.listeners[0].forward_text, "127.0.0.1:80");
}

/* A process without workers obeys at once, and frees what it had obeyed before, unless that was main's. */
static void test_process_obeys(void **state)
{
    static struct coordinator coordinator;
    (void)state;
    number();
    coordinator.config = &now;
    struct config *mine[2];
    for (unsigned i = 0; i < 2; i++) {
        mine[i] = malloc(sizeof *mine[i]);
        assert_non_null(mine[i]);
        *mine[i] = fresh;
        assert_int_equal(coordinator_configure(&coordinator, mine[i]), 0);
        assert_ptr_equal(coordinator_config(&coordinator), mine[i]);
        assert_taken(mine[i]);
        assert_int_equal(coordinator_drain_ms(&coordinator), fresh.drain_ms);
        assert_int_equal(coordinator_timeout_ms(&coordinator), fresh.timeout_ms);
    }
    free(mine[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_what_is_made_at_the_start, set_up_both),
        cmocka_unit_test_setup(test_what_is_the_same, set_up_both),
        cmocka_unit_test_setup(test_more_sessions_than_there_is_room_for, set_up_both),
        cmocka_unit_test_setup(test_connections_that_have_no_room, set_up_both),
        cmocka_unit_test_setup(test_pools_stay, set_up_both),
        cmocka_unit_test_setup(test_listeners_stay, set_up_both),
        cmocka_unit_test_setup(test_other_listeners, set_up_both),
        cmocka_unit_test_setup(test_process_obeys, set_up_both),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
