#include "core/io/privilege.h"

#include <linux/capability.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define RIGHT UINT32_C(1) << CAP_NET_RAW

void privilege_keep(bool on)
{
    (void)prctl(PR_SET_KEEPCAPS, on ? 1 : 0, 0, 0, 0);
}

static bool set_rights(uint32_t rights)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {{.effective = rights, .permitted = rights}};
    return syscall(SYS_capset, &head, data) == 0;
}

bool privilege_raise(void)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {{0}};
    if (syscall(SYS_capget, &head, data) < 0 || !(data[0].permitted & (RIGHT))) return false;
    return set_rights(RIGHT);
}

void privilege_drop(void)
{
    (void)set_rights(0);
}
