/* ruleset.tick, at the interval of neosocksd.setinterval. */
#include <assert.h>
#include <errno.h>
#include <math.h>

#include "core/io/log.h"
#include "lua/engine/entry.h"
#include "lua/engine/state.h"
#include "lua/engine/text.h"
#include "lua/modules/ruleset.h"

#define TICK_US_MIN      1000u
#define TICK_US_NEGATIVE 10000u /* "whenever there is nothing to do" in neosocksd, which keeps a CPU busy with it */

static int tick(lua_State *L)
{
    if (!ruleset_push_callback(L, "tick") || !lua_isfunction(L, -1)) return 0;
    lua_getglobal(L, "neosocksd");
    lua_getfield(L, -1, "now");
    lua_call(L, 0, 1); /* the argument of rulesets before 1.4.3 */
    lua_remove(L, -2);
    lua_call(L, 1, 0);
    return 0;
}

static void ticker_set(struct ruleset *r, uint64_t from_us)
{
    r->tick_at_us = from_us + r->tick_us;
    if (r->tick_us > 0)
        coordinator_set_deadline_us(r->engine->c, &r->ticker, r->tick_at_us);
    else
        coordinator_clear_deadline(r->engine->c, &r->ticker);
}

/* One every tick_us, whatever they take; those that are missed are left out. */
static void ticker_on_time(struct waiter *waiter)
{
    struct ruleset *r = link_owner(waiter, struct ruleset, ticker);
    struct engine_text error = {0};
    uint64_t now = coordinator_after_us(0);
    if (r->stopped) return; /* and there is no other one */
    ticker_set(r, r->tick_at_us + r->tick_us > now ? r->tick_at_us : now);
    if (engine_protect(r->engine, tick, NULL, &error) < 0)
        LOG_LINES(LOG_LEVEL_WARNING, "ruleset.tick: %s", error.data ? error.data : "");
    engine_text_free(&error);
}

static void ticker_on_completion(struct waiter *waiter, unsigned op, const struct ring_completion *completion)
{
    (void)waiter, (void)op, (void)completion;
    assert(0 && "the ticker has no operations");
}

void ruleset_set_interval(struct ruleset *r, double seconds)
{
    if (seconds < 0 && isfinite(seconds))
        r->tick_us = TICK_US_NEGATIVE;
    else if (!isnormal(seconds) || seconds < 0)
        r->tick_us = 0;
    else
        r->tick_us = seconds > 1e9 ? UINT64_C(1000000000000000) : (uint64_t)(seconds * 1e6 + 0.5);
    if (isnormal(seconds) && seconds > 0 && r->tick_us < TICK_US_MIN) r->tick_us = TICK_US_MIN;
    ticker_set(r, coordinator_after_us(0));
}

int ruleset_open(struct ruleset *r)
{
    r->ticker = (struct waiter){.on_completion = ticker_on_completion, .on_time = ticker_on_time};
    return coordinator_attach(r->engine->c, &r->ticker) ? 0 : -ENOBUFS;
}

void ruleset_close(struct ruleset *r)
{
    coordinator_detach(r->engine->c, &r->ticker);
}
