package criu

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"strings"
	"syscall"
)

// Locks asks which ways to hold packets back (--network-lock) work here. Each
// is tried out: CRIU only looks whether it knows the name.
func (c *CRIU) Locks(ctx context.Context) []Row {
	var rows []Row
	for _, lock := range []struct {
		name string
		try  func(context.Context) Row
	}{
		{"nftables", c.tryNFTables},
		{"iptables", tryIPTables},
		{"skip", func(context.Context) Row { return Row{State: Have} }}, // it is to do nothing
	} {
		row := Row{State: HaveNot, Detail: "this CRIU does not know it"}
		out, _ := c.run(ctx, "check", "--network-lock", lock.name, "--feature", "nsid")
		if !strings.Contains(out, "Invalid value for --network-lock") {
			row = lock.try(ctx)
		}
		row.Name = lock.name
		rows = append(rows, row)
	}
	return rows
}

func (c *CRIU) tryNFTables(ctx context.Context) Row {
	const feature = "network_lock_nftables"
	out, err := c.run(ctx, "check", "-v2", "--feature", feature)
	row := featureRow(feature, out, err)
	if row.State == HaveNot && row.Detail == "" {
		row.Detail = "the kernel has no nf_tables, or this CRIU was built without"
	}
	return row
}

// tryIPTables loads the rules of criu/net.c (iptables_network_lock_internal)
// by the same program, in a network namespace that ends with it.
func tryIPTables(ctx context.Context) Row {
	const rules = "*filter\n:CRIU - [0:0]\n-I INPUT -j CRIU\n-I OUTPUT -j CRIU\n" +
		"-A CRIU -m mark --mark 0xC114 -j ACCEPT\n-A CRIU -j DROP\nCOMMIT\n"
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, "iptables-restore", "-w", "--noflush")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(rules), &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return Row{State: Have}
	case errors.Is(err, exec.ErrNotFound):
		return Row{State: HaveNot, Detail: "no iptables-restore in $PATH"}
	case errors.As(err, &exit) && exit.Exited():
		return Row{State: HaveNot, Detail: firstLine(out.String())}
	}
	return Row{State: Unknown, Detail: err.Error()}
}
