#include "tests/sim_guests.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/session/limited.h"

#define WALL_S INT64_C(1796000000) /* GUESTS_HOUR_MS before a full hour */

struct sim_bench guests_bench;
static struct worker *const w = &guests_bench.worker;

int guests_begin(void **state)
{
    (void)state;
    setenv("TZ", "UTC0", 1);
    sim_bench_prepare(&guests_bench);
    guests_bench.config.listeners[0].text = "socks:1080";
    sim_bench_forward(&guests_bench, &guests_bench.config.listeners[0].forward);
    guests_bench.config.listeners[1].text = "socks:1081";
    sim_bench_open(&guests_bench, 1);
    return keys_open(&w->keys, 64, sim_now_us(), WALL_S);
}

void guest_leave(struct session *s)
{
    limited_leave(w, s);
    assert_int_equal(s->limit_count, 0);
    pool_give(&w->setups, s->setup);
    pool_give(&w->sessions, s->slot);
}

int guests_finish(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < w->sessions.count; i++) /* of a test that has failed */
        if (pool_is_taken(&w->sessions, i)) guest_leave(session_at(w, i));
    sim_bench_close(&guests_bench);
    keys_close(w->keys);
    return 0;
}

/* --- limits --- */

void guests_put(const char *text)
{
    struct limit_key key;
    struct limit_terms terms;
    assert_null(limit_parse(text, strlen(text), &key, &terms));
    assert_int_equal(keys_put(w->keys, &key, &terms, sim_now_us()), KEYS_CHANGED);
}

uint64_t guests_name(const char *text)
{
    struct limit_key key;
    struct limit_terms terms;
    uint64_t handle;
    assert_null(limit_parse(text, strlen(text), &key, &terms));
    assert_int_not_equal(keys_name(w->keys, &key, &terms, sim_now_us(), &handle), KEYS_NO_ROOM);
    return handle;
}

static struct limit_key guests_key(const char *text)
{
    struct limit_key key;
    assert_null(limit_key_parse(text, strlen(text), &key));
    return key;
}

struct keys_row guests_row(const char *text)
{
    struct limit_key key = guests_key(text);
    struct keys_row row = {0};
    assert_true(keys_find(w->keys, &key, sim_now_us(), &row));
    return row;
}

uint32_t guests_unsettled(const char *text)
{
    struct limit_key key = guests_key(text);
    uint32_t held, count = 0;
    assert_int_equal(keys_hold(w->keys, &key, false, sim_now_us(), &held), KEYS_FOUND);
    for (unsigned d = 0; d < LIMIT_DIRECTIONS; d++)
        count += (uint32_t)atomic_load(&keys_at(w->keys, held)->quota[d].unsettled);
    keys_release(w->keys, held);
    return count;
}

/* --- sessions --- */

static struct host_port client_of(const char *host)
{
    struct address address;
    assert_true(address_from_host(host, strlen(host), 4000, &address));
    return host_port_of(&address);
}

struct session *guest_from(const char *host)
{
    struct session *s = session_take(w, 0, -1, 60000);
    struct setup *setup = setup_of(w, s);
    s->client = client_of(host);
    s->protocol = PROTOCOL_SOCKS5;
    setup->credentials = (struct credentials){.present = true, .user = "ada"};
    assert_true(address_from_host("origin.test", 11, 443, &setup->target));
    return s;
}

struct session *guest(void)
{
    return guest_from("10.1.2.3");
}

enum failure guest_admit(struct session *s)
{
    enum failure failure = limited_admit_client(w, s);
    return failure != FAIL_NONE ? failure : limited_admit_request(w, s, true, NULL, 0);
}
