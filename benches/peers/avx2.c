/* A process that is loaded with this library (LD_PRELOAD) finds a processor with AVX2 and nothing newer.
 *
 * Linux has the processor refuse CPUID to it (arch_prctl(2), ARCH_SET_CPUID), and what it asks for is answered here: all that the
 * processor says, without AVX-512, AVX-VNNI and AMX. Threads and processes that it starts are told the same.
 * Needs `cpuid_fault` in /proc/cpuinfo. The C library has asked before, and may copy memory with newer instructions; GFNI, VAES and
 * VPCLMULQDQ, which processors without AVX-512 have, too, stay.
 */
#define _GNU_SOURCE
#include <asm/prctl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define BIT(n) (1u << (n))

/* Leaf 7, subleaf 0, in Intel's Software Developer's Manual, volume 2, CPUID. */
static const unsigned EBX = /* AVX512 F, DQ, IFMA, PF, ER, CD, BW, VL */
    BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31);
static const unsigned ECX = /* AVX512 VBMI, VBMI2, VNNI, BITALG, VPOPCNTDQ */
    BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14);
static const unsigned EDX = /* AVX512 4VNNIW, 4FMAPS, VP2INTERSECT; AMX BF16; AVX512 FP16; AMX TILE, INT8 */
    BIT(2) | BIT(3) | BIT(8) | BIT(22) | BIT(23) | BIT(24) | BIT(25);

static long refuse(int refused) { return syscall(SYS_arch_prctl, ARCH_SET_CPUID, refused ? 0UL : 1UL); }

static void answer(int number, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    const unsigned char *instruction = (const unsigned char *)registers[REG_RIP];
    unsigned leaf = (unsigned)registers[REG_RAX], subleaf = (unsigned)registers[REG_RCX];
    unsigned a, b, c, d;
    /* A general protection has this code; what touches memory that is not there is not ours, and comes again without us. */
    if (info->si_code != SI_KERNEL || instruction[0] != 0x0f || instruction[1] != 0xa2) {
        signal(number, SIG_DFL);
        return;
    }
    refuse(0);
    /* Volatile, so that it stays between the two. */
    __asm__ volatile("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(leaf), "c"(subleaf) : "memory");
    refuse(1);
    if (leaf == 7 && subleaf == 0) {
        a = 0; /* No further subleaf, where AVX-VNNI and AMX's other numbers are. */
        b &= ~EBX;
        c &= ~ECX;
        d &= ~EDX;
    } else if (leaf == 7) {
        a = b = c = d = 0;
    }
    registers[REG_RAX] = a;
    registers[REG_RBX] = b;
    registers[REG_RCX] = c;
    registers[REG_RDX] = d;
    registers[REG_RIP] += 2;
}

__attribute__((constructor)) static void limit(void) {
    struct sigaction action = {.sa_sigaction = answer, .sa_flags = SA_SIGINFO};
    if (sigaction(SIGSEGV, &action, NULL) != 0 || refuse(1) != 0) {
        perror("this processor cannot be told to refuse CPUID");
        _exit(70);
    }
}
