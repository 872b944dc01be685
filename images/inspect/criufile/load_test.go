package criufile

import (
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLoad(t *testing.T) {
	type process struct {
		Pid     uint32  `criu:"pid"`
		Parent  int     `criu:"ppid"`
		Session *uint64 `criu:"sid"`
		Other   string
	}
	got, err := Load[process]("testdata/zoo/pstree.img")
	if err != nil {
		t.Fatal(err)
	}
	one, six := uint64(1), uint64(6)
	want := []process{{1, 0, &one, ""}, {6, 1, &six, ""}, {7, 6, &six, ""}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("processes (-want +got):\n%s", diff)
	}
}

func TestLoadNested(t *testing.T) {
	type task struct {
		Comm  string `criu:"comm"`
		State int    `criu:"task_state"`
	}
	type registers struct {
		Mode string `criu:"mode"`
		IP   uint64 `criu:"ip"`
	}
	type thread struct {
		Registers registers `criu:"gpregs"`
	}
	type core struct {
		Machine string `criu:"mtype"`
		Task    *task  `criu:"tc"`
		Thread  thread `criu:"thread_info"`
	}
	got, err := Load[core]("testdata/zoo/core-1.img")
	if err != nil || len(got) != 1 {
		t.Fatal(got, err)
	}
	c := got[0]
	if c.Machine != "X86_64" || c.Task == nil || c.Task.Comm != "python3" || c.Task.State != 1 ||
		c.Thread.Registers.Mode != "NATIVE" || c.Thread.Registers.IP < 1<<46 {
		t.Errorf("core is %+v, %+v", c, c.Task)
	}
}

// A pagemap begins with another message, and payloads are there, too.
func TestLoadFirstAndExtra(t *testing.T) {
	type page struct {
		Type    string `criu:",type"`
		File    uint32 `criu:"pages_id"`
		Address uint64 `criu:"vaddr"`
		Pages   uint64 `criu:"nr_pages"`
	}
	pages, err := Load[page]("testdata/zoo/pagemap-1.img")
	if err != nil || len(pages) < 10 {
		t.Fatal(pages, err)
	}
	if first, second := pages[0], pages[1]; first.Type != "pagemap_head" || first.File == 0 || first.Pages != 0 ||
		second.Type != "pagemap_entry" || second.Address == 0 || second.Pages == 0 {
		t.Errorf("a pagemap begins with %+v", pages[:2])
	}
	type queued struct {
		For    uint32 `criu:"id_for"`
		Rights []struct {
			Descriptors []uint32 `criu:"rights"`
		} `criu:"scm"`
		Data []byte `criu:",extra"`
	}
	packets, err := Load[queued]("testdata/zoo/sk-queues.img")
	if err != nil || len(packets) != 2 {
		t.Fatal(packets, err)
	}
	if p := packets[1]; string(p.Data) != "with a descriptor" || len(p.Rights) != 1 || len(p.Rights[0].Descriptors) != 1 {
		t.Errorf("the packet is %+v", p)
	}
}

func TestLoadRefuses(t *testing.T) {
	const pstree = "testdata/zoo/pstree.img"
	check := func(name string, err error, want string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
	_, err := Load[struct {
		A int `criu:"nothing"`
	}](pstree)
	check("no field", err, `pstree_entry has no field "nothing"`)
	_, err = Load[struct {
		A string `criu:"pid"`
	}](pstree)
	check("wrong type", err, "pid: it cannot be a string")
	_, err = Load[struct {
		A int `criu:"threads"`
	}](pstree)
	check("no slice", err, "threads: int is no slice")
	_, err = Load[struct {
		A []uint8 `criu:"threads"`
	}](pstree)
	check("too narrow", err, "does not fit in uint8")
	_, err = Load[struct {
		A int    `criu:"pid"`
		B uint64 `criu:"pid"`
	}](pstree)
	check("two", err, "has two fields for it")
	if _, err = Load[struct{}]("testdata/zoo/nothing.img"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}
