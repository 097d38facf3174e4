#include "core/control/users.h"

#include <crypt.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/io/hash.h"

/* A setting of the default's cost: for a store without any user whose hash could be tried. */
#define USERS_NOBODY "$y$j9T$........................"

struct user {
    const char *name, *hash, *groups, *limit; /* terminated, in `text`; empty: none */
    struct verify_digest verified;            /* of the password that was right last */
    bool has_verified;
    uint32_t line; /* of the file; 0: it came by another way */
    char text[];
};

/* Sorted by name. */
struct user_list {
    struct user **users;
    uint32_t count, room;
};

struct users {
    const char *path;
    const struct verifier *verifier;
    _Atomic uint32_t *era;
    void (*limit_changed)(void *context, const char *name, const struct limit_terms *terms);
    void *context;
    pthread_mutex_t lock;
    struct user_list list;
};

/* --- one user --- */

static char *append_text(char *at, const char **place, const char *text, size_t size)
{
    *place = at;
    memcpy(at, text, size);
    at[size] = '\0';
    return at + size + 1;
}

static struct user *user_make(const struct users_line *line, uint32_t number)
{
    size_t size = line->name.size + line->hash.size + line->groups.size + line->limit.size + 4;
    struct user *user = calloc(1, sizeof *user + size);
    if (!user) return NULL;
    user->line = number;
    char *at = append_text(user->text, &user->name, line->name.text, line->name.size);
    at = append_text(at, &user->hash, line->hash.text, line->hash.size);
    at = append_text(at, &user->groups, line->groups.text, line->groups.size);
    append_text(at, &user->limit, line->limit.text, line->limit.size);
    return user;
}

/* Its hash goes, too: memory that is given back shows nothing of it. */
static void user_free(struct user *user)
{
    if (!user) return;
    explicit_bzero((char *)(uintptr_t)user->hash, strlen(user->hash));
    explicit_bzero(&user->verified, sizeof user->verified);
    free(user);
}

static bool user_is_locked(const struct user *user)
{
    return users_hash_is_locked(user->hash, strlen(user->hash));
}

/* What has been verified of one holds for the other. */
static void user_inherit(struct user *heir, const struct user *from)
{
    if (strcmp(heir->name, from->name) != 0 || strcmp(heir->hash, from->hash) != 0) return;
    heir->verified = from->verified;
    heir->has_verified = from->has_verified;
}

/* --- lists of them --- */

static void list_free(struct user_list *list)
{
    for (uint32_t i = 0; i < list->count; i++) user_free(list->users[i]);
    free(list->users);
    *list = (struct user_list){0};
}

/* Where that name is, or would be. */
static uint32_t list_place(const struct user_list *list, const char *name, bool *found)
{
    uint32_t low = 0, high = list->count;
    *found = false;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        int order = strcmp(list->users[middle]->name, name);
        if (order == 0) *found = true;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct user *list_find(const struct user_list *list, const char *name)
{
    bool found;
    uint32_t place = list_place(list, name, &found);
    return found ? list->users[place] : NULL;
}

static bool list_make_room(struct user_list *list)
{
    if (list->count < list->room) return true;
    uint32_t room = list->room ? list->room * 2 : 64;
    struct user **users = reallocarray(list->users, room, sizeof(struct user *));
    if (!users) return false;
    list->users = users;
    list->room = room;
    return true;
}

static int compare_users(const void *a, const void *b)
{
    const struct user *const *left = a, *const *right = b;
    int order = strcmp((*left)->name, (*right)->name);
    return order != 0 ? order : (*left)->line < (*right)->line ? -1 : (*left)->line > (*right)->line;
}

/* --- the file --- */

static int open_file(const char *path, FILE **file, char *why, size_t size)
{
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO would hold us */
    if (fd < 0 || fstat(fd, &status) < 0) {
        snprintf(why, size, "%s: %s; let the user that sluice runs as read it", path, strerror(errno));
        if (fd >= 0) close(fd);
        return -1;
    }
    const char *wrong = !S_ISREG(status.st_mode)                    ? "it is no regular file"
                        : (uint64_t)status.st_size > USERS_FILE_MAX ? "it is larger than 256 MiB"
                                                                    : NULL;
    *file = wrong ? NULL : fdopen(fd, "r");
    if (*file) return 0;
    snprintf(why, size, "%s: %s", path, wrong ? wrong : strerror(errno));
    close(fd);
    return -1;
}

/* What stands on the line, checked by the library, too: whether this machine's knows that method. */
static const char *judge_line(const char *text, size_t size, struct users_line *line)
{
    char hash[USERS_SETTING_SIZE];
    const char *wrong = users_parse_line(text, size, line);
    if (wrong || line->name.size == 0 || users_hash_is_locked(line->hash.text, line->hash.size)) return wrong;
    snprintf(hash, sizeof hash, "%.*s", (int)line->hash.size, line->hash.text);
    int verdict = crypt_checksalt(hash);
    bool known = verdict != CRYPT_SALT_INVALID && verdict != CRYPT_SALT_METHOD_DISABLED;
    return known ? NULL : "this machine's crypt library does not know this hash";
}

static const char *read_line(struct user_list *list, const char *text, size_t size, uint32_t number)
{
    struct users_line line;
    const char *wrong = judge_line(text, size, &line);
    if (wrong || line.name.size == 0) return wrong;
    if (list->count == USERS_COUNT_MAX) return "there are more than 1000000 users";
    struct user *user = list_make_room(list) ? user_make(&line, number) : NULL;
    if (!user) return "there is no memory for so many users";
    list->users[list->count++] = user;
    return NULL;
}

static int find_twins(const struct user_list *list, const char *path, char *why, size_t size)
{
    for (uint32_t i = 1; i < list->count; i++) {
        const struct user *first = list->users[i - 1], *second = list->users[i];
        if (strcmp(first->name, second->name) != 0) continue;
        snprintf(why, size, "%s:%u: that user stands on line %u already, leave one of them out", path, second->line,
                 first->line);
        return -1;
    }
    return 0;
}

#define UTF8_MARK "\xef\xbb\xbf" /* what some editors put in front of a file */

static int read_lines(FILE *file, const char *path, struct user_list *list, char *why, size_t size)
{
    char *line = NULL;
    size_t room = 0;
    const char *wrong = NULL;
    uint32_t number = 0;
    for (ssize_t length; !wrong && (length = getline(&line, &room, file)) >= 0;) {
        size_t skip = ++number == 1 && strncmp(line, UTF8_MARK, 3) == 0 ? 3 : 0;
        size_t end = length > 0 && line[length - 1] == '\n';
        wrong = read_line(list, line + skip, (size_t)length - skip - end, number);
    }
    if (wrong)
        snprintf(why, size, "%s:%u: %s", path, number, wrong);
    else if (ferror(file))
        snprintf(why, size, "%s: %s", path, strerror(errno));
    int result = wrong || ferror(file) ? -1 : 0;
    free(line);
    return result;
}

static int read_file(const char *path, struct user_list *list, char *why, size_t size)
{
    FILE *file;
    *list = (struct user_list){0};
    if (open_file(path, &file, why, size) < 0) return -1;
    int error = read_lines(file, path, list, why, size);
    fclose(file);
    if (error == 0 && list->count > 1) qsort(list->users, list->count, sizeof(struct user *), compare_users);
    if (error == 0) error = find_twins(list, path, why, size);
    if (error < 0) list_free(list);
    return error;
}

int users_check(const char *path, char *why, size_t size)
{
    struct user_list list;
    int error = read_file(path, &list, why, size);
    if (error == 0) list_free(&list);
    return error;
}

/* Both are sorted. */
static void list_inherit(struct user_list *heirs, const struct user_list *from)
{
    uint32_t i = 0, j = 0;
    while (i < heirs->count && j < from->count) {
        int order = strcmp(heirs->users[i]->name, from->users[j]->name);
        if (order == 0) user_inherit(heirs->users[i], from->users[j]);
        i += order <= 0;
        j += order >= 0;
    }
}

/* From what a user's limit was to what it is; "": it has none. */
static void tell_limit(const struct users *users, const char *name, const char *before, const char *after)
{
    struct limit_terms terms;
    if (!users->limit_changed || strcmp(before, after) == 0) return;
    bool bounded = *after && limit_terms_parse(after, strlen(after), &terms) == NULL;
    users->limit_changed(users->context, name, bounded ? &terms : NULL);
}

static void tell_limits(const struct users *users, const struct user_list *old, const struct user_list *now)
{
    for (uint32_t i = 0; i < old->count; i++) {
        const struct user *user = old->users[i], *same = list_find(now, user->name);
        tell_limit(users, user->name, user->limit, same ? same->limit : "");
    }
    for (uint32_t i = 0; i < now->count; i++)
        if (!list_find(old, now->users[i]->name)) tell_limit(users, now->users[i]->name, "", now->users[i]->limit);
}

static void begin_era(struct users *users)
{
    atomic_fetch_add_explicit(users->era, 1, memory_order_release);
}

int users_load(struct users *users, char *why, size_t size)
{
    struct user_list fresh;
    if (read_file(users->path, &fresh, why, size) < 0) return -1;
    pthread_mutex_lock(&users->lock);
    struct user_list old = users->list;
    list_inherit(&fresh, &old);
    users->list = fresh;
    begin_era(users);
    pthread_mutex_unlock(&users->lock);
    tell_limits(users, &old, &users->list);
    list_free(&old);
    return 0;
}

/* --- opening, showing, changing --- */

int users_open(struct users **out, const char *path, const struct verifier *verifier, _Atomic uint32_t *era)
{
    struct users *users = calloc(1, sizeof *users);
    if (!users) return -ENOMEM;
    *users = (struct users){.path = path, .verifier = verifier, .era = era};
    pthread_mutex_init(&users->lock, NULL);
    *out = users;
    return 0;
}

void users_watch_limits(struct users *users,
                        void (*changed)(void *context, const char *name, const struct limit_terms *terms),
                        void *context)
{
    users->limit_changed = changed;
    users->context = context;
}

void users_close(struct users *users)
{
    if (!users) return;
    list_free(&users->list);
    pthread_mutex_destroy(&users->lock);
    free(users);
}

const char *users_path(const struct users *users)
{
    return users->path;
}

/* Only the coordinator changes the list: it may look without the lock. */
uint32_t users_count(const struct users *users)
{
    return users->list.count;
}

static void fill_row(const struct user *user, struct users_row *row)
{
    snprintf(row->name, sizeof row->name, "%s", user->name);
    snprintf(row->groups, sizeof row->groups, "%s", user->groups);
    row->locked = user_is_locked(user);
    row->has_limit = *user->limit && limit_terms_parse(user->limit, strlen(user->limit), &row->limit) == NULL;
}

bool users_find(struct users *users, const char *name, struct users_row *row)
{
    const struct user *user = list_find(&users->list, name);
    if (user) fill_row(user, row);
    return user != NULL;
}

bool users_next(struct users *users, const char *after, struct users_row *row)
{
    bool found = false;
    uint32_t place = after ? list_place(&users->list, after, &found) : 0;
    place += found;
    if (place >= users->list.count) return false;
    fill_row(users->list.users[place], row);
    return true;
}

static const char *judge_change(const struct user *old, const char *name, const struct users_change *change,
                                struct users_line *line)
{
    const char *hash = change->hash ? change->hash : old ? old->hash : "";
    const char *groups = change->groups ? change->groups : old ? old->groups : "";
    const char *limit = change->limit ? change->limit : old ? old->limit : "";
    char text[4 * USERS_LINE_MAX];
    *line = (struct users_line){
        {name, strlen(name)}, {hash, strlen(hash)}, {groups, strlen(groups)}, {limit, strlen(limit)}};
    const char *wrong = users_judge_name(name, line->name.size);
    if (!wrong) wrong = users_judge_hash(hash, line->hash.size);
    if (!wrong) wrong = users_judge_groups(groups, line->groups.size);
    if (!wrong) wrong = users_judge_limit(limit, line->limit.size);
    if (!wrong && strchr(hash, ':')) wrong = "a hash has no colon";
    if (wrong) return wrong;
    struct users_line again;
    int size = snprintf(text, sizeof text, "%s:%s:%s:%s", name, hash, groups, limit);
    wrong = size < (int)sizeof text ? judge_line(text, (size_t)size, &again) : "the line is longer than 2048 octets";
    explicit_bzero(text, sizeof text);
    return wrong;
}

const char *users_judge_change(const struct users *users, const char *name, const struct users_change *change,
                               bool follows, struct users_texts *texts)
{
    struct users_line line;
    struct users_change judged = *change;
    if (follows) judged.hash = "*";
    const char *wrong = judge_change(list_find(&users->list, name), name, &judged, &line);
    if (wrong) return wrong;
    snprintf(texts->hash, sizeof texts->hash, "%s", follows ? "" : line.hash.text);
    snprintf(texts->groups, sizeof texts->groups, "%s", line.groups.text);
    snprintf(texts->limit, sizeof texts->limit, "%s", line.limit.text);
    return NULL;
}

const char *users_put(struct users *users, const char *name, const struct users_change *change)
{
    struct users_line line;
    bool found;
    uint32_t place = list_place(&users->list, name, &found);
    struct user *old = found ? users->list.users[place] : NULL;
    const char *wrong = judge_change(old, name, change, &line);
    if (wrong) return wrong;
    if (!old && users->list.count == USERS_COUNT_MAX) return "there are 1000000 users already";
    struct user *fresh = user_make(&line, 0);
    if (!fresh) return "there is no memory for another user";
    pthread_mutex_lock(&users->lock);
    if (!old && !list_make_room(&users->list)) {
        pthread_mutex_unlock(&users->lock);
        user_free(fresh);
        return "there is no memory for another user";
    }
    struct user **at = users->list.users + place;
    if (old) {
        user_inherit(fresh, old);
    } else {
        memmove(at + 1, at, (users->list.count - place) * sizeof(struct user *));
        users->list.count++;
    }
    *at = fresh;
    begin_era(users);
    pthread_mutex_unlock(&users->lock);
    tell_limit(users, name, old ? old->limit : "", fresh->limit);
    user_free(old);
    return NULL;
}

bool users_remove(struct users *users, const char *name)
{
    bool found;
    uint32_t place = list_place(&users->list, name, &found);
    if (!found) return false;
    pthread_mutex_lock(&users->lock);
    struct user **at = users->list.users + place, *user = *at;
    users->list.count--;
    memmove(at, at + 1, (users->list.count - place) * sizeof(struct user *));
    begin_era(users);
    pthread_mutex_unlock(&users->lock);
    tell_limit(users, user->name, user->limit, "");
    user_free(user);
    return true;
}

/* --- asking --- */

/* Somebody whose hash takes as long as that of a user of that name would, whom there is not. */
static const char *hash_for_nobody(const struct users *users, const char *name)
{
    const struct user_list *list = &users->list;
    uint64_t chosen = hash_keyed(users->verifier->keys[0], name, strlen(name));
    for (uint32_t i = 0; i < list->count && i < 64; i++) {
        const struct user *user = list->users[(chosen + i) % list->count];
        if (!user_is_locked(user)) return user->hash;
    }
    return USERS_NOBODY;
}

static bool is_same_digest(const struct verify_digest *a, const struct verify_digest *b)
{
    return ((a->words[0] ^ b->words[0]) | (a->words[1] ^ b->words[1])) == 0;
}

enum users_answer users_ask(struct users *users, const struct credentials *credentials,
                            const struct verify_digest *digest, char setting[USERS_SETTING_SIZE], uint32_t *era)
{
    pthread_mutex_lock(&users->lock);
    const struct user *user = list_find(&users->list, credentials->user);
    bool locked = !user || user_is_locked(user);
    bool right = !locked && user->has_verified && is_same_digest(&user->verified, digest);
    *era = atomic_load_explicit(users->era, memory_order_relaxed);
    const char *hash = locked ? hash_for_nobody(users, credentials->user) : user->hash;
    if (!right) snprintf(setting, USERS_SETTING_SIZE, "%s", hash);
    pthread_mutex_unlock(&users->lock);
    return right ? USERS_RIGHT : USERS_HASH;
}

/* In a time that does not depend on where they differ. */
static bool is_same_hash(const char *a, const char *b)
{
    size_t size = strlen(a);
    unsigned char different = 0;
    if (strlen(b) != size) return false;
    for (size_t i = 0; i < size; i++) different |= (unsigned char)(a[i] ^ b[i]);
    return different == 0;
}

enum verify_result users_judge(struct users *users, const struct credentials *credentials,
                               const struct verify_digest *digest, const char *setting, const char *hash, uint32_t *era)
{
    enum verify_result result = VERIFY_WRONG;
    pthread_mutex_lock(&users->lock);
    struct user *user = list_find(&users->list, credentials->user);
    *era = atomic_load_explicit(users->era, memory_order_relaxed);
    if (!user || user_is_locked(user)) {
        result = VERIFY_UNKNOWN;
    } else if (strcmp(user->hash, setting) != 0) {
        result = VERIFY_STOPPED;
    } else if (is_same_hash(user->hash, hash)) {
        result = VERIFY_RIGHT;
        user->verified = *digest;
        user->has_verified = true;
    }
    pthread_mutex_unlock(&users->lock);
    return result;
}

const char *users_hash_password(const char *password, char out[USERS_SETTING_SIZE])
{
    char setting[CRYPT_GENSALT_OUTPUT_SIZE];
    const char *wrong = NULL;
    struct crypt_data *data = calloc(1, sizeof *data);
    if (!data) return "there is no memory for a hash";
    if (strlen(password) > CREDENTIALS_PART_MAX)
        wrong = "the password is longer than 255 octets, which is all that SOCKS5 can carry";
    else if (!*password)
        wrong = "the password is empty";
    else if (!crypt_gensalt_rn("$y$", 0, NULL, 0, setting, sizeof setting))
        wrong = "the crypt library has no salt for yescrypt";
    const char *hash = wrong ? NULL : crypt_r(password, setting, data);
    if (!wrong && (!hash || users_judge_hash(hash, strlen(hash)) != NULL))
        wrong = "the crypt library has made no hash of yescrypt";
    if (!wrong) snprintf(out, USERS_SETTING_SIZE, "%s", hash);
    explicit_bzero(data, sizeof *data);
    free(data);
    return wrong;
}
