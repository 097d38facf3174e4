#include "api/exposition.h"

#include <ctype.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define NUMBER_MAX 48u

/* A line that is being read; `at` never goes beyond `end`. */
struct reader {
    const char *at, *end;
};

static char peek(const struct reader *r)
{
    return r->at < r->end ? *r->at : '\0';
}

static bool skip_blanks(struct reader *r)
{
    const char *start = r->at;
    while (peek(r) == ' ' || peek(r) == '\t') r->at++;
    return r->at > start;
}

/* A name of a metric, or of a label, which has no colons. */
static bool skip_name(struct reader *r, bool colons)
{
    const char *start = r->at;
    for (; r->at < r->end; r->at++) {
        unsigned char c = (unsigned char)*r->at;
        bool letter = isalpha(c) || c == '_' || (colons && c == ':');
        if (!letter && !(r->at > start && isdigit(c))) break;
    }
    return r->at > start;
}

/* "...", in which \\, \" and \n are the escapes. */
static bool skip_value(struct reader *r)
{
    if (peek(r) != '"') return false;
    for (r->at++; r->at < r->end && *r->at != '"'; r->at++) {
        if (*r->at != '\\') continue;
        r->at++;
        if (peek(r) != '\\' && peek(r) != '"' && peek(r) != 'n') return false;
    }
    if (r->at == r->end) return false;
    r->at++;
    return true;
}

static bool skip_labels(struct reader *r)
{
    if (peek(r) != '{') return true;
    r->at++;
    for (skip_blanks(r); peek(r) != '}'; skip_blanks(r)) {
        if (!skip_name(r, false)) return false;
        skip_blanks(r);
        if (peek(r) != '=') return false;
        r->at++;
        skip_blanks(r);
        if (!skip_value(r)) return false;
        skip_blanks(r);
        if (peek(r) == ',')
            r->at++;
        else if (peek(r) != '}')
            return false;
    }
    r->at++;
    return true;
}

/* The next word, as text; false: there is none, or it is too long for a number. */
static bool take_word(struct reader *r, char word[NUMBER_MAX])
{
    size_t size = 0;
    for (; r->at < r->end && *r->at != ' ' && *r->at != '\t'; r->at++, size++) {
        if (size + 1 == NUMBER_MAX) return false;
        word[size] = *r->at;
    }
    word[size] = '\0';
    return size > 0;
}

/* What Go reads as a number: no hexadecimal digits, no blanks, NaN and Inf by name. */
static bool is_number(const char *word)
{
    char *end;
    const char *digits = word + (*word == '+' || *word == '-');
    if (strcasecmp(digits, "inf") == 0 || strcasecmp(digits, "infinity") == 0) return true;
    if (strcasecmp(word, "nan") == 0) return true;
    if (strspn(digits, "0123456789.eE+-") != strlen(digits) || !strpbrk(digits, "0123456789")) return false;
    strtod(word, &end);
    return *end == '\0';
}

static bool is_integer(const char *word)
{
    word += *word == '-';
    return *word && strspn(word, "0123456789") == strlen(word) && strlen(word) <= 18;
}

static bool is_sample(struct reader r)
{
    char word[NUMBER_MAX];
    if (!skip_name(&r, true)) return false;
    bool blank = skip_blanks(&r);
    bool labels = peek(&r) == '{';
    if (!skip_labels(&r) || (!skip_blanks(&r) && !(blank && !labels) && !labels)) return false;
    if (!take_word(&r, word) || !is_number(word)) return false;
    skip_blanks(&r);
    if (r.at == r.end) return true;
    if (!take_word(&r, word) || !is_integer(word)) return false; /* a time stamp in milliseconds */
    skip_blanks(&r);
    return r.at == r.end;
}

static bool is_type(struct reader r)
{
    static const char *const types[] = {"counter", "gauge", "histogram", "summary", "untyped"};
    char word[NUMBER_MAX];
    if (!skip_blanks(&r) || !skip_name(&r, true) || !skip_blanks(&r) || !take_word(&r, word)) return false;
    skip_blanks(&r);
    for (size_t i = 0; r.at == r.end && i < sizeof types / sizeof *types; i++)
        if (strcmp(word, types[i]) == 0) return true;
    return false;
}

/* The text behind the name may be anything, a backslash stands before a backslash or an n. */
static bool is_help(struct reader r)
{
    if (!skip_blanks(&r) || !skip_name(&r, true)) return false;
    if (r.at < r.end && !skip_blanks(&r)) return false;
    for (; r.at < r.end; r.at++) {
        if (*r.at != '\\') continue;
        r.at++;
        if (peek(&r) != '\\' && peek(&r) != 'n') return false;
    }
    return true;
}

/* The octets behind the first one of a character, or -1. Overlong forms and surrogates are not looked for: readers of
 * the format take them for wrong as well, but no client can bring them into a label without the script's help. */
static int utf8_rest(unsigned char c)
{
    if (c < 0x80) return 0;
    if (c >= 0xc2 && c <= 0xdf) return 1;
    if (c >= 0xe0 && c <= 0xef) return 2;
    return c >= 0xf0 && c <= 0xf4 ? 3 : -1;
}

static bool is_utf8(const char *line, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        int rest = utf8_rest((unsigned char)line[i]);
        if (rest < 0 || (size_t)rest >= size - i) return false;
        unsigned char next = rest > 0 ? (unsigned char)line[i + 1] : 0, first = (unsigned char)line[i];
        if ((first == 0xe0 && next < 0xa0) || (first == 0xed && next > 0x9f)) return false;
        if ((first == 0xf0 && next < 0x90) || (first == 0xf4 && next > 0x8f)) return false;
        for (; rest > 0; rest--)
            if (((unsigned char)line[++i] & 0xc0) != 0x80) return false;
    }
    return true;
}

static bool begins_with(const struct reader *r, const char *word)
{
    size_t size = strlen(word);
    return (size_t)(r->end - r->at) >= size && memcmp(r->at, word, size) == 0;
}

bool exposition_is_sound(const char *line, size_t size)
{
    struct reader r = {line, line + size};
    if (memchr(line, '\0', size) || memchr(line, '\r', size) || !is_utf8(line, size)) return false;
    skip_blanks(&r);
    if (r.at == r.end) return true;
    if (*r.at != '#') return is_sample(r);
    r.at++;
    skip_blanks(&r);
    if (begins_with(&r, "HELP ") || begins_with(&r, "HELP\t")) return is_help((struct reader){r.at + 4, r.end});
    if (begins_with(&r, "TYPE ") || begins_with(&r, "TYPE\t")) return is_type((struct reader){r.at + 4, r.end});
    return true;
}

/* Whether a line of `text` begins with `start`, and a blank or the line's end follows. */
static bool has_line(const struct text *text, const char *start, size_t size)
{
    for (const char *at = text->data; at && *at; at++) {
        if (strncmp(at, start, size) == 0 && (at[size] == ' ' || at[size] == '\n')) return true;
        at = strchr(at, '\n');
        if (!at) return false;
    }
    return false;
}

/* The family that a line speaks of: the name in a HELP, a TYPE or a sample; size 0: of none. */
static struct reader family_of(const char *line, size_t size, bool *described)
{
    struct reader r = {line, line + size};
    skip_blanks(&r);
    *described = false;
    if (peek(&r) == '#') {
        r.at++;
        skip_blanks(&r);
        *described = begins_with(&r, "HELP") || begins_with(&r, "TYPE");
        if (!*described) return (struct reader){line, line};
        r.at += 4;
        skip_blanks(&r);
    }
    const char *start = r.at;
    skip_name(&r, true);
    return (struct reader){start, r.at};
}

/* A family that `before` has described is ours: its lines stand together, and no two samples have the same labels. A
 * HELP or TYPE that has come already is one too many. */
static bool is_taken(const struct text *out, const struct text *before, const char *line, size_t size)
{
    static const char *const suffixes[] = {"", "_sum", "_count", "_bucket"};
    char start[320];
    bool described;
    struct reader name = family_of(line, size, &described);
    size_t length = (size_t)(name.end - name.at);
    if (length == 0) return false;
    if (length > 256) return true;
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        size_t suffix = strlen(suffixes[i]);
        if (length <= suffix || memcmp(name.end - suffix, suffixes[i], suffix) != 0) continue;
        memcpy(start, "# TYPE ", 7);
        memcpy(start + 7, name.at, length - suffix);
        if (has_line(before, start, 7 + length - suffix)) return true;
    }
    if (!described) return false;
    bool help = memchr(line, 'H', (size_t)(name.at - line)) != NULL;
    memcpy(start, help ? "# HELP " : "# TYPE ", 7);
    memcpy(start + 7, name.at, length);
    return has_line(out, start, 7 + length);
}

size_t exposition_add(struct text *out, const char *data, size_t size)
{
    size_t wrong = 0;
    struct text before = {0};
    text_add(&before, out->data ? out->data : "", out->size);
    for (const char *at = data, *end = data + size; at < end;) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        if (!stop) stop = end;
        size_t length = (size_t)(stop - at);
        if (!exposition_is_sound(at, length) || is_taken(out, &before, at, length)) {
            wrong++;
        } else {
            text_add(out, at, length);
            text_add(out, "\n", 1);
        }
        at = stop < end ? stop + 1 : end;
    }
    if (before.failed) out->failed = true;
    text_free(&before);
    return wrong;
}
