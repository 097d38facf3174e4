/* What syslog and journald want around a line of the access log. */
#ifndef SLUICE_CORE_CONTROL_ACCESS_ENTRY_H
#define SLUICE_CORE_CONTROL_ACCESS_ENTRY_H

#include "protocols/access_text.h"

/* Writes what stands in front of a line for the local syslog: priority, local time, name, process. Returns the length;
 * out  at least 80 octets. */
size_t access_entry_syslog(char *out, uint64_t time_us);

/* Writes an entry of journald's native protocol: MESSAGE, priority, identifier, and a field SLUICE_NAME for each one
 * that the record has (https://systemd.io/JOURNAL_NATIVE_PROTOCOL). Returns the length; size  at least 65536. */
size_t access_entry_journald(enum access_format format, const struct access_template *template,
                             const struct access_record *record, char *out, size_t size);

#endif
