/* core/process/config_check, config_dump and config_size: pairing of listeners, options that cannot go together, the
 * dump, and the sums behind the pool sizes. */
#include "tests/command_line.h"

#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "core/io/cpu.h"
#include "core/io/log.h"
#include "core/process/config_check.h"
#include "core/process/config_size.h"
#include "core/process/option_table.h"
#include "core/resolver/resolve.h"
#include "tests/support.h"

/* --- listeners --- */

/* "kind>forward" of all listeners, such as "auto forward>[host:22]". */
static const char *describe_listeners(void)
{
    static const char *const kinds[] = {"auto", "http", "forward", "tproxy", "socks"};
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
    refuses("-l 127.0.0.1:+8081", "-l: \"+8081\" is no port, give a number or the name of a service");
    refuses("-l 127.0.0.1:\t8081", "\"\t8081\" is no port");
    refuses("-l :-1", "\"-1\" is no port");
    refuses("--http :+1", "--http: \"+1\" is no port");
    refuses("--api 127.0.0.1:+1", "--api: \"+1\" is no port");
    refuses("-l :9 -f host:+1", "-f: \"host:+1\" is no target");
    refuses("--nameserver 192.0.2.1:+53", "\"192.0.2.1:+53\" is no name server");
    refuses("-x socks5://a:+1080", "-x: proxy 1: ");
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

/* Each file is one store, whoever names it. */
static void test_users_of_listeners(void **state)
{
    (void)state;
    assert_int_equal(run("--users all -l 127.0.0.1:1 -l 127.0.0.1:2,users=some --http 127.0.0.1:3,users=none "
                         "-l 127.0.0.1:4,users=some -l 127.0.0.1:5,users=all -l 127.0.0.1:6,users=none -f a:1",
                         true),
                     CONFIG_RUN);
    assert_int_equal(config.user_file_count, 2);
    assert_string_equal(config.user_files[1], "all");
    assert_string_equal(config.user_files[2], "some");
    static const uint8_t files[] = {1, 2, 0, 2, 1, 0};
    for (size_t i = 0; i < sizeof files; i++) assert_int_equal(config.listeners[i].user_file, files[i]);
    assert_int_equal(run("-l 127.0.0.1:1 -l 127.0.0.1:2,users=some", true), CONFIG_RUN);
    assert_int_equal(config.user_file_count, 1);
    assert_int_equal(config.listeners[0].user_file, 0);
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
    refuses("-l 127.0.0.1:1 -x socks5://b,http://a --enable-socks5-bind",
            "--enable-socks5-bind cannot go through --proxy http://a:80: give socks5:// there");
    refuses("-l 127.0.0.1:1 --udp-advertise 192.0.2.1", "--udp-advertise: no reply would name the address");
    refuses("-l 127.0.0.1:1 -x http://a,socks5://b --enable-socks5-udp",
            "--enable-socks5-udp cannot go through --proxy http://a:80: give socks5:// there");
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

/* --- dump --- */

static void test_dump_defaults(void **state)
{
    (void)state;
    assert_int_equal(run("-l 127.0.0.1:1080 --workers 3 --dump-config", false), CONFIG_EXIT_SUCCESS);
    assert_string_equal(
        out,
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
        "    startup_limit_full = 0,\n    udp_advertise = nil,\n    users = nil,\n    allow_client = nil,\n    "
        "deny_client = nil,\n"
        "    upstream = nil,\n"
        "    source = nil,\n    mark = 0,\n"
        "    allow_target = nil,\n    deny_target = nil,\n    allow_self = false,\n    conn_cache = true,\n    ruleset "
        "= nil,\n"
        "    scripts = nil,\n"
        "    lua_budget = 5000,\n    api_token_file = nil,\n    idle_timeout = 7440,\n"
        "    udp_timeout = 300,\n    half_close_timeout = 3600,\n    limit = nil,\n    limit_keys = 100000,\n    usage "
        "= nil,\n    workers = "
        "3,\n    relay = \"auto\",\n    access_log = nil,\n    access_log_format = \"json\",\n"
        "    access_log_start = false,\n    access_log_query = false,\n    state_dir = nil,\n    drain = 0,\n}\n");
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
    dumps("-l [::1]:1 --idle-timeout 0.5 --udp-timeout 2.5 --half-close-timeout 9 --drain 3 --dump-config",
          "    idle_timeout = 0.5,\n    udp_timeout = 2.5,\n    half_close_timeout = 9,\n");
    dumps("-l [::1]:1 --drain 3 --dump-config", "    drain = 3,\n");
    dumps("-l [::1]:1 --socket-buffer 128K --dump-config", "    tcp_sndbuf = 131072,\n    tcp_rcvbuf = 131072,\n");
    dumps("-l unix:/a\"b\\c\x01\x7f"
          "9 --dump-config",
          "    listen = \"unix:/a\\\"b\\\\c\\001\\1279\",\n");
    assert_int_equal(run("--dump-config", false), CONFIG_EXIT_FAILURE);
    assert_string_equal(out, "");
}

/* --- sizes --- */

static uint64_t sessions_with(uint64_t descriptors)
{
    struct rlimit before, limit;

    getrlimit(RLIMIT_NOFILE, &before);
    limit = before;
    limit.rlim_cur = descriptors;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    config_size(&config);
    setrlimit(RLIMIT_NOFILE, &before);
    return config.sessions;
}

static uint64_t size_with(uint64_t descriptors, uint32_t workers, uint32_t max_sessions, enum relay_mode relay)
{
    accepts("-l 127.0.0.1:1 -l 127.0.0.1:2");
    config.workers = workers;
    config.max_sessions = max_sessions;
    config.relay = relay;
    return sessions_with(descriptors);
}

static void test_sizes(void **state)
{
    (void)state;
    /* 64 in reserve, an eighth for names, a thirty-second for idle upstream connections, per worker 2 listeners and 4
     * more; two descriptors a session */
    uint32_t names = 1024 / 8 + 1, left = 1024 - 64 - names - 1024 / 32;
    assert_int_equal(size_with(1024, 1, 0, RELAY_COPY), (left - 6) / 2);
    assert_int_equal(config.conns, 32);
    assert_int_equal(config.name_sockets, names);
    assert_int_equal(config.pipes, 0);
    assert_int_equal(config.setups, config.sessions);
    assert_int_equal(size_with(1024, 4, 0, RELAY_COPY), (left - 4 * 6) / 2);
    assert_int_equal(config.conns, 8);
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
            uint64_t pipes = (uint64_t)workers * config.pipes, conns = (uint64_t)workers * config.conns;
            assert_in_range(config.name_sockets, 1, RESOLVE_SOCKETS_MAX);
            assert_true(sessions > 0 && 2 * sessions + 2 * pipes + conns + config.name_sockets + 64 <= limits[i]);
            if (limits[i] >= 16384) assert_int_equal(config.name_sockets, RESOLVE_SOCKETS_MAX);
        }
    }
}

/* With so many descriptors there is room for so many sessions, and with one less there is not. */
static void test_descriptors_for_sessions(void **state)
{
    static const uint32_t counts[] = {1, 2, 100, 1000, 9000};
    struct rlimit most;
    (void)state;
    getrlimit(RLIMIT_NOFILE, &most);
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        for (unsigned variant = 0; variant < 8; variant++) {
            enum relay_mode relay = variant & 1 ? RELAY_COPY : RELAY_AUTO;
            size_with(1024, variant & 2 ? 16 : 1, 0, relay);
            config.socks5_udp = variant & 4;
            uint64_t limit = config_descriptors(&config, counts[i]);
            if (limit > most.rlim_max) continue;
            assert_true(sessions_with(limit) >= counts[i]);
            assert_true(sessions_with(limit - 1) < counts[i]);
        }
}

/* However many workers there are, and whatever the limit: 256 of each, 1024 of all. */
static void test_idle_upstreams(void **state)
{
    struct rlimit most;
    (void)state;
    getrlimit(RLIMIT_NOFILE, &most);
    if (most.rlim_max >= 65536) {
        size_with(65536, 4, 0, RELAY_AUTO);
        assert_int_equal(config.conns, 256);
        size_with(65536, 16, 0, RELAY_AUTO);
        assert_int_equal(config.conns, 64);
    }
    size_with(16384, 1, 0, RELAY_AUTO);
    assert_int_equal(config.conns, 256);
    size_with(16384, 16, 0, RELAY_AUTO);
    assert_int_equal(config.conns, 32);
    config.conn_cache = false;
    config_size(&config);
    assert_int_equal(config.conns, 0);
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
    assert_non_null(strstr(err, "the limit of 60 open files leaves none for sessions; 1 needs "));
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
        cmocka_unit_test(test_pairing),
        cmocka_unit_test(test_pairing_faults),
        cmocka_unit_test(test_listener_syntax),
        cmocka_unit_test(test_listener_count),
        cmocka_unit_test(test_listeners_are_resolved),
        cmocka_unit_test(test_users_of_listeners),
        cmocka_unit_test(test_wildcards_warn),
        cmocka_unit_test(test_conflicts),
        cmocka_unit_test(test_missing_interface_warns),
        cmocka_unit_test(test_settings_from_elsewhere_are_checked),
        cmocka_unit_test(test_check),
        cmocka_unit_test(test_dump_defaults),
        cmocka_unit_test(test_dump_is_whole),
        cmocka_unit_test(test_dump_values),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_names_and_sessions_fit),
        cmocka_unit_test(test_descriptors_for_sessions),
        cmocka_unit_test(test_idle_upstreams),
        cmocka_unit_test(test_too_few_descriptors),
        cmocka_unit_test(test_workers_follow_affinity),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
