#include "core/session/verify.h"

#include <assert.h>
#include <string.h>

#include "core/session/hooks.h"
#include "core/session/worker.h"

const char *password_outcome_name(enum password_outcome outcome)
{
    static const char *const names[] = {[PASSWORD_REMEMBERED] = "remembered",
                                        [PASSWORD_RIGHT] = "right",
                                        [PASSWORD_WRONG] = "wrong",
                                        [PASSWORD_UNKNOWN] = "unknown",
                                        [PASSWORD_BUSY] = "busy"};
    assert(outcome < PASSWORD_OUTCOMES);
    return names[outcome];
}

static uint8_t store_of(const struct worker *w, const struct session *s)
{
    return w->config->listeners[s->listener].user_file;
}

bool verify_is_due(const struct worker *w, const struct session *s)
{
    return w->verifier && store_of(w, s) != 0;
}

/* Who it is has been shown. From here on it is a name, as that of a SOCKS4 client is, and nobody's to judge again. */
static void verify_settle(struct setup *setup)
{
    explicit_bzero(setup->credentials.password, sizeof setup->credentials.password);
    setup->credentials.user_only = true;
    setup->route.admitted = true;
}

bool verify_knows(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    uint8_t store = store_of(w, s);
    assert(setup->credentials.present);
    setup->verify.digest = verify_digest_of(w->verifier, store, &setup->credentials);
    uint32_t era = atomic_load_explicit(&w->verifier->eras[store], memory_order_acquire);
    if (!verified_find(&w->verified, &setup->verify.digest, era)) return false;
    verify_settle(setup);
    counter_add(&w->stats.passwords[PASSWORD_REMEMBERED], 1);
    return true;
}

enum session_state verify_begin(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    struct verify_request *request = &setup->verify;
    assert(!(s->inflight & SESSION_BIT(SESSION_ANSWER)));
    request->answered = session_hook_verified;
    request->worker = w;
    request->slot = s->slot;
    request->generation = pool_generation(&w->sessions, s->slot);
    atomic_store_explicit(&request->cancelled, 0, memory_order_relaxed);
    request->store = store_of(w, s);
    request->source = share_source_of(&s->client);
    request->credentials = &setup->credentials;
    s->inflight |= SESSION_BIT(SESSION_ANSWER);
    w->verifier->ask(w->verifier, request);
    return SESSION_VERIFY;
}

static void verify_count(struct worker *w, const struct verify_request *request)
{
    static const enum password_outcome outcomes[] = {
        [VERIFY_WRONG] = PASSWORD_WRONG, [VERIFY_UNKNOWN] = PASSWORD_UNKNOWN, [VERIFY_BUSY] = PASSWORD_BUSY};
    if (request->result == VERIFY_STOPPED) return;
    enum password_outcome right = request->hashed ? PASSWORD_RIGHT : PASSWORD_REMEMBERED;
    counter_add(&w->stats.passwords[request->result == VERIFY_RIGHT ? right : outcomes[request->result]], 1);
}

enum failure verify_finish(struct worker *w, struct session *s)
{
    struct setup *setup = setup_of(w, s);
    const struct verify_request *request = &setup->verify;
    setup->verdict_on_user = request->result;
    explicit_bzero(setup->credentials.password, sizeof setup->credentials.password);
    verify_count(w, request);
    switch ((enum verify_result)request->result) {
    case VERIFY_RIGHT:
        verified_keep(&w->verified, &request->digest, request->era);
        verify_settle(setup);
        return FAIL_NONE;
    case VERIFY_WRONG:
    case VERIFY_UNKNOWN: return FAIL_AUTH;
    case VERIFY_BUSY: return FAIL_AUTH_BUSY;
    case VERIFY_STOPPED: break;
    }
    return FAIL_RESOURCE;
}
