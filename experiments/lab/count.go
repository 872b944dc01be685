package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Count has a machine's guest execute the same instructions in each run, on any
// host, loaded or idle, so that they can be counted.
//
// QEMU emulates one processor. Its clock is the number of instructions that it
// has executed (-icount: one is a nanosecond), and time in which it waits passes
// at once. What is random comes from Seed, and so do the addresses that are not
// fixed by the command line. There is no disk, whose answers would come when the
// host has them; and the guest says less, before it is through, than the pipe
// holds by which it speaks.
//
// What remains to be the same is the kernel and its command line, the initramfs
// (see Digest), the memory's size, and QEMU's version, on which the firmware and
// the devices depend. A machine that counts ignores CPUs, and never uses KVM.
type Count struct {
	Seed   int
	Plugin string // what BuildPlugin made; without it nothing is counted, and there is the guest's clock
}

// CountCPU is the processor of a guest that counts: one of a fixed make, without
// what not every QEMU since 7.2 emulates, so that kernels and programs choose the
// same code on each. (With "max" a checkpoint takes 15 % more instructions in QEMU
// 10.0 than in 7.2; so it is the same but for the chance of a round.) A single
// "rep movsb" counts once for each byte that it copies, so the guest is told that
// these are slow (-erms).
const CountCPU = "Haswell-v2,-erms,-pcid,-x2apic,-tsc-deadline,-invpcid"

func (c *Count) arguments(dir string) []string {
	args := []string{
		"-accel", "tcg,tb-size=128", "-cpu", CountCPU, "-icount", "shift=0,sleep=off", "-seed", strconv.Itoa(c.Seed),
		"-rtc", "base=2026-01-01,clock=vm",
	}
	if c.Plugin != "" {
		args = append(args, "-plugin", pluginOption(c.Plugin, filepath.Join(dir, sectionsName)))
	}
	return args
}

// pluginOption doubles commas, which separate what follows in QEMU's options.
func pluginOption(plugin, out string) string {
	double := func(s string) string { return strings.ReplaceAll(s, ",", ",,") }
	return double(plugin) + ",out=" + double(out)
}

// words are for the kernel's command line: addresses are the same each time, and
// the time stamp counter is what it says, being the clock itself.
func (c *Count) words() []string { return []string{"nokaslr", "norandmaps", "tsc=reliable"} }

// sectionsName is the plug-in's file among those of a machine.
const sectionsName = "sections"

// Sections are what the plug-in has counted so far. Handle may ask for them: a
// section that the guest has left is there before it can speak of it.
func (m *Machine) Sections() ([]Section, error) {
	file, err := os.Open(filepath.Join(m.dir, sectionsName))
	if err != nil {
		return nil, fmt.Errorf("read the counts: %w", err)
	}
	defer file.Close()
	return ReadSections(file)
}

// Digest is that of the initramfs of a machine that counts, once it has been
// started.
func (m *Machine) Digest() string { return m.digest }
