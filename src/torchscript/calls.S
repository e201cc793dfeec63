// Entry points for the C++ functions of the shared library (library.rs). Each one jumps to the address in its slot, with its index in
// a register that holds no argument. At first, all slots contain re_resolve, which saves the arguments, calls re_load to fill the
// slots, and jumps again. The build script writes entries.inc, which calls the macro `entry` for each function, and defines FUNCTIONS,
// their number.

#ifdef __APPLE__
#define SYMBOL(name) _##name
#else
#define SYMBOL(name) name
#endif

#if defined(__x86_64__)

.macro entry index, name
    .globl \name
\name:
    movl $\index, %r11d
    jmp re_jump
.endm

    .text
#include "entries.inc"

re_jump:
    leaq SYMBOL(re_slots)(%rip), %r10
    jmpq *(%r10, %r11, 8)

re_resolve:
    pushq %rbp
    movq %rsp, %rbp
    pushq %rdi
    pushq %rsi
    pushq %rdx
    pushq %rcx
    pushq %r8
    pushq %r9
    pushq %rax
    pushq %r11
    subq $128, %rsp
    movups %xmm0, (%rsp)
    movups %xmm1, 16(%rsp)
    movups %xmm2, 32(%rsp)
    movups %xmm3, 48(%rsp)
    movups %xmm4, 64(%rsp)
    movups %xmm5, 80(%rsp)
    movups %xmm6, 96(%rsp)
    movups %xmm7, 112(%rsp)
    call SYMBOL(re_load)
    movups (%rsp), %xmm0
    movups 16(%rsp), %xmm1
    movups 32(%rsp), %xmm2
    movups 48(%rsp), %xmm3
    movups 64(%rsp), %xmm4
    movups 80(%rsp), %xmm5
    movups 96(%rsp), %xmm6
    movups 112(%rsp), %xmm7
    addq $128, %rsp
    popq %r11
    popq %rax
    popq %r9
    popq %r8
    popq %rcx
    popq %rdx
    popq %rsi
    popq %rdi
    popq %rbp
    jmp re_jump

#elif defined(__aarch64__)

.macro entry index, name
    .globl \name
    .p2align 2
\name:
    mov w16, #\index
    b re_jump
.endm

    .text
#include "entries.inc"

    .p2align 2
re_jump:
#ifdef __APPLE__
    adrp x17, _re_slots@PAGE
    add x17, x17, _re_slots@PAGEOFF
#else
    adrp x17, re_slots
    add x17, x17, :lo12:re_slots
#endif
    ldr x17, [x17, x16, lsl #3]
    br x17

    .p2align 2
re_resolve:
    stp x29, x30, [sp, #-224]!
    mov x29, sp
    stp x0, x1, [sp, #16]
    stp x2, x3, [sp, #32]
    stp x4, x5, [sp, #48]
    stp x6, x7, [sp, #64]
    stp x8, x16, [sp, #80]
    stp q0, q1, [sp, #96]
    stp q2, q3, [sp, #128]
    stp q4, q5, [sp, #160]
    stp q6, q7, [sp, #192]
    bl SYMBOL(re_load)
    ldp x0, x1, [sp, #16]
    ldp x2, x3, [sp, #32]
    ldp x4, x5, [sp, #48]
    ldp x6, x7, [sp, #64]
    ldp x8, x16, [sp, #80]
    ldp q0, q1, [sp, #96]
    ldp q2, q3, [sp, #128]
    ldp q4, q5, [sp, #160]
    ldp q6, q7, [sp, #192]
    ldp x29, x30, [sp], #224
    b re_jump

#else
#error "calls.S has no entry points for this processor"
#endif

#ifdef __APPLE__
    .section __DATA,__data
#else
    .data
#endif
    .p2align 3
    .globl SYMBOL(re_slots)
SYMBOL(re_slots):
.rept FUNCTIONS
    .quad re_resolve
.endr

#ifdef __ELF__
    .section .note.GNU-stack, "", %progbits
#endif
