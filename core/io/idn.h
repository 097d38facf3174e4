/* Names beyond ASCII (RFC 5891, UTS #46), by libidn2. */
#ifndef SLUICE_CORE_IO_IDN_H
#define SLUICE_CORE_IO_IDN_H

#include <stdbool.h>
#include <stddef.h>

#define IDN_NAME_SIZE 256u /* of a name with its terminator */

/* The form of a UTF-8 name that the DNS knows, in lower case and terminated: bücher.example is xn--bcher-kva.example.
 * False: it has none. May allocate for the call. */
bool idn_to_ascii(const char *name, size_t size, char out[IDN_NAME_SIZE]);

#endif
