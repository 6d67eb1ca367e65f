# What binfmt_misc starts (flags FOCP) for a program of the target's architecture, on an x86-64 host.
#
# It runs the program's native twin where there is one, and hands everything else to QEMU. The kernel gives:
#
#   argv[0]  this interpreter        argv[1]  the program's path, as it was asked for
#   argv[2]  its original argv[0]    argv[3…] its arguments
#   AT_EXECFD in the auxiliary vector: the program itself, opened. Its name in /proc/self/fd is the real path
#   within this root: no symbolic link left, and right for relative paths too.
#
# Rebuild after a change:  as -o d.o dispatch.s && objcopy -O binary -j .text d.o dispatch.bin
# (a test in dispatch.rs does the same and compares).

        .intel_syntax noprefix
        .text
        .globl  _start
_start:
        xor     r15d, r15d              # no path to try yet
        mov     rbx, rsp                # rbx -> argc, argv[0], argv[1], …, 0, envp…, 0, auxv…
        mov     rcx, [rbx]
        lea     r12, [rbx + 8*rcx + 16] # r12 -> envp
        mov     rsi, r12
        cld
skip_environment:
        lodsq
        test    rax, rax
        jnz     skip_environment
find_execfd:                            # rsi -> auxv: pairs of type and value, the last of type 0
        lodsq
        mov     rdx, rax
        lodsq
        cmp     rdx, 2                  # AT_EXECFD
        je      found
        test    rdx, rdx
        jnz     find_execfd
        jmp     emulate
found:
        mov     r13, rax                # r13 = the descriptor
        sub     rsp, 8192               # rbp -> room for a path
        mov     rbp, rsp

        # "/proc/self/fd/N" at [rbp + 4608]; the digits are written backwards into its end.
        lea     rdi, [rbp + 4608 + 40]
        mov     byte ptr [rdi], 0
        mov     ecx, 10
digits:
        xor     edx, edx
        div     rcx
        add     dl, 0x30
        dec     rdi
        mov     [rdi], dl
        test    rax, rax
        jnz     digits
        lea     rsi, [rip + descriptors_end]
        mov     ecx, offset descriptors_end - descriptors
prepend:
        dec     rsi
        dec     rdi
        mov     al, [rsi]
        mov     [rdi], al
        loop    prepend

        # The twin's path: TWINS and then the link's target, at [rbp].
        mov     r14, rdi                # r14 -> "/proc/self/fd/N"
        lea     rsi, [rip + twins]
        mov     rdi, rbp
        mov     ecx, offset twins_end - twins
        rep     movsb
        mov     rsi, rdi                # where readlink writes
        mov     rdi, r14
        mov     edx, 4096
        mov     eax, 89                 # readlink(path, buffer, size)
        syscall
        test    rax, rax
        jle     close_it
        cmp     rax, 4096               # cut off: not a path we know
        je      close_it
        mov     byte ptr [rsi + rax], 0
        inc     r15d                    # there is a path to try
close_it:
        mov     rdi, r13                # the program must not inherit it
        mov     eax, 3                  # close(fd)
        syscall
        test    r15d, r15d
        jz      emulate
        mov     rdi, rbp
        lea     rsi, [rbx + 24]         # its own argv: original argv[0], arguments
        mov     rdx, r12
        mov     eax, 59                 # execve(path, argv, envp): comes back only when there is no twin
        syscall
emulate:
        # qemu -0 ARGV0 PATH ARGUMENTS…, in place: the slot of argc becomes the first.
        lea     rax, [rip + qemu]
        mov     [rbx], rax
        lea     rcx, [rip + zero]
        mov     rdx, [rbx + 16]         # path
        mov     [rbx + 8], rcx
        mov     rcx, [rbx + 24]         # original argv[0]
        mov     [rbx + 16], rcx
        mov     [rbx + 24], rdx
        mov     rdi, rax
        mov     rsi, rbx
        mov     rdx, r12
        mov     eax, 59
        syscall
        mov     edi, 126                # found but cannot be run, as the shell says it
        mov     eax, 231                # exit_group
        syscall
        hlt

descriptors:
        .ascii  "/proc/self/fd/"
descriptors_end:
twins:
        .ascii  "/.hardtack/twins"
twins_end:
qemu:
        .asciz  "/.hardtack/qemu"
zero:
        .asciz  "-0"
