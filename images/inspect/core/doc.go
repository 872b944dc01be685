// Package core makes an ELF core file, as the kernel writes one of a process that
// crashed, from a process in an image: gdb and its like then show where
// each thread stood, and what was in its memory.
//
//	m, err := memory.Open(image)
//	p, err := core.Load(m, 1)
//	f, err := os.Create("core")
//	err = p.Write(ctx, f)
//
//	gdb /usr/bin/python3 core
//
// # What is in it
//
// Notes, as fs/binfmt_elf.c of the kernel writes them: NT_PRSTATUS, NT_FPREGSET and
// NT_X86_XSTATE or NT_ARM_TLS of each thread, NT_PRPSINFO, NT_AUXV, NT_FILE. And a
// segment for each range of memory: with its bytes if they are in the image, or
// without if they are not, when they are zeros or what the file of NT_FILE has. The
// file has holes where the memory does.
//
// A thread that was in a system call has the registers that the process goes on
// with: CRIU lets the kernel start the call again, so the program counter is that of
// the instruction that calls it (compel/arch/x86/src/lib/infect.c: get_task_regs).
//
// # What it does not do
//
// The code of a program and its libraries is not in an image: a debugger needs the
// files (`set sysroot`). Processes are those of x86-64, 64 bits, and arm64.
package core
