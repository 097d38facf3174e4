#include <string.h>

#include "core/io/log.h"
#include "lua/engine/entry.h"
#include "lua/engine/state.h"
#include "lua/engine/text.h"
#include "lua/modules/rpc.h"
#include "lua/modules/ruleset.h"

/* --- callbacks that give a text --- */

struct question_text {
    const char *name, *q;
    double dt;
    bool with_arguments;
    struct engine_text *out;
};

static int ask_text(lua_State *L)
{
    const struct question_text *question = lua_touserdata(L, 1);
    size_t size;
    if (!ruleset_push_callback(L, question->name) || !lua_isfunction(L, -1)) return 0;
    if (question->with_arguments) {
        lua_pushnumber(L, question->dt);
        lua_pushstring(L, question->q); /* nil for NULL */
    }
    lua_call(L, question->with_arguments ? 2 : 0, 1);
    const char *text = lua_tolstring(L, -1, &size);
    if (text) engine_text_set(question->out, text, size);
    return 0;
}

bool engine_stats(struct engine *e, double dt, const char *q, struct engine_text *out)
{
    struct question_text question = {"stats", q, dt, true, out};
    *out = (struct engine_text){0};
    return engine_protect(e, ask_text, &question, out) == 0;
}

bool engine_metrics(struct engine *e, struct engine_text *out)
{
    struct question_text question = {.name = "metrics", .out = out};
    *out = (struct engine_text){0};
    if (engine_protect(e, ask_text, &question, out) == 0) return true;
    LOG_LINES(LOG_LEVEL_ERROR, "ruleset.metrics: %s", out->data ? out->data : "not enough memory");
    return false;
}

bool engine_healthy(struct engine *e, struct engine_text *complaint)
{
    struct question_text question = {.name = "healthy", .out = complaint};
    *complaint = (struct engine_text){0};
    if (!e->ruleset->is_there) return true;
    if (engine_protect(e, ask_text, &question, complaint) < 0) return false;
    return complaint->size == 0;
}

/* --- counters --- */

void engine_get_counters(const struct engine *e, struct engine_counters *out)
{
    const struct rpc_counters *rpc = rpc_get_counters();
    *out = e->ruleset->counters;
    out->calls = rpc->calls;
    out->calls_failed = rpc->failed;
    out->call_bytes_in = rpc->bytes_in;
    out->call_bytes_out = rpc->bytes_out;
}

void engine_set_api_reader(struct engine *e, engine_api_reader *read, void *context)
{
    e->ruleset->api_reader = read;
    e->ruleset->api_context = context;
}

void engine_set_api_counters(struct engine *e, const struct engine_api_counters *counters)
{
    e->ruleset->api = *counters;
}
