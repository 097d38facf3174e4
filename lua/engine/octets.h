/* Octets that grow, in memory of C: for what is read to an end that nobody knows before. What may outlast no error of
 * Lua's, or counts against a script's memory, is a struct buffer (buffer.h). */
#ifndef SLUICE_LUA_ENGINE_OCTETS_H
#define SLUICE_LUA_ENGINE_OCTETS_H

#include <stddef.h>

#define OCTETS_ROOM_MIN ((size_t)4096)

/* All zero: empty. data: malloc'd, the owner's to free; there is always room for one octet more than `room`, a zero. */
struct octets {
    char *data;
    size_t size, room;
};

/* Room for `more` octets behind those that are there, at least twice the room there was, but not more than `room_max`.
 * 0; -EFBIG: that is beyond room_max; -ENOMEM. Then all is as before. */
int octets_reserve(struct octets *o, size_t more, size_t room_max);

#endif
