package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"crucible/images"
	"crucible/images/filesystem"
	"crucible/proto/imagepb"
)

func newImageShowCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "show [flags] NAME[@N]",
		Short: "Show what is in an image",
		Long: `Show what is in an image: where it comes from, what its bytes are for, its processes,
namespaces and mounts, what the container changed in its filesystem, and where the time
of the checkpoint went. --json has everything, also the digest of each file. What a newer
crucible has written into it that this one does not know is named as unknown.

Exit status: 0 success, 3 no such image, 6 the image cannot be read.`,
		Example:           "  crucible image show web\n  crucible image show --json web@1",
		Args:              exactArgs(1, "the name of an image"),
		ValidArgsFunction: a.imageNames(false),
		RunE: func(c *cobra.Command, args []string) error {
			return runImageShow(c.Context(), a, args[0])
		},
	}
	a.jsonFlag(c)
	return c
}

// shown is everything that an image says.
type shown struct {
	image      *images.Image
	namespaces imagepb.Namespaces
	mounts     imagepb.Mounts
	processes  imagepb.Processes
	timeline   imagepb.Timeline
	filesystem imagepb.Filesystem
	statistics imagepb.Statistics
	changes    []filesystem.Change
	unknown    []images.Unknown
}

func runImageShow(ctx context.Context, a *app, ref string) error {
	i, err := a.images().Open(ref)
	if err != nil {
		return err
	}
	s := shown{image: i}
	for file, m := range s.messages() {
		if err := i.Get(file, m); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := s.readChanges(ctx); err != nil {
		return err
	}
	if s.unknown, err = i.Unknown(); err != nil {
		return err
	}
	return a.print(a.json, s.json(), func() error { return s.text(a.stdout) })
}

func (s *shown) messages() map[string]proto.Message {
	all := map[string]proto.Message{images.Timeline: &s.timeline}
	for _, f := range s.image.Manifest.Files { // an early crucible counted nothing
		if f.Path == images.Counts {
			all[images.Counts] = &s.statistics
		}
	}
	if s.image.Manifest.GetTraits().GetPreDump() {
		return all
	}
	for file, m := range map[string]proto.Message{
		images.Namespaces: &s.namespaces, images.Mounts: &s.mounts, images.Processes: &s.processes, images.Filesystem: &s.filesystem,
	} {
		all[file] = m
	}
	return all
}

// readChanges lists what the archives of overlays hold. The lower directory
// tells more, where it is still there.
func (s *shown) readChanges(ctx context.Context) error {
	for _, archive := range s.filesystem.Archives {
		if archive.Kind != imagepb.ArchiveKind_ARCHIVE_KIND_OVERLAY_UPPER {
			continue
		}
		lower := ""
		if len(archive.Lower) == 1 {
			if _, err := os.Stat(archive.Lower[0]); err == nil {
				lower = archive.Lower[0]
			}
		}
		f, err := s.image.Open(archive.Path)
		if err != nil {
			return err
		}
		changes, err := filesystem.Changes(ctx, f, lower)
		f.Close()
		if err != nil {
			return fmt.Errorf("image %s: %s: %w", s.image.Ref(), archive.Path, err)
		}
		s.changes = append(s.changes, changes...)
	}
	return nil
}

func (s *shown) json() map[string]any {
	out := map[string]any{"image": s.image.Ref(), "directory": s.image.Dir(), "manifest": plain(s.image.Manifest)}
	for file, m := range s.messages() {
		out[strings.TrimSuffix(file, ".pb")] = plain(m)
	}
	changes := []string{}
	for _, c := range s.changes {
		changes = append(changes, c.String())
	}
	out["changes"] = changes
	out["bytes"] = parts(s.image.Manifest.Files)
	if len(s.unknown) > 0 {
		out["unknown"] = s.unknown
	}
	if c := s.image.Children(); c != nil {
		out["children"] = c
	}
	return out
}

func (s *shown) text(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	s.general(w)
	s.partTable(w)
	s.processTable(w)
	s.namespaceTable(w)
	s.mountTable(w)
	s.changeList(w)
	s.phaseTable(w)
	return w.Flush()
}

func (s *shown) general(w io.Writer) {
	m, from := s.image.Manifest, s.image.Manifest.GetWriter()
	line := func(key, format string, values ...any) {
		fmt.Fprintf(w, "%s\t%s\n", key, printable(fmt.Sprintf(format, values...)))
	}
	line("image", "%s", s.image.Ref())
	line("directory", "%s", s.image.Dir())
	line("created", "%s", s.image.Created().Format(time.RFC3339))
	line("size", "%s in %d files", formatSize(s.image.Size()), len(m.Files))
	if p := s.image.ParentRef(); p != "" {
		line("builds on", "%s", p)
	}
	if c := s.image.Children(); len(c) > 0 {
		line("needed by", "%s", strings.Join(c, ", "))
	}
	line("written by", "crucible %s, CRIU %s", dash(from.GetCrucible()), dash(from.GetCriu()))
	line("on", "%s, Linux %s, %s (%s)", dash(from.GetHost()), dash(from.GetKernelRelease()), dash(from.GetMachine()), dash(from.GetCpuModel()))
	if e := m.GetEditedFrom(); e != nil {
		line("edited from", "%s", e.Ref)
		for _, change := range m.Edits {
			line("", "%s", change)
		}
	}
	line("command line", "%s", strings.Join(m.Command, " "))
	line("took", "%s, frozen for %s", inMS(m.DurationNs), inMS(m.FrozenNs))
	after := "stopped"
	if m.LeftRunning {
		after = "left running"
	}
	if m.Tracking != nil {
		after += ", changes of its memory tracked since"
	}
	line("container", "%s", after)
	if words := traits(m.GetTraits()); len(words) > 0 {
		line("with", "%s", strings.Join(words, ", "))
	}
	if why := s.processes.Incomplete; why != "" {
		line("incomplete", "the record of its processes, of what CRIU has written: %s (it restores all the same)", why)
	}
	if len(s.unknown) > 0 {
		line("unknown", "%s (a newer crucible wrote it; nothing of it is lost)", unknownWords(s.unknown))
	}
}

// unknownWords names what a newer crucible has written that this one does not know.
func unknownWords(all []images.Unknown) string {
	var words []string
	for _, u := range all {
		words = append(words, u.String())
	}
	return strings.Join(words, ", ")
}

func traits(t *imagepb.Traits) (words []string) {
	for _, trait := range []struct {
		has  bool
		word string
	}{
		{t.GetEstablishedTcp(), "established TCP connections"}, {t.GetTerminal(), "a terminal"},
		{t.GetUserNamespace(), "a user namespace"}, {t.GetIncremental(), "memory in its parent"},
		{t.GetPreDump(), "memory only (pre-dump): it cannot be restored"},
	} {
		if trait.has {
			words = append(words, trait.word)
		}
	}
	return words
}

func (s *shown) processTable(w io.Writer) {
	if len(s.processes.Processes) == 0 {
		return
	}
	fmt.Fprintln(w, "\nPID\tPPID\tHOST PID\tUID\tTHREADS\tRESIDENT\tCOMMAND")
	for _, p := range s.processes.Processes {
		command := strings.Join(p.Args, " ")
		if command == "" {
			command = "[" + p.Comm + "]"
		}
		fmt.Fprintf(w, "%d\t%d\t%d\t%d\t%d\t%s\t%s\n", p.Pid, p.Ppid, p.HostPid, p.GetUids().GetEffective(), p.Threads,
			formatSize(int64(p.ResidentBytes)), shorten(printable(command), 70))
	}
}

func (s *shown) namespaceTable(w io.Writer) {
	if len(s.namespaces.Namespaces) == 0 {
		return
	}
	fmt.Fprintln(w, "\nNAMESPACE\tINODE\t")
	for _, n := range s.namespaces.Namespaces {
		kind := fmt.Sprint(enumWord(n.Kind.Descriptor(), n.Kind.Number()))
		fmt.Fprintf(w, "%s\t%d\t%s\n", kind, n.Inode, printable(namespaceText(n)))
	}
}

func namespaceText(n *imagepb.Namespace) string {
	switch {
	case n.Host:
		return "the host's"
	case n.GetUts() != nil:
		return "host name " + n.GetUts().Hostname
	case n.GetUser() != nil:
		var maps []string
		for _, r := range n.GetUser().UidMap {
			maps = append(maps, fmt.Sprintf("%d-%d is %d-%d", r.Inside, uint64(r.Inside)+uint64(r.Length)-1, r.Outside, uint64(r.Outside)+uint64(r.Length)-1))
		}
		return "uid " + strings.Join(maps, ", ")
	case n.GetTime() != nil:
		return fmt.Sprintf("monotonic %+d s, boot time %+d s", n.GetTime().GetMonotonic().GetSeconds(), n.GetTime().GetBoottime().GetSeconds())
	case n.GetNetwork() != nil:
		var words []string
		for _, a := range n.GetNetwork().Addresses {
			words = append(words, a.Text)
		}
		// Of an edited image: what the kernel told stays, see package images/edit.
		if to := n.GetNetwork().GetAttachment().GetAddress(); to != "" && to != n.GetNetwork().Address {
			words = append(words, "is restored at "+to)
		}
		return strings.Join(words, ", ")
	}
	return ""
}

func (s *shown) mountTable(w io.Writer) {
	if len(s.mounts.Mounts) == 0 {
		return
	}
	fmt.Fprintln(w, "\nMOUNT\tTYPE\tORIGIN\tFROM")
	for _, m := range s.mounts.Mounts {
		origin := strings.ReplaceAll(fmt.Sprint(enumWord(m.Origin.Descriptor(), m.Origin.Number())), "_", " ")
		from := m.HostPath
		if from == "" {
			from = m.Source
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", printable(m.Point), m.Type, origin, printable(from))
	}
}

func (s *shown) changeList(w io.Writer) {
	const most = 40
	if len(s.changes) == 0 {
		return
	}
	fmt.Fprintln(w, "\nCHANGED FILES (A added, M modified, D deleted)")
	for n, c := range s.changes {
		if n == most {
			fmt.Fprintf(w, "and %d more: see --json\n", len(s.changes)-most)
			break
		}
		fmt.Fprintln(w, printable(c.String()))
	}
}

func (s *shown) phaseTable(w io.Writer) {
	if len(s.timeline.Phases) == 0 {
		return
	}
	fmt.Fprintln(w, "\nPHASE\tAFTER\tTOOK\tFROZEN")
	for _, p := range s.timeline.Phases {
		frozen := ""
		if p.Frozen {
			frozen = "yes"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", p.Name, inMS(p.StartNs), inMS(p.DurationNs), frozen)
	}
}
