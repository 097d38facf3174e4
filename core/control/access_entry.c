#include "core/control/access_entry.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#define FIELD_PREFIX "SLUICE_"

/* RFC 3164 as the C library writes it: daemons that read /dev/log know no other. */
size_t access_entry_syslog(char *out, uint64_t time_us)
{
    char when[32] = "";
    time_t seconds = (time_t)(time_us / 1000000u);
    struct tm local;
    if (localtime_r(&seconds, &local)) strftime(when, sizeof when, "%b %e %H:%M:%S ", &local);
    return (size_t)sprintf(out, "<%d>%ssluice[%ld]: ", LOG_USER | LOG_INFO, when, (long)getpid());
}

/* A name, a line feed, the size as 64 bits, low octet first, the value, a line feed: whatever octets it has. */
static size_t put_field(char *out, size_t at, const char *name, const char *value, size_t size)
{
    size_t length = strlen(name);
    memcpy(out + at, name, length);
    at += length;
    out[at++] = '\n';
    for (unsigned i = 0; i < 8; i++) out[at++] = (char)((uint64_t)size >> 8u * i & 0xffu);
    memmove(out + at, value, size); /* the value may stand further back in the same buffer */
    at += size;
    out[at++] = '\n';
    return at;
}

static size_t put_short(char *out, size_t at, const char *text)
{
    memcpy(out + at, text, strlen(text));
    return at + strlen(text);
}

static void name_field(unsigned field, char *out)
{
    const char *name = access_field_name(field);
    out += sprintf(out, "%s", FIELD_PREFIX);
    for (; *name; name++) *out++ = (char)(*name >= 'a' && *name <= 'z' ? *name - 'a' + 'A' : *name);
    *out = '\0';
}

size_t access_entry_journald(enum access_format format, const struct access_template *template,
                             const struct access_record *record, char *out, size_t size)
{
    char value[2304], name[48];
    size_t at = put_short(out, 0, "PRIORITY=6\nSYSLOG_IDENTIFIER=sluice\n");
    for (unsigned i = 0; i < access_field_count(); i++) {
        size_t length = access_field_value(i, record, value, sizeof value);
        if (length == 0) continue;
        name_field(i, name);
        at = put_field(out, at, name, value, length);
    }
    assert(size - at >= 16384 + 64); /* all texts together have 2 KiB, the other fields less than as much */
    size_t room = size - at - 64, length = access_write(format, template, record, out + at + 32, room);
    return put_field(out, at, "MESSAGE", out + at + 32, length);
}
