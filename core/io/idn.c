#include "core/io/idn.h"

#include <idn2.h>
#include <string.h>

bool idn_to_ascii(const char *name, size_t size, char out[IDN_NAME_SIZE])
{
    char whole[IDN_NAME_SIZE], *found = NULL;
    if (size == 0 || size >= sizeof whole || memchr(name, '\0', size)) return false;
    memcpy(whole, name, size);
    whole[size] = '\0';
    if (idn2_to_ascii_8z(whole, &found, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL) != IDN2_OK) return false;
    size_t found_size = strlen(found);
    bool fits = found_size > 0 && found_size < IDN_NAME_SIZE;
    if (fits) memcpy(out, found, found_size + 1);
    idn2_free(found);
    return fits;
}
