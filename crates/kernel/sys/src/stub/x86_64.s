    .pushsection .rodata.dhow_stub,"a",@progbits
    .globl dhow_stub_begin
    .globl dhow_stub_end
    .hidden dhow_stub_begin
    .hidden dhow_stub_end
dhow_stub_begin:
    mov r13, [rsp]
    lea r14, [rsp + 8]
    lea r15, [r14 + r13*8 + 8]
    lea rbx, [rip + dhow_stub_end]
    mov eax, 72
    mov edi, [rbx]
    mov esi, 2
    mov edx, 1
    syscall
    test rax, rax
    js 9f
    cmp dword ptr [rbx + 12], 0
    je 1f
    cmp dword ptr [rbx + 12], 3
    je 20f
    mov eax, 56
    mov edi, 0x8011
    xor esi, esi
    xor edx, edx
    xor r10d, r10d
    xor r8d, r8d
    syscall
    test rax, rax
    js 7f
    jnz 8f
    mov eax, 112
    syscall
    test rax, rax
    js 7f
    cmp dword ptr [rbx + 12], 1
    je 1f
    mov eax, 16
    xor edi, edi
    mov esi, 0x540e
    xor edx, edx
    syscall
    test rax, rax
    js 7f
1:
21:
    mov r12d, 2
    lea rbp, [rbx + 20]
2:
    cmp byte ptr [rbp], 0
    je 5f
    mov eax, 59
    mov rdi, rbp
    mov rsi, r14
    mov rdx, r15
    syscall
    neg eax
    cmp dword ptr [rbx + 8], 0
    je 4f
    cmp eax, 2
    je 3f
    cmp eax, 20
    je 3f
    cmp eax, 13
    jne 4f
    mov r12d, eax
3:
    inc rbp
    cmp byte ptr [rbp - 1], 0
    jne 3b
    jmp 2b
4:
    mov r12d, eax
5:
    sub rsp, 16
    mov ecx, [rbx + 4]
    mov [rsp], ecx
    mov dword ptr [rsp + 4], 0
    mov [rsp + 8], r12d
    mov eax, 1
    mov edi, [rbx]
    mov rsi, rsp
    mov edx, 12
    syscall
9:
    mov eax, 231
    mov edi, 255
    syscall
    ud2
7:
    neg eax
    sub rsp, 16
    mov [rsp + 8], eax
    mov dword ptr [rsp + 4], 0
    jmp 6f
8:
    sub rsp, 16
    mov dword ptr [rsp + 8], 0
    mov [rsp + 4], eax
6:
    mov ecx, [rbx + 16]
    mov [rsp], ecx
    mov eax, 1
    mov edi, [rbx]
    mov rsi, rsp
    mov edx, 12
    syscall
    jmp 9b
    # The first process (`Handover::Init`): prctl(PR_SET_NAME, argv[0]), prctl(PR_SET_CHILD_SUBREAPER, 1)
20:
    mov eax, 157
    mov edi, 15
    mov rsi, [r14]
    syscall
    mov eax, 157
    mov edi, 36
    mov esi, 1
    syscall
    # rt_sigprocmask(SIG_SETMASK, all, before, 8)
    sub rsp, 16
    mov qword ptr [rsp], -1
    mov eax, 14
    mov edi, 2
    mov rsi, rsp
    lea rdx, [rsp + 8]
    mov r10d, 8
    syscall
    test rax, rax
    js 7b
    # clone(SIGCHLD)
    mov eax, 56
    mov edi, 17
    xor esi, esi
    xor edx, edx
    xor r10d, r10d
    xor r8d, r8d
    syscall
    test rax, rax
    js 7b
    jnz 22f
    # The program's process: setpgid(0, 0), ioctl(0, TIOCSPGRP, getpid()), rt_sigprocmask(SIG_SETMASK, before, 0, 8)
    mov eax, 109
    xor edi, edi
    xor esi, esi
    syscall
    mov eax, 39
    syscall
    mov [rsp], rax
    mov eax, 16
    xor edi, edi
    mov esi, 0x5410
    mov rdx, rsp
    syscall
    mov eax, 14
    mov edi, 2
    lea rsi, [rsp + 8]
    xor edx, edx
    mov r10d, 8
    syscall
    add r14, 16
    jmp 21b
    # close(link)
22:
    mov r12, rax
    mov eax, 3
    mov edi, [rbx]
    syscall
    # rt_sigtimedwait(all, 0, 0, 8)
23:
    mov eax, 128
    mov rdi, rsp
    xor esi, esi
    xor edx, edx
    mov r10d, 8
    syscall
    test rax, rax
    jg 27f
    # EINTR; what else it may say, a filter says
    cmp rax, -4
    je 23b
    jmp 9b
27:
    cmp eax, 17
    je 24f
    # kill(program, signal)
    mov esi, eax
    mov edi, r12d
    mov eax, 62
    syscall
    jmp 23b
    # wait4(-1, status, WNOHANG, 0)
24:
    mov eax, 61
    mov rdi, -1
    lea rsi, [rsp + 8]
    mov edx, 1
    xor r10d, r10d
    syscall
    test rax, rax
    jz 23b
    js 9b
    cmp eax, r12d
    jne 24b
    # exit_group(of the program, or 128 and its signal)
    mov ecx, [rsp + 8]
    mov edi, ecx
    and edi, 127
    jz 25f
    or edi, 128
    jmp 26f
25:
    movzx edi, ch
26:
    mov eax, 231
    syscall
    ud2
    .balign 8
dhow_stub_end:
    .popsection
