package inspect

import (
	"fmt"
	"strings"
	"time"
)

// File is an open file description, with what a person debugging asks about it.
type File struct {
	ID uint32 `json:"id"` // CRIU's
	// Kind is file, directory, device, fifo, pipe, socket, terminal, memfd,
	// eventfd, epoll, timerfd, signalfd, inotify, fanotify, pidfd, namespace,
	// tun, bpf map, outside, or what CRIU calls it.
	Kind     string   `json:"kind"`
	Access   string   `json:"access,omitempty"` // r, w, rw
	Flags    []string `json:"flags,omitempty"`  // others of open(2)
	Path     string   `json:"path,omitempty"`
	Deleted  bool     `json:"deleted,omitempty"`
	Position uint64   `json:"position,omitempty"`
	Size     uint64   `json:"size,omitempty"`
	Holders  []Holder `json:"holders,omitempty"`

	Pipe     *Pipe    `json:"pipe,omitempty"`
	Socket   *Socket  `json:"socket,omitempty"`
	Counter  *uint64  `json:"counter,omitempty"` // of an eventfd
	Epoll    []Target `json:"epoll,omitempty"`
	Timer    *Timer   `json:"timer,omitempty"`
	Signals  []string `json:"signals,omitempty"` // of a signalfd
	Watches  []Watch  `json:"watches,omitempty"`
	Terminal *TTY     `json:"terminal,omitempty"`
	// Of is the kind of a namespace, or the pid that a pidfd is of.
	Of string `json:"of,omitempty"`
}

// Holder is a process that has a descriptor of a file. A file in a message on its
// way has none.
type Holder struct {
	Pid int `json:"pid"`
	FD  int `json:"fd"`
}

func (h Holder) String() string { return fmt.Sprintf("%d/%d", h.Pid, h.FD) }

// holders puts them in words: "pid/fd, pid/fd".
func holders(all []Holder) string {
	const most = 4
	var words []string
	for n, h := range all {
		if n == most {
			words = append(words, fmt.Sprintf("and %d more", len(all)-most))
			break
		}
		words = append(words, h.String())
	}
	return strings.Join(words, ", ")
}

// Pipe is a pipe or a fifo: the id ties its ends together.
type Pipe struct {
	ID      uint32   `json:"id"`
	Waiting uint64   `json:"waiting"`          // bytes in it
	Others  []Holder `json:"others,omitempty"` // of the other end
}

// Target is what an epoll(7) instance waits for.
type Target struct {
	FD     int      `json:"fd"` // as it was when it was added
	Kind   string   `json:"kind,omitempty"`
	Events []string `json:"events"`
	Data   uint64   `json:"data"`
}

// Timer is a timerfd: when it goes off, and how often after that.
type Timer struct {
	Clock    string        `json:"clock"`
	Next     time.Duration `json:"nextNs"` // 0: never
	Interval time.Duration `json:"intervalNs,omitempty"`
	Expired  uint64        `json:"expired,omitempty"` // times that nobody has read
}

// Watch is of inotify(7) or fanotify(7).
type Watch struct {
	Path   string   `json:"path,omitempty"`
	Inode  uint64   `json:"inode,omitempty"`
	Events []string `json:"events"`
}

// TTY is what a terminal is.
type TTY struct {
	Kind    string `json:"kind"`
	Index   uint32 `json:"index,omitempty"`
	Session int    `json:"sid,omitempty"`
	Group   int    `json:"pgrp,omitempty"` // in the foreground
	Rows    uint32 `json:"rows,omitempty"`
	Columns uint32 `json:"columns,omitempty"`
	Waiting uint64 `json:"waiting,omitempty"` // bytes that nobody has read
}

// Name is the file in a line: its path, or what it is and who has the other end.
func (f *File) Name() string {
	var words []string
	if f.Path != "" {
		words = append(words, f.Path)
	}
	if f.Deleted {
		words = append(words, "(deleted)")
	}
	words = append(words, f.details()...)
	return strings.Join(words, " ")
}

func (f *File) details() []string {
	switch {
	case f.Pipe != nil:
		return f.Pipe.words(f.Access)
	case f.Socket != nil:
		return f.Socket.words()
	case f.Counter != nil:
		return []string{fmt.Sprintf("counter %d", *f.Counter)}
	case f.Kind == "epoll":
		return []string{"waits for " + targets(f.Epoll)}
	case f.Timer != nil:
		return f.Timer.words()
	case f.Kind == "signalfd":
		return []string{strings.Join(f.Signals, ",")}
	case f.Watches != nil:
		var words []string
		for _, w := range f.Watches {
			words = append(words, w.String())
		}
		return words
	case f.Terminal != nil:
		return f.Terminal.words()
	case f.Of != "":
		return []string{f.Of}
	case f.Position > 0 && f.Kind != "directory":
		return []string{fmt.Sprintf("at byte %d", f.Position)}
	}
	return nil
}

func (p *Pipe) words(access string) []string {
	words := []string{fmt.Sprintf("pipe %d", p.ID)}
	switch {
	case len(p.Others) > 0:
		words = append(words, "to "+holders(p.Others))
	case access != "rw": // one descriptor of a fifo can be both ends
		words = append(words, "to nobody in the container")
	}
	if p.Waiting > 0 {
		words = append(words, fmt.Sprintf("holds %d bytes", p.Waiting))
	}
	return words
}

func targets(all []Target) string {
	if len(all) == 0 {
		return "nothing"
	}
	var words []string
	for _, t := range all {
		words = append(words, strings.TrimSpace(fmt.Sprintf("%d %s", t.FD, t.Kind))+" ("+strings.Join(t.Events, ",")+")")
	}
	return strings.Join(words, ", ")
}

func (t *Timer) words() []string {
	words := []string{t.Clock}
	if t.Next == 0 {
		words = append(words, "not set")
	} else {
		words = append(words, "in "+t.Next.Round(time.Millisecond).String())
	}
	if t.Interval > 0 {
		words = append(words, "every "+t.Interval.String())
	}
	if t.Expired > 0 {
		words = append(words, fmt.Sprintf("expired %d times, unread", t.Expired))
	}
	return words
}

func (w Watch) String() string {
	what := w.Path
	if what == "" {
		what = fmt.Sprintf("inode %d", w.Inode)
	}
	return what + " (" + strings.Join(w.Events, ",") + ")"
}

func (t *TTY) words() []string {
	words := []string{t.Kind}
	if t.Kind == "pty" {
		words[0] = fmt.Sprintf("pty %d", t.Index)
	}
	if t.Session > 0 {
		words = append(words, fmt.Sprintf("of session %d", t.Session))
	}
	if t.Rows > 0 {
		words = append(words, fmt.Sprintf("%dx%d", t.Columns, t.Rows))
	}
	if t.Waiting > 0 {
		words = append(words, fmt.Sprintf("holds %d bytes", t.Waiting))
	}
	return words
}
