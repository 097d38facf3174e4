#include "protocols/users_text.h"

#include <string.h>

#include "protocols/limit_text.h"

/* What a hash may cost: each is up to about a second of a CPU of today. */
#define BCRYPT_COST_MAX 14u
#define SHA_ROUNDS_MAX  1000000u
/* The cost of yescrypt is a letter, the binary logarithm of its blocks: 9 is the default with 16 MiB, B takes 64. */
#define YESCRYPT_COSTS "23456789AB"

static bool is_control(char c)
{
    return (unsigned char)c < 0x20 || c == 0x7f;
}

static bool has_control(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (is_control(text[i])) return true;
    return false;
}

/* --- hashes --- */

/* The alphabet of crypt(5). */
static bool is_hash_octet(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '.' || c == '/';
}

static bool are_hash_octets(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (!is_hash_octet(text[i])) return false;
    return true;
}

static bool begins_with(const char *text, size_t size, const char *prefix)
{
    size_t length = strlen(prefix);
    return size >= length && memcmp(text, prefix, length) == 0;
}

static size_t span_to_dollar(const char *text, size_t size)
{
    const char *dollar = memchr(text, '$', size);
    return dollar ? (size_t)(dollar - text) : size;
}

/* $2b$10$, then 22 octets of salt and 31 of the hash. */
static const char *judge_bcrypt(const char *text, size_t size)
{
    if (size != 60 || text[6] != '$' || !are_hash_octets(text + 7, size - 7)) return "this is no whole bcrypt hash";
    if (text[4] < '0' || text[4] > '9' || text[5] < '0' || text[5] > '9') return "this is no whole bcrypt hash";
    unsigned cost = (unsigned)(text[4] - '0') * 10 + (unsigned)(text[5] - '0');
    if (cost < 4 || cost > BCRYPT_COST_MAX) return "the cost of this bcrypt hash is out of range, give 4 to 14";
    return NULL;
}

/* `rounds=N$`; *used: its octets, 0 if it is not there. */
static bool read_rounds(const char *text, size_t size, size_t *used, uint32_t *rounds)
{
    *used = 0;
    if (!begins_with(text, size, "rounds=")) return true;
    size_t at = strlen("rounds="), digits = 0;
    *rounds = 0;
    for (; at < size && text[at] >= '0' && text[at] <= '9' && digits < 9; at++, digits++)
        *rounds = *rounds * 10 + (uint32_t)(text[at] - '0');
    if (digits == 0 || at == size || text[at] != '$') return false;
    *used = at + 1;
    return true;
}

/* $6$[rounds=N$]salt$hash */
static const char *judge_sha(const char *text, size_t size, size_t hash_size)
{
    size_t used;
    uint32_t rounds = 5000;
    text += 3, size -= 3;
    if (!read_rounds(text, size, &used, &rounds)) return "the rounds of this hash are no number";
    if (rounds < 1000 || rounds > SHA_ROUNDS_MAX)
        return "the rounds of this hash are out of range, give 1000 to 1000000";
    text += used, size -= used;
    size_t salt = span_to_dollar(text, size);
    if (salt > 16 || size != salt + 1 + hash_size || !are_hash_octets(text, salt) ||
        !are_hash_octets(text + salt + 1, hash_size))
        return "this is no whole sha512 or sha256 hash";
    return NULL;
}

/* $y$j9T$salt$hash: flavour, cost, block size, in that order. Other parameters that the method knows, such as p and t,
 * multiply what it takes: nobody's tool writes them. */
static const char *judge_yescrypt(const char *text, size_t size, size_t prefix)
{
    text += prefix, size -= prefix;
    size_t parameters = span_to_dollar(text, size);
    if (parameters != 3 || text[0] != 'j' || !strchr("5T", text[2]))
        return "the parameters of this yescrypt hash are unknown, give one like $y$j9T$";
    if (!strchr(YESCRYPT_COSTS, text[1])) return "the cost of this yescrypt hash is out of range, give j75 to jBT";
    if (size == parameters) return "this is no whole yescrypt hash";
    text += parameters + 1, size -= parameters + 1;
    size_t salt = span_to_dollar(text, size);
    if (salt < 1 || salt > 86 || size != salt + 1 + 43 || !are_hash_octets(text, salt) ||
        !are_hash_octets(text + salt + 1, 43))
        return "this is no whole yescrypt hash";
    return NULL;
}

bool users_hash_is_locked(const char *text, size_t size)
{
    return size > 0 && (text[0] == '!' || text[0] == '*');
}

const char *users_judge_hash(const char *text, size_t size)
{
    if (size == 0) return "the hash is missing, `sluice --hash-password` makes one";
    if (size > USERS_HASH_MAX || has_control(text, size)) return "this is no hash, `sluice --hash-password` makes one";
    if (users_hash_is_locked(text, size)) return NULL;
    if (begins_with(text, size, "$2b$") || begins_with(text, size, "$2a$") || begins_with(text, size, "$2y$"))
        return judge_bcrypt(text, size);
    if (begins_with(text, size, "$6$")) return judge_sha(text, size, 86);
    if (begins_with(text, size, "$5$")) return judge_sha(text, size, 43);
    if (begins_with(text, size, "$y$")) return judge_yescrypt(text, size, 3);
    if (begins_with(text, size, "$gy$")) return judge_yescrypt(text, size, 4);
    return "this is no hash of yescrypt, bcrypt or sha512, `sluice --hash-password` makes one";
}

/* --- the other parts --- */

/* A colon would end it, here and in HTTP's Basic (RFC 7617 section 2). */
const char *users_judge_name(const char *text, size_t size)
{
    if (size == 0) return "the name is missing, give name:hash";
    if (size > USERS_NAME_MAX) return "the name is longer than 255 octets";
    if (has_control(text, size) || memchr(text, ':', size)) return "the name has a control character or a colon";
    if (text[0] == '#' || text[0] == ' ' || text[size - 1] == ' ')
        return "the name begins with # or a blank, or ends in one";
    return NULL;
}

static bool is_group_octet(char c)
{
    return (is_hash_octet(c) && c != '/') || c == '-' || c == '_';
}

const char *users_judge_groups(const char *text, size_t size)
{
    unsigned count = 0;
    size_t length = 0;
    for (size_t i = 0; i < size; i++) {
        bool comma = text[i] == ',';
        if (!comma && !is_group_octet(text[i])) return "a group has letters, digits, dots, dashes and underscores only";
        if (comma && length == 0) return "a group is empty";
        length = comma ? 0 : length + 1;
        if (length == 1 && ++count > USERS_GROUPS_MAX) return "there are more than 16 groups";
        if (length > USERS_GROUP_MAX) return "a group is longer than 63 octets";
    }
    return size > 0 && length == 0 ? "a group is empty" : NULL;
}

const char *users_judge_limit(const char *text, size_t size)
{
    struct limit_terms terms;
    return size > 0 ? limit_terms_parse(text, size, &terms) : NULL;
}

/* --- a line --- */

static struct users_span trim(const char *text, size_t size)
{
    while (size > 0 && (text[size - 1] == ' ' || text[size - 1] == '\t' || text[size - 1] == '\r')) size--;
    while (size > 0 && (*text == ' ' || *text == '\t')) text++, size--;
    return (struct users_span){text, size};
}

/* What stands in front of the next colon, which `rest` is moved behind; all of it where there is none. */
static struct users_span next_field(struct users_span *rest)
{
    const char *colon = memchr(rest->text, ':', rest->size);
    struct users_span field = {rest->text, colon ? (size_t)(colon - rest->text) : rest->size};
    size_t used = field.size + (colon != NULL);
    rest->text += used;
    rest->size -= used;
    return trim(field.text, field.size);
}

const char *users_parse_line(const char *line, size_t size, struct users_line *out)
{
    struct users_span rest = trim(line, size);
    *out = (struct users_line){.name = {line, 0}};
    if (rest.size == 0 || rest.text[0] == '#') return NULL;
    if (rest.size > USERS_LINE_MAX) return "the line is longer than 2048 octets";
    if (has_control(rest.text, rest.size)) return "the line has a control character";
    if (!memchr(rest.text, ':', rest.size)) return "there is no colon, give name:hash";
    out->name = next_field(&rest);
    out->hash = next_field(&rest);
    out->groups = next_field(&rest);
    out->limit = trim(rest.text, rest.size); /* the last one: whatever it holds */
    const char *wrong = users_judge_name(out->name.text, out->name.size);
    if (!wrong) wrong = users_judge_hash(out->hash.text, out->hash.size);
    if (!wrong) wrong = users_judge_groups(out->groups.text, out->groups.size);
    if (!wrong) wrong = users_judge_limit(out->limit.text, out->limit.size);
    return wrong;
}
