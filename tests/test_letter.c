/* Letters between threads: none is lost or delivered twice, each sender's arrive in order; and what a heartbeat shows.
 */
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include "core/control/heartbeat.h"
#include "core/io/letter.h"
#include "core/io/queue.h"
#include "tests/support.h"

#define SENDERS 4u
#define LETTERS 20000u

struct note {
    struct letter letter; /* first */
    unsigned sender, number;
};

static struct {
    struct letter_box box;
    struct sleeper sleeper;
    struct note notes[SENDERS][LETTERS];
    unsigned next[SENDERS]; /* by sender: the number that is to come */
    unsigned wakes;
    _Atomic unsigned woken;
} post;

static void on_note(struct letter *letter)
{
    struct note *note = (struct note *)letter;
    assert_int_equal(note->number, post.next[note->sender]);
    post.next[note->sender]++;
}

static void *send_all(void *argument)
{
    unsigned sender = (unsigned)(uintptr_t)argument;
    for (unsigned i = 0; i < LETTERS; i++) {
        struct note *note = &post.notes[sender][i];
        *note = (struct note){.letter.deliver = on_note, .sender = sender, .number = i};
        letter_put(&post.box, &note->letter);
        if (sleeper_must_wake(&post.sleeper)) atomic_fetch_add(&post.woken, 1);
        if (i % 1000 == 0) sched_yield();
    }
    return NULL;
}

static bool all_are_here(void)
{
    for (unsigned i = 0; i < SENDERS; i++)
        if (post.next[i] < LETTERS) return false;
    return true;
}

/* Sleeps as coordinator and supervisor do: announced, a last look, and only then. */
static void receive(void)
{
    sleeper_announce(&post.sleeper);
    if (letter_box_is_empty(&post.box))
        while (atomic_load(&post.woken) == post.wakes) sched_yield(); /* for ever, if a wake-up is lost */
    sleeper_awake(&post.sleeper);
    post.wakes = atomic_load(&post.woken);
    letter_box_deliver(&post.box);
}

static void test_many_senders(void **state)
{
    pthread_t threads[SENDERS];
    (void)state;
    for (unsigned i = 0; i < SENDERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, send_all, (void *)(uintptr_t)i), 0);
    while (!all_are_here()) receive();
    for (unsigned i = 0; i < SENDERS; i++) pthread_join(threads[i], NULL);
    assert_true(letter_box_is_empty(&post.box));
}

static unsigned rounds;

static void send_again(struct letter *letter)
{
    rounds++;
    letter_put(&post.box, letter);
}

/* A letter that sends itself again does not keep its receiver there. */
static void test_again_and_again(void **state)
{
    struct letter letter = {.deliver = send_again};
    (void)state;
    letter_put(&post.box, &letter);
    for (unsigned i = 1; i <= 3; i++) {
        letter_box_deliver(&post.box);
        assert_int_equal(rounds, i);
    }
}

static struct heartbeat beat;

static void *beat_often(void *stop)
{
    for (uint64_t i = 1; !atomic_load((_Atomic bool *)stop); i++) {
        heartbeat_enter(&beat, i % 2 ? "the ruleset" : "script a", i);
        heartbeat_leave(&beat);
    }
    return NULL;
}

static void test_heartbeat(void **state)
{
    static _Atomic bool stop;
    pthread_t thread;
    char long_name[200];
    (void)state;
    struct heartbeat_reading reading = heartbeat_read(&beat);
    assert_true(reading.entry_ms == 0 && reading.turn_ms == 0 && reading.text[0] == '\0');
    assert_int_equal(pthread_create(&thread, NULL, beat_often, &stop), 0);
    for (unsigned i = 0; i < 10000; i++) {
        reading = heartbeat_read(&beat);
        assert_true(strnlen(reading.text, sizeof reading.text) < sizeof reading.text);
    }
    atomic_store(&stop, true);
    pthread_join(thread, NULL);
    heartbeat_enter(&beat, "script b", 7);
    reading = heartbeat_read(&beat);
    assert_string_equal(reading.text, "script b");
    assert_true(reading.entry_ms == 7);
    memset(long_name, 'x', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = '\0';
    heartbeat_enter(&beat, long_name, 8);
    assert_int_equal(strlen(heartbeat_read(&beat).text), HEARTBEAT_TEXT_SIZE - 1);
    heartbeat_leave(&beat);
    assert_true(heartbeat_read(&beat).entry_ms == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many_senders),
        cmocka_unit_test(test_again_and_again),
        cmocka_unit_test(test_heartbeat),
    };
    return cmocka_run_group_tests_name("letters", tests, NULL, NULL);
}
