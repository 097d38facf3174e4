#include "protocols/list_text.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#define NAME_MAX_SIZE  253u /* RFC 1035 section 2.3.4, without the dot at its end */
#define LABEL_MAX_SIZE 63u

/* --- lines --- */

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

const char *list_next_line(const char **at, const char *end, size_t *size)
{
    const char *start = *at, *stop;
    if (start == end) return NULL;
    stop = memchr(start, '\n', (size_t)(end - start));
    if (!stop) stop = end;
    *at = stop < end ? stop + 1 : end;
    const char *comment = memchr(start, '#', (size_t)(stop - start));
    if (comment) stop = comment;
    while (start < stop && is_blank(*start)) start++;
    while (stop > start && is_blank(stop[-1])) stop--;
    *size = (size_t)(stop - start);
    return start;
}

/* --- ports --- */

static bool parse_port(const char *text, size_t size, uint16_t *out)
{
    uint32_t value = 0;
    if (size == 0 || size > 5) return false;
    for (size_t i = 0; i < size; i++) {
        if (text[i] < '0' || text[i] > '9') return false;
        value = value * 10 + (uint32_t)(text[i] - '0');
    }
    *out = (uint16_t)value;
    return value > 0 && value <= LIST_PORT_MAX;
}

static const char *parse_ports(const char *text, size_t size, struct list_entry *out)
{
    const char *dash = memchr(text, '-', size);
    size_t first = dash ? (size_t)(dash - text) : size;
    if (!parse_port(text, first, &out->from)) return "the port is wrong, give 1 to 65535, or a range such as 8000-8999";
    out->to = out->from;
    if (dash && !parse_port(dash + 1, size - first - 1, &out->to))
        return "the port is wrong, give 1 to 65535, or a range such as 8000-8999";
    return out->to < out->from ? "the range of ports is upside down, give the lower one first" : NULL;
}

/* --- addresses and networks --- */

static bool is_mapped(const struct number *first)
{
    return first->high == 0 && first->low >> 32 == 0xffff;
}

static const char *parse_network(int family, const char *text, size_t size, struct list_entry *out)
{
    char whole[64];
    struct subnet subnet;
    bool bare = !memchr(text, '/', size);
    if (size + 5 > sizeof whole || memchr(text, '\0', size)) return "this is no network, give address/bits";
    snprintf(whole, sizeof whole, "%.*s%s", (int)size, text, family == AF_INET ? "/32" : "/128");
    const char *wrong = subnet_parse(family, whole, bare ? strlen(whole) : size, &subnet);
    if (wrong && strcmp(wrong, "prefix size") == 0)
        return "the size of the network is wrong, give /0 to /32, IPv6: /0 to /128";
    if (wrong) return "this is no network, give address/bits with nothing but zeros behind the bits";
    out->kind = family == AF_INET ? LIST_ENTRY_IPV4 : LIST_ENTRY_IPV6;
    out->first = subnet.first;
    out->bits = (uint8_t)(subnet.bits + (family == AF_INET ? 96 : 0));
    if (family == AF_INET || out->bits < 96 || !is_mapped(&subnet.first)) return NULL;
    out->kind = LIST_ENTRY_IPV4;
    out->first.low &= UINT32_MAX;
    return NULL;
}

/* --- names --- */

static bool is_name_octet(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
           c >= 0x80;
}

/* A host whose last label is a number is an address (WHATWG URL, "ends in a number"), if any. */
static bool ends_in_number(const char *label, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (label[i] < '0' || label[i] > '9') return false;
    return size > 0;
}

static const char *parse_name(const char *text, size_t size, struct list_entry *out)
{
    size_t label = 0;
    out->kind = text[0] == '.' ? LIST_ENTRY_SUFFIX : LIST_ENTRY_NAME;
    if (text[0] == '.') text++, size--;
    if (size > 0 && text[size - 1] == '.') size--;
    if (size == 0 || size > NAME_MAX_SIZE) return "a name has 1 to 253 octets; give *, if all are meant";
    if (text[0] == '*') return "a name with all below it is written with a dot in front, such as .example.com";
    for (size_t i = 0; i <= size; i++) {
        if (i < size && text[i] != '.') {
            if (!is_name_octet((unsigned char)text[i])) return "this is neither an address, nor a network, nor a name";
            out->foreign |= (unsigned char)text[i] >= 0x80;
            continue;
        }
        if (i == label || i - label > LABEL_MAX_SIZE) return "a part of the name between dots has 1 to 63 octets";
        if (i == size && ends_in_number(text + label, i - label))
            return "this is no address; give a network as 10.0.0.0/8";
        label = i + 1;
    }
    out->name = text;
    out->name_size = size;
    return NULL;
}

/* --- entries --- */

/* Without ports. */
static const char *parse_host(const char *text, size_t size, bool targets, struct list_entry *out)
{
    struct number address;
    char literal[16];
    bool is_ipv4 = false;
    if (size == 1 && *text == '*') {
        out->kind = LIST_ENTRY_ALL;
        return NULL;
    }
    if (size > 0 && size < sizeof literal) {
        memcpy(literal, text, size);
        literal[size] = '\0';
        is_ipv4 = strlen(literal) == size && number_parse(AF_INET, literal, &address);
    }
    if (is_ipv4 || memchr(text, '/', size)) return parse_network(AF_INET, text, size, out);
    if (!targets) return "this is no address, give an address, a network (address/bits) or *";
    return parse_name(text, size, out);
}

/* `[address]`, with what stands behind it. */
static const char *parse_brackets(const char *text, size_t size, bool targets, struct list_entry *out)
{
    const char *close = memchr(text, ']', size);
    if (!close) return "the bracket is open, give [address] or [address/bits]";
    size_t inside = (size_t)(close - text) - 1, rest = size - inside - 2;
    const char *wrong = parse_network(AF_INET6, text + 1, inside, out);
    if (wrong || rest == 0) return wrong;
    if (!targets) return "clients have no ports here, leave what is behind the address out";
    return close[1] == ':' ? parse_ports(close + 2, rest - 1, out) : "give [address/bits]:port";
}

const char *list_parse_entry(const char *text, size_t size, bool targets, struct list_entry *out)
{
    struct list_entry entry = {.to = LIST_PORT_MAX};
    const char *wrong, *colon = memchr(text, ':', size);
    if (size == 0) return "the entry is empty";
    if (size > LIST_ENTRY_SIZE_MAX) return "the entry is longer than 512 octets";
    if (*text == '[') {
        wrong = parse_brackets(text, size, targets, &entry);
    } else if (colon && memchr(colon + 1, ':', size - (size_t)(colon - text) - 1)) {
        wrong = parse_network(AF_INET6, text, size, &entry);
    } else if (colon) {
        size_t host = (size_t)(colon - text);
        wrong = targets ? parse_host(text, host, true, &entry) : "clients have no ports here, leave :port out";
        if (!wrong) wrong = parse_ports(colon + 1, size - host - 1, &entry);
    } else {
        wrong = parse_host(text, size, targets, &entry);
    }
    if (!wrong) *out = entry;
    return wrong;
}
