#include "lua/engine/profile.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/io/hash.h"
#include "lua/engine/class.h"
#include "lua/engine/coroutine.h"
#include "lua/engine/entry.h"
#include "lua/engine/limits.h"
#include "lua/engine/state.h"

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

#define PERIOD_NS     1000000
#define DEPTH_MAX     64               /* innermost frames that are kept of a stack */
#define STACKS_MAX    4096u            /* different ones; the rest is counted together */
#define SLOTS         (2 * STACKS_MAX) /* of the table; a power of two */
#define TEXTS_MAX     ((size_t)4 << 20)
#define FRAME_SIZE    160
#define NAMES_MAX     1024u /* functions of ours and of Lua's libraries */
#define NAME_SIZE     24
#define STACK_SIZE    (DEPTH_MAX * FRAME_SIZE)
#define SECONDS_LEAST 0.01

struct stack {
    char *text; /* NULL: a free slot */
    size_t size;
    uint64_t count;
};

/* A C function, by the name it has in its module or class: called by pcall() it has none. */
struct name {
    lua_CFunction function;
    char text[NAME_SIZE];
};

static struct {
    struct name *names;
    unsigned name_count;
    unsigned serial; /* of the last one that began */
    struct park park;
    struct waiter waiter;
    struct coordinator *c; /* NULL: no profile is being taken */
    timer_t timer;
    struct stack *slots; /* NULL: no profile, or none any more */
    unsigned stacks;
    size_t octets;
    uint64_t others;
} profile;

/* What the signal's handler uses. It interrupts the thread that everything else here runs on. */
static atomic_bool watching; /* a profile is being taken */
static atomic_ulong outside; /* samples while no script ran */

/* --- the timer --- */

static void on_signal(int number, siginfo_t *info, void *context)
{
    unsigned periods = info->si_overrun > 0 ? (unsigned)info->si_overrun + 1 : 1; /* the kernel looks at its ticks */
    (void)number, (void)context;
    if (!atomic_load_explicit(&watching, memory_order_relaxed)) return; /* the last signal of a timer that is gone */
    if (!limits_sample(periods)) atomic_fetch_add_explicit(&outside, periods, memory_order_relaxed);
}

/* 0 or an errno. The handler stays: a signal that comes late must not end the process. */
static int timer_start(void)
{
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_RESTART};
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGPROF};
    struct itimerspec period = {{0, PERIOD_NS}, {0, PERIOD_NS}};
    event.sigev_notify_thread_id = gettid();
    sigemptyset(&action.sa_mask);
    if (sigaction(SIGPROF, &action, NULL) < 0) return errno;
    if (timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &profile.timer) < 0) return errno;
    if (timer_settime(profile.timer, 0, &period, NULL) == 0) return 0;
    int error = errno;
    timer_delete(profile.timer);
    return error;
}

/* --- stacks --- */

static void stack_count(const char *text, size_t size, unsigned samples)
{
    uint32_t i = hash_fold(hash_plain(HASH_START, text, size));
    struct stack *s = &profile.slots[i % SLOTS];
    for (; s->text; s = &profile.slots[++i % SLOTS]) {
        if (s->size != size || memcmp(s->text, text, size) != 0) continue;
        s->count += samples;
        return;
    }
    bool has_room = profile.stacks < STACKS_MAX && profile.octets + size <= TEXTS_MAX;
    s->text = has_room ? malloc(size) : NULL;
    if (!s->text) {
        profile.others += samples;
        return;
    }
    memcpy(s->text, text, size);
    s->size = size;
    s->count = samples;
    profile.stacks++;
    profile.octets += size;
}

static void names_add(lua_State *L)
{
    for (lua_pushnil(L); lua_next(L, -2) != 0; lua_pop(L, 1)) {
        lua_CFunction function = lua_tocfunction(L, -1);
        if (!function || lua_type(L, -2) != LUA_TSTRING || profile.name_count == NAMES_MAX) continue;
        struct name *n = &profile.names[profile.name_count++];
        n->function = function;
        snprintf(n->text, sizeof n->text, "%s", lua_tostring(L, -2));
    }
}

/* All that modules and classes have, read once. Raises for want of memory. */
static void names_read(lua_State *L)
{
    profile.name_count = 0;
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    for (lua_pushnil(L); lua_next(L, -2) != 0; lua_pop(L, 1))
        if (lua_istable(L, -1)) names_add(L);
    class_push_all(L);
    for (lua_pushnil(L); lua_next(L, -2) != 0; lua_pop(L, 2))
        if (lua_getfield(L, -1, "__index") == LUA_TTABLE) names_add(L);
}

static const char *name_find(lua_State *L, lua_Debug *f)
{
    if (!lua_checkstack(L, 1) || lua_getinfo(L, "f", f) == 0) return "?";
    lua_CFunction function = lua_tocfunction(L, -1);
    lua_pop(L, 1);
    for (unsigned i = 0; i < profile.name_count; i++)
        if (profile.names[i].function == function) return profile.names[i].text;
    return "?";
}

/* `name file:line`; a function that has no name where it was called has the line it begins at. Returns the length. */
static size_t frame_write(lua_State *L, lua_Debug *f, char out[FRAME_SIZE])
{
    int size;
    if (*f->what == 'C')
        size = snprintf(out, FRAME_SIZE, "%.64s [C]", f->name ? f->name : name_find(L, f));
    else if (*f->what == 'm')
        size = snprintf(out, FRAME_SIZE, "main chunk %s:%d", f->short_src, f->currentline);
    else if (f->name)
        size = snprintf(out, FRAME_SIZE, "%.64s %s:%d", f->name, f->short_src, f->currentline);
    else
        size = snprintf(out, FRAME_SIZE, "function at %d %s:%d", f->linedefined, f->short_src, f->currentline);
    size_t length = size < FRAME_SIZE ? (size_t)size : FRAME_SIZE - 1;
    for (size_t i = 0; i < length; i++)
        if (out[i] == ';' || (unsigned char)out[i] < ' ') out[i] = ',';
    return length;
}

/* Puts a frame in front of what begins at `at`; returns where it begins now. Our own function below a coroutine has no
 * name: it is left out. */
static size_t stack_prepend(lua_State *L, lua_Debug *f, char *text, size_t at, bool is_last)
{
    char frame[FRAME_SIZE];
    lua_getinfo(L, "nSl", f);
    if (is_last && *f->what == 'C' && !f->name) return at;
    size_t size = frame_write(L, f, frame);
    if (at < STACK_SIZE) text[--at] = ';';
    at -= size;
    memcpy(text + at, frame, size);
    return at;
}

static void profile_take(lua_State *L, unsigned samples)
{
    static char text[STACK_SIZE];
    size_t at = STACK_SIZE;
    lua_Debug frame, next;
    if (!profile.slots) return;
    bool more = lua_getstack(L, 0, &next) == 1;
    for (int level = 1; more && level <= DEPTH_MAX; level++) {
        frame = next;
        more = lua_getstack(L, level, &next) == 1;
        at = stack_prepend(L, &frame, text, at, !more);
    }
    if (at < STACK_SIZE)
        stack_count(text + at, STACK_SIZE - at, samples);
    else
        atomic_fetch_add_explicit(&outside, samples, memory_order_relaxed);
}

/* --- one profile --- */

static void profile_free(void)
{
    for (unsigned i = 0; profile.slots && i < SLOTS; i++) free(profile.slots[i].text);
    free(profile.slots);
    profile.slots = NULL;
    free(profile.names);
    profile.names = NULL;
    profile.name_count = 0;
}

static void profile_stop(void)
{
    timer_delete(profile.timer);
    atomic_store_explicit(&watching, false, memory_order_relaxed);
    limits_set_sampler(NULL);
    coordinator_detach(profile.c, &profile.waiter);
    profile.c = NULL;
}

bool profile_is_running(void)
{
    return profile.c != NULL;
}

static void profile_abandon(struct park *park)
{
    (void)park;
    profile_stop();
    profile_free();
}

static void profile_on_time(struct waiter *waiter)
{
    (void)waiter;
    profile_stop();
    coroutine_resume(&profile.park, NULL);
}

static void profile_on_completion(struct waiter *waiter, unsigned op, const struct ring_completion *completion)
{
    (void)waiter, (void)op, (void)completion;
    assert(0 && "it waits for time alone");
}

static int stack_compare(const void *a, const void *b)
{
    const struct stack *left = a, *right = b;
    if (!left->text || !right->text) return (left->text == NULL) - (right->text == NULL); /* free slots last */
    size_t size = left->size < right->size ? left->size : right->size;
    int order = memcmp(left->text, right->text, size);
    return order != 0 ? order : (left->size > right->size) - (left->size < right->size);
}

/* Writes `text count` and a line's end to `out`, NULL: nowhere; the size. */
static size_t put_line(char *out, const char *text, size_t size, uint64_t count)
{
    char number[24];
    if (count == 0) return 0;
    size_t digits = (size_t)snprintf(number, sizeof number, " %llu\n", (unsigned long long)count);
    if (out) {
        memcpy(out, text, size);
        memcpy(out + size, number, digits);
    }
    return size + digits;
}

/* All lines; the same. */
static size_t put_lines(char *out, uint64_t not_in_script)
{
    static const char out_text[] = "(not in a script)", more_text[] = "(more stacks)";
    size_t used = 0;
    for (unsigned i = 0; i < profile.stacks; i++)
        used += put_line(out ? out + used : NULL, profile.slots[i].text, profile.slots[i].size, profile.slots[i].count);
    used += put_line(out ? out + used : NULL, more_text, sizeof more_text - 1, profile.others);
    return used + put_line(out ? out + used : NULL, out_text, sizeof out_text - 1, not_in_script);
}

/* Continuation, and in one piece with profile_on_time(): nobody else can have begun another profile, but for a
 * finalizer where there is an allocation. So there is one, before anything is read. */
static int profile_finish(lua_State *L, int status, lua_KContext context)
{
    uint64_t not_in_script = atomic_load_explicit(&outside, memory_order_relaxed);
    unsigned serial = profile.serial;
    (void)status, (void)context;
    if (profile_is_running() || !profile.slots) return luaL_error(L, "profile was interrupted");
    qsort(profile.slots, SLOTS, sizeof *profile.slots, stack_compare);
    size_t size = put_lines(NULL, not_in_script);
    char *text = lua_newuserdatauv(L, size + 1, 0);
    if (profile.serial != serial || !profile.slots) return luaL_error(L, "profile was interrupted");
    put_lines(text, not_in_script);
    profile_free();
    lua_pushlstring(L, text, size);
    return 1;
}

static void profile_begin(lua_State *L, struct coordinator *c)
{
    profile_free(); /* of one that found no memory */
    profile.serial++;
    profile.slots = calloc(SLOTS, sizeof *profile.slots);
    profile.names = calloc(NAMES_MAX, sizeof *profile.names);
    if (!profile.slots || !profile.names) {
        luaL_error(L, "not enough memory");
        return;
    }
    names_read(L);
    if (profile_is_running()) luaL_error(L, "a profile is being taken already"); /* a finalizer has begun it */
    coroutine_check(L); /* from here on nothing runs Lua, and so parking does not raise while the timer runs */
    profile.waiter = (struct waiter){.on_completion = profile_on_completion, .on_time = profile_on_time};
    profile.stacks = 0;
    profile.octets = 0;
    profile.others = 0;
    atomic_store_explicit(&outside, 0, memory_order_relaxed);
    if (!coordinator_attach(c, &profile.waiter)) {
        profile_free();
        luaL_error(L, "too many operations wait already");
        return;
    }
    int error = timer_start();
    if (error != 0) {
        coordinator_detach(c, &profile.waiter);
        profile_free();
        luaL_error(L, "profile: no timer of CPU time: %s", strerror(error));
        return;
    }
    profile.c = c;
    limits_set_sampler(profile_take);
    atomic_store_explicit(&watching, true, memory_order_relaxed);
}

int sluice_profile(lua_State *L)
{
    struct coordinator *c = engine_coordinator(engine_of(L));
    lua_Number seconds = luaL_checknumber(L, 1);
    luaL_argcheck(L, seconds >= SECONDS_LEAST && seconds <= ENGINE_PROFILE_SECONDS_MAX, 1, "0.01 to 60 seconds");
    coroutine_check(L);
    if (profile_is_running()) return luaL_error(L, "a profile is being taken already");
    profile_begin(L, c);
    coroutine_park(L, &profile.park, profile_abandon);
    coordinator_set_deadline(c, &profile.waiter, coordinator_now_ms(c) + (uint64_t)(seconds * 1000));
    lua_settop(L, 0);
    return lua_yieldk(L, 0, 0, profile_finish);
}
