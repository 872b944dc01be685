package main

import (
	"context"

	"crucible/container/host"
	"crucible/experiments/lab"
)

// labRows say whether `crucible kernel` works here, and how fast.
func labRows(ctx context.Context) []host.Row {
	const group = "lab"
	qemu := host.Row{
		Group: group, Name: "qemu", State: host.Missing, Detail: "there is no qemu-system-x86_64 in PATH",
		Costs: "no `crucible kernel`: other kernels cannot be asked", Remedy: "run scripts/setup --lab",
	}
	found, err := lab.FindQEMU(ctx)
	if err != nil {
		return []host.Row{qemu}
	}
	kvm := host.Row{
		Group: group, Name: "kvm", State: host.Missing, Detail: "tried: it executes nothing, or /dev/kvm may not be opened",
		Costs:  "machines are emulated, and some 20 times slower",
		Remedy: "load the module kvm_intel or kvm_amd, and join the group kvm; in a virtual machine, nested virtualisation must be on",
	}
	if found.KVM {
		kvm = goodRow(kvm, "")
	}
	return []host.Row{goodRow(qemu, found.Path), kvm}
}
