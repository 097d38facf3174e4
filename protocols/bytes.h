/* Bounded big-endian reading and writing over a (data, size) pair.
 *
 * A reader never looks behind its end. It notes that it was asked to, and from then on yields zeros, so that a parser
 * takes field after field and asks once whether they were all there. A writer's room is the caller's promise (every
 * writer of this folder names the size it needs), so that running out of it is our mistake and asserted. */
#ifndef SLUICE_PROTOCOLS_BYTES_H
#define SLUICE_PROTOCOLS_BYTES_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct bytes_reader {
    const uint8_t *data; /* borrowed */
    size_t size;         /* octets in data */
    size_t at;           /* octets taken, at most size */
    bool ended;          /* more was asked for than there is; sticky */
};

static inline struct bytes_reader bytes_reader_over(const uint8_t *data, size_t size)
{
    return (struct bytes_reader){.data = data, .size = size};
}

/* The next `size` octets, within the reader's data; NULL when they are not all there. */
static inline const uint8_t *bytes_take(struct bytes_reader *reader, size_t size)
{
    assert(reader->at <= reader->size);
    if (size > reader->size - reader->at) reader->ended = true;
    if (reader->ended) return NULL;
    const uint8_t *taken = reader->data + reader->at;
    reader->at += size;
    return taken;
}

static inline uint8_t bytes_take_u8(struct bytes_reader *reader)
{
    const uint8_t *octet = bytes_take(reader, 1);
    return octet != NULL ? octet[0] : 0;
}

static inline uint16_t bytes_take_u16(struct bytes_reader *reader)
{
    const uint8_t *octets = bytes_take(reader, 2);
    return octets != NULL ? (uint16_t)(octets[0] << 8 | octets[1]) : 0;
}

/* A writer that ran out of room stays full, so that its users need one check at the end. */
struct bytes_writer {
    uint8_t *out; /* borrowed */
    size_t size;  /* octets of room */
    size_t at;    /* octets written, at most size */
    bool full;    /* something did not fit */
};

static inline struct bytes_writer bytes_writer_over(uint8_t *out, size_t size)
{
    return (struct bytes_writer){.out = out, .size = size};
}

static inline void bytes_put(struct bytes_writer *writer, const void *data, size_t size)
{
    if (writer->full || size > writer->size - writer->at) {
        writer->full = true;
        return;
    }
    if (size > 0) memcpy(writer->out + writer->at, data, size);
    writer->at += size;
}

/* Octets written, 0 if they did not all fit: half a message is never sent. */
static inline size_t bytes_writer_finish(const struct bytes_writer *writer)
{
    return writer->full ? 0 : writer->at;
}

static inline void bytes_put_u8(struct bytes_writer *writer, uint8_t value)
{
    bytes_put(writer, &value, 1);
}

static inline void bytes_put_u16(struct bytes_writer *writer, uint16_t value)
{
    const uint8_t octets[2] = {(uint8_t)(value >> 8), (uint8_t)(value & 0xffu)};
    bytes_put(writer, octets, sizeof(octets));
}

#endif
