/* What the URL and the fields of a request say. Pure: text in, meaning out. */
#ifndef SLUICE_API_FIELDS_H
#define SLUICE_API_FIELDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lua/engine/codec.h"

/* What to code the answer in: deflate or gzip, whichever Accept-Encoding weighs more, deflate if they are equal. A
 * weight of zero forbids, `*` stands for what is not listed (RFC 9110 section 12.5.3). NULL: the field is absent. */
enum codec fields_choose_codec(const char *accept_encoding);
/* What the body is coded in; an absent field (NULL) is identity. False: we do not know that coding. */
bool fields_read_codec(const char *content_encoding, enum codec *codec);
/* Whether a Content-Type is application/x-neosocksd-rpc; version=1: names in any case, the value perhaps quoted, other
 * parameters ignored (contract section 4). */
bool fields_is_rpc(const char *content_type);

/* A whole number of a query in decimal digits alone, `most` at most; text NULL: `otherwise`. False: it is none. */
bool fields_read_number(const char *text, uint32_t otherwise, uint32_t most, uint32_t *out);

/* Whether each % of a URL, path and query, is followed by two hexadecimal digits, and none means a zero octet: what
 * reads the text behind would see its beginning only. */
bool fields_url_is_sound(const char *url);
/* http://host/path is a path, and its host counts as the Host field: authority, "" if the URL has none; of one that
 * does not fit, the beginning, which is nobody's name. */
const char *fields_split_url(const char *url, char *authority, size_t size);

#endif
