/* Remote calls: the input is what a peer answers, a Content-Type, and a peer's address.
 *
 * What is asserted: the outcome and the body do not depend on how the octets came; they stay inside what is kept; what
 * is told apart as a success is one. A request that is written reads again with one framing and nothing smuggled in. */
#include "fuzz/check.h"
#include "protocols/rpc_message.h"

struct reading {
    struct rpc_answer answer;
    uint8_t *kept;
    size_t size;
};

/* In a block of exactly its size, so that the sanitizer sees whoever reads on. */
static bool reading_add(struct reading *r, const uint8_t *data, size_t size)
{
    uint8_t *joined = calloc(r->size + size, 1);
    assert(joined != NULL || r->size + size == 0);
    if (r->size > 0) memcpy(joined, r->kept, r->size);
    if (size > 0) memcpy(joined + r->size, data, size);
    free(r->kept);
    r->kept = joined;
    r->size += size;
    size_t before = r->size;
    bool over = rpc_answer_read(&r->answer, joined, &r->size);
    assert(r->size <= before);
    if (r->answer.body_at > 0) assert(r->answer.body_at + r->answer.body_size <= r->size);
    return over;
}

static void reading_finish(struct reading *r, bool over)
{
    if (!over) rpc_answer_end(&r->answer);
    assert(r->answer.outcome <= RPC_MALFORMED && r->answer.coding <= RPC_GZIP);
    assert(r->answer.body_size <= RPC_BODY_SIZE_MAX);
    if (r->answer.outcome == RPC_STATUS) {
        assert(r->answer.status_line_size >= 12 && r->answer.status_line_size < r->size);
        assert(memcmp(r->kept, "HTTP/1.", 7) == 0 && r->kept[r->answer.status_line_size] == '\r');
    }
    if (r->answer.outcome == RPC_MESSAGE) assert(r->answer.body_size > 0 && r->kept[9] != '2');
    if (r->answer.outcome == RPC_VALUES || r->answer.outcome == RPC_WRONG_TYPE) assert(r->kept[9] == '2');
}

static void read_whole(struct reading *r, const uint8_t *data, size_t size)
{
    reading_finish(r, reading_add(r, data, size));
}

/* Pieces whose sizes the input's own octets choose. */
static void read_in_pieces(struct reading *r, const uint8_t *data, size_t size)
{
    bool over = false;
    unsigned seed = 7;
    for (size_t at = 0; at < size && !over;) {
        size_t piece = 1 + seed % 61;
        if (piece > size - at) piece = size - at;
        over = reading_add(r, data + at, piece);
        at += piece;
        seed = seed * 31 + data[at - 1];
    }
    reading_finish(r, over);
}

static void check_answer(const uint8_t *data, size_t size, enum rpc_path path)
{
    struct reading whole = {.answer.path = (uint8_t)path}, pieces = {.answer.path = (uint8_t)path};
    read_whole(&whole, data, size);
    read_in_pieces(&pieces, data, size);
    const struct rpc_answer *a = &whole.answer, *b = &pieces.answer;
    assert(a->outcome == b->outcome);
    if (a->outcome == RPC_VALUES || a->outcome == RPC_MESSAGE) {
        assert(a->coding == b->coding && a->body_size == b->body_size);
        assert(a->body_size == 0 || memcmp(whole.kept + a->body_at, pieces.kept + b->body_at, a->body_size) == 0);
    }
    if (a->outcome == RPC_STATUS) {
        assert(a->status_line_size == b->status_line_size);
        assert(memcmp(whole.kept, pieces.kept, a->status_line_size) == 0);
    }
    free(whole.kept);
    free(pieces.kept);
}

static void check_type(const uint8_t *data, size_t size)
{
    static const char strange[] = "; version=2";
    char *copy = calloc(size + sizeof strange, 1);
    assert(copy != NULL);
    if (size > 0) memcpy(copy, data, size);
    if (rpc_is_content_type(copy, size)) {
        memcpy(copy + size, strange, sizeof strange - 1);
        assert(!rpc_is_content_type(copy, size + sizeof strange - 1));
    }
    free(copy);
}

static void check_peer(const uint8_t *data, size_t size)
{
    struct rpc_peer peer;
    uint8_t out[RPC_REQUEST_HEAD_SIZE_MAX];
    struct http_head head;
    enum http_framing framing;
    uint64_t length;
    size_t scanned = 0, used;
    if (!rpc_peer_parse((const char *)data, size, &peer)) return;
    check_address(&peer.address);
    size_t written = rpc_write_request(out, sizeof out, &peer, RPC_CALL, size, true);
    assert(http_parse_request(out, written, &scanned, &head, &used) == PARSE_OK && used == written);
    assert(head.field_count == (peer.token[0] != '\0' ? 6 : 5));
    assert(http_count_fields(out, &head, "Host") == 0);
    assert(http_body_judge(out, &head, HTTP_BODY_NONE, &framing, &length) == 0);
    assert(framing == HTTP_BODY_LENGTH && length == size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *copy = check_copy(data, size);
    check_answer(copy, size, RPC_CALL);
    check_answer(copy, size, RPC_INVOKE);
    check_type(copy, size);
    check_peer(copy, size);
    free(copy);
    return 0;
}
