/* Verified streams, both ends.
 *
 * Word i of a stream is a mix of seed + i (the finaliser of splitmix64), so that any range of it can be made at any
 * time and each end compares every byte with what it must be: nothing weaker than a digest, and it knows where the
 * first wrong byte was. The client says seed and size in a head; the origin sends its stream at the same time, and
 * after the client's end of stream a tail that says what it has seen. */
#ifndef SLUICE_BENCH_STREAM_H
#define SLUICE_BENCH_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct verify_note {
    uint64_t a; /* head: seed;  tail: octets of the stream received */
    uint64_t b; /* head: size;  tail: place of the first wrong octet, or VERIFY_GOOD */
};

#define VERIFY_GOOD UINT64_MAX

/* What the source sends: wire_block over and over, and in the first octets of each the number of the block, so that
 * what is lost, doubled or out of order shows. */
uint64_t block_number(uint64_t at); /* of the block in which octet `at` of the stream lies */
bool block_is_good(const uint8_t *data, size_t size, uint64_t at);

struct verify_end {
    uint64_t seed_out, seed_in;
    uint64_t size;               /* of the stream, each way */
    uint64_t out_at, in_at;      /* octets passed, notes included */
    uint64_t bad_at;             /* first wrong octet received, or VERIFY_GOOD */
    struct verify_note note_out; /* the client's head or the origin's tail */
    struct verify_note note_in;  /* the same of the other end */
    bool is_origin;
    bool have_head; /* origin: seed and size are known */
    bool eof;       /* the other end has sent everything */
    bool shut;      /* we have */
};

/* The origin learns seed and size from the client's head. */
void verify_init(struct verify_end *v, bool is_origin, uint64_t seed, uint64_t size);
/* Takes received octets of any number, and sorts them into note and stream. Octets beyond both are an error. */
void verify_receive(struct verify_end *v, const uint8_t *data, size_t size);
/* Moves what can be moved both ways now. False when the connection failed. */
bool verify_pump(int fd, struct verify_end *v);
/* Client, after the origin's end of stream: did every octet arrive, unchanged, in both directions? */
bool verify_is_good(const struct verify_end *v);

#endif
