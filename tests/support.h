/* What cmocka lacks for parsers: input that ends at an unmapped page, every prefix, every split, every wrong octet.
 *
 * Include this instead of <cmocka.h>, it brings the headers which that one wants to see first. */
#ifndef SLUICE_TESTS_SUPPORT_H
#define SLUICE_TESTS_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "protocols/parse.h"

/* Whether this is built with a sanitizer. It sees a wrong access when that happens once, and takes ten times as long
 * for all the others: where chance needs many rounds and one processor in full, the plain program has them. */
#ifdef __has_feature
#define SUPPORT_SANITIZED (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#else
#define SUPPORT_SANITIZED 0
#endif

/* How many times longer than usual everything takes here, from SLUICE_TEST_SLOW as in tests/run.py: 1 unless a machine
 * is emulated. What a script needs time for gets so many times its time budget. */
unsigned support_slow(void);

/* Entries of /proc/self/fd: the same number before and after means that no descriptor was left open. */
unsigned support_count_descriptors(void);

/* Copies `size` octets (0 is fine) so that the octet behind the last one lies in an unmapped page: whoever reads past
 * the end dies there and then. The copy is the caller's and writable; give it back with the same size. */
uint8_t *support_guard(const void *data, size_t size);
void support_unguard(uint8_t *copy, size_t size);

/* A parser behind a common face. `context` is what the test wants to hand through: the output, a scan position, or what
 * the output should be, which the callback then asserts on PARSE_OK. *used is 0 at the call. */
typedef enum parse_result support_parse(const uint8_t *data, size_t size, void *context, size_t *used);

/* One call on a guarded copy. Asserts that the answer is one of the enum and that `used` stays within size, and is 0
 * unless PARSE_OK. `used` may be NULL. */
enum parse_result support_run(support_parse *parse, const void *data, size_t size, void *context, size_t *used);

/* `data` is one whole message: every shorter prefix, the empty one too, answers MORE, the whole one OK and all of it is
 * used, also when other octets follow. `context_size` octets of context are put back to what they were before each
 * call (0: left alone), so that a parser that remembers something starts afresh. */
void support_check_prefixes(support_parse *parse, const void *data, size_t size, void *context, size_t context_size);

/* The same message in two pieces, cut everywhere, and then octet by octet. Here the context is put back only between
 * runs, and lives on between the pieces of one run. */
void support_check_splits(support_parse *parse, const void *data, size_t size, void *context, size_t context_size);

/* Every octet of the message replaced by every other value in turn. The answer may be anything, but must be sane as in
 * support_run(), and final: what is OK or refused up to the wrong octet stays so when the rest is there. The callback
 * must not assert the output here. The context is put back before each call. */
void support_check_wrong_octets(support_parse *parse, const void *data, size_t size, void *context,
                                size_t context_size);

#endif
