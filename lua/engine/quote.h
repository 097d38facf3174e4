/* Text between quotation marks as Lua reads it, for peers, logs and messages. */
#ifndef SLUICE_LUA_ENGINE_QUOTE_H
#define SLUICE_LUA_ENGINE_QUOTE_H

#include <stdbool.h>
#include <stddef.h>

#define QUOTE_OCTET_MAX 4u

/* Whether an octet cannot stand for itself. */
static inline bool quote_is_needed(unsigned char octet)
{
    return octet == '"' || octet == '\\' || octet < 0x20 || octet == 0x7f;
}

/* Writes what stands for the octet, and returns its size: the octet itself, \c or \ddd. The end of a line becomes a
 * backslash and one, as string.format("%q") has it; on_line: \010, so that all of it stays on one line. */
static inline size_t quote_octet(char out[QUOTE_OCTET_MAX], unsigned char octet, bool on_line)
{
    size_t size = 0;
    if (quote_is_needed(octet)) out[size++] = '\\';
    if ((octet < 0x20 && (octet != '\n' || on_line)) || octet == 0x7f) {
        out[size++] = (char)('0' + octet / 100);
        out[size++] = (char)('0' + octet / 10 % 10);
        out[size++] = (char)('0' + octet % 10);
    } else {
        out[size++] = (char)octet;
    }
    return size;
}

#endif
