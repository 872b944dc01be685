// Package lab boots any x86-64 kernel in a throw-away virtual machine and has
// it answer a question: does checkpoint and restore work on you?
//
// # Words
//
// A Machine is one VM that is to be started, like an exec.Cmd. Its guest is the
// kernel under test with crucible as its first process; its job is what the
// guest does before it ends. There is no disk with a system on it: the guest's
// root is an initramfs, written here for each run (concatenated newc segments;
// no root, no mkfs, and the same bytes for the same inputs).
//
//	host                                   guest
//	initramfs: crucible, CRIU and its
//	libraries, modules, the job     ──▶    /init (crucible): mounts, modules, cgroups
//	QEMU: KVM if it really boots,          ready ──▶ second serial port, a message a line
//	else emulation (TCG)                   job: the cases, a program, a shell
//	messages, results folder        ◀──    results; logs and images by a raw disk
//
// Two kinds of errors are told apart. A *KernelError is the kernel's fault: it
// panicked, complained or fell silent after the guest had said that it is
// ready. A *Fault is the lab's, or cannot be laid at anybody's door: no QEMU,
// a kernel that does not boot, a guest that cannot be set up.
//
//	m := lab.Machine{Kernel: k, CRIU: files, Cgroup: "v2", Job: lab.Job{Cases: names}}
//	err := m.Run(ctx, func(msg lab.Message) { ... })
//
// # Counts
//
// A Machine with a Count has its guest execute the same instructions in each
// run. What is executed between two marks is a section: a program of the guest
// marks its beginning and its end by an instruction that does nothing (Between),
// and a plug-in of QEMU's, a C file that is compiled when it is first needed
// (BuildPlugin), counts what lies between, the kernel's code block by block.
// Symbols say which functions these are.
//
// The package does not fetch kernels (lab/archive does), and knows no more of
// their files than lab/kernel tells it.
package lab
