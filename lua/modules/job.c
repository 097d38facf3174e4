/* Jobs: code of a peer (POST /ruleset/rpcall) that runs in a task, with its results as literals; and a profile, which
 * is a function of ours that runs in one, and whose result is a text. */
#include <stdlib.h>
#include <string.h>

#include "core/io/list.h"
#include "lua/engine/entry.h"
#include "lua/engine/load.h"
#include "lua/engine/profile.h"
#include "lua/engine/quote.h"
#include "lua/engine/state.h"
#include "lua/engine/task.h"
#include "lua/engine/text.h"
#include "lua/modules/job.h"
#include "lua/modules/marshal.h"

struct engine_job {
    struct link link; /* of all */
    struct engine *engine;
    struct task *task;
    engine_finished *finished; /* NULL: cancelled */
    void *context;
    const char *code;
    size_t size;
    double seconds; /* of a profile, which has no code */
};

static struct link jobs = {&jobs, &jobs};

static void job_free(struct engine_job *job)
{
    link_remove(&job->link);
    free(job);
}

static void job_finish(struct engine_job *job, bool ok, const char *body, size_t size)
{
    engine_finished *finished = job->finished;
    void *context = job->context;
    job_free(job);
    if (finished) finished(context, ok, body, size);
}

/* `return false,"message"`, without Lua: the coroutine may be gone, and memory with it. */
static void job_finish_failed(struct engine_job *job, const char *why)
{
    static const char begin[] = "return false,\"";
    size_t size = strlen(why), used = sizeof begin - 1;
    char *body = malloc(used + size * QUOTE_OCTET_MAX + 2);
    if (!body) {
        job_finish(job, false, "not enough memory", strlen("not enough memory"));
        return;
    }
    memcpy(body, begin, used);
    for (size_t i = 0; i < size; i++) used += quote_octet(body + used, (unsigned char)why[i], false);
    body[used++] = '"';
    job_finish(job, true, body, used);
    free(body);
}

static void job_fail(struct engine_job *job, const char *why)
{
    if (job->code)
        job_finish_failed(job, why);
    else
        job_finish(job, false, why, strlen(why));
}

/* Results cannot be delivered twice: what raises here has delivered nothing, and lost() is called. */
static void job_deliver(struct task *t, lua_State *L, bool ok, int first)
{
    struct engine_job *job = t->owner;
    size_t size;
    if (!ok) {
        const char *why = engine_error_text(L, first);
        engine_note_error(t->engine, why);
        job_fail(job, why);
        return;
    }
    if (!job->code) {
        const char *text = luaL_checklstring(L, first, &size);
        job_finish(job, true, text, size);
        return;
    }
    luaL_checkstack(L, 4, NULL);
    lua_pushboolean(L, 1);
    lua_insert(L, first);
    marshal_encode(L, first);
    lua_pushliteral(L, "return ");
    lua_insert(L, -2);
    lua_concat(L, 2);
    const char *body = lua_tolstring(L, -1, &size);
    job_finish(job, true, body, size);
}

static void job_lost(struct task *t, const char *why)
{
    job_fail(t->owner, why);
}

static const struct task_class job_class = {.deliver = job_deliver, .lost = job_lost, .pooled = true};

static int job_start(lua_State *L)
{
    struct engine_job *job = lua_touserdata(L, 1);
    struct task **place = &job->task;
    bool is_profile = !job->code;
    lua_pushnil(L);
    if (is_profile) {
        lua_pushcfunction(L, sluice_profile);
        lua_pushnumber(L, job->seconds);
    } else {
        if (load_chunk(L, job->code, job->size, "=(rpc)") != LUA_OK) return lua_error(L);
        load_sandbox(L);
    }
    task_start(L, &job_class, job, is_profile ? 1 : 0, place);
    return 0;
}

/* Whether it is still there: it may have finished, and be freed, while it started. */
static bool job_is_open(const struct engine_job *job)
{
    for (const struct link *link = jobs.next; link != &jobs; link = link->next)
        if (link_owner(link, struct engine_job, link) == job) return true;
    return false;
}

static struct engine_job *job_open(struct engine *e, const struct engine_job *form)
{
    struct engine_text error = {0};
    struct engine_job *job = calloc(1, sizeof *job);
    if (!job) {
        form->finished(form->context, false, "not enough memory", strlen("not enough memory"));
        return NULL;
    }
    *job = *form;
    job->engine = e;
    link_append(&jobs, &job->link);
    int result = engine_protect(e, job_start, job, &error);
    bool open = job_is_open(job);
    if (result < 0 && open) {
        const char *text = error.data ? error.data : "not enough memory";
        job_finish(job, false, text, strlen(text));
        open = false;
    }
    engine_text_free(&error);
    return open ? job : NULL;
}

struct engine_job *engine_rpcall(struct engine *e, const char *source, size_t size, engine_finished *finished,
                                 void *context)
{
    return job_open(e, &(struct engine_job){.code = source, .size = size, .finished = finished, .context = context});
}

bool engine_is_profiling(const struct engine *e)
{
    (void)e;
    return profile_is_running();
}

struct engine_job *engine_profile(struct engine *e, double seconds, engine_finished *finished, void *context)
{
    return job_open(e, &(struct engine_job){.seconds = seconds, .finished = finished, .context = context});
}

void engine_job_cancel(struct engine_job *job)
{
    job->finished = NULL;
    task_cancel(job->task, "cancelled"); /* job_lost() frees it */
}

void job_stop(void)
{
    while (!link_is_empty(&jobs)) {
        const struct engine_job *job = link_owner(jobs.next, struct engine_job, link);
        task_cancel(job->task, "the server stops");
    }
}
