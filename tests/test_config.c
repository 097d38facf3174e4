/* core/process/options, option_*, config_check and config_dump: each option in both spellings, each fault with its one
 * line, pairing of listeners, the table, the dump, the help, and the sums behind the pool sizes. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/io/cpu.h"
#include "core/io/log.h"
#include "core/process/config_check.h"
#include "core/process/config_size.h"
#include "core/process/option_table.h"
#include "core/process/options.h"
#include "core/process/process.h"
#include "core/resolver/resolve.h"
#include "core/session/config.h"
#include "core/session/policy.h"
#include "tests/support.h"

#define WORDS_MAX 80

/* What one run of config_parse() left behind. */
static struct config config;
static char out[16384], err[4096];

static int redirect(int fd, FILE *stream, int *saved)
{
    int file = memfd_create("captured", MFD_CLOEXEC);
    assert_true(file >= 0);
    fflush(stream);
    *saved = dup(fd);
    assert_true(dup2(file, fd) == fd);
    return file;
}

static void restore(int fd, FILE *stream, int saved, int file, char *text, size_t size)
{
    fflush(stream);
    dup2(saved, fd);
    close(saved);
    ssize_t n = pread(file, text, size - 1, 0);
    assert_true(n >= 0);
    text[n] = '\0';
    close(file);
}

/* Runs `line`, words separated by one blank ('' is an empty word); with check, config_check() too. */
static enum config_action run(const char *line, bool check)
{
    static char words[2048];
    char *argv[WORDS_MAX + 1] = {"sluice"};
    int argc = 1, saved_out, saved_err;

    assert_true(strlen(line) < sizeof(words));
    strcpy(words, line);
    for (char *word = words, *end; *word; word = end) {
        end = word + strcspn(word, " ");
        if (*end) *end++ = '\0';
        assert_true(argc < WORDS_MAX);
        argv[argc++] = strcmp(word, "''") == 0 ? "" : word;
    }
    log_open(LOG_TO_STDERR, LOG_LEVEL_NOTICE);
    config_defaults(&config);
    int file_out = redirect(STDOUT_FILENO, stdout, &saved_out);
    int file_err = redirect(STDERR_FILENO, stderr, &saved_err);
    enum config_action action = config_parse(&config, argc, argv);
    if (check && action == CONFIG_RUN && config_check(&config) < 0) action = CONFIG_EXIT_FAILURE;
    if (check && action == CONFIG_RUN) config_warn_open(&config);
    restore(STDERR_FILENO, stderr, saved_err, file_err, err, sizeof(err));
    restore(STDOUT_FILENO, stdout, saved_out, file_out, out, sizeof(out));
    return action;
}

static void accepts(const char *line)
{
    if (run(line, false) != CONFIG_RUN) fail_msg("\"%s\" was refused: %s", line, err);
    assert_string_equal(out, "");
}

static int count_lines(const char *text)
{
    int lines = 0;
    for (; *text; text++) lines += *text == '\n';
    return lines;
}

/* Exactly one line on stderr, nothing on stdout, and the line holds `part`. */
static void refuses(const char *line, const char *part)
{
    if (run(line, true) != CONFIG_EXIT_FAILURE) fail_msg("\"%s\" was accepted", line);
    if (!strstr(err, part)) fail_msg("\"%s\" said: %s instead of: %s", line, err, part);
    if (count_lines(err) != 1) fail_msg("\"%s\" said more than a line: %s", line, err);
    assert_string_equal(out, "");
}

/* --- single options --- */

static void test_defaults(void **state)
{
    (void)state;
    accepts("-l 127.0.0.1:1");
    assert_int_equal(config.listener_count, 1);
    assert_int_equal(config.listeners[0].kind, LISTENER_AUTO);
    assert_int_equal(config.family, AF_UNSPEC);
    assert_int_equal(config.timeout_ms, 60000);
    assert_int_equal(config.idle_timeout_ms, 7440000);
    assert_int_equal(config.half_close_timeout_ms, 3600000);
    assert_int_equal(config.drain_ms, 0);
    assert_int_equal(config.startup_start, 0);
    assert_int_equal(config.startup_rate, 30);
    assert_int_equal(config.startup_full, 0);
    assert_int_equal(config.max_sessions, 0);
    assert_int_equal(config.blocked, POLICY_MULTICAST);
    assert_int_equal(config.workers, 0);
    assert_int_equal(config.relay, RELAY_AUTO);
    assert_int_equal(config.log_level, LOG_LEVEL_NOTICE);
    assert_int_equal(config.log_target, LOG_TO_STDERR);
    assert_true(config.fastopen);
    assert_false(config.fastopen_connect || config.tproxy || config.daemonize || config.reuseport || config.pipe);
    assert_false(config.socks5_bind || config.socks5_udp);
    assert_null(config.user);
    assert_null(config.netdev);
    assert_null(config.nameservers);
    assert_null(config.proxy_text);
}

static void test_flags(void **state)
{
    (void)state;
    accepts("--tproxy --reuseport --pipe --no-fastopen --fastopen-connect -d --enable-socks5-bind --enable-socks5-udp");
    assert_true(config.tproxy && config.reuseport && config.pipe && config.fastopen_connect && config.daemonize);
    assert_true(config.socks5_bind && config.socks5_udp);
    assert_false(config.fastopen);
    accepts("--daemonize -4");
    assert_true(config.daemonize);
    assert_int_equal(config.family, AF_INET);
    accepts("-6 -6");
    assert_int_equal(config.family, AF_INET6);
    refuses("-l 127.0.0.1:1 -4 -6", "-6: -4 and -6 exclude each other");
    refuses("-l 127.0.0.1:1 -6 -4", "-4: -4 and -6 exclude each other");
}

static void test_operands(void **state)
{
    static const char *const spellings[] = {
        "-t 7.5 -m 9 --max-startups 1:2:3 --workers 5 --relay copy --log stdout --loglevel 8 -u nobody: -i lo",
        "--timeout 7.5 --max-sessions 9 --max-startups=1:2:3 --workers=5 --relay=copy --log=stdout --loglevel=8 "
        "--user=nobody: --netdev=lo",
    };
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        accepts(spellings[i]);
        assert_int_equal(config.timeout_ms, 7500);
        assert_int_equal(config.max_sessions, 9);
        assert_int_equal(config.startup_start, 1);
        assert_int_equal(config.startup_rate, 2);
        assert_int_equal(config.startup_full, 3);
        assert_int_equal(config.workers, 5);
        assert_int_equal(config.relay, RELAY_COPY);
        assert_int_equal(config.log_target, LOG_TO_STDOUT);
        assert_int_equal(config.log_level, LOG_LEVEL_VERY_VERBOSE);
        assert_int_equal(log_level_now, LOG_LEVEL_VERY_VERBOSE);
        assert_string_equal(config.user, "nobody:");
        assert_string_equal(config.netdev, "lo");
    }
}

static void test_last_occurrence_wins(void **state)
{
    (void)state;
    accepts("-t 10 --relay copy --workers 3 -x socks5://a,socks5://b --block-outbound global --timeout=20 "
            "--relay=splice --workers auto -x http://c --block-outbound loopback,local");
    assert_int_equal(config.timeout_ms, 20000);
    assert_int_equal(config.relay, RELAY_SPLICE);
    assert_int_equal(config.workers, 0);
    assert_int_equal(config.hop_count, 1);
    assert_int_equal(config.hops[0].scheme, PROXY_HTTP);
    assert_int_equal(config.blocked, POLICY_LOOPBACK | POLICY_LOCAL);
    accepts("--block-outbound ''");
    assert_int_equal(config.blocked, 0);
}

static void test_seconds(void **state)
{
    (void)state;
    accepts("-t 5 --idle-timeout 0.0001 --drain 2.3");
    assert_int_equal(config.timeout_ms, 5000);
    assert_int_equal(config.idle_timeout_ms, 1); /* not 0, which is "never" */
    assert_int_equal(config.drain_ms, 2300);
    accepts("-t 86400 --idle-timeout 2592000 --drain 86400");
    assert_int_equal(config.timeout_ms, 86400000);
    assert_int_equal(config.idle_timeout_ms, 2592000000u);
    refuses("--timeout 4", "sluice: --timeout: \"4\" is out of range, give 5 to 86400 seconds");
    refuses("--timeout=4.999", "sluice: --timeout: \"4.999\" is out of range");
    refuses("-t 86400.1", "sluice: -t: \"86400.1\" is out of range");
    refuses("-t nan", "sluice: -t: \"nan\" is not a number, give 5 to 86400 seconds");
    refuses("-t inf", "out of range");
    refuses("-t ''", "\"\" is not a number");
    refuses("-t 5s", "\"5s\" is not a number");
    refuses("--idle-timeout -1", "--idle-timeout: \"-1\" is out of range, give 0 to 2592000 seconds");
    refuses("--drain x", "--drain: \"x\" is not a number");
}

static void test_socket_buffer(void **state)
{
    (void)state;
    accepts("--socket-buffer 65536");
    assert_int_equal(config.tcp_sndbuf, 65536);
    assert_int_equal(config.tcp_rcvbuf, 65536);
    accepts("--socket-buffer=1024M");
    assert_int_equal(config.tcp_rcvbuf, 1 << 30);
    refuses("--socket-buffer 15K", "--socket-buffer: \"15K\" is out of range, give 16K to 1024M");
    refuses("--socket-buffer 1025M", "out of range");
    refuses("--socket-buffer 999999999999999M", "out of range");
    refuses("--socket-buffer K", "--socket-buffer: \"K\" is no size, give 16K to 1024M");
    refuses("--socket-buffer 64k", "\"64k\" is no size");
    refuses("--socket-buffer ''", "\"\" is no size");
}

static void test_numbers(void **state)
{
    (void)state;
    refuses("--loglevel 9", "--loglevel: \"9\" is out of range, give 0 to 8");
    refuses("--loglevel -1", "\"-1\" is not a number");
    refuses("--loglevel 4x", "\"4x\" is not a number");
    refuses("-m 100000001", "out of range");
    refuses("-m 18446744073709551617", "not a number");
    refuses("--workers 0", "--workers: \"0\" is out of range, give 1 to 256, or auto");
    refuses("--workers 257", "out of range");
    refuses("--workers many", "not a number");
    refuses("--max-startups 1:2", "give start:rate:full");
    refuses("--max-startups 1:2:3:4", "give start:rate:full");
    refuses("--max-startups 1::3", "give start:rate:full");
    refuses("--max-startups ''", "give start:rate:full");
    refuses("--max-startups 1:101:3", "rate \"101\" is out of range, give 0 to 100");
    refuses("--max-startups 1:2:99999999999", "give start:rate:full");
}

static void test_words(void **state)
{
    (void)state;
    refuses("--bogus", "sluice: \"--bogus\" is no option, \"sluice --help\" lists all");
    refuses("file", "\"file\" is no option");
    refuses("''", "\"\" is no option");
    refuses("-", "\"-\" is no option");
    refuses("-l:1", "\"-l:1\" is no option");
    refuses("--tim 5", "\"--tim\" is no option");
    refuses("-l", "sluice: -l: the operand is missing, give ADDRESS");
    refuses("--timeout", "--timeout: the operand is missing, give SECONDS");
    refuses("--pipe=1", "--pipe: takes no value");
    refuses("--relay fast", "--relay: \"fast\" is unknown, give one of auto, splice, copy");
    refuses("--log file", "give one of stderr, stdout, terminal, syslog, discard");
    refuses("--block-outbound local,world", "\"world\" is unknown");
    refuses("-u ''", "give user, user:, user:group or :group");
    refuses("-u :", "give user, user:, user:group or :group");
    refuses("-i interface-number1", "give 1 to 15 characters");
    refuses("-i ''", "give 1 to 15 characters");
}

static void test_end_of_options(void **state)
{
    (void)state;
    accepts("-l 127.0.0.1:1 -- --bogus -t 4");
    assert_int_equal(config.timeout_ms, 60000);
}

static void test_scripts_and_api(void **state)
{
    (void)state;
    accepts("-l 127.0.0.1:1 -r rules.lua --traceback --memlimit 7 --lua-budget 250 --auth-required");
    assert_string_equal(config.ruleset, "rules.lua");
    assert_null(config.boot);
    assert_true(config.traceback && config.auth_required);
    assert_int_equal(config.memlimit_mib, 7);
    assert_int_equal(config.lua_budget_ms, 250);
    accepts("-c - --api :9080 --api-token-file t --memlimit -1");
    assert_string_equal(config.boot, "-");
    assert_string_equal(config.api_text, ":9080");
    assert_string_equal(config.api_token_file, "t");
    assert_int_equal(config.memlimit_mib, 0);
    assert_int_equal(run("--api 127.0.0.1:9080", true), CONFIG_RUN);
    assert_int_equal(config.api.port, 9080);
    assert_int_equal(run("--api unix:/tmp/a", true), CONFIG_RUN);
    assert_int_equal(config.api.kind, ADDRESS_UNIX);
    assert_int_equal(run("--script one.lua --script - --script=one.lua", true), CONFIG_RUN); /* no listener is needed */
    assert_int_equal(config.script_count, 3);
    assert_string_equal(config.scripts[0], "one.lua");
    assert_string_equal(config.scripts[1], "-");
    assert_int_equal(run("--check --script one.lua", false), CONFIG_RUN); /* main looks at the file */
    refuses("--script ''", "the operand is empty, give FILE");
}

static void test_scripts_and_api_refused(void **state)
{
    static char many[CONFIG_SCRIPTS_MAX * 11 + 12];
    (void)state;
    for (unsigned i = 0; i <= CONFIG_SCRIPTS_MAX; i++) strcat(many, "--script=x ");
    refuses(many, "--script: too many scripts, give at most 64");
    refuses("--memlimit 2097152", "out of range");
    refuses("--memlimit -x", "is not a number");
    refuses("--lua-budget 5", "out of range, give 10 to 60000");
    refuses("-r ''", "the operand is empty, give FILE");
    refuses("--api 1", "has no port");
    refuses("--api :99999", "out of range");
    refuses("-l 127.0.0.1:1 -r a -c b", "--ruleset and --config exclude each other");
    refuses("-l 127.0.0.1:1 --auth-required", "authentication requires a ruleset");
    refuses("-l 127.0.0.1:1 -f a:1 -r x --auth-required", "forwarded and transparent clients cannot authenticate");
    refuses("-l 127.0.0.1:1 -f unix:/x -x socks5://192.0.2.1:1",
            "--forward unix:/x: no proxy can connect to a Unix socket");
    refuses("-l 127.0.0.1:1 -f unix:/x -r y -x http://a", "--forward unix:/x: no proxy can connect to a Unix socket");
    refuses("-l 127.0.0.1:1 -r x --enable-socks5-udp", "--enable-socks5-udp cannot be decided by a ruleset");
    refuses("-l 127.0.0.1:1 --api 127.0.0.1:1", "--api and listener \"127.0.0.1:1\" are the same address");
}

/* As far as addresses tell. */
static void test_circles(void **state)
{
    (void)state;
    refuses("-l 127.0.0.1:9 -x socks5://127.0.0.1:9",
            "--proxy: socks5://127.0.0.1:9 is listener \"127.0.0.1:9\" of this");
    refuses("-l :9 -r x -x http://localhost:9,socks5://a", "--proxy: http://localhost:9 is listener \":9\" of this");
    refuses("-l 127.0.0.1:8 -l 0.0.0.0:9 -x socks5://[::ffff:127.1.2.3]:9", "is listener \"0.0.0.0:9\" of this");
    refuses("-l 127.0.0.1:8 -l 127.0.0.1:9 -f a:1 -x socks5://127.0.0.1:9", "is listener \"127.0.0.1:9\" of this");
    refuses("-l 127.0.0.1:9 -f 127.0.0.1:9", "what listener \"127.0.0.1:9\" takes would come back to it");
    refuses("-l 127.0.0.1:9 -f localhost:9", "what listener \"127.0.0.1:9\" takes would come back to it");
    refuses("-l unix:/x -f unix:/x", "what listener \"unix:/x\" takes would come back to it");
    assert_int_equal(run("-l 127.0.0.1:9 -x socks5://127.0.0.1:8,socks5://127.0.0.1:9", true), CONFIG_RUN);
    assert_int_equal(run("-l 127.0.0.1:9 -f 127.0.0.1:8 -l 127.0.0.1:8", true), CONFIG_RUN);
    assert_int_equal(run("-l 127.0.0.1:9 -x socks5://127.0.0.2:9", true), CONFIG_RUN);
}

/* What is open, and how to close it, in one line. */
static void test_open_listeners(void **state)
{
    (void)state;
    assert_int_equal(run("-l :9 -l :8", true), CONFIG_RUN);
    assert_int_equal(count_lines(err), 1);
    assert_non_null(strstr(err, "listener \":9\": whoever reaches it may use the proxy"));
    assert_non_null(strstr(err, "--block-outbound loopback,multicast,local"));
    static const char *const closed[] = {"-l 127.0.0.1:9",
                                         "-l unix:/x",
                                         "-l :9 --block-outbound local",
                                         "-l :9 -f a:1",
                                         "-l :9 -r x --auth-required",
                                         "-l :9 --block-outbound ''"};
    for (size_t i = 0; i < sizeof closed / sizeof *closed; i++) {
        assert_int_equal(run(closed[i], true), CONFIG_RUN);
        assert_string_equal(err, "");
    }
}

static void test_api_wants_a_token(void **state)
{
    (void)state;
    for (const char *const *open = (const char *const[]){"0.0.0.0:9080", ":9080", "[::]:9080", "192.0.2.1:9080", NULL};
         *open; open++) {
        char line[64];
        snprintf(line, sizeof line, "--api %s", *open);
        refuses(line, "give --api-token-file, or a loopback address or unix:/path");
        snprintf(line, sizeof line, "--dump-config --api %s", *open);
        refuses(line, "give --api-token-file");
        snprintf(line, sizeof line, "--api-token-file t --api %s", *open);
        assert_int_equal(run(line, true), CONFIG_RUN);
    }
}

static void test_forward_left_to_a_ruleset(void **state)
{
    (void)state;
    accepts("-l 127.0.0.1:1 -f : -r x");
    assert_int_equal(config.listeners[0].kind, LISTENER_FORWARD);
    assert_int_equal(config.listeners[0].forward.kind, ADDRESS_NONE);
    refuses("-l 127.0.0.1:1 -f :", "a target that is left to a ruleset needs one");
    for (const char *const *host = (const char *const[]){"192.0.2.1:0", "192.0.2.1:", "name:0", "[::1]:", NULL}; *host;
         host++) {
        char line[64];
        snprintf(line, sizeof line, "-l 127.0.0.1:1 -f %s -r x", *host);
        accepts(line);
        assert_int_equal(config.listeners[0].forward.port, 0);
        snprintf(line, sizeof line, "-l 127.0.0.1:1 -f %s", *host);
        refuses(line, "a target that is left to a ruleset needs one");
    }
}

/* Any port that is free: two that ask for it are no twins. */
static void test_port_zero(void **state)
{
    (void)state;
    accepts("-l 127.0.0.1:0 -l 127.0.0.1:0 --http 127.0.0.1:0 --api 127.0.0.1:0");
    assert_int_equal(config.listener_count, 3);
    assert_int_equal(config.listeners[0].address.port, 0);
    refuses("-l 127.0.0.1:1 -l 127.0.0.1:1", "are the same address");
}

static void test_words_from_elsewhere(void **state)
{
    char *words[] = {"", "--proxy", "socks5://192.0.2.1", "-t", "7", NULL};
    char *wrong[] = {"", "-t", "1", NULL};
    (void)state;
    config_defaults(&config);
    char why[200];
    assert_int_equal(config_read(&config, 5, words, why, sizeof why), 0);
    assert_int_equal(config.hop_count, 1);
    assert_int_equal(config.timeout_ms, 7000);
    int saved, file = redirect(STDERR_FILENO, stderr, &saved);
    int result = config_read(&config, 3, wrong, why, sizeof why);
    restore(STDERR_FILENO, stderr, saved, file, err, sizeof(err));
    assert_int_equal(result, -1);
    assert_string_equal(err, "");
    assert_string_equal(why, "-t: \"1\" is out of range, give 5 to 86400 seconds");
}

static void test_obsolete_options_warn(void **state)
{
    (void)state;
    accepts("--proto-timeout --bidir-timeout --no-conn-cache -C --color -v -s");
    assert_int_equal(count_lines(err), 7);
    assert_non_null(strstr(err, "sluice: -C: obsolete, ignored"));
    accepts("--ingress");
    assert_int_equal(config.blocked, POLICY_MULTICAST | POLICY_GLOBAL);
    assert_non_null(strstr(err, "--ingress: obsolete, taken as --block-outbound global"));
    accepts("--egress");
    assert_int_equal(config.blocked, POLICY_MULTICAST | POLICY_LOCAL);
    assert_int_equal(count_lines(err), 1);
}

static void test_name_servers(void **state)
{
    static const char *const good[] = {"1.2.3.4", "1.2.3.4:53", "::1",
                                       "[::1]",   "[::1]:5353", "1.1.1.1,[2001:db8::1]:1,::2"};
    static const char *const bad[] = {"''",
                                      "dns.example",
                                      "1.2.3.4:",
                                      "1.2.3.4:0",
                                      "1.2.3.4:65536",
                                      "1.2.3.4:x",
                                      "[::1",
                                      "[::1]x",
                                      "[::1]:",
                                      "[1.2.3.4]",
                                      "::1]",
                                      "1.1.1.1,",
                                      ",1.1.1.1",
                                      "[",
                                      "]",
                                      "[]",
                                      ":53",
                                      "1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa:bbbb:cccc:dddd:eeee"};
    char line[200];
    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        snprintf(line, sizeof(line), "--nameserver %s", good[i]);
        accepts(line);
        assert_string_equal(config.nameservers, good[i]);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        snprintf(line, sizeof(line), "--nameserver %s", bad[i]);
        refuses(line, "--nameserver: \"");
    }
}

static void test_chains(void **state)
{
    (void)state;
    accepts("-x socks5://user:pass@one:1,socks4a://two,HTTP://[::1]:3");
    assert_int_equal(config.hop_count, 3);
    assert_int_equal(config.hops[0].scheme, PROXY_SOCKS5);
    assert_int_equal(config.hops[1].address.port, 1080);
    assert_int_equal(config.hops[2].address.kind, ADDRESS_IPV6);
    assert_string_equal(config.proxy_text, "socks5://user:pass@one:1,socks4a://two,HTTP://[::1]:3");
    refuses("-x socks5://a,", "proxy 2: ");
    refuses("-x ''", "proxy 1: ");
    refuses("-x socks5://a,gopher://u:secret@b", "-x: proxy 2: ");
    assert_null(strstr(err, "secret"));
    accepts("-x socks5://1,socks5://2,socks5://3,socks5://4,socks5://5,socks5://6,socks5://7,socks5://8");
    refuses("-x socks5://1,socks5://2,socks5://3,socks5://4,socks5://5,socks5://6,socks5://7,socks5://8,socks5://9",
            "give at most 8");
}

/* --- listeners --- */

/* "kind>forward" of all listeners, such as "auto forward>[host:22]". */
static const char *describe_listeners(void)
{
    static const char *const kinds[] = {"auto", "http", "forward", "tproxy"};
    static char text[2048];
    char forward[ADDRESS_TEXT_SIZE];

    text[0] = '\0';
    for (uint32_t i = 0; i < config.listener_count; i++) {
        const struct listener_config *l = &config.listeners[i];
        size_t used = strlen(text);
        forward[0] = '\0';
        if (l->kind == LISTENER_FORWARD) address_format(&l->forward, forward, sizeof(forward));
        snprintf(text + used, sizeof(text) - used, "%s%s %s%s%s", i ? ", " : "", l->text, kinds[l->kind],
                 *forward ? " " : "", forward);
    }
    return text;
}

static void test_pairing(void **state)
{
    static const char *const cases[][2] = {
        {"-l :1", ":1 auto"},
        {"-l :1 -l :2", ":1 auto, :2 auto"},
        {"-l :1 -f a:1", ":1 forward a:1"},
        {"-f a:1 -l :1", ":1 forward a:1"},
        {"-f a:1 -t 9 -l :1 -d", ":1 forward a:1"},
        {"-l :1080 -l :2222 -f host:22", ":1080 auto, :2222 forward host:22"},
        {"-l :1 -f a:1 -l :2", ":1 forward a:1, :2 auto"},
        {"-f a:1 -l :1 -l :2", ":1 forward a:1, :2 auto"},
        {"-l :1 -f a:1 -l :2 -f b:2", ":1 forward a:1, :2 forward b:2"},
        {"-f a:1 -l :1 -f b:2 -l :2", ":1 forward a:1, :2 forward b:2"},
        {"-l :1 --http :2 -f a:1", ":1 forward a:1, :2 http"},
        {"-l unix:/a -f unix:/b", "unix:/a forward unix:/b"},
        {"-l :1 -f [::1]:5", ":1 forward [::1]:5"},
        {"--http -l :1", ":1 http"},
        {"-l :1 --http", ":1 http"},
        {"--http -l :1 -l :2", ":1 http, :2 auto"},
        {"-l :1 -l :2 --http", ":1 auto, :2 http"},
        {"-l :1 --http -l :2 -f a:1", ":1 http, :2 forward a:1"},
        {"--http :1 --http=:2 --http unix:/x", ":1 http, :2 http, unix:/x http"},
        {"--http -t 9 -l :1", ":1 http"},
        {"-l :1 --tproxy -l :2", ":1 tproxy, :2 tproxy"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        accepts(cases[i][0]);
        assert_string_equal(describe_listeners(), cases[i][1]);
    }
}

static void test_pairing_faults(void **state)
{
    (void)state;
    refuses("-f a:1", "--forward: \"a:1\" has no listener, give an -l");
    refuses("-f a:1 --http :1", "\"a:1\" has no listener");
    refuses("-l :1 -f a:1 -f b:2", "\"b:2\" has no listener");
    refuses("-f a:1 -f b:2 -l :1", "\"a:1\" has no listener");
    refuses("-l :1 --http -f a:1", "\"a:1\" has no listener");
    refuses("--http", "--http: no -l is left");
    refuses("-l :1 -f a:1 --http", "--http: no -l is left");
    refuses("--http -f a:1 -l :1", "--http and -f cannot share one listener");
    refuses("-f host", "\"host\" is no target, give host:port");
    refuses("-l :1 -f host:65536", "is no target");
    refuses("-l :1 -f :80", "is no target");
    refuses("-f unix:", "give unix:/path");
}

static void test_listener_syntax(void **state)
{
    char line[400] = "-l unix:/";
    (void)state;
    refuses("-l 1080", "\"1080\" has no port, give host:port");
    refuses("-l host:", "\"host:\" has no port");
    refuses("-l :65536", "port \"65536\" is out of range");
    refuses("-l :99999", "port \"99999\" is out of range");
    refuses("-l :99999999999999999999", "out of range");
    refuses("-l ::1:80", "write an IPv6 address in brackets");
    refuses("-l [::1:80", "open bracket");
    refuses("-l unix:", "\"unix:\" has no path");
    refuses("--http unix:", "--http: \"unix:\" has no path");
    memset(line + strlen(line), 'x', ADDRESS_PATH_MAX - 1);
    accepts(line);
    strcat(line, "x");
    refuses(line, "longer than 107 octets");
    memset(line, 'x', 300);
    memcpy(line, "-l ", 3);
    strcpy(line + 260, ":1");
    accepts(line);
    memset(line + 3, 'x', 262);
    strcpy(line + 265, ":1");
    refuses(line, "longer than 261 octets");
}

static void test_listener_count(void **state)
{
    char line[WORDS_MAX * 16] = "-l :1";
    (void)state;
    /* Two words per listener: --http=ADDRESS takes only one. */
    for (unsigned i = 2; i <= CONFIG_LISTENERS_MAX; i++)
        snprintf(line + strlen(line), sizeof(line) - strlen(line), " --http=:%u", i);
    accepts(line);
    assert_int_equal(config.listener_count, CONFIG_LISTENERS_MAX);
    strcat(line, " --http=:99");
    refuses(line, "--http: too many listeners, give at most 32");
}

static void test_listeners_are_resolved(void **state)
{
    static const char *const cases[][2] = {
        {"127.0.0.1:80", "127.0.0.1:80"},    {"[::1]:80", "[::1]:80"},       {":1080", "0.0.0.0:1080"},
        {"*:1080", "0.0.0.0:1080"},          {"[::]:1080", "[::]:1080"},     {"127.0.0.1:http", "127.0.0.1:80"},
        {"localhost:9", "127.0.0.1:9"},      {"unix:/tmp/s", "unix:/tmp/s"}, {"*:65535", "0.0.0.0:65535"},
        {"[::ffff:1.2.3.4]:5", "1.2.3.4:5"},
    };
    char text[ADDRESS_TEXT_SIZE], line[100];
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        snprintf(line, sizeof(line), "-l %s", cases[i][0]);
        assert_int_equal(run(line, true), CONFIG_RUN);
        address_format(&config.listeners[0].address, text, sizeof(text));
        /* localhost may be either family, all others are certain */
        if (strcmp(text, "[::1]:9") != 0) assert_string_equal(text, cases[i][1]);
    }
    refuses("-l 127.0.0.1:no-such-service", "unknown service \"no-such-service\", give a number");
    refuses("-l no..such.host:80", "listener \"no..such.host:80\": "); /* no name server is asked for it */
    refuses("-l 127.0.0.1:80 -l 127.0.0.1:http", "are the same address, give it once");
    refuses("-l unix:/a --http unix:/a", "are the same address");
}

static void test_wildcards_warn(void **state)
{
    (void)state;
    run("-l :1080", true);
    assert_non_null(strstr(err, "W "));
    assert_int_equal(count_lines(err), 1);
    run("-l 127.0.0.1:1080", true);
    assert_string_equal(err, "");
    run("-l :1080 -f a:1", true);
    assert_string_equal(err, "");
}

/* --- together --- */

static void test_conflicts(void **state)
{
    (void)state;
    refuses("", "listen address is not specified, give -l");
    refuses("--tproxy -l 127.0.0.1:1 -f a:1", "--tproxy cannot be combined with --forward");
    refuses("--tproxy --http 127.0.0.1:1", "--tproxy cannot be combined with --http");
    refuses("--tproxy -l unix:/x", "--tproxy needs addresses");
    refuses("-l 127.0.0.1:1 -x http://a --enable-socks5-bind", "--enable-socks5-bind cannot go through --proxy");
    refuses("-l 127.0.0.1:1 -x http://a --enable-socks5-udp", "--enable-socks5-udp cannot go through --proxy");
    refuses("-l 127.0.0.1:1 --block-outbound local,global", "local and global together");
    refuses("-l 127.0.0.1:1 --max-startups 5:10:4", "start is out of range (0 - 4)");
    refuses("-l 127.0.0.1:1 --max-startups 5:10:9 -m 8", "full is out of range (5 - 8)");
    refuses("-l 127.0.0.1:1 -u no-such-user-here", "--user \"no-such-user-here\": there is no such user");
    /* A silent log does not hide why nothing starts. */
    refuses("--log discard", "sluice: listen address is not specified");
    refuses("--loglevel 0", "sluice: listen address is not specified");
    assert_int_equal(run("-l 127.0.0.1:1 --max-startups 5:10:0", true), CONFIG_RUN);
    assert_int_equal(run("-l 127.0.0.1:1 --max-startups 5:10:8 -m 8", true), CONFIG_RUN);
    assert_string_equal(err, "");
}

static void test_missing_interface_warns(void **state)
{
    (void)state;
    assert_int_equal(run("-l 127.0.0.1:1 -i lo", true), CONFIG_RUN);
    assert_string_equal(err, "");
    assert_int_equal(run("-l 127.0.0.1:1 -i no-such-netdev", true), CONFIG_RUN);
    assert_non_null(strstr(err, "there is no interface \"no-such-netdev\""));
}

static void test_settings_from_elsewhere_are_checked(void **state)
{
    (void)state;
    log_open(LOG_DISCARD, LOG_LEVEL_SILENCE);
    for (int fault = 0; fault < 5; fault++) {
        accepts("-l 127.0.0.1:1 --loglevel 0");
        if (fault == 0) config.timeout_ms = 4999;
        if (fault == 1) config.log_level = 9;
        if (fault == 2) config.startup_rate = 101;
        if (fault == 3) config.workers = CONFIG_WORKERS_MAX + 1;
        int saved, file = redirect(STDERR_FILENO, stderr, &saved);
        int result = config_check(&config);
        restore(STDERR_FILENO, stderr, saved, file, err, sizeof(err));
        assert_int_equal(result, fault < 4 ? -1 : 0);
        assert_int_equal(count_lines(err), fault < 4 ? 1 : 0);
    }
}

static void test_check(void **state)
{
    (void)state;
    accepts("--check -l 127.0.0.1:1");
    assert_true(config.check_only);
    assert_string_equal(err, "");
    refuses("-l 127.0.0.1:1 --check --tproxy -f a:1", "--tproxy");
    refuses("--check", "-l");
}

static void test_version(void **state)
{
    (void)state;
    assert_int_equal(run("--version", false), CONFIG_EXIT_SUCCESS);
    assert_string_equal(out, "sluice " SLUICE_VERSION " (needs Linux 6.1 or newer with io_uring)\n");
    assert_int_equal(run("-t 4 --version", false), CONFIG_EXIT_FAILURE);
    assert_int_equal(run("--version -t 4", false), CONFIG_EXIT_SUCCESS); /* what follows is not looked at */
}

static void test_help(void **state)
{
    static const char *const options[] = {"  -l, --listen ADDRESS ",
                                          "      --http [ADDRESS] ",
                                          "  -f, --forward TARGET ",
                                          "  -x, --proxy URI",
                                          "      --tproxy ",
                                          "  -4 ",
                                          "  -6 ",
                                          "      --nameserver LIST ",
                                          "  -i, --netdev NAME ",
                                          "      --reuseport ",
                                          "      --pipe ",
                                          "      --no-fastopen ",
                                          "      --fastopen-connect ",
                                          "  -t, --timeout SECONDS ",
                                          "  -m, --max-sessions N ",
                                          "      --max-startups S:R:F ",
                                          "      --block-outbound LIST ",
                                          "      --log WHERE ",
                                          "      --loglevel N ",
                                          "  -d, --daemonize ",
                                          "  -u, --user USER[:GROUP] ",
                                          "      --enable-socks5-bind ",
                                          "      --enable-socks5-udp ",
                                          "      --dump-config ",
                                          "      --workers N|auto ",
                                          "      --relay MODE ",
                                          "      --idle-timeout SECONDS ",
                                          "      --drain SECONDS ",
                                          "      --check ",
                                          "      --version ",
                                          "  -r, --ruleset FILE ",
                                          "  -c, --config FILE ",
                                          "      --script FILE ",
                                          "      --auth-required ",
                                          "      --lua-budget MS ",
                                          "      --memlimit MIB ",
                                          "      --traceback ",
                                          "      --api ADDRESS ",
                                          "      --api-token-file FILE ",
                                          "  -h, --help "};
    (void)state;
    assert_int_equal(run("-h", false), CONFIG_EXIT_SUCCESS);
    assert_string_equal(err, "");
    assert_memory_equal(out, "sluice " SLUICE_VERSION "\n", strlen("sluice " SLUICE_VERSION "\n"));
    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
        if (!strstr(out, options[i])) fail_msg("the help lacks \"%s\"", options[i]);
    assert_null(strstr(out, "ingress"));
    for (const char *line = out; *line; line += strcspn(line, "\n") + 1) {
        size_t size = strcspn(line, "\n");
        assert_true(size <= 80);
        assert_true(size == 0 || line[size - 1] != ' ');
    }
    static char first[sizeof(out)];
    strcpy(first, out);
    assert_int_equal(run("--help", false), CONFIG_EXIT_SUCCESS);
    assert_string_equal(out, first);
}

/* --- the table --- */

static bool same(const char *one, const char *other)
{
    return one && other && strcmp(one, other) == 0;
}

/* A key whose text is read as the operand of its option needs a name that has one; a key needs a kind. */
static void judge_row(const struct option_row *row)
{
    bool text = row->kind == OPTION_TEXT || row->kind == OPTION_WORD;

    if (row->key && row->kind == OPTION_ACTION) fail_msg("the key %s has no kind", row->key);
    if (row->key && text && !(row->long_name && row->operand)) fail_msg("the key %s has no option", row->key);
    if ((row->short_name || row->long_name) != (row->read != NULL)) fail_msg("%s: who reads it?", row->long_name);
    if (row->kind == OPTION_WORD && !row->words) fail_msg("%s: no words", row->long_name);
    if ((row->kind == OPTION_NUMBER || row->kind == OPTION_SECONDS) && !(row->least < row->most))
        fail_msg("%s: no range", row->key);
}

static void test_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < option_row_count; i++) {
        const struct option_row *row = &option_rows[i];
        judge_row(row);
        for (size_t j = 0; j < i; j++) {
            const struct option_row *other = &option_rows[j];
            if (same(row->key, other->key) || same(row->long_name, other->long_name) ||
                (row->short_name && row->short_name == other->short_name))
                fail_msg("rows %zu and %zu are called the same", j, i);
        }
    }
}

/* --- dump --- */

static void test_dump_defaults(void **state)
{
    (void)state;
    assert_int_equal(run("-l 127.0.0.1:1080 --workers 3 --dump-config", false), CONFIG_EXIT_SUCCESS);
    assert_string_equal(out,
                        "return {\n    listen = \"127.0.0.1:1080\",\n    forward = nil,\n    proxy = nil,\n"
                        "    restapi = nil,\n    http_listen = nil,\n    user_name = nil,\n    nameserver = nil,\n"
                        "    netdev = nil,\n    loglevel = 4,\n    resolve_pf = 0,\n    timeout = 60,\n"
                        "    memlimit = 0,\n    auth_required = false,\n    pipe = false,\n    reuseport = false,\n"
                        "    tcp_fastopen = true,\n    tcp_fastopen_connect = false,\n    tcp_nodelay = true,\n"
                        "    tcp_keepalive = true,\n    transparent = false,\n    traceback = false,\n"
                        "    socks5_bind = false,\n    socks5_udp = false,\n    daemonize = false,\n"
                        "    block_loopback = false,\n    block_multicast = true,\n    block_local = false,\n"
                        "    block_global = false,\n    tcp_sndbuf = 0,\n    tcp_rcvbuf = 0,\n"
                        "    max_sessions = 0,\n    startup_limit_start = 0,\n    startup_limit_rate = 30,\n"
                        "    startup_limit_full = 0,\n    allow_self = false,\n    ruleset = nil,\n"
                        "    lua_budget = 5000,\n    api_token_file = nil,\n    idle_timeout = 7440,\n"
                        "    half_close_timeout = 3600,\n    workers = 3,\n    relay = \"auto\",\n    drain = 0,\n}\n");
}

static void test_dump_is_whole(void **state)
{
    char start[80];

    (void)state;
    assert_int_equal(run("-l 127.0.0.1:1080 --dump-config", false), CONFIG_EXIT_SUCCESS);
    for (size_t i = 0; i < option_row_count; i++) {
        if (!option_rows[i].key) continue;
        snprintf(start, sizeof start, "\n    %s = ", option_rows[i].key);
        const char *found = strstr(out, start);
        if (!found || strstr(found + 1, start)) fail_msg("the dump does not hold %s once", option_rows[i].key);
    }
}

static void dumps(const char *line, const char *part)
{
    if (run(line, false) != CONFIG_EXIT_SUCCESS) fail_msg("\"%s\" was refused: %s", line, err);
    if (!strstr(out, part)) fail_msg("\"%s\" dumped %s without %s", line, out, part);
}

static void test_dump_values(void **state)
{
    (void)state;
    dumps("-l [::1]:1 -l unix:/x -f a:2 --http [::1]:3 --http [::1]:4 --dump-config",
          "    listen = \"[::1]:1,unix:/x\",\n    forward = \",a:2\",\n    proxy = nil,\n    restapi = nil,\n"
          "    http_listen = \"[::1]:3,[::1]:4\",\n");
    dumps("-l [::1]:1 --http --dump-config", "    listen = nil,\n");
    dumps("-l [::1]:1 -6 --dump-config", "    resolve_pf = 10,\n");
    dumps("-l [::1]:1 -4 --dump-config", "    resolve_pf = 2,\n");
    dumps("-l [::1]:1 -t 7.25 --dump-config", "    timeout = 7.25,\n");
    dumps("-l [::1]:1 --idle-timeout 0.5 --half-close-timeout 9 --drain 3 --dump-config",
          "    idle_timeout = 0.5,\n    half_close_timeout = 9,\n");
    dumps("-l [::1]:1 --drain 3 --dump-config", "    drain = 3,\n");
    dumps("-l [::1]:1 --socket-buffer 128K --dump-config", "    tcp_sndbuf = 131072,\n    tcp_rcvbuf = 131072,\n");
    dumps("-l unix:/a\"b\\c\x01\x7f"
          "9 --dump-config",
          "    listen = \"unix:/a\\\"b\\\\c\\001\\1279\",\n");
    assert_int_equal(run("--dump-config", false), CONFIG_EXIT_FAILURE);
    assert_string_equal(out, "");
}

/* --- sizes --- */

static uint64_t size_with(uint64_t descriptors, uint32_t workers, uint32_t max_sessions, enum relay_mode relay)
{
    struct rlimit before, limit;

    accepts("-l 127.0.0.1:1 -l 127.0.0.1:2");
    config.workers = workers;
    config.max_sessions = max_sessions;
    config.relay = relay;
    getrlimit(RLIMIT_NOFILE, &before);
    limit = before;
    limit.rlim_cur = descriptors;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    config_size(&config);
    setrlimit(RLIMIT_NOFILE, &before);
    return config.sessions;
}

static void test_sizes(void **state)
{
    (void)state;
    /* 64 in reserve, an eighth for names, per worker 2 listeners and 4 more; two descriptors a session */
    uint32_t names = 1024 / 8 + 1, left = 1024 - 64 - names;
    assert_int_equal(size_with(1024, 1, 0, RELAY_COPY), (left - 6) / 2);
    assert_int_equal(config.name_sockets, names);
    assert_int_equal(config.pipes, 0);
    assert_int_equal(config.setups, config.sessions);
    assert_int_equal(size_with(1024, 4, 0, RELAY_COPY), (left - 4 * 6) / 2);
    assert_int_equal(size_with(1024, 1, 10, RELAY_COPY), 10);
    assert_int_equal(config.exchanges, 10);
    assert_int_equal(size_with(1024, 1, 5000, RELAY_COPY), (left - 6) / 2);
    assert_int_equal(size_with(75, 1, 0, RELAY_COPY), 0);
    assert_int_equal(size_with(50, 1, 0, RELAY_AUTO), 0);
    /* Pipes cost two each, and never more than an eighth of the limit. */
    uint64_t sessions = size_with(1024, 2, 0, RELAY_AUTO);
    assert_int_equal(sessions, (left - 2 * 6 - 4 * config.pipes) / 2);
    assert_true(config.pipes * 2 * 2 <= 1024 / 8);
    assert_int_equal(config.buffers & (config.buffers - 1), 0);
    assert_int_equal(config.queue_capacity & (config.queue_capacity - 1), 0);
    assert_true(config.pipe_size >= 4096 && config.pipe_size <= 1u << 20);
    assert_true(config.ring_entries > 0 && config.associations > 0);
}

/* Whatever the limit is: all sessions, pipes and questions to name servers at once need no more than there is. */
static void test_names_and_sessions_fit(void **state)
{
    static const uint64_t limits[] = {128, 256, 1024, 4096, 20000, 65536};
    struct rlimit most;
    (void)state;
    getrlimit(RLIMIT_NOFILE, &most);
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        for (unsigned workers = 1; workers <= 2; workers++) {
            if (limits[i] > most.rlim_max) continue;
            uint64_t sessions = size_with(limits[i], workers, 0, RELAY_AUTO);
            uint64_t pipes = (uint64_t)workers * config.pipes;
            assert_in_range(config.name_sockets, 1, RESOLVE_SOCKETS_MAX);
            assert_true(sessions > 0 && 2 * sessions + 2 * pipes + config.name_sockets + 64 <= limits[i]);
            if (limits[i] >= 16384) assert_int_equal(config.name_sockets, RESOLVE_SOCKETS_MAX);
        }
    }
}

static void test_too_few_descriptors(void **state)
{
    struct rlimit before, limit;
    (void)state;
    accepts("-l 127.0.0.1:1");
    getrlimit(RLIMIT_NOFILE, &before);
    limit = before;
    limit.rlim_cur = 60;
    int saved, file = redirect(STDERR_FILENO, stderr, &saved);
    setrlimit(RLIMIT_NOFILE, &limit);
    int result = config_check(&config);
    setrlimit(RLIMIT_NOFILE, &before);
    restore(STDERR_FILENO, stderr, saved, file, err, sizeof(err));
    assert_int_equal(result, -1);
    assert_non_null(strstr(err, "the limit of 60 open files leaves none for sessions"));
}

static void test_workers_follow_affinity(void **state)
{
    int cpus[CONFIG_WORKERS_MAX];
    (void)state;
    assert_int_equal(run("-l 127.0.0.1:1", true), CONFIG_RUN);
    assert_int_equal(config.workers, cpu_list_allowed(cpus, (int)CONFIG_WORKERS_MAX));
    assert_int_equal(run("-l 127.0.0.1:1 --workers 7", true), CONFIG_RUN);
    assert_int_equal(config.workers, 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_flags),
        cmocka_unit_test(test_operands),
        cmocka_unit_test(test_last_occurrence_wins),
        cmocka_unit_test(test_seconds),
        cmocka_unit_test(test_socket_buffer),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_end_of_options),
        cmocka_unit_test(test_scripts_and_api),
        cmocka_unit_test(test_scripts_and_api_refused),
        cmocka_unit_test(test_circles),
        cmocka_unit_test(test_open_listeners),
        cmocka_unit_test(test_api_wants_a_token),
        cmocka_unit_test(test_forward_left_to_a_ruleset),
        cmocka_unit_test(test_port_zero),
        cmocka_unit_test(test_words_from_elsewhere),
        cmocka_unit_test(test_obsolete_options_warn),
        cmocka_unit_test(test_name_servers),
        cmocka_unit_test(test_chains),
        cmocka_unit_test(test_pairing),
        cmocka_unit_test(test_pairing_faults),
        cmocka_unit_test(test_listener_syntax),
        cmocka_unit_test(test_listener_count),
        cmocka_unit_test(test_listeners_are_resolved),
        cmocka_unit_test(test_wildcards_warn),
        cmocka_unit_test(test_conflicts),
        cmocka_unit_test(test_missing_interface_warns),
        cmocka_unit_test(test_settings_from_elsewhere_are_checked),
        cmocka_unit_test(test_check),
        cmocka_unit_test(test_version),
        cmocka_unit_test(test_help),
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_dump_defaults),
        cmocka_unit_test(test_dump_is_whole),
        cmocka_unit_test(test_dump_values),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_names_and_sessions_fit),
        cmocka_unit_test(test_too_few_descriptors),
        cmocka_unit_test(test_workers_follow_affinity),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
