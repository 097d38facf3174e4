# sluice. `make run` and `make test` do everything on a fresh Debian 12; `make help` lists the rest.
CC      ?= gcc
CLANG   ?= clang
BUILD   ?= build
VERSION := 0.1.0

STD      = -std=c11 -D_GNU_SOURCE -Icore -Iprotocols -I. -DSLUICE_VERSION='"$(VERSION)"'
WARN     = -Wall -Wextra -Wconversion -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wpointer-arith
HARDEN   = -fstack-protector-strong -D_FORTIFY_SOURCE=2 -fPIE
OPTIMISE = -O2 -g -flto=auto
CFLAGS   = $(STD) $(WARN) $(OPTIMISE) $(HARDEN)
LDFLAGS  = -pie -Wl,-z,relro,-z,now
LIBS     = -luring -lcares -lpthread

PROTOCOLS := $(wildcard protocols/*.c)
CORE      := $(filter-out core/main.c,$(wildcard core/*.c))
KERNEL    := core/ring.c core/net.c# the two bodies that the simulator replaces
objects    = $(patsubst %.c,$(BUILD)/$(1)/%.o,$(2))

.PHONY: all clean
all: $(BUILD)/sluice

$(BUILD)/release/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/sluice: $(call objects,release,$(PROTOCOLS) $(CORE) core/main.c)
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS)

# Unit tests: every tests/test_*.c is one cmocka program, linked with the whole product but main.
TESTS := $(patsubst tests/%.c,%,$(wildcard tests/test_*.c))
$(BUILD)/tests/test_%: $(BUILD)/release/tests/test_%.o $(BUILD)/release/tests/support.o $(call objects,release,$(PROTOCOLS) $(CORE))
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS) -lcmocka

clean:
	rm -rf $(BUILD)

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
