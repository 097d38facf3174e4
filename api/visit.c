#include "api/visit.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "api/answer_size.h"
#include "api/fields.h"
#include "api/health.h"
#include "api/judge.h"
#include "api/response.h"
#include "core/control/coordinator.h"
#include "core/control/supervisor.h"
#include "lua/engine/codec.h"

/* Calls that wait for scripts as long as these want. The rest of the connections stays for the others. */
#define WAITING_MAX 128u
static_assert(WAITING_MAX < PEERS_MAX, "some connections are always for those that do not wait");

enum MHD_Result visit_answer(struct visit *visit)
{
    struct call *call = visit->call;
    call->connection = visit->connection;
    struct lending *lending = &visit->owner->lending;
    struct MHD_Response *response = response_make(call);
    if (!response) return MHD_NO;
    if (call->method != CALL_HEAD) counter_add(&lending->bytes_out, call->answer_size);
    counter_add(&lending->bytes_out, answer_head_size(response, call->status, call->persists, call->answer_size));
    enum MHD_Result result = MHD_queue_response(call->connection, call->status, response);
    MHD_destroy_response(response);
    visit->succeeded = call->status < 400;
    if (visit->succeeded) counter_add(&lending->successes, 1);
    return result;
}

static void visit_enter(struct visit *visit, enum peer_state state)
{
    peers_enter(visit->peer, state, supervisor_now_ms(visit->owner->parts->supervisor));
}

/* --- a visit's life --- */

static struct peer *peer_of(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info ? info->socket_context : NULL;
}

struct visit *visit_open(struct visits *all, struct MHD_Connection *connection)
{
    struct visit *visit = calloc(1, sizeof *visit);
    struct call *call = visit ? call_new(all->parts, visit, connection) : NULL;
    if (!call) {
        free(visit);
        return NULL;
    }
    *visit = (struct visit){
        .owner = all, .connection = connection, .call = call, .peer = peer_of(connection), .next = all->first};
    visit_enter(visit, PEER_BUSY);
    if (all->first) all->first->previous = visit;
    all->first = visit;
    counter_add(&all->lending.requests, 1);
    return visit;
}

/* The coordinator keeps what it has, for nobody. */
static void visit_leave_call(struct visit *visit)
{
    visit->call->visit = NULL;
    visit->call = NULL;
    visit->suspended = false;
    lend_withdraw(&visit->owner->lending, visit->serial);
}

void visit_close(struct visit *visit)
{
    struct visits *all = visit->owner;
    if (!visit->succeeded) counter_add(&all->lending.errors, 1); /* whoever has answered it, if anybody */
    visit_enter(visit, PEER_IDLE);
    if (visit->suspended) visit_leave_call(visit);
    if (visit->call) call_free(visit->call);
    if (visit->previous)
        visit->previous->next = visit->next;
    else
        all->first = visit->next;
    if (visit->next) visit->next->previous = visit->previous;
    free(visit);
}

static void visit_resume(struct visit *visit)
{
    visit->suspended = false;
    visit_enter(visit, PEER_BUSY);
    MHD_resume_connection(visit->connection);
    visit->owner->run_again = true;
}

static void on_returned(struct call *call)
{
    struct visit *visit = call->visit;
    if (visit)
        visit_resume(visit);
    else
        call_free(call);
}

/* Answers what the coordinator has not, or not in time. */
static void visit_give_up(struct visit *visit, unsigned status, const char *message)
{
    struct call *own = call_new(visit->owner->parts, visit, visit->connection);
    if (own) {
        own->endpoint = visit->call->endpoint;
        own->method = visit->call->method;
        call_reply_text(own, status, message);
    }
    visit_leave_call(visit);
    visit->call = own; /* NULL: the connection is closed without an answer */
    visit_resume(visit);
}

/* Its time is over. */
static void visit_expire(struct visit *visit)
{
    char message[HEALTH_TEXT_SIZE] = "the script did not answer in time";
    health_is_stuck(visit->owner->parts, message, sizeof message);
    visit_give_up(visit, visit->call->endpoint->limit_ms > 0 ? 503 : 504, message);
}

static bool visit_waits(const struct visit *visit)
{
    return visit->suspended && visit->call->endpoint->waits;
}

/* A client that has only ended its own side still gets its answer, as long as others need not wait for that: most have
 * simply gone. The one that has waited longest. */
static struct visit *find_half_closed(struct visits *all)
{
    struct visit *found = NULL;
    for (struct visit *v = all->first; v; v = v->next)
        if (visit_waits(v) && (!found || v->since_ms < found->since_ms) && v->peer &&
            peers_look(v->peer) == PEER_HALF_CLOSED)
            found = v;
    return found;
}

/* Whether another call may wait for a script: as one of a few, or in the place of one whose client has most likely
 * gone. */
static bool visits_make_room(struct visits *all)
{
    unsigned waiting = 0;
    for (struct visit *v = all->first; v; v = v->next) waiting += visit_waits(v);
    if (waiting < WAITING_MAX) return true;
    struct visit *other = find_half_closed(all);
    if (other) visit_give_up(other, 503, "others wait, and your side of the connection is closed");
    return other != NULL;
}

void visits_drop_gone(struct visits *all)
{
    for (struct visit *v = all->first; v; v = v->next)
        if (v->suspended && v->peer && peers_look(v->peer) == PEER_GONE) visit_give_up(v, 503, "nobody is there");
}

uint64_t visits_expire(struct visits *all, uint64_t now_ms)
{
    uint64_t next = UINT64_MAX;
    for (struct visit *v = all->first; v; v = v->next) {
        if (!v->suspended) continue;
        uint64_t end_ms = v->end_ms + atomic_load_explicit(&v->call->patience_ms, memory_order_relaxed);
        if (end_ms <= now_ms)
            visit_expire(v);
        else if (end_ms < next)
            next = end_ms;
    }
    return next;
}

/* Lends the call to the coordinator, and waits. */
static enum MHD_Result visit_lend(struct visit *visit)
{
    struct visits *all = visit->owner;
    struct call *call = visit->call;
    uint64_t now = supervisor_now_ms(all->parts->supervisor);
    uint32_t limit_ms = call->endpoint->limit_ms;
    if (limit_ms == 0) limit_ms = coordinator_timeout_ms(all->parts->coordinator);
    if (lend_is_full(&all->lending, call->endpoint) || (call->endpoint->waits && !visits_make_room(all))) {
        call_reply_text(call, 503, "too many calls wait already, try again later");
        return visit_answer(visit);
    }
    if (!call_copy(call)) {
        call_reply_text(call, 500, "not enough memory");
        return visit_answer(visit);
    }
    visit->since_ms = now;
    visit->end_ms = now + limit_ms;
    visit->suspended = true;
    visit_enter(visit, PEER_WAITS);
    MHD_suspend_connection(visit->connection);
    visit->serial = lend_call(&all->lending, call);
    return MHD_YES;
}

/* The body is whole: what it is coded in is taken off. */
static bool decode_body(struct call *call)
{
    enum codec codec;
    char *plain;
    size_t size;
    if (!fields_read_codec(call_header(call, MHD_HTTP_HEADER_CONTENT_ENCODING), &codec)) {
        judge_refuse(call, 415);
        return false;
    }
    if (codec == CODEC_NONE) return true;
    enum codec_result result =
        codec_decode(codec, call->body.data ? call->body.data : "", call->body.size, CODEC_OUTPUT_MAX, &plain, &size);
    if (result != CODEC_OK) {
        call_reply_text(call, result == CODEC_TOO_LARGE ? 413 : 400, codec_result_text(result));
        return false;
    }
    text_free(&call->body);
    call->body = (struct text){.data = plain, .size = size, .room = size + 1};
    return true;
}

enum MHD_Result visit_dispatch(struct visit *visit)
{
    struct call *call = visit->call;
    unsigned refused = judge_again(call);
    visit->dispatched = true;
    if (!call->body.data) text_add(&call->body, "", 0);
    if (refused)
        judge_refuse(call, refused);
    else if (call->body.failed)
        call_reply_text(call, 500, "not enough memory");
    else if (visit->owner->closing)
        call_reply_text(call, 503, "the server stops");
    else if (decode_body(call) && call->endpoint->outside)
        call->endpoint->outside(call);
    return call->answered ? visit_answer(visit) : visit_lend(visit);
}

static void count_head(struct visit *visit)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(visit->connection, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
    if (info) counter_add(&visit->owner->lending.bytes_in, info->header_size);
}

/* HTTP/1.1 persists unless the client says otherwise, HTTP/1.0 only if it says so. */
static bool client_persists(struct call *call, const char *version)
{
    const char *connection = call_header(call, MHD_HTTP_HEADER_CONNECTION);
    if (strcmp(version, MHD_HTTP_VERSION_1_1) != 0) return connection && strcasecmp(connection, "keep-alive") == 0;
    return !connection || strcasecmp(connection, "close") != 0;
}

enum MHD_Result visit_begin(struct visit *visit, const char *url, const char *method, const char *version)
{
    struct call *call = visit->call;
    visit->begun = true;
    count_head(visit);
    call->persists = client_persists(call, version);
    unsigned refused = judge_head(call, url, method, version);
    if (!refused) return MHD_YES;
    visit->dispatched = true;
    judge_refuse(call, refused);
    return judge_drops_body(call, refused) ? MHD_YES : visit_answer(visit);
}

/* --- all of them --- */

void visits_open(struct visits *all, struct api_parts *parts)
{
    all->parts = parts;
    all->lending.parts = parts;
    all->lending.returned = on_returned;
}

void visits_end(struct visits *all)
{
    all->closing = true;
    for (struct visit *v = all->first; v; v = v->next)
        if (v->suspended) visit_give_up(v, 503, "the server stops");
}
