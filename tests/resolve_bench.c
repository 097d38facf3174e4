#include "tests/resolve_bench.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

struct bench bench;
const char *bench_resolv_conf;

void bench_on_answered(void *context, struct resolve_request *request, void *cookie, int status)
{
    struct ask *ask = cookie;
    assert_ptr_equal(context, &bench);
    assert_ptr_equal(request, &ask->request);
    ask->answers++;
    ask->status = status;
    bench.answers++;
    if (status == 0)
        assert_in_range(request->count, 1, RESOLVE_ADDRESSES_MAX);
    else
        assert_int_equal(request->count, 0);
    if (++bench.depth > bench.depth_peak) bench.depth_peak = bench.depth;
    if (ask->again-- > 0) assert_int_equal(resolve_ask(bench.resolver, &ask->request, ask), 0);
    bench.depth--;
}

void bench_open(const char *nameservers, uint32_t timeout_ms)
{
    struct resolve_options options = {
        .nameservers = nameservers, .resolv_conf = bench_resolv_conf, .timeout_ms = timeout_ms, .op = OP_DNS};
    memset(&bench, 0, sizeof bench);
    assert_int_equal(ring_open(&bench.ring, &(struct ring_options){.entries = 64}), 0);
    assert_int_equal(resolve_open(&bench.resolver, bench.ring, &options, bench_on_answered, &bench), 0);
    assert_int_equal(ring_wait(bench.ring, 0), 0);
}

void bench_turn(uint64_t wait_ms)
{
    struct ring_completion completion;
    uint64_t resolver_ms = resolve_wait_ms(bench.resolver, ring_now_ms(bench.ring));
    assert_int_equal(ring_wait(bench.ring, resolver_ms < wait_ms ? resolver_ms : wait_ms), 0);
    while (ring_next(bench.ring, &completion)) {
        assert_int_equal(completion.tag.op, OP_DNS);
        resolve_on_completion(bench.resolver, &completion);
    }
    resolve_on_time(bench.resolver, ring_now_ms(bench.ring));
}

/* Turns until so many answers are there; returns the milliseconds that it took. */
uint64_t bench_run(int answers)
{
    uint64_t begin_ms = ring_now_ms(bench.ring);
    while (bench.answers < answers) {
        bench_turn(1000);
        assert_true(ring_now_ms(bench.ring) - begin_ms < 15000);
    }
    assert_int_equal(bench.answers, answers);
    return ring_now_ms(bench.ring) - begin_ms;
}

void bench_sleep(uint64_t ms)
{
    uint64_t end_ms = ring_now_ms(bench.ring) + ms;
    while (ring_now_ms(bench.ring) < end_ms) bench_turn(end_ms - ring_now_ms(bench.ring));
}

void bench_close(void)
{
    struct ring_completion completion;
    resolve_close(bench.resolver);
    for (int i = 0; i < 3; i++) { /* polls that were in flight end now */
        assert_int_equal(ring_wait(bench.ring, 10), 0);
        while (ring_next(bench.ring, &completion)) assert_int_equal(completion.tag.op, OP_DNS);
    }
    ring_destroy(bench.ring);
}

void ask_start(struct ask *ask, const char *name, int family)
{
    size_t size = strlen(name);
    assert_true(size <= ADDRESS_NAME_MAX);
    *ask = (struct ask){.request.family = family};
    ask->request.name = (struct address){.kind = ADDRESS_NAME, .name_size = (uint8_t)size, .port = 80};
    memcpy(ask->request.name.name, name, size + 1);
    assert_int_equal(resolve_ask(bench.resolver, &ask->request, ask), 0);
}

/* Asks and waits for the answer. */
int ask_now(struct ask *ask, const char *name, int family)
{
    int answers = bench.answers;
    ask_start(ask, name, family);
    bench_run(answers + 1);
    assert_int_equal(ask->answers, 1);
    return ask->status;
}

void is_address(const struct ask *ask, uint32_t index, const char *text)
{
    char found[INET6_ADDRSTRLEN];
    const struct resolve_result *result = &ask->request.results[index];
    assert_true(index < ask->request.count);
    assert_true(result->kind == ADDRESS_IPV4 || result->kind == ADDRESS_IPV6);
    int family = result->kind == ADDRESS_IPV4 ? AF_INET : AF_INET6;
    assert_non_null(inet_ntop(family, result->octets, found, sizeof found));
    assert_string_equal(found, text);
}
