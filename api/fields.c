#include "api/fields.h"

#include <assert.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define WEIGHT_MAX 1000u

/* Part of a field: nothing is copied. */
struct span {
    const char *data;
    size_t size;
};

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* The next part in front of `stop`, blanks around it taken off. False: there is none left. A quoted string is one
 * piece, whatever stands in it (RFC 9110 section 5.6.4). */
static bool take_part(struct span *rest, char stop, struct span *part)
{
    size_t size = 0;
    bool quoted = false;
    if (!rest->data) return false;
    for (; size < rest->size && (quoted || rest->data[size] != stop); size++) {
        if (quoted && rest->data[size] == '\\' && size + 1 < rest->size)
            size++;
        else if (rest->data[size] == '"')
            quoted = !quoted;
    }
    *part = (struct span){rest->data, size};
    bool last = size == rest->size;
    rest->data = last ? NULL : rest->data + size + 1;
    rest->size = last ? 0 : rest->size - size - 1;
    while (part->size > 0 && is_blank(part->data[0])) part->data++, part->size--;
    while (part->size > 0 && is_blank(part->data[part->size - 1])) part->size--;
    return true;
}

static bool span_is(struct span s, const char *word)
{
    return s.size == strlen(word) && strncasecmp(s.data, word, s.size) == 0;
}

/* NULL: a field that is absent has no parts. */
static struct span span_of(const char *text)
{
    return (struct span){text, text ? strlen(text) : 0};
}

/* --- codings --- */

/* 0, 0.5, 1.000: in thousandths. What is no weight counts as zero: then nothing is coded, which everybody can read. */
static unsigned read_weight(struct span s)
{
    if (s.size == 0 || s.size > 5 || (s.data[0] != '0' && s.data[0] != '1')) return 0;
    unsigned weight = s.data[0] == '1' ? WEIGHT_MAX : 0, unit = WEIGHT_MAX / 10;
    if (s.size > 1 && s.data[1] != '.') return 0;
    for (size_t i = 2; i < s.size; i++, unit /= 10) {
        if (!isdigit((unsigned char)s.data[i])) return 0;
        weight += (unsigned)(s.data[i] - '0') * unit;
    }
    return weight <= WEIGHT_MAX ? weight : 0;
}

static unsigned weight_of(struct span parameters)
{
    struct span parameter;
    while (take_part(&parameters, ';', &parameter))
        if (parameter.size >= 2 && strncasecmp(parameter.data, "q=", 2) == 0)
            return read_weight((struct span){parameter.data + 2, parameter.size - 2});
    return WEIGHT_MAX;
}

enum codec fields_choose_codec(const char *accept_encoding)
{
    unsigned deflate = 0, gzip = 0, other = 0;
    bool deflate_listed = false, gzip_listed = false;
    struct span rest = span_of(accept_encoding), item, name;
    while (take_part(&rest, ',', &item)) {
        take_part(&item, ';', &name);
        unsigned weight = weight_of(item);
        if (span_is(name, "deflate")) deflate = weight, deflate_listed = true;
        if (span_is(name, "gzip") || span_is(name, "x-gzip")) gzip = weight, gzip_listed = true;
        if (span_is(name, "*")) other = weight;
    }
    if (!deflate_listed) deflate = other;
    if (!gzip_listed) gzip = other;
    if (deflate == 0 && gzip == 0) return CODEC_NONE;
    return deflate >= gzip ? CODEC_DEFLATE : CODEC_GZIP;
}

bool fields_read_codec(const char *content_encoding, enum codec *codec)
{
    static const struct {
        const char *name;
        enum codec codec;
    } known[] = {{"identity", CODEC_NONE}, {"deflate", CODEC_DEFLATE}, {"gzip", CODEC_GZIP}, {"x-gzip", CODEC_GZIP}};
    *codec = CODEC_NONE;
    if (!content_encoding) return true;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcasecmp(content_encoding, known[i].name) != 0) continue;
        *codec = known[i].codec;
        return true;
    }
    return false;
}

/* --- types --- */

bool fields_is_rpc(const char *content_type)
{
    struct span rest = span_of(content_type), part;
    if (!take_part(&rest, ';', &part) || !span_is(part, "application/x-neosocksd-rpc")) return false;
    while (take_part(&rest, ';', &part)) {
        if (part.size < 8 || strncasecmp(part.data, "version=", 8) != 0) continue;
        struct span value = {part.data + 8, part.size - 8};
        return span_is(value, "1") || span_is(value, "\"1\"");
    }
    return false;
}

/* --- queries --- */

bool fields_read_number(const char *text, uint32_t otherwise, uint32_t most, uint32_t *out)
{
    char *end;
    unsigned long value = text ? strtoul(text, &end, 10) : otherwise;
    if (text && (*text < '0' || *text > '9' || *end || value > most)) return false;
    *out = (uint32_t)value;
    return true;
}

/* --- URLs --- */

bool fields_url_is_sound(const char *url)
{
    for (; (url = strchr(url, '%')); url += 3) {
        if (!isxdigit((unsigned char)url[1]) || !isxdigit((unsigned char)url[2])) return false;
        if (url[1] == '0' && url[2] == '0') return false;
    }
    return true;
}

const char *fields_split_url(const char *url, char *authority, size_t size)
{
    assert(size > 0);
    *authority = '\0';
    if (strncasecmp(url, "http://", 7) != 0) return url;
    size_t length = strcspn(url + 7, "/");
    snprintf(authority, size, "%.*s", (int)(length < size ? length : size - 1), url + 7);
    return url[7 + length] ? url + 7 + length : "/";
}
