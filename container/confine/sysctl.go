package confine

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Private says which namespaces a container does not share with the host. A
// sysctl is only its own in a namespace of its own.
type Private struct {
	IPC, Network, User, UTS bool
}

// checkSysctls says whether each sysctl belongs to a private namespace. All
// others are the host's, and a container does not write them.
func checkSysctls(values map[string]string, private Private) error {
	for _, name := range slices.Sorted(maps.Keys(values)) {
		parts, err := sysctlParts(name)
		if err != nil {
			return err
		}
		namespace, own := sysctlNamespace(parts, private)
		if namespace == "" {
			return fmt.Errorf("sysctl %s: belongs to the host, not to a namespace", name)
		}
		if !own {
			return fmt.Errorf("sysctl %s: the container shares its %s namespace", name, namespace)
		}
	}
	return nil
}

// sysctlParts splits a name as sysctl(8) does: the first separator, dot or
// slash, is the separator, and the other one is part of the names
// ("net.ipv4.conf.eth0/1.forwarding" is an interface called "eth0.1").
func sysctlParts(name string) ([]string, error) {
	var parts []string
	if i := strings.IndexAny(name, "./"); i >= 0 && name[i] == '/' {
		parts = strings.Split(name, "/")
	} else {
		parts = strings.Split(name, ".")
		for i := range parts {
			parts[i] = strings.ReplaceAll(parts[i], "/", ".")
		}
	}
	for _, p := range parts {
		if len(parts) < 2 || p == "" || p == "." || p == ".." || strings.Contains(p, "\x00") {
			return nil, fmt.Errorf("sysctl %q: not a sysctl's name", name)
		}
	}
	return parts, nil
}

func sysctlNamespace(parts []string, private Private) (namespace string, own bool) {
	switch parts[0] {
	case "net":
		return "network", private.Network
	case "user":
		return "user", private.User
	}
	if len(parts) > 2 && parts[0] == "fs" && parts[1] == "mqueue" {
		return "ipc", private.IPC
	}
	if len(parts) != 2 || parts[0] != "kernel" {
		return "", false
	}
	switch parts[1] {
	case "hostname", "domainname":
		return "uts", private.UTS
	// ipc/ipc_sysctl.c
	case "msgmax", "msgmnb", "msgmni", "msg_next_id", "auto_msgmni",
		"sem", "sem_next_id", "shmall", "shmmax", "shmmni", "shm_next_id", "shm_rmid_forced":
		return "ipc", private.IPC
	}
	return "", false
}

// SplitSysctls parts those of a network namespace from all others.
func SplitSysctls(values map[string]string) (network, others map[string]string) {
	network, others = map[string]string{}, map[string]string{}
	for name, value := range values {
		into := others
		if parts, err := sysctlParts(name); err == nil && parts[0] == "net" {
			into = network
		}
		into[name] = value
	}
	return network, others
}

// WriteSysctls writes sysctls in the order of their names, from a thread in the
// container's namespaces. It refuses those that belong to no namespace at all;
// whether the namespace is the container's own only checkSysctls can tell.
func WriteSysctls(values map[string]string) error {
	if len(values) == 0 {
		return nil
	}
	if err := checkSysctls(values, Private{IPC: true, Network: true, User: true, UTS: true}); err != nil {
		return err
	}
	proc, err := OpenProc()
	if err != nil {
		return fmt.Errorf("sysctls: %w", err)
	}
	defer proc.Close()
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if err := proc.writeSysctl(name, values[name]); err != nil {
			return err
		}
	}
	return nil
}

func (p *Proc) writeSysctl(name, value string) error {
	parts, err := sysctlParts(name)
	if err != nil {
		return err
	}
	f, err := p.open("sys/"+strings.Join(parts, "/"), unix.O_WRONLY)
	if errors.Is(err, unix.EACCES) && parts[0] == "kernel" {
		return writeName(name, parts[1], value, err)
	}
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("sysctl %s: this kernel does not have it: %w", name, err)
	}
	if err != nil {
		return fmt.Errorf("sysctl %s: %w", name, err)
	}
	defer f.Close()
	// In one write: the kernel takes the first one as the whole value.
	if _, err := unix.Write(int(f.Fd()), []byte(value)); err != nil {
		return fmt.Errorf("sysctl %s = %q: %w", name, value, err)
	}
	return nil
}

// writeName sets what belongs to a UTS namespace but whose file belongs to the
// host's root, so that a user namespace's root needs the system calls.
func writeName(name, last, value string, cause error) error {
	set := map[string]func([]byte) error{"hostname": unix.Sethostname, "domainname": unix.Setdomainname}[last]
	if set != nil {
		cause = set([]byte(value))
	}
	if cause != nil {
		return fmt.Errorf("sysctl %s = %q: %w", name, value, cause)
	}
	return nil
}
