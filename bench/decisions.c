/* decisions: what the coordinator does for one routing request, alone: no worker, no queue, no kernel.
 *
 *     decisions RULESET [--seconds S] [--target host:port]
 *
 * Loads the ruleset as the proxy does, asks it the same question over and over for S seconds, and prints one line of
 * JSON: how long loading took, decisions per second of CPU time, and percentiles of one decision. A ruleset that lets
 * the coroutine wait, or refuses the target, is not what is to be measured here: status 1. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/io/log.h"
#include "core/process/config_size.h"
#include "core/process/options.h"
#include "lua/boot/boot.h"
#include "lua/modules/ruleset.h"

enum { WARM_UP = 10000, BATCH = 256, TIMED = 200000 };

struct answer {
    struct route_request request; /* first: what answer() is given */
    struct credentials credentials;
    bool given;
};

static struct coordinator_hooks hooks;

__attribute__((noreturn)) static void die(const char *what, const char *more)
{
    log_flush();
    fprintf(stderr, "decisions: %s%s%s\n", what, more ? ": " : "", more ? more : "");
    exit(1);
}

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static void answer(struct coordinator *c, struct route_request *request, int32_t result)
{
    (void)c;
    if (result < 0 || request->verdict.order == ROUTE_REJECT) die("the ruleset did not let the target pass", NULL);
    ((struct answer *)request)->given = true;
}

/* Where the script is told whether the upstream answers (await.forward), it is told yes, and comes to its end. */
static void ask(struct answer *a)
{
    const struct message *origin = &a->request.origin;
    a->given = false;
    hooks.on_route(hooks.context, &a->request);
    if (!a->given) die("the ruleset lets the question wait", NULL);
    if (a->request.verdict.order == ROUTE_TRY)
        hooks.on_routed(hooks.context, a->request.origin_worker, origin->slot, origin->generation, 0);
}

static void prepare(struct answer *a, const char *target)
{
    struct route_request *request = &a->request;
    if (!address_parse(target, strlen(target), ADDRESS_PORT_REQUIRED, 0, &request->target)) die("no host:port", target);
    request->credentials = &a->credentials;
    request->callback = request->target.kind == ADDRESS_IPV4   ? ROUTE_BY_IPV4
                        : request->target.kind == ADDRESS_IPV6 ? ROUTE_BY_IPV6
                                                               : ROUTE_BY_NAME;
}

static struct engine *load(struct coordinator *c, struct config *config)
{
    struct engine *engine;
    if (engine_open(&engine, c) < 0) die("Lua does not start", NULL);
    if (engine_boot(engine, config) < 0) die("the ruleset does not load", config->ruleset);
    engine->ruleset->answer = answer;
    hooks = boot_hooks(engine);
    return engine;
}

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* CPU time, which other processes do not disturb. */
static double measure_rate(struct answer *a, double seconds, uint64_t *count)
{
    uint64_t begin = clock_ns(CLOCK_THREAD_CPUTIME_ID), used;
    *count = 0;
    do {
        for (unsigned i = 0; i < BATCH; i++) ask(a);
        *count += BATCH;
        used = clock_ns(CLOCK_THREAD_CPUTIME_ID) - begin;
    } while ((double)used < seconds * 1e9);
    return (double)*count / ((double)used / 1e9);
}

/* A clock around each decision: collections of garbage are in the tail. Sorts what it has measured. */
static const uint32_t *measure_times(struct answer *a)
{
    static uint32_t ns[TIMED];
    for (unsigned i = 0; i < TIMED; i++) {
        uint64_t begin = clock_ns(CLOCK_MONOTONIC), took;
        ask(a);
        took = clock_ns(CLOCK_MONOTONIC) - begin;
        ns[i] = took < UINT32_MAX ? (uint32_t)took : UINT32_MAX;
    }
    qsort(ns, TIMED, sizeof ns[0], compare);
    return ns;
}

static void measure(struct answer *a, double seconds, double load_ms)
{
    uint64_t count;
    for (unsigned i = 0; i < WARM_UP; i++) ask(a);
    double rate = measure_rate(a, seconds, &count);
    const uint32_t *ns = measure_times(a);
    printf("{\"load_ms\":%.1f,\"count\":%llu,\"rate\":%.1f,\"p50_ns\":%u,\"p99_ns\":%u}\n", load_ms,
           (unsigned long long)count, rate, ns[TIMED / 2], ns[TIMED / 100 * 99]);
}

int main(int argc, char **argv)
{
    static struct config config;
    static struct answer question;
    const char *target = "127.0.0.1:80";
    double seconds = 4;
    struct coordinator *coordinator;
    log_open(LOG_TO_STDERR, LOG_LEVEL_WARNING);
    config_defaults(&config);
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--seconds") == 0 && i + 1 < argc)
            seconds = strtod(argv[++i], NULL);
        else if (strcmp(argv[i], "--target") == 0 && i + 1 < argc)
            target = argv[++i];
        else
            config.ruleset = argv[i];
    }
    if (!config.ruleset || !(seconds > 0)) die("give a ruleset; --seconds S, --target host:port", NULL);
    config.workers = 1;
    config_size(&config);
    if (coordinator_open(&coordinator, &config) < 0) die("the coordinator does not start", NULL);
    uint64_t begin = clock_ns(CLOCK_MONOTONIC);
    struct engine *engine = load(coordinator, &config);
    double load_ms = (double)(clock_ns(CLOCK_MONOTONIC) - begin) / 1e6;
    prepare(&question, target);
    measure(&question, seconds, load_ms);
    engine_close(engine);
    coordinator_close(coordinator);
    return 0;
}
