#include "bench/stream.h"

#include "bench/wire.h"

#include <assert.h>
#include <string.h>

enum { VERIFY_SIZE = 64 * 1024 }; /* one read or write */

uint64_t block_number(uint64_t at)
{
    return at / BLOCK_SIZE;
}

bool block_is_good(const uint8_t *data, size_t size, uint64_t at)
{
    while (size > 0) {
        uint64_t number = block_number(at);
        size_t skip = at % BLOCK_SIZE;
        bool is_number = skip < sizeof number;
        size_t part = is_number ? sizeof number - skip : BLOCK_SIZE - skip;
        const uint8_t *wanted = is_number ? (const uint8_t *)&number + skip : wire_block + skip;
        if (part > size) part = size;
        if (memcmp(data, wanted, part) != 0) return false;
        data += part, at += part, size -= part;
    }
    return true;
}

static uint64_t stream_word(uint64_t seed, uint64_t index)
{
    uint64_t z = seed + (index + 1) * UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static void stream_fill(uint64_t seed, uint64_t at, uint8_t *to, size_t size)
{
    while (size > 0) {
        uint64_t word = stream_word(seed, at / 8);
        size_t skip = at % 8;
        size_t part = 8 - skip < size ? 8 - skip : size;
        memcpy(to, (uint8_t *)&word + skip, part);
        to += part, at += part, size -= part;
    }
}

void verify_init(struct verify_end *v, bool is_origin, uint64_t seed, uint64_t size)
{
    *v = (struct verify_end){.bad_at = VERIFY_GOOD, .is_origin = is_origin};
    v->seed_out = is_origin ? ~seed : seed;
    v->seed_in = ~v->seed_out;
    v->size = size;
    v->note_out = (struct verify_note){.a = seed, .b = size};
}

/* The client's head goes before its stream, the origin's tail after it. */
static uint64_t verify_note_at(const struct verify_end *v, bool outgoing)
{
    return outgoing == v->is_origin ? v->size : 0;
}

static void verify_compare(struct verify_end *v, uint64_t at, const uint8_t *data, size_t size)
{
    static uint8_t expected[BLOCK_SIZE];
    assert(size <= sizeof expected);
    if (v->bad_at != VERIFY_GOOD) return;
    stream_fill(v->seed_in, at, expected, size);
    if (memcmp(data, expected, size) == 0) return;
    size_t good = 0;
    while (data[good] == expected[good]) good++;
    v->bad_at = at + good;
}

static void verify_take_head(struct verify_end *v)
{
    uint64_t in_at = v->in_at;
    verify_init(v, true, v->note_in.a, v->note_in.b);
    v->in_at = in_at;
    v->have_head = true;
}

void verify_receive(struct verify_end *v, const uint8_t *data, size_t size)
{
    const uint64_t note_size = sizeof v->note_in;
    while (size > 0) {
        uint64_t note_at = v->is_origin && !v->have_head ? 0 : verify_note_at(v, false);
        size_t part = size;
        if (v->in_at < note_at) {
            if (part > note_at - v->in_at) part = (size_t)(note_at - v->in_at);
            verify_compare(v, v->in_at, data, part);
        } else if (v->in_at < note_at + note_size) {
            if (part > note_at + note_size - v->in_at) part = (size_t)(note_at + note_size - v->in_at);
            memcpy((uint8_t *)&v->note_in + (v->in_at - note_at), data, part);
        } else if (v->is_origin && v->in_at < v->size + note_size) {
            if (part > v->size + note_size - v->in_at) part = (size_t)(v->size + note_size - v->in_at);
            verify_compare(v, v->in_at - note_size, data, part);
        } else {
            if (v->bad_at == VERIFY_GOOD) v->bad_at = v->size;
        }
        data += part, size -= part, v->in_at += part;
        if (v->is_origin && !v->have_head && v->in_at == note_size) verify_take_head(v);
    }
}

static uint64_t verify_stream_received(const struct verify_end *v)
{
    if (!v->is_origin) return v->in_at < v->size ? v->in_at : v->size;
    return v->in_at < sizeof v->note_in ? 0 : v->in_at - sizeof v->note_in;
}

/* Makes the next octets to send, at most `size`; 0 when there is nothing to send now. */
static size_t verify_next_out(struct verify_end *v, uint8_t *to, size_t size)
{
    uint64_t note_at = verify_note_at(v, true), note_end = note_at + sizeof v->note_out;
    uint64_t end = v->size + sizeof v->note_out;
    if (v->is_origin && !v->have_head) return 0;
    if (v->out_at >= note_at && v->out_at < note_end) {
        if (v->is_origin && !v->eof) return 0; /* the tail tells of the whole stream, so it waits for its end */
        size_t part = (size_t)(note_end - v->out_at);
        memcpy(to, (const uint8_t *)&v->note_out + (v->out_at - note_at), part);
        return part;
    }
    uint64_t stop = v->out_at < note_at ? note_at : end;
    uint64_t stream_at = v->out_at < note_at ? v->out_at : v->out_at - (note_at ? 0 : sizeof v->note_out);
    if (size > stop - v->out_at) size = (size_t)(stop - v->out_at);
    stream_fill(v->seed_out, stream_at, to, size);
    return size;
}

static bool verify_pump_out(int fd, struct verify_end *v)
{
    for (size_t size; (size = verify_next_out(v, wire_scratch, VERIFY_SIZE)) > 0;) {
        ssize_t sent = socket_send(fd, wire_scratch, size);
        if (sent < 0) return would_block(sent);
        v->out_at += (size_t)sent;
    }
    bool known = !v->is_origin || v->have_head;
    if (!known || v->shut || v->out_at < v->size + sizeof v->note_out) return true;
    v->shut = true;
    return shutdown(fd, SHUT_WR) == 0;
}

static bool verify_pump_in(int fd, struct verify_end *v)
{
    while (!v->eof) {
        ssize_t size = recv(fd, wire_scratch, VERIFY_SIZE, MSG_DONTWAIT);
        if (size < 0) return would_block(size);
        if (size > 0)
            verify_receive(v, wire_scratch, (size_t)size);
        else
            v->eof = true;
    }
    if (v->is_origin) v->note_out = (struct verify_note){.a = verify_stream_received(v), .b = v->bad_at};
    return true;
}

bool verify_pump(int fd, struct verify_end *v)
{
    return verify_pump_in(fd, v) && verify_pump_out(fd, v);
}

bool verify_is_good(const struct verify_end *v)
{
    return v->bad_at == VERIFY_GOOD && v->in_at == v->size + sizeof v->note_in && v->note_in.a == v->size &&
           v->note_in.b == VERIFY_GOOD;
}
