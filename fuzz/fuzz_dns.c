/* DNS messages: the input is what a name server answers, behind one octet that chooses the type.
 *
 * What is asserted: nothing is read behind the message; what is found was there, and fits; a question that was mixed is
 * still the same question but for the case of letters. */
#include "fuzz/check.h"
#include "protocols/dns.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct dns_addresses found;
    if (size < 1) return 0;
    uint16_t type = data[0] & 1 ? DNS_TYPE_A : DNS_TYPE_AAAA;
    size_t length = size - 1;
    uint8_t *message = malloc(length > 0 ? length : 1), *mixed = malloc(length > 0 ? length : 1);
    assert(message && mixed);
    memcpy(message, data + 1, length);
    memcpy(mixed, data + 1, length);
    if (dns_read_addresses(message, length, type, &found)) {
        assert(found.count <= DNS_ADDRESSES_MAX && found.count * 10 <= length);
        assert(found.count == 0 || found.ttl <= INT32_MAX);
    }
    if (dns_mix_case(mixed, length, 0x5aa5f00f12345678u * (data[0] | 1u))) {
        bool answers = (message[2] & 0x80) != 0;
        assert((dns_match(mixed, length, message, length) != DNS_DIFFERS) == answers);
        size_t kept = dns_truncate(mixed, length);
        assert(kept > 0 && kept <= length && dns_match(mixed, kept, mixed, kept) == DNS_SAME);
    }
    free(message);
    free(mixed);
    return 0;
}
