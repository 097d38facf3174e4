/* Addresses and chains as scripts write them. */
#ifndef SLUICE_LUA_MODULES_TARGET_H
#define SLUICE_LUA_MODULES_TARGET_H

#include <lua.h>
#include <stdbool.h>
#include <stddef.h>

#include "protocols/url.h"

/* Octets of an address or a proxy in a decision. */
#define TARGET_TEXT_MAX 1024u

/* Reads what scripts give as an address: `host:port`, or `group:NAME`, at `index`. False: it is none. */
bool target_read_address(lua_State *L, int index, struct address *out);
/* Reads the proxies at first...top, where the last value is the first hop, each a URI or `group:NAME`, a text of less
 * than `size_max` octets. Their number, or -1. Room for `max`. */
int target_read_hops(lua_State *L, int first, size_t size_max, struct proxy_uri *hops, unsigned max);

#endif
