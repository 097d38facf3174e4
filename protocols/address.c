#include "protocols/address.h"

#include <arpa/inet.h>
#include <assert.h>
#include <stdio.h>
#include <string.h>

#define PORT_MAX 65535u

static bool is_host_octet(char c)
{
    unsigned char octet = (unsigned char)c;
    if (octet <= ' ' || octet == 0x7f) return false;
    /* Delimiters would make the text form ambiguous: what a name contains must never read as a port, a path or a user.
     * Octets over 0x7f pass, internationalised names in UTF-8 are the resolver's business. */
    return strchr(":/?#[]@", octet) == NULL;
}

static bool is_name(const char *host, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (!is_host_octet(host[i])) return false;
    return size > 0;
}

/* Whether `text`, terminated, is a literal of either family; then `out` holds it, without a port. */
static bool read_literal(const char *text, struct address *out)
{
    out->kind = ADDRESS_IPV4;
    if (inet_pton(AF_INET, text, out->ipv4) == 1) return true;
    out->kind = ADDRESS_IPV6;
    return inet_pton(AF_INET6, text, out->ipv6) == 1;
}

bool address_from_host(const char *host, size_t size, uint16_t port, struct address *out)
{
    struct address address = {.port = port};
    char text[ADDRESS_NAME_MAX + 1] = {0};
    if (size == 0 || size > ADDRESS_NAME_MAX) return false;
    memcpy(text, host, size);
    if (strlen(text) != size) return false; /* an embedded NUL would hide what follows it */
    if (!read_literal(text, &address)) {
        if (!is_name(text, size)) return false;
        address.kind = ADDRESS_NAME;
        address.name_size = (uint8_t)size;
        memcpy(address.name, text, sizeof(text));
    }
    *out = address;
    return true;
}

static bool read_port(const char *digits, size_t size, uint16_t *port)
{
    unsigned value = 0;
    for (size_t i = 0; i < size; i++) {
        if (digits[i] < '0' || digits[i] > '9') return false;
        value = value * 10 + (unsigned)(digits[i] - '0');
        if (value > PORT_MAX) return false;
    }
    *port = (uint16_t)value;
    return true;
}

/* The octets of `text` that are the host, brackets included; the rest is empty or a colon and the port. */
static size_t measure_host(const char *text, size_t size)
{
    const char *end = NULL;
    if (size > 0 && text[0] == '[') {
        end = memchr(text, ']', size);
        return end != NULL ? (size_t)(end - text) + 1 : size;
    }
    end = size > 0 ? memrchr(text, ':', size) : NULL;
    return end != NULL ? (size_t)(end - text) : size;
}

static bool read_host(const char *host, size_t size, uint16_t port, struct address *out)
{
    if (size == 0) return false;
    if (host[0] != '[') return memchr(host, ':', size) == NULL && address_from_host(host, size, port, out);
    if (size < 2 || host[size - 1] != ']') return false;
    struct address address;
    if (!address_from_host(host + 1, size - 2, port, &address)) return false;
    if (address.kind != ADDRESS_IPV6) return false;
    *out = address;
    return true;
}

bool address_parse(const char *text, size_t size, enum address_port_rule rule, uint16_t default_port,
                   struct address *out)
{
    uint16_t port = default_port;
    size_t host_size = measure_host(text, size);
    assert(host_size <= size);
    if (host_size < size && text[host_size] != ':') return false;
    size_t digits = host_size < size ? size - host_size - 1 : 0;
    if (digits == 0 && rule == ADDRESS_PORT_REQUIRED) return false;
    if (digits > 0 && !read_port(text + host_size + 1, digits, &port)) return false;
    return read_host(text, host_size, port, out);
}

size_t address_format_host(const struct address *address, char *out, size_t size)
{
    assert(size >= ADDRESS_TEXT_SIZE);
    out[0] = '\0';
    switch ((enum address_kind)address->kind) {
    case ADDRESS_NONE: break;
    case ADDRESS_IPV4: inet_ntop(AF_INET, address->ipv4, out, (socklen_t)size); break;
    case ADDRESS_IPV6: inet_ntop(AF_INET6, address->ipv6, out, (socklen_t)size); break;
    case ADDRESS_NAME: memcpy(out, address->name, address->name_size + 1u); break;
    case ADDRESS_UNIX:
        assert(address->name_size <= ADDRESS_PATH_MAX);
        memcpy(out, "unix:", 5);
        memcpy(out + 5, address->name, address->name_size + 1u);
        break;
    case ADDRESS_GROUP:
        memcpy(out, "group:", 6);
        memcpy(out + 6, address->name, address->name_size + 1u);
        break;
    }
    return strlen(out);
}

size_t address_format(const struct address *address, char *out, size_t size)
{
    char host[ADDRESS_TEXT_SIZE];
    size_t host_size = address_format_host(address, host, sizeof(host));
    assert(size >= ADDRESS_TEXT_SIZE);
    if (address->kind == ADDRESS_NONE || address->kind == ADDRESS_UNIX || address->kind == ADDRESS_GROUP) {
        memcpy(out, host, host_size + 1);
        return host_size;
    }
    int written = snprintf(out, size, address->kind == ADDRESS_IPV6 ? "[%s]:%u" : "%s:%u", host, address->port);
    assert(written > 0);
    assert((size_t)written < size);
    return (size_t)written;
}

/* Not tolower(): that one asks the locale, and a host name does not. */
static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static bool names_equal(const struct address *a, const struct address *b)
{
    if (a->name_size != b->name_size) return false;
    for (size_t i = 0; i < a->name_size; i++)
        if (lower(a->name[i]) != lower(b->name[i])) return false;
    return true;
}

bool address_equal(const struct address *a, const struct address *b)
{
    if (a->kind != b->kind || a->port != b->port) return false;
    switch ((enum address_kind)a->kind) {
    case ADDRESS_NONE: return true;
    case ADDRESS_IPV4: return memcmp(a->ipv4, b->ipv4, sizeof(a->ipv4)) == 0;
    case ADDRESS_IPV6: return memcmp(a->ipv6, b->ipv6, sizeof(a->ipv6)) == 0;
    case ADDRESS_NAME: return names_equal(a, b);
    case ADDRESS_UNIX:
    case ADDRESS_GROUP: return a->name_size == b->name_size && memcmp(a->name, b->name, a->name_size) == 0;
    }
    return false;
}

bool address_is_any_host(const struct address *address)
{
    static const uint8_t zeros[16];
    bool ipv4 = address->kind == ADDRESS_IPV4;
    if (!ipv4 && address->kind != ADDRESS_IPV6) return false;
    return memcmp(address->ipv6, zeros, ipv4 ? sizeof(address->ipv4) : sizeof(zeros)) == 0;
}
