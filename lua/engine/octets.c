#include "lua/engine/octets.h"

#include <errno.h>
#include <stdlib.h>

int octets_reserve(struct octets *o, size_t more, size_t room_max)
{
    if (o->data && o->room - o->size >= more) return 0;
    if (o->size > room_max || room_max - o->size < more) return -EFBIG;
    size_t room = o->room > room_max / 2 ? room_max : o->room * 2;
    if (room < OCTETS_ROOM_MIN) room = OCTETS_ROOM_MIN < room_max ? OCTETS_ROOM_MIN : room_max;
    if (room < o->size + more) room = o->size + more;
    char *bigger = realloc(o->data, room + 1);
    if (!bigger) return -ENOMEM;
    o->data = bigger;
    o->room = room;
    return 0;
}
