#include "protocols/access_text.h"

#include <assert.h>
#include <string.h>

#include "protocols/access_fields.h"

/* A line that is being written. Behind its end nothing is written any more, but still counted. */
struct line {
    char *out;
    size_t size, used;
    size_t text_max; /* octets that are taken of a peer's text */
    bool cut;        /* of one of them not all was */
};

static void put(struct line *l, const char *data, size_t size)
{
    if (size > 0 && l->used + size <= l->size) memcpy(l->out + l->used, data, size);
    l->used += size;
}

static void put_char(struct line *l, char c)
{
    put(l, &c, 1);
}

static void put_word(struct line *l, const char *word)
{
    put(l, word, strlen(word));
}

/* --- octets of a peer's choice --- */

/* The length of the UTF-8 sequence at the front, and its code point; 0: there is none (RFC 3629 section 4). */
static size_t utf8_take(const uint8_t *at, size_t left, uint32_t *code)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t size = at[0] < 0x80 ? 1 : at[0] >= 0xf0 && at[0] < 0xf8 ? 4 : at[0] >= 0xe0 ? 3 : at[0] >= 0xc0 ? 2 : 0;
    if (size == 0 || size > left || at[0] >= 0xf8) return 0;
    *code = size == 1 ? at[0] : at[0] & 0xffu >> (size + 1u);
    for (size_t i = 1; i < size; i++) {
        if ((at[i] & 0xc0u) != 0x80) return 0;
        *code = *code << 6u | (at[i] & 0x3fu);
    }
    return *code < least[size] || *code > 0x10ffff || (*code >= 0xd800 && *code < 0xe000) ? 0 : size;
}

/* Controls, those of C1 too, and what ends a line for some readers or turns its direction. */
static bool is_unseen(uint32_t code)
{
    return code < 0x20 || (code >= 0x7f && code < 0xa0) || (code >= 0x200b && code <= 0x200f) ||
           (code >= 0x2028 && code <= 0x202e) || (code >= 0x2060 && code <= 0x206f) || code == 0xfeff;
}

static void put_escape(struct line *l, uint32_t code)
{
    char text[6] = {'\\', 'u'};
    for (unsigned i = 0; i < 4; i++) text[2 + i] = "0123456789abcdef"[code >> 4u * (3u - i) & 15u];
    put(l, text, sizeof text);
}

/* Of numbers, times and addresses nothing may be missing. */
static struct access_text clip(struct line *l, const struct access_field *field, struct access_text text)
{
    bool may = field->kind == ACCESS_KIND_TEXT || field->kind == ACCESS_KIND_WORD;
    if (!may || text.size <= l->text_max) return text;
    l->cut = true;
    text.size = (uint32_t)l->text_max;
    return text;
}

/* Between quotes, RFC 8259 section 7. A sequence that is cut in its middle is none. */
static void put_json_text(struct line *l, const struct access_text *text)
{
    const uint8_t *data = (const uint8_t *)text->data;
    size_t size = text->size, taken;
    uint32_t code;
    put_char(l, '"');
    for (size_t at = 0; at < size; at += taken) {
        taken = utf8_take(data + at, size - at, &code);
        if (taken == 0) {
            put_word(l, "\xef\xbf\xbd"); /* U+FFFD */
            taken = 1;
        } else if (is_unseen(code)) {
            put_escape(l, code);
        } else {
            if (code == '"' || code == '\\') put_char(l, '\\');
            put(l, (const char *)data + at, taken);
        }
    }
    put_char(l, '"');
}

static void put_plain_text(struct line *l, const struct access_text *text)
{
    for (size_t at = 0; at < text->size; at++) {
        uint8_t c = (uint8_t)text->data[at];
        char hex[4] = {'\\', 'x', "0123456789abcdef"[c >> 4], "0123456789abcdef"[c & 15]};
        if (c > 0x20 && c < 0x7f && c != '"' && c != '\\')
            put_char(l, (char)c);
        else
            put(l, hex, sizeof hex);
    }
}

/* --- JSON and logfmt --- */

static bool is_number(const struct access_field *field)
{
    return field->kind >= ACCESS_KIND_COUNT;
}

static void write_json(struct line *l, const struct access_record *record)
{
    char room[ACCESS_VALUE_MAX];
    for (unsigned i = 0; i < access_fields_count; i++) {
        const struct access_field *field = &access_fields[i];
        struct access_text value = clip(l, field, access_value(field, record, room));
        put(l, i == 0 ? "{\"" : ",\"", 2);
        put_word(l, field->name);
        put(l, "\":", 2);
        if (value.size == 0)
            put_word(l, field->kind == ACCESS_KIND_FLAG ? "false" : "null");
        else if (is_number(field))
            put(l, value.data, value.size);
        else
            put_json_text(l, &value);
    }
    put_char(l, '}');
}

/* Without quotes: what nobody can take for anything else. */
static bool is_bare(const struct access_text *text)
{
    for (size_t i = 0; i < text->size; i++) {
        uint8_t c = (uint8_t)text->data[i];
        if (c <= 0x20 || c >= 0x7f || c == '"' || c == '\\' || c == '=') return false;
    }
    return true;
}

static void write_logfmt(struct line *l, const struct access_record *record)
{
    char room[ACCESS_VALUE_MAX];
    for (unsigned i = 0; i < access_fields_count; i++) {
        const struct access_field *field = &access_fields[i];
        struct access_text value = clip(l, field, access_value(field, record, room));
        if (value.size == 0) continue;
        if (l->used > 0) put_char(l, ' ');
        put_word(l, field->name);
        put_char(l, '=');
        if (is_bare(&value))
            put(l, value.data, value.size);
        else
            put_json_text(l, &value);
    }
}

/* --- the common log format: host ident user [time] "method target protocol" status octets --- */

static struct access_text clip_text(struct line *l, const struct access_text *text)
{
    static const struct access_field peer = {.kind = ACCESS_KIND_TEXT};
    return clip(l, &peer, *text);
}

static void put_text_or_dash(struct line *l, const struct access_text *text)
{
    if (text->size > 0)
        put_plain_text(l, text);
    else
        put_char(l, '-');
}

static void put_client_host(struct line *l, const struct host_port *client)
{
    char room[ADDRESS_TEXT_SIZE];
    struct address address = host_port_address(client);
    if (address.kind == ADDRESS_NONE)
        put_char(l, '-');
    else
        put(l, room, address_format_host(&address, room, sizeof room));
}

static void put_number(struct line *l, uint64_t value)
{
    char room[24];
    put(l, room, access_format_number(value, room));
}

/* `GET http://host:80/path HTTP` or `CONNECT host:443 socks5`; of connections without a line `suppressed 12 -`. */
static void put_clf_request(struct line *l, const struct access_record *record)
{
    if (record->suppressed > 0) {
        put_word(l, "suppressed ");
        put_number(l, record->suppressed);
    } else if (record->method.size > 0) {
        struct access_text method = clip_text(l, &record->method), target = clip_text(l, &record->target),
                           path = clip_text(l, &record->path);
        put_plain_text(l, &method);
        put_word(l, " http://");
        put_plain_text(l, &target);
        put_plain_text(l, &path);
    } else {
        put_word(l, record->command ? record->command : "-");
        put_char(l, ' ');
        struct access_text target = clip_text(l, &record->target);
        put_text_or_dash(l, &target);
    }
    put_char(l, ' ');
    put_word(l, record->protocol ? record->protocol : "-");
}

static void write_clf(struct line *l, const struct access_record *record)
{
    char room[32];
    put_client_host(l, &record->client);
    put_word(l, " - ");
    struct access_text user = clip_text(l, &record->user);
    put_text_or_dash(l, &user);
    put_word(l, " [");
    put(l, room, access_format_clf_time(record->time_us, room));
    put_word(l, "] \"");
    put_clf_request(l, record);
    put_word(l, "\" ");
    if (record->status)
        put_number(l, record->status);
    else
        put_char(l, '-');
    put_char(l, ' ');
    put_number(l, record->down);
}

/* --- templates --- */

static int find_field(const char *name, size_t size)
{
    for (unsigned i = 0; i < access_fields_count; i++)
        if (strlen(access_fields[i].name) == size && memcmp(access_fields[i].name, name, size) == 0) return (int)i;
    return -1;
}

/* The part at the front of `text`. Its length, or 0: `wrong` says what is the matter. */
static size_t parse_part(const char *text, struct access_part *part, const char **wrong)
{
    size_t size = strcspn(text, "{}");
    *part = (struct access_part){.field = ACCESS_LITERAL, .size = (uint16_t)size};
    if (size > 0) return size;
    if (text[0] == text[1]) { /* a doubled brace is one */
        part->size = 1;
        return 2;
    }
    size = text[0] == '{' ? strcspn(text + 1, "{}") : 0;
    *wrong = "a brace that stands for itself is written twice, a field is {name}";
    if (text[0] != '{' || text[1 + size] != '}') return 0;
    part->field = (int16_t)find_field(text + 1, size);
    part->size = (uint16_t)size;
    *wrong = "unknown field";
    return part->field < 0 ? 0 : size + 2;
}

const char *access_template_parse(const char *text, struct access_template *out, const char **bad, size_t *bad_size)
{
    const char *wrong = NULL;
    *bad = NULL;
    *bad_size = 0;
    *out = (struct access_template){.text = text};
    if (!*text) return "it is empty";
    if (strlen(text) > ACCESS_TEMPLATE_MAX) return "it is longer than 1023 octets";
    for (const char *at = text; *at; at++)
        if ((unsigned char)*at < 0x20 || *at == 0x7f) return "it has a control character";
    for (size_t at = 0, taken; text[at]; at += taken) {
        if (out->count == ACCESS_TEMPLATE_PARTS) return "it has too many parts";
        struct access_part *part = &out->parts[out->count++];
        taken = parse_part(text + at, part, &wrong);
        part->at = (uint16_t)(at + (part->field != ACCESS_LITERAL));
        if (taken > 0) continue;
        if (wrong[0] == 'u') {
            *bad = text + at + 1;
            *bad_size = part->size;
        }
        return wrong;
    }
    return NULL;
}

static void write_template(struct line *l, const struct access_template *template, const struct access_record *record)
{
    char room[ACCESS_VALUE_MAX];
    for (uint32_t i = 0; i < template->count; i++) {
        const struct access_part *part = &template->parts[i];
        if (part->field == ACCESS_LITERAL) {
            put(l, template->text + part->at, part->size);
            continue;
        }
        const struct access_field *field = &access_fields[part->field];
        struct access_text value = clip(l, field, access_value(field, record, room));
        put_text_or_dash(l, &value);
    }
}

/* --- a whole line --- */

static void write_as(struct line *l, enum access_format format, const struct access_template *template,
                     const struct access_record *record)
{
    switch (format) {
    case ACCESS_JSON: write_json(l, record); return;
    case ACCESS_LOGFMT: write_logfmt(l, record); return;
    case ACCESS_CLF: write_clf(l, record); return;
    case ACCESS_TEMPLATE: write_template(l, template, record); return;
    }
    assert(0 && "a format that does not exist");
}

size_t access_write(enum access_format format, const struct access_template *template,
                    const struct access_record *record, char *out, size_t size)
{
    static const size_t cuts[] = {SIZE_MAX, 1024, 256, 64, 16};
    struct access_record cut = *record;
    struct line l = {.out = out, .size = size};
    assert(size >= ACCESS_LINE_MIN);
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        l.used = 0;
        l.cut = false;
        l.text_max = cuts[i];
        write_as(&l, format, template, &cut);
        if (l.used <= size && (!l.cut || cut.truncated)) return l.used;
        if (l.used <= size) i--; /* once more: the line is to say that it was cut */
        cut.truncated = true;
    }
    assert(0 && "all parts fit with 16 octets each");
    return 0;
}

unsigned access_field_count(void)
{
    return access_fields_count;
}

const char *access_field_name(unsigned field)
{
    assert(field < access_fields_count);
    return access_fields[field].name;
}

size_t access_field_value(unsigned field, const struct access_record *record, char *out, size_t size)
{
    char room[ACCESS_VALUE_MAX];
    assert(field < access_fields_count);
    struct access_text value = access_value(&access_fields[field], record, room);
    size_t taken = value.size < size ? value.size : size;
    if (taken > 0) memcpy(out, value.data, taken); /* an absent value has no address */
    return taken;
}
