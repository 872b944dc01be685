package container

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"crucible/container/safepath"
)

// resolver is the host's resolver configuration where the tmpfs on /run of a
// container of the host's root would hide it: systemd-resolved, resolvconf and
// NetworkManager make /etc/resolv.conf a link to a file below /run.
type resolver struct {
	Path string // where the link leads; empty: nothing is hidden
	Text []byte
}

// upstream is where systemd-resolved(8) names the servers that it asks itself.
const upstream = "/run/systemd/resolve/resolv.conf"

// resolverOf reads the configuration below root, which is "" but for tests. A
// server on the host's loopback is of no use in a network namespace of one's
// own; there the servers behind it are named, where systemd-resolved tells.
func resolverOf(root string, ownNet bool) resolver {
	const etc = "/etc/resolv.conf"
	link, err := os.Readlink(root + etc)
	if err != nil {
		return resolver{} // a file, which the container sees, or none
	}
	if !filepath.IsAbs(link) {
		link = filepath.Join(filepath.Dir(etc), link)
	}
	// /var/run is a link, too.
	if rest, ok := strings.CutPrefix(link, "/var/run/"); ok {
		link = "/run/" + rest
	}
	if !strings.HasPrefix(link, "/run/") {
		return resolver{}
	}
	text, err := os.ReadFile(root + link)
	if err != nil {
		return resolver{}
	}
	if ownNet && onlyLoopback(text) {
		if behind, err := os.ReadFile(root + upstream); err == nil {
			text = behind
		}
	}
	return resolver{Path: link, Text: text}
}

// hiddenResolver is what a container needs for a host's root with a /run of its own.
func hiddenResolver(spec *specs.Spec) resolver {
	ns, err := namespacesOf(spec)
	if err != nil || spec.Root.Path != "/" {
		return resolver{}
	}
	return resolverOf("", ns.Net)
}

// onlyLoopback tells whether every server of a resolv.conf(5) is on the loopback.
func onlyLoopback(text []byte) bool {
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) > 1 && words[0] == "nameserver" && !strings.HasPrefix(words[1], "127.") && words[1] != "::1" {
			return false
		}
	}
	return true
}

// Apply copies it to where the link leads in the container's root.
func (r resolver) Apply(root *os.File, uid, gid int) error {
	if r.Path == "" {
		return nil
	}
	f, err := safepath.OpenFile(root, r.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := os.WriteFile(safepath.Path(f), r.Text, 0o644); err != nil {
		return fmt.Errorf("copy the resolver's configuration to %s: %w", r.Path, cause(err))
	}
	if err := unix.Fchownat(int(f.Fd()), "", uid, gid, unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("own %s: %w", r.Path, err)
	}
	return nil
}
