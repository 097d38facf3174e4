#include "api/usage.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "api/fields.h"
#include "api/parts.h"
#include "core/control/coordinator.h"

#define LIMIT_DEFAULT 1000u

/* One question: the coordinator's, but while the thread of accounts has it. */
struct asking {
    struct usage_question question; /* first */
    struct call *call;
    struct coordinator *coordinator;
    bool csv;
    char key[LIMIT_KEY_TEXT_SIZE];
};

static void asking_free(struct asking *asking)
{
    free(asking->question.query.rows);
    free(asking->question.query.names);
    free(asking);
}

/* --- what was asked --- */

static bool read_digits(const char **text, unsigned count, int *out)
{
    *out = 0;
    for (; count > 0; count--, (*text)++) {
        if (**text < '0' || **text > '9') return false;
        *out = *out * 10 + (**text - '0');
    }
    return true;
}

static bool read_char(const char **text, char wanted)
{
    if (**text != wanted) return false;
    (*text)++;
    return true;
}

/* 2026-11-30, in local time, or with T08:00:00 and Z or +01:00 behind it (RFC 3339). */
static bool read_date(const char *text, int64_t *out)
{
    struct tm tm = {.tm_isdst = -1};
    int hours = 0, minutes = 0;
    if (!read_digits(&text, 4, &tm.tm_year) || !read_char(&text, '-') || !read_digits(&text, 2, &tm.tm_mon) ||
        !read_char(&text, '-') || !read_digits(&text, 2, &tm.tm_mday))
        return false;
    if (tm.tm_mon < 1 || tm.tm_mon > 12 || tm.tm_mday < 1 || tm.tm_mday > 31 || tm.tm_year < 1970) return false;
    tm.tm_year -= 1900;
    tm.tm_mon--;
    if (*text == '\0') {
        *out = calendar_begin(CALENDAR_DAY, (int64_t)mktime(&tm));
        return true;
    }
    if (!read_char(&text, 'T') || !read_digits(&text, 2, &tm.tm_hour) || !read_char(&text, ':') ||
        !read_digits(&text, 2, &tm.tm_min) || !read_char(&text, ':') || !read_digits(&text, 2, &tm.tm_sec))
        return false;
    if (tm.tm_hour > 23 || tm.tm_min > 59 || tm.tm_sec > 60) return false;
    bool plus = *text == '+' || *text == ' '; /* a + that was not escaped is a blank */
    if (!read_char(&text, 'Z')) {
        if (!plus && *text != '-') return false;
        text++;
        if (!read_digits(&text, 2, &hours) || !read_char(&text, ':') || !read_digits(&text, 2, &minutes)) return false;
    }
    if (hours > 23 || minutes > 59) return false;
    int64_t offset = hours * 3600 + minutes * 60;
    *out = (int64_t)timegm(&tm) - (plus ? offset : -offset);
    return *text == '\0';
}

static bool read_moment(const char *text, int64_t otherwise, int64_t *out)
{
    char *end;
    *out = otherwise;
    if (!text) return true;
    if (strchr(text, '-')) return read_date(text, out);
    long long seconds = strtoll(text, &end, 10);
    *out = seconds;
    return *text >= '0' && *text <= '9' && *end == '\0' && strlen(text) <= 12;
}

static bool read_by(const char *text, enum store_by *out)
{
    static const char *const words[] = {[STORE_BY_HOUR] = "hour", [STORE_BY_DAY] = "day", [STORE_BY_MONTH] = "month"};
    *out = STORE_BY_DAY;
    if (!text) return true;
    for (unsigned i = 0; i < sizeof words / sizeof *words; i++) {
        *out = (enum store_by)i;
        if (strcmp(text, words[i]) == 0) return true;
    }
    return false;
}

/* The key as it is written in the database, whichever way the caller writes it. */
static const char *read_key(const char *text, struct asking *asking)
{
    struct limit_key key;
    if (!text) return NULL;
    const char *wrong = limit_key_parse(text, strlen(text), &key);
    if (wrong) return wrong;
    limit_key_format(&key, asking->key, sizeof asking->key);
    asking->question.query.key = asking->key;
    return NULL;
}

/* NULL, or what is wrong. */
static const char *read_query(struct call *call, struct asking *asking)
{
    static const char *const names[] = {"key", "from", "to", "by", "format", "limit", "cursor"};
    const char *given[sizeof names / sizeof *names];
    struct store_query *q = &asking->question.query;
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
        if (!call_query_given(call, names[i], &given[i]))
            return "key, from, to, by, format, limit, cursor: give a value, or leave it out";
    if (!read_moment(given[1], calendar_begin(CALENDAR_MONTH, (int64_t)time(NULL)), &q->from) ||
        !read_moment(given[2], INT64_MAX, &q->to))
        return "from, to: give a date such as 2026-11-30, a time such as 2026-11-30T08:00:00Z, or seconds since 1970";
    if (!read_by(given[3], &q->by)) return "by: give hour, day or month";
    asking->csv = given[4] && strcmp(given[4], "csv") == 0;
    if (given[4] && !asking->csv && strcmp(given[4], "json") != 0) return "format: give json or csv";
    if (!fields_read_number(given[5], LIMIT_DEFAULT, STORE_ROWS_MAX, &q->rows_max) || q->rows_max == 0)
        return "limit: give a number of 1 to 10000";
    if (!fields_read_number(given[6], 0, INT32_MAX, &q->skip))
        return "cursor: give what `next` of the page before says";
    return read_key(given[0], asking);
}

/* --- the answer --- */

#define MOMENT_SIZE 40u

/* RFC 3339, local time. */
static void format_moment(int64_t moment, char out[MOMENT_SIZE])
{
    time_t seconds = (time_t)moment;
    struct tm tm;
    char zone[8];
    localtime_r(&seconds, &tm);
    size_t size = strftime(out, MOMENT_SIZE, "%Y-%m-%dT%H:%M:%S", &tm);
    strftime(zone, sizeof zone, "%z", &tm);
    snprintf(out + size, MOMENT_SIZE - size, "%.3s:%.2s", zone, zone + 3);
}

static json_t *row_json(const struct store_query *q, const struct store_row *row)
{
    char moment[MOMENT_SIZE];
    format_moment(row->begin, moment);
    return json_pack("{s:s, s:s, s:I, s:I, s:I, s:I}", "key", q->names + row->key, "time", moment, "up",
                     (json_int_t)row->up, "down", (json_int_t)row->down, "connections", (json_int_t)row->connections,
                     "refused", (json_int_t)row->refused);
}

static void write_json(const struct store_query *q, struct text *text)
{
    json_t *rows = json_array();
    char cursor[16];
    snprintf(cursor, sizeof cursor, "%u", q->skip + q->row_count);
    for (uint32_t i = 0; i < q->row_count; i++) json_array_append_new(rows, row_json(q, &q->rows[i]));
    text_add_json(text, json_pack("{s:o, s:s?}", "usage", rows, "next", q->more ? cursor : NULL), 17);
}

/* RFC 4180; a key's text has neither blanks nor controls, but may have commas and quotes in it. */
static void write_csv(const struct store_query *q, struct text *text)
{
    text_printf(text, "key,time,up,down,connections,refused\r\n");
    for (uint32_t i = 0; i < q->row_count; i++) {
        const struct store_row *row = &q->rows[i];
        char moment[MOMENT_SIZE];
        format_moment(row->begin, moment);
        text_add(text, "\"", 1);
        for (const char *c = q->names + row->key; *c; c++) text_add(text, *c == '"' ? "\"\"" : c, *c == '"' ? 2 : 1);
        text_printf(text, "\",%s,%llu,%llu,%lld,%llu\r\n", moment, (unsigned long long)row->up,
                    (unsigned long long)row->down, (long long)row->connections, (unsigned long long)row->refused);
    }
}

/* On the coordinator's thread again. */
static void on_answer(struct letter *letter)
{
    struct asking *asking = (struct asking *)letter;
    const struct store_query *q = &asking->question.query;
    struct text text = {0};
    if (asking->question.result < 0) {
        text_printf(&text, "%s", asking->question.message);
        call_reply(asking->call, 503, CALL_TEXT, &text);
    } else if (asking->csv) {
        write_csv(q, &text);
        call_reply(asking->call, 200, "text/csv; charset=utf-8; header=present", &text);
    } else {
        write_json(q, &text);
        call_reply(asking->call, 200, CALL_JSON, &text);
    }
    asking_free(asking);
}

/* On the thread of accounts. */
static void on_answered(struct usage_question *question, struct ring *ring)
{
    struct asking *asking = (struct asking *)question;
    question->letter.deliver = on_answer;
    coordinator_post(asking->coordinator, ring, &question->letter);
}

void usage_list(struct call *call)
{
    struct coordinator *c = call->parts->coordinator;
    if (!coordinator_usage(c)) {
        call_reply_text(call, 404, "no accounts are kept: start with --usage or --state-dir");
        return;
    }
    struct asking *asking = calloc(1, sizeof *asking);
    const char *wrong = asking ? read_query(call, asking) : "there is no memory for an answer";
    if (wrong) {
        call_reply_text(call, asking ? 400 : 503, wrong);
        free(asking);
        return;
    }
    asking->call = call;
    asking->coordinator = c;
    asking->question.answered = on_answered;
    if (usage_ask(coordinator_usage(c), coordinator_ring(c), &asking->question)) return;
    asking_free(asking);
    call_reply_text(call, 503, "the server stops");
}
