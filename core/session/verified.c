#include "core/session/verified.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/io/hash.h"

#define VERIFIED_PLACES 2048u /* a power of two; 192 KiB in all, of which pages that are never used take no memory */
#define VERIFIED_WAYS   4u

struct verified_entry {
    struct verify_digest digest; /* all zero: free */
    uint32_t era;
};

int verified_open(struct verified *verified)
{
    verified->entries = calloc((size_t)VERIFIED_PLACES * VERIFIED_WAYS, sizeof *verified->entries);
    return verified->entries ? 0 : -ENOMEM;
}

void verified_close(struct verified *verified)
{
    free(verified->entries);
    *verified = (struct verified){0};
}

static struct verified_entry *place_of(const struct verified *verified, const struct verify_digest *digest)
{
    return verified->entries + (size_t)(digest->words[0] & (VERIFIED_PLACES - 1)) * VERIFIED_WAYS;
}

/* Both words, whatever the first says: the time that it takes does not tell how much was right. */
static bool is_same_digest(const struct verify_digest *a, const struct verify_digest *b)
{
    return ((a->words[0] ^ b->words[0]) | (a->words[1] ^ b->words[1])) == 0;
}

bool verified_find(const struct verified *verified, const struct verify_digest *digest, uint32_t era)
{
    if (!verified->entries) return false;
    const struct verified_entry *place = place_of(verified, digest);
    for (unsigned i = 0; i < VERIFIED_WAYS; i++)
        if (is_same_digest(&place[i].digest, digest)) return place[i].era == era;
    return false;
}

void verified_keep(struct verified *verified, const struct verify_digest *digest, uint32_t era)
{
    if (!verified->entries) return;
    struct verified_entry *place = place_of(verified, digest);
    unsigned way = verified->turn++ % VERIFIED_WAYS;
    for (unsigned i = 0; i < VERIFIED_WAYS; i++)
        if (is_same_digest(&place[i].digest, digest)) way = i;
    place[way] = (struct verified_entry){.digest = *digest, .era = era};
}

/* The lengths come first, so that no pair reads as another one. */
struct verify_digest verify_digest_of(const struct verifier *verifier, uint8_t store,
                                      const struct credentials *credentials)
{
    uint8_t octets[2 + 2 * CREDENTIALS_PART_MAX];
    struct verify_digest digest;
    size_t user = strlen(credentials->user), password = strlen(credentials->password);
    octets[0] = store;
    octets[1] = (uint8_t)user;
    memcpy(octets + 2, credentials->user, user);
    memcpy(octets + 2 + user, credentials->password, password);
    for (unsigned i = 0; i < 2; i++) digest.words[i] = hash_keyed(verifier->keys[i], octets, 2 + user + password);
    explicit_bzero(octets, sizeof octets);
    digest.words[0] |= (uint64_t)(digest.words[0] == 0 && digest.words[1] == 0); /* that would be a free entry */
    return digest;
}
