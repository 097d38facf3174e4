/* A key with its limit, and what is used of it, as JSON. */
#ifndef SLUICE_API_LIMIT_ROW_H
#define SLUICE_API_LIMIT_ROW_H

#include <jansson.h>

#include "api/parts.h"
#include "api/rates.h"
#include "core/session/keys.h"

/* The rate of that key, and a look at its counters now. */
struct rate limit_row_rate(const struct api_parts *parts, const struct keys_row *row);
/* {"up": ..., "down": ...}, whole octets per second; null: not known. NULL, here and below: no memory. */
json_t *limit_row_rate_json(const struct rate *rate);
json_t *limit_row_json(const struct keys_row *row, const struct rate *rate);

#endif
