# sluice. `make run` and `make test` do everything on a fresh Debian 12; `make help` lists the rest.
#
# One source tree is built in several flavours, each in a folder of its own below $(BUILD): release (what is installed,
# and the test programs), asan, tsan, fuzz, and two of tests/mutants.py: mutant (quickly built, without line numbers, so
# that a change which changes nothing gives the same object) and coverage. Where the compiler does not put machine code
# beside what link-time optimisation needs, the test programs have a flavour of their own: unit.
# Flags that the caller gives in CFLAGS and LDFLAGS come last.
ifeq ($(origin CC),default)
CC := gcc
endif
CLANG   ?= clang
PYTHON  ?= /usr/bin/python3
BUILD   ?= build
PREFIX  ?= /usr/local
DESTDIR ?=
LISTEN  ?= 127.0.0.1:1080
VERSION := 0.1.0
JOBS    ?= $(shell nproc)
# One short line for each file; V=1 shows the commands.
Q       := $(if $(V),,@)
say      = @$(if $(V),:,echo '  $(1)')
RUN     := $(PYTHON) tests/run.py --build $(BUILD)

STD    = -std=c11 -D_GNU_SOURCE -I. -isystem /usr/include/lua5.4 -DSLUICE_VERSION='"$(VERSION)"'
WARN   = -Wall -Wextra -Wconversion -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wpointer-arith
HARDEN = -fstack-protector-strong -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2 -fPIE
LINK   = -pie -Wl,-z,relro,-z,now,-z,noexecstack
LIBS   = -luring -lcares -lcrypt -lidn2 -lsqlite3 -lpthread -lm
LIBS  += -lhiredis -lgnutls
LIBS_LUA = -llua5.4 -ltre -ldeflate -lmicrohttpd -ljansson -lgnutls -lm

# gcc brings its own LTO; clang's needs a linker that knows it.
ifneq ($(findstring clang,$(CC)),)
LTO := $(if $(shell command -v ld.lld),-flto=thin)
LD_release = $(if $(LTO),-fuse-ld=lld)
PLAIN := $(if $(LTO),unit,release)
else
LTO := -flto=auto
FAT := -ffat-lto-objects
PLAIN := release
endif
SANITIZE_ASAN = -fsanitize=address,undefined -fno-sanitize-recover=all
SANITIZE_TSAN = -fsanitize=thread

# Reports name lines, not variables; and half the time of linking a sanitized program is that of GNU ld.
LD_asan := $(if $(shell command -v ld.lld),-fuse-ld=lld)
LD_tsan := $(LD_asan)
LD_fuzz := $(LD_asan)

CC_release    = $(CC)
CC_unit       = $(CC)
CC_asan       = $(CLANG)
CC_tsan       = $(CLANG)
CC_fuzz       = $(CLANG)
CC_mutant     = $(CC)
CC_coverage   = $(CLANG)
FLAGS_release = -O2 -g $(LTO) $(FAT) $(HARDEN)
FLAGS_unit    = -O2 -g $(HARDEN)
FLAGS_asan    = -O1 -gline-tables-only -fno-omit-frame-pointer -fPIE $(SANITIZE_ASAN)
FLAGS_tsan    = -O1 -gline-tables-only -fno-omit-frame-pointer -fPIE $(SANITIZE_TSAN)
FLAGS_fuzz    = -O1 -gline-tables-only -fno-omit-frame-pointer -fPIE -fsanitize=fuzzer-no-link,address,undefined \
                -fno-sanitize-recover=all
FLAGS_mutant   = -O1 -fPIE -fsanitize=leak -Werror=int-conversion -Werror=incompatible-pointer-types \
                 -Werror=implicit-function-declaration
# What is executed is written down as it happens, so that nothing is lost of processes that are killed or call _exit().
FLAGS_coverage = -O1 -fPIE -fprofile-instr-generate -fcoverage-mapping -mllvm -runtime-counter-relocation \
                 -Wno-unused-command-line-argument

PROTOCOLS := $(wildcard protocols/*.c)
CORE      := $(wildcard core/*/*.c)
PRODUCT   := $(PROTOCOLS) $(CORE)
# What steers it: Lua, the API, and the files that travel in the binary.
CONTROL   := $(wildcard lua/*/*.c api/*.c) embedded.c
EMBEDDED  := $(wildcard lua/scripts/*.lua api/*.html)
# The simulator has the kernel's place, and its driver that of the coordinator.
SIMULATED := $(filter-out core/io/ring.c core/io/net.c core/session/machine.c core/usage/% core/control/% core/process/listen.c \
             core/resolver/resolve.c core/resolver/lookup.c core/resolver/dns_channel.c core/resolver/dns_udp.c core/resolver/resolver_thread.c,$(PRODUCT))
SIMULATOR := $(filter-out tests/sim_main.c,$(wildcard tests/sim_*.c))
TESTS     := $(patsubst tests/%.c,%,$(wildcard tests/test_*.c))
FUZZERS   := $(patsubst fuzz/%.c,%,$(wildcard fuzz/fuzz_*.c))
FULL_TESTS    := $(filter test_lua_% test_api_%,$(TESTS))
SIM_TESTS     := test_sessions test_sequence test_dial test_crowd test_ends test_outcomes test_errands test_shortage test_flow test_judge test_limited test_limited_session test_limited_octets test_conn_cache test_tally# on the simulated kernel
PLAIN_TESTS   := $(filter-out $(FULL_TESTS) $(SIM_TESTS),$(TESTS))
FULL_FUZZERS  := $(filter fuzz_lua_% fuzz_api_%,$(FUZZERS))
PLAIN_FUZZERS := $(filter-out $(FULL_FUZZERS) fuzz_session,$(FUZZERS))
# GCSTRESS_UNIT and GCSTRESS_SLOW of tests/run.py
STRESSED  := $(addprefix test_lua_,hostile data socket socket_proxy coroutine engine rpc execute boot match limits modules script sets)
THREADED  := test_queue test_letter test_log test_bucket test_keys test_usage test_usage_room test_lua_script test_resolver_thread test_checkers test_record_ring test_access_log# what more than one thread calls
CLANG_FORMAT_FILES := $(wildcard core/*.c core/*/*.[ch] protocols/*.[ch] lua/*/*.[ch] api/*.[ch] tests/*.[ch] tests/e2e/*.[ch] fuzz/*.[ch] bench/*.[ch])

.PHONY: all run test sim asan tsan fuzz bench bench-lua flamegraph micro lint format includes install clean help FORCE
.PHONY: usage-kills gcstress gcstress-programs mutants mutant-programs coverage-programs test-kernel test-container deps-container deps deps-test deps-lint deps-bench deps-bench-lua deps-kernel deps-flamegraph node-modules test-programs asan-programs tsan-programs fuzz-programs
.DELETE_ON_ERROR:
.SECONDARY:

all: $(BUILD)/sluice ## build build/sluice

# --- objects, in every flavour ---

FLAVOURS := release unit asan tsan fuzz mutant coverage

# A file that changes when a flavour's command line does, so that `make CC=clang` after `make` mixes nothing.
define flavour
$(BUILD)/$(1)/flags: FORCE
	@mkdir -p $$(@D)
	@echo '$$(CC_$(1)) $$(STD) $$(FLAGS_$(1)) $$(CFLAGS)' | cmp -s - $$@ || \
		echo '$$(CC_$(1)) $$(STD) $$(FLAGS_$(1)) $$(CFLAGS)' > $$@

$(BUILD)/$(1)/%.o: %.c $(BUILD)/$(1)/flags
	@mkdir -p $$(@D)
	$$(call say,$(1) $$<)
	$$(Q)$$(CC_$(1)) $$(STD) $$(WARN) $$(FLAGS_$(1)) $$(CFLAGS) -MMD -MP -c -o $$@ $$<
endef
$(foreach f,$(FLAVOURS),$(eval $(call flavour,$(f))))

# Programs of tests take longer to optimise than they compute.
$(BUILD)/asan/tests/test_%.o: private FLAGS_asan += -O0
$(BUILD)/tsan/tests/test_%.o: private FLAGS_tsan += -O0
$(BUILD)/release/tests/test_%.o: private FLAGS_release += -O0 -fno-lto -U_FORTIFY_SOURCE
$(BUILD)/unit/tests/test_%.o: private FLAGS_unit += -O0 -U_FORTIFY_SOURCE

# Made once, compiled in every flavour.
$(BUILD)/embedded.c: lua/embed.sh $(EMBEDDED)
	@mkdir -p $(@D)
	$(call say,$@)
	$(Q)sh lua/embed.sh $(EMBEDDED) > $@

define embedded
$(BUILD)/$(1)/embedded.o: $(BUILD)/embedded.c $(BUILD)/$(1)/flags
	@mkdir -p $$(@D)
	$$(Q)$$(CC_$(1)) $$(STD) $$(WARN) $$(FLAGS_$(1)) $$(CFLAGS) -MMD -MP -c -o $$@ $$<
endef
$(foreach f,$(FLAVOURS),$(eval $(call embedded,$(f))))

# With what TSan needs to follow Lua.
objects = $(patsubst %.c,$(BUILD)/$(1)/%.o,$(2) $(if $(filter tsan,$(1)),tests/tsan_longjmp.c))
link    = $(CC_$(1)) $(FLAGS_$(1)) $(CFLAGS) $(LINK) $(LD_$(1)) $(LDFLAGS) -o $@ $(filter %.o,$^) $(filter %.a,$^)

# Of test programs, none of which takes part in link-time optimisation.
link-test = $(call link,$(1)) $(if $(filter release,$(1)),-fno-lto)

# What a test program is about, as a list of objects from which the linker takes those that it needs: half the time of
# linking all of them. Only names and symbols stand in it (T).
define archives
$(BUILD)/$(1)/simulated.a: $(call objects,$(1),$(SIMULATOR) $(SIMULATED))
$(BUILD)/$(1)/product.a: $(call objects,$(1),$(PRODUCT))
$(BUILD)/$(1)/control.a: $(call objects,$(1),$(PRODUCT) $(CONTROL))
$(BUILD)/$(1)/simulated.a $(BUILD)/$(1)/product.a $(BUILD)/$(1)/control.a:
	$$(Q)rm -f $$@ && $(AR) rcsT $$@ $$^
endef
$(foreach f,$(FLAVOURS),$(eval $(call archives,$(f))))

$(BUILD)/sluice: $(call objects,release,$(PRODUCT) $(CONTROL) core/main.c)
	$(call say,$@)
	$(Q)$(call link,release) $(LIBS) $(LIBS_LUA)

# The load generator knows nothing of the product, so it needs neither its objects nor its flags.
LOAD := $(filter-out bench/micro.c bench/decisions.c bench/delay.c bench/floor.c bench/floor_udp.c,$(wildcard bench/*.c))
$(BUILD)/load: $(LOAD) $(wildcard bench/*.h)
	@mkdir -p $(@D)
	$(call say,$@)
	$(Q)$(CC) -std=c11 -D_GNU_SOURCE -I. $(WARN) -O2 -g $(CFLAGS) $(LDFLAGS) -o $@ $(LOAD)

$(BUILD)/decisions: $(call objects,release,bench/decisions.c $(PRODUCT) $(CONTROL))
	$(call say,$@)
	$(Q)$(call link,release) $(LIBS) $(LIBS_LUA)

$(BUILD)/floor: bench/floor.c bench/floor_udp.c bench/floor.h
	@mkdir -p $(@D)
	$(call say,$@)
	$(Q)$(CC) -std=c11 -D_GNU_SOURCE -I. $(WARN) -O2 -g $(CFLAGS) $(LDFLAGS) -o $@ $(filter %.c,$^) -luring

$(BUILD)/delay: bench/delay.c
	@mkdir -p $(@D)
	$(call say,$@)
	$(Q)$(CC) -std=c11 -D_GNU_SOURCE $(WARN) -O2 -g $(CFLAGS) $(LDFLAGS) -o $@ $<

$(BUILD)/micro: $(call objects,release,bench/micro.c $(PRODUCT))
	$(call say,$@)
	$(Q)$(call link,release) $(LIBS)

# --- test programs: every tests/test_*.c is one for cmocka ---

# $(1) flavour, $(2) folder of the programs
define programs
$(2)/sim: $(call objects,$(1),tests/sim_main.c) $(BUILD)/$(1)/simulated.a
	@mkdir -p $$(@D)
	$$(call say,$$@)
	$$(Q)$$(call link-test,$(1)) $$(LIBS)

$(addprefix $(2)/tests/,$(SIM_TESTS)): $(2)/tests/%: $(BUILD)/$(1)/tests/%.o $(call objects,$(1),tests/support.c) \
		$(BUILD)/$(1)/simulated.a
	@mkdir -p $$(@D)
	$$(call say,$$@)
	$$(Q)$$(call link-test,$(1)) $$(LIBS) -lcmocka

# Those that are about Lua or the API have all of it. Static rules: of two patterns make takes the one whose objects are
# there already.
$(addprefix $(2)/tests/,$(FULL_TESTS)): $(2)/tests/%: $(BUILD)/$(1)/tests/%.o $(call objects,$(1),tests/support.c) \
		$(BUILD)/$(1)/control.a
	@mkdir -p $$(@D)
	$$(call say,$$@)
	$$(Q)$$(call link-test,$(1)) $$(LIBS) $$(LIBS_LUA) -lcmocka

# Those of the resolver share a name server.
$(addprefix $(2)/tests/,test_resolve test_answers test_answers_late test_resolver_thread): $(call objects,$(1),tests/dns_double.c tests/resolve_bench.c)
# Those of the command line share what runs its parser.
$(addprefix $(2)/tests/,test_options test_config): $(call objects,$(1),tests/command_line.c)

$(addprefix $(2)/tests/,$(PLAIN_TESTS)): $(2)/tests/%: $(BUILD)/$(1)/tests/%.o $(call objects,$(1),tests/support.c) \
		$(BUILD)/$(1)/product.a
	@mkdir -p $$(@D)
	$$(call say,$$@)
	$$(Q)$$(call link-test,$(1)) $$(LIBS) -lcmocka
endef
$(eval $(call programs,$(PLAIN),$(BUILD)))
$(eval $(call programs,asan,$(BUILD)/asan))
$(eval $(call programs,tsan,$(BUILD)/tsan))
$(eval $(call programs,mutant,$(BUILD)/mutant))
$(eval $(call programs,coverage,$(BUILD)/coverage))

# Those of the engine once more, where every allocation runs finalizers: see tests/gcstress.c.
STRESS := -Wl,--wrap=lua_gc,--wrap=lua_newthread,--wrap=luaL_openlibs
$(addprefix $(BUILD)/gcstress/tests/,$(STRESSED)): $(BUILD)/gcstress/tests/%: $(BUILD)/asan/tests/%.o \
		$(call objects,asan,tests/gcstress.c tests/support.c) $(BUILD)/asan/control.a
	@mkdir -p $(@D)
	$(call say,$@)
	$(Q)$(call link,asan) $(STRESS) $(LIBS) $(LIBS_LUA) -lcmocka

$(BUILD)/asan/sluice: $(call objects,asan,$(PRODUCT) $(CONTROL) core/main.c)
	$(call say,$@)
	$(Q)$(call link,asan) $(LIBS) $(LIBS_LUA)

$(BUILD)/tsan/sluice: $(call objects,tsan,$(PRODUCT) $(CONTROL) core/main.c)
	$(call say,$@)
	$(Q)$(call link,tsan) $(LIBS) $(LIBS_LUA)

$(BUILD)/mutant/sluice: $(call objects,mutant,$(PRODUCT) $(CONTROL) core/main.c)
	$(call say,$@)
	$(Q)$(call link,mutant) $(LIBS) $(LIBS_LUA)

$(BUILD)/coverage/sluice: $(call objects,coverage,$(PRODUCT) $(CONTROL) core/main.c)
	$(call say,$@)
	$(Q)$(call link,coverage) $(LIBS) $(LIBS_LUA)

# What a fuzzer is about guides it; what it is called from and what it calls is that of the other flavour.
FUZZ_LINK = $(call link,fuzz) -fsanitize=fuzzer $(LIBS)
SESSIONS := $(PROTOCOLS) $(filter core/session/%,$(SIMULATED))
$(BUILD)/fuzz_session: $(call objects,fuzz,fuzz/fuzz_session.c $(SESSIONS)) $(BUILD)/asan/simulated.a
	$(call say,$@)
	$(Q)$(FUZZ_LINK)

GUIDING := $(PROTOCOLS) $(addprefix api/,access.c endpoints.c fields.c sessions.c) $(wildcard lua/socket/*.c) \
           $(addprefix lua/engine/,buffer.c class.c codec.c deflate.c digest.c octets.c text.c) $(addprefix lua/modules/,marshal.c pattern.c regex.c unmarshal.c)
$(addprefix $(BUILD)/,$(FULL_FUZZERS)): $(BUILD)/%: $(BUILD)/fuzz/fuzz/%.o $(call objects,fuzz,$(GUIDING)) \
		$(call objects,asan,$(filter-out $(GUIDING),$(PRODUCT) $(CONTROL)))
	$(call say,$@)
	$(Q)$(FUZZ_LINK) $(LIBS_LUA)

$(addprefix $(BUILD)/,$(PLAIN_FUZZERS)): $(BUILD)/%: $(BUILD)/fuzz/fuzz/%.o $(call objects,fuzz,$(PROTOCOLS))
	$(call say,$@)
	$(Q)$(FUZZ_LINK)

SIM_PROGRAM := $(if $(wildcard tests/sim_main.c),sim)
test-programs: $(addprefix $(BUILD)/,sluice $(SIM_PROGRAM) $(addprefix tests/,$(TESTS)))
asan-programs: $(addprefix $(BUILD)/asan/,sluice $(addprefix tests/,$(TESTS)))
gcstress-programs: $(addprefix $(BUILD)/gcstress/tests/,$(STRESSED))
tsan-programs: $(addprefix $(BUILD)/tsan/,sluice $(addprefix tests/,$(THREADED)))
mutant-programs coverage-programs: %-programs: $(addprefix $(BUILD)/%/,sluice sim $(addprefix tests/,$(TESTS)))
fuzz-programs: $(addprefix $(BUILD)/,$(FUZZERS))

# Clients of the end to end tests from the npm registry. The tests themselves have no network but their own.
NODE := $(BUILD)/e2e/node
node-modules: $(NODE)/node_modules/.package-lock.json
$(NODE)/node_modules/.package-lock.json: tests/e2e/package.json
	@mkdir -p $(NODE)
	@cp $< $(NODE)/
	cd $(NODE) && npm install --no-audit --no-fund --silent
	@touch $@

# --- running and testing ---

run: ## install what is missing, build, start on 127.0.0.1:1080 (LISTEN=, ARGS=)
	@$(MAKE) --no-print-directory deps
	@$(MAKE) --no-print-directory -j$(JOBS) all
	$(BUILD)/sluice -l $(LISTEN) $(ARGS)

test: ## install what is missing, build, run all tests
	@$(MAKE) --no-print-directory deps-test
	@$(RUN) --make '$(MAKE) -j$(JOBS)' all

sim: $(BUILD)/sim ## run the simulator's sessions (COUNT=100000 seeds from FIRST=1)
	@$(RUN) --first $(or $(FIRST),1) --count $(or $(COUNT),100000) sim

asan: ## unit tests and end to end under AddressSanitizer and UBSan
	@$(MAKE) --no-print-directory -j$(JOBS) asan-programs node-modules
	@$(RUN) asan

gcstress: ## unit tests of Lua, where every allocation runs a full collection and a hostile finalizer
	@$(MAKE) --no-print-directory -j$(JOBS) gcstress-programs
	@$(RUN) gcstress

tsan: ## queue, log, scripts and end to end under ThreadSanitizer, without the tests of limits
	@$(MAKE) --no-print-directory -j$(JOBS) tsan-programs node-modules
	@$(RUN) tsan

test-kernel: ## unit, simulator and end to end tests on Debian 12's kernels in a virtual machine, as root (KERNEL=release)
	@$(MAKE) --no-print-directory deps-kernel
	@$(MAKE) --no-print-directory -j$(JOBS) test-programs node-modules
	@$(MAKE) --no-print-directory -s BUILD=$(BUILD)/e2e $(BUILD)/e2e/load $(BUILD)/e2e/floor # the guest has no liburing-dev
	@$(PYTHON) tests/kernel/boot.py --build $(BUILD) $(addprefix --kernel ,$(KERNEL)) $(addprefix --accel ,$(ACCEL)) $(addprefix --cpus ,$(CPUS)) \
		$(addprefix --guests ,$(GUESTS)) $(addprefix --only ,$(ONLY)) $(STEPS)

test-container: ## build docs/Dockerfile with buildah and try the image, as root
	@$(MAKE) --no-print-directory deps-container
	@BUILD=$(BUILD) sh tests/container.sh

# What CFLAGS and LTO say is for the other flavours.
mutants: ## plant small faults, list those that no test notices (SEED=1, COUNT=100, FILES='protocols core lua api')
	@$(MAKE) --no-print-directory deps-test
	@$(MAKE) --no-print-directory -j$(JOBS) CFLAGS= LDFLAGS= LTO= mutant-programs coverage-programs node-modules
	@CC='$(CC)' CLANG='$(CLANG)' $(PYTHON) tests/mutants/mutants.py --build $(BUILD) --seed $(or $(SEED),1) \
		--count $(or $(COUNT),100) --jobs $(JOBS) $(FILES)

# GNU make knows no numbers of its own, and the shell's SECONDS is no environment variable of ours.
fuzz: ## every fuzz target, two at a time, SECONDS=60 in all
	@$(MAKE) --no-print-directory -j$(JOBS) fuzz-programs
	@$(RUN) --seconds $(or $(SECONDS),60) fuzz

usage-kills: $(BUILD)/tests/test_usage_turns ## kill a keeper of accounts COUNT=1000 times at any moment, and look at what is left
	SLUICE_USAGE_KILLS=$(or $(COUNT),1000) $<

# With all rows the document is written; a part of them is for whoever asked, or with KEEP=1 for the document, whose other
# rows stay.
BENCH_FILES = $(if $(and $(ROWS),$(if $(KEEP),,x)),--json $(BUILD)/bench.json --output $(BUILD)/bench.md,\
	--json docs/benchmarks.json --output docs/benchmarks.md)
bench: ## measure against other proxies, as root, write docs/benchmarks.md (ROWS= KEEP=1 SAMPLES= SECONDS= NETWORKS= CONGESTION= LOADS=)
	@$(MAKE) --no-print-directory deps-bench
	@$(MAKE) --no-print-directory -j$(JOBS) all $(BUILD)/load $(BUILD)/floor $(BUILD)/decisions
	$(PYTHON) bench/run.py --binary $(BUILD)/sluice $(BENCH_FILES) $(if $(KEEP),--keep) \
		$(if $(ROWS),--rows '$(ROWS)') $(if $(SAMPLES),--samples $(SAMPLES)) $(if $(SECONDS),--seconds $(SECONDS)) \
		$(if $(NETWORKS),--networks '$(NETWORKS)') $(if $(CONGESTION),--congestion '$(CONGESTION)') $(if $(LOADS),--loads '$(LOADS)')

bench-lua: ## the SOCKS4 proxy in Lua against others, near and far, as root (REPEAT=5)
	@$(MAKE) --no-print-directory deps-bench-lua
	@$(MAKE) --no-print-directory -j$(JOBS) all $(BUILD)/delay
	$(PYTHON) bench/lua_proxy.py --binary $(BUILD)/sluice --delay $(BUILD)/delay --repeat $(or $(REPEAT),5) \
		--output docs/benchmarks.md --plot docs/bench-lua.svg

flamegraph: ## where the time goes, as build/flamegraph-*.svg (SECONDS=5, WORK='bulk --flows 4')
	@$(MAKE) --no-print-directory deps-flamegraph
	@$(MAKE) --no-print-directory -j$(JOBS) all $(BUILD)/load
	$(PYTHON) bench/flame_record.py --binary $(BUILD)/sluice --load $(BUILD)/load --folder $(BUILD) \
		--seconds $(or $(SECONDS),5) --work '$(or $(WORK),bulk --flows 4)'

micro: ## nanoseconds per operation of parsers, queue, pool, timers and policy
	@$(MAKE) --no-print-directory deps
	@$(MAKE) --no-print-directory -j$(JOBS) $(BUILD)/micro
	@$(BUILD)/micro

# --- habits ---

lint: ## clang-tidy, cppcheck, clang-format, warnings of both compilers, includes
	@$(MAKE) --no-print-directory deps-lint
	@$(RUN) lint
lint: export STD := $(STD)
lint: export WARN := $(WARN)

format: ## clang-format in place
	clang-format -i $(CLANG_FORMAT_FILES)

includes: ## draw who includes whom, fail if an arrow points the wrong way
	@$(PYTHON) tests/includes.py

# --- installing ---

install: all ## binary, man page, documents, service file (DESTDIR=, PREFIX=/usr/local)
	install -D -m 755 $(BUILD)/sluice $(DESTDIR)$(PREFIX)/bin/sluice
	install -D -m 644 docs/sluice.8 $(DESTDIR)$(PREFIX)/share/man/man8/sluice.8
	install -d $(DESTDIR)$(PREFIX)/share/doc/sluice $(DESTDIR)$(PREFIX)/lib/systemd/system
	install -m 644 README.md $(wildcard docs/*.md) docs/Dockerfile docs/seccomp.json docs/openapi.yaml \
		docs/fail2ban/sluice.conf docs/fail2ban/sluice-access.conf $(DESTDIR)$(PREFIX)/share/doc/sluice
	install -m 644 docs/logrotate/sluice $(DESTDIR)$(PREFIX)/share/doc/sluice/sluice.logrotate
	sed 's|@PREFIX@|$(PREFIX)|' docs/sluice.service > $(DESTDIR)$(PREFIX)/lib/systemd/system/sluice.service

DEPS_BUILD = gcc libc6-dev libcrypt-dev liburing-dev libc-ares-dev libidn2-dev liblua5.4-dev libtre-dev libdeflate-dev libmicrohttpd-dev \
             libjansson-dev libgnutls28-dev libsqlite3-dev \
             libhiredis-dev
DEPS_TEST  = $(DEPS_BUILD) clang lld libclang-rt-14-dev llvm libcmocka-dev python3 python3-pytest python3-socks curl wget \
             ncat netcat-openbsd openssh-client openssh-server openssl dante-client dante-server microsocks tinyproxy-bin \
             proxychains4 jq nginx libnginx-mod-stream haproxy iproute2 nftables util-linux lua5.4 redis-server prometheus python3-yaml chromium \
             $(if $(shell command -v node),,nodejs) $(if $(shell command -v npm),,npm)
DEPS_LINT  = $(DEPS_BUILD) libcmocka-dev python3 clang clang-tidy clang-format cppcheck
DEPS_BENCH = $(DEPS_BUILD) haproxy nginx libnginx-mod-stream microsocks dante-server tinyproxy-bin squid wrk iperf3 proxychains4 \
             curl python3 iproute2 util-linux gnuplot-nox

DEPS_BENCH_LUA  = $(DEPS_BUILD) nginx dante-server openssh-server openssh-client curl iproute2 util-linux python3 \
                  gnuplot-nox
DEPS_KERNEL     = $(DEPS_TEST) qemu-system-x86 mmdebstrap e2fsprogs git
DEPS_CONTAINER  = buildah mmdebstrap curl
DEPS_FLAMEGRAPH = $(DEPS_BUILD) linux-perf gdb curl util-linux python3

# Asks dpkg what is missing of $(1) and installs that alone, with sudo where we are not root. Some packages bring a service:
# a policy keeps those from being started meanwhile, and those that were not there before are not started at boot either.
SERVICES = openssh-server:ssh dante-server:danted microsocks:microsocks prometheus:prometheus redis-server:redis-server haproxy:haproxy nginx:nginx squid:squid
POLICY   = /usr/sbin/policy-rc.d
define install-packages
@missing=; for package in $(1); do \
	case "$$(dpkg-query -W -f '$${db:Status-Abbrev}' $$package 2>/dev/null)" in ii*) ;; *) \
	missing="$$missing $$package";; esac; done; \
if [ -n "$$missing" ]; then \
	echo "installing:$$missing"; \
	if [ "$$(id -u)" -eq 0 ]; then as_root=; else as_root=sudo; fi; \
	if [ ! -e $(POLICY) ]; then \
		trap "$$as_root rm -f $(POLICY)" EXIT; trap 'exit 1' HUP INT TERM; \
		printf '#!/bin/sh\nexit 101\n' | $$as_root tee $(POLICY) >/dev/null && $$as_root chmod 755 $(POLICY); \
	fi; \
	$$as_root apt-get update -q && \
	$$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $$missing || exit 1; \
	for service in $(SERVICES); do \
		case "$$missing " in *" $${service%:*} "*) $$as_root systemctl disable --quiet $${service#*:} 2>/dev/null;; esac; \
	done; true; \
fi
endef

deps: ## install the Debian packages that building needs; deps-test, deps-lint, deps-bench and the like: those of a target
	$(call install-packages,$(DEPS_BUILD))
deps-test:
	$(call install-packages,$(DEPS_TEST))
deps-lint:
	$(call install-packages,$(DEPS_LINT))
deps-bench:
	$(call install-packages,$(DEPS_BENCH))
deps-bench-lua:
	$(call install-packages,$(DEPS_BENCH_LUA))
deps-kernel:
	$(call install-packages,$(DEPS_KERNEL))
deps-container:
	$(call install-packages,$(DEPS_CONTAINER))
deps-flamegraph:
	$(call install-packages,$(DEPS_FLAMEGRAPH))

clean: ## remove what was built
	rm -rf $(BUILD)

help: ## print this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 18

-include $(foreach f,$(FLAVOURS),$(wildcard $(BUILD)/$(f)/*/*.d $(BUILD)/$(f)/*/*/*.d))
