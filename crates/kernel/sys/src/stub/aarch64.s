    .pushsection .rodata.dhow_stub,"a",@progbits
    .globl dhow_stub_begin
    .globl dhow_stub_end
    .hidden dhow_stub_begin
    .hidden dhow_stub_end
    .balign 8
dhow_stub_begin:
    ldr x20, [sp]
    add x21, sp, #8
    add x22, x21, x20, lsl #3
    add x22, x22, #8
    adr x23, dhow_stub_end
    mov x8, #25
    ldr w0, [x23]
    mov x1, #2
    mov x2, #1
    svc #0
    tbnz x0, #63, 9f
    ldr w9, [x23, #12]
    cbz w9, 1f
    cmp w9, #3
    b.eq 20f
    mov x8, #220
    mov x0, #0x8011
    mov x1, #0
    mov x2, #0
    mov x3, #0
    mov x4, #0
    svc #0
    tbnz x0, #63, 7f
    cbnz x0, 8f
    mov x8, #157
    svc #0
    tbnz x0, #63, 7f
    ldr w9, [x23, #12]
    cmp w9, #1
    b.eq 1f
    mov x8, #29
    mov x0, #0
    mov x1, #0x540e
    mov x2, #0
    svc #0
    tbnz x0, #63, 7f
1:
    mov w24, #2
    add x25, x23, #20
2:
    ldrb w9, [x25]
    cbz w9, 5f
    mov x8, #221
    mov x0, x25
    mov x1, x21
    mov x2, x22
    svc #0
    neg w0, w0
    ldr w9, [x23, #8]
    cbz w9, 4f
    cmp w0, #2
    b.eq 3f
    cmp w0, #20
    b.eq 3f
    cmp w0, #13
    b.ne 4f
    mov w24, w0
3:
    ldrb w9, [x25], #1
    cbnz w9, 3b
    b 2b
4:
    mov w24, w0
5:
    sub sp, sp, #16
    ldr w9, [x23, #4]
    str w9, [sp]
    str wzr, [sp, #4]
    str w24, [sp, #8]
    mov x8, #64
    ldr w0, [x23]
    mov x1, sp
    mov x2, #12
    svc #0
9:
    mov x8, #94
    mov x0, #255
    svc #0
    udf #0
7:
    neg w9, w0
    mov w10, wzr
    b 6f
8:
    mov w9, wzr
    mov w10, w0
6:
    sub sp, sp, #16
    str w9, [sp, #8]
    str w10, [sp, #4]
    ldr w9, [x23, #16]
    str w9, [sp]
    mov x8, #64
    ldr w0, [x23]
    mov x1, sp
    mov x2, #12
    svc #0
    b 9b
    // The first process (`Handover::Init`): prctl(PR_SET_NAME, argv[0]), prctl(PR_SET_CHILD_SUBREAPER, 1)
20:
    mov x8, #167
    mov x0, #15
    ldr x1, [x21]
    svc #0
    mov x8, #167
    mov x0, #36
    mov x1, #1
    svc #0
    // rt_sigprocmask(SIG_SETMASK, all, before, 8)
    sub sp, sp, #16
    mov x9, #-1
    str x9, [sp]
    mov x8, #135
    mov x0, #2
    mov x1, sp
    add x2, sp, #8
    mov x3, #8
    svc #0
    tbnz x0, #63, 7b
    // clone(SIGCHLD)
    mov x8, #220
    mov x0, #17
    mov x1, #0
    mov x2, #0
    mov x3, #0
    mov x4, #0
    svc #0
    tbnz x0, #63, 7b
    cbnz x0, 22f
    // The program's process: setpgid(0, 0), ioctl(0, TIOCSPGRP, getpid()), rt_sigprocmask(SIG_SETMASK, before, 0, 8)
    mov x8, #154
    mov x0, #0
    mov x1, #0
    svc #0
    mov x8, #172
    svc #0
    str x0, [sp]
    mov x8, #29
    mov x0, #0
    mov x1, #0x5410
    mov x2, sp
    svc #0
    mov x8, #135
    mov x0, #2
    add x1, sp, #8
    mov x2, #0
    mov x3, #8
    svc #0
    add x21, x21, #16
    b 1b
    // close(link)
22:
    mov w24, w0
    mov x8, #57
    ldr w0, [x23]
    svc #0
    // rt_sigtimedwait(all, 0, 0, 8)
23:
    mov x8, #137
    mov x0, sp
    mov x1, #0
    mov x2, #0
    mov x3, #8
    svc #0
    cmp x0, #0
    b.gt 27f
    // EINTR; what else it may say, a filter says
    cmn x0, #4
    b.eq 23b
    b 9b
27:
    cmp w0, #17
    b.eq 24f
    // kill(program, signal)
    mov w1, w0
    mov w0, w24
    mov x8, #129
    svc #0
    b 23b
    // wait4(-1, status, WNOHANG, 0)
24:
    mov x8, #260
    mov x0, #-1
    add x1, sp, #8
    mov x2, #1
    mov x3, #0
    svc #0
    cbz x0, 23b
    tbnz x0, #63, 9b
    cmp w0, w24
    b.ne 24b
    // exit_group(of the program, or 128 and its signal)
    ldr w9, [sp, #8]
    ands w0, w9, #127
    b.eq 25f
    orr w0, w0, #128
    b 26f
25:
    ubfx w0, w9, #8, #8
26:
    mov x8, #94
    svc #0
    udf #0
    .balign 8
dhow_stub_end:
    .popsection
