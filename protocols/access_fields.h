/* The fields of the access log, in the order of the line: a name, and where its value stands. */
#ifndef SLUICE_PROTOCOLS_ACCESS_FIELDS_H
#define SLUICE_PROTOCOLS_ACCESS_FIELDS_H

#include "protocols/access_record.h"

enum access_kind {
    ACCESS_KIND_TIME,      /* microseconds, written as RFC 3339 */
    ACCESS_KIND_ID,        /* worker, slot, generation */
    ACCESS_KIND_WORD,      /* const char * */
    ACCESS_KIND_HOST_PORT, /* struct host_port */
    ACCESS_KIND_TEXT,      /* struct access_text */
    ACCESS_KIND_COUNT,     /* uint64_t */
    ACCESS_KIND_OTHERS,    /* uint64_t, 0 is none */
    ACCESS_KIND_REVISION,  /* uint32_t */
    ACCESS_KIND_STATUS,    /* uint16_t, 0 is none */
    ACCESS_KIND_OPTIONAL,  /* int64_t, ACCESS_NONE is none */
    ACCESS_KIND_FLAG,      /* bool */
};

struct access_field {
    const char *name;
    uint8_t kind; /* enum access_kind */
    uint16_t place;
};

extern const struct access_field access_fields[];
extern const unsigned access_fields_count;

/* A number without the C library's formats, which ask for the locale. out  24 octets. Returns the length. */
size_t access_format_number(uint64_t value, char *out);
/* 2026-01-31T12:00:00.000000Z; years 1970 to 9999. out  32 octets. Returns the length. */
size_t access_format_time(uint64_t time_us, char *out);
/* 31/Jan/2026:12:00:00 +0000, as the common log format has it; the same. */
size_t access_format_clf_time(uint64_t time_us, char *out);
/* The value as octets that nobody has escaped: `data` points into the record or to `room`, which has room for
 * ACCESS_VALUE_MAX. Size 0: the record has none. A flag is "true", or none. */
#define ACCESS_VALUE_MAX 280u
struct access_text access_value(const struct access_field *field, const struct access_record *record, char *room);

#endif
