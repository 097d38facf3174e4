#include "core/usage/store.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Writers of others (the sqlite3 program) are waited for so long. */
#define STORE_BUSY_MS 500
/* Octets of the log from which on it is cut back to nothing when no reader needs it. */
#define STORE_WAL_CUT (UINT64_C(8) << 20)
#define STORE_ASK_S   2
#define STORE_VERSION 1

struct store {
    sqlite3 *db;
    sqlite3_stmt *add_row, *add_total, *find_total, *find_rows;
    int lock_fd;
    char *path;
    struct timespec deadline; /* of a question */
};

static const char schema[] =
    "CREATE TABLE IF NOT EXISTS usage (key TEXT NOT NULL, hour INTEGER NOT NULL, up INTEGER NOT NULL,"
    " down INTEGER NOT NULL, connections INTEGER NOT NULL, refused INTEGER NOT NULL, PRIMARY KEY (key, hour))"
    " WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS total (key TEXT PRIMARY KEY NOT NULL, up INTEGER NOT NULL, down INTEGER NOT NULL,"
    " last INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE INDEX IF NOT EXISTS total_last ON total (last);"
    "PRAGMA user_version = 1;";

static const char add_row[] = "INSERT INTO usage VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO UPDATE SET"
                              " up = up + excluded.up, down = down + excluded.down,"
                              " connections = connections + excluded.connections, refused = refused + excluded.refused";
static const char add_total[] = "INSERT INTO total VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET"
                                " up = up + excluded.up, down = down + excluded.down, last = max(last, excluded.last)";
static const char find_total[] = "SELECT key, up, down, last FROM total WHERE key = ?1";
static const char find_rows[] = "SELECT hour, up, down FROM usage WHERE key = ?1 AND hour >= ?2";

/* --- what went wrong --- */

static const char *remedy(int code)
{
    switch (code & 0xff) {
    case SQLITE_CANTOPEN: return "see that the folder exists and that the user of -u may write to it";
    case SQLITE_READONLY:
    case SQLITE_PERM: return "let the user of -u write to it and to its folder";
    case SQLITE_NOTADB:
    case SQLITE_CORRUPT: return "it is no database, or a damaged one: put a copy in its place, or move it away";
    case SQLITE_FULL: return "make room on that disk";
    case SQLITE_IOERR: return "look for errors of that disk in the kernel's log, and whether it is full";
    case SQLITE_BUSY:
    case SQLITE_LOCKED: return "another program holds its lock: end that one";
    default: return "look at the file with sqlite3";
    }
}

static int fail(struct store *s, char message[STORE_MESSAGE_SIZE])
{
    int code = s->db ? sqlite3_extended_errcode(s->db) : SQLITE_NOMEM, error = s->db ? sqlite3_system_errno(s->db) : 0;
    snprintf(message, STORE_MESSAGE_SIZE, "%s%s%s%s; %s", sqlite3_errstr(code & 0xff), error ? " (" : "",
             error ? strerror(error) : "", error ? ")" : "", remedy(code));
    return -1;
}

static int run(struct store *s, const char *sql)
{
    return sqlite3_exec(s->db, sql, NULL, NULL, NULL);
}

/* --- opening --- */

static int take_lock(struct store *s, const char *path, char message[STORE_MESSAGE_SIZE])
{
    char lock[4096];
    int size = snprintf(lock, sizeof lock, "%s-lock", path);
    if (size < 0 || (size_t)size >= sizeof lock) {
        snprintf(message, STORE_MESSAGE_SIZE, "the path is too long");
        return -1;
    }
    s->lock_fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (s->lock_fd < 0) {
        snprintf(message, STORE_MESSAGE_SIZE, "its lock, a file with -lock behind the name, cannot be opened (%s); %s",
                 strerror(errno), remedy(SQLITE_CANTOPEN));
        return -1;
    }
    if (flock(s->lock_fd, LOCK_EX | LOCK_NB) == 0) return 0;
    snprintf(message, STORE_MESSAGE_SIZE, "another process of sluice keeps its accounts there; give each its own file");
    return -1;
}

static int read_version(struct store *s)
{
    sqlite3_stmt *statement = NULL;
    int version = -1;
    if (sqlite3_prepare_v2(s->db, "PRAGMA user_version", -1, &statement, NULL) == SQLITE_OK &&
        sqlite3_step(statement) == SQLITE_ROW)
        version = sqlite3_column_int(statement, 0);
    sqlite3_finalize(statement);
    return version;
}

static bool prepare(struct store *s, const char *sql, sqlite3_stmt **out)
{
    return sqlite3_prepare_v3(s->db, sql, -1, SQLITE_PREPARE_PERSISTENT, out, NULL) == SQLITE_OK;
}

static int open_database(struct store *s, const char *path, char message[STORE_MESSAGE_SIZE])
{
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
    if (sqlite3_open_v2(path, &s->db, flags, NULL) != SQLITE_OK) return fail(s, message);
    sqlite3_busy_timeout(s->db, STORE_BUSY_MS);
    int version = read_version(s);
    if (version < 0) return fail(s, message);
    if (version > STORE_VERSION) {
        snprintf(message, STORE_MESSAGE_SIZE, "it was made by a later version of sluice; give another file");
        return -1;
    }
    if (run(s, "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;") != SQLITE_OK) return fail(s, message);
    if (version < STORE_VERSION && run(s, "BEGIN IMMEDIATE") != SQLITE_OK) return fail(s, message);
    if (version < STORE_VERSION && run(s, schema) != SQLITE_OK) return fail(s, message);
    if (version < STORE_VERSION && run(s, "COMMIT") != SQLITE_OK) return fail(s, message);
    bool good = prepare(s, add_row, &s->add_row) && prepare(s, add_total, &s->add_total) &&
                prepare(s, find_total, &s->find_total) && prepare(s, find_rows, &s->find_rows);
    return good ? 0 : fail(s, message);
}

int store_open(struct store **out, const char *path, char message[STORE_MESSAGE_SIZE])
{
    struct store *s = calloc(1, sizeof *s);
    *out = NULL;
    snprintf(message, STORE_MESSAGE_SIZE, "there is no memory for it");
    if (!s) return -1;
    s->lock_fd = -1;
    s->path = strdup(path);
    if (s->path && take_lock(s, path, message) == 0 && open_database(s, path, message) == 0) {
        *out = s;
        return 0;
    }
    store_close(s);
    return -1;
}

void store_close(struct store *store)
{
    if (!store) return;
    sqlite3_finalize(store->add_row);
    sqlite3_finalize(store->add_total);
    sqlite3_finalize(store->find_total);
    sqlite3_finalize(store->find_rows);
    sqlite3_close(store->db);
    if (store->lock_fd >= 0) close(store->lock_fd);
    free(store->path);
    free(store);
}

uint64_t store_wal_size(const struct store *store)
{
    char path[4096];
    struct stat info;
    int size = snprintf(path, sizeof path, "%s-wal", store->path);
    return size > 0 && (size_t)size < sizeof path && stat(path, &info) == 0 ? (uint64_t)info.st_size : 0;
}

void store_hurry(struct store *store)
{
    sqlite3_busy_timeout(store->db, STORE_BUSY_MS / 5);
    run(store, "PRAGMA synchronous = NORMAL");
}

/* --- loading --- */

static uint64_t column(sqlite3_stmt *statement, int number)
{
    sqlite3_int64 value = sqlite3_column_int64(statement, number);
    return value > 0 ? (uint64_t)value : 0;
}

static bool read_key(sqlite3_stmt *statement, int number, struct limit_key *key)
{
    const char *text = (const char *)sqlite3_column_text(statement, number);
    int size = sqlite3_column_bytes(statement, number);
    return text && size > 0 && limit_key_parse(text, (size_t)size, key) == NULL;
}

/* The rows of one key since the first of the periods began. */
static int add_periods(sqlite3_stmt *rows, const struct limit_time *time, struct limit_sums *sums)
{
    int code;
    while ((code = sqlite3_step(rows)) == SQLITE_ROW) {
        int64_t hour = sqlite3_column_int64(rows, 0);
        for (unsigned i = 0; i < CALENDAR_PERIODS; i++) {
            if (hour < calendar_find(time->calendar, (enum calendar_period)i, time->wall_s)) continue;
            sums->octets[i][0] += column(rows, 1);
            sums->octets[i][1] += column(rows, 2);
        }
    }
    return code;
}

static int64_t first_begin(const struct limit_time *time)
{
    int64_t week = calendar_find(time->calendar, CALENDAR_WEEK, time->wall_s);
    int64_t month = calendar_find(time->calendar, CALENDAR_MONTH, time->wall_s);
    return week < month ? week : month;
}

/* What the key has used of which `totals` has a row; SQLITE_DONE: all is well. */
static int load_key(struct store *s, sqlite3_stmt *totals, const struct limit_time *time, struct limit_sums *sums)
{
    *sums = (struct limit_sums){.octets[LIMIT_EVER] = {column(totals, 1), column(totals, 2)}};
    if (sqlite3_column_int64(totals, 3) < first_begin(time)) return SQLITE_DONE; /* it was not used since */
    sqlite3_bind_text(s->find_rows, 1, (const char *)sqlite3_column_text(totals, 0), sqlite3_column_bytes(totals, 0),
                      SQLITE_TRANSIENT);
    sqlite3_bind_int64(s->find_rows, 2, first_begin(time));
    int code = add_periods(s->find_rows, time, sums);
    sqlite3_reset(s->find_rows);
    return code;
}

int store_load(struct store *store, const struct limit_time *time, uint32_t kinds,
               bool (*take)(void *context, const struct limit_key *key, const struct limit_sums *sums), void *context,
               char message[STORE_MESSAGE_SIZE])
{
    sqlite3_stmt *totals = NULL;
    struct limit_key key;
    struct limit_sums sums;
    int code =
        sqlite3_prepare_v2(store->db, "SELECT key, up, down, last FROM total ORDER BY last DESC", -1, &totals, NULL);
    bool goes_on = code == SQLITE_OK;
    while (goes_on && (code = sqlite3_step(totals)) == SQLITE_ROW) {
        if (!read_key(totals, 0, &key) || !(kinds & 1u << key.kind)) continue;
        code = load_key(store, totals, time, &sums);
        goes_on = code == SQLITE_DONE && take(context, &key, &sums);
    }
    int result = code == SQLITE_DONE ? 0 : fail(store, message);
    sqlite3_finalize(totals);
    return result;
}

int store_has_more(struct store *store, uint32_t keys, char message[STORE_MESSAGE_SIZE])
{
    sqlite3_stmt *statement = NULL;
    int result = -1,
        code = sqlite3_prepare_v2(store->db, "SELECT 1 FROM total LIMIT 1 OFFSET ?1", -1, &statement, NULL);
    if (code == SQLITE_OK) {
        sqlite3_bind_int64(statement, 1, keys);
        code = sqlite3_step(statement);
    }
    if (code == SQLITE_ROW || code == SQLITE_DONE) result = code == SQLITE_ROW;
    if (result < 0) fail(store, message);
    sqlite3_finalize(statement);
    return result;
}

bool store_find(struct store *store, const struct limit_key *key, const struct limit_time *time,
                struct limit_sums *sums)
{
    char text[LIMIT_KEY_TEXT_SIZE];
    int size = (int)limit_key_format(key, text, sizeof text);
    sqlite3_bind_text(store->find_total, 1, text, size, SQLITE_STATIC);
    bool found =
        sqlite3_step(store->find_total) == SQLITE_ROW && load_key(store, store->find_total, time, sums) == SQLITE_DONE;
    sqlite3_reset(store->find_total);
    return found;
}

/* --- the node's name --- */

static int read_node(struct store *s, char node[STORE_NODE_SIZE])
{
    sqlite3_stmt *statement = NULL;
    node[0] = '\0';
    int code = sqlite3_prepare_v2(s->db, "SELECT value FROM meta WHERE name = 'node'", -1, &statement, NULL);
    if (code == SQLITE_OK) code = sqlite3_step(statement);
    if (code == SQLITE_ROW && sqlite3_column_text(statement, 0))
        snprintf(node, STORE_NODE_SIZE, "%s", (const char *)sqlite3_column_text(statement, 0));
    sqlite3_finalize(statement);
    return code == SQLITE_ROW ? 0 : -1;
}

int store_node(struct store *store, char node[STORE_NODE_SIZE], char message[STORE_MESSAGE_SIZE])
{
    if (run(store, "CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY NOT NULL, value TEXT) WITHOUT ROWID;"
                   "INSERT OR IGNORE INTO meta VALUES ('node', lower(hex(randomblob(16))));") != SQLITE_OK ||
        read_node(store, node) < 0)
        return fail(store, message);
    return 0;
}

/* --- writing --- */

static int step(sqlite3_stmt *statement)
{
    int code = sqlite3_step(statement);
    sqlite3_reset(statement); /* else it holds up check-points */
    return code == SQLITE_DONE ? 0 : -1;
}

static int write_row(void *context, const struct limit_key *key, const struct ledger_row *row)
{
    struct store *s = context;
    char text[LIMIT_KEY_TEXT_SIZE];
    int size = (int)limit_key_format(key, text, sizeof text);
    sqlite3_bind_text(s->add_row, 1, text, size, SQLITE_STATIC);
    sqlite3_bind_int64(s->add_row, 2, row->hour);
    sqlite3_bind_int64(s->add_row, 3, (sqlite3_int64)row->octets[0]);
    sqlite3_bind_int64(s->add_row, 4, (sqlite3_int64)row->octets[1]);
    sqlite3_bind_int64(s->add_row, 5, row->connections);
    sqlite3_bind_int64(s->add_row, 6, (sqlite3_int64)row->refused);
    sqlite3_bind_text(s->add_total, 1, text, size, SQLITE_STATIC);
    sqlite3_bind_int64(s->add_total, 2, (sqlite3_int64)row->octets[0]);
    sqlite3_bind_int64(s->add_total, 3, (sqlite3_int64)row->octets[1]);
    sqlite3_bind_int64(s->add_total, 4, row->hour);
    return step(s->add_row) == 0 ? step(s->add_total) : -1;
}

/* Errors may have ended it already. */
static void roll_back(struct store *s)
{
    if (!sqlite3_get_autocommit(s->db)) run(s, "ROLLBACK");
}

/* IMMEDIATE: a transaction that reads first and then wants to write fails at once where others write. */
int store_write(struct store *store, const struct ledger *ledger, char message[STORE_MESSAGE_SIZE])
{
    if (run(store, "BEGIN IMMEDIATE") != SQLITE_OK) return fail(store, message);
    bool good = ledger_each(ledger, write_row, store) == 0 && run(store, "COMMIT") == SQLITE_OK;
    if (!good) {
        fail(store, message);
        roll_back(store);
        return -1;
    }
    if (store_wal_size(store) > STORE_WAL_CUT)
        sqlite3_wal_checkpoint_v2(store->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
    return 0;
}

/* --- questions --- */

static int is_late(void *context)
{
    const struct store *s = context;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec > s->deadline.tv_sec || (now.tv_sec == s->deadline.tv_sec && now.tv_nsec > s->deadline.tv_nsec);
}

/* The period that rows are added up in. */
struct span {
    enum store_by by;
    int64_t begin, end;
};

static int64_t span_begin(struct span *span, int64_t hour)
{
    static const enum calendar_period periods[] = {
        [STORE_BY_HOUR] = CALENDAR_HOUR, [STORE_BY_DAY] = CALENDAR_DAY, [STORE_BY_MONTH] = CALENDAR_MONTH};
    if (span->by == STORE_BY_HOUR) return hour;
    if (hour >= span->begin && hour < span->end) return span->begin;
    span->begin = calendar_begin(periods[span->by], hour);
    span->end = calendar_next(periods[span->by], span->begin);
    return span->begin;
}

struct gathering {
    struct store_query *query;
    struct span span;
    uint32_t room, seen; /* rows of the answer; of all, those that are skipped too */
    size_t names_room;
    bool has_last;
    struct store_row last;
    char last_key[LIMIT_KEY_TEXT_SIZE];
};

static void *grown(void *memory, size_t count, size_t *room, size_t size)
{
    if (count < *room) return memory;
    size_t more = *room ? 2 * *room : 64;
    void *fresh = realloc(memory, more * size);
    if (fresh) *room = more;
    return fresh;
}

static bool add_name(struct gathering *g, const char *name, uint32_t *at)
{
    struct store_query *q = g->query;
    size_t size = strlen(name) + 1;
    if (q->row_count > 0 && strcmp(q->names + q->rows[q->row_count - 1].key, name) == 0) {
        *at = q->rows[q->row_count - 1].key;
        return true;
    }
    while (q->names_size + size > g->names_room) {
        char *fresh = realloc(q->names, g->names_room + 4096);
        if (!fresh) return false;
        q->names = fresh;
        g->names_room += 4096;
    }
    *at = (uint32_t)q->names_size;
    memcpy(q->names + q->names_size, name, size);
    q->names_size += size;
    return true;
}

/* A row of the answer is complete. False: that was the last one, or there is no memory. */
static bool finish_row(struct gathering *g, bool *failed)
{
    struct store_query *q = g->query;
    size_t room = g->room;
    if (!g->has_last || g->seen++ < q->skip) return true;
    if (q->row_count == q->rows_max) {
        q->more = true;
        return false;
    }
    struct store_row *rows = grown(q->rows, q->row_count, &room, sizeof *rows);
    *failed = !rows || (q->rows = rows, g->room = (uint32_t)room, !add_name(g, g->last_key, &g->last.key));
    if (*failed) return false;
    q->rows[q->row_count++] = g->last;
    return true;
}

static bool gather(struct gathering *g, sqlite3_stmt *statement, bool *failed)
{
    const char *key = (const char *)sqlite3_column_text(statement, 0);
    int64_t begin = span_begin(&g->span, sqlite3_column_int64(statement, 1));
    if (!key) return true;
    if (!g->has_last || g->last.begin != begin || strcmp(g->last_key, key) != 0) {
        if (!finish_row(g, failed)) return false;
        g->last = (struct store_row){.begin = begin};
        g->has_last = true;
        snprintf(g->last_key, sizeof g->last_key, "%s", key);
    }
    g->last.up += column(statement, 2);
    g->last.down += column(statement, 3);
    g->last.connections += sqlite3_column_int64(statement, 4);
    g->last.refused += column(statement, 5);
    return true;
}

/* Rows that are not written, for the time of a question: the transaction is never committed, so that nothing has to
 * reach the disk. False: there is none. */
static bool begin_preview(struct store *s, const struct ledger *ledger)
{
    if (!ledger || ledger_rows(ledger) == 0) return false;
    sqlite3_busy_timeout(s->db, 0);
    bool begun = run(s, "BEGIN IMMEDIATE") == SQLITE_OK;
    sqlite3_busy_timeout(s->db, STORE_BUSY_MS);
    if (begun && ledger_each(ledger, write_row, s) == 0) return true;
    if (begun) roll_back(s);
    return false;
}

static int ask(struct store *s, struct store_query *query, char message[STORE_MESSAGE_SIZE])
{
    static const char one[] = "SELECT key, hour, up, down, connections, refused FROM usage"
                              " WHERE key = ?3 AND hour >= ?1 AND hour < ?2 ORDER BY key, hour";
    static const char all[] = "SELECT key, hour, up, down, connections, refused FROM usage"
                              " WHERE hour >= ?1 AND hour < ?2 ORDER BY key, hour";
    struct gathering g = {.query = query, .span.by = query->by};
    sqlite3_stmt *statement = NULL;
    bool failed = false, goes_on = true;
    int code = sqlite3_prepare_v2(s->db, query->key ? one : all, -1, &statement, NULL);
    if (code == SQLITE_OK) {
        sqlite3_bind_int64(statement, 1, query->from);
        sqlite3_bind_int64(statement, 2, query->to);
        if (query->key) sqlite3_bind_text(statement, 3, query->key, -1, SQLITE_STATIC);
        while (goes_on && (code = sqlite3_step(statement)) == SQLITE_ROW) goes_on = gather(&g, statement, &failed);
        if (goes_on && code == SQLITE_DONE) finish_row(&g, &failed);
    }
    int result = (goes_on && code != SQLITE_DONE) || failed ? fail(s, message) : 0;
    if (code == SQLITE_INTERRUPT)
        snprintf(message, STORE_MESSAGE_SIZE, "it takes longer than %d seconds; ask for one key, or for less time",
                 STORE_ASK_S);
    sqlite3_finalize(statement);
    return result;
}

int store_ask(struct store *store, const struct ledger *ledger, struct store_query *query,
              char message[STORE_MESSAGE_SIZE])
{
    bool preview = begin_preview(store, ledger);
    clock_gettime(CLOCK_MONOTONIC, &store->deadline);
    store->deadline.tv_sec += STORE_ASK_S;
    sqlite3_progress_handler(store->db, 10000, is_late, store);
    int result = ask(store, query, message);
    sqlite3_progress_handler(store->db, 0, NULL, NULL);
    if (preview) roll_back(store);
    return result;
}
