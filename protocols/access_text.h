/* Lines of the access log: JSON, logfmt, the common log format, or a template of the operator's.
 *
 * Texts that peers have chosen end in no line as they came: JSON and logfmt escape as RFC 8259 section 7 says, with all
 * controls and what is no UTF-8 replaced by U+FFFD; the other two write all that is not printable ASCII, blanks, `"`
 * and
 * `\` as \xHH, so that nobody can make up another field, or another line. */
#ifndef SLUICE_PROTOCOLS_ACCESS_TEXT_H
#define SLUICE_PROTOCOLS_ACCESS_TEXT_H

#include "protocols/access_record.h"

enum access_format { ACCESS_JSON, ACCESS_LOGFMT, ACCESS_CLF, ACCESS_TEMPLATE };

/* `{name}` is a field, `{{` and `}}` are braces, all else stands for itself. */
#define ACCESS_TEMPLATE_MAX   1023u /* octets of its text */
#define ACCESS_TEMPLATE_PARTS 48u

struct access_template {
    const char *text; /* borrowed: lives as long as this */
    uint32_t count;
    struct access_part {
        int16_t field; /* ACCESS_LITERAL: octets of the text */
        uint16_t at, size;
    } parts[ACCESS_TEMPLATE_PARTS];
};
#define ACCESS_LITERAL (-1)

/* NULL, or what is wrong with it: a static text. bad, bad_size: the name that is unknown, if that is it; else size 0.
 */
const char *access_template_parse(const char *text, struct access_template *out, const char **bad, size_t *bad_size);

#define ACCESS_LINE_MIN 6144u /* `size` of access_write() at least */

/* Writes one line without its end, not terminated; returns its length. What does not fit otherwise has its texts cut,
 * all to the same length, and says so (field `truncated`). format  ACCESS_TEMPLATE: `template` is not NULL. */
size_t access_write(enum access_format format, const struct access_template *template,
                    const struct access_record *record, char *out, size_t size);

/* One field after the other, for sinks that have fields of their own. Writes the value as a template does, without its
 * escapes: octets as they are. The length, at most size; 0: the record has none. */
unsigned access_field_count(void);
const char *access_field_name(unsigned field);
size_t access_field_value(unsigned field, const struct access_record *record, char *out, size_t size);

#endif
