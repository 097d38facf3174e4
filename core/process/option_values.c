#include "core/process/option_values.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

bool value_number(const char *text, size_t size, uint64_t *out)
{
    uint64_t value = 0;

    if (size == 0 || size > 15) return false;
    for (size_t i = 0; i < size; i++) {
        if (text[i] < '0' || text[i] > '9') return false;
        value = value * 10 + (uint64_t)(text[i] - '0');
    }
    *out = value;
    return true;
}

bool value_seconds(const char *text, double *out)
{
    static const char digits[] = "0123456789";
    const char *at = text + (*text == '-');
    size_t whole = strspn(at, digits);
    bool fraction = at[whole] == '.';
    size_t behind = fraction ? strspn(at + whole + 1, digits) : 0;

    if (whole == 0 || (fraction && behind == 0) || at[whole + fraction + behind]) return false;
    *out = strtod(text, NULL);
    return true;
}

bool value_size(const char *text, uint64_t *out)
{
    size_t size = strlen(text);
    char unit = size > 0 ? text[size - 1] : '\0';
    unsigned shift = unit == 'K' ? 10 : unit == 'M' ? 20 : 0;

    if (shift > 0) size--;
    if (!value_number(text, size, out)) return false;
    *out <<= shift;
    return true;
}

bool value_triple(const char *text, uint32_t out[3])
{
    const char *next = text;

    for (int i = 0; i < 3; i++) {
        size_t size = strcspn(next, ":");
        uint64_t number;
        if (!value_number(next, size, &number) || number > INT32_MAX) return false;
        if (next[size] != (i < 2 ? ':' : '\0')) return false;
        out[i] = (uint32_t)number;
        next += size + 1;
    }
    return true;
}

static bool is_literal(int family, const char *text, size_t size)
{
    char host[INET6_ADDRSTRLEN];
    uint8_t address[16];

    if (size >= sizeof(host)) return false;
    memcpy(host, text, size);
    host[size] = '\0';
    return inet_pton(family, host, address) == 1;
}

bool value_is_nameserver(const char *text, size_t size)
{
    const char *end = text + size, *bracket = memchr(text, ']', size), *colon = memchr(text, ':', size), *host_end;
    bool bracketed = bracket && *text == '[';
    uint64_t port = 53;

    if (!bracketed && is_literal(AF_INET6, text, size)) return true;
    host_end = bracketed ? bracket + 1 : colon ? colon : end;
    if (host_end < end && (*host_end != ':' || !value_number(host_end + 1, (size_t)(end - host_end - 1), &port)))
        return false;
    if (port < 1 || port > 65535) return false;
    return bracketed ? is_literal(AF_INET6, text + 1, (size_t)(bracket - text - 1))
                     : is_literal(AF_INET, text, (size_t)(host_end - text));
}

bool value_is_assignment(const char *text)
{
    size_t size = strspn(text, "abcdefghijklmnopqrstuvwxyz-");
    return size > 0 && text[size] == '=';
}

size_t value_listen_size(const char *text)
{
    size_t size = strcspn(text, ",");
    while (text[size] && !value_is_assignment(text + size + 1)) size += 1 + strcspn(text + size + 1, ",");
    return size;
}

bool value_is_unix(const char *text)
{
    return strncmp(text, VALUE_UNIX, strlen(VALUE_UNIX)) == 0;
}

bool value_is_left_open(const char *text)
{
    return strcmp(text, ":") == 0 || strcmp(text, ":0") == 0;
}

bool value_target(const char *text, struct address *out)
{
    size_t size = strlen(text);
    char whole[ADDRESS_TEXT_SIZE + 2];

    if (size == 0 || size >= ADDRESS_TEXT_SIZE) return false;
    snprintf(whole, sizeof whole, "%s%s", text, text[size - 1] == ':' ? "0" : "");
    return address_parse(whole, strlen(whole), ADDRESS_PORT_REQUIRED, 0, out);
}
