/* Texts: addresses, hosts, proxy URIs and base64. Each parser sees the whole input. What is accepted is written out and
 * must be read as the same again; what is refused leaves the output as it was. */
#include <stdio.h>

#include "fuzz/check.h"
#include "protocols/base64.h"
#include "protocols/url.h"

#define INPUT_SIZE_MAX 2048u
#define POISON         0xa5

static void check_untouched(const void *out, size_t size)
{
    const uint8_t *octets = out;
    for (size_t i = 0; i < size; i++) assert(octets[i] == POISON);
}

static void try_host(const char *text, size_t size)
{
    struct address address;
    memset(&address, POISON, sizeof(address));
    if (!address_from_host(text, size, 443, &address)) {
        check_untouched(&address, sizeof(address));
        return;
    }
    assert(address.port == 443);
    assert(size <= ADDRESS_NAME_MAX);
    check_address(&address);
}

static bool try_address(const char *text, size_t size, enum address_port_rule rule, struct address *address)
{
    memset(address, POISON, sizeof(*address));
    if (!address_parse(text, size, rule, 1080, address)) {
        check_untouched(address, sizeof(*address));
        return false;
    }
    check_address(address);
    return true;
}

static void try_addresses(const char *text, size_t size)
{
    struct address strict, lenient;
    bool is_strict = try_address(text, size, ADDRESS_PORT_REQUIRED, &strict);
    bool is_lenient = try_address(text, size, ADDRESS_PORT_DEFAULT, &lenient);
    assert(is_lenient || !is_strict);
    if (is_strict) assert(address_equal(&strict, &lenient));
    if (is_lenient && !is_strict) assert(lenient.port == 1080);
}

static size_t put_escaped(char *out, const char *part)
{
    size_t size = 0;
    for (; *part != '\0'; part++) size += (size_t)sprintf(out + size, "%%%02x", (unsigned)(uint8_t)*part);
    return size;
}

/* The same URI in its plainest form, each octet of user and password escaped. Returns its size. */
static size_t write_uri(const struct proxy_uri *uri, char *out)
{
    static const char *const schemes[] = {"http", "socks4a", "socks5"};
    assert(uri->scheme < sizeof(schemes) / sizeof(schemes[0]));
    size_t size = (size_t)sprintf(out, "%s://", schemes[uri->scheme]);
    if (uri->credentials.present) {
        size += put_escaped(out + size, uri->credentials.user);
        out[size++] = ':';
        size += put_escaped(out + size, uri->credentials.password);
        out[size++] = '@';
    }
    return size + address_format(&uri->address, out + size, ADDRESS_TEXT_SIZE);
}

static void check_part(const char *part)
{
    assert(strlen(part) <= CREDENTIALS_PART_MAX);
    for (; *part != '\0'; part++) assert((uint8_t)*part >= ' ' && *part != 0x7f);
}

static void check_uri(const struct proxy_uri *uri)
{
    char text[16 + 2 * 3 * CREDENTIALS_PART_MAX + 2 + ADDRESS_TEXT_SIZE];
    struct proxy_uri again;
    check_address(&uri->address);
    check_part(uri->credentials.user);
    check_part(uri->credentials.password);
    assert(proxy_uri_parse(text, write_uri(uri, text), &again) == NULL);
    assert(again.scheme == uri->scheme);
    assert(address_equal(&again.address, &uri->address));
    assert(again.credentials.present == uri->credentials.present);
    assert(strcmp(again.credentials.user, uri->credentials.user) == 0);
    assert(strcmp(again.credentials.password, uri->credentials.password) == 0);
}

static void try_uri(const char *text, size_t size)
{
    struct proxy_uri uri;
    memset(&uri, POISON, sizeof(uri));
    const char *wrong = proxy_uri_parse(text, size, &uri);
    if (wrong == NULL) {
        check_uri(&uri);
    } else {
        assert(wrong[0] != '\0');
        check_untouched(&uri, sizeof(uri));
    }
}

/* The input as octets: encoded into a block of exactly the right size, and back. */
static void encode_and_decode(const uint8_t *data, size_t size)
{
    size_t text_size = BASE64_SIZE(size), used = 0;
    char *text = malloc(text_size + 1);
    uint8_t *back = malloc(size + 1);
    assert(text != NULL && back != NULL);
    if (size > 0) assert(base64_encode(data, size, text, text_size - 1) == 0);
    assert(base64_encode(data, size, text, text_size) == text_size);
    assert(base64_decode(text, text_size, back, size, &used));
    assert(used == size);
    assert(memcmp(back, data, size) == 0);
    if (size > 0) assert(!base64_decode(text, text_size, back, size - 1, &used));
    free(back);
    free(text);
}

/* The input as text: if it is accepted, it is the only text for its octets. */
static void decode_and_encode(const char *text, size_t size)
{
    size_t used = 0;
    uint8_t *octets = malloc(size / 4 * 3 + 1);
    char *again = malloc(size + 1);
    assert(octets != NULL && again != NULL);
    if (base64_decode(text, size, octets, size / 4 * 3, &used)) {
        assert(base64_encode(octets, used, again, size) == size);
        assert(memcmp(again, text, size) == 0);
    }
    free(again);
    free(octets);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > INPUT_SIZE_MAX) size = INPUT_SIZE_MAX;
    uint8_t *copy = check_copy(data, size);
    if (copy == NULL) return 0;
    try_host((const char *)copy, size);
    try_addresses((const char *)copy, size);
    try_uri((const char *)copy, size);
    encode_and_decode(copy, size);
    decode_and_encode((const char *)copy, size);
    free(copy);
    return 0;
}
