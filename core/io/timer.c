/* The wheel counts ticks. A deadline is a number of eleven digits to the base 64, and so is `tick`,
 * the time up to which the wheel has turned. A timer lies at the level of the highest digit in which its deadline
 * differs from `tick`, in the slot that this digit names:
 *
 *     level 0   differs in the last digit only: due when that digit of `tick` gets there
 *     level 1   due within the slot; sorted into level 0 when `tick` enters the slot
 *     ...
 *     due       deadline <= tick, waits to be handed out
 *
 * What follows from it: all that lies at one level is due before anything at a higher one, and occupied slots lie ahead
 * of the current digit, never behind. So the next event is the lowest bit of the lowest level's bitmap, and a jump over
 * days costs no more than the timers that it meets. Eleven levels hold every 64-bit time: there is no overflow list.
 */
#include "core/io/timer.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <sys/mman.h>

#include "core/io/memory.h"

#define DIGIT_BITS 6u
#define SLOTS      (1u << DIGIT_BITS)
#define LEVELS     11u              /* 66 bits: more than a tick has */
#define LIST_DUE   (LEVELS * SLOTS) /* lists 0 ... LIST_DUE - 1: level * SLOTS + slot */
#define LIST_COUNT (LIST_DUE + 1)
#define EXACT_MAX  16u /* timers that timer_wait_exact() looks at */

/* All zero is a clear timer, so that the kernel's pages need no setting up. */
struct timer {
    uint64_t tick; /* of its deadline, rounded up */
    uint32_t next; /* a ring: the last one's next is the first */
    uint32_t prev;
    uint16_t list; /* list + 1; 0: not set */
};
static_assert(sizeof(struct timer) <= 24, "the promise of timer.h");
static_assert(LIST_COUNT < UINT16_MAX, "a list fits its field");

struct timer_wheel {
    uint64_t tick;
    uint64_t occupied[LEVELS]; /* a bit per slot */
    uint32_t first[LIST_COUNT];
    uint32_t count;
    uint32_t units; /* of its owner's time, in a tick */
    struct timer timers[];
};

static size_t timer_size(uint32_t count)
{
    return sizeof(struct timer_wheel) + (size_t)count * sizeof(struct timer);
}

int timer_open(struct timer_wheel **out, uint32_t count, uint64_t now, uint32_t tick)
{
    assert(count > 0 && count < TIMER_NONE);
    assert(tick > 0);
    struct timer_wheel *wheel = memory_map(timer_size(count));
    if (!wheel) return -ENOMEM;
    wheel->units = tick;
    wheel->tick = now / tick;
    wheel->count = count;
    for (uint32_t list = 0; list < LIST_COUNT; list++) wheel->first[list] = TIMER_NONE;
    *out = wheel;
    return 0;
}

void timer_close(struct timer_wheel *wheel)
{
    if (wheel != NULL) munmap(wheel, timer_size(wheel->count));
}

static void list_append(struct timer_wheel *wheel, uint32_t list, uint32_t index)
{
    struct timer *timer = &wheel->timers[index];
    assert(timer->list == 0);
    timer->list = (uint16_t)(list + 1);
    uint32_t first = wheel->first[list];
    if (first == TIMER_NONE) {
        timer->next = timer->prev = index;
        wheel->first[list] = index;
        if (list < LIST_DUE) wheel->occupied[list / SLOTS] |= UINT64_C(1) << (list % SLOTS);
        return;
    }
    uint32_t last = wheel->timers[first].prev;
    timer->next = first;
    timer->prev = last;
    wheel->timers[last].next = index;
    wheel->timers[first].prev = index;
}

static void list_remove(struct timer_wheel *wheel, uint32_t index)
{
    struct timer *timer = &wheel->timers[index];
    assert(timer->list != 0);
    uint32_t list = timer->list - 1u;
    timer->list = 0;
    if (timer->next == index) {
        assert(wheel->first[list] == index);
        wheel->first[list] = TIMER_NONE;
        if (list < LIST_DUE) wheel->occupied[list / SLOTS] &= ~(UINT64_C(1) << (list % SLOTS));
        return;
    }
    wheel->timers[timer->prev].next = timer->next;
    wheel->timers[timer->next].prev = timer->prev;
    if (wheel->first[list] == index) wheel->first[list] = timer->next;
}

/* The list in which a deadline belongs, seen from the wheel's present tick. */
static uint32_t timer_list(const struct timer_wheel *wheel, uint64_t tick)
{
    if (tick <= wheel->tick) return LIST_DUE;
    uint32_t level = (63u - (uint32_t)__builtin_clzll(tick ^ wheel->tick)) / DIGIT_BITS;
    assert(level < LEVELS);
    return level * SLOTS + ((uint32_t)(tick >> (level * DIGIT_BITS)) & (SLOTS - 1));
}

void timer_set(struct timer_wheel *wheel, uint32_t timer, uint64_t deadline)
{
    assert(timer < wheel->count);
    if (wheel->timers[timer].list != 0) list_remove(wheel, timer);
    /* Rounded up: never early. The last tick of all would round to one past it. */
    uint64_t tick = deadline / wheel->units + (deadline % wheel->units != 0), last = UINT64_MAX / wheel->units;
    if (tick > last) tick = last;
    wheel->timers[timer].tick = tick;
    list_append(wheel, timer_list(wheel, tick), timer);
}

void timer_clear(struct timer_wheel *wheel, uint32_t timer)
{
    assert(timer < wheel->count);
    if (wheel->timers[timer].list != 0) list_remove(wheel, timer);
}

bool timer_is_set(const struct timer_wheel *wheel, uint32_t timer)
{
    assert(timer < wheel->count);
    return wheel->timers[timer].list != 0;
}

/* The first occupied list of the wheel and the tick at which it is entered. False: nothing but perhaps `due`. */
static bool timer_next_event(const struct timer_wheel *wheel, uint32_t *list, uint64_t *tick)
{
    for (uint32_t level = 0; level < LEVELS; level++) {
        if (wheel->occupied[level] == 0) continue;
        uint32_t slot = (uint32_t)__builtin_ctzll(wheel->occupied[level]);
        uint32_t shift = level * DIGIT_BITS;
        uint32_t above = shift + DIGIT_BITS;
        uint64_t high = above < 64 ? wheel->tick >> above << above : 0;
        *list = level * SLOTS + slot;
        *tick = high | (uint64_t)slot << shift;
        assert(*tick > wheel->tick);
        return true;
    }
    return false;
}

/* Turns the wheel up to `tick`, but stops as soon as something is due. */
static void timer_turn(struct timer_wheel *wheel, uint64_t tick)
{
    uint32_t list;
    uint64_t event;
    while (wheel->first[LIST_DUE] == TIMER_NONE && timer_next_event(wheel, &list, &event) && event <= tick) {
        wheel->tick = event;
        while (wheel->first[list] != TIMER_NONE) {
            uint32_t index = wheel->first[list];
            list_remove(wheel, index);
            uint32_t lower = timer_list(wheel, wheel->timers[index].tick);
            assert(lower == LIST_DUE || lower < list);
            list_append(wheel, lower, index);
        }
    }
    /* With something due the wheel stays at that tick: it turns on when all of it has been handed out. */
    if (wheel->first[LIST_DUE] == TIMER_NONE && wheel->tick < tick) wheel->tick = tick;
}

uint32_t timer_expire(struct timer_wheel *wheel, uint64_t now)
{
    timer_turn(wheel, now / wheel->units);
    uint32_t index = wheel->first[LIST_DUE];
    if (index == TIMER_NONE) return TIMER_NONE;
    assert(wheel->timers[index].tick <= wheel->tick);
    list_remove(wheel, index);
    return index;
}

uint64_t timer_wait(const struct timer_wheel *wheel, uint64_t now)
{
    uint32_t list;
    uint64_t tick;
    if (wheel->first[LIST_DUE] != TIMER_NONE) return 0;
    if (!timer_next_event(wheel, &list, &tick)) return UINT64_MAX;
    uint64_t event = tick * wheel->units; /* fits: timer_set() */
    return event > now ? event - now : 0;
}

uint64_t timer_wait_exact(const struct timer_wheel *wheel, uint64_t now)
{
    uint32_t list;
    uint64_t tick, earliest = UINT64_MAX;
    if (wheel->first[LIST_DUE] != TIMER_NONE) return 0;
    if (!timer_next_event(wheel, &list, &tick)) return UINT64_MAX;
    uint32_t index = wheel->first[list];
    for (unsigned n = 0; n < EXACT_MAX; n++, index = wheel->timers[index].next) {
        if (n > 0 && index == wheel->first[list]) break; /* all have been looked at */
        if (wheel->timers[index].tick < earliest) earliest = wheel->timers[index].tick;
    }
    if (index != wheel->first[list]) earliest = tick; /* there are too many to look at each */
    uint64_t event = earliest * wheel->units;
    return event > now ? event - now : 0;
}
