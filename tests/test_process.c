/* core/process/process: what the waiting parent of a daemon is told, whom -u means and that there is no way back,
 * limits and CPUs. All that changes the process happens in children. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/io/cpu.h"
#include "core/io/log.h"
#include "core/process/process.h"
#include "tests/support.h"

static char err[4096]; /* what the latest child wrote to stderr */

/* Runs body(context) in a child with stderr captured; returns its exit status. The body must not return to cmocka. */
static int in_child(int (*body)(void *context), void *context)
{
    int status, file = memfd_create("captured", MFD_CLOEXEC);

    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(file, STDERR_FILENO);
        log_open(LOG_TO_STDERR, LOG_LEVEL_INFO);
        _exit(body(context));
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    ssize_t n = pread(file, err, sizeof(err) - 1, 0);
    err[n > 0 ? n : 0] = '\0';
    close(file);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* --- background --- */

enum daemon_end { DAEMON_READY, DAEMON_FAILS, DAEMON_FAILS_WITHOUT_WORDS, DAEMON_DIES };

struct daemon {
    enum daemon_end end;
    int fd; /* the daemon's findings go to the test: one struct findings */
};

struct findings {
    pid_t pid, session, group;
    bool stdin_null, stderr_null;
};

static bool is_null(int fd)
{
    struct stat a, b;
    return fstat(fd, &a) == 0 && stat("/dev/null", &b) == 0 && S_ISCHR(a.st_mode) && a.st_rdev == b.st_rdev;
}

static int become_daemon(void *context)
{
    struct daemon *d = context;

    signal(SIGPIPE, SIG_IGN);
    if (process_daemonize_begin() < 0) return 99;
    if (d->end == DAEMON_DIES) return 7;
    if (d->end == DAEMON_FAILS) process_daemonize_ready(EADDRINUSE, "cannot listen on 127.0.0.1:1080");
    if (d->end == DAEMON_FAILS_WITHOUT_WORDS) process_daemonize_ready(-EADDRINUSE, NULL);
    if (d->end == DAEMON_READY) process_daemonize_ready(0, NULL);
    struct findings f = {.pid = getpid(), .session = getsid(0), .group = getpgid(0)};
    f.stdin_null = is_null(STDIN_FILENO);
    f.stderr_null = is_null(STDERR_FILENO);
    process_daemonize_ready(0, NULL); /* a second report goes nowhere and does no harm */
    return write(d->fd, &f, sizeof(f)) == (ssize_t)sizeof(f) ? 0 : 1;
}

/* The status of the process that was started; findings of the daemon unless it died. */
static int run_daemon(enum daemon_end end, struct findings *findings)
{
    int fds[2];

    assert_int_equal(pipe(fds), 0);
    struct daemon d = {.end = end, .fd = fds[1]};
    int status = in_child(become_daemon, &d);
    close(fds[1]);
    ssize_t n = read(fds[0], findings, sizeof(*findings));
    assert_int_equal(n, end == DAEMON_DIES ? 0 : (ssize_t)sizeof(*findings));
    close(fds[0]);
    return status;
}

static void test_daemon_is_ready(void **state)
{
    struct findings f;
    char pid[60];
    (void)state;
    assert_int_equal(run_daemon(DAEMON_READY, &f), EXIT_SUCCESS);
    assert_true(f.session != getsid(0));
    assert_true(f.session != f.pid); /* no session leader: it cannot get a terminal by accident */
    assert_int_equal(f.group, f.session);
    assert_true(f.stdin_null);
    assert_true(f.stderr_null);
    snprintf(pid, sizeof(pid), "daemon runs as process %ld\n", (long)f.pid);
    assert_non_null(strstr(err, pid));
}

static void test_daemon_fails(void **state)
{
    struct findings f;
    (void)state;
    assert_int_equal(run_daemon(DAEMON_FAILS, &f), EXIT_FAILURE);
    assert_string_equal(err, "sluice: cannot listen on 127.0.0.1:1080\n");
    assert_false(f.stderr_null);
    assert_int_equal(run_daemon(DAEMON_FAILS_WITHOUT_WORDS, &f), EXIT_FAILURE);
    assert_string_equal(err, ""); /* a log line has said it */
}

static void test_daemon_dies(void **state)
{
    struct findings f;
    (void)state;
    assert_int_equal(run_daemon(DAEMON_DIES, &f), EXIT_FAILURE);
    assert_string_equal(err, "sluice: the daemon ended before it was ready\n");
}

static int report_in_the_foreground(void *context)
{
    (void)context;
    process_daemonize_ready(0, NULL);
    if (is_null(STDERR_FILENO)) return 1;
    process_daemonize_ready(EINVAL, "nobody waits for this");
    LOGN("still here");
    return 0;
}

static void test_ready_in_the_foreground(void **state)
{
    (void)state;
    assert_int_equal(in_child(report_in_the_foreground, NULL), 0);
    assert_non_null(strstr(err, "still here\n"));
    assert_null(strstr(err, "nobody waits"));
}

/* --- privileges --- */

static void finds(const char *spec, bool has_user, uid_t user, bool has_group, gid_t group)
{
    struct process_identity who;
    const char *wrong = process_find_identity(spec, &who);
    if (wrong) fail_msg("\"%s\": %s", spec, wrong);
    assert_int_equal(who.has_user, has_user);
    assert_int_equal(who.has_group, has_group);
    if (has_user) assert_int_equal(who.user, user);
    if (has_group) assert_int_equal(who.group, group);
}

static void test_identities(void **state)
{
    static const char *const bad[] = {"",
                                      ":",
                                      "no-such-user",
                                      "no-such-user:",
                                      ":no-such-group",
                                      "root:no-such-group",
                                      "-1",
                                      "4294967295",
                                      "4294967290:",
                                      "root:root:root",
                                      "0x0",
                                      " 0"};
    struct process_identity who;
    const struct passwd *nobody = getpwnam("nobody");
    (void)state;
    assert_non_null(nobody);
    uid_t uid = nobody->pw_uid;
    gid_t gid = nobody->pw_gid;
    finds("root", true, 0, false, 0);
    finds("root:", true, 0, true, 0);
    finds("0", true, 0, false, 0);
    finds("0:0", true, 0, true, 0);
    finds(":0", false, 0, true, 0);
    finds(":root", false, 0, true, 0);
    finds("nobody", true, uid, false, 0);
    finds("nobody:", true, uid, true, gid);
    finds("nobody:root", true, uid, true, 0);
    finds("4294967290", true, 4294967290u, false, 0); /* numbers need no entry */
    finds("4294967290:4294967291", true, 4294967290u, true, 4294967291u);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (!process_find_identity(bad[i], &who)) fail_msg("\"%s\" was accepted", bad[i]);
    char name[400];
    memset(name, 'x', sizeof(name));
    name[sizeof(name) - 1] = '\0';
    assert_non_null(process_find_identity(name, &who));
}

/* 0 when the process is nobody for good, otherwise the number of the first check that failed. */
static int drop_to_nobody(void *context)
{
    const struct passwd *nobody = getpwnam("nobody");
    uid_t real, effective, saved;
    gid_t group = nobody->pw_gid;
    uid_t user = nobody->pw_uid;
    gid_t some = 5;

    (void)context;
    if (setgroups(1, &some) < 0) return 1;
    if (process_drop_privileges("nobody:", false) != 0) return 2;
    if (getresuid(&real, &effective, &saved) < 0 || real != user || effective != user || saved != user) return 3;
    if (getresgid(&real, &effective, &saved) < 0 || real != group || effective != group || saved != group) return 4;
    if (getgroups(0, NULL) != 0) return 5;
    if (setuid(0) == 0 || setgid(0) == 0 || seteuid(0) == 0) return 6;
    return process_is_privileged() ? 7 : 0;
}

static int drop_user_only(void *context)
{
    (void)context;
    return process_drop_privileges("nobody", false) == 0 && getuid() != 0 && getgid() == 0 ? 0 : 1;
}

static int drop_group_only(void *context)
{
    (void)context;
    return process_drop_privileges(":5", false) == 0 && getuid() == 0 && getgid() == 5 ? 0 : 1;
}

static int drop_without_right(void *context)
{
    (void)context;
    if (setresuid(12345, 12345, 12345) < 0) return 9;
    return process_drop_privileges("nobody:", false) == -1 ? 0 : 1;
}

static int drop_to_unknown(void *context)
{
    (void)context;
    return process_drop_privileges("no-such-user", false) == -1 && getuid() == 0 ? 0 : 1;
}

static void test_privileges(void **state)
{
    (void)state;
    if (getuid() != 0) skip();
    assert_int_equal(in_child(drop_to_nobody, NULL), 0);
    assert_null(strstr(err, "W "));
    assert_int_equal(in_child(drop_user_only, NULL), 0);
    assert_non_null(strstr(err, "keeps group 0, give \"nobody:\""));
    assert_int_equal(in_child(drop_group_only, NULL), 0);
    assert_int_equal(in_child(drop_without_right, NULL), 0);
    assert_non_null(strstr(err, "cannot give up supplementary groups"));
    assert_int_equal(in_child(drop_to_unknown, NULL), 0);
    assert_non_null(strstr(err, "--user \"no-such-user\": there is no such user\n"));
}

/* With the capability that `context` names and no other: either of two is what the kernel asks for. In a user namespace
 * of its own a process has all of them to choose from. */
static int is_privileged_with(void *context)
{
    unsigned capability = *(const unsigned *)context;
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {{0}};
    data[capability / 32].effective = data[capability / 32].permitted = UINT32_C(1) << capability % 32;
    if (unshare(CLONE_NEWUSER) < 0) return 2;
    if (syscall(SYS_capset, &header, data) < 0) return 3;
    return process_is_privileged() ? 1 : 0;
}

static void test_capabilities(void **state)
{
    (void)state;
    for (unsigned capability = 0; capability <= CAP_SYSLOG; capability++) {
        int answer = in_child(is_privileged_with, &capability);
        if (answer == 2) skip(); /* no namespaces here */
        assert_int_equal(answer, capability == CAP_SYS_ADMIN || capability == CAP_SYS_RESOURCE);
    }
}

/* --- limits and CPUs --- */

static int raise_descriptors(void *context)
{
    struct rlimit limit = {.rlim_cur = 100, .rlim_max = 200};
    (void)context;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0) return 1;
    if (process_descriptors() != 100) return 2;
    if (process_raise_descriptors() != 200) return 3;
    return process_descriptors() == 200 ? 0 : 4;
}

static void test_descriptors(void **state)
{
    (void)state;
    assert_int_equal(in_child(raise_descriptors, NULL), 0);
    assert_string_equal(err, "");
}

/* Pins itself to each allowed CPU in turn; the last one is then the only one. */
static int pin_in_turn(void *context)
{
    int cpus[4096], count = cpu_list_allowed(cpus, 4096), one[2];
    (void)context;
    if (count < 1 || count != sysconf(_SC_NPROCESSORS_ONLN)) {
        cpu_set_t set; /* fewer than are online is fine when the mask says so */
        if (sched_getaffinity(0, sizeof(set), &set) < 0 || count != CPU_COUNT(&set)) return 1;
    }
    if (cpu_list_allowed(one, 1) != 1 || one[0] != cpus[0]) return 2;
    for (int i = 0; i < count; i++) {
        if (cpu_pin_thread(cpus[i]) != 0) return 3;
        if (sched_getcpu() != cpus[i]) return 4;
    }
    if (cpu_list_allowed(one, 2) != 1 || one[0] != cpus[count - 1]) return 5;
    return cpu_pin_thread(4095) == -EINVAL ? 0 : 6; /* there is no such CPU here */
}

static void test_affinity(void **state)
{
    (void)state;
    assert_int_equal(in_child(pin_in_turn, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_daemon_is_ready), cmocka_unit_test(test_daemon_fails),
        cmocka_unit_test(test_daemon_dies),     cmocka_unit_test(test_ready_in_the_foreground),
        cmocka_unit_test(test_identities),      cmocka_unit_test(test_privileges),
        cmocka_unit_test(test_capabilities),    cmocka_unit_test(test_descriptors),
        cmocka_unit_test(test_affinity),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
