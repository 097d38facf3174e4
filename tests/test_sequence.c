/* The simulator's model of several requests on one connection: it takes whatever framing a proxy may choose, and an
 * octet that is wrong, missing or one too many ends the test. */
#include "tests/sim_sequence.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/sim.h"
#include "tests/sim_peers.h"

#define ROOM 256u /* that a reader has for what it is not done with: the longest head, not more */

static struct sequence plan;
static struct sequence_reader reader;
static uint8_t words[SAY_MAX], answer[SAY_MAX], heard[ROOM];
static size_t heard_size, answer_size;
static bool granted;

typedef bool hears(const uint8_t *data, size_t size, size_t *used);

static bool upstream_hears(const uint8_t *data, size_t size, size_t *used)
{
    return sequence_hear_request(&plan, &reader, data, size, used, UINT64_MAX, false, answer, sizeof answer,
                                 &answer_size);
}

static bool client_hears(const uint8_t *data, size_t size, size_t *used)
{
    return sequence_hear_response(&plan, &reader, (uint8_t *)(uintptr_t)data, size, used, &granted);
}

/* What comes is put behind what is left. True: a message is whole. */
static bool hear(hears *who, const void *data, size_t size)
{
    size_t used;
    assert_true(heard_size + size <= sizeof heard);
    memcpy(heard + heard_size, data, size);
    heard_size += size;
    bool whole = who(heard, heard_size, &used);
    heard_size -= used;
    memmove(heard, heard + used, heard_size);
    return whole;
}

/* A message, whose body is framed anew with an octet in each chunk. True: it is whole with its last octet, not before.
 */
static bool hear_rechunked(hears *who, const char *head, const uint8_t *body, uint32_t size)
{
    char text[32];
    assert_false(hear(who, head, strlen(head)));
    for (uint32_t i = 0; i < size; i++) assert_false(hear(who, text, (size_t)sprintf(text, "1\r\n%c\r\n", body[i])));
    assert_false(hear(who, "0\r\n\r", 4));
    return hear(who, "\n", 1);
}

/* Plans a sequence whose first request has a large body and the largest response there is, both without coding. Returns
 * where that request's body begins. */
static const uint8_t *begin(void)
{
    sim_begin(1, NULL, 0, NULL, NULL);
    do sequence_plan(&plan, "host.test:80", "", words, sizeof words);
    while (plan.up[0] < SEQUENCE_BODY_MAX / 2 || plan.chunked_up[0]);
    plan.down[0] = SEQUENCE_BODY_MAX;
    plan.chunked_down[0] = plan.interim[0] = false;
    memset(&reader, 0, sizeof reader);
    heard_size = 0;
    return words + plan.end[0] - plan.up[0];
}

#define REQUEST_HEAD  "POST /0 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
#define RESPONSE_HEAD "HTTP/1.1 200 OK\r\nIndex: 0\r\nTransfer-Encoding: chunked\r\n\r\n"

/* Six octets come for each one of the body, and no room for a message is needed. */
static void test_octet_in_each_chunk(void **state)
{
    const uint8_t *body = begin();
    (void)state;
    assert_true(hear_rechunked(upstream_hears, REQUEST_HEAD, body, plan.up[0]));
    assert_int_equal(plan.heard, 1);
    assert_int_equal(heard_size, 0);
    memset(&reader, 0, sizeof reader);
    body = answer + answer_size - plan.down[0];
    assert_true(hear_rechunked(client_hears, RESPONSE_HEAD, body, plan.down[0]));
    assert_true(granted);
    assert_int_equal(plan.answered, 1);
    assert_int_equal(heard_size, 0);
}

/* A response has begun with an interim head, although all of that is read. */
static void test_interim_head_begins(void **state)
{
    const uint8_t *body = begin();
    (void)state;
    assert_true(hear_rechunked(upstream_hears, REQUEST_HEAD, body, plan.up[0]));
    memset(&reader, 0, sizeof reader);
    assert_false(hear(client_hears, "HTTP/1.1 103 Early Hints\r\n\r\n", 28));
    assert_int_equal(heard_size, 0);
    assert_true(reader.begun);
    assert_true(hear_rechunked(client_hears, RESPONSE_HEAD, answer + answer_size - plan.down[0], plan.down[0]));
    assert_false(reader.begun);
}

static void test_refusal(void **state)
{
    begin();
    (void)state;
    assert_true(hear(client_hears, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", 47));
    assert_false(granted);
    assert_int_equal(plan.answered, 0);
}

/* In a process of its own, which sim_fail() must end. */
static void check_fails(const uint8_t *body, uint32_t size)
{
    int status;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        fclose(stderr);
        hear_rechunked(upstream_hears, REQUEST_HEAD, body, size);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
}

static void test_changed_body(void **state)
{
    static uint8_t changed[SEQUENCE_BODY_MAX + 1];
    const uint8_t *body = begin();
    (void)state;
    memcpy(changed, body, plan.up[0]);
    check_fails(changed, plan.up[0] - 1);
    check_fails(changed, plan.up[0] + 1);
    changed[plan.up[0] - 1] ^= 2;
    check_fails(changed, plan.up[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_octet_in_each_chunk),
        cmocka_unit_test(test_interim_head_begins),
        cmocka_unit_test(test_refusal),
        cmocka_unit_test(test_changed_body),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
