package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"crucible/images"
	"crucible/images/inspect"
	"crucible/proto/imagepb"
)

func newImageNamespacesCommand(a *app) *cobra.Command {
	return a.viewed(&cobra.Command{
		Use:   "namespaces [flags] NAME[@N]",
		Short: "Show the namespaces in an image, and what is kept of each",
		Long: `Show the namespaces in an image, and what is kept of each to build it again: host
name, id maps, clocks, links, addresses and routes, mounts, System V IPC, cgroup values.

Exit status: 0 success, 3 no such image, 6 the image cannot be read.`,
		Example: "  crucible image namespaces web",
	}, func(i *images.Image) error { return runImageNamespaces(a, i) })
}

// getRecord reads one of our own files of an image; one that an older image
// does not have is empty.
func getRecord(i *images.Image, file string, m proto.Message) error {
	if i.Manifest.GetTraits().GetPreDump() {
		return &images.Error{Kind: images.PreDump, Ref: i.Ref(), Text: "holds memory only: it was written for other images to build on",
			Advice: "look at the image that builds on it"}
	}
	if err := i.Get(file, m); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func runImageNamespaces(a *app, i *images.Image) error {
	var n imagepb.Namespaces
	var mounts imagepb.Mounts
	err := getRecord(i, images.Namespaces, &n)
	if err == nil {
		err = getRecord(i, images.Mounts, &mounts)
	}
	if err != nil {
		return err
	}
	ipc, err := inspect.ReadIPC(i)
	if err != nil {
		return err
	}
	shown := plain(&n)
	shown["ipc"] = ipc
	return a.print(a.json, shown, func() error {
		t := table{{"NAMESPACE", "INODE", "KEPT"}}
		for _, one := range n.Namespaces {
			kind := fmt.Sprint(enumWord(one.Kind.Descriptor(), one.Kind.Number()))
			lines := kept(one, i, len(mounts.Mounts), ipc)
			t.add(kind, one.Inode, lines[0])
			for _, line := range lines[1:] {
				t.add("", "", line)
			}
		}
		return a.printTable(t)
	})
}

// kept is what the image has of a namespace, a line each, one at least.
func kept(n *imagepb.Namespace, i *images.Image, mounts int, ipc *inspect.IPC) (lines []string) {
	switch {
	case n.Host && n.GetCgroup() == nil:
		return []string{"nothing: it is the host's"}
	case n.GetUts() != nil:
		lines = []string{"host name " + n.GetUts().Hostname}
		if d := n.GetUts().Domainname; d != "" && d != "(none)" {
			lines = append(lines, "domain name "+d)
		}
	case n.GetUser() != nil:
		lines = append(idLines("uid", n.GetUser().UidMap), idLines("gid", n.GetUser().GidMap)...)
		lines = append(lines, "setgroups "+n.GetUser().Setgroups)
	case n.GetTime() != nil:
		lines = []string{"monotonic clock " + clockText(n.GetTime().Monotonic), "boot time clock " + clockText(n.GetTime().Boottime)}
	case n.GetCgroup() != nil:
		lines = cgroupLines(n.GetCgroup(), n.Host)
	case n.GetNetwork() != nil:
		lines = networkLines(n.GetNetwork())
	case n.Kind == imagepb.NamespaceKind_NAMESPACE_KIND_PID:
		lines = []string{fmt.Sprintf("%d processes: see `crucible image ps`", i.Manifest.GetTraits().GetProcesses())}
	case n.Kind == imagepb.NamespaceKind_NAMESPACE_KIND_MOUNT:
		lines = []string{fmt.Sprintf("%d mounts: see `crucible image mounts`", mounts)}
	case n.Kind == imagepb.NamespaceKind_NAMESPACE_KIND_IPC:
		lines = ipcLines(ipc)
	}
	if len(lines) == 0 {
		return []string{"nothing that is not as in a new one"}
	}
	return lines
}

func idLines(what string, ranges []*imagepb.IDRange) (lines []string) {
	for _, r := range ranges {
		lines = append(lines, fmt.Sprintf("%s %d-%d is the host's %d-%d", what, r.Inside, uint64(r.Inside)+uint64(r.Length)-1,
			r.Outside, uint64(r.Outside)+uint64(r.Length)-1))
	}
	return lines
}

func clockText(o *imagepb.ClockOffset) string {
	return fmt.Sprintf("%+d.%09d s from the host's", o.GetSeconds(), o.GetNanoseconds())
}

func cgroupLines(n *imagepb.CgroupNamespace, host bool) (lines []string) {
	whose := "its own"
	if host {
		whose = "the host's"
	}
	lines = []string{fmt.Sprintf("%s, cgroup %s", whose, n.Mode)}
	for _, controllers := range slices.Sorted(maps.Keys(n.Paths)) {
		name := controllers
		if name == "" {
			name = "v2"
		}
		lines = append(lines, name+" in "+n.Paths[controllers])
	}
	for _, file := range slices.Sorted(maps.Keys(n.Values)) {
		lines = append(lines, file+" = "+strings.ReplaceAll(n.Values[file], "\n", "; "))
	}
	return lines
}

func networkLines(n *imagepb.NetworkNamespace) (lines []string) {
	for _, l := range n.Links {
		words := []string{"link", l.Name, l.Kind, l.Mac, fmt.Sprintf("mtu %d", l.Mtu)}
		if l.Attached {
			words = append(words, "to the host's "+n.GetAttachment().GetBridge())
		}
		lines = append(lines, strings.Join(slices.DeleteFunc(words, func(w string) bool { return w == "" }), " "))
	}
	for _, group := range []struct {
		what string
		all  []*imagepb.Message
	}{{"address", n.Addresses}, {"route", n.Routes}, {"rule", n.Rules}, {"neighbour", n.Neighbours}} {
		for _, m := range group.all {
			lines = append(lines, group.what+" "+m.Text)
		}
	}
	for _, p := range n.GetAttachment().GetPorts() {
		lines = append(lines, fmt.Sprintf("port %s %s:%d of the host to %d", p.Protocol, dash(p.HostAddress), p.HostPort, p.ContainerPort))
	}
	for _, path := range slices.Sorted(maps.Keys(n.Sysctls)) {
		lines = append(lines, path+" = "+n.Sysctls[path])
	}
	for _, w := range n.Warnings {
		lines = append(lines, "not kept: "+w)
	}
	return lines
}

func ipcLines(ipc *inspect.IPC) (lines []string) {
	for _, s := range ipc.Segments {
		lines = append(lines, fmt.Sprintf("shared memory %d, key %#x: %s", s.ID, s.Key, formatSize(int64(s.Size))))
	}
	for _, s := range ipc.Semaphores {
		lines = append(lines, fmt.Sprintf("semaphores %d, key %#x: %d", s.ID, s.Key, s.Count))
	}
	for _, q := range ipc.Queues {
		lines = append(lines, fmt.Sprintf("message queue %d, key %#x: %d waiting", q.ID, q.Key, q.Count))
	}
	return lines
}
