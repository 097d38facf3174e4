#include "core/control/users_job.h"

#include <stdio.h>
#include <string.h>

#include "core/control/users_write.h"

/* What is empty at the end needs no colon. */
static bool write_line(const struct users_job *job, char line[USERS_LINE_MAX + 1])
{
    const struct users_texts *t = &job->texts;
    bool groups = *t->groups || *t->limit;
    int size = snprintf(line, USERS_LINE_MAX + 1, "%s:%s%s%s%s%s", job->name, t->hash, groups ? ":" : "", t->groups,
                        *t->limit ? ":" : "", t->limit);
    return size > 0 && (unsigned)size <= USERS_LINE_MAX;
}

static const char *hash(struct users_job *job)
{
    const char *wrong = users_hash_password(job->password, job->texts.hash);
    explicit_bzero(job->password, sizeof job->password);
    return wrong;
}

void users_job_run(struct users_job *job)
{
    char line[USERS_LINE_MAX + 1];
    const char *wrong = job->hashes ? hash(job) : NULL;
    if (!wrong && !job->removes && !write_line(job, line)) wrong = "the line is longer than 2048 octets";
    job->refused = wrong != NULL;
    snprintf(job->why, sizeof job->why, "%s", wrong ? wrong : "");
    if (!wrong && job->path) users_write(job->path, job->name, job->removes ? NULL : line, job->why, sizeof job->why);
    explicit_bzero(line, sizeof line);
}
