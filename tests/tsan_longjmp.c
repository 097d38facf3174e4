/* Linked into what is built with ThreadSanitizer, and into nothing else.
 *
 * TSan keeps a second call stack, which a function enters and leaves by itself; its longjmp() takes off the functions
 * that are jumped over. Debian's liblua is built with _FORTIFY_SOURCE and so calls glibc's __longjmp_chk() instead,
 * which TSan of clang 14 does not know: each yield and each error of Lua would leave frames behind, until after some
 * ten thousand of them that stack is full, and the program dies within the sanitizer, wherever it happens to be. */
#include <setjmp.h>

/* NOLINTBEGIN(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp) */
_Noreturn void __longjmp_chk(jmp_buf buffer, int value);

_Noreturn void __longjmp_chk(jmp_buf buffer, int value)
{
    longjmp(buffer, value);
}
/* NOLINTEND(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp) */
