#include "tests/sim_users.h"

#include <stdio.h>
#include <string.h>

#include "core/session/verify.h"

void sim_users_name(uint8_t user, uint8_t password, struct credentials *out)
{
    *out = (struct credentials){.present = true};
    snprintf(out->user, sizeof out->user, "usr%u", user);
    snprintf(out->password, sizeof out->password, "word-%u", password);
}

static bool read_name(const struct credentials *credentials, uint8_t *user, uint8_t *password)
{
    unsigned u, p;
    if (sscanf(credentials->user, "usr%1u", &u) != 1 || sscanf(credentials->password, "word-%1u", &p) != 1)
        return false;
    *user = (uint8_t)u;
    *password = (uint8_t)p;
    return strlen(credentials->user) == 4 && strlen(credentials->password) == 6;
}

static const struct sim_users_change *now_in_force(const struct sim_users *users)
{
    return &users->changes[users->change_count - 1];
}

/* --- the store --- */

void sim_users_plan(struct sim_users *users, struct config *config, uint64_t seed, bool calm)
{
    memset(users, 0, sizeof *users);
    users->on = seed % 5 == 2;
    users->calm = calm;
    if (!users->on) return;
    config->user_file_count = 1;
    config->listeners[0].user_file = 1;
    users->change_count = 1;
    users->changes_max = sim_chance(500) ? 1 : sim_between(2, SIM_USERS_CHANGES_MAX);
    users->changes[0].at_us = sim_now_us();
    for (unsigned i = 0; i < SIM_USERS; i++)
        users->changes[0].passwords[i] = (uint8_t)(i + 1 < SIM_USERS ? sim_below(SIM_PASSWORDS) : SIM_PASSWORDS);
}

static void change_somebody(struct sim_users *users)
{
    struct sim_users_change *fresh = &users->changes[users->change_count];
    *fresh = *now_in_force(users);
    fresh->at_us = sim_now_us();
    fresh->passwords[sim_below(SIM_USERS - 1)] = (uint8_t)sim_below(SIM_PASSWORDS + 1);
    users->change_count++;
    atomic_fetch_add(&users->verifier.eras[1], 1);
}

enum sim_while sim_users_right(const struct sim_users *users, uint8_t user, uint8_t password, uint64_t since_us)
{
    bool ever = false, always = true;
    for (uint32_t i = 0; i < users->change_count; i++) {
        bool over = i + 1 < users->change_count && users->changes[i + 1].at_us < since_us;
        if (over) continue;
        bool right = users->changes[i].passwords[user] == password;
        ever |= right;
        always &= right;
    }
    return always ? SIM_ALWAYS : ever ? SIM_SOMETIMES : SIM_NEVER;
}

/* --- in the checkers' place --- */

static uint64_t plan_answer_us(const struct sim_users *users)
{
    if (sim_chance(300)) return sim_below(users->calm ? 1000000 : 30000000);
    return sim_below(5000);
}

/* On the worker's turn. */
static void users_ask(struct verifier *self, struct verify_request *request)
{
    struct sim_users *users = (struct sim_users *)(void *)self;
    if (users->question_count == SIM_USERS_ASKED_MAX)
        sim_fail("more passwords are asked about than there are sessions");
    for (uint32_t i = 0; i < users->question_count; i++)
        if (users->questions[i].request == request) sim_fail("a password is asked about twice at once");
    if (request->store != 1) sim_fail("a password is asked of a store that does not exist");
    users->questions[users->question_count++] =
        (struct sim_users_question){.request = request, .due_us = sim_now_us() + plan_answer_us(users)};
}

static enum verify_result judge(const struct sim_users *users, const struct credentials *credentials)
{
    uint8_t user, password;
    if (!read_name(credentials, &user, &password) || user >= SIM_USERS) return VERIFY_UNKNOWN; /* it was garbled */
    uint8_t right = now_in_force(users)->passwords[user];
    return right == SIM_PASSWORDS ? VERIFY_UNKNOWN : right == password ? VERIFY_RIGHT : VERIFY_WRONG;
}

/* As the checkers: who has left is told anything. */
static enum verify_result answer_of(const struct sim_users *users, const struct verify_request *request)
{
    if (users->stopping || atomic_load(&request->cancelled)) return VERIFY_STOPPED;
    if (!users->calm && sim_chance(100)) return VERIFY_BUSY;
    return judge(users, request->credentials);
}

/* On the worker's turn: who hears it. */
static void users_deliver(struct letter *letter)
{
    struct verify_request *request = link_owner(letter, struct verify_request, letter);
    struct sim_users *users = (struct sim_users *)(void *)request->worker->verifier;
    const struct session *s = session_at(request->worker, request->slot);
    if (pool_generation(&request->worker->sessions, request->slot) != request->generation)
        sim_fail("slot %u has a new owner, but its password is still being checked", request->slot);
    if (s->state == SESSION_VERIFY)
        users->heard[request->result]++;
    else if (!atomic_load(&request->cancelled))
        sim_fail("slot %u has left VERIFY, and has not said so", request->slot);
    else
        users->left++;
    request->answered(letter);
}

static void answer(struct sim_users *users, struct worker *w, struct verify_request *request)
{
    request->result = (uint8_t)answer_of(users, request);
    request->era = atomic_load(&users->verifier.eras[1]);
    request->hashed = true;
    request->letter.deliver = users_deliver;
    letter_put(&w->letters, &request->letter);
    if (sleeper_must_wake(&w->sleeper)) sim_wake(w->ring, (struct ring_tag){.op = WORKER_OP_WAKE});
}

bool sim_users_act(struct sim_users *users, struct worker *w, bool stopping, uint64_t *wake_us)
{
    bool moved = false;
    if (!users->on) return false;
    users->stopping |= stopping && sim_chance(100);
    if (users->change_count < users->changes_max && sim_chance(10)) change_somebody(users);
    for (uint32_t i = 0; i < users->question_count;) {
        struct sim_users_question *question = &users->questions[i];
        if (!users->stopping && question->due_us > sim_now_us()) {
            if (question->due_us < *wake_us) *wake_us = question->due_us;
            i++;
            continue;
        }
        struct verify_request *request = question->request;
        *question = users->questions[--users->question_count];
        answer(users, w, request);
        moved = true;
    }
    return moved;
}

void sim_users_open(struct sim_users *users, struct worker *w)
{
    if (!users->on) return;
    users->verifier.ask = users_ask;
    for (unsigned i = 0; i < 4; i++) users->verifier.keys[i / 2][i % 2] = sim_random();
    w->verifier = &users->verifier;
}

/* --- judging --- */

static bool is_behind_verify(enum session_state state)
{
    return state == SESSION_REQUEST || state == SESSION_ROUTE || state == SESSION_RESOLVE || state == SESSION_DIAL ||
           state == SESSION_HOP || state == SESSION_EXCHANGE;
}

void sim_users_look(const struct sim_users *users, const struct worker *w)
{
    if (!users->on) return;
    for (uint32_t slot = 0; slot < w->sessions.untouched; slot++) {
        const struct session *s = session_at(w, slot);
        if (!pool_is_taken(&w->sessions, slot) || s->setup == POOL_NONE || s->protocol == PROTOCOL_INTERNAL) continue;
        const struct setup *setup = setup_of(w, s);
        if (s->listener > 0 || !is_behind_verify(s->state) || !setup->credentials.present) continue;
        for (size_t i = 0; i < sizeof setup->credentials.password; i++)
            if (setup->credentials.password[i])
                sim_fail("the password of slot %u was judged, and is still there", slot);
    }
}

void sim_users_check_request(const struct sim_users *users, const struct route_request *request)
{
    if (!users->on || !request->credentials->present) return;
    if (!request->admitted || request->callback == ROUTE_BY_LOGIN)
        sim_fail("a ruleset is to judge a password that has been judged");
    if (!request->credentials->user_only || request->credentials->password[0]) sim_fail("a ruleset is told a password");
}

void sim_users_check(const struct sim_users *users, const struct worker *w, bool exact)
{
    static const enum password_outcome outcomes[] = {[VERIFY_RIGHT] = PASSWORD_RIGHT,
                                                     [VERIFY_WRONG] = PASSWORD_WRONG,
                                                     [VERIFY_UNKNOWN] = PASSWORD_UNKNOWN,
                                                     [VERIFY_BUSY] = PASSWORD_BUSY};
    if (!users->on) return;
    uint64_t wrong = users->heard[VERIFY_WRONG] + users->heard[VERIFY_UNKNOWN];
    uint64_t refused = counter_read(&w->stats.failures[FAIL_AUTH]);
    uint64_t busy = counter_read(&w->stats.failures[FAIL_AUTH_BUSY]);
    if (users->question_count > 0) sim_fail("%u passwords are checked for nobody", users->question_count);
    if (refused < wrong || (exact && refused != wrong))
        sim_fail("%llu passwords were wrong, %llu sessions were refused for that", (unsigned long long)wrong,
                 (unsigned long long)refused);
    for (unsigned i = 0; i < sizeof outcomes / sizeof *outcomes; i++)
        if (counter_read(&w->stats.passwords[outcomes[i]]) != users->heard[i])
            sim_fail("%u answers about passwords are \"%s\", which is not what was counted", users->heard[i],
                     password_outcome_name(outcomes[i]));
    if (busy != users->heard[VERIFY_BUSY])
        sim_fail("%u answers were \"busy\", %llu sessions were refused for that", users->heard[VERIFY_BUSY],
                 (unsigned long long)busy);
    sim_trace("passwords: %u right, %u wrong, %u of nobody, %u busy, %u stopped, %u for who had left",
              users->heard[VERIFY_RIGHT], users->heard[VERIFY_WRONG], users->heard[VERIFY_UNKNOWN],
              users->heard[VERIFY_BUSY], users->heard[VERIFY_STOPPED], users->left);
}
