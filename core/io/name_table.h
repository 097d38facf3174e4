/* Host names in an open-addressing hash over one block of text, in lower case, with some octets of the builder's own
 * behind each. A host is hashed once, from its end to its beginning, and looked up at every label on the way: c, b.c,
 * a.b.c. A million names take some 60 MiB.
 *
 * Lists may come from peers: start and factor of the hash are random, so that nobody can choose names that collide.
 * Never written once it is built: any thread may look up. */
#ifndef SLUICE_CORE_IO_NAME_TABLE_H
#define SLUICE_CORE_IO_NAME_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NAME_TABLE_NAME_MAX 255u /* octets of a name without the dots around it */

struct name_slot {
    uint32_t hash;
    uint32_t offset; /* of its text: an octet of length, the name, the payload; 0: free */
};

struct name_table {
    uint64_t start, factor; /* of the hash */
    uint32_t count, mask;   /* of the slots: a power of two less one */
    uint32_t payload;       /* octets behind each name */
    unsigned labels;        /* of the name that has most */
    struct name_slot *slots;
    uint8_t *text; /* the first octet is not used */
    size_t text_used, text_size;
};

/* What is to be added. */
struct name_room {
    size_t count, text;
};

static inline struct name_room name_room_begin(void)
{
    return (struct name_room){.text = 1};
}
void name_room_add(struct name_room *room, size_t name_size, uint32_t payload);
/* Octets of the slots; SIZE_MAX: it is too much for one table. */
size_t name_room_slots(const struct name_room *room);

/* An empty table in memory that is the caller's: slots[name_room_slots()], aligned as malloc() does, and
 * text[room->text]. */
void name_table_init(struct name_table *table, const struct name_room *room, uint32_t payload, void *slots,
                     uint8_t *text);
/* A name without the dot in front and the one behind, which mean nothing. */
const char *name_trim(const char *name, size_t *size);
/* The payload of that name, which is added, with zeros, if it is not there; NULL: the room is used up. The pointer
 * holds as long as the table; it is not aligned. name  of 1 to NAME_TABLE_NAME_MAX octets, trimmed. */
uint8_t *name_table_add(struct name_table *table, const char *name, size_t size);

/* A walk over the names of the table that are `host` or a domain above it, the shortest first. host  trimmed. */
struct name_walk {
    const struct name_table *table;
    const uint8_t *host;
    size_t at, stop;
    size_t size;
    uint64_t state;
    unsigned labels;
};
struct name_walk name_walk_begin(const struct name_table *table, const char *host, size_t size);
/* The payload of the next one; NULL: there is none. *whole: it is the host itself. */
const uint8_t *name_walk_next(struct name_walk *walk, bool *whole);

#endif
