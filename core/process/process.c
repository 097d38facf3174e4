/* How a daemon starts:
 *
 *     started process ----fork----> session leader ----fork----> daemon
 *     waits on the pipe             exits at once                process_daemonize_ready() writes one report
 *
 * The daemon alone keeps the pipe's writing end: when it dies early, the waiting process reads the end of file. */
#include "core/process/process.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/io/log.h"
#include "core/io/privilege.h"

#define CAPABILITY_ADMIN    21 /* CAP_SYS_ADMIN; <linux/capability.h> would add nothing but the name */
#define CAPABILITY_RESOURCE 24 /* CAP_SYS_RESOURCE */

void process_open_standard(void)
{
    int fd;
    do fd = open("/dev/null", O_RDWR); /* the lowest number that is free */
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd > STDERR_FILENO) close(fd);
}

/* --- background --- */

/* Shorter than PIPE_BUF: written and read in one piece. */
struct report {
    int error;
    pid_t pid;
    char message[256];
};

static int report_fd = -1; /* the daemon's end of the pipe */

/* The waiting process: passes on what the daemon reports. */
static void await_report(int fd)
{
    struct report report;
    ssize_t n;

    do n = read(fd, &report, sizeof(report));
    while (n < 0 && errno == EINTR);
    if (n != (ssize_t)sizeof(report)) {
        fputs("sluice: the daemon ended before it was ready\n", stderr);
        _exit(EXIT_FAILURE);
    }
    if (report.error) {
        if (report.message[0]) fprintf(stderr, "sluice: %.*s\n", (int)sizeof(report.message), report.message);
        _exit(EXIT_FAILURE);
    }
    LOGI("daemon runs as process %ld", (long)report.pid);
    _exit(EXIT_SUCCESS);
}

static int redirect(int fd, int flags)
{
    int null = open("/dev/null", flags | O_CLOEXEC);

    if (null < 0) return -errno;
    int result = dup2(null, fd) < 0 ? -errno : 0;
    close(null);
    return result;
}

int process_daemonize_begin(void)
{
    int fds[2];

    assert(report_fd < 0);
    if (pipe2(fds, O_CLOEXEC) < 0) return -errno;
    pid_t leader = fork();
    if (leader < 0) {
        int error = errno;
        close(fds[0]);
        close(fds[1]);
        return -error;
    }
    if (leader > 0) {
        close(fds[1]);
        waitpid(leader, NULL, 0);
        await_report(fds[0]);
    }
    close(fds[0]);
    report_fd = fds[1];
    setsid(); /* cannot fail in a fresh child */
    pid_t daemon = fork();
    if (daemon > 0) _exit(EXIT_SUCCESS);
    if (daemon < 0) { /* only the waiting process may return to the terminal with the news */
        process_daemonize_ready(errno, "cannot fork the daemon, raise the limit of processes");
        _exit(EXIT_FAILURE);
    }
    return redirect(STDIN_FILENO, O_RDONLY);
}

void process_daemonize_ready(int error, const char *message)
{
    struct report report = {.error = error, .pid = getpid()};

    if (report_fd < 0) return;
    snprintf(report.message, sizeof(report.message), "%s", message ? message : "");
    if (!error) {
        log_open(LOG_TO_SYSLOG, log_level_now);
        redirect(STDOUT_FILENO, O_WRONLY);
        redirect(STDERR_FILENO, O_WRONLY);
    }
    /* A parent that was killed meanwhile is no reason to stop; SIGPIPE is ignored by main. */
    if (write(report_fd, &report, sizeof(report)) < 0) LOGW("nobody waits for the daemon any more");
    close(report_fd);
    report_fd = -1;
}

/* --- privileges --- */

static bool read_id(const char *text, uint32_t *out)
{
    uint64_t value = 0;

    if (!*text || strlen(text) > 10 || strspn(text, "0123456789") != strlen(text)) return false;
    for (; *text; text++) value = value * 10 + (uint64_t)(*text - '0');
    if (value >= UINT32_MAX) return false; /* -1 means "keep" to setresuid() */
    *out = (uint32_t)value;
    return true;
}

static const char *find_user(const char *name, bool with_group, struct process_identity *identity)
{
    uint32_t number;
    bool numeric = read_id(name, &number);
    const struct passwd *entry = numeric ? getpwuid(number) : getpwnam(name);

    if (!entry && !numeric) return "there is no such user";
    if (!entry && with_group) return "this user number has no primary group, give user:group";
    identity->has_user = true;
    identity->user = entry ? entry->pw_uid : number;
    identity->has_group = with_group;
    if (with_group) identity->group = entry->pw_gid;
    return NULL;
}

static const char *find_group(const char *name, struct process_identity *identity)
{
    uint32_t number;

    identity->has_group = true;
    if (read_id(name, &number)) {
        identity->group = number;
        return NULL;
    }
    const struct group *entry = getgrnam(name);
    if (!entry) return "there is no such group";
    identity->group = entry->gr_gid;
    return NULL;
}

const char *process_find_identity(const char *spec, struct process_identity *identity)
{
    char user[256];
    const char *colon = strchr(spec, ':'), *wrong = NULL;
    size_t user_size = colon ? (size_t)(colon - spec) : strlen(spec);

    *identity = (struct process_identity){0};
    if (user_size >= sizeof(user)) return "the user name is too long";
    memcpy(user, spec, user_size);
    user[user_size] = '\0';
    bool named_group = colon && colon[1];
    if (!user_size && !named_group) return "it names nobody, give user, user:, user:group or :group";
    if (user_size) wrong = find_user(user, colon && !named_group, identity);
    if (!wrong && named_group) wrong = find_group(colon + 1, identity);
    return wrong;
}

/* Groups first: once the user has changed, we may no longer change them. */
static int become(const struct process_identity *who)
{
    if (setgroups(0, NULL) < 0) {
        LOGE("cannot give up supplementary groups: %s; -u needs root", strerror(errno));
        return -1;
    }
    if (who->has_group && setresgid(who->group, who->group, who->group) < 0) {
        LOGE("cannot become group %lu: %s", (unsigned long)who->group, strerror(errno));
        return -1;
    }
    if (who->has_user && setresuid(who->user, who->user, who->user) < 0) {
        LOGE("cannot become user %lu: %s", (unsigned long)who->user, strerror(errno));
        return -1;
    }
    return 0;
}

int process_drop_privileges(const char *spec, bool marks)
{
    struct process_identity who;
    const char *wrong = process_find_identity(spec, &who);

    if (wrong) {
        LOGE("--user \"%s\": %s", spec, wrong);
        return -1;
    }
    bool leaves = who.has_user && who.user != 0;
    if (marks && leaves) privilege_keep(true);
    if (become(&who) < 0) return -1;
    if (marks && leaves) {
        (void)privilege_raise(); /* without it the first packet tells, or egress_options_check_rights() before */
        privilege_keep(false);
    }
    if (leaves && setresuid(0, 0, 0) == 0) {
        LOGE("--user \"%s\": root could be regained, refusing to run", spec);
        return -1;
    }
    if (leaves && getgid() == 0) LOGW("--user \"%s\" keeps group 0, give \"%s:\" for the user's own group", spec, spec);
    LOGI("running as user %lu, group %lu", (unsigned long)getuid(), (unsigned long)getgid());
    return 0;
}

void process_give_file(const char *spec, const char *path)
{
    struct process_identity who;

    if (!spec || process_find_identity(spec, &who)) return;
    if (lchown(path, who.has_user ? who.user : (uid_t)-1, who.has_group ? who.group : (gid_t)-1) < 0)
        LOGD("%s keeps its owner: %s", path, strerror(errno));
}

void process_remove_socket(const char *path)
{
    if (unlink(path) == 0 || errno == ENOENT) return;
    LOGW("the socket %s stays behind: %s; put it into a folder that the user of -u may write to", path,
         strerror(errno));
}

/* --- limits and CPUs --- */

uint64_t process_descriptors(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0) return 1024; /* cannot happen; the smallest usual value */
    return (uint64_t)limit.rlim_cur;
}

uint64_t process_raise_descriptors(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &limit) < 0) LOGW("cannot raise the limit of open files: %s", strerror(errno));
    }
    return process_descriptors();
}

/* The kernel asks for one of two capabilities (fs/pipe.c); being root is neither needed nor enough. */
bool process_is_privileged(void)
{
    char line[128];
    unsigned long long effective = 0;
    FILE *status = fopen("/proc/self/status", "re");

    if (!status) return false;
    while (fgets(line, sizeof(line), status))
        if (sscanf(line, "CapEff: %llx", &effective) == 1) break;
    fclose(status);
    return (effective >> CAPABILITY_RESOURCE | effective >> CAPABILITY_ADMIN) & 1;
}
